"""What a tag and a representation mean under one transfer syntax and character set, looked up once.

Owns the layout of element headers (PS3.5 7.1) and the choice of the representation where the file does not state
it. Contains no state of any single object: a table may serve many objects, one after the other or in several
threads at once.
"""

from __future__ import annotations

import enum
import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from pydicom.datadict import dictionary_VR, private_dictionary_VR

from imaging_pipeline.dicom._charset import ASCII
from imaging_pipeline.dicom._elements import (
    BINARY_VRS,
    KNOWN_VRS,
    LONG_VRS,
    Decoder,
    decode_binary,
    decode_unknown_vr,
    decoders_for,
    lut_descriptor,
)
from imaging_pipeline.dicom._memo import MEMO_BYTES, MEMO_SEQUENCE_BYTES, MEMO_VALUE_BYTES, Memo

SPECIFIC_CHARACTER_SET = 0x00080005
PIXEL_REPRESENTATION = 0x00280103
PIXEL_DATA_TAGS = {0x7FE00008: "OF", 0x7FE00009: "OD", 0x7FE00010: "OW"}
"""Float, double float and integer pixel data with their representation in implicit syntax."""

TABLES_MAX = 24
"""Combinations of syntax and character set kept at a time; a batch rarely has more than five."""

_ENTRIES_MAX = 20_000
_DELIMITER_GROUP = 0xFFFE
_CREATOR_ELEMENTS = range(0x0010, 0x0100)
_LUT_DESCRIPTORS = frozenset({0x00281101, 0x00281102, 0x00281103, 0x00283002})


class Kind(enum.IntEnum):
    """How an element is read."""

    VALUE = enum.auto()
    BINARY = enum.auto()
    SEQUENCE = enum.auto()
    CHARSET = enum.auto()
    PIXEL_REPRESENTATION = enum.auto()
    PIXEL_DATA = enum.auto()
    CREATOR = enum.auto()
    BY_CONTEXT = enum.auto()
    GROUP_LENGTH = enum.auto()
    DELIMITER = enum.auto()
    END = enum.auto()


class Syntax(NamedTuple):
    """An encoding of data sets: are representations stated, and is the high byte first."""

    is_explicit: bool
    is_big: bool = False

    @property
    def endian(self) -> str:
        """Byte order in the notation of ``struct``."""
        return ">" if self.is_big else "<"


IMPLICIT_LITTLE = Syntax(is_explicit=False)
EXPLICIT_LITTLE = Syntax(is_explicit=True)
EXPLICIT_BIG = Syntax(is_explicit=True, is_big=True)


@dataclass(slots=True)
class Entry:
    """All that is known of an element from its tag and representation; never changed once made.

    Attributes:
        tag: group and element as one number.
        vr: the representation in words of the dictionary; may be ambiguous (``US or SS``).
        kind: how it is read.
        memo_bytes: values up to this length may be remembered; -1 where the text depends on more than the bytes.
        is_plain: a value to be decoded, not a sequence and nothing that steers the reading.
        key: the opening of its JSON attribute, up to and with the representation.
        decode: value bytes to the rest of the attribute.
        header_bytes: from the tag to the value.
        length_at: offset of the length field.
        read_length: ``Struct.unpack_from`` of the length field.
        is_unknown: stated as UN, hence an implicit little endian value (PS3.5 6.2.2).
    """

    tag: int
    vr: str
    kind: Kind
    memo_bytes: int
    is_plain: bool
    key: str
    decode: Decoder
    header_bytes: int
    length_at: int
    read_length: Callable[[bytes, int], tuple[int, ...]]
    is_unknown: bool = False


