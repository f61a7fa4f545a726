"""Every element of a header as a row (entity, attribute, value): a tag can be asked for before it has a column.

A header has hundreds of elements: the way through them is kept short.
"""

from __future__ import annotations

import functools
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, time
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary

from imaging_pipeline.dicom.values import age_years, is_uid, parse_date, parse_datetime, parse_time
from imaging_pipeline.lake import registry
from imaging_pipeline.metadata.frames import FRAME_GROUPS
from imaging_pipeline.metadata.projection import Elements
from imaging_pipeline.sources import ElementMode

_ROWS_PER_CHUNK = 65_536
"""Different rows that are kept as Python objects; more are kept as Arrow arrays."""

_MOST_REMEMBERED, _LONGEST_REMEMBERED = 16_384, 64
"""Texts whose meaning is remembered, and their length: most repeat over a series."""


class Origin(NamedTuple):
    """What ties rows to their object."""

    instance_key: str
    arrival_batch: str
    row_version: str


class ElementRows:
    """Rows of ``dicom_element`` and ``dicom_sequence_item`` of many objects."""

    TABLES = ("dicom_element", "dicom_sequence_item")

    def __init__(self) -> None:
        self._elements = _Gathered("dicom_element", _ELEMENT_COLUMNS)
        self._items = _Gathered("dicom_sequence_item", _ITEM_COLUMNS)
        self._last: dict[str, _Last] = {}

    def add(self, elements: Elements, origin: Origin, mode: ElementMode) -> None:
        """The rows of one header; ``STANDARD`` leaves private elements out, ``OFF`` everything."""
        if mode is not ElementMode.OFF:
            for gathered in (self._elements, self._items):
                gathered.start(origin)
            self._add(elements, None, None, 1, has_private=mode is ElementMode.ALL)

    def tables(self) -> Mapping[str, pa.Table]:
        """All rows, by table name."""
        return {gathered.name: gathered.table() for gathered in (self._elements, self._items)}

    def _add(
        self,
        elements: Elements,
        item_path: str | None,
        frame_number: int | None,
        depth: int,
        *,
        has_private: bool,
    ) -> None:
        prefix = f"{item_path}." if item_path else ""
        creators: dict[str, str] = {}
        for tag, element in elements.items():
            attribute = _attribute(tag)
            creator = None
            if attribute.is_private:
                if not has_private:
                    continue
                creator = _creator(tag, element, creators)
            path = prefix + tag
            last = self._last.get(path)
            if last is not None and last.creator == creator and _is_same(last.element, element):
                self._elements.again(last.place)
                continue
            vr = element.get("vr") or "UN"
            values: Sequence[Any] = element.get("Value") or ()
            count = len(values)
            reference = element.get("BulkDataURI")
            is_valid: bool | None = None
            if vr == "SQ":
                value = _NO_VALUE
                self._add_items(values, path, item_path, frame_number, depth, has_private=has_private)
            elif count:
                value = _of_one(vr, values[0]) if count == 1 else _of_values(vr, values)
                is_valid = value.is_valid
                if attribute.multiplicity and is_valid is not False:
                    least, greatest, step = attribute.multiplicity
                    is_valid = least <= count <= greatest and (step == 1 or count % step == 0)
            else:
                value = _NO_VALUE
                count = int("InlineBinary" in element or reference is not None)
            place = self._elements.add(
                (
                    path, item_path, frame_number, attribute.group, attribute.element, attribute.tag_hex,
                    attribute.keyword, vr, count, value.text, value.number, value.numbers, value.moment,
                    reference, creator, attribute.is_private, not count, is_valid,
                )
            )  # fmt: skip
            if vr != "SQ":
                self._last[path] = _Last(element, creator, place)

    def _add_items(
        self,
        values: Sequence[Any],
        path: str,
        item_path: str | None,
        frame_number: int | None,
        depth: int,
        *,
        has_private: bool,
    ) -> None:
        for index, item in enumerate(values):
            own_path = f"{path}[{index}]"
            self._items.add((own_path, item_path, path, index, depth))
            if isinstance(item, dict):
                frame = index + 1 if path == FRAME_GROUPS else frame_number
                self._add(item, own_path, frame, depth + 1, has_private=has_private)


