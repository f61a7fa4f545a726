"""Members of zip archives as objects of their own, read in place: on disk or by ranges from a bucket, never extracted.

A member's name is part of its URI, letter by letter and quoted; it is never taken for a path of a file system.
"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import IO, TYPE_CHECKING, cast
from urllib.parse import quote, unquote

from imaging_pipeline.errors import ConfigurationError, PoisonInput, Reason, TransientError
from imaging_pipeline.objects.folder import ARCHIVE_SUFFIXES, file_version, uri_to_path
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.s3 import S3Access, S3RangeFile, stat_s3

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_RATIO = 1_000
"""Deflate cannot exceed about 1,032:1; a member near that is a bomb, pixel data stays below 100:1."""

MAX_MEMBERS = 1_000_000
"""An archive naming more members than this is refused whole."""

MAX_MEMBER_BYTES = 64 << 30
"""A member that claims to inflate to more is refused."""

MAX_DIRECTORY_BYTES = 256 << 20
"""An archive whose directory is longer is refused before it is read: it is held in memory."""

OPEN_ARCHIVES = 8
"""Archives whose directory a process keeps: reading one of n members n times would be quadratic."""

_SAFE = "/@$&'()*+,;=:~-._"
_ENCRYPTED = 0x1
_LOCAL_HEADER_BYTES = 30
_STEP_BYTES = 4096
_UNPACKED_HERE = frozenset({zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA})
_UNREADABLE = (
    zipfile.BadZipFile, lzma.LZMAError, struct.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError,
    IndexError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ArchiveSummary:
    """What is in an archive; every entry of its directory but folders counts once.

    Attributes:
        members: objects of their own, the encrypted and nested ones among them.
        duplicates: entries that a later entry of the same name replaces, as for every unzip program; not read.
        hidden: entries with a leading dot in their last name; not read.
        encrypted: members that cannot be read without a password.
        nested: members that are archives themselves, which are not looked into.
    """

    members: int
    duplicates: int
    hidden: int
    encrypted: int
    nested: int


def is_nested_archive(target: ObjectVersion) -> bool:
    """Whether an object is an archive within an archive; such are catalogued and not looked into."""
    return target.parent_uri is not None and _is_archive(target.name)


def list_members(archive: ObjectVersion, access: S3Access) -> Iterator[ObjectVersion]:
    """The files in a zip archive, in the archive's order; folders and hidden names are left out.

    Two members of one name: the last one counts, as for every unzip program; :func:`describe_archive` counts them.

    Raises:
        PoisonInput: ARCHIVE_UNREADABLE, or TOO_LARGE for a bomb, when the archive's directory cannot be used; and
            what reading the archive itself raises.
    """
    scheme = "zip+s3://" if archive.uri.startswith("s3://") else "zip://"
    prefix = scheme + archive.uri.partition("://")[2] + "!"
    for name, member in _open(archive.uri, access, archive).NameToInfo.items():
        if not _is_folder(name) and not _is_hidden(name):
            yield ObjectVersion(
                uri=prefix + quote(name, safe=_SAFE),
                version=_version(member),
                size=member.file_size,
                modified_at=_member_time(member, archive.modified_at),
                source=archive.source,
            )


def describe_archive(archive: ObjectVersion, access: S3Access) -> ArchiveSummary:
    """Count what is in an archive, and what of it is not read.

    Raises:
        PoisonInput: as :func:`list_members`.
    """
    directory = _open(archive.uri, access, archive)
    files = {name: member for name, member in directory.NameToInfo.items() if not _is_folder(name)}
    members = {name: member for name, member in files.items() if not _is_hidden(name)}
    return ArchiveSummary(
        members=len(members),
        duplicates=sum(1 for member in directory.filelist if not _is_folder(member.filename)) - len(files),
        hidden=len(files) - len(members),
        encrypted=sum(1 for member in members.values() if member.flag_bits & _ENCRYPTED),
        nested=sum(1 for name in members if _is_archive(name)),
    )


def open_member(member: ObjectVersion, access: S3Access) -> IO[bytes]:
    """A stream of one member's bytes; it ends where the directory says that the member does.

    Raises:
        PoisonInput: the member or its archive is gone or changed, the member is encrypted, or inflates beyond
            :data:`MAX_RATIO`; and what reading the archive itself raises.
    """
    uri, name = member.parent_uri or "", unquote(member.uri.rpartition("!")[2])
    directory = _open(uri, access)
    info = directory.NameToInfo.get(name)
    if info is None or _version(info) != member.version:
        raise PoisonInput(Reason.CHANGED_WHILE_READ, "the archive no longer holds this member as it was listed")
    if info.flag_bits & _ENCRYPTED:
        raise PoisonInput(Reason.UNREADABLE, "the member is encrypted; unpack it with its password first")
    if info.file_size > min(MAX_RATIO * max(info.compress_size, 1), MAX_MEMBER_BYTES):
        raise PoisonInput(
            Reason.TOO_LARGE, f"the member inflates more than {MAX_RATIO} times, or to over {MAX_MEMBER_BYTES:,} bytes"
        )
    try:
        if info.compress_type in _UNPACKED_HERE:
            return io.BufferedReader(_Unpacked(directory.open(_as_packed(info)), info))
        return directory.open(info)
    except _UNREADABLE:
        raise PoisonInput(Reason.UNREADABLE, "the member's compression or header cannot be read") from None


def forget_archives() -> None:
    """Look again at every archive in a bucket before the next of its members is read: one was replaced."""
    _s3_version.cache_clear()


def _open(uri: str, access: S3Access, listed: ObjectVersion | None = None) -> zipfile.ZipFile:
    """The archive's directory, of the version that was listed, or of the one that is there now."""
    if uri.startswith("s3://"):
        version, size = (listed.version, listed.size) if listed else _s3_version(access, uri)
        return _open_s3(access, uri, version, size)
    path = _local_path(uri)
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path made anew for each of many members costs more than the call
        return _open_file(path, file_version(status))
    except FileNotFoundError:
        raise PoisonInput(Reason.GONE, "its archive is no longer there; the next listing takes it out") from None
    except PermissionError:
        raise PoisonInput(Reason.ACCESS_DENIED, "the archive may not be read: mend its permissions") from None
    except OSError:
        raise PoisonInput(Reason.UNREADABLE, "the archive cannot be read") from None


