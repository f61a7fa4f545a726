"""Rows of the lake as documents of the DICOM JSON Model (PS3.18 Annex F): what searches compare and answer with.

Which column is which attribute is read from the registry; columns of a site become searchable with their tag.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from imaging_pipeline.lake import registry

Document = dict[str, dict[str, Any]]
"""Attributes by tag, each ``{"vr": …, "Value": […]}``."""

TABLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "study": ("dicom_patient", "dicom_study"),
        "series": ("dicom_series", "dicom_procedure_step", "dicom_equipment"),
        "request": ("dicom_request_attributes",),
    }
)
"""Tables whose columns describe a study, a series, or an item of a series' Request Attributes Sequence."""

REQUEST_ATTRIBUTES = "00400275"

_TAG = re.compile(r"[0-9A-F]{8}").fullmatch
_CODE_ITEM = (("00080100", "SH"), ("00080102", "SH"), ("00080103", "SH"), ("00080104", "LO"))


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute that is a column.

    Attributes:
        tag: eight hexadecimal digits.
        vr: its value representation; ``SQ`` for coded concepts.
        table: the table of its column.
        column: the column.
    """

    tag: str
    vr: str
    table: str
    column: str

    @property
    def sql(self) -> str:
        """The column in a query that names tables as they are."""
        return f'{self.table}."{self.column}"'


@functools.cache
def attributes_of(level: str) -> tuple[Attribute, ...]:
    """The attributes of a level, each tag once: the first table that has it tells."""
    found: dict[str, Attribute] = {}
    for name in TABLES[level]:
        for column in registry.table(name).columns:
            is_sequence = column.type.startswith("CODE")
            is_plain = column.vr not in ("", "SQ") and not column.type.startswith("STRUCT")
            if _TAG(column.tag) and (is_sequence or is_plain):
                vr = "SQ" if is_sequence else column.vr.partition(" ")[0]
                found.setdefault(column.tag, Attribute(column.tag, vr, name, column.name))
    return tuple(found[tag] for tag in sorted(found))


def document_of(attributes: Sequence[Attribute], values: Sequence[object]) -> Document:
    """The attributes that have a value.

    >>> document_of([Attribute("00080020", "DA", "dicom_study", "study_date")], [dt.date(2026, 1, 31)])
    {'00080020': {'vr': 'DA', 'Value': ['20260131']}}
    """
    found: Document = {}
    for attribute, value in zip(attributes, values, strict=True):
        several = value if isinstance(value, list) else [value]
        texts = [_json_value(attribute.vr, one) for one in several]
        if any(text is not None and text != "" for text in texts):
            found[attribute.tag] = {"vr": _vr(attribute, value), "Value": texts}
    return found


def dumped(document: Mapping[str, object]) -> str:
    """A document as text, its attributes by tag (PS3.18 F.2.2)."""
    return json.dumps({tag: document[tag] for tag in sorted(document)}, ensure_ascii=False, separators=(",", ":"))


def _vr(attribute: Attribute, value: object) -> str:
    return "SS" if attribute.vr == "US" and isinstance(value, int) and value < 0 else attribute.vr


def _json_value(vr: str, value: object) -> object:
    match value:
        case dt.datetime():
            return _trimmed(value.strftime("%Y%m%d%H%M%S.%f"))
        case dt.date():
            return value.strftime("%Y%m%d")
        case dt.time():
            return _trimmed(value.strftime("%H%M%S.%f"))
        case dict():
            items = zip(_CODE_ITEM, value.values(), strict=True)
            return {tag: {"vr": item_vr, "Value": [text]} for (tag, item_vr), text in items if text}
        case str() if vr == "PN":
            return {"Alphabetic": value} if value else None
    return value


def _trimmed(text: str) -> str:
    return text.removesuffix(".000000")
