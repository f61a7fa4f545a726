"""Writing multipart/related answers, part by part (RFC 2387, PS3.18 8.6.1.2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from imaging_pipeline.objects.model import key_of
from imaging_pipeline.web.wado.media import ANY, MULTIPART


def boundary_of(*parts: str) -> str:
    """A boundary that follows from what is answered: the same request gives the same bytes.

    It holds 128 bits of a digest, which no part repeats by chance.
    """
    return key_of("boundary", *parts)


def content_type(part_type: str, boundary: str, syntax: str | None = None) -> str:
    """Content-Type of the whole answer.

    Args:
        part_type: media type of the parts.
        boundary: what separates them.
        syntax: their transfer syntax, when they have one in common.
    """
    transfer_syntax = f"; transfer-syntax={syntax}" if syntax else ""
    return f'{MULTIPART}; type="{part_type}"; boundary={boundary}{transfer_syntax}'


def part_type(media_type: str, syntax: str | None) -> str:
    """Content-Type of one part, with its transfer syntax when it has one."""
    return f"{media_type}; transfer-syntax={syntax}" if syntax and syntax != ANY else media_type


def head(boundary: str, type_of_part: str, *, length: int | None = None, location: str | None = None) -> bytes:
    """What stands before the bytes of a part."""
    lines = [f"--{boundary}", f"Content-Type: {type_of_part}"]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    if location is not None:
        lines.append(f"Content-Location: {location}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def end(boundary: str) -> bytes:
    """What stands behind the last part."""
    return f"--{boundary}--\r\n".encode("latin-1")


def write(boundary: str, parts: Iterable[tuple[bytes, Iterable[bytes]]]) -> Iterator[bytes]:
    """An answer in blocks.

    Args:
        boundary: what separates the parts.
        parts: head and content of each; a part is begun only when the one before has been taken whole.
    """
    for part_head, content in parts:
        before = part_head
        for block in content:
            yield before + block if before else block
            before = b""
        yield before + b"\r\n"
    yield end(boundary)
