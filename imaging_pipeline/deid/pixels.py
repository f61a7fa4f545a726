"""Which images may be released without a person looking at their pixels.

Owns the release rules: SOP class, what the header says about burned-in text, and what else travels in a pixel data
value. Contains no decoding and no change of pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from pydicom.dataset import FileDataset
from pydicom.encaps import generate_frames, parse_basic_offsets
from pydicom.tag import Tag
from pydicom.uid import UID, RLELossless

from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.reading import element, values
from imaging_pipeline.deid.screen import Index
from imaging_pipeline.errors import PoisonInput, Reason

PIXEL_KEYWORDS: Final = {"FloatPixelData": 32, "DoubleFloatPixelData": 64, "PixelData": 0}
"""Pixel data attributes with the bits of a sample where Bits Allocated does not say it (PS3.3 C.7.6.24)."""

MAX_COMMENT: Final = 64
"""Longest comment an encoder may leave; a thumbnail or an Exif block is longer."""

_JPEG_START: Final = b"\xff\xd8"
_J2K_START: Final = b"\xff\x4f"
_END: Final = b"\xff\xd9"
_JPEG_SEGMENT: Final = re.compile(rb"\xff[\xe0-\xf6\xf9-\xfe]")
"""Application, extension and comment markers; the two left out are JPEG-LS's own (T.87 C.1.1)."""


def review(ds: FileDataset, profile: Profile, syntax: str, index: Index) -> None:
    """Refuse an object whose class or pixels cannot be released unseen.

    Raises:
        PoisonInput: SOP_CLASS_NOT_RELEASED, or PIXEL_REVIEW_REQUIRED with the reason in words.
    """
    classes = _texts(ds, "SOPClassUID")
    if len(classes) != 1 or classes[0] not in profile.sop_classes:
        raise PoisonInput(Reason.SOP_CLASS_NOT_RELEASED, "the profile does not release this SOP class")
    _header(ds, profile)
    _overlays(ds)
    for keyword, bits in PIXEL_KEYWORDS.items():
        if keyword not in ds:
            continue
        decoded = element(ds, Tag(keyword))
        if decoded is None or not isinstance(decoded.value, bytes):
            raise _hold("the pixel data cannot be read")
        if UID(syntax).is_encapsulated:
            for payload in _payloads(decoded.value, _number(ds, "NumberOfFrames", 1), syntax):
                _comment(payload, profile, index)
        else:
            _native(decoded.value, ds, bits)


def _header(ds: FileDataset, profile: Profile) -> None:
    """What the header says of its pixels (PS3.3 C.7.6.1.1.5 Burned In Annotation, C.8.6.1 Conversion Type)."""
    burned_in = _texts(ds, "BurnedInAnnotation")
    if burned_in and burned_in != ["NO"]:
        raise _hold("Burned In Annotation is not NO")
    if "YES" in _texts(ds, "RecognizableVisualFeatures"):
        raise _hold("Recognizable Visual Features is YES")
    if burned_in:
        return
    if not profile.risky_conversion_types.isdisjoint(_texts(ds, "ConversionType")):
        raise _hold("the Conversion Type is one that often holds text, and Burned In Annotation is missing")
    if not profile.risky_image_types.isdisjoint(_texts(ds, "ImageType")):
        raise _hold("the Image Type is that of a screen, and Burned In Annotation is missing")
    if not profile.photometric_interpretations.issuperset(_texts(ds, "PhotometricInterpretation")):
        raise _hold("the image is in colour, as screen captures are, and Burned In Annotation is missing")


def _overlays(ds: FileDataset) -> None:
    """Overlays are removed, but one inside unused bits of the pixels would stay (PS3.3 C.9.2, retired form)."""
    for group in range(0x6000, 0x6100, 2):
        position = values(element(ds, Tag(group, 0x0102))) if Tag(group, 0x0102) in ds else []
        has_plane = Tag(group, 0x0010) in ds or Tag(group, 0x0100) in ds or bool(position)
        if has_plane and (Tag(group, 0x3000) not in ds or position not in ([], ["0"])):
            raise _hold("an overlay lies in unused bits of the pixels")


def _native(content: bytes, ds: FileDataset, sample_bits: int) -> None:
    """Bytes behind the last pixel must be padding (PS3.5 8.1.1)."""
    factors = [_number(ds, name, default) for name, default in (("Rows", 0), ("Columns", 0), ("SamplesPerPixel", 1))]
    frames = max(_number(ds, "NumberOfFrames", 1), 1)
    bits = sample_bits or _number(ds, "BitsAllocated", 0)
    expected = (factors[0] * factors[1] * factors[2] * frames * bits + 7) // 8
    if any(content[expected:]):
        raise _hold("the pixel data is longer than the image")


def _payloads(content: bytes, frames: int, syntax: str) -> Iterator[bytes]:
    """Every comment and application segment in compressed pixel data, its structure checked on the way (PS3.5 A.4)."""
    try:
        offsets = parse_basic_offsets(content)
        streams = list(generate_frames(content, number_of_frames=max(frames, 1)))
    except Exception:  # noqa: BLE001  # pydicom raises anything on a hostile item structure
        raise _hold("the compressed pixel data cannot be divided into frames") from None
    if offsets != sorted(offsets) or any(offset >= len(content) for offset in offsets):
        raise _hold("the offset table of the compressed pixel data holds something else")
    for stream in streams:
        if syntax == RLELossless:
            _run_length_header(stream)
        elif stream.startswith((_JPEG_START, _J2K_START)):
            if _goes_on(stream):
                raise _hold("the compressed pixel data goes on behind its last marker")
            yield from _jpeg_2000(stream) if stream.startswith(_J2K_START) else _jpeg(stream)
        else:
            raise _hold("the compressed pixel data is of a kind that cannot be looked into")


def _goes_on(stream: bytes) -> bool:
    """Whether anything but padding stands behind the last end marker, or but JPEG images between those before."""
    _, *between, last = stream.split(_END) if _END in stream else (b"", stream)
    if stream.startswith(_JPEG_START) and any(not part.lstrip(b"\0").startswith(_JPEG_START) for part in between):
        return True
    return bool(last.strip(b"\0\xff"))


def _run_length_header(stream: bytes) -> None:
    """Unused offsets of a run-length header are zero (PS3.5 G.5)."""
    used = int.from_bytes(stream[:4], "little")
    if not 1 <= used <= 15 or any(stream[4 + 4 * used : 64]):
        raise _hold("the compressed pixel data is of a kind that cannot be looked into")


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


def _comment(payload: bytes, profile: Profile, index: Index) -> None:
    """A comment must be what an encoder says of itself, short, and no name of this object."""
    text = payload.strip(b"\0").decode("latin-1")
    is_known = text.lower().startswith(tuple(prefix.lower() for prefix in profile.pixel_comment_prefixes))
    if text and (not is_known or len(text) > MAX_COMMENT or index.in_text(text)):
        raise _hold("the compressed pixel data carries a comment of unknown origin")


def _number(ds: FileDataset, keyword: str, default: int) -> int:
    found = _texts(ds, keyword)
    return int(found[0]) if found and found[0].isdigit() else default


def _texts(ds: FileDataset, keyword: str) -> list[str]:
    return values(element(ds, Tag(keyword))) if keyword in ds else []


def _hold(why: str) -> PoisonInput:
    return PoisonInput(Reason.PIXEL_REVIEW_REQUIRED, why)
