"""DICOM JSON Model (PS3.18 F.2) → typed columns, by the registry's declaration.

Knows types and tags, no table by name. A value that does not fit its column becomes NULL and an issue; the
raw text stays in the stored header.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imaging_pipeline.dicom.values import parse_date, parse_datetime, parse_time
from imaging_pipeline.errors import Issue, Reason, Severity, Stage
from imaging_pipeline.lake.registry import Column, Table

Elements = Mapping[str, Mapping[str, Any]]
"""A parsed data set: tag (8 hexadecimal digits) → ``{"vr": …, "Value": […]}``."""

Row = dict[str, object]
"""Values by column name; a missing column is NULL."""

ITSELF = "."
"""Path of a column that mirrors the row's own sequence item."""

_INT32 = range(-(2**31), 2**31)
_INT64 = range(-(2**63), 2**63)
_STEP = re.compile(r"\.(?![^\[]*\])")
"""The dots between tags; a private creator in brackets may have its own."""

_FIXED_COUNT = re.compile(r"[2-9]|[1-9]\d")


@dataclass(frozen=True, slots=True)
class _Projection:
    """How one column is made.

    Attributes:
        column: its name.
        path: tags, sequences first; empty for the item itself.
        is_absolute: from the top level, not from the item.
        count: how many values there must be; None for any number.
        convert: the column's value of the attribute's values.
        tag: the last tag of the path.
    """

    column: str
    path: tuple[str, ...]
    is_absolute: bool
    count: int | None
    convert: Callable[[list[Any]], object]
    tag: str


def project(elements: Elements, table: Table, top: Elements | None = None) -> tuple[Row, list[Issue]]:
    """Values of the columns of ``table`` that mirror a DICOM attribute, and what was wrong with them.

    Args:
        elements: the data set of the row: a header, or a sequence item of it.
        table: the table.
        top: the whole header, where ``elements`` is an item of it.
    """
    row: Row = {}
    issues: list[Issue] = []
    simple, others = _projections(table)
    for projection in [p for p in simple if p.tag in elements]:  # most attributes of a table are absent
        values = elements[projection.tag].get("Value")
        if values and (values[0] not in _NOTHING or any(value not in _NOTHING for value in values)):
            _convert(projection, values, table, row, issues)
    for projection in others:
        source = elements if top is None or not projection.is_absolute else top
        found = find(source, *projection.path) if projection.path else [elements]
        if found is not None:
            _convert(projection, found, table, row, issues)
    return row, issues


def _convert(projection: _Projection, values: list[Any], table: Table, row: Row, issues: list[Issue]) -> None:
    if projection.column in row:
        return  # another tag of the column was there
    if projection.count is not None and len(values) != projection.count:
        issues.append(_issue(Reason.VM_INVALID, table, projection, f"{len(values)} values for"))
        if projection.count != 1:
            return
    try:
        row[projection.column] = projection.convert(values)
    except (ValueError, TypeError, AttributeError, OverflowError):
        issues.append(_issue(Reason.VR_INVALID, table, projection, "no legal value for"))


def find(elements: Elements, *path: str) -> list[Any] | None:
    """The values at a path of tags (through the first item of each sequence), or None when absent or empty."""
    *sequences, tag = path
    for sequence in sequences:
        inner = _values(elements, sequence)
        if not inner or not isinstance(inner[0], dict):
            return None
        elements = inner[0]
    values = _values(elements, tag)
    if not values or (values[0] in _NOTHING and all(value in _NOTHING for value in values)):
        return None
    return list(values)


def text(elements: Elements, *path: str) -> str | None:
    """The first value at a path as text, or None."""
    values = find(elements, *path)
    return as_text(values[0]) if values else None


def items(elements: Elements, *path: str) -> list[Elements]:
    """The items of the sequence at a path; empty when there is none."""
    return [item for item in find(elements, *path) or [] if isinstance(item, dict)]


def code(elements: Elements, *path: str) -> dict[str, str | None] | None:
    """The coded concept in the first item of the sequence at a path (PS3.3 8.8), or None."""
    values = find(elements, *path)
    return as_code(values[0]) if values else None


def as_text(value: Any) -> str | None:
    """A value as text; of a person name its first group that is there (PS3.5 6.2.1.1)."""
    if isinstance(value, dict):
        value = value.get("Alphabetic") or value.get("Ideographic") or value.get("Phonetic")
    return None if value in (None, "") else str(value).strip()


def as_code(item: Any) -> dict[str, str | None] | None:
    """A code sequence item (PS3.3 8.8); the code value may be a short, a long or a URN one."""
    if not item:
        return None
    concept = {
        "code_value": text(item, "00080100") or text(item, "00080119") or text(item, "00080120"),
        "coding_scheme_designator": text(item, "00080102"),
        "coding_scheme_version": text(item, "00080103"),
        "code_meaning": text(item, "00080104"),
    }
    return concept if concept["code_value"] or concept["code_meaning"] else None