class Table:
    """Entries and memo of one syntax and character set.

    Attributes:
        syntax: the encoding the table is for.
        codecs: the character set the table is for.
        key_bytes: how many bytes of an element select its entry: the tag, and the stated representation.
        entries: raw key to entry.
        memo: what was decoded under this table.
    """

    def __init__(
        self,
        syntax: Syntax,
        codecs: tuple[str, ...],
        *,
        memo_bytes: int = MEMO_BYTES,
        only_group: int | None = None,
    ) -> None:
        self.syntax = syntax
        self.codecs = codecs
        self.key_bytes = 6 if syntax.is_explicit else 4
        self.entries: dict[bytes, Entry] = {}
        self.memo = Memo(memo_bytes)
        self._only_group = only_group
        self._resolved: dict[tuple[int, str, bool], Entry] = {}
        self._decoders = decoders_for(syntax.endian, codecs)
        self._read_tag = struct.Struct(syntax.endian + "HH").unpack_from
        self._read_short = struct.Struct(syntax.endian + "H").unpack_from
        self._read_long = struct.Struct(syntax.endian + "L").unpack_from

    def entry(self, key: bytes) -> Entry:
        """The entry for the first bytes of an element, made on first sight."""
        group, element = self._read_tag(key)
        vr = key[4:6].decode("latin_1") if self.syntax.is_explicit else ""
        entry = self._make(group << 16 | element, vr)
        if len(self.entries) >= _ENTRIES_MAX:
            self.entries.clear()
        self.entries[key] = entry
        return entry

    def resolved(self, entry: Entry, vr: str) -> Entry:
        """The entry of the same element once context has told its representation."""
        key = (entry.tag, vr, entry.is_unknown)
        found = self._resolved.get(key)
        if found is None:
            if len(self._resolved) >= _ENTRIES_MAX:
                self._resolved.clear()
            found = self._resolved[key] = self._with_vr(entry, vr)
        return found

    def _make(self, tag: int, stated_vr: str) -> Entry:
        """Entry of a tag; letters that cannot be a representation mean that the element is implicit."""
        is_explicit = _is_letters(stated_vr) and tag >> 16 != _DELIMITER_GROUP
        vr = stated_vr if is_explicit else _vr_of_tag(tag)
        kind = self._kind(tag, vr, is_explicit=is_explicit)
        if kind is Kind.CREATOR and vr == "UN":
            vr = "LO"
        elif kind in (Kind.CHARSET, Kind.PIXEL_REPRESENTATION) and vr == "UN":
            vr = public_vr(tag)
        elif kind is Kind.PIXEL_DATA and (vr == "UN" or vr not in BINARY_VRS):
            vr = PIXEL_DATA_TAGS[tag]
        header_bytes, length_at, read_length = 8, 4, self._read_long
        if is_explicit and stated_vr in LONG_VRS:
            header_bytes, length_at = 12, 8
        elif is_explicit:
            length_at, read_length = 6, self._read_short
        return Entry(
            tag=tag,
            vr=vr,
            kind=kind,
            memo_bytes=-1 if stated_vr == "UN" else _MEMO_BYTES_OF_KIND.get(kind, -1),
            is_plain=kind in (Kind.VALUE, Kind.BINARY),
            key=attribute_key(tag, vr),
            decode=self._decoder(tag, vr),
            header_bytes=header_bytes,
            length_at=length_at,
            read_length=read_length,
            is_unknown=is_explicit and stated_vr == "UN",
        )

    def _with_vr(self, entry: Entry, vr: str) -> Entry:
        kind = _kind_of_vr(vr)
        return replace(
            entry,
            vr=vr,
            kind=kind,
            memo_bytes=_MEMO_BYTES_OF_KIND[kind],
            is_plain=kind is not Kind.SEQUENCE,
            key=attribute_key(entry.tag, vr),
            decode=self._decoder(entry.tag, vr),
        )

    def _decoder(self, tag: int, vr: str) -> Decoder:
        if vr == "SS" and tag in _LUT_DESCRIPTORS:
            return lut_descriptor(self.syntax.endian)
        if vr in self._decoders:
            return self._decoders[vr]
        return decode_binary if vr == "SQ" or " or " in vr else decode_unknown_vr

    def _kind(self, tag: int, vr: str, *, is_explicit: bool) -> Kind:
        """How an element of this table is read."""
        if self._only_group not in (None, tag >> 16):
            return Kind.END
        by_tag = _kind_of_tag(tag)
        if by_tag is not None:
            return by_tag
        if vr == "UN" or " or " in vr or (is_private(tag) and not is_explicit):
            return Kind.BY_CONTEXT
        return _kind_of_vr(vr)


