"""Where the frames of an object lie in it, so that one can be read without the others.

Frames of native pixel data follow from the header. Those of compressed pixel data are said by an offset table (PS3.5
A.4, PS3.3 C.7.6.3.1.8) or found by one walk over the items; what cost a walk is kept in a small SQLite file, which may
be removed at any time. Must not contain decoding.
"""

from __future__ import annotations

import sqlite3
import struct
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Final

from pydicom import dcmread

from imaging_pipeline.dicom.pixels import guarded
from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.objects.ranges import Ranges
from imaging_pipeline.sqlite import connect
from imaging_pipeline.web.index.model import Instance
from imaging_pipeline.web.wado.media import EXPLICIT_BIG, NATIVE

__all__ = ["FramePlaces", "lone_frame_value", "native_bits", "unwrapped"]

KEPT_IN_MEMORY: Final = 512
"""Objects whose places a process remembers."""

_WORTH_KEEPING: Final = 8
"""Objects of fewer frames are looked at again rather than written down."""

_TABLE: Final = "CREATE TABLE IF NOT EXISTS frame_place (instance_key TEXT PRIMARY KEY, version TEXT, offsets BLOB)"

_ITEM: Final = b"\xfe\xff\x00\xe0"
_END: Final = b"\xfe\xff\xdd\xe0"
_WINDOW_BYTES: Final = 16 << 10
_CODESTREAM_STARTS: Final = (b"\xff\xd8", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")


@dataclass(frozen=True, slots=True)
class _Item:
    """An item of encapsulated pixel data: where its header begins, and the bytes of its value."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + 8 + self.length


class FramePlaces:
    """Places of frames, remembered.

    Args:
        file: the SQLite file; its folder exists.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._local = threading.local()
        self._known: OrderedDict[tuple[str, str], array[int]] = OrderedDict()
        self._lock = threading.Lock()

    def span(self, instance: Instance, ranges: Ranges, index: int) -> tuple[int, int]:
        """First byte and number of bytes of one frame in its object.

        Of a native object these are its samples, or the bytes that they touch where a frame does not begin with a byte;
        of a compressed one its items, with their headers.

        Args:
            instance: what it is a frame of; with pixel data.
            ranges: its bytes.
            index: from 0, below the number of frames.

        Raises:
            PoisonInput: PIXEL_UNDECODABLE, and what reading raises.
        """
        if instance.transfer_syntax_uid in NATIVE:
            return _native_span(instance, index)
        places = self._places(instance, ranges)
        return places[index], places[index + 1] - places[index]

    def _places(self, instance: Instance, ranges: Ranges) -> array[int]:
        """Offset of each frame's first item, and the end of the last one's."""
        key = (instance.instance_key, instance.version)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        number = instance.number_of_frames or 1
        found = self._stored(*key) if number >= _WORTH_KEEPING else None
        if found is None or len(found) != number + 1:
            found = array("q", _found(instance, ranges, number))
            if number >= _WORTH_KEEPING:
                self._store(*key, found)
        with self._lock:
            self._known[key] = found
            while len(self._known) > KEPT_IN_MEMORY:
                self._known.popitem(last=False)
        return found

    def _stored(self, instance_key: str, version: str) -> array[int] | None:
        sql = "SELECT offsets FROM frame_place WHERE instance_key = ? AND version = ?"
        row = self._connection().execute(sql, (instance_key, version)).fetchone()
        return array("q", row[0]) if row else None

    def _store(self, instance_key: str, version: str, offsets: array[int]) -> None:
        sql = "INSERT OR REPLACE INTO frame_place VALUES (?, ?, ?)"
        self._connection().execute(sql, (instance_key, version, offsets.tobytes()))

    def _connection(self) -> sqlite3.Connection:
        if not hasattr(self._local, "connection"):
            self._file.touch(mode=0o600)
            connection = connect(self._file)
            connection.execute(_TABLE)
            self._local.connection = connection
        found: sqlite3.Connection = self._local.connection
        return found


def native_bits(instance: Instance) -> int:
    """Bits of one frame of a native object.

    Raises:
        PoisonInput: PIXEL_UNSUPPORTED when the header does not say it.
    """
    samples = instance.samples_per_pixel or 1
    if instance.photometric == "YBR_FULL_422" and samples == 3:
        samples = 2  # two pixels share a pair of colour samples, PS3.3 C.7.6.3.1.2
    bits = (instance.rows or 0) * (instance.columns or 0) * samples * (instance.bits_allocated or 0)
    if bits <= 0:
        raise PoisonInput(Reason.PIXEL_UNSUPPORTED, "its header does not say how large a frame is")
    return bits


def _native_span(instance: Instance, index: int) -> tuple[int, int]:
    bits = native_bits(instance)
    start, stop = index * bits // 8, -(-(index + 1) * bits // 8)
    return _pixel_offset(instance) + start, stop - start


def _pixel_offset(instance: Instance) -> int:
    if instance.pixel_data_offset is None:
        raise PoisonInput(Reason.PIXEL_UNSUPPORTED, "expected an image; the object has no pixel data")
    return instance.pixel_data_offset


def _found(instance: Instance, ranges: Ranges, number: int) -> list[int]:
    start = _pixel_offset(instance)
    table = _item_at(ranges, start)
    if table is None:
        raise _broken()
    if number == 1:
        return [table.end, ranges.size]
    offsets = _by_table(ranges, table, number) or _by_extended_table(ranges, start, number)
    if offsets is not None:
        return [*(table.end + offset for offset in offsets), ranges.size]
    return _by_walk(ranges, table.end, number)


def _by_table(ranges: Ranges, table: _Item, number: int) -> list[int] | None:
    """Offsets of the Basic Offset Table behind it; None when there is none or it says something else."""
    if table.length != 4 * number:
        return None
    offsets = list(struct.unpack(f"<{number}I", ranges.read_at(table.offset + 8, table.length)))
    return offsets if _is_right(ranges, table.end, offsets) else None


def _by_extended_table(ranges: Ranges, pixel_offset: int, number: int) -> list[int] | None:
    """Offsets of the Extended Offset Table; None when there is none or it says something else."""
    header = ranges.read_at(0, pixel_offset)
    ds = guarded(lambda: dcmread(BytesIO(header), stop_before_pixels=True, specific_tags=["ExtendedOffsetTable"]))
    value = ds.get("ExtendedOffsetTable")
    if not isinstance(value, bytes) or len(value) != 8 * number:
        return None
    offsets = list(struct.unpack(f"<{number}Q", value))
    return offsets if _is_right(ranges, pixel_offset + 8, offsets) else None


def _is_right(ranges: Ranges, first: int, offsets: list[int]) -> bool:
    """Whether offsets ascend from 0 and the last of them is an item's: a wrong table costs a walk, no wrong frame."""
    ascending = all(before < after for before, after in pairwise(offsets))
    return offsets[0] == 0 and ascending and _item_at(ranges, first + offsets[-1]) is not None


def _by_walk(ranges: Ranges, start: int, number: int) -> list[int]:
    """Offset of each frame's first item, and the end of the last one: one item each, or told by its first bytes."""
    items, is_start = [], []
    for item, head in _items(ranges, start):
        items.append(item)
        is_start.append(head.startswith(_CODESTREAM_STARTS))
    if not items:
        raise _broken()
    if len(items) != number:
        items = [item for item, begins in zip(items, is_start, strict=True) if begins] + items[-1:]
        if len(items) != number + 1:
            raise _broken()
        return [*(item.offset for item in items[:-1]), items[-1].end]
    return [*(item.offset for item in items), items[-1].end]


def _items(ranges: Ranges, at: int) -> Iterator[tuple[_Item, bytes]]:
    """Items from an offset on, each with its first bytes; many small ones are met in one reading."""
    window, window_at = b"", at
    while at + 8 <= ranges.size:
        if at + 16 > window_at + len(window):
            window, window_at = ranges.read_at(at, _WINDOW_BYTES), at
        head = window[at - window_at : at - window_at + 24]
        if head[:4] != _ITEM:
            return
        item = _Item(at, int.from_bytes(head[4:8], "little"))
        if item.end > ranges.size:
            raise _broken()
        yield item, head[8:]
        at = item.end


def _item_at(ranges: Ranges, offset: int) -> _Item | None:
    head = ranges.read_at(offset, 8)
    if len(head) < 8 or head[:4] != _ITEM:
        return None
    item = _Item(offset, int.from_bytes(head[4:], "little"))
    return item if item.end <= ranges.size else None


def unwrapped(items: bytes) -> bytes:
    """The code stream in the items of one frame; what follows the end of the pixel data is left out.

    Raises:
        PoisonInput: PIXEL_UNDECODABLE.
    """
    parts, at = [], 0
    while at + 8 <= len(items) and items[at : at + 4] == _ITEM:
        length = int.from_bytes(items[at + 4 : at + 8], "little")
        parts.append(items[at + 8 : at + 8 + length])
        at += 8 + length
    if not parts or at > len(items):
        raise _broken()
    return parts[0] if len(parts) == 1 else b"".join(parts)


def lone_frame_value(header: bytes, frame: bytes, syntax: str) -> bytes:
    """An object that has one frame only as its pixel data.

    Args:
        header: the object up to the value of its pixel data.
        frame: samples, or a code stream.
        syntax: its transfer syntax.
    """
    if syntax in NATIVE:
        padded = frame + b"\0" * (len(frame) % 2)
        length = struct.pack(">I" if syntax == EXPLICIT_BIG else "<I", len(padded))
        return b"".join((header[:-4], length, padded))
    padding = b"\0" * (len(frame) % 2)
    length = (len(frame) + len(padding)).to_bytes(4, "little")
    return b"".join((header, _ITEM, bytes(4), _ITEM, length, frame, padding, _END, bytes(4)))


def _broken() -> PoisonInput:
    return PoisonInput(Reason.PIXEL_UNDECODABLE, "its compressed pixel data cannot be divided into frames")
