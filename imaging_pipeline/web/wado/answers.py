"""Answers: tags that let a client keep what it has, parts of bulk data, and what refusals become (PS3.18 8.5).

Must not contain DICOM objects.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.objects.ranges import BLOCK_BYTES, Ranges
from imaging_pipeline.web.errors import RETRY_SECONDS, WebError

Endpoint = Callable[[Request], Response]

_STATUS: Final[Mapping[Reason, HTTPStatus]] = MappingProxyType(
    {
        Reason.GONE: HTTPStatus.GONE,
        Reason.TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        Reason.PIXEL_UNSUPPORTED: HTTPStatus.NOT_ACCEPTABLE,
        Reason.TRANSFER_SYNTAX_UNSUPPORTED: HTTPStatus.NOT_ACCEPTABLE,
        **dict.fromkeys(
            (Reason.UNAVAILABLE, Reason.CHANGED_WHILE_READ, Reason.ACCESS_DENIED), HTTPStatus.SERVICE_UNAVAILABLE
        ),
    }
)
"""Of what cannot be read or given; of all other reasons 500: the object is damaged."""

_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_CACHING: Final = MappingProxyType({"cache-control": "private, no-cache", "vary": "accept"})
"""A copy may be kept, and is asked about each time: rights and objects can be taken back."""


def answered(endpoint: Endpoint) -> Endpoint:
    """An endpoint whose refusals of objects are answers."""

    @functools.wraps(endpoint)
    def run(request: Request) -> Response:
        try:
            return endpoint(request)
        except PoisonInput as refusal:
            raise web_error(refusal) from None

    return run


def web_error(refusal: PoisonInput) -> WebError:
    """The answer that a refusal becomes; its message names no value."""
    status = _STATUS.get(refusal.reason, HTTPStatus.INTERNAL_SERVER_ERROR)
    headers = {"retry-after": str(RETRY_SECONDS)} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return WebError(status, f"the object cannot be given: {refusal}", headers)


def caching(*parts: str) -> dict[str, str]:
    """Headers of an answer that follows from ``parts`` alone; the tag names its version."""
    return {"etag": f'"{key_of(*parts)}"', **_CACHING}


def not_modified(request: Request, headers: Mapping[str, str]) -> Response | None:
    """304 when the client says that it has this version (RFC 9110 13.1.2)."""
    known = request.headers.get("if-none-match")
    if known is None or (known.strip() != "*" and headers["etag"] not in known):
        return None
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)


def byte_answer(
    request: Request, ranges: Ranges, media_type: str, headers: Mapping[str, str], offset: int, length: int
) -> Response:
    """Bytes of an object as a single part; of them, the part that the header Range asks for (RFC 9110 14).

    Args:
        request: what is asked.
        ranges: the object; closed when the answer has been sent.
        media_type: of the answer.
        headers: of the answer.
        offset: first byte of the whole answer in the object.
        length: bytes of the whole answer.

    Raises:
        WebError: 416.
    """
    first, last = 0, length - 1
    wanted = _RANGE.fullmatch(request.headers.get("range", "").strip())
    is_part = wanted is not None and _is_same_version(request, headers)
    if wanted is not None and is_part:
        first, last = _bounds(wanted[1], wanted[2], length)
        headers = {**headers, "content-range": f"bytes {first}-{last}/{length}"}
    size = last - first + 1
    status = HTTPStatus.PARTIAL_CONTENT if is_part else HTTPStatus.OK
    headers = {**headers, "accept-ranges": "bytes", "content-length": str(size)}
    if size <= BLOCK_BYTES:
        with ranges:
            return Response(ranges.read_at(offset + first, size), status, headers, media_type)
    return StreamingResponse(_and_close(ranges, offset + first, size), status, headers, media_type)


def _and_close(ranges: Ranges, offset: int, size: int) -> Iterator[bytes]:
    with ranges:
        yield from ranges.blocks(offset, size)


def _is_same_version(request: Request, headers: Mapping[str, str]) -> bool:
    condition = request.headers.get("if-range")
    return condition is None or condition == headers.get("etag")


def _bounds(first: str, last: str, length: int) -> tuple[int, int]:
    if first:
        start, stop = int(first), min(int(last), length - 1) if last else length - 1
    else:
        start, stop = max(length - int(last or 0), 0), length - 1
    if start > stop:
        raise WebError(416, "the object has no such bytes", {"content-range": f"bytes */{length}"})
    return start, stop


def streamed(blocks: Iterator[bytes], media_type: str, headers: Mapping[str, str], held: ExitStack) -> Response:
    """A long answer, sent as it is read; ``held`` is let go when it has been sent or given up.

    The first block is made before the answer begins, so that an object that cannot be read is told by its status. One
    that cannot be read later breaks the answer off: the client sees that its end is missing.
    """
    try:
        first = next(blocks, b"")
    except BaseException:
        held.close()
        raise

    def all_blocks() -> Iterator[bytes]:
        with held:
            yield first
            yield from blocks

    return StreamingResponse(all_blocks(), headers=dict(headers), media_type=media_type)