class Tables:
    """The tables in use, at most ``TABLES_MAX``, each with a memo of so many bytes."""

    def __init__(self, memo_bytes: int = MEMO_BYTES) -> None:
        self.file_meta = Table(EXPLICIT_LITTLE, (ASCII,), memo_bytes=memo_bytes, only_group=0x0002)
        self._memo_bytes = memo_bytes
        self._tables: dict[tuple[Syntax, tuple[str, ...]], Table] = {}

    def get(self, syntax: Syntax, codecs: tuple[str, ...]) -> Table:
        """The table of a syntax and character set."""
        table = self._tables.get((syntax, codecs))
        if table is None:
            if len(self._tables) >= TABLES_MAX:
                self._tables.pop(next(iter(self._tables)), None)
            table = self._tables[syntax, codecs] = Table(syntax, codecs, memo_bytes=self._memo_bytes)
        return table


def attribute_key(tag: int, vr: str) -> str:
    """Opening of a JSON attribute (PS3.18 F.2.2)."""
    return f'"{tag:08X}":{{"vr":"{vr}"'


def is_private(tag: int) -> bool:
    """Private elements have an odd group (PS3.5 7.8)."""
    return bool(tag >> 16 & 1)


@functools.lru_cache(maxsize=65_536)
def private_vr(tag: int, creator: str) -> str:
    """Representation of a private element in the published private dictionaries, UN where there is none."""
    try:
        vr = private_dictionary_VR(tag, creator)
    except KeyError:
        return "UN"
    return vr if vr in KNOWN_VRS or " or " in vr else "UN"


@functools.lru_cache(maxsize=65_536)
def public_vr(tag: int) -> str:
    """Representation of a public element in the dictionary of PS3.6, UN where there is none."""
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return "UN"


def _vr_of_tag(tag: int) -> str:
    return "UN" if is_private(tag) else public_vr(tag)


def _is_letters(vr: str) -> bool:
    return vr.isascii() and vr.isalpha() and vr.isupper()


def _kind_of_vr(vr: str) -> Kind:
    if vr == "SQ":
        return Kind.SEQUENCE
    return Kind.BINARY if vr in BINARY_VRS else Kind.VALUE


def _kind_of_tag(tag: int) -> Kind | None:
    """The kind of the elements whose tag alone decides it."""
    group, element = tag >> 16, tag & 0xFFFF
    if group == _DELIMITER_GROUP:
        return Kind.DELIMITER
    if element == 0:
        return Kind.GROUP_LENGTH
    if is_private(tag) and element in _CREATOR_ELEMENTS:
        return Kind.CREATOR
    return _KIND_OF_TAG.get(tag)


_KIND_OF_TAG = {
    SPECIFIC_CHARACTER_SET: Kind.CHARSET,
    PIXEL_REPRESENTATION: Kind.PIXEL_REPRESENTATION,
    **dict.fromkeys(PIXEL_DATA_TAGS, Kind.PIXEL_DATA),
}

_MEMO_BYTES_OF_KIND = {
    Kind.VALUE: MEMO_VALUE_BYTES,
    Kind.BINARY: MEMO_VALUE_BYTES,
    Kind.CREATOR: MEMO_VALUE_BYTES,
    Kind.PIXEL_REPRESENTATION: MEMO_VALUE_BYTES,
    Kind.SEQUENCE: MEMO_SEQUENCE_BYTES,
}
