"""Is this DICOM, where does the data set start, and how is it encoded: decided by content.

Owns the preamble (PS3.10 7.1) and the guess at the syntax of a data set. Contains no reading of values.
"""

from __future__ import annotations

import struct

from imaging_pipeline.dicom._elements import KNOWN_VRS, LONG_VRS
from imaging_pipeline.dicom._parser import UNDEFINED
from imaging_pipeline.dicom._source import Source
from imaging_pipeline.dicom._tables import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, Syntax, is_private, public_vr

PREAMBLE_BYTES = 128
"""Bytes before the letters DICM (PS3.10 7.1)."""

IMPLICIT_LITTLE_UID = "1.2.840.10008.1.2"
EXPLICIT_LITTLE_UID = "1.2.840.10008.1.2.1"
EXPLICIT_BIG_UID = "1.2.840.10008.1.2.2"
DEFLATED_UID = "1.2.840.10008.1.2.1.99"

UID_OF_SYNTAX = {
    EXPLICIT_LITTLE: EXPLICIT_LITTLE_UID,
    IMPLICIT_LITTLE: IMPLICIT_LITTLE_UID,
    EXPLICIT_BIG: EXPLICIT_BIG_UID,
}
"""The syntaxes a data set can be encoded in, the most frequent first, with the transfer syntax each stands for."""

_SYNTAX_OF_UID = {uid: syntax for syntax, uid in UID_OF_SYNTAX.items()}
_ELEMENTS_TO_BE_SURE = 3
_FIRST_GROUP_LENGTH = 0x00080000
_FIRST_GROUP = 0x0004  # of data sets: that of the DICOMDIR; 0000 and 0002 are messages and file meta


def has_preamble(prefix: bytes) -> bool:
    """The object starts as a DICOM file should."""
    return prefix[PREAMBLE_BYTES : PREAMBLE_BYTES + 4] == b"DICM"


def has_file_meta(prefix: bytes, at: int) -> bool:
    """An element of the file meta information is at ``at``: group 0002, explicit little endian (PS3.10 7.1)."""
    return prefix[at : at + 2] == b"\x02\x00" and prefix[at + 4 : at + 6].decode("latin_1") in KNOWN_VRS


def declared_syntax(transfer_syntax_uid: str) -> Syntax:
    """The encoding a transfer syntax asks for; all but the named ones are explicit little endian (PS3.5 A.4)."""
    return _SYNTAX_OF_UID.get(transfer_syntax_uid, EXPLICIT_LITTLE)


def found_syntax(source: Source, at: int, declared: Syntax | None = None) -> Syntax | None:
    """The encoding of the data set at ``at``, or None when no encoding makes sense of it.

    Args:
        source: the object.
        at: offset of the first element.
        declared: tried first, and believed when its first element makes sense; others need three elements in
            a row.
    """
    if declared is not None and _makes_sense(source, at, declared, 1):
        return declared
    candidates = (syntax for syntax in UID_OF_SYNTAX if syntax != declared)
    return next((syntax for syntax in candidates if _makes_sense(source, at, syntax, _ELEMENTS_TO_BE_SURE)), None)


def _makes_sense(source: Source, at: int, syntax: Syntax, elements: int) -> bool:
    """Whether so many elements follow each other at ``at``, with known tags, in order, inside the object."""
    last_tag = -1
    for _ in range(elements):
        prefix = source.load(at + 12)
        if at >= source.size or len(prefix) < at + 12:
            return last_tag >= 0
        tag, length, start = _element_at(prefix, at, syntax)
        is_later = last_tag >= 0 and (is_private(tag) or not tag & 0xFFFF)
        is_known = public_vr(tag) != "UN" or is_later or tag == _FIRST_GROUP_LENGTH
        if not is_known or tag <= last_tag or tag >> 16 < _FIRST_GROUP:
            return False
        if length == UNDEFINED:
            return True
        if length < 0 or start + length > source.size:
            return False
        at, last_tag = start + length, tag
    return True


def _element_at(prefix: bytes, at: int, syntax: Syntax) -> tuple[int, int, int]:
    """Tag, length and start of the value of an element; the length is negative when the representation is wrong."""
    group, element = struct.unpack_from(syntax.endian + "HH", prefix, at)
    vr = prefix[at + 4 : at + 6].decode("latin_1")
    length_at, width, start = at + 4, "L", at + 8
    if syntax.is_explicit and vr in LONG_VRS:
        length_at, start = at + 8, at + 12
    elif syntax.is_explicit:
        length_at, width = at + 6, "H"
    length = struct.unpack_from(syntax.endian + width, prefix, length_at)[0]
    return group << 16 | element, length if (vr in KNOWN_VRS) == syntax.is_explicit else -1, start
