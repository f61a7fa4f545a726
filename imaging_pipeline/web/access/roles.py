"""Roles, scopes and what they open.

A zone is entered with its own role: ``clinical`` says nothing about research, and the other way round. The research
zone asks for its project too.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Role(enum.StrEnum):
    """What a person is, in one zone."""

    CLINICAL = "clinical"
    """Sees what the clinical zone serves: originals, with their patients."""

    RESEARCH = "research"
    """Sees what the research zone serves, of the projects granted."""

    ANNOTATOR = "annotator"
    """May store objects (STOW-RS) where another role lets them see."""

    OPERATOR = "operator"
    """Reads the audit log; sees no image by it."""


class Scope(enum.StrEnum):
    """What a token may be used for: never more than the roles of its user."""

    READ = "read"
    WRITE = "write"
    AUDIT = "audit"


class Way(enum.StrEnum):
    """How somebody has shown who they are."""

    TOKEN = "token"  # noqa: S105 - no password
    SESSION = "session"
    OIDC = "oidc"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who is known.

    Attributes:
        name: of the user; those of an OpenID provider begin with ``oidc:``.
        roles: theirs now, not when the token was made.
        projects: research projects granted.
        scopes: of the token, session or link.
        via: how they have shown it.
        study: Study Instance UID of the one study a link opens; empty: no such limit.
    """

    name: str
    roles: frozenset[Role]
    projects: frozenset[str] = frozenset()
    scopes: frozenset[Scope] = field(default=frozenset(Scope))
    via: Way = Way.TOKEN
    study: str = ""


@dataclass(frozen=True, slots=True)
class Entrance:
    """What a zone asks of those who enter it.

    Attributes:
        zone: ``clinical`` or ``research``, which is also the role it asks for.
        project: the research project of the zone; empty: projects do not matter.
    """

    zone: str
    project: str = ""

    def may_read(self, principal: Principal) -> bool:
        """Whether they may see what the zone serves."""
        is_granted = not self.project or self.project in principal.projects
        return Role(self.zone) in principal.roles and is_granted and Scope.READ in principal.scopes

    def may_write(self, principal: Principal) -> bool:
        """Whether they may store objects in the zone; a link stores nothing."""
        is_annotator = Role.ANNOTATOR in principal.roles and Scope.WRITE in principal.scopes
        return is_annotator and self.may_read(principal) and not principal.study

    def may_audit(self, principal: Principal) -> bool:
        """Whether they may read the audit log."""
        return Role.OPERATOR in principal.roles and Scope.AUDIT in principal.scopes
