"""Metadata of objects as DICOM JSON or XML (PS3.18 10.4.1.1.2, Annex F), from headers that were read once.

Headers are handled as text: group 0002 is cut off, and places of long values become addresses. No object is opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Final

from starlette.requests import Request

from imaging_pipeline.web.index.model import Instance
from imaging_pipeline.web.native_xml import native_xml
from imaging_pipeline.web.wado import multipart
from imaging_pipeline.web.wado.media import XML

_KEY: Final = re.compile(r'"(?!0002)[0-9A-F]{8}":\{')
"""The first element behind the file meta information. Inside a text a quotation mark has a backslash before it."""

_PROXY_HEADERS: Final = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"})
_USUAL_PORTS: Final = {"http": 80, "https": 443}
_PLACE: Final = '"BulkDataURI":"?'


def metadata_blocks(found: Iterable[tuple[Instance, str]], root: str) -> Iterator[bytes]:
    """The answer in JSON in blocks, one for each object.

    Args:
        found: objects and their headers.
        root: address of the service, to which ``/studies/…`` is appended.
    """
    before = "["
    for instance, header in found:
        yield (before + document(header, f"{root}{path_of(instance)}/bulkdata")).encode()
        before = ","
    yield b"[]" if before == "[" else b"]"


def xml_parts(found: Iterable[tuple[Instance, str]], root: str, boundary: str) -> Iterator[tuple[bytes, list[bytes]]]:
    """Parts of an answer in the Native DICOM Model (PS3.19 A.1), one for each object.

    Args:
        found: as for `metadata_blocks`.
        root: the same.
        boundary: what separates the parts.
    """
    for instance, header in found:
        json_document = json.loads(document(header, f"{root}{path_of(instance)}/bulkdata"))
        yield multipart.head(boundary, XML), [native_xml(json_document)]


def document(header: str, bulk_data: str) -> str:
    """A stored header as an answer: without group 0002, long values as addresses.

    Args:
        header: JSON text, in tag order.
        bulk_data: address of the object's bulk data.

    >>> document('{"00020010":{"vr":"UI","Value":["1.2"]},"00080060":{"vr":"CS","Value":["CT"]}}', "")
    '{"00080060":{"vr":"CS","Value":["CT"]}}'
    """
    first = _KEY.search(header)
    text = "{" + header[first.start() :] if first else "{}"
    return text.replace(_PLACE, f'"BulkDataURI":"{bulk_data}?')


def root_of(request: Request) -> str:
    """Address of the service, as the client names it.

    The dicomweb-client library leaves the port out of its Host header. Where no proxy has had a hand in the request,
    the port is the one that it came to.
    """
    url = request.url
    port = (request.scope.get("server") or ("", None))[1]
    is_usual = port in (None, _USUAL_PORTS.get(url.scheme))
    if url.port is None and not is_usual and not _PROXY_HEADERS & {name.lower() for name in request.headers}:
        url = url.replace(port=port)
    return str(url.replace(query="")).partition("/studies/")[0]


def path_of(instance: Instance) -> str:
    """Where an object is, below the root of the service."""
    return (
        f"/studies/{instance.study_instance_uid}/series/{instance.series_instance_uid}"
        f"/instances/{instance.sop_instance_uid}"
    )
