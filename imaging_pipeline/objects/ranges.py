"""Any part of an object without the rest: from a file, a member of a zip archive, or an object in a bucket.

A stored member is a part of its archive. A deflated one is inflated up to what is asked for, from the nearest place
where the state of the inflation was kept; members packed otherwise are unpacked from their start. A part has no
checksum: that of a member is looked at where it is read whole. Must not contain knowledge of what the bytes mean.
"""

from __future__ import annotations

import os
import struct
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self

from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.objects.archive import find_member, open_member
from imaging_pipeline.objects.folder import file_version, uri_to_path
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.refusals import DAMAGED, open_plain, refusal
from imaging_pipeline.objects.s3 import S3Access, open_s3_range

BLOCK_BYTES = 1 << 20
"""Bytes of one block of a stream."""

CHECKPOINT_BYTES = 4 << 20
"""The state of an inflation (40 kB) is kept each time it has given so much, at least."""

MAX_CHECKPOINTS = 256
"""Above it every other checkpoint is dropped: memory stays below 10 MB for a member of any size."""

KEPT_INFLATIONS = 16
"""Deflated members whose checkpoints a process keeps."""

_STEP_BYTES = 64 << 10
_PACKED_BYTES = 256 << 10
_PIECE_BYTES = 16 << 10
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_MAGIC = b"PK\x03\x04"


