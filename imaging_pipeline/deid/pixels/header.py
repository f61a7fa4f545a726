"""What the header says: texts and whole numbers of attributes, and nothing where one cannot be read.

Owns no judgement of what is found.
"""

from __future__ import annotations

from functools import lru_cache

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from imaging_pipeline.deid.reading import element, values


def texts(ds: Dataset, keyword: str) -> list[str]:
    """The values of an attribute as texts without padding; none when it is missing or cannot be read."""
    tag = _tag(keyword)
    return values(element(ds, tag)) if tag in ds.keys() else []  # noqa: SIM118  # `in ds` takes ten times as long


def number(ds: Dataset, keyword: str, default: int) -> int:
    """A whole number of the header, ``default`` where there is none."""
    found = texts(ds, keyword)
    return int(found[0]) if found and found[0].isascii() and found[0].isdigit() else default


@lru_cache(maxsize=256)
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)
