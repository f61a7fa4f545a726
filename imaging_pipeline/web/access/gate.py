"""The one object that decides who may do what in a zone's web service, and keeps the record of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import parse_qsl

import anyio
import anyio.to_thread
from fastapi import FastAPI, HTTPException
from starlette.requests import Request

from imaging_pipeline.settings import Settings, secret_of
from imaging_pipeline.web.access.accounts import TOKEN_PREFIX, Accounts
from imaging_pipeline.web.access.audit import AuditLog
from imaging_pipeline.web.access.links import PARAMETER, SignedLinks
from imaging_pipeline.web.access.oidc import OidcConfig, OpenIdProvider, load_oidc
from imaging_pipeline.web.access.oidc_login import CodeLogin
from imaging_pipeline.web.access.private import access_folder, private_folder, service_key
from imaging_pipeline.web.access.roles import Entrance, Principal

Value = TypeVar("Value")

_COOKIE: Final = "imaging_session"

_OIDC_THREADS: Final = 4
"""Threads that may wait for an OpenID provider: one that is slow does not take those that serve images."""

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

PUBLIC: Final = frozenset({"/login", "/login/provider", "/login/done", "/logout", "/health"})
"""Paths for everybody, and those below ``/link/``."""

OPERATOR_PAGES: Final = frozenset({"/audit", "/system"})
"""Paths for operators, whom the zone may show no image."""

QUESTIONS: Final = frozenset({"/studies"})
"""Paths where a form only asks: names and numbers of patients in it belong in no address."""

Knows = Callable[[str, str | None, str | None], bool]
"""Whether a zone has a study, or a series, or an instance of it."""

_STUDY_PATH: Final = re.compile(r"/(?:dicom-web/)?studies/([0-9.]{1,64})(?:/.*)?", re.DOTALL)
_STUDY_KEYS: Final = frozenset({"studyinstanceuid", "0020000d"})
_PLAIN_KEYS: Final = frozenset({"limit", "offset", "includefield", "fuzzymatching"})


class Refused(Exception):
    """A request that is not let through; the code says why and names nothing of it."""

    def __init__(self, status: int, code: str, principal: Principal | None = None) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.principal = principal


class Access:
    """Who may do what in one zone.

    Attributes:
        entrance: what the zone asks for.
        cookie: name of the session's cookie; browsers do not part cookies by port, so each zone has its own.
        accounts: users, tokens, sessions.
        links: links that expire.
        audit: the log.
        code_login: sends browsers to the OpenID provider to log in; None: it does not.
    """

    def __init__(
        self,
        zone: str,
        folder: Path,
        *,
        project: str = "",
        oidc: OidcConfig | None = None,
        oidc_secret: str | None = None,
        heads: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the users, key and audit log of a zone, making what is missing.

        Args:
            zone: ``clinical`` or ``research``.
            folder: for them; nothing outside it is opened.
            project: the research project whose data the zone serves.
            oidc: an OpenID provider that is believed too.
            oidc_secret: what it knows this service by, where it wants that.
            heads: folder for the head of the audit log (default: ``folder``).
            clock: seconds since 1970.

        Raises:
            ConfigurationError: others can get at the folder, or what is in it cannot be used.
        """
        private_folder(folder)
        key = service_key(folder / "service.key")
        self.cookie = f"{_COOKIE}_{zone}"
        self.entrance = Entrance(zone, project if zone == "research" else "")
        self.accounts = Accounts(folder / "access.sqlite", clock)
        self.links = SignedLinks(self.accounts, zone, key, clock)
        self.audit = AuditLog(folder, zone, key, heads=heads, clock=clock)
        self._oidc = OpenIdProvider(oidc, clock) if oidc else None
        self.code_login = (
            CodeLogin(self._oidc, oidc.client_id, oidc.scope, oidc_secret)
            if oidc and self._oidc and oidc.client_id
            else None
        )
        self._oidc_threads = anyio.CapacityLimiter(_OIDC_THREADS)

    def install(
        self,
        app: FastAPI,
        knows: Knows | None = None,
        *,
        study_page: str = "/studies/{study}",
        static: tuple[str, ...] = ("/viewer/",),
    ) -> None:
        """Put this in front of all routes of an application, with pages to log in and out.

        Args:
            app: nothing of it is reached any more without somebody whom the zone admits.
            knows: tells UIDs of the zone from others; on the research side only those are kept in the log.
            study_page: where a link to one study leads.
            static: below these, files without patients: a link to one study reaches them, and the log omits them.
        """
        from imaging_pipeline.web.access.middleware import AccessMiddleware  # noqa: PLC0415 - it needs this module
        from imaging_pipeline.web.access.pages import pages  # noqa: PLC0415

        app.include_router(pages(self, study_page))
        app.add_middleware(AccessMiddleware, access=self, knows=knows, static=static)

    def reader(self, request: Request) -> Principal:
        """FastAPI dependency: somebody who may see what the zone serves.

        Raises:
            HTTPException: 401, nobody has been let in.
        """
        principal: Principal | None = getattr(request.state, "principal", None)
        if principal is None:
            raise HTTPException(401, "log in or send a token")
        return principal

    def writer(self, request: Request) -> Principal:
        """FastAPI dependency: somebody who may store objects.

        Raises:
            HTTPException: 401 or 403.
        """
        principal = self.reader(request)
        if not self.entrance.may_write(principal):
            raise HTTPException(403, "this needs the role annotator")
        return principal

    def operator(self, request: Request) -> Principal:
        """FastAPI dependency: somebody who may read the audit log.

        Raises:
            HTTPException: 401 or 403.
        """
        principal = self.reader(request)
        if not self.entrance.may_audit(principal):
            raise HTTPException(403, "this needs the role operator")
        return principal

    async def admit(self, request: Request, static: tuple[str, ...] = ()) -> Principal | None:
        """Who asks, if the zone lets them do it; None on a path for everybody.

        Raises:
            Refused: it does not.
            TransientError: the OpenID provider is needed and out of reach.
        """
        path = request.scope["path"]
        if path in PUBLIC or path.startswith("/link/"):
            return None
        is_safe = request.method in SAFE_METHODS
        principal, is_cookie = await self._identify(request)
        if principal is None:
            raise Refused(401, "unknown")
        if is_cookie and not is_safe and not is_same_origin(request):
            raise Refused(403, "other_origin", principal)
        if path in OPERATOR_PAGES and self.entrance.may_audit(principal):
            return principal
        if not self.entrance.may_read(principal):
            raise Refused(403, "not_granted", principal)
        if not (is_safe or path in QUESTIONS) and not self.entrance.may_write(principal):
            raise Refused(403, "read_only", principal)
        if principal.study and not _is_within(request, principal.study, static):
            raise Refused(403, "other_study", principal)
        return principal

    async def of_bearer(self, text: str) -> tuple[Principal, float | None] | None:
        """Who sends a token of ours or of the OpenID provider, and until when it is good where it says so itself.

        Raises:
            TransientError: the OpenID provider is needed and out of reach.
        """
        if text.startswith(TOKEN_PREFIX):
            own = self.accounts.of_token(text)
            return (own, None) if own else None
        if self._oidc is None:
            return None
        return await self.ask_provider(partial(self._oidc.principal, text))

    async def ask_provider(self, call: Callable[[], Value]) -> Value:
        """What a call that waits for the OpenID provider gives; few wait at a time."""
        return await anyio.to_thread.run_sync(call, limiter=self._oidc_threads)

    async def _identify(self, request: Request) -> tuple[Principal | None, bool]:
        """Who asks, and whether a cookie says so. What is sent on purpose counts, good or not, before the cookie."""
        header = request.headers.get("authorization")
        if header is not None:
            kind, _, text = header.partition(" ")
            found = await self.of_bearer(text.strip()) if kind.lower() == "bearer" else None
            return (found[0] if found else None), False
        if PARAMETER in request.query_params:
            return self.links.of_path(request.scope["path"], request.scope["query_string"].decode("latin-1")), False
        value = request.cookies.get(self.cookie)
        return (self.accounts.of_session(value) if value else None), True


