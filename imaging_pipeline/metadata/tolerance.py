"""Reading headers in which anything may stand anywhere: what has not the form of the DICOM JSON Model is not there.

For rows that are made by functions, which walk through nested items; columns themselves are made by
:mod:`imaging_pipeline.metadata.projection`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from imaging_pipeline.errors import Issue, Reason, Severity, Stage
from imaging_pipeline.lake.registry import Table
from imaging_pipeline.metadata.projection import Elements, Row, as_text, project

MAX_ISSUES = 100
"""Issues told of one object and table; an object with more is wrong throughout."""


def values(elements: Elements, tag: str) -> list[Any]:
    """The values of an element, empty ones too; none when it is absent."""
    element = elements.get(tag)
    found = element.get("Value") if isinstance(element, dict) else None
    return found if isinstance(found, list) else []


def numbered_items(elements: Elements, tag: str) -> Iterator[tuple[int, Elements]]:
    """The items of a sequence with their positions, from 0."""
    return ((index, item) for index, item in enumerate(values(elements, tag)) if isinstance(item, dict))


def items(elements: Elements, tag: str) -> list[Elements]:
    """The items of a sequence."""
    return [item for _, item in numbered_items(elements, tag)]


def word(elements: Elements, tag: str) -> str | None:
    """The first value of an element as text; None when it is empty, or no single value."""
    found = values(elements, tag)
    return as_text(found[0]) if found and isinstance(found[0], str | int | float) else None


def whole_number(elements: Elements, tag: str) -> int | None:
    """The first value of an element as an integer of 32 bits, or None."""
    stated = word(elements, tag)
    try:
        number = float(stated) if stated else None
    except ValueError:
        return None
    if number is None or not number.is_integer() or not -(2**31) <= number < 2**31:
        return None
    return int(number)


def projected(item: Elements, table: Table, path: str = "") -> tuple[Row, list[Issue]]:
    """As :func:`imaging_pipeline.metadata.projection.project`, for an item that may be anything.

    Args:
        item: the data set of the row.
        table: the table.
        path: where the item is, as ``ggggeeee[item]``; the paths of the issues start with it.
    """
    try:
        row, issues = project(item, table)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError):
        return {}, [malformed(path or None, f"no row of {table.name} can be read from what is there")]
    return row, [replace(issue, dicom_path=".".join(filter(None, (path, issue.dicom_path)))) for issue in issues]


def malformed(path: str | None, message: str) -> Issue:
    """A part of a header that cannot be read."""
    return Issue(Reason.MALFORMED, Stage.MAP, Severity.WARNING, path, message)


def bounded(issues: list[Issue]) -> list[Issue]:
    """The first issues, each once, at most :data:`MAX_ISSUES`."""
    return list(dict.fromkeys(issues))[:MAX_ISSUES]
