"""In front of every route: who asks, whether they may, and the row in the audit log before the first byte leaves.

Whatever a route forgets, nobody unknown gets past this, and an error inside a route becomes an answer and a line of log
without any value of the request or the data.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imaging_pipeline.errors import ImagingError
from imaging_pipeline.web.access.audit import DENIED, FAILED, OK, REFUSED, Event
from imaging_pipeline.web.access.gate import QUESTIONS, SAFE_METHODS, Access, Knows, Refused, study_of
from imaging_pipeline.web.access.links import PARAMETER
from imaging_pipeline.web.access.recorder import Recorder, Tally
from imaging_pipeline.web.access.roles import Principal

_LOG: Final = logging.getLogger(__name__)
_UID: Final = re.compile(r"[0-9.]{1,64}")
_ACTIONS: Final = {
    "/login": "login",
    "/login/done": "login",
    "/logout": "logout",
    "/link/{ticket}": "link",
    "/audit": "audit",
}
_SEARCHES: Final = ("/studies", "/series", "/instances")
_QUIET: Final = frozenset({"/me", "/health", "/login", "/login/provider"})
"""Pages on which no patient is seen; trying to log in is no safe method, and is recorded."""
_HEADERS: Final = {"x-content-type-options": "nosniff", "referrer-policy": "same-origin"}


BODY_SECONDS: Final = 60.0
"""How long a request's body may pause: each one under way holds memory, and a place among the stores."""


class AnswerBroken(Exception):
    """An answer that had begun could not be finished; what went wrong is in the log."""


class AccessMiddleware:
    """See `Access.install`."""

    def __init__(self, app: ASGIApp, access: Access, knows: Knows | None, static: tuple[str, ...]) -> None:
        self._app = app
        self._access = access
        self._knows = knows
        self._static = static
        self._recorder = Recorder(access.audit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the life of the process."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, self._flushing(send))
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Answer(self, scope, receive, send)
        try:
            await self._let_in(Request(scope), answer)
        except Exception as error:  # noqa: BLE001 - its text may hold what was read; its place may not
            _LOG.error("an answer failed: %s at %s", type(error).__name__, _place(error))
            if answer.is_begun:
                raise AnswerBroken from None
            await self._apologize(answer, error)

    async def _let_in(self, request: Request, answer: _Answer) -> None:
        try:
            request.state.principal = await self._access.admit(request, self._static)
        except Refused as refused:
            request.state.principal = refused.principal
            answer.code = refused.code
            await _refusal(request, refused)(answer.scope, answer.receive, answer.send)
        else:
            await self._app(answer.scope, answer.receive, answer.send)

    async def _apologize(self, answer: _Answer, error: Exception) -> None:
        """Answer that something failed, also where it is the log that cannot be written."""
        answer.code = type(error).__name__
        status = 503 if isinstance(error, ImagingError) else 500
        try:
            await _failure(status)(answer.scope, answer.receive, answer.send)
        except ImagingError:
            await _failure(503)(answer.scope, answer.receive, answer.sending)

    def _flushing(self, send: Send) -> Send:
        """Tells the server that the application has ended once what was counted is written."""

        async def flushing(message: Message) -> None:
            if message["type"] == "lifespan.shutdown.complete":
                await self._recorder.flush()
            await send(message)

        return flushing

    async def record(self, scope: Scope, status: int, received: int, code: str) -> Tally | None:
        """Write or count the row of an answer that is about to begin.

        Raises:
            ImagingError: it cannot be written, so nothing may be answered.
        """
        principal: Principal | None = scope.get("state", {}).get("principal")
        resource = _resource(scope)
        is_safe = scope["method"] in SAFE_METHODS
        if is_safe and status < 400 and (resource in _QUIET or scope["path"].startswith(self._static)):
            return None
        asked = _asked(scope) if principal else ("", "", "")  # else each made-up UID would become a row
        event = Event(
            action=_action(resource, is_safe=is_safe),
            who=principal.name if principal else "",
            via=principal.via if principal else "",
            resource=resource,
            outcome=_outcome(status),
            detail=code or str(status),
        )
        if is_safe or principal is None:
            return await self._recorder.count((event, *asked[:2]), lambda: self._with_uids(event, *asked))
        row = await run_in_threadpool(self._with_uids, replace(event, bytes=received), *asked)
        await self._recorder.write(row)
        return None

    def _with_uids(self, event: Event, study: str, series: str, instance: str) -> Event:
        """With what was asked for; on the research side only if it is one of its own: it might be an original's."""
        if self._access.entrance.zone == "research":
            is_known = self._knows is not None and study and self._knows(study, series or None, instance or None)
            if not is_known:
                return event
        return replace(event, study=study, series=series, instance=instance)


@dataclass(slots=True)
class _Answer:
    """One answer on its way, between application and server."""

    middleware: AccessMiddleware
    scope: Scope
    receiving: Receive
    sending: Send
    code: str = ""
    received: int = 0
    is_whole: bool = False
    is_begun: bool = False
    tally: Tally | None = None

    async def receive(self) -> Message:
        """A message of the client; its bytes are counted. A body that stops coming is one that was broken off."""
        try:
            message = await asyncio.wait_for(self.receiving(), None if self.is_whole else BODY_SECONDS)
        except TimeoutError:
            return {"type": "http.disconnect"}
        self.received += len(message.get("body", b""))
        self.is_whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """A message to the client; the first goes after its row is in the log."""
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self.tally is not None:
            self.tally.bytes += len(message.get("body", b""))
        await self.sending(message)

    async def _begin(self, message: Message) -> None:
        self.tally = await self.middleware.record(self.scope, message["status"], self.received, self.code)
        self.is_begun = True
        headers = MutableHeaders(scope=message)
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)
        headers.setdefault("cache-control", "private")