@lru_cache(maxsize=OPEN_ARCHIVES)
def _local_path(uri: str) -> str:
    return str(uri_to_path(uri))


@lru_cache(maxsize=OPEN_ARCHIVES)
def _open_file(path: str, _file_version: str) -> zipfile.ZipFile:
    return _directory(_LocalFile(path))


@lru_cache(maxsize=OPEN_ARCHIVES)
def _open_s3(access: S3Access, uri: str, etag: str, size: int) -> zipfile.ZipFile:
    return _directory(cast("IO[bytes]", _FileInBucket(access, uri, etag, size)))


@lru_cache(maxsize=8 * OPEN_ARCHIVES)
def _s3_version(access: S3Access, uri: str) -> tuple[str, int]:
    """ETag and size of an archive. Not asked for each member: reading names the ETag and is refused if it changed."""
    try:
        found = stat_s3(access, uri, source="")
    except TransientError as error:
        raise PoisonInput(Reason.UNAVAILABLE, str(error)) from None
    except ConfigurationError as error:
        raise PoisonInput(Reason.ACCESS_DENIED, str(error)) from None
    if found is None:
        raise PoisonInput(Reason.GONE, "its archive is no longer there; the next listing takes it out")
    return found.version, found.size


def _directory(file: IO[bytes]) -> zipfile.ZipFile:
    try:
        directory = zipfile.ZipFile(file)
    except _UNREADABLE:
        raise PoisonInput(Reason.ARCHIVE_UNREADABLE, "no directory of a zip archive was found in it") from None
    if len(directory.filelist) > MAX_MEMBERS:
        raise PoisonInput(Reason.TOO_LARGE, f"the archive names more than {MAX_MEMBERS:,} members")
    if _is_overlapping(directory):
        raise PoisonInput(Reason.TOO_LARGE, "members of the archive share the same bytes: it is a bomb, or damaged")
    return directory


