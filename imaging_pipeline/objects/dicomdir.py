"""A DICOMDIR as a source: the files that a medium's directory refers to (PS3.3 annex F, PS3.10 section 8)."""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.objects.folder import file_object, file_time, look_below, path_to_uri, refusal, uri_to_path
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.source import ABSENT, Page, pages_of, refuse_unsettled_list, seconds_of
from imaging_pipeline.sources import SourceConfig

MEDIA_STORAGE_DIRECTORY = b"1.2.840.10008.1.3.10"
MAX_BYTES = 200_000_000
"""The directory of half a million instances stays below this."""

_Record = dict[int, bytes]

_SOP_CLASS = 0x00020002
_TRANSFER_SYNTAX = 0x00020010
_DIRECTORY_RECORDS = 0x00041220
_IN_USE = 0x00041410
_TYPE = 0x00041430
_FILE_ID = 0x00041500
_SHARED_RECORD = 0x00041504
_WANTED = frozenset({_IN_USE, _TYPE, _FILE_ID, _SHARED_RECORD})
_INACTIVE = b"\0\0"

_DELIMITERS = 0xFFFE
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
     b"ST", b"TM", b"UI", b"UL", b"US"}
)  # fmt: skip
_SYNTAXES = {
    b"1.2.840.10008.1.2.1": ("<", True),
    b"1.2.840.10008.1.2": ("<", False),
    b"1.2.840.10008.1.2.2": (">", True),
}
"""Byte order and explicit VR; the standard allows the first one, the others occur."""

_VERSION_NUMBER = re.compile(r";\d+$")


class Dicomdir:
    """The files of a DICOMDIR's active records.

    A Referenced File ID is the path below the DICOMDIR's folder. Media are written and copied with names in another
    case, with ISO 9660 version numbers or with ``.dcm`` added or lost: a name that is not there as written is taken
    for the one file that differs only so, if there is exactly one. Links are followed as the configuration says.

    A record whose file is not there is listed all the same, as a version :data:`ABSENT`. So is one whose File ID is
    not legal (it leads out of the folder, or is no file name at all), at a URI that cannot lead out of the folder:
    it is never looked for.
    """

    def __init__(self, config: SourceConfig) -> None:
        self.config = config
        self._path = Path(config.location)
        self._folder = os.path.realpath(self._path.parent)
        self.prefix = path_to_uri(Path(self._folder)).removesuffix("/") + "/"

    def pages(self, after: str | None, now: datetime) -> Iterator[Page]:
        """See :class:`~imaging_pipeline.objects.source.Source`.

        Raises:
            ConfigurationError: the DICOMDIR is missing, damaged, or none.
            TransientError: the file system does not answer, or the DICOMDIR is still being written.
        """
        listed_at = file_time(self._status())
        refuse_unsettled_list(seconds_of(listed_at), now, self.config)

        def look(uris: Sequence[str]) -> Iterator[ObjectVersion]:
            for uri in uris:
                yield self._find(uri) or ObjectVersion(uri, ABSENT, 0, listed_at, self.config.name)

        yield from pages_of(self._uris(), look, after, now, self.config.minimum_age_seconds)

    def stat(self, uri: str) -> ObjectVersion | None:
        """See :class:`~imaging_pipeline.objects.source.Source`."""
        return self._find(uri) if self.selects(uri) else None

    def selects(self, uri: str) -> bool:
        """Whether an active record refers to it."""
        return uri in self._uris()

    def _find(self, uri: str) -> ObjectVersion | None:
        names = str(uri_to_path(uri)).removeprefix(os.path.join(self._folder, "")).split("/")  # noqa: PTH118
        status = look_below(self._folder, names, follow_links=self.config.follow_links)
        return file_object(uri, status, self.config.name) if status else None

    def _status(self) -> os.stat_result:
        try:
            return self._path.stat()
        except OSError as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
                raise self._wrong(f"cannot be read ({error.strerror})") from None
            raise refusal(error) from None

    def _uris(self) -> Sequence[str]:
        """URIs of the files referred to, ascending, each once."""
        twins = _Twins()
        uris = set()
        for file_id in self._file_ids():
            is_legal = all(_is_legal(name) for name in file_id)
            names = twins.find(self._folder, file_id) if is_legal else [_harmless(name) for name in file_id]
            uris.add(path_to_uri(Path(self._folder, *names)))
        return sorted(uris)

    def _file_ids(self) -> Iterator[list[str]]:
        if self._status().st_size > MAX_BYTES:
            raise self._wrong(f"is larger than {MAX_BYTES:,} bytes; split the medium")
        try:
            yield from _read_file_ids(self._path.read_bytes())
        except (ValueError, KeyError, struct.error, RecursionError):
            raise self._wrong("is damaged, or is none: take in the folder itself instead") from None
        except OSError as error:
            raise self._wrong(f"cannot be read ({error.strerror})") from None

    def _wrong(self, what: str) -> ConfigurationError:
        return ConfigurationError(f"the DICOMDIR of source {self.config.name!r} {what}")


