"""How a value lies in its cell: significant bits, sign, and bits beside them, where things can hide.

Owns PS3.5 8.1.1 and overlays inside pixel cells (PS3.3 C.9.2, retired form). Contains no decoding.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.tag import Tag

from imaging_pipeline.deid.pixels.frames import Frames, Samples, hold
from imaging_pipeline.deid.pixels.header import number, texts
from imaging_pipeline.deid.reading import element, values


def values_of(cells: Samples, frames: Frames) -> NDArray[Any]:
    """The values in the cells: unused bits left out, sign extended."""
    if frames.is_float or _is_full(frames):
        signed: NDArray[Any] = cells.view(f"=i{cells.dtype.itemsize}")
        return signed if frames.is_signed and not frames.is_float else cells
    value: NDArray[Any] = (cells >> _shift(frames)) & _ones(frames.bits_stored, cells)
    if not frames.is_signed:
        return value
    sign = 1 << (frames.bits_stored - 1)
    extended: NDArray[Any] = (value.astype(np.int64) ^ sign) - sign
    return extended


def without_unused(cells: Samples, frames: Frames, ds: FileDataset) -> Samples:
    """A copy with every unused bit 0, or equal to the sign where a value's sign fills them.

    Cells that hold the Pixel Padding Value as it is written stay, whatever bits it uses (PS3.3 C.7.5.1.1.2).
    """
    if frames.is_float or _is_full(frames):
        return cells.copy()
    shift = _shift(frames)
    clean = cells & (_ones(frames.bits_stored, cells) << shift)
    if frames.is_signed and shift == 0:
        extended = values_of(cells, frames).astype(cells.dtype)
        negative = (clean >> (frames.bits_stored - 1)) & 1 == 1
        if (cells[negative] == extended[negative]).any():
            clean = extended
    padding = [int(text) for text in texts(ds, "PixelPaddingValue") if text.lstrip("-").isdigit()]
    if padding:
        modulus = 1 << (8 * cells.dtype.itemsize)
        clean = np.where(np.isin(cells, [value % modulus for value in padding]), cells, clean)
    made: Samples = clean.astype(cells.dtype)
    return made


_OVERLAY_BIT_POSITION: Final = 0x60000102
"""In the first of the repeating groups 6000 to 60FE (PS3.5 7.6)."""


def check_overlays(ds: FileDataset) -> None:
    """Overlays are removed, and one inside unused bits of the pixels with those; one inside used bits holds the object.

    Raises:
        PoisonInput: PIXEL_REVIEW_REQUIRED.
    """
    stored = number(ds, "BitsStored", 16)
    high = number(ds, "HighBit", stored - 1)
    for position in sorted(tag for tag in ds.keys() if tag & 0xFF01FFFF == _OVERLAY_BIT_POSITION):  # noqa: SIM118
        found = values(element(ds, position))
        if Tag(position.group, 0x3000) in ds or found in ([], ["0"]):
            continue
        if not found[0].isdigit() or high - stored < int(found[0]) <= high:
            raise hold("an overlay lies in bits that the pixels use")


def _is_full(frames: Frames) -> bool:
    return frames.bits_stored == frames.cell_bits


def _shift(frames: Frames) -> int:
    return frames.high_bit + 1 - frames.bits_stored


def _ones(count: int, cells: Samples) -> Any:  # a numpy scalar of the cells' kind
    return cells.dtype.type((1 << count) - 1)
