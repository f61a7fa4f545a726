"""Retrieve Capabilities (PS3.18 8.9): what this service can do, as WADL (Annex H) or JSON, told by its own routes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from xml.etree import ElementTree as ET

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from imaging_pipeline.web.qido import JSON_TYPES, ROOT, XML, root_of
from imaging_pipeline.web.wado.media import accepted, not_acceptable

WADL: Final = "application/vnd.sun.wadl+xml"
JSON: Final = "application/json"

_NAMESPACE: Final = "http://wadl.dev.java.net/2009/02"
_PARAMETER: Final = re.compile(r"\{(\w+)")
_IMAGES: Final = ("image/jpeg", "image/png", "image/gif")
_DICOM: Final = 'multipart/related; type="application/dicom"'
_OCTETS: Final = 'multipart/related; type="application/octet-stream"'

MEDIA_TYPES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "search": (*JSON_TYPES, f'multipart/related; type="{XML}"'),
        "store": (_DICOM, "application/dicom"),
        "retrieve": (_DICOM, "application/zip"),
        "metadata": ("application/dicom+json",),
        "rendered": _IMAGES,
        "thumbnail": _IMAGES,
        "bulkdata": (_OCTETS, "application/octet-stream"),
        "frames": (_OCTETS, "application/octet-stream", "image/jpeg", "image/jls", "image/jp2", "image/dicom-rle"),
        "wado": ("application/dicom", *_IMAGES),
    }
)
"""Media types of a transaction, the default first: of what is answered, and of ``store`` what is taken."""

SEARCH_PARAMETERS: Final = (
    "{attribute}", "includefield", "fuzzymatching", "emptyvaluematching", "multiplevaluematching", "limit", "offset",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Capability:
    """One method of one resource.

    Attributes:
        path: below the root of the service.
        method: of HTTP.
        transaction: a key of :data:`MEDIA_TYPES`.
    """

    path: str
    method: str
    transaction: str


def router(services: Sequence[APIRouter]) -> APIRouter:
    """The capabilities of some services, at the root that they have in common."""
    routes = APIRouter()
    found = capabilities(services)

    def answer(request: Request) -> Response:
        for wanted in accepted(request):
            if wanted.admits(WADL):
                return Response(wadl(found, root_of(request)), media_type=WADL)
            if wanted.admits(JSON):
                return JSONResponse([_described(one) for one in found])
        raise not_acceptable([WADL, JSON])

    for path in (ROOT, f"{ROOT}/"):
        routes.add_route(path, answer, methods=["OPTIONS", "GET"])
    return routes


def capabilities(services: Sequence[APIRouter]) -> list[Capability]:
    """What the routes of services do, in the order of their paths."""
    found = [
        Capability(route.path, method, _transaction(route.path, method))
        for service in services
        for route in service.routes
        if isinstance(route, Route)
        for method in sorted(route.methods or ())
        if method != "HEAD"
    ]
    return sorted(found, key=lambda one: (one.path, one.method))


def wadl(found: Sequence[Capability], root: str) -> bytes:
    """The capabilities as a WADL document (PS3.18 Annex H)."""
    application = ET.Element("application", {"xmlns": _NAMESPACE})
    resources = ET.SubElement(application, "resources", {"base": root})
    known: dict[str, ET.Element] = {}
    for one in found:
        resource = known.get(one.path)
        if resource is None:
            resource = known[one.path] = ET.SubElement(resources, "resource", {"path": one.path.lstrip("/")})
            for name in _PARAMETER.findall(one.path):
                ET.SubElement(resource, "param", {"name": name, "style": "template", "required": "true"})
        _add_method(resource, one)
    text: bytes = ET.tostring(application, encoding="utf-8", xml_declaration=True)
    return text


def _add_method(resource: ET.Element, one: Capability) -> None:
    method = ET.SubElement(resource, "method", {"name": one.method, "id": f"{one.transaction}{one.path}"})
    request = ET.SubElement(method, "request")
    types = MEDIA_TYPES[one.transaction]
    if one.transaction == "store":
        for media_type in types:
            ET.SubElement(request, "representation", {"mediaType": media_type})
        return
    accept = ET.SubElement(request, "param", {"name": "Accept", "style": "header", "default": types[0]})
    for media_type in types:
        ET.SubElement(accept, "option", {"value": media_type})
    for name in SEARCH_PARAMETERS if one.transaction == "search" else ():
        ET.SubElement(request, "param", {"name": name, "style": "query"})
    response = ET.SubElement(method, "response", {"status": "200"})
    for media_type in types:
        ET.SubElement(response, "representation", {"mediaType": media_type})


def _described(one: Capability) -> dict[str, object]:
    described: dict[str, object] = {"path": one.path, "method": one.method, "transaction": one.transaction}
    described["media_types"] = MEDIA_TYPES[one.transaction]
    return described | ({"parameters": SEARCH_PARAMETERS} if one.transaction == "search" else {})


def _transaction(path: str, method: str) -> str:
    if method == "POST":
        return "store"
    last = [part for part in path.split("/") if not part.startswith("{")][-1]
    if last in ("studies", "series", "instances"):
        return "retrieve" if path.endswith("}") else "search"
    return last