class _Last(NamedTuple):
    """The element that stood last in a place, and where its row is: headers of a series are much alike."""

    element: Mapping[str, Any]
    creator: str | None
    place: int


class _Gathered:
    """Rows of one table. What they say is kept once for all objects that say the same, in Arrow when there is much."""

    def __init__(self, name: str, columns: Sequence[str]) -> None:
        self.name = name
        self._schema = registry.table(name).arrow_schema
        self._columns = columns
        self._origins: list[Origin] = []
        self._starts: list[int] = []
        self._places = array("q")
        self._rows: list[tuple[object, ...]] = []
        self._settled: list[pa.RecordBatch] = []
        self._settled_rows = 0

    def start(self, origin: Origin) -> None:
        """The rows added from now on are of this object."""
        self._origins.append(origin)
        self._starts.append(len(self._places))
        if len(self._rows) >= _ROWS_PER_CHUNK:
            self._settle()

    def add(self, row: tuple[object, ...]) -> int:
        """A row; returns its place, for another object that says the same."""
        place = self._settled_rows + len(self._rows)
        self._rows.append(row)
        self._places.append(place)
        return place

    def again(self, place: int) -> None:
        """A row as one before."""
        self._places.append(place)

    def table(self) -> pa.Table:
        """All rows."""
        self._settle()
        said = pa.Table.from_batches(self._settled, schema=self._said_schema).take(pa.array(self._places, pa.int64()))
        ends = np.asarray([*self._starts[1:], len(self._places)], np.int64)
        owners = pa.array(np.repeat(np.arange(len(self._origins)), ends - np.asarray(self._starts, np.int64)))
        origins = {name: pa.array(column, pa.string()).take(owners) for name, column in self._by_name(self._origins)}
        return pa.table([origins[f.name] if f.name in origins else said[f.name] for f in self._schema], self._schema)

    @property
    def _said_schema(self) -> pa.Schema:
        return pa.schema([self._schema.field(name) for name in self._columns])

    def _settle(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [pa.array(column, f.type) for column, f in zip(columns, self._said_schema, strict=True)]
            self._settled.append(pa.RecordBatch.from_arrays(arrays, schema=self._said_schema))
            self._settled_rows += len(self._rows)
            self._rows.clear()

    @staticmethod
    def _by_name(origins: Sequence[Origin]) -> Iterator[tuple[str, Sequence[str]]]:
        for number, name in enumerate(Origin._fields):
            yield name, [origin[number] for origin in origins]


_ELEMENT_COLUMNS = (
    "element_path", "item_path", "frame_number", "tag_group",
    "tag_element", "tag_hex", "keyword", "vr", "vm", "value_string", "value_number", "value_numbers",
    "value_datetime", "value_binary_ref", "private_creator", "is_private", "is_empty", "is_valid",
)  # fmt: skip

_ITEM_COLUMNS = ("item_path", "parent_item_path", "sequence_path", "item_index", "depth")


class _Attribute(NamedTuple):
    """What the tag alone says, with the data dictionary (PS3.6)."""

    group: int
    element: int
    tag_hex: str
    keyword: str | None
    is_private: bool
    multiplicity: tuple[int, int, int] | None


class _Value(NamedTuple):
    """What the values of an element say."""

    text: str | None
    number: float | None
    numbers: list[float | None] | None
    moment: datetime | None
    is_valid: bool | None


_NO_VALUE = _Value(None, None, None, None, None)

_FIRST_BLOCK = 0x1000
"""Private elements below it are creators (PS3.5 7.8.1)."""

_UNBOUNDED = 2**31


_DECIMAL_VRS = frozenset({"DS", "FL", "FD"})


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two elements give the same row: 1 and 1.0, or 0.0 and -0.0, are equal and read differently."""
    return one == other and (one.get("vr") not in _DECIMAL_VRS or str(one.get("Value")) == str(other.get("Value")))


@functools.lru_cache(maxsize=_MOST_REMEMBERED)
def _attribute(tag: str) -> _Attribute:
    number = int(tag, 16)
    group, element = number >> 16, number & 0xFFFF
    if group % 2:
        tag_hex = f"{tag[:4]}xx{tag[6:]}" if element >= _FIRST_BLOCK else tag
        return _Attribute(group, element, tag_hex, keyword=None, is_private=True, multiplicity=None)
    entry = DicomDictionary.get(number) or RepeatersDictionary.get(_repeating(tag))
    if entry is None:
        return _Attribute(group, element, tag, keyword=None, is_private=False, multiplicity=None)
    keyword, multiplicity = entry[4] or None, _multiplicity(entry[1])
    return _Attribute(group, element, tag, keyword, is_private=False, multiplicity=multiplicity)


def _repeating(tag: str) -> str:
    """The pattern of a repeating group (PS3.5 7.6) as pydicom's dictionary names it."""
    return f"{tag[:2]}xx{tag[4:]}"


def _multiplicity(stated: str) -> tuple[int, int, int] | None:
    """Least, greatest and step of a value multiplicity such as ``1``, ``1-3``, ``2-2n`` or ``1-n`` (PS3.5 6.4)."""
    match = re.fullmatch(r"(\d+)(?:-(\d*)(n?))?", stated)
    if match is None:
        return None
    least = int(match[1])
    if match[2] is None:
        return least, least, 1
    step = int(match[2] or 1) if match[3] else 1
    return least, _UNBOUNDED if match[3] else int(match[2]), step


def _creator(tag: str, element: Mapping[str, Any], creators: dict[str, str]) -> str | None:
    """The owner of a private element; a creator is noted for those that follow it, as tags ascend (PS3.5 7.8.1)."""
    if tag[4:6] == "00":
        values = element.get("Value")
        if values and isinstance(values[0], str):
            creators[tag[:4] + tag[6:]] = values[0].strip()
        return None
    return creators.get(tag[:6])


def _of_values(vr: str, values: Sequence[Any]) -> _Value:
    parts = [_of_one(vr, value) for value in values]
    numbers = [part.number for part in parts]
    has_several = len(parts) > 1 and any(number is not None for number in numbers)
    return _Value(
        text="\\".join(part.text or "" for part in parts),
        number=numbers[0],
        numbers=numbers if has_several else None,
        moment=parts[0].moment,
        is_valid=None if all(part.is_valid is None for part in parts) else all(p.is_valid is not False for p in parts),
    )


def _of_one(vr: str, value: Any) -> _Value:
    if isinstance(value, str):
        return _of_text(vr, value) if len(value) <= _LONGEST_REMEMBERED else _of_text.__wrapped__(vr, value)
    if isinstance(value, dict):  # a person name (PS3.18 F.2.2)
        groups = (str(value.get(group) or "") for group in ("Alphabetic", "Ideographic", "Phonetic"))
        return _Value("=".join(groups).rstrip("="), None, None, None, None)
    if isinstance(value, (int, float)):
        return _Value(str(value), float(value), None, None, is_valid=True)
    return _NO_VALUE


@functools.lru_cache(maxsize=_MOST_REMEMBERED)
def _of_text(vr: str, value: str) -> _Value:
    number: float | None = None
    moment: datetime | None = None
    is_valid: bool | None = None
    if vr in ("DS", "IS", "FD", "FL"):  # numbers that JSON has no number for
        number, is_valid = None, value in ("NaN", "inf", "-inf") and vr in ("FD", "FL")
    elif vr == "DA":
        day = parse_date(value)
        moment, is_valid = datetime.combine(day, time()) if day else None, day is not None
    elif vr == "DT":
        moment = parse_datetime(value)
        is_valid = moment is not None
    elif vr == "TM":
        is_valid = parse_time(value) is not None
    elif vr == "UI":
        is_valid = is_uid(value)
    elif vr == "AS":
        is_valid = age_years(value) is not None
    return _Value(value, number, None, moment, is_valid)
