"""Addresses of the study pages. They hold UIDs and nothing else of a patient, and titles hold nothing at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from imaging_pipeline.web.access.gate import Access
from imaging_pipeline.web.access.pages import read_form
from imaging_pipeline.web.errors import WebError
from imaging_pipeline.web.index import Index
from imaging_pipeline.web.pages import searching, study, system
from imaging_pipeline.web.pages.rendering import STYLE, Page, as_page, page, refused
from imaging_pipeline.web.wado.answers import not_modified
from imaging_pipeline.web.zone import Zone

STATIC: Final = "/static/"

MOST_CHARACTERS: Final = 100
"""Of a part of an attribute's name."""

MODALITIES: Final = ("CR", "CT", "DX", "MG", "MR", "NM", "OT", "PT", "PX", "RF", "SEG", "SR", "US", "XA")
"""What the search form suggests; others may be typed."""


def router(zone: Zone, index: Index, access: Access, *, has_viewer: bool) -> APIRouter:
    """The routes of the pages.

    Args:
        zone: what is shown.
        index: finds studies, series and instances.
        access: who asks, and what they may see beside images.
        has_viewer: whether pages lead to the viewer.
    """
    pages = _Pages(zone, index, access, has_viewer=has_viewer)
    routes = APIRouter(include_in_schema=False)
    routes.add_route("/", _home)
    routes.add_route("/studies", pages.ask, methods=["POST"])
    instance = "/studies/{study}/series/{series}/instances/{instance}"
    shown: Mapping[str, Page] = {
        "/studies": pages.studies,
        "/studies/{study}": pages.study,
        "/studies/{study}/series/{series}": pages.series,
        instance: pages.instance,
        "/system": pages.system,
    }
    for path, endpoint in shown.items():
        routes.add_route(path, as_page(endpoint, pages.common))
    routes.add_route(STYLE, _style())
    return routes


class _Pages:
    """The pages of one zone."""

    def __init__(self, zone: Zone, index: Index, access: Access, *, has_viewer: bool) -> None:
        self._zone = zone
        self._index = index
        self._access = access
        self._has_viewer = has_viewer
        self._sealed = searching.Sealed()

    def common(self, request: Request) -> Mapping[str, Any]:
        """What every page needs."""
        principal = self._access.reader(request)
        return {
            "zone": self._zone.name,
            "is_clinical": self._zone.schema == "silver",
            "who": principal.name,
            "is_operator": self._access.entrance.may_audit(principal),
            "sees_all": self._access.entrance.may_read(principal) and not principal.study,
            "has_viewer": self._has_viewer,
        }

    async def ask(self, request: Request) -> Response:
        """What was typed, sealed into an address that can be turned over, reloaded and come back to."""
        try:
            form = searching.read(await read_form(request))
        except (WebError, HTTPException) as error:
            return refused(error, self.common(request))
        return RedirectResponse(f"/studies?q={self._sealed.seal(form)}" if form else "/studies", 303)

    def studies(self, request: Request) -> Response:
        """The study list."""
        sealed, number = request.query_params.get("q", ""), _number(request, "page")
        form = self._sealed.open(sealed) if sealed else {}
        status, problem = 200, ""
        try:
            found, total = searching.find(self._index, form, number)
        except WebError as error:  # the form stays, to be mended
            found, total, status, problem = [], 0, error.status, error.detail
        pages = -(-total // searching.PER_PAGE)
        values = {
            "title": "Studies",
            "form": dict.fromkeys(searching.FIELDS, "") | form,
            "modalities": MODALITIES,
            "q": sealed,
            "page": number,
            "pages": pages,
            "found": found,
            "total": total,
            "problem": problem,
            "held": self._index.held_studies(),
        }
        return page("studies.html", {**self.common(request), **values}, status)

    def study(self, request: Request) -> Response:
        """One study."""
        values = study.study_page(self._zone, self._index, request.path_params["study"])
        return page("study.html", {**self.common(request), "title": "Study", **values})

    def series(self, request: Request) -> Response:
        """The pictures of one series."""
        uids = (request.path_params["study"], request.path_params["series"])
        values = study.series_page(self._index, *uids, _number(request, "page"))
        return page("series.html", {**self.common(request), "title": "Series", **values})

    def instance(self, request: Request) -> Response:
        """One object: its picture, its attributes, and where it comes from."""
        uids = tuple(request.path_params[name] for name in ("study", "series", "instance"))
        wanted = request.query_params.get("find", "").strip()[:MOST_CHARACTERS]
        values = study.instance_page(self._zone, self._index, uids, wanted, _number(request, "frame"))
        return page("instance.html", {**self.common(request), "title": "Object", **values})

    def system(self, request: Request) -> Response:
        """What an operator looks at."""
        self._access.operator(request)
        values = {"title": "System", "tables": system.tables(self._zone)}
        return page("system.html", {**self.common(request), **values})


def _home(_request: Request) -> Response:
    return RedirectResponse("/studies")


def _style() -> Page:
    """The one style sheet, which a browser keeps until it changes."""
    data = (files("imaging_pipeline.web.pages") / "pages.css").read_bytes()
    headers = {"etag": f'"{hashlib.sha256(data).hexdigest()[:16]}"', "cache-control": "no-cache"}

    def style(request: Request) -> Response:
        return not_modified(request, headers) or Response(data, headers=headers, media_type="text/css")

    return style


def _number(request: Request, name: str) -> int:
    """A page or frame, from 1.

    Raises:
        WebError: 400.
    """
    text = request.query_params.get(name, "1")
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= searching.MOST_PAGES):
        raise WebError(400, f"{name} must be a whole number, 1 or more")
    return int(text[:9])