class Ranges(ABC):
    """One version of an object, readable anywhere and by several threads. A context manager.

    Attributes:
        size: bytes of the object.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset``; fewer than ``length`` at the end of the object.

        Raises:
            PoisonInput: UNREADABLE, UNAVAILABLE, ACCESS_DENIED, GONE or CHANGED_WHILE_READ.
            ValueError: the offset or the length is negative.
        """
        if offset < 0 or length < 0:
            raise ValueError("expected an offset and a length that are not negative")
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        try:
            found = self._read_at(offset, length)
        except DAMAGED as error:
            raise refusal(error) from None
        if len(found) < length:
            raise PoisonInput(Reason.CHANGED_WHILE_READ, "it is shorter than when it was listed")
        return found

    def blocks(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes from ``offset`` in blocks of at most 1 MiB; None: to the end.

        Raises:
            PoisonInput: as :meth:`read_at`.
        """
        end = self.size if length is None else min(self.size, offset + length)
        while offset < end:
            block = self.read_at(offset, min(BLOCK_BYTES, end - offset))
            offset += len(block)
            yield block

    @abstractmethod
    def _read_at(self, offset: int, length: int) -> bytes:
        """Bytes of a part that lies inside the object."""

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Let go of what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_ranges(target: ObjectVersion, access: S3Access) -> Ranges:
    """Any part of one version of an object.

    Args:
        target: the object, as it was listed.
        access: how its store is reached.

    Raises:
        PoisonInput: GONE, ACCESS_DENIED, UNAVAILABLE, UNREADABLE, CHANGED_WHILE_READ; of a member also TOO_LARGE and
            ARCHIVE_UNREADABLE. A store is asked for nothing before a part is read.
    """
    scheme = target.uri.partition("://")[0]
    try:
        if scheme == "file":
            return _File(target)
        if scheme == "s3":
            return _Bucket(target, access)
        if scheme in ("zip", "zip+s3"):
            return _open_member(target, access)
    except DAMAGED as error:
        raise refusal(error) from None
    raise PoisonInput(Reason.UNREADABLE, "objects at such a URI cannot be read")


class _File(Ranges):
    def __init__(self, target: ObjectVersion) -> None:
        self._descriptor = -1
        self._descriptor = open_plain(uri_to_path(target.uri))
        status = os.fstat(self._descriptor)
        super().__init__(status.st_size)
        if file_version(status) != target.version:
            self.close()
            raise PoisonInput(Reason.CHANGED_WHILE_READ, "its size or time differ from when it was listed")

    def _read_at(self, offset: int, length: int) -> bytes:
        found = os.pread(self._descriptor, length, offset)
        while len(found) < length and (more := os.pread(self._descriptor, length - len(found), offset + len(found))):
            found += more
        return found

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


class _Bucket(Ranges):
    """One request for each part: what is read here is a frame or a block, never a run of small pieces."""

    def __init__(self, target: ObjectVersion, access: S3Access) -> None:
        super().__init__(target.size)
        self._target, self._access = target, access

    def _read_at(self, offset: int, length: int) -> bytes:
        with open_s3_range(self._access, self._target, offset, offset + length) as body:
            return body.read()


class _Stored(Ranges):
    """A part of another object."""

    def __init__(self, archive: Ranges, start: int, size: int) -> None:
        super().__init__(size)
        self._archive, self._start = archive, start

    def _read_at(self, offset: int, length: int) -> bytes:
        return self._archive.read_at(self._start + offset, length)

    def close(self) -> None:
        self._archive.close()


class _Deflated(Ranges):
    def __init__(self, packed: _Stored, inflation: _Inflation, size: int) -> None:
        super().__init__(size)
        self._packed, self._inflation = packed, inflation

    def _read_at(self, offset: int, length: int) -> bytes:
        return self._inflation.read(self._packed, offset, length)

    def close(self) -> None:
        self._packed.close()


class _Unpacked(Ranges):
    """A member that can only be unpacked from its start; reading on costs nothing more."""

    def __init__(self, target: ObjectVersion, access: S3Access) -> None:
        super().__init__(target.size)
        self._target, self._access = target, access
        self._stream: IO[bytes] = open_member(target, access)
        self._position = 0
        self._lock = threading.Lock()

    def _read_at(self, offset: int, length: int) -> bytes:
        with self._lock:
            if offset < self._position:
                self._stream.close()
                self._stream, self._position = open_member(self._target, self._access), 0
            while self._position < offset:
                self._advance(min(_STEP_BYTES, offset - self._position))
            return self._advance(length)

    def _advance(self, length: int) -> bytes:
        found = self._stream.read(length)
        if not found:
            raise EOFError
        self._position += len(found)
        return found

    def close(self) -> None:
        self._stream.close()


@dataclass(slots=True)
class _State:
    """An inflation that has given ``given`` bytes and taken ``taken`` packed ones."""

    given: int
    taken: int
    inflator: zlib._Decompress

    def copy(self) -> _State:
        return _State(self.given, self.taken, self.inflator.copy())


class _Inflation:
    """Where the inflation of one member can be taken up; shared by threads."""

    def __init__(self) -> None:
        self._states = [_State(0, 0, zlib.decompressobj(-zlib.MAX_WBITS))]
        self._spacing = CHECKPOINT_BYTES
        self._lock = threading.Lock()

    def read(self, packed: _Stored, offset: int, length: int) -> bytes:
        """Inflated bytes; what lies between the last checkpoint and the offset is inflated and dropped."""
        with self._lock:
            before = bisect_right(self._states, offset, key=lambda state: state.given) - 1
            state = self._states[before].copy()
        found = bytearray()
        for piece in _pieces(packed, state.taken):
            block = state.inflator.decompress(piece)
            found += block[max(offset - state.given, 0) :]
            state.given += len(block)
            state.taken += len(piece)
            self._keep(state)
            if len(found) >= length:
                break
        return bytes(found[:length])

    def _keep(self, state: _State) -> None:
        with self._lock:
            if state.given < self._states[-1].given + self._spacing:
                return
            self._states.append(state.copy())
            if len(self._states) > MAX_CHECKPOINTS:
                self._states = self._states[::2]
                self._spacing *= 2


def _pieces(packed: _Stored, start: int) -> Iterator[bytes]:
    """Packed bytes in pieces so small that none inflates to more than 16 MB."""
    for at in range(start, packed.size, _PACKED_BYTES):
        block = packed.read_at(at, _PACKED_BYTES)
        for begin in range(0, len(block), _PIECE_BYTES):
            yield block[begin : begin + _PIECE_BYTES]


_inflations: OrderedDict[tuple[str, str, str], _Inflation] = OrderedDict()
_lock = threading.Lock()


def _inflation_of(member: ObjectVersion, archive: ObjectVersion) -> _Inflation:
    key = (member.uri, member.version, archive.version)
    with _lock:
        found = _inflations.setdefault(key, _Inflation())
        _inflations.move_to_end(key)
        while len(_inflations) > KEPT_INFLATIONS:
            _inflations.popitem(last=False)
    return found


def _open_member(target: ObjectVersion, access: S3Access) -> Ranges:
    archive, info = find_member(target, access)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return _Unpacked(target, access)
    whole = open_ranges(archive, access)
    try:
        packed = _Stored(whole, _start_of(whole, info), info.compress_size)
    except BaseException:
        whole.close()
        raise
    if info.compress_type == zipfile.ZIP_STORED:
        return packed
    return _Deflated(packed, _inflation_of(target, archive), info.file_size)


def _start_of(archive: Ranges, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin, behind its local header (PKWARE APPNOTE section 4.3.7)."""
    header = archive.read_at(info.header_offset, _LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(_LOCAL_MAGIC):
        raise PoisonInput(Reason.UNREADABLE, "the member's header cannot be read")
    _magic, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    return int(info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes)