class _Twins:
    """Finds files by the names that media really give them; keeps the names of each folder it has read."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def find(self, folder: str, names: Sequence[str]) -> Sequence[str]:
        """The names below a folder as they are there, or as written when they lead to nothing, or to several files."""
        found: list[str] = []
        for name in names:
            there = self._listed(os.path.join(folder, *found))  # noqa: PTH118
            same = [name] if name in there else _same(name, there)
            if len(same) != 1:
                return names
            found += same
        return found

    def _listed(self, folder: str) -> list[str]:
        if folder not in self._names:
            try:
                self._names[folder] = os.listdir(folder)  # noqa: PTH208 - names that are no UTF-8 stay as they are
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}:
                    raise refusal(error) from None
                self._names[folder] = []
        return self._names[folder]


def _same(name: str, there: Sequence[str]) -> Sequence[str]:
    by_case = [other for other in there if other.upper() == name.upper()]
    return by_case or [other for other in there if _bare(other) == _bare(name)]


def _bare(name: str) -> str:
    """``im1.dcm``, ``IM1.;1`` and ``IM1`` are one name."""
    return _VERSION_NUMBER.sub("", name.upper()).removesuffix(".").removesuffix(".DCM")


def _read_file_ids(data: bytes) -> Iterator[list[str]]:
    """The Referenced File ID of every active record, as names.

    Raises:
        ValueError: it is no DICOMDIR, or does not hold all that it says.
    """
    for record in _directory_records(data):
        kind, file_id = record.get(_TYPE, b"").strip(b" \0"), record.get(_FILE_ID, b"")
        if not kind or (kind == b"IMAGE" and not file_id and _SHARED_RECORD not in record):
            raise ValueError
        if file_id and record.get(_IN_USE) != _INACTIVE:
            yield [os.fsdecode(name.strip(b" \0")) for name in file_id.split(b"\\")]


def _directory_records(data: bytes) -> Sequence[_Record]:
    """The items of (0004,1220) Directory Record Sequence.

    Every length is checked against what holds it. General readers go on after a wrong length and pass over the
    records behind it, which would take their files for gone.
    """
    if data[128:132] != b"DICM":
        raise ValueError
    meta, at = _Reader(data, endian="<", is_explicit=True), 132
    values: dict[int, bytes] = {}
    while at + 2 <= len(data) and data[at : at + 2] == b"\x02\0":
        tag, length, at = meta.header(at, len(data))
        values[tag] = data[at : at + length].rstrip(b" \0").strip()
        at += length
    if values.get(_SOP_CLASS) != MEDIA_STORAGE_DIRECTORY:
        raise ValueError
    endian, is_explicit = _SYNTAXES[values.get(_TRANSFER_SYNTAX, b"")]
    reader = _Reader(data, endian, is_explicit=is_explicit)
    while True:
        tag, length, at = reader.header(at, len(data))
        if tag == _DIRECTORY_RECORDS:
            return reader.items(at, length, len(data))[0]
        at = reader.items(at, length, len(data))[1] if length == _UNDEFINED else at + length


class _Reader:
    """Walks through elements and items by their lengths, strictly (PS3.5 sections 7.1 and 7.5).

    Raises:
        ValueError: a length leads out of what holds it, or something stands where something else should.
        struct.error: the data ends within a header.
    """

    def __init__(self, data: bytes, endian: str, *, is_explicit: bool) -> None:
        self._data = data
        self._is_explicit = is_explicit
        self._tag = struct.Struct(endian + "HH").unpack_from
        self._short = struct.Struct(endian + "H").unpack_from
        self._long = struct.Struct(endian + "L").unpack_from

    def header(self, at: int, end: int) -> tuple[int, int, int]:
        """Tag, length and offset of the value of the element at ``at``; the value ends at ``end`` at the latest."""
        group, number = self._tag(self._data, at)
        tag, vr = group << 16 | number, self._data[at + 4 : at + 6]
        if not self._is_explicit or group == _DELIMITERS:
            (length,), at = self._long(self._data, at + 4), at + 8
        elif vr in _LONG_VRS:
            (length,), at = self._long(self._data, at + 8), at + 12
        elif vr in _SHORT_VRS:
            (length,), at = self._short(self._data, at + 6), at + 8
        else:
            raise ValueError
        if at > end or (length != _UNDEFINED and at + length > end):
            raise ValueError
        return tag, length, at

    def items(self, at: int, length: int, end: int) -> tuple[Sequence[_Record], int]:
        """The items of the sequence whose value is at ``at``, and the offset behind it."""
        records: list[_Record] = []
        stop = end if length == _UNDEFINED else at + length
        while at < stop:
            tag, size, at = self.header(at, stop)
            if tag == _SEQUENCE_END and length == _UNDEFINED:
                return records, at
            if tag != _ITEM:
                raise ValueError
            record, at = self._item(at, size, stop)
            records.append(record)
        if length == _UNDEFINED:
            raise ValueError
        return records, at

    def _item(self, at: int, length: int, end: int) -> tuple[_Record, int]:
        record: _Record = {}
        stop = end if length == _UNDEFINED else at + length
        while at < stop:
            tag, size, at = self.header(at, stop)
            if tag == _ITEM_END and length == _UNDEFINED:
                return record, at
            if tag >> 16 == _DELIMITERS:
                raise ValueError
            after = self.items(at, size, stop)[1] if size == _UNDEFINED else at + size
            if tag in _WANTED:
                record[tag] = self._data[at:after]
            at = after
        if length == _UNDEFINED:
            raise ValueError
        return record, at


def _is_legal(name: str) -> bool:
    """Whether it can be the name of a file in a folder."""
    return name not in {"", ".", ".."} and "/" not in name and "\0" not in name


def _harmless(name: str) -> str:
    """A name that stands for one that is not legal and leads nowhere: percent signs instead of what is special."""
    if name in {"", ".", ".."}:
        return "%2E" * len(name) or "%"
    return name.replace("/", "%2F").replace("\0", "%00")