def open_access(settings: Settings, zone: str) -> Access:
    """The access of a zone of this installation: ``clinical`` or ``research``.

    Raises:
        ConfigurationError: others can get at its folder, or what is in it or in the OIDC file cannot be used.
    """
    oidc = load_oidc(settings.oidc) if settings.oidc else None
    return Access(
        zone,
        access_folder(settings, zone),
        project=settings.project,
        oidc=oidc,
        oidc_secret=secret_of(oidc.client_secret_variable) if oidc and oidc.client_secret_variable else None,
        heads=settings.audit_heads,
    )


def is_same_origin(request: Request) -> bool:
    """Whether a browser sends this from a page of this service (a page elsewhere cannot set these headers)."""
    origin = request.headers.get("origin")
    if origin is None:
        return request.headers.get("sec-fetch-site") == "same-origin"
    return origin.partition("://")[2] == request.headers.get("host")


def _is_within(request: Request, study: str, static: tuple[str, ...]) -> bool:
    """Whether a request is about one study alone, or for a file without patients."""
    path = request.scope["path"]
    if path.startswith(static) or path == "/me":
        return True
    if match := _STUDY_PATH.fullmatch(path):
        return match[1] == study
    asked = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    studies = [value for name, value in asked if name.lower() in _STUDY_KEYS]
    is_plain = all(name.lower() in _STUDY_KEYS | _PLAIN_KEYS for name, _ in asked)
    return path == "/dicom-web/studies" and is_plain and studies == [study]


def study_of(path: str) -> str:
    """Study Instance UID in a path of this service, or nothing."""
    match = _STUDY_PATH.fullmatch(path)
    return match[1] if match else ""
