"""Where devices write text: masks by manufacturer, model and size, and the regions an ultrasound image describes.

Owns the shipped list of masks and what the header says about the place of the image. Reads no pixels.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Final

from pydicom.dataset import Dataset
from pydicom.tag import Tag

from imaging_pipeline.deid.pixels.boxes import Box, box_of, outside
from imaging_pipeline.deid.pixels.header import number, texts
from imaging_pipeline.deid.reading import element

MASK_FILE: Final = "pixel_masks.csv"
"""Shipped masks, below ``deid/data``."""

ULTRASOUND_CLASSES: Final = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.6",
        "1.2.840.10008.5.1.4.1.1.6.1",
        "1.2.840.10008.5.1.4.1.1.6.2",
        "1.2.840.10008.5.1.4.1.1.3",
        "1.2.840.10008.5.1.4.1.1.3.1",
    }
)
"""Ultrasound (Multi-frame) Image Storage, Enhanced US Volume Storage and the retired ones."""

SMALLEST_REGION_SHARE: Final = 0.2
"""Regions that cover less of an image do not say where its anatomy is: they are then not used."""

_MASK_KEYS: Final = ("manufacturer", "model", "sop_class", "rows", "columns", "boxes")


@dataclass(frozen=True, slots=True)
class Device:
    """What an image says of where it comes from; texts in lower case.

    Attributes:
        manufacturer, model: (0008,0070) and (0008,1090), at the top level.
        sop_class: SOP Class UID.
        rows, columns: size of a frame in pixels.
    """

    manufacturer: str
    model: str
    sop_class: str
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class DeviceMask:
    """Boxes that hold text in every image of a kind.

    Attributes:
        manufacturer, model: lower-case texts that the image's values contain; an empty model is any.
        sop_class: UID, or empty for any.
        rows, columns: size of the frame; 0 for any.
        boxes: what is blanked.
    """

    manufacturer: str
    model: str
    sop_class: str
    rows: int
    columns: int
    boxes: tuple[Box, ...]

    @classmethod
    def from_mapping(cls, mapping: object) -> DeviceMask:
        """A mask from YAML.

        Raises:
            ValueError: saying which key is wrong and what is allowed.
        """
        if not isinstance(mapping, Mapping) or not set(mapping) <= set(_MASK_KEYS):
            raise ValueError(f"a mask has the keys {', '.join(_MASK_KEYS)}")
        manufacturer, model, sop_class = (mapping.get(key, "") for key in _MASK_KEYS[:3])
        if not all(isinstance(text, str) for text in (manufacturer, model, sop_class)) or not manufacturer.strip():
            raise ValueError("manufacturer, model and sop_class of a mask are texts, and manufacturer is not empty")
        sizes = [mapping.get(key, 0) for key in ("rows", "columns")]
        if not all(isinstance(size, int) and size >= 0 for size in sizes):
            raise ValueError("rows and columns of a mask are whole numbers")
        found = mapping.get("boxes")
        boxes = [box_of(item) if isinstance(item, list) else None for item in found] if isinstance(found, list) else []
        if not boxes or None in boxes:
            raise ValueError("boxes of a mask are a list of [left, top, right, bottom], whole numbers from 0")
        return cls(
            manufacturer.strip().lower(),
            model.strip().lower(),
            sop_class,
            sizes[0],
            sizes[1],
            tuple(box for box in boxes if box),
        )

    def fits(self, device: Device) -> bool:
        """Whether the mask is for images of ``device``."""
        return (
            self.manufacturer in device.manufacturer
            and self.model in device.model
            and self.sop_class in ("", device.sop_class)
            and self.rows in (0, device.rows)
            and self.columns in (0, device.columns)
        )


def device_of(ds: Dataset) -> Device:
    """The device and the frame size of an image; unreadable values count as empty."""
    manufacturer, model, sop_class = (
        " ".join(texts(ds, keyword)) for keyword in ("Manufacturer", "ManufacturerModelName", "SOPClassUID")
    )
    rows, columns = (number(ds, keyword, 0) for keyword in ("Rows", "Columns"))
    return Device(manufacturer.lower(), model.lower(), sop_class, rows, columns)


@lru_cache(maxsize=256)
def device_boxes(device: Device, site: tuple[DeviceMask, ...] = ()) -> tuple[Box, ...]:
    """What the first fitting mask of the site, else the first of the shipped ones, blanks."""
    for mask in (*site, *shipped_masks()):
        if mask.fits(device):
            return tuple(box.within(device.rows, device.columns) for box in mask.boxes)
    return ()


@lru_cache(maxsize=1)
def shipped_masks() -> tuple[DeviceMask, ...]:
    """The masks of ``data/pixel_masks.csv``, in order."""
    text = (resources.files("imaging_pipeline.deid") / "data" / MASK_FILE).read_text("ascii")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return tuple(
        DeviceMask(
            row["manufacturer"].lower(),
            row["model"].lower(),
            row["sop_class"],
            int(row["rows"] or 0),
            int(row["columns"] or 0),
            tuple(Box(*map(int, box.split(" "))) for box in row["boxes"].split(";")),
        )
        for row in rows
    )


def outside_ultrasound_regions(ds: Dataset, device: Device) -> list[Box]:
    """What lies outside the regions of an ultrasound image (PS3.3 C.8.5.5); nothing when it does not describe them."""
    if device.sop_class not in ULTRASOUND_CLASSES or "SequenceOfUltrasoundRegions" not in ds:
        return []
    decoded = element(ds, Tag("SequenceOfUltrasoundRegions"))
    if decoded is None or decoded.VR != "SQ":
        return []
    regions = [_region(item).within(device.rows, device.columns) for item in decoded.value or ()]
    regions = [region for region in regions if region.area]
    beyond = outside(regions, device.rows, device.columns)
    covered = device.rows * device.columns - sum(box.area for box in beyond)
    return beyond if regions and covered >= SMALLEST_REGION_SHARE * device.rows * device.columns else []


def _region(item: Dataset) -> Box:
    """Min X0, Min Y0 to Max X1, Max Y1, both inside (PS3.3 C.8.5.5.1.2)."""
    left, top, right, bottom = (
        number(item, f"RegionLocation{name}", 0) for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")
    )
    return Box(left, top, right + 1, bottom + 1)
