"""DICOM JSON Model (PS3.18 F.2) → typed columns, by the registry's declaration.

Knows types and tags, no table by name. A value that does not fit its column becomes NULL and an issue; the
raw text stays in the stored header.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from imaging_pipeline.dicom.values import parse_date, parse_datetime, parse_time
from imaging_pipeline.errors import Issue, Reason, Severity, Stage
from imaging_pipeline.lake.registry import CODE_TYPE, Table

Elements = Mapping[str, Mapping[str, Any]]
"""A parsed data set: tag (8 hexadecimal digits) → ``{"vr": …, "Value": […]}``."""

_INT32 = range(-(2**31), 2**31)
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class _Projection:
    column: str
    path: tuple[str, ...]
    convert: Callable[[list[Any]], object]


def project(elements: Elements, table: Table) -> tuple[dict[str, object], list[Issue]]:
    """Values of the columns of ``table`` that mirror a DICOM attribute, and what was wrong with them."""
    row: dict[str, object] = {}
    issues: list[Issue] = []
    for projection in _projections(table):
        values = find(elements, *projection.path)
        if values is None:
            continue
        try:
            row[projection.column] = projection.convert(values)
        except (ValueError, TypeError, AttributeError, OverflowError):
            path = "[0].".join(projection.path)
            message = f"no legal value for {table.name}.{projection.column}"
            issues.append(Issue(Reason.VR_INVALID, Stage.MAP, Severity.WARNING, path, message))
    return row, issues


def find(elements: Elements, *path: str) -> list[Any] | None:
    """The values at a path of tags (through the first item of each sequence), or None when absent or empty."""
    *sequences, tag = path
    for sequence in sequences:
        items = elements[sequence].get("Value") if sequence in elements else None
        if not items or not isinstance(items[0], dict):
            return None
        elements = items[0]
    values = elements[tag].get("Value") if tag in elements else None
    if not values or (values[0] in (None, "") and all(value in (None, "") for value in values)):
        return None
    return list(values)


def text(elements: Elements, *path: str) -> str | None:
    """The first value at a path as text, or None."""
    values = find(elements, *path)
    return _text(values[0]) if values else None


@functools.cache
def _projections(table: Table) -> tuple[_Projection, ...]:
    return tuple(
        _Projection(column.name, tuple(column.tag.split(".")), _converter(column.type, column.vr))
        for column in table.columns
        if column.tag
    )


def _converter(column_type: str, vr: str) -> Callable[[list[Any]], object]:
    if column_type == "BOOLEAN":
        return bool
    if column_type.endswith("[]"):
        one = _value_converter(column_type[:-2], vr)
        return lambda values: [one(value) for value in values]
    one = _value_converter(column_type, vr)
    return lambda values: one(values[0])


def _value_converter(column_type: str, vr: str) -> Callable[[Any], object]:
    converters: Mapping[str, Callable[[Any], object]] = {
        "VARCHAR": _text,
        "DOUBLE": _number,
        "FLOAT": _number,
        "INTEGER": functools.partial(_integer, allowed=_INT32),
        "BIGINT": functools.partial(_integer, allowed=_INT64),
        "DATE": _required(parse_date),
        "TIME": _required(parse_time),
        "TIMESTAMP": _required(parse_datetime),
        CODE_TYPE: _code,
    }
    if column_type not in converters:
        raise KeyError(f"the registry has no conversion from {vr} to {column_type}")
    return converters[column_type]


def _text(value: Any) -> str | None:
    if isinstance(value, dict):  # a person name: its first group that is there (PS3.5 6.2.1.1)
        value = value.get("Alphabetic") or value.get("Ideographic") or value.get("Phonetic")
    return None if value in (None, "") else str(value).strip()


def _number(value: Any) -> float | None:
    return None if value in (None, "") else float(value)


def _integer(value: Any, allowed: range) -> int | None:
    if value in (None, ""):
        return None
    number = float(value) if isinstance(value, str) else value
    if number != int(number) or int(number) not in allowed:
        raise ValueError
    return int(number)


def _required(parse: Callable[[str], object]) -> Callable[[Any], object]:
    def convert(value: Any) -> object:
        if value in (None, ""):
            return None
        parsed = parse(str(value))
        if parsed is None:
            raise ValueError
        return parsed

    return convert


def _code(item: Any) -> dict[str, str | None] | None:
    """A code sequence item (PS3.3 8.8); the code value may be a short, a long or a URN one."""
    if not item:
        return None
    values = (text(item, tag) for tag in ("00080100", "00080119", "00080120"))
    return {
        "code_value": next((value for value in values if value), None),
        "coding_scheme_designator": text(item, "00080102"),
        "coding_scheme_version": text(item, "00080103"),
        "code_meaning": text(item, "00080104"),
    }
