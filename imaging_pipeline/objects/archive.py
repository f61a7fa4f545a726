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

AT_ONCE_BYTES = 1 << 20
"""Members of an archive on disk up to this size are read and inflated in one go; larger ones in such steps."""

OPEN_ARCHIVES = 8
"""Archives whose directory a process keeps: reading one of n members n times would be quadratic."""

_SAFE = "/@$&'()*+,;=:~-._"
_ENCRYPTED = 0x1
_PATCHED_OR_SEALED = 0x60
_UTF8_NAME = 0x800
_LOCAL_HEADER = struct.Struct("<4s2xH18xHH")
_LOCAL_MAGIC = b"PK\x03\x04"
_LOCAL_EXTRA_BYTES = 256
_STEP_BYTES = 4096
_READ_AT_ONCE = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
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
        is_whole_file: it begins where its file begins: nothing else, such as a program, lies before it.
    """

    members: int
    duplicates: int
    hidden: int
    encrypted: int
    nested: int
    is_whole_file: bool = True


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
        is_whole_file=min((each.header_offset for each in directory.filelist), default=directory.start_dir) == 0,
    )


def open_member(member: ObjectVersion, access: S3Access) -> IO[bytes]:
    """A stream of one member's bytes; it ends where the directory says that the member does.

    Raises:
        PoisonInput: the member or its archive is gone or changed, the member is encrypted, or inflates beyond
            :data:`MAX_RATIO`; and what reading the archive itself raises.
    """
    directory, info = _find(member, access)
    try:
        if info.compress_type in _UNPACKED_HERE:
            return io.BufferedReader(_Unpacked(directory.open(_as_packed(info)), info))
        if not isinstance(directory.fp, _LocalFile) or not _is_read_at_once(info):
            return directory.open(info)
        packed = _packed(directory.fp, info)
    except _UNREADABLE:
        raise PoisonInput(Reason.UNREADABLE, "the member's compression or header cannot be read") from None
    return io.BytesIO(_unpacked(packed, info))


def find_member(member: ObjectVersion, access: S3Access) -> tuple[ObjectVersion, zipfile.ZipInfo]:
    """The archive of a member as it is now, and the member's entry in its directory.

    Raises:
        PoisonInput: as :func:`open_member`.
    """
    info = _find(member, access)[1]
    uri = member.parent_uri or ""
    if uri.startswith("s3://"):
        version, size = _s3_version(access, uri)
    else:
        status = os.stat(_local_path(uri))  # noqa: PTH116
        version, size = file_version(status), status.st_size
    return ObjectVersion(uri, version, size, member.modified_at, member.source, is_archive=True), info


def _find(member: ObjectVersion, access: S3Access) -> tuple[zipfile.ZipFile, zipfile.ZipInfo]:
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
    return directory, info


def _is_read_at_once(info: zipfile.ZipInfo) -> bool:
    return info.compress_type in _READ_AT_ONCE and max(info.file_size, info.compress_size) <= AT_ONCE_BYTES


def _packed(file: _LocalFile, info: zipfile.ZipInfo) -> bytes:
    """A member's bytes as they are in the archive, behind its local header (PKWARE APPNOTE section 4.3.7)."""
    usual = _LOCAL_HEADER.size + len(info.orig_filename) + _LOCAL_EXTRA_BYTES + info.compress_size
    data = file.read_at(info.header_offset, usual)
    magic, flags, name_bytes, extra_bytes = _LOCAL_HEADER.unpack_from(data)
    name_end = _LOCAL_HEADER.size + name_bytes
    start = name_end + extra_bytes
    stop = start + info.compress_size
    if stop > usual:  # a long name or extra field: the member goes on behind what was read
        data += file.read_at(info.header_offset + len(data), stop - usual)
    name = data[_LOCAL_HEADER.size : name_end].decode("utf-8" if flags & _UTF8_NAME else "cp437")
    if magic != _LOCAL_MAGIC or name != info.orig_filename or info.flag_bits & _PATCHED_OR_SEALED:
        raise zipfile.BadZipFile
    return data[start:stop]


def _unpacked(packed: bytes, info: zipfile.ZipInfo) -> bytes:
    """A member's own bytes, not more than the directory says and with the checksum that it names.

    Raises:
        EOFError: the archive ends before the member.
        zipfile.BadZipFile: the checksum is another.
        zlib.error: they are not deflated.
    """
    if len(packed) < info.compress_size:
        raise EOFError
    if info.compress_type == zipfile.ZIP_DEFLATED:
        packed = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, info.file_size + 1)
    content = packed[: info.file_size]
    if zlib.crc32(content) != info.CRC:
        raise zipfile.BadZipFile
    return content


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
        version = file_version(os.stat(path))  # noqa: PTH116 - a Path for each of many members costs more than the call
        if listed is not None and version != listed.version:
            raise PoisonInput(Reason.CHANGED_WHILE_READ, "the archive's size or time differ from when it was listed")
        return _open_file(path, version)
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
        end = member.header_offset + _LOCAL_HEADER.size + name_bytes + member.compress_size
    return end > directory.start_dir


class _LocalFile(io.FileIO):
    """An archive on disk, unbuffered: headers and members are read in one go each."""

    def read(self, size: int | None = -1, /) -> bytes:
        _refuse_long_directory(size)
        return super().read(-1 if size is None else size)

    def read_at(self, offset: int, size: int) -> bytes:
        """Bytes from an offset, fewer at the end of the file."""
        return os.pread(self.fileno(), size, offset)


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
