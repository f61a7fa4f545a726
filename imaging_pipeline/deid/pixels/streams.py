"""What else travels in a pixel data value: comments, application segments, bytes behind the image.

Owns the structure of pixel data streams. Contains no decoding and no search for text in images.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pydicom.dataset import FileDataset
from pydicom.encaps import generate_frames, parse_basic_offsets
from pydicom.tag import Tag
from pydicom.uid import UID, RLELossless

from imaging_pipeline.deid.pixels.frames import PIXEL_KEYWORDS, hold
from imaging_pipeline.deid.pixels.header import number
from imaging_pipeline.deid.reading import element

if TYPE_CHECKING:  # the profile reads its pixel section with this package
    from imaging_pipeline.deid.screen import Index

MAX_COMMENT: Final = 64
"""Longest comment an encoder may leave; a thumbnail or an Exif block is longer."""

_JPEG_START: Final = b"\xff\xd8"
_J2K_START: Final = b"\xff\x4f"
_END: Final = b"\xff\xd9"
_JPEG_SEGMENT: Final = re.compile(rb"\xff[\xe0-\xf6\xf9-\xfe]")
"""Application, extension and comment markers; the two left out are JPEG-LS's own (T.87 C.1.1)."""


def check(ds: FileDataset, keyword: str, syntax: str, prefixes: tuple[str, ...], index: Index) -> None:
    """Refuse pixel data that carries anything but the image.

    Args:
        ds: the object.
        keyword: which pixel data attribute it has.
        syntax: its transfer syntax.
        prefixes: how the comment of an encoder may begin.
        index: identifiers of the patient.

    Raises:
        PoisonInput: PIXEL_REVIEW_REQUIRED with the reason in words.
    """
    decoded = element(ds, Tag(keyword))
    if decoded is None or not isinstance(decoded.value, bytes):
        raise hold("the pixel data cannot be read")
    if not UID(syntax).is_encapsulated:
        _native(decoded.value, ds, PIXEL_KEYWORDS[keyword])
        return
    for payload in _payloads(decoded.value, ds, syntax):
        _comment(payload, prefixes, index)


def _native(content: bytes, ds: FileDataset, sample_bits: int) -> None:
    """Bytes behind the last pixel must be padding (PS3.5 8.1.1)."""
    factors = [number(ds, name, default) for name, default in (("Rows", 0), ("Columns", 0), ("SamplesPerPixel", 1))]
    frames = max(number(ds, "NumberOfFrames", 1), 1)
    bits = sample_bits or number(ds, "BitsAllocated", 0)
    expected = (factors[0] * factors[1] * factors[2] * frames * bits + 7) // 8
    if any(content[expected:]):
        raise hold("the pixel data is longer than the image")


def _payloads(content: bytes, ds: FileDataset, syntax: str) -> Iterator[bytes]:
    """Every comment and application segment in compressed pixel data, its structure checked on the way (PS3.5 A.4)."""
    try:
        offsets = parse_basic_offsets(content)
        streams = list(generate_frames(content, number_of_frames=max(number(ds, "NumberOfFrames", 1), 1)))
    except Exception:  # noqa: BLE001  # pydicom raises anything on a hostile item structure
        raise hold("the compressed pixel data cannot be divided into frames") from None
    if offsets != sorted(offsets) or any(offset >= len(content) for offset in offsets):
        raise hold("the offset table of the compressed pixel data holds something else")
    for stream in streams:
        if syntax == RLELossless:
            _run_length(stream, number(ds, "Rows", 0) * number(ds, "Columns", 0))
        elif stream.startswith((_JPEG_START, _J2K_START)):
            if _goes_on(stream):
                raise hold("the compressed pixel data goes on behind its last marker")
            yield from _jpeg_2000(stream) if stream.startswith(_J2K_START) else _jpeg(stream)
        else:
            raise hold("the compressed pixel data is of a kind that cannot be looked into")


def _goes_on(stream: bytes) -> bool:
    """Whether anything but padding stands behind the last end marker, or but JPEG images between those before."""
    _, *between, last = stream.split(_END) if _END in stream else (b"", stream)
    if stream.startswith(_JPEG_START) and any(not part.lstrip(b"\0").startswith(_JPEG_START) for part in between):
        return True
    return bool(last.strip(b"\0\xff"))


def _run_length(stream: bytes, pixels: int) -> None:
    """Every segment codes one byte of every pixel, and nothing lies between them (PS3.5 G.3, G.5)."""
    used = int.from_bytes(stream[:4], "little")
    if not 1 <= used <= 15 or any(stream[4 + 4 * used : 64]):
        raise hold("the compressed pixel data is of a kind that cannot be looked into")
    starts = [int.from_bytes(stream[4 * n : 4 * n + 4], "little") for n in range(1, used + 1)]
    if starts[0] != 64 or starts != sorted(starts):
        raise hold("the run-length segments do not follow each other")
    for start, end in zip(starts, [*starts[1:], len(stream)], strict=True):
        used_up = _packed_length(stream, start, end, pixels)
        if any(stream[used_up:end]) or end - used_up > 1:
            raise hold("the run-length segments hold more than the image")


def _packed_length(stream: bytes, position: int, end: int, wanted: int) -> int:
    """Where ``wanted`` bytes have been unpacked (PackBits, PS3.5 G.3.1)."""
    made = 0
    while made < wanted and position < end:
        head = stream[position]
        if head == 128:
            position += 1
        elif head < 128:
            made += head + 1
            position += head + 2
        else:
            made += 257 - head
            position += 2
    if made != wanted:
        raise hold("the run-length segments are not as long as the image")
    return position


def _jpeg(stream: bytes) -> Iterator[bytes]:
    """Comment and application segments, between scans too: no JPEG data looks like their markers (T.81 B.1.1)."""
    for match in _JPEG_SEGMENT.finditer(stream):
        length = int.from_bytes(stream[match.end() : match.end() + 2], "big")
        yield stream[match.end() + 2 : match.end() + length]


def _jpeg_2000(stream: bytes) -> Iterator[bytes]:
    """Comments of the main header and of every tile-part header (T.800 A.4.2, A.9.2)."""
    position, tile_start, tile_length = 2, 0, 0
    while position + 4 <= len(stream):
        marker = stream[position : position + 2]
        if marker == _END:
            return
        length = int.from_bytes(stream[position + 2 : position + 4], "big")
        if marker == b"\xff\x64":
            yield stream[position + 6 : position + 2 + length]
        if marker == b"\xff\x90":
            tile_start, tile_length = position, int.from_bytes(stream[position + 6 : position + 10], "big")
        if marker != b"\xff\x93":
            position += 2 + max(length, 2)
        elif tile_length <= position - tile_start:
            return  # zero: the last tile-part reaches to the end
        else:
            position = tile_start + tile_length


def _comment(payload: bytes, prefixes: tuple[str, ...], index: Index) -> None:
    """A comment must be what an encoder says of itself, short, and no name of this object."""
    text = payload.strip(b"\0").decode("latin-1")
    is_known = text.lower().startswith(tuple(prefix.lower() for prefix in prefixes))
    if text and (not is_known or len(text) > MAX_COMMENT or index.in_text(text)):
        raise hold("the compressed pixel data carries a comment of unknown origin")