def _refusal(request: Request, refused: Refused) -> Response:
    """A person is sent to log in; a program is told the status."""
    if refused.status == 401 and request.method == "GET" and "text/html" in request.headers.get("accept", ""):
        url = request.url.remove_query_params(PARAMETER)
        place = f"{url.path}?{url.query}" if url.query else url.path
        return RedirectResponse(f"/login?next={quote(place)}", 303)
    headers = {"www-authenticate": "Bearer"} if refused.status == 401 else None
    return JSONResponse({"detail": refused.code}, refused.status, headers)


def _failure(status: int) -> Response:
    return JSONResponse({"detail": "the service could not answer; its log says where it failed"}, status)


def _resource(scope: Scope) -> str:
    """The route that answers, as ``/studies/{study}``; empty: none was reached."""
    whole = getattr(scope.get("fastapi", {}).get("effective_route_context"), "path_format", None)
    found = whole or getattr(scope.get("route"), "path_format", "")
    if found or not inspect.isroutine(scope.get("endpoint")):
        return str(found)
    # A plain route of Starlette: its parameters put back into the path.
    names = {str(value): f"{{{name}}}" for name, value in scope.get("path_params", {}).items()}
    return "/".join(names.get(part, part) for part in scope["path"].split("/"))


def _asked(scope: Scope) -> tuple[str, str, str]:
    """Study, series and instance that the path names, as far as they can be UIDs."""
    found = scope.get("path_params") or {"study": study_of(scope["path"])}
    study, series, instance = (
        text if _UID.fullmatch(text := str(found.get(name, ""))) else "" for name in ("study", "series", "instance")
    )
    return study, series, instance


def _action(resource: str, *, is_safe: bool) -> str:
    if resource in _ACTIONS:
        return _ACTIONS[resource]
    if not is_safe and resource not in QUESTIONS:
        return "store"
    return "search" if resource.endswith(_SEARCHES) else "view"


def _outcome(status: int) -> str:
    if status < 400:
        return OK
    if status in {401, 403}:
        return DENIED
    return REFUSED if status < 500 else FAILED


def _place(error: Exception) -> str:
    """Where in this package an error came from, without its text."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_ours(Path(frame.filename))] or frames
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "an unknown place"


def _is_ours(path: Path) -> bool:
    return "imaging_pipeline" in path.parts and path != Path(__file__)
