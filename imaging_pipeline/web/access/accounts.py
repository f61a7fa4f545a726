"""Users, their tokens and their sessions, in one SQLite file of a zone.

Secrets are kept as digests: the file does not let anyone in. What a token or session opens is looked up at each use, so
that revoking a user or token, or taking a role away, acts at once.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.sqlite import connect, transaction
from imaging_pipeline.web.access.private import private_file
from imaging_pipeline.web.access.roles import Principal, Role, Scope, Way

TOKEN_DAYS: Final = 90
"""How long a token is good when nothing else is said."""

MAX_TOKEN_DAYS: Final = 366

SESSION_SECONDS: Final = 12 * 3600.0
"""How long a browser stays logged in, at most."""

TOKEN_PREFIX: Final = "ipt_"  # noqa: S105 - lets a scanner of secrets, and this service, tell them from others
_TOKEN: Final = re.compile(rf"{TOKEN_PREFIX}([0-9a-f]{{12}})_([0-9a-f]{{64}})")
_USER: Final = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_PROJECT: Final = re.compile(r"[^\s,]([^\n,]{0,62}[^\s,])?")
_DAY_SECONDS: Final = 86_400.0
_SECRET_BYTES: Final = 32
_LINKS: Final = "links"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS user (
    name TEXT PRIMARY KEY, roles TEXT NOT NULL, projects TEXT NOT NULL, is_active INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS token (
    token_id TEXT PRIMARY KEY, user TEXT NOT NULL REFERENCES user, digest BLOB NOT NULL, scopes TEXT NOT NULL,
    expires_at REAL NOT NULL, is_revoked INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS session (
    digest BLOB PRIMARY KEY, token_id TEXT REFERENCES token, principal TEXT, expires_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS epoch (name TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class User:
    """A user of the zone, as its operator sees them."""

    name: str
    roles: frozenset[Role]
    projects: frozenset[str]
    is_active: bool


@dataclass(frozen=True, slots=True)
class Token:
    """A token; its text is there only where it was made.

    Attributes:
        token_id: names it in lists and for revoking; no secret.
        user: whose it is.
        scopes: what it may be used for.
        expires_at: seconds since 1970.
        is_revoked: it opens nothing any more.
        text: what its user sends.
    """

    token_id: str
    user: str
    scopes: frozenset[Scope]
    expires_at: float
    is_revoked: bool = False
    text: str = field(default="", repr=False)


class Accounts:
    """The users of one zone."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Open the file at ``path``, making it (0600) when it is missing; its folder must be there."""
        self._path = path
        self._clock = clock
        self._local = threading.local()
        private_file(path)
        self._connection.executescript(_SCHEMA)

    def add_user(self, name: str, roles: Iterable[Role], projects: Iterable[str] = ()) -> User:
        """Add a user, or give one that is there these roles and projects instead, and make them active.

        Raises:
            ConfigurationError: the name or a project cannot be one, or there is no role.
        """
        wanted, granted = frozenset(roles), frozenset(projects)
        if not _USER.fullmatch(name):
            raise ConfigurationError(
                "a user's name is 1 to 64 characters of a-z, 0-9 and . _ @ -; the first is none of these four"
            )
        if not wanted:
            raise ConfigurationError(f"a user needs a role: {', '.join(Role)}")
        if not all(_PROJECT.fullmatch(project) for project in granted):
            raise ConfigurationError("a project's name has 1 to 64 characters and no comma")
        self._connection.execute(
            "INSERT INTO user VALUES (?, ?, ?, 1) ON CONFLICT (name) DO UPDATE SET "
            "roles = excluded.roles, projects = excluded.projects, is_active = 1",
            (name, _joined(wanted), _joined(granted)),
        )
        return User(name, wanted, granted, is_active=True)

    def revoke_user(self, name: str) -> None:
        """Let a user in no more, neither by tokens nor by sessions or links; the tokens stay dead.

        Raises:
            ConfigurationError: there is no such user.
        """
        with self._transaction() as connection:
            if not connection.execute("UPDATE user SET is_active = 0 WHERE name = ?", (name,)).rowcount:
                raise ConfigurationError("there is no such user; 'imaging-pipeline access user list' names them")
            connection.execute("UPDATE token SET is_revoked = 1 WHERE user = ?", (name,))

    def users(self) -> list[User]:
        """All users, by name."""
        rows = self._connection.execute("SELECT name, roles, projects, is_active FROM user ORDER BY name")
        return [User(name, _roles(roles), _split(projects), bool(active)) for name, roles, projects, active in rows]

    def create_token(
        self, user: str, scopes: Iterable[Scope] = (Scope.READ, Scope.WRITE), days: float = TOKEN_DAYS
    ) -> Token:
        """Make a token, whose text is shown this once.

        Args:
            user: an active user.
            scopes: what it may be used for, within the user's roles.
            days: how long it is good, at most :data:`MAX_TOKEN_DAYS`.

        Raises:
            ConfigurationError: there is no such active user, or the days are not allowed.
        """
        if not 0 < days <= MAX_TOKEN_DAYS:
            raise ConfigurationError(f"a token is good for more than 0 and at most {MAX_TOKEN_DAYS} days")
        token_id, secret = secrets.token_hex(6), secrets.token_hex(_SECRET_BYTES)
        text = f"{TOKEN_PREFIX}{token_id}_{secret}"
        token = Token(token_id, user, frozenset(scopes), self._clock() + days * _DAY_SECONDS, text=text)
        with self._transaction() as connection:
            self.active(user)
            connection.execute(
                "INSERT INTO token VALUES (?, ?, ?, ?, ?, 0)",
                (token_id, user, _digest(secret), _joined(token.scopes), token.expires_at),
            )
        return token

    def revoke_token(self, token_id: str) -> None:
        """Let a token, and the sessions begun with it, open nothing any more.

        Raises:
            ConfigurationError: there is no such token.
        """
        if not self._connection.execute("UPDATE token SET is_revoked = 1 WHERE token_id = ?", (token_id,)).rowcount:
            raise ConfigurationError("there is no such token; 'imaging-pipeline access token list' names them")

    def tokens(self) -> list[Token]:
        """All tokens, by user, without their texts."""
        query = "SELECT token_id, user, scopes, expires_at, is_revoked FROM token ORDER BY user, expires_at, token_id"
        rows = self._connection.execute(query)
        return [Token(token, user, _scopes(scopes), end, bool(revoked)) for token, user, scopes, end, revoked in rows]

    def active(self, user: str) -> User:
        """A user who is let in.

        Raises:
            ConfigurationError: there is none of that name.
        """
        found = next((each for each in self.users() if each.name == user and each.is_active), None)
        if found is None:
            raise ConfigurationError("there is no such active user; add one with 'imaging-pipeline access user add'")
        return found

    def of_token(self, text: str) -> Principal | None:
        """Who sends a token; None: it opens nothing."""
        match = _TOKEN.fullmatch(text)
        row = self._live_token(match[1]) if match else None
        if match is None or row is None or not hmac.compare_digest(row[1], _digest(match[2])):
            return None
        return row[0]

    def begin_session(self, principal: Principal, token: str = "", until: float | None = None) -> tuple[str, float]:
        """Begin a browser's session; its secret, and how many seconds it lasts at most.

        Args:
            principal: who has logged in.
            token: the token they did it with: the session ends with it. Without one they stay who they are now.
            until: end of what they have shown (seconds since 1970).
        """
        now = self._clock()
        match = _TOKEN.fullmatch(token)
        end = min([now + SESSION_SECONDS] + ([until] if until is not None else []))
        value = secrets.token_urlsafe(_SECRET_BYTES)
        row = (_digest(value), match[1] if match else None, None if match else _as_json(principal), end)
        with self._transaction() as connection:
            connection.execute("DELETE FROM session WHERE expires_at <= ?", (now,))
            connection.execute("INSERT INTO session VALUES (?, ?, ?, ?)", row)
        return value, max(0.0, end - now)

    def of_session(self, value: str) -> Principal | None:
        """Whose session it is; None: it has ended, or never was."""
        query = "SELECT token_id, principal FROM session WHERE digest = ? AND expires_at > ?"
        row = self._connection.execute(query, (_digest(value), self._clock())).fetchone()
        if row is None:
            return None
        if row[0] is None:
            return self._still(_from_json(row[1]))
        found = self._live_token(row[0])
        return _by(found[0], Way.SESSION) if found else None

    def end_session(self, value: str) -> None:
        """End a session; one that is not there is no error."""
        self._connection.execute("DELETE FROM session WHERE digest = ?", (_digest(value),))

    def link_epoch(self) -> int:
        """How often the key of links was changed."""
        row = self._connection.execute("SELECT number FROM epoch WHERE name = ?", (_LINKS,)).fetchone()
        return int(row[0]) if row else 0

    def revoke_links(self) -> None:
        """Change the key of links: none that was made before opens anything, nor do sessions begun with one."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO epoch VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET number = number + 1", (_LINKS,)
            )
            connection.execute(
                "DELETE FROM session WHERE principal IS NOT NULL AND json_extract(principal, '$.via') = ?", (Way.LINK,)
            )

    def _still(self, principal: Principal) -> Principal | None:
        """Somebody without a token: who made the link must still be let in; the others have an end of their own."""
        return self.as_link(principal.name, principal.study) if principal.via is Way.LINK else principal

    def as_link(self, user: str, study: str = "") -> Principal | None:
        """Who comes with a link of a user: their roles now, to read alone; None: the user is let in no more."""
        row = self._connection.execute(
            "SELECT roles, projects FROM user WHERE name = ? AND is_active", (user,)
        ).fetchone()
        if row is None:
            return None
        return Principal(user, _roles(row[0]), _split(row[1]), frozenset({Scope.READ}), Way.LINK, study)

    def _live_token(self, token_id: str) -> tuple[Principal, bytes] | None:
        """Whose token it is, with the digest of its secret, if it is good now."""
        query = """
        SELECT name, roles, projects, scopes, digest FROM token JOIN user ON user.name = token.user
        WHERE token_id = ? AND NOT is_revoked AND is_active AND expires_at > ?
        """
        row = self._connection.execute(query, (token_id, self._clock())).fetchone()
        if row is None:
            return None
        name, roles, projects, scopes, digest = row
        return Principal(name, _roles(roles), _split(projects), _scopes(scopes)), digest

    @property
    def _connection(self) -> sqlite3.Connection:
        """A connection for each thread; looking up a token is far cheaper than opening the file."""
        if not hasattr(self._local, "connection"):
            self._local.connection = connect(self._path)
        connection: sqlite3.Connection = self._local.connection
        return connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with transaction(self._connection):
            yield self._connection


def _by(principal: Principal, via: Way) -> Principal:
    return Principal(principal.name, principal.roles, principal.projects, principal.scopes, via, principal.study)


def _digest(secret: str) -> bytes:
    """What is kept of a secret of 256 random bits: too many to be guessed, so it needs no slow hash."""
    return hashlib.sha256(secret.encode()).digest()


def _joined(values: Iterable[str]) -> str:
    return ",".join(sorted(values))


def _split(text: str) -> frozenset[str]:
    return frozenset(filter(None, text.split(",")))


def _roles(text: str) -> frozenset[Role]:
    return frozenset(map(Role, _split(text)))


def _scopes(text: str) -> frozenset[Scope]:
    return frozenset(map(Scope, _split(text)))


def _as_json(principal: Principal) -> str:
    return json.dumps(
        {
            "name": principal.name,
            "roles": sorted(principal.roles),
            "projects": sorted(principal.projects),
            "scopes": sorted(principal.scopes),
            "via": principal.via,
            "study": principal.study,
        }
    )


def _from_json(text: str) -> Principal:
    values = json.loads(text)
    return Principal(
        values["name"],
        frozenset(map(Role, values["roles"])),
        frozenset(values["projects"]),
        frozenset(map(Scope, values["scopes"])),
        Way(values["via"]),
        values["study"],
    )
