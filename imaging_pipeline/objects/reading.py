"""Reading one object: its bytes in one pass, with proof that they did not change meanwhile."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, TypeVar

from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.objects.archive import (
    ArchiveSummary,
    describe_archive,
    forget_archives,
    list_members,
    open_member,
)
from imaging_pipeline.objects.folder import file_version, uri_to_path
from imaging_pipeline.objects.model import Content, ObjectVersion
from imaging_pipeline.objects.ranges import Ranges, open_ranges
from imaging_pipeline.objects.refusals import DAMAGED, open_plain, refusal
from imaging_pipeline.objects.s3 import S3Access, open_s3
from imaging_pipeline.objects.source import ABSENT

BLOCK_BYTES = 1 << 20
MAX_OBJECT_BYTES = 2_000_000_000
"""Objects that must be held whole (to rewrite or decode them) are refused above this size."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ObjectReader:
    """Reads objects wherever they are. Picklable: a worker process makes its own connections.

    Attributes:
        access: how to reach object stores.
        by_source: the same for sources that have a store of their own, by source name.
    """

    access: S3Access = field(default_factory=S3Access)
    by_source: Mapping[str, S3Access] = field(default_factory=dict)

    def read_content(self, target: ObjectVersion, *, keep: int) -> Content:
        """Read all bytes once, digesting them, and keep the first ``keep``.

        Raises:
            PoisonInput: GONE, ACCESS_DENIED, UNAVAILABLE, UNREADABLE, CHANGED_WHILE_READ, TOO_LARGE; of a member also
                ARCHIVE_UNREADABLE.
        """
        return _or_again(target, lambda: self._read(target, keep))

    def read_all(self, target: ObjectVersion) -> bytes:
        """All bytes of an object.

        Raises:
            PoisonInput: as :meth:`read_content`, and TOO_LARGE above :data:`MAX_OBJECT_BYTES`.
        """
        if target.size > MAX_OBJECT_BYTES:
            raise PoisonInput(Reason.TOO_LARGE, f"larger than {MAX_OBJECT_BYTES:,} bytes")
        return self.read_content(target, keep=target.size).prefix

    def open_ranges(self, target: ObjectVersion) -> Ranges:
        """Any part of an object without the rest; a context manager.

        Raises:
            PoisonInput: as :meth:`read_content`.
        """
        if target.version == ABSENT:
            raise PoisonInput(Reason.GONE, "the list of its source names it, and it is not there")
        return _or_again(target, lambda: open_ranges(target, self._access_of(target)))

    def read_stored(self, version: ObjectVersion | None, uri: str, sha256: str) -> bytes:
        """All bytes of an object that the lake knows.

        Args:
            version: the object at its source; None: a file of our own, which has no source.
            uri: where such a file is.
            sha256: digest of the bytes that are meant.

        Raises:
            PoisonInput: as :meth:`read_all`; UNREADABLE for a file of our own; CHANGED_WHILE_READ for other bytes.
        """
        if version is not None:
            data = self.read_all(version)
        else:
            try:
                data = uri_to_path(uri).read_bytes()
            except OSError:
                raise PoisonInput(Reason.UNREADABLE, "the de-identified file cannot be read") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise PoisonInput(Reason.CHANGED_WHILE_READ, "its bytes differ from those the lake knows")
        return data

    def list_members(self, archive: ObjectVersion) -> Iterator[ObjectVersion]:
        """The files in a zip archive as objects of their own, in the archive's order.

        Raises:
            PoisonInput: ARCHIVE_UNREADABLE or TOO_LARGE when the archive's directory cannot be used; GONE,
                ACCESS_DENIED, UNAVAILABLE, CHANGED_WHILE_READ when the archive cannot be reached as it was listed.
        """
        return list_members(archive, self._access_of(archive))

    def describe_archive(self, archive: ObjectVersion) -> ArchiveSummary:
        """Count what is in a zip archive, and what of it is not read.

        Raises:
            PoisonInput: as :meth:`list_members`.
        """
        return describe_archive(archive, self._access_of(archive))

    def _access_of(self, target: ObjectVersion) -> S3Access:
        return self.by_source.get(target.source, self.access)

    def _read(self, target: ObjectVersion, keep: int) -> Content:
        if target.version == ABSENT:
            raise PoisonInput(Reason.GONE, "the list of its source names it, and it is not there")
        opened = _OPENERS.get(target.uri.partition("://")[0])
        if opened is None:
            raise PoisonInput(Reason.UNREADABLE, "objects at such a URI cannot be read")
        digest, size, kept = hashlib.sha256(), 0, bytearray()
        try:
            with opened(target, self._access_of(target)) as stream:
                while block := stream.read(BLOCK_BYTES):
                    digest.update(block)
                    size += len(block)
                    if len(kept) < keep:
                        kept += block[: keep - len(kept)]
                    if size > target.size:
                        break
            is_unchanged = size == target.size and _is_unchanged(target)
        except DAMAGED as error:
            raise refusal(error) from None
        if not is_unchanged:
            raise PoisonInput(Reason.CHANGED_WHILE_READ, "its size or time differ from when it was listed")
        return Content(bytes(kept), size, digest.hexdigest())


def _or_again(target: ObjectVersion, action: Callable[[], _T]) -> _T:
    """What ``action`` gives, at the second attempt when a replaced archive may hold the same member still."""
    try:
        return action()
    except PoisonInput as found:
        if found.reason is not Reason.CHANGED_WHILE_READ or not target.uri.startswith("zip+s3://"):
            raise
    forget_archives()
    return action()


def _open_file(target: ObjectVersion, _access: S3Access) -> IO[bytes]:
    return os.fdopen(open_plain(uri_to_path(target.uri)), "rb", buffering=0)


def _open_s3(target: ObjectVersion, access: S3Access) -> IO[bytes]:
    return open_s3(access, target)


_OPENERS: Mapping[str, Callable[[ObjectVersion, S3Access], IO[bytes]]] = {
    "file": _open_file,
    "s3": _open_s3,
    "zip": open_member,
    "zip+s3": open_member,
}


def _is_unchanged(target: ObjectVersion) -> bool:
    """A file's size and time are looked at again; a member's CRC and an S3 object's ETag hold while they are read."""
    if not target.uri.startswith("file://"):
        return True
    return file_version(uri_to_path(target.uri).stat()) == target.version
