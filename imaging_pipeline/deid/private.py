"""Private elements that PS3.15 lists as safe (Table E.3.10-1), and those a site adds.

Owns the list and the finding of a private element's creator. Contains no judgement of values.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Final

from pydicom._private_dict import private_dictionaries
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from imaging_pipeline.deid.reading import element, values

SAFE_FILE: Final = "safe_private.csv"
"""PS3.15 Table E.3.10-1, edition 2026d: 479 elements of 20 creators; below ``deid/data``."""


@dataclass(frozen=True, slots=True)
class PrivateElement:
    """A private data element as its creator defines it (PS3.5 7.8).

    Attributes:
        creator: private creator.
        group: odd group number.
        element: the last byte of the element number.
    """

    creator: str
    group: int
    element: int


@lru_cache(maxsize=1)
def safe_elements() -> Mapping[PrivateElement, str]:
    """The safe private elements with their VR (``OW or OB`` where either may be; empty where the table has none)."""
    text = (resources.files("imaging_pipeline.deid") / "data" / SAFE_FILE).read_text("ascii")
    rows = csv.DictReader(text.splitlines())
    return MappingProxyType(
        {PrivateElement(row["creator"], int(row["group"], 16), int(row["element"], 16)): row["vr"] for row in rows}
    )


def is_creator(tag: BaseTag) -> bool:
    """Whether ``tag`` reserves a block of private elements (gggg,0010 to gggg,00FF)."""
    return tag.is_private and 0x10 <= tag.element <= 0xFF


def creator_tag(tag: BaseTag) -> BaseTag:
    """The element that says whose private element ``tag`` is."""
    return Tag(tag.group, tag.element >> 8)


def identify(ds: Dataset, tag: BaseTag) -> PrivateElement | None:
    """The private element ``tag`` of ``ds`` is, or None when its block has no readable creator."""
    if not tag.is_private or tag.element < 0x1000:
        return None
    owner = creator_tag(tag)
    texts = values(element(ds, owner))
    return PrivateElement(texts[0], tag.group, tag.element & 0xFF) if len(texts) == 1 and texts[0] else None


def identified(data_set: Mapping[str, Any], tag: int) -> PrivateElement | None:
    """As `identify`, in a data set of the DICOM JSON Model."""
    group, number = tag >> 16, tag & 0xFFFF
    creators = data_set.get(f"{group:04X}{number >> 8:04X}", {}).get("Value", [])
    return PrivateElement(creators[0], group, number & 0xFF) if len(creators) == 1 and creators[0] else None


def meaning(found: PrivateElement) -> str:
    """What a private dictionary calls the element; empty when it has no name there."""
    entries = private_dictionaries.get(found.creator, {})
    row = entries.get(f"{found.group:04X}xx{found.element:02X}") or entries.get(
        f"{found.group:04x}xx{found.element:02x}"
    )
    return row[2] if row else ""
