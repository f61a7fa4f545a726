"""Reading one object: its bytes in one pass, with proof that they did not change meanwhile."""

from __future__ import annotations

import hashlib
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO

from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.objects.archive import list_members, open_member
from imaging_pipeline.objects.folder import file_version, uri_to_path
from imaging_pipeline.objects.model import Content, ObjectVersion
from imaging_pipeline.objects.s3 import S3Access

BLOCK_BYTES = 1 << 20
MAX_OBJECT_BYTES = 2_000_000_000
"""Objects that must be held whole (to rewrite or decode them) are refused above this size."""


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
            PoisonInput: UNREADABLE, CHANGED_WHILE_READ, TOO_LARGE.
        """
        return _read_content(target, keep)

    def read_all(self, target: ObjectVersion) -> bytes:
        """All bytes of an object.

        Raises:
            PoisonInput: as :meth:`read_content`, and TOO_LARGE above :data:`MAX_OBJECT_BYTES`.
        """
        if target.size > MAX_OBJECT_BYTES:
            raise PoisonInput(Reason.TOO_LARGE, f"larger than {MAX_OBJECT_BYTES:,} bytes")
        return self.read_content(target, keep=target.size).prefix

    def list_members(self, archive: ObjectVersion) -> Iterator[ObjectVersion]:
        """The files in a zip archive as objects of their own, in the archive's order.

        Raises:
            PoisonInput: ARCHIVE_UNREADABLE when the archive's directory cannot be read.
        """
        return list_members(archive)


def _read_content(target: ObjectVersion, keep: int) -> Content:
    digest, size, kept = hashlib.sha256(), 0, bytearray()
    try:
        with _open(target) as stream:
            while block := stream.read(BLOCK_BYTES):
                digest.update(block)
                size += len(block)
                if len(kept) < keep:
                    kept += block[: keep - len(kept)]
                if size > target.size:
                    break
        is_unchanged = size == target.size and _is_unchanged(target)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError):
        raise PoisonInput(Reason.UNREADABLE, "its bytes cannot be read to the end, or are gone") from None
    if not is_unchanged:
        raise PoisonInput(Reason.CHANGED_WHILE_READ, "its size or time differ from when it was listed")
    return Content(bytes(kept), size, digest.hexdigest())


def _open(target: ObjectVersion) -> IO[bytes]:
    if target.uri.startswith("zip://"):
        return open_member(target)
    return uri_to_path(target.uri).open("rb", buffering=0)


def _is_unchanged(target: ObjectVersion) -> bool:
    """A member's CRC is proved by reading it; a file's size and time are looked at again."""
    if target.uri.startswith("zip://"):
        return True
    return file_version(uri_to_path(target.uri).stat()) == target.version
