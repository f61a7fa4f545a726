"""Overlay planes: bitmaps of graphics and regions that lie over a frame (PS3.3 C.9.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from imaging_pipeline.dicom.frame import Mask
from imaging_pipeline.dicom.pixels import ImageObject, guarded
from imaging_pipeline.errors import PoisonInput, Reason

GROUPS: Final = range(0x6000, 0x6020, 2)
"""Groups of overlay planes."""

_LARGEST: Final = 2**28
"""Most pixels of a plane."""


@dataclass(frozen=True, slots=True, eq=False)
class Overlay:
    """One overlay plane, for one frame.

    Attributes:
        group: its group, 0x6000 to 0x601E.
        bitmap: where it is drawn, bool (rows, columns) of the plane.
        row: row of the image in which its first row lies, from 0; may be negative.
        column: the same for columns.
        is_region: it marks a region of interest; otherwise it is graphics.
    """

    group: int
    bitmap: Mask
    row: int
    column: int
    is_region: bool

    def over(self, shape: tuple[int, int]) -> Mask:
        """The bitmap in the place it has over an image of ``shape`` (rows, columns); what lies outside is cut off."""
        placed = np.zeros(shape, dtype=np.bool_)
        top, left = max(0, self.row), max(0, self.column)
        part = self.bitmap[top - self.row :, left - self.column :][: max(0, shape[0] - top), : max(0, shape[1] - left)]
        placed[top : top + part.shape[0], left : left + part.shape[1]] = part
        return placed


def overlays_of(image: ImageObject, frame: int = 0) -> tuple[Overlay, ...]:
    """The overlay planes that lie over a frame, in the order of their groups.

    Planes in Overlay Data (60xx,3000), and those in unused bits of the pixel data, which was allowed until 2004.

    Args:
        image: what `open_image` returned.
        frame: frame index from 0.

    Raises:
        PoisonInput: PIXEL_UNDECODABLE when a plane is shorter than its size says.
    """
    return guarded(lambda: tuple(filter(None, (_overlay(image, group, frame) for group in GROUPS))))


def _overlay(image: ImageObject, group: int, frame: int) -> Overlay | None:
    ds = image.ds
    if (group, 0x0010) not in ds or (group, 0x0011) not in ds:
        return None
    rows, columns = int(ds[group, 0x0010].value), int(ds[group, 0x0011].value)
    if rows * columns > _LARGEST:
        raise PoisonInput(Reason.PIXEL_UNSUPPORTED, "expected a smaller overlay", dicom_path=f"{group:04x}0010")
    index = frame - (_number(ds, group, 0x0051, 1) - 1)
    if not 0 <= index < _number(ds, group, 0x0015, 1) and (group, 0x0015) in ds:
        return None  # the plane has frames of its own, and none for this one
    index = index if (group, 0x0015) in ds else 0
    if (group, 0x3000) in ds:
        bitmap = _packed(_octets(ds, group), rows, columns, index, group)
    else:
        bitmap = _embedded(image, _number(ds, group, 0x0102, 0), frame)
    origin = ds[group, 0x0050].value if (group, 0x0050) in ds else (1, 1)
    is_region = (group, 0x0040) in ds and str(ds[group, 0x0040].value).strip() == "R"
    return Overlay(group, bitmap, int(origin[0]) - 1, int(origin[1]) - 1, is_region)


def _number(ds: Dataset, group: int, element: int, otherwise: int) -> int:
    value = ds[group, element].value if (group, element) in ds else None
    return otherwise if value is None else int(value)


def _octets(ds: Dataset, group: int) -> npt.NDArray[np.uint8]:
    element = ds[group, 0x3000]
    octets = np.frombuffer(element.value, np.uint8)
    is_swapped = element.VR == "OW" and ds.original_encoding[1] is False
    return octets[: octets.size // 2 * 2].view(np.uint16).byteswap().view(np.uint8) if is_swapped else octets


def _packed(data: npt.NDArray[np.uint8], rows: int, columns: int, index: int, group: int) -> Mask:
    """One plane of Overlay Data: a bit for each pixel, the first in the lowest bit, planes without gap."""
    pixels = rows * columns
    start = index * pixels
    octets = data[start // 8 : (start + pixels + 7) // 8]
    bits = np.unpackbits(octets, bitorder="little")[start % 8 :][:pixels]
    if bits.size < pixels:
        message = "expected as many overlay bits as rows and columns say"
        raise PoisonInput(Reason.PIXEL_UNDECODABLE, message, dicom_path=f"{group:04x}3000")
    return bits.reshape(rows, columns).astype(np.bool_)


def _embedded(image: ImageObject, position: int, frame: int) -> Mask:
    """A plane in one bit of each cell of the pixel data (PS3.5 8.1.2, retired)."""
    options = dict(image.options) | {"correct_unused_bits": False}
    cells, _ = image.decoder.as_array(image.value, index=frame, raw=True, **options)
    if cells.ndim != 2 or cells.dtype.kind not in "iu":
        raise PoisonInput(Reason.PIXEL_UNSUPPORTED, "expected an overlay in grayscale pixel data")
    plane: Mask = (cells >> position) & 1 == 1
    return plane