_NOTHING = (None, "")

_TAG_LENGTH = 8


def _values(elements: Elements, step: str) -> list[Any] | None:
    tag = step if len(step) == _TAG_LENGTH else _private_tag(elements, step)
    values: list[Any] | None = elements[tag].get("Value") if tag in elements else None
    return values


def _private_tag(elements: Elements, step: str) -> str:
    """The tag of a private attribute, ``ggggxxee[CREATOR]``, in this data set; empty when it has no such block.

    PS3.5 7.8.1: the block is the one whose creator element (gggg,00bb) names the creator.
    """
    group, last, creator = step[:4], step[6:8], step[9:-1]
    for tag, element in elements.items():
        if tag.startswith(f"{group}00") and tag[6:] >= "10":
            values = element.get("Value")
            if values and str(values[0]).strip().upper() == creator:
                return f"{group}{tag[6:]}{last}"
    return ""


def _issue(reason: Reason, table: Table, projection: _Projection, what: str) -> Issue:
    path = "[0].".join(projection.path) or None
    return Issue(reason, Stage.MAP, Severity.WARNING, path, f"{what} {table.name}.{projection.column}")


@functools.cache
def _projections(table: Table) -> tuple[Sequence[_Projection], Sequence[_Projection]]:
    """Those of one tag of the data set itself, and the others."""
    every = [projection for column in table.columns if column.tag for projection in _of_column(column)]
    simple = [p for p in every if len(p.path) == 1 and not p.is_absolute and len(p.tag) == _TAG_LENGTH]
    return simple, [projection for projection in every if projection not in simple]


def _of_column(column: Column) -> list[_Projection]:
    if column.tag == ITSELF:
        convert = _converter(column, ())
        return [_Projection(column.name, (), is_absolute=False, count=None, convert=convert, tag="")]
    sequence, _, members = column.tag.rstrip("}").partition("{")
    convert = _converter(column, tuple(members.split()))
    count = int(column.vm) if _FIXED_COUNT.fullmatch(column.vm) or (column.vm == "1" and column.vr != "SQ") else None
    found = []
    for stated in sequence.split("|"):
        path = tuple(_STEP.split(stated.lstrip("/")))
        found.append(_Projection(column.name, path, stated.startswith("/"), count, convert, path[-1]))
    return found


def _converter(column: Column, members: tuple[str, ...]) -> Callable[[list[Any]], object]:
    if column.type == "BOOLEAN":
        return bool
    if column.type == "JSON":
        return functools.partial(json.dumps, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    one = _value_converter(column.type.removesuffix("[]"), members)
    if column.type.endswith("[]"):
        return lambda values: [one(value) for value in values]
    return lambda values: one(values[0])


def _value_converter(column_type: str, members: tuple[str, ...]) -> Callable[[Any], object]:
    if members:
        return _structure(column_type, members)
    if column_type == "CODE":
        return as_code
    converters: Mapping[str, Callable[[Any], object]] = {
        "VARCHAR": as_text,
        "DOUBLE": _number,
        "FLOAT": _number,
        "INTEGER": functools.partial(_integer, allowed=_INT32),
        "BIGINT": functools.partial(_integer, allowed=_INT64),
        "DATE": _required(parse_date),
        "TIME": _required(parse_time),
        "TIMESTAMP": _required(parse_datetime),
    }
    if column_type not in converters:
        raise KeyError(f"the registry has no conversion to {column_type}")
    return converters[column_type]


def _structure(column_type: str, members: tuple[str, ...]) -> Callable[[Any], object]:
    """A sequence item as a structure; a member that does not fit makes the column NULL."""
    fields = [field.strip().split(" ") for field in column_type[len("STRUCT(") : -1].split(",")]
    parts = [(name, tag, _value_converter(kind, ())) for (name, kind), tag in zip(fields, members, strict=True)]

    def convert(item: Any) -> Row:
        found = {name: (find(item, tag), one) for name, tag, one in parts}
        return {name: one(values[0]) if values else None for name, (values, one) in found.items()}

    return convert


def _number(value: Any) -> float | None:
    return None if value in _NOTHING else float(value)


def _integer(value: Any, allowed: range) -> int | None:
    if value in _NOTHING:
        return None
    number = float(value) if isinstance(value, str) else value
    if number != int(number) or int(number) not in allowed:
        raise ValueError
    return int(number)


def _required(parse: Callable[[str], object]) -> Callable[[Any], object]:
    @functools.lru_cache(maxsize=4096)
    def convert(value: Any) -> object:
        if value in _NOTHING:
            return None
        parsed = parse(str(value))
        if parsed is None:
            raise ValueError
        return parsed

    return convert
