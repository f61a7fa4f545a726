"""What a client accepts and what is given: media types and transfer syntaxes (PS3.18 8.7).

Must not contain objects, bytes of answers or routes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Final

from starlette.requests import Request

from imaging_pipeline.web.errors import WebError

ANY: Final = "*"
DICOM: Final = "application/dicom"
JSON: Final = "application/dicom+json"
XML: Final = "application/dicom+xml"
OCTETS: Final = "application/octet-stream"
ZIP: Final = "application/zip"
MULTIPART: Final = "multipart/related"

EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
"""The default transfer syntax of DICOM objects and of uncompressed frames (PS3.18 8.7.3.5.2)."""

IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
NATIVE: Final = frozenset({EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED})

MEDIA_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(NATIVE, OCTETS),
        **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70)), "image/jpeg"),
        **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (80, 81)), "image/jls"),
        **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (90, 91)), "image/jp2"),
        **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (92, 93)), "image/jpx"),
        **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (110, 111, 112)), "image/jxl"),
        **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203)), "image/jphc"),
        **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (100, 101)), "video/mpeg2"),
        **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (102, 103, 104, 105, 106)), "video/mp4"),
        "1.2.840.10008.1.2.5": "image/dicom-rle",
    }
)
"""Media type of the frames of a transfer syntax (PS3.18 tables 8.7.3-3 to 8.7.3-5)."""

_DEFAULT_SYNTAX: Final[Mapping[str, str]] = MappingProxyType(
    {
        OCTETS: EXPLICIT_LITTLE,
        "image/jls": "1.2.840.10008.1.2.4.80",
        "image/jp2": "1.2.840.10008.1.2.4.90",
        "image/dicom-rle": "1.2.840.10008.1.2.5",
    }
)
"""Of media types that can be made here, the transfer syntax that is meant when none is named."""

_PART: Final = re.compile(r'[^,"]*(?:"(?:[^"\\]|\\.)*"[^,"]*)*')
_PARAMETER: Final = re.compile(r';\s*([\w-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;,\s]*)')
_MOST_RANGES: Final = 64


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One thing a client accepts.

    Attributes:
        media_type: of an answer, or of the parts of one; may end in ``/*``.
        is_multipart: asked for as ``multipart/related``; None: either is welcome.
        syntax: the transfer syntax asked for, ``*`` for any, or None.
        quality: 0 (never) to 1.
    """

    media_type: str
    is_multipart: bool | None
    syntax: str | None
    quality: float

    def admits(self, media_type: str) -> bool:
        """Whether a media type is within this range."""
        if self.media_type in ("*/*", media_type):
            return True
        return self.media_type.endswith("/*") and media_type.startswith(self.media_type[:-1])


@dataclass(frozen=True, slots=True)
class Choice:
    """The form an answer takes.

    Attributes:
        media_type: of the answer, or of its parts.
        is_multipart: the answer is ``multipart/related``.
        syntax: transfer syntax to be given, or None: as stored.
    """

    media_type: str
    is_multipart: bool
    syntax: str | None = None


def accepted(request: Request) -> list[MediaRange]:
    """What a client accepts, the most wanted first: the query parameter ``accept``, or the header (PS3.18 8.3.3.1)."""
    text = request.query_params.get("accept") or request.headers.get("accept") or "*/*"
    parts = (found[0] for found in islice(_PART.finditer(text), 2 * _MOST_RANGES))  # each may look at all that follows
    ranges = [_range_of(part) for part in parts if part.strip()]
    wanted = [found for found in ranges if found is not None and found.quality > 0]
    return sorted(wanted, key=lambda found: -found.quality)


def _range_of(part: str) -> MediaRange | None:
    kind = part.partition(";")[0].strip().lower()
    parameters = {name.lower(): value.strip('"') for name, value in _PARAMETER.findall(part)}
    if "/" not in kind:
        return None
    try:
        quality = float(parameters.get("q", "1"))
    except ValueError:
        quality = 0.0
    syntax = parameters.get("transfer-syntax") or None
    if kind in (MULTIPART, "multipart/*"):
        part_type = parameters.get("type", "*/*").lower()
        return MediaRange(part_type, is_multipart=True, syntax=syntax, quality=quality)
    return MediaRange(kind, is_multipart=None if kind == "*/*" else False, syntax=syntax, quality=quality)


def choose(ranges: Sequence[MediaRange], media_types: Sequence[str], *, parts: int = 0) -> Choice:
    """The first media type that a client accepts, for answers without a transfer syntax.

    Args:
        ranges: what is accepted.
        media_types: what can be given, the preferred first.
        parts: parts of the answer; 0: it never comes in parts.

    Raises:
        WebError: 406.
    """
    for wanted in ranges:
        if wanted.is_multipart is (parts > 1) or wanted.is_multipart is None or (wanted.is_multipart and parts):
            for media_type in media_types:
                if wanted.admits(media_type):
                    return Choice(media_type, is_multipart=bool(wanted.is_multipart) or parts > 1)
    raise not_acceptable(media_types)


