"""Types of attributes in their IODs (PS3.3): which must be there, and which must have a value.

Owns the look-up that compound actions of PS3.15 Table E.1-1 depend on. Contains no policy. At the top level of an
object the type depends on its SOP class; inside a sequence on the sequence alone, the weakest type where IODs differ.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

TYPES_FILE = "attribute_types.csv"
"""Types 1, 1C, 2 and 2C of attributes a de-identifier may have to empty; below ``deid/data``."""

IODS_FILE = "iods.csv"
"""SOP classes with the number of their IOD, below ``deid/data``."""


@dataclass(frozen=True, slots=True)
class AttributeTypes:
    """Types by place.

    Attributes:
        iods: SOP Class UID to IOD number.
        top: keyword to IOD number to type.
        nested: sequence keyword to keyword to type.
    """

    iods: Mapping[str, int]
    top: Mapping[str, Mapping[int, str]]
    nested: Mapping[str, Mapping[str, str]]

    def type_of(self, keyword: str, sop_class: str, sequence: str = "") -> str:
        """The type of an attribute that is present: ``1``, ``1C``, ``2``, ``2C`` or ``3``.

        Args:
            keyword: the attribute.
            sop_class: SOP Class UID of the object.
            sequence: keyword of the sequence whose item the attribute is in; empty at the top level.

        Returns:
            The type; empty when the SOP class or the sequence is not known.
        """
        if sequence:
            return self.nested[sequence].get(keyword, "3") if sequence in self.nested else ""
        iod = self.iods.get(sop_class)
        return "" if iod is None else self.top.get(keyword, {}).get(iod, "3")


@lru_cache(maxsize=1)
def load_types() -> AttributeTypes:
    """Read the shipped types once per process."""
    iods = {row["sop_class"]: int(row["number"]) for row in _rows(IODS_FILE)}
    top: dict[str, dict[int, str]] = {}
    nested: dict[str, dict[str, str]] = {}
    for row in _rows(TYPES_FILE):
        if row["sequence"]:
            nested.setdefault(row["sequence"], {})[row["keyword"]] = row["type"]
        else:
            numbers = set(iods.values()) if row["iods"] == "*" else _numbers(row["iods"])
            top.setdefault(row["keyword"], {}).update(dict.fromkeys(numbers, row["type"]))
    return AttributeTypes(iods, top, nested)


def _rows(name: str) -> list[dict[str, str]]:
    text = (resources.files("imaging_pipeline.deid") / "data" / name).read_text("ascii")
    return list(csv.DictReader(text.splitlines()))


def _numbers(text: str) -> Iterator[int]:
    """``0-2 7`` is 0, 1, 2 and 7."""
    for part in text.split():
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