def _is_overlapping(directory: zipfile.ZipFile) -> bool:
    """Whether two entries use the same bytes of the archive, or an entry bytes of its directory."""
    end = 0
    for member in sorted(directory.filelist, key=lambda member: member.header_offset):
        if member.header_offset < end:
            return True
        name_bytes = len(member.orig_filename)  # in characters: never more than its bytes
        end = member.header_offset + _LOCAL_HEADER_BYTES + name_bytes + member.compress_size
    return end > directory.start_dir


class _LocalFile(io.FileIO):
    """An archive on disk, unbuffered: headers and members are read in one go each."""

    def read(self, size: int | None = -1, /) -> bytes:
        _refuse_long_directory(size)
        return super().read(-1 if size is None else size)


class _FileInBucket(S3RangeFile):
    """An archive in a bucket."""

    def read(self, size: int = -1, /) -> bytes | None:
        _refuse_long_directory(size)
        return super().read(size)


def _refuse_long_directory(size: int | None) -> None:
    """A directory is read in one go, of the length that the archive itself gives; nothing else is that long."""
    if size is not None and size > MAX_DIRECTORY_BYTES:
        raise PoisonInput(Reason.TOO_LARGE, f"the archive's directory is longer than {MAX_DIRECTORY_BYTES:,} bytes")


class _Unpacked(io.RawIOBase):
    """The bytes of a member packed by bzip2 or LZMA, of which zipfile would unpack a step of any length at once."""

    def __init__(self, packed: IO[bytes], info: zipfile.ZipInfo) -> None:
        super().__init__()
        self._packed, self._info = packed, info
        self._left, self._crc = info.file_size, 0
        is_lzma = info.compress_type == zipfile.ZIP_LZMA
        self._decompressor = _lzma_decompressor(packed, info) if is_lzma else bz2.BZ2Decompressor()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view, block = memoryview(buffer).cast("B"), b""
        while self._left and not block:
            packed = self._packed.read(_STEP_BYTES) if self._decompressor.needs_input else b""
            if self._decompressor.eof or (self._decompressor.needs_input and not packed):
                raise EOFError
            block = self._decompressor.decompress(packed, min(len(view), self._left))
        view[: len(block)] = block
        self._left -= len(block)
        self._crc = zlib.crc32(block, self._crc)
        if not self._left and self._crc != self._info.CRC:
            raise zipfile.BadZipFile
        return len(block)

    def close(self) -> None:
        self._packed.close()
        super().close()


def _lzma_decompressor(packed: IO[bytes], info: zipfile.ZipInfo) -> lzma.LZMADecompressor:
    """A decompressor set by the member's first bytes (PKWARE APPNOTE section 5.8.8)."""
    _version, _length, coding, dictionary = struct.unpack("<HHBL", packed.read(9))
    options = {
        "id": lzma.FILTER_LZMA1,
        "lc": coding % 9,
        "lp": coding // 9 % 5,
        "pb": coding // 45,
        "dict_size": max(min(dictionary, info.file_size), 4096),  # a longer one is never used, and would take memory
    }
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[options])


def _as_packed(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """The same member, to be read as it is packed."""
    packed = copy(info)
    packed.compress_type, packed.file_size = zipfile.ZIP_STORED, info.compress_size
    del packed.CRC  # of the unpacked bytes
    return packed


def _is_folder(name: str) -> bool:
    return name.endswith("/")


def _is_hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".")


def _is_archive(name: str) -> bool:
    return name.lower().endswith(tuple(ARCHIVE_SUFFIXES))


def _version(member: zipfile.ZipInfo) -> str:
    return f"{member.CRC:08x}-{member.file_size}"


def _member_time(member: zipfile.ZipInfo, fallback: datetime) -> datetime:
    try:
        return datetime(*member.date_time)  # noqa: DTZ001 - zip keeps naive times
    except ValueError:
        return fallback
