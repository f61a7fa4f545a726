"""Pages of the gate itself: log in, log out, who am I, links to one study, the audit log."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import parse_qs, urlencode

from fastapi import APIRouter, Depends, HTTPException, Query
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from imaging_pipeline.web.access.gate import is_same_origin
from imaging_pipeline.web.access.oidc_login import MINUTES

if TYPE_CHECKING:
    from imaging_pipeline.web.access.gate import Access

MAX_FORM_BYTES: Final = 32_768

MAX_ROWS: Final = 1_000

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Log in</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{font:16px/1.5 sans-serif;max-width:32rem;margin:15vh auto;padding:0 1rem}}
input{{width:100%;box-sizing:border-box;padding:.5rem;margin:.3rem 0 1rem}}button{{padding:.5rem 1.5rem}}
.wrong{{color:#a00}}</style></head>
<body><h1>{zone} images</h1>{wrong}{provider}
<form method="post" action="/login"><input type="hidden" name="next" value="{next}">
<label>Access token <input name="token" type="password" autocomplete="current-password" required autofocus></label>
<button>Log in</button></form>
<p>Who runs this service makes tokens: <code>imaging-pipeline access token create NAME{zone_option}</code></p>
</body></html>
"""


def pages(access: Access, study_page: str) -> APIRouter:
    """The routes of the gate.

    Args:
        access: of the zone.
        study_page: where a link to one study leads; ``{study}`` stands for its UID.
    """
    router = APIRouter(include_in_schema=False)
    _add_sessions(router, access, study_page)

    @router.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/me")
    def me(request: Request) -> dict[str, Any]:
        principal = access.reader(request)
        return {
            "name": principal.name,
            "zone": access.entrance.zone,
            "roles": sorted(principal.roles),
            "projects": sorted(principal.projects),
            "may_write": access.entrance.may_write(principal),
            "study": principal.study or None,
        }

    @router.get("/audit", dependencies=[Depends(access.operator)])
    def audit(
        after: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=MAX_ROWS)] = 100
    ) -> list[dict[str, object]]:
        return list(access.audit.rows(after, limit))

    return router


def _add_sessions(router: APIRouter, access: Access, study_page: str) -> None:
    """The routes that begin and end a session."""

    @router.get("/login")
    def login_page(next: str = "/") -> Response:  # noqa: A002 - the name everybody knows from other services
        return _page(access, _local(next))

    _add_provider(router, access)

    @router.post("/login")
    async def login(request: Request) -> Response:
        form = await read_form(request)
        place = _local(form.get("next", "/"))
        token = form.get("token", "").strip()
        found = await access.of_bearer(token) if is_same_origin(request) else None
        if found is None or not (access.entrance.may_read(found[0]) or access.entrance.may_audit(found[0])):
            return _page(access, place, wrong="This token opens nothing here, or no more.")
        principal, until = found
        request.state.principal = principal
        return _with_session(request, access.cookie, place, *access.accounts.begin_session(principal, token, until))

    @router.post("/logout")
    def logout(request: Request) -> Response:
        if not is_same_origin(request):
            raise HTTPException(403, "other_origin")
        value = request.cookies.get(access.cookie, "")
        request.state.principal = access.accounts.of_session(value)
        access.accounts.end_session(value)
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(access.cookie)
        return answer

    @router.get("/link/{ticket}")
    def link(request: Request, ticket: str, study: str) -> Response:
        found = access.links.of_study(ticket, study)
        if found is None or not access.entrance.may_read(found[0]):
            raise HTTPException(403, "this link opens nothing, or no more")
        principal, until = found
        request.state.principal = principal
        place = study_page.format(study=study)
        return _with_session(request, access.cookie, place, *access.accounts.begin_session(principal, until=until))


def _add_provider(router: APIRouter, access: Access) -> None:
    """The routes by which a browser goes to the OpenID provider and comes back."""
    code_login, cookie = access.code_login, f"{access.cookie}_login"
    if code_login is None:
        return

    @router.get("/login/provider")
    async def to_provider(request: Request, next: str = "/") -> Response:  # noqa: A002 - as above
        back = str(request.base_url.replace(path="/login/done"))
        begun = await access.ask_provider(partial(code_login.begin, back, _local(next)))
        answer = RedirectResponse(begun.address, 303, {"cache-control": "no-store"})
        is_secure = request.url.scheme == "https"
        answer.set_cookie(
            cookie, begun.cookie, max_age=60 * MINUTES, path="/login", secure=is_secure, httponly=True, samesite="lax"
        )
        return answer

    @router.get("/login/done")
    async def from_provider(request: Request) -> Response:
        finish = partial(code_login.finish, request.cookies.get(cookie, ""), dict(request.query_params))
        found = await access.ask_provider(finish)
        if found is None:
            return _page(access, "/", wrong="The log-in was not finished. Try again.")
        principal, place = found
        if not (access.entrance.may_read(principal) or access.entrance.may_audit(principal)):
            request.state.principal = principal
            return _page(access, place, wrong="You have logged in, and your groups open nothing here.")
        request.state.principal = principal
        answer = _with_session(request, access.cookie, place, *access.accounts.begin_session(principal))
        answer.delete_cookie(cookie, path="/login")
        return answer


def _page(access: Access, place: str, *, wrong: str = "") -> Response:
    text = f'<p class="wrong">{escape(wrong)}</p>' if wrong else ""
    provider = ""
    if access.code_login is not None:
        provider = (
            f'<p><a href="/login/provider?{escape(urlencode({"next": place}))}">Log in with OpenID Connect</a></p>'
        )
    html = _PAGE.format(
        zone=escape(access.entrance.zone.capitalize()),
        zone_option="" if access.entrance.zone == "research" else f" --zone {access.entrance.zone}",
        next=escape(place),
        wrong=text,
        provider=provider,
    )
    headers = {"content-security-policy": _POLICY, "cache-control": "no-store"}
    return HTMLResponse(html, 403 if wrong else 200, headers)


def _with_session(request: Request, cookie: str, place: str, value: str, seconds: float) -> Response:
    """Go to a place with a session, which no script can read and no other site can use."""
    answer = RedirectResponse(place, 303)
    is_secure = request.url.scheme == "https"
    answer.set_cookie(cookie, value, max_age=int(seconds), secure=is_secure, httponly=True, samesite="lax")
    return answer


def _local(place: str) -> str:
    """A path of this service; anything that would lead elsewhere becomes the first page."""
    is_local = place.startswith("/") and not place.startswith("//") and "\\" not in place and place.isprintable()
    return place if is_local else "/"


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a small form.

    Raises:
        HTTPException: 413, it is larger than any form of ours; 400, it did not come whole.
    """
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > MAX_FORM_BYTES:
                raise HTTPException(413, "a form is not as long as this")
    except ClientDisconnect:
        raise HTTPException(400, "the form did not come whole") from None
    return {name: values[0] for name, values in parse_qs(body.decode("latin-1")).items()}
