"""The words for objects: a version of the bytes at a URI, and what reading it gave. No input or output."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

KEY_HEX_DIGITS = 32
"""Keys are the first 128 bits of a SHA-256: short enough to read, no collision to be met in a lifetime."""


def key_of(*parts: str) -> str:
    """A 128-bit hexadecimal key of natural-key parts, the same on every machine and run.

    >>> key_of("a", "b") == key_of("ab", "")
    False
    """
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:KEY_HEX_DIGITS]


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One version of the bytes at a URI.

    Attributes:
        uri: ``file:///…``, ``s3://bucket/key``, ``zip:///archive.zip!member`` or ``zip+s3://bucket/archive.zip!member``.
        version: changes when the bytes change: size and modification time of a file, ETag of an S3 object, CRC and
            size of a member.
        size: bytes.
        modified_at: naive UTC.
        source: configured name of the source, the patient domain of its objects.
        is_archive: a container whose members are objects of their own.
        first_seen_at: naive UTC; when a listing or an event first named it, once the ledger knows it.
        deleted_at: naive UTC; when it was found to have vanished or to have been overwritten; None: it is there.
    """

    uri: str
    version: str
    size: int
    modified_at: datetime
    source: str
    is_archive: bool = False
    first_seen_at: datetime | None = None
    deleted_at: datetime | None = None

    @property
    def key(self) -> str:
        """Key of this version in the catalog."""
        return key_of(self.uri, self.version)

    @property
    def parent_uri(self) -> str | None:
        """URI of the archive this object is a member of, or None."""
        if not self.uri.startswith(("zip://", "zip+s3://")):
            return None
        archive = self.uri.rpartition("!")[0]
        return "file" + archive.removeprefix("zip") if archive.startswith("zip://") else archive.removeprefix("zip+")

    @property
    def name(self) -> str:
        """The last part of its path, after any archive."""
        return self.uri.rpartition("!")[2].rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Content:
    """What one pass over an object's bytes gave.

    Attributes:
        prefix: the first bytes; all of them when ``len(prefix) == size``.
        size: bytes read.
        sha256: digest of all bytes, hexadecimal.
    """

    prefix: bytes
    size: int
    sha256: str
