"""Members of zip archives as objects of their own, read in place and never extracted to disk."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote

from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.objects.folder import file_version, uri_to_path
from imaging_pipeline.objects.model import ObjectVersion

MAX_RATIO = 1_000
"""Deflate cannot exceed about 1,032:1; a member near that is a bomb, pixel data stays below 100:1."""

MAX_MEMBERS = 1_000_000
"""An archive naming more members than this is refused whole."""

_SAFE = "/@$&'()*+,;=:~-._"
_ENCRYPTED = 0x1
_UNREADABLE = (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, ValueError)


def list_members(archive: ObjectVersion) -> Iterator[ObjectVersion]:
    """The files in a zip archive, in the archive's order; folders and hidden names are left out.

    Two members of one name: the last one counts, as for every unzip program.

    Raises:
        PoisonInput: ARCHIVE_UNREADABLE when the archive's directory cannot be read.
    """
    for name, member in _members(archive.uri).items():
        if member.is_dir() or name.rpartition("/")[2].startswith("."):
            continue
        yield ObjectVersion(
            uri=f"zip://{archive.uri.removeprefix('file://')}!{quote(name, safe=_SAFE)}",
            version=_version(member),
            size=member.file_size,
            modified_at=_member_time(member, archive.modified_at),
            source=archive.source,
        )


def open_member(member: ObjectVersion) -> IO[bytes]:
    """A stream of one member's bytes.

    Raises:
        PoisonInput: the member is gone, changed, encrypted, or inflates beyond :data:`MAX_RATIO`.
    """
    parent, _, inner = member.uri.removeprefix("zip://").rpartition("!")
    uri = "file://" + parent
    info = _members(uri).get(unquote(inner))
    if info is None or _version(info) != member.version:
        raise PoisonInput(Reason.CHANGED_WHILE_READ, "the archive no longer holds this member as it was listed")
    if info.flag_bits & _ENCRYPTED:
        raise PoisonInput(Reason.UNREADABLE, "the member is encrypted; unpack it with its password first")
    if info.file_size > MAX_RATIO * max(info.compress_size, 1):
        raise PoisonInput(Reason.TOO_LARGE, f"the member inflates more than {MAX_RATIO} times")
    try:
        return _archive(uri).open(info)
    except _UNREADABLE:
        raise PoisonInput(Reason.UNREADABLE, "the member's compression or header cannot be read") from None


def _members(uri: str) -> dict[str, zipfile.ZipInfo]:
    archive = _archive(uri)
    if len(archive.filelist) > MAX_MEMBERS:
        raise PoisonInput(Reason.TOO_LARGE, f"the archive names more than {MAX_MEMBERS:,} members")
    return archive.NameToInfo


def _archive(uri: str) -> zipfile.ZipFile:
    path = uri_to_path(uri)
    try:
        return _open_archive(path, file_version(path.stat()))
    except _UNREADABLE:
        raise PoisonInput(Reason.ARCHIVE_UNREADABLE, "no directory of a zip archive was found in it") from None


@lru_cache(maxsize=2)
def _open_archive(path: Path, _file_version: str) -> zipfile.ZipFile:
    """Opened once per version and process: reading a directory of n members n times would be quadratic."""
    return zipfile.ZipFile(path)


def _version(member: zipfile.ZipInfo) -> str:
    return f"{member.CRC:08x}-{member.file_size}"


def _member_time(member: zipfile.ZipInfo, fallback: datetime) -> datetime:
    try:
        return datetime(*member.date_time)  # noqa: DTZ001 - zip keeps naive times
    except ValueError:
        return fallback
