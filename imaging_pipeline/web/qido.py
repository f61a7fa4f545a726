"""QIDO-RS: searches for studies, series and instances (PS3.18 10.6).

Reads requests and writes answers; what matches is decided by the serving index.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from fastapi import APIRouter
from pydicom.datadict import dictionary_VR, tag_for_keyword
from starlette.requests import Request
from starlette.responses import Response

from imaging_pipeline.web.access.links import PARAMETER
from imaging_pipeline.web.errors import WebError
from imaging_pipeline.web.index import Answer, Index, Level, Match, Search
from imaging_pipeline.web.index.attributes import Document, dumped
from imaging_pipeline.web.index.searching import can_compare, level_of
from imaging_pipeline.web.matching import EMPTY, Condition, UnmatchableValue
from imaging_pipeline.web.native_xml import native_xml
from imaging_pipeline.web.wado.answers import Endpoint, answered
from imaging_pipeline.web.wado.media import JSON, accepted, not_acceptable
from imaging_pipeline.web.wado.multipart import boundary_of, content_type, head, write

MOST_RESULTS: Final = 1_000
"""Matches of one answer, also when more are asked for; further ones are told of by a Warning and had by ``offset``."""

MOST_HEADERS: Final = 20_000
"""Instances of one study whose headers are looked into."""

MOST_KEYS: Final = 100
"""Attributes of one search."""

MOST_LEVELS: Final = 16
"""Tags in a key, from the top level down."""

MOST_CHARACTERS: Final = 1_000
"""Of the value of a key that is no list of UIDs; SQLite takes no longer chain of alternatives."""

MOST_DIGITS: Final = 9
"""Of ``limit`` and ``offset``."""

ROOT: Final = "/dicom-web"
"""Path below which DICOMweb is served."""

ALL: Final = "all"
XML: Final = "application/dicom+xml"

JSON_TYPES: Final = (JSON, "application/json")
_FLAGS: Final = ("fuzzymatching", "emptyvaluematching", "multiplevaluematching")
_NO_ATTRIBUTES: Final = frozenset({"limit", "offset", "includefield", "accept", "charset", PARAMETER, *_FLAGS})
_HEX: Final = re.compile(r"[0-9A-Fa-f]{8}").fullmatch
_UID: Final = re.compile(r"[0-9.]{1,64}").fullmatch
_CACHING: Final = {"cache-control": "private, no-cache", "vary": "accept"}


def router(index: Index) -> APIRouter:
    """The search resources, without their prefix."""
    routes = APIRouter()
    for path, level in (
        ("/studies", Level.STUDY),
        ("/series", Level.SERIES),
        ("/studies/{study}/series", Level.SERIES),
        ("/instances", Level.INSTANCE),
        ("/studies/{study}/instances", Level.INSTANCE),
        ("/studies/{study}/series/{series}/instances", Level.INSTANCE),
    ):
        routes.add_route(path, answered(_endpoint(index, level)))
    return routes


def _endpoint(index: Index, level: Level) -> Endpoint:
    def endpoint(request: Request) -> Response:
        media_type = _media_type(request)
        search, warnings = search_of(request, level)
        if search.study is not None and not index.knows(search.study, search.series):
            raise WebError(HTTPStatus.NOT_FOUND, "there is no such study or series")
        if search.needs_headers and len(index.instances(search.study or "", search.series)) > MOST_HEADERS:
            raise WebError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"this attribute is looked for in at most {MOST_HEADERS} instances: name a series",
            )
        try:
            found = index.search(search)
        except UnmatchableValue:
            raise WebError(HTTPStatus.BAD_REQUEST, "the value of a key does not fit its representation") from None
        if found.remaining:
            warnings.append(f"There are {found.remaining} additional results that can be requested")
        return _answer(request, found, media_type, warnings)

    return endpoint


def search_of(request: Request, level: Level) -> tuple[Search, list[str]]:
    """What a request looks for, and what of it is not done.

    Raises:
        WebError: 400, a key, value or number cannot be understood.
    """
    study, series = (_uid(request, name) for name in ("study", "series"))
    flags = {name: _flag(request, name) for name in _FLAGS}
    conditions: list[Condition] = []
    ignored: list[str] = []
    for key, value in request.query_params.multi_items():
        if key.lower() in _NO_ATTRIBUTES:
            continue
        path = path_of(key)
        if path in [known.path for known in conditions]:
            raise WebError(HTTPStatus.BAD_REQUEST, f"the attribute {'.'.join(path)} is asked for twice")
        _refuse_too_much(path, value, len(conditions) + len(ignored))
        finds_empty = flags["emptyvaluematching"] and value.strip() == EMPTY
        condition = Condition(path, _vr(path), value, flags["multiplevaluematching"], finds_empty)
        is_near = level is Level.INSTANCE and study is not None  # headers are looked into
        if can_compare(condition) and (condition.is_universal or is_near or level_of(path) is not None):
            conditions.append(condition)
        else:
            ignored.append(".".join(path))
    warnings = [f"The attributes {', '.join(ignored)} cannot be matched here and were ignored"] if ignored else []
    fields = _fields(request) | {condition.path[0] for condition in conditions}
    limit = _number(request, "limit", MOST_RESULTS)
    search = Search(
        level=level,
        study=study,
        series=series,
        conditions=tuple(conditions),
        fields=frozenset(fields - {ALL}),
        has_all_fields=ALL in fields,
        is_fuzzy=flags["fuzzymatching"],
        limit=min(limit, MOST_RESULTS),
        offset=_number(request, "offset", 0),
        counts_rest=limit >= MOST_RESULTS,
    )
    return search, warnings


def _refuse_too_much(path: tuple[str, ...], value: str, keys: int) -> None:
    if keys >= MOST_KEYS:
        raise WebError(HTTPStatus.BAD_REQUEST, f"a search has at most {MOST_KEYS} attributes")
    if len(path) > MOST_LEVELS:
        raise WebError(HTTPStatus.BAD_REQUEST, f"a key has at most {MOST_LEVELS} levels")
    if len(value) > MOST_CHARACTERS and _vr(path) != "UI":
        raise WebError(HTTPStatus.BAD_REQUEST, f"the value of a key is longer than {MOST_CHARACTERS} characters")


def path_of(key: str) -> tuple[str, ...]:
    """Tags of a key: keywords or eight hexadecimal digits, with dots between them (PS3.18 8.3.1.1).

    >>> path_of("RequestAttributesSequence.00401001")
    ('00400275', '00401001')

    Raises:
        WebError: 400, no attribute has this name.
    """
    tags = [part if _HEX(part) else tag_for_keyword(part) for part in key.split(".")]
    if None in tags:
        raise WebError(HTTPStatus.BAD_REQUEST, "a key is neither a keyword, a tag, nor a parameter of searches")
    return tuple(tag.upper() if isinstance(tag, str) else f"{tag:08X}" for tag in tags)


def _vr(path: tuple[str, ...]) -> str:
    """Value representation of an attribute; of one that is in no dictionary, text."""
    try:
        return dictionary_VR(int(path[-1], 16)).partition(" ")[0]
    except KeyError:
        return "LO"


def _fields(request: Request) -> set[str]:
    names = [name for text in request.query_params.getlist("includefield") for name in text.split(",") if name.strip()]
    return {ALL if name.strip().lower() == ALL else path_of(name.strip())[0] for name in names}


def _flag(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "false").lower()
    if value not in ("true", "false"):
        raise WebError(HTTPStatus.BAD_REQUEST, f"{name} must be true or false")
    return value == "true"


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS):
        raise WebError(HTTPStatus.BAD_REQUEST, f"{name} must be a whole number, 0 or more")
    return int(text)


def _uid(request: Request, name: str) -> str | None:
    uid = request.path_params.get(name)
    if uid is not None and not _UID(uid):
        raise WebError(HTTPStatus.BAD_REQUEST, f"the {name} in the path is no UID")
    return uid


def _media_type(request: Request) -> str:
    for wanted in accepted(request):
        known = (XML,) if wanted.is_multipart else JSON_TYPES
        for media_type in known:
            if wanted.admits(media_type):
                return media_type
    raise not_acceptable([*JSON_TYPES, f'multipart/related; type="{XML}"'])


def _answer(request: Request, found: Answer, media_type: str, warnings: list[str]) -> Response:
    root = root_of(request)
    documents = [_told(match, root) for match in found.matches]
    if not documents:
        response = Response(status_code=HTTPStatus.NO_CONTENT, headers=_CACHING)
    elif media_type == XML:
        parts = [native_xml(document) for document in documents]
        boundary = boundary_of(request.url.path, *(str(len(part)) for part in parts))
        body = b"".join(write(boundary, ((head(boundary, XML), [part]) for part in parts)))
        response = Response(body, headers=_CACHING | {"content-type": content_type(XML, boundary)})
    else:
        text = "[" + ",".join(map(dumped, documents)) + "]"
        response = Response(text.encode("utf-8", "replace"), headers=_CACHING | {"content-type": media_type})
    for warning in warnings:
        response.headers.append("warning", f"299 {root}: {warning}")
    return response


def root_of(request: Request) -> str:
    """Address of the DICOMweb service, as the client reaches it."""
    return f"{str(request.base_url).rstrip('/')}{ROOT}"


def _told(match: Match, root: str) -> Document:
    names = ("studies", "series", "instances")
    place = "".join(f"/{name}/{uid}" for name, uid in zip(names, match.uids, strict=False))
    return match.document | {
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        "00081190": {"vr": "UR", "Value": [root + place]},
    }
