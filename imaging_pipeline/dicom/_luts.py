"""Lookup tables as DICOM stores them: grayscale tables, and palettes, plain or in segments."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from imaging_pipeline.dicom.frame import LookupTable, Pixels
from imaging_pipeline.errors import PoisonInput, Reason

Entries = npt.NDArray[np.uint16]

_CHANNELS = ("Red", "Green", "Blue")

_DISCRETE, _LINEAR, _INDIRECT = range(3)
"""Opcodes of segments, PS3.3 C.7.9.2."""


def lookup_table(item: Dataset, path: str, *, is_signed: bool) -> LookupTable:
    """A table from LUT Descriptor (entries, first input, bits) and LUT Data (US or OW, 8 or 16 bits per entry).

    Args:
        item: the sequence item.
        path: path of its LUT Data, for the refusal.
        is_signed: stored values are signed, and so is the first input.

    Raises:
        PoisonInput: PIXEL_UNDECODABLE when there are fewer entries than the descriptor says.
    """
    count, first, bits = _descriptor(item.LUTDescriptor, is_signed=is_signed)
    entries = _whole(_unpacked(_words(item, "LUTData"), count), count, path)
    bits = max(bits & 0xFF, int(entries.max()).bit_length(), 1)
    return LookupTable(first, entries, bits, str(item.get("LUTExplanation") or "").strip())


def palette_to_rgb(ds: Dataset, stored: Pixels) -> Pixels:
    """Stored values through the palette (PS3.3 C.7.6.3.1.5): RGB (H, W, 3), 8 or 16 bits per sample.

    Raises:
        PoisonInput: PIXEL_UNDECODABLE when there are fewer entries than the descriptor says.
    """
    is_signed = ds.get("PixelRepresentation") == 1
    count, first, bits = _descriptor(ds.RedPaletteColorLookupTableDescriptor, is_signed=is_signed)
    path = "00281201"
    tables = [_whole(_palette(ds, channel, count, bits), count, path) for channel in _CHANNELS]
    # Some writers state 16 bits and store bytes, or the other way round: the entries tell.
    is_wide = max(int(table.max()) for table in tables) > 0xFF
    palette = np.stack(tables, axis=1).astype(np.uint16 if is_wide else np.uint8)
    index = np.clip(stored.astype(np.int32) - first, 0, count - 1)
    return palette.take(index, axis=0)


def _descriptor(values: Iterable[int], *, is_signed: bool) -> tuple[int, int, int]:
    """Number of entries (0 stands for 65536), first input and bits; a first input written as unsigned is understood."""
    count, first, bits = (int(value) for value in values)
    return count % 2**16 or 2**16, first - 2**16 if is_signed and first >= 2**15 else first, bits


def _words(ds: Dataset, keyword: str) -> Entries:
    """The value of a US or OW element as 16-bit words."""
    raw = ds[keyword].value
    if isinstance(raw, bytes):
        raw = np.frombuffer(raw[: len(raw) // 2 * 2], "<u2" if ds.original_encoding[1] is not False else ">u2")
    return np.atleast_1d(np.asarray(raw, dtype=np.uint16))


def _unpacked(words: Entries, count: int) -> Entries:
    """Entries of 8 bits lie two in a word, the first in its lower half."""
    if len(words) < count <= 2 * len(words):
        return words.astype("<u2").view(np.uint8).astype(np.uint16)
    return words


def _whole(entries: Entries, count: int, path: str) -> Entries:
    if len(entries) < count:
        message = "expected as many LUT entries as its descriptor says"
        raise PoisonInput(Reason.PIXEL_UNDECODABLE, message, dicom_path=path)
    return entries[:count]


def _palette(ds: Dataset, channel: str, count: int, bits: int) -> Entries:
    plain = f"{channel}PaletteColorLookupTableData"
    if plain in ds:
        return _unpacked(_words(ds, plain), count)
    words = _words(ds, f"Segmented{plain}")
    if bits > 8:
        return _expanded(words.tolist(), count, code_bytes=2)
    return _expanded(words.astype("<u2").view(np.uint8).tolist(), count, code_bytes=1)


def _expanded(codes: list[int], count: int, *, code_bytes: int) -> Entries:
    """Segmented palette data as plain entries, PS3.3 C.7.9.2."""
    entries: list[int] = []
    position = 0
    while position + 1 < len(codes) and len(entries) < count:
        opcode, length, *rest = codes[position : position + 2 + 4 // code_bytes]
        position += 2
        if opcode == _INDIRECT:
            offset = sum(code << (8 * code_bytes * place) for place, code in enumerate(rest))
            position += len(rest)
            target = offset // code_bytes
            for _ in range(length):
                target = _expand_segment(codes, target, entries)
                if len(entries) >= count:
                    break
        else:
            position = _expand_segment(codes, position - 2, entries)
    return np.array(entries[:count], dtype=np.uint16)


def _expand_segment(codes: list[int], position: int, entries: list[int]) -> int:
    """Append what the discrete or linear segment at ``position`` stands for; where the next one begins."""
    opcode, length = codes[position : position + 2]
    start = position + 2
    if opcode == _DISCRETE:
        entries += codes[start : start + length]
        return start + length
    if opcode != _LINEAR:
        raise PoisonInput(Reason.PIXEL_UNDECODABLE, "expected a segment of a known kind", dicom_path="00281221")
    first, last = entries[-1], codes[start]
    entries += np.rint(np.linspace(first, last, length + 1)[1:]).astype(int).tolist()
    return start + 1