def choose_metadata(ranges: Sequence[MediaRange]) -> Choice:
    """JSON, or XML in parts, one for each object (PS3.18 table 10.4.4-1).

    Raises:
        WebError: 406.
    """
    for wanted in ranges:
        if wanted.is_multipart and wanted.admits(XML):
            return Choice(XML, is_multipart=True)
        if not wanted.is_multipart and (wanted.admits(JSON) or wanted.admits("application/json")):
            return Choice(JSON, is_multipart=False)
    raise not_acceptable([JSON, f'{MULTIPART}; type="{XML}"'])


def choose_object(ranges: Sequence[MediaRange], *, is_one: bool, writable: frozenset[str]) -> Choice:
    """The form in which whole objects are given.

    A range that names no transfer syntax and DICOM itself asks for Explicit VR Little Endian; one that leaves the media
    type open, for the objects as they are stored.

    Args:
        ranges: what is accepted.
        is_one: one object is asked for, which may come as a single part.
        writable: transfer syntaxes that objects can be brought to.

    Raises:
        WebError: 406.
    """
    for wanted in ranges:
        if wanted.media_type == ZIP and not wanted.is_multipart:
            syntax = _syntax_of_object(wanted, writable)
            if syntax is not None:
                return Choice(ZIP, is_multipart=False, syntax=None if syntax == ANY else syntax)
        if wanted.admits(DICOM) and (wanted.is_multipart is not False or is_one):
            is_open = wanted.media_type != DICOM and wanted.syntax is None
            syntax = ANY if is_open else _syntax_of_object(wanted, writable)
            if syntax is not None:
                return Choice(DICOM, wanted.is_multipart is not False, None if syntax == ANY else syntax)
    raise not_acceptable([f'{MULTIPART}; type="{DICOM}"', DICOM, ZIP])


def _syntax_of_object(wanted: MediaRange, writable: frozenset[str]) -> str | None:
    """The transfer syntax of a range; ANY for a zip that names none; None when it cannot be given to every object."""
    if wanted.syntax is None:
        return ANY if wanted.media_type == ZIP else EXPLICIT_LITTLE
    return wanted.syntax if wanted.syntax == ANY or wanted.syntax in {*MEDIA_TYPES, *writable} else None


def choose_frames(ranges: Sequence[MediaRange], *, stored: str, is_one: bool, writable: frozenset[str]) -> Choice:
    """The form in which frames are given.

    Args:
        ranges: what is accepted.
        stored: transfer syntax of the object.
        is_one: one frame is asked for, which may come as a single part.
        writable: transfer syntaxes that frames can be brought to.

    Raises:
        WebError: 406.
    """
    for wanted in ranges:
        if wanted.is_multipart is False and not is_one:
            continue
        found = _frames_in(wanted, stored, writable)
        if found is not None:
            return Choice(found[0], wanted.is_multipart is not False, found[1])
    raise not_acceptable([f'{MULTIPART}; type="{MEDIA_TYPES.get(stored, OCTETS)}"; transfer-syntax=*', OCTETS])


def _frames_in(wanted: MediaRange, stored: str, writable: frozenset[str]) -> tuple[str, str | None] | None:
    """Media type, and transfer syntax (None: as stored), that a range asks for; None: it cannot be had."""
    own = MEDIA_TYPES.get(stored, OCTETS)
    native = own == OCTETS
    if wanted.media_type.endswith("/*"):
        is_stored = wanted.syntax in (None, ANY, stored) and (wanted.admits(own) or wanted.admits(OCTETS))
        return (own if wanted.admits(own) else OCTETS, None) if is_stored else None
    if wanted.media_type == OCTETS and wanted.syntax in (ANY, stored):
        return OCTETS, None
    if wanted.media_type == own and wanted.syntax in (None, ANY, stored):
        return own, None
    syntax = _DEFAULT_SYNTAX.get(wanted.media_type) if wanted.syntax in (None, ANY) else wanted.syntax
    if syntax is None or syntax not in writable or wanted.media_type not in (OCTETS, MEDIA_TYPES.get(syntax)):
        return None
    return wanted.media_type, None if native and syntax in NATIVE else syntax


def not_acceptable(media_types: Sequence[str]) -> WebError:
    """406 that names what can be given."""
    known = ", ".join(media_types)
    return WebError(406, f"none of the accepted media types can be given here; these can: {known}")
