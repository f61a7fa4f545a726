"""Reading one object: its bytes in one pass, with proof that they did not change meanwhile."""

from __future__ import annotations

import hashlib
import lzma
import zipfile
import zlib
from typing import IO

from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.objects.archive import open_member
from imaging_pipeline.objects.folder import file_version, uri_to_path
from imaging_pipeline.objects.model import Content, ObjectVersion

BLOCK_BYTES = 1 << 20
MAX_OBJECT_BYTES = 2_000_000_000
"""Objects that must be held whole (to rewrite or decode them) are refused above this size."""


def read_content(target: ObjectVersion, *, keep: int) -> Content:
    """Read all bytes once, digesting them, and keep the first ``keep``.

    Raises:
        PoisonInput: UNREADABLE, CHANGED_WHILE_READ, TOO_LARGE.
    """
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


def read_all(target: ObjectVersion) -> bytes:
    """All bytes of an object.

    Raises:
        PoisonInput: as :func:`read_content`, and TOO_LARGE above :data:`MAX_OBJECT_BYTES`.
    """
    if target.size > MAX_OBJECT_BYTES:
        raise PoisonInput(Reason.TOO_LARGE, f"larger than {MAX_OBJECT_BYTES:,} bytes")
    return read_content(target, keep=target.size).prefix


def _open(target: ObjectVersion) -> IO[bytes]:
    if target.uri.startswith("zip://"):
        return open_member(target)
    return uri_to_path(target.uri).open("rb", buffering=0)


def _is_unchanged(target: ObjectVersion) -> bool:
    """A member's CRC is proved by reading it; a file's size and time are looked at again."""
    if target.uri.startswith("zip://"):
        return True
    return file_version(uri_to_path(target.uri).stat()) == target.version
