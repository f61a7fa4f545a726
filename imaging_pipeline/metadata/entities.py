"""One placed header → its candidate rows in the tables of the registry.

Pure: the same header gives the same rows. The same code makes the de-identified tables from de-identified
headers, so both sides have one definition. Which candidate of a key is kept is the lake's business.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from imaging_pipeline.errors import Issue, Reason, Severity, Stage
from imaging_pipeline.lake.registry import Table
from imaging_pipeline.metadata.annotations import graphic_annotations
from imaging_pipeline.metadata.derived import complete, device_row, location_row
from imaging_pipeline.metadata.placing import Placed
from imaging_pipeline.metadata.projection import Elements, Row, items, project
from imaging_pipeline.metadata.references import references
from imaging_pipeline.metadata.reports import content_items, irradiation_events
from imaging_pipeline.metadata.structures import structures
from imaging_pipeline.metadata.tolerance import bounded

_ROW_MAKERS: Mapping[str, Callable[[Elements, Table], tuple[list[Row], list[Issue]]]] = MappingProxyType(
    {
        "dicom_annotation": graphic_annotations,
        "dicom_irradiation_event": irradiation_events,
        "dicom_reference": references,
        "dicom_rt_roi": structures,
        "dicom_sr_content_item": content_items,
    }
)
"""Tables whose rows follow no declaration."""

_OF_OBJECT: Mapping[str, Callable[[Placed], Row]] = MappingProxyType(
    {"dicom_file_location": location_row, "series_equipment": device_row}
)
"""Tables that say where an object is and what it belongs to."""


def candidate_rows(placed: Placed, table: Table) -> tuple[list[Row], list[Issue]]:
    """Rows of one table that an object gives, complete but for the lake's own columns.

    A row without a legal key, or with the key of one before it, is left out with an issue. Of very many issues the
    first are told.
    """
    layout = _layout(table)
    if layout.tags and not any(tag in placed.elements for tag in layout.tags):
        return [], []
    if layout.modalities and placed.modality not in layout.modalities:
        return [], []
    rows, issues = _made(placed, table, layout)
    if layout.needs_any:
        rows = [row for row in rows if row]
    if not rows:
        return [], bounded(issues)
    complete(table.name, placed, rows)
    common: Row = {name: placed.keys[name] for name in layout.keys}
    common["arrival_batch"], common["row_version"] = placed.stored.arrival_batch, placed.stored.row_version
    for row in rows:
        row.update(common)
    if len(layout.key) > 1:
        rows, found = _with_own_keys(rows, table.name, layout.key)
        issues += found
    return rows, bounded(issues)


@dataclass(frozen=True, slots=True)
class _Layout:
    """``made_from`` and ``when`` of a table, taken apart.

    Attributes:
        kind: first word of ``made_from``.
        sequence: tag of the sequence its rows are the items of.
        is_over_object: what an item does not say, the top level says.
        is_for_all: single-frame objects have rows too, where rows are frames.
        tags: one of these must be there; empty: no matter.
        modalities: one of these it must be; empty: no matter.
        needs_any: rows without any value are left out.
        key: names of the key's columns.
        index: the column that numbers the items, unless they state their number.
        keys: columns that say what the object belongs to.
    """

    kind: str
    sequence: str
    is_over_object: bool
    is_for_all: bool
    tags: frozenset[str]
    modalities: frozenset[str]
    needs_any: bool
    key: tuple[str, ...]
    index: str | None
    keys: tuple[str, ...]


@functools.cache
def _layout(table: Table) -> _Layout:
    kind, *rest = table.made_from.split()
    condition, *values = table.when.split() or [""]
    (last,) = (column for column in table.columns if column.name == table.key[-1])
    own = ("instance_key", "series_key", "study_key", "patient_key", "equipment_key")
    return _Layout(
        kind=kind,
        sequence=rest[0] if kind == "items" else "",
        is_over_object=rest[1:] == ["over", "object"],
        is_for_all=not rest,
        tags=frozenset(values if condition == "has" else ()),
        modalities=frozenset(values if condition == "modality" else ()),
        needs_any=condition == "any",
        key=table.key,
        index=None if last.tag else last.name,
        keys=tuple(column.name for column in table.columns if column.name in own),
    )


def _made(placed: Placed, table: Table, layout: _Layout) -> tuple[list[Row], list[Issue]]:
    if layout.kind == "code":
        if table.name in _OF_OBJECT:
            return [_OF_OBJECT[table.name](placed)], []
        return _ROW_MAKERS[table.name](placed.elements, table)
    if layout.kind == "frames" and (layout.is_for_all or placed.frames.has_groups):
        rows, issues = placed.frames.rows(table)
        return rows, issues + placed.frames.issues
    if layout.kind == "items":
        return _of_items(placed, table, layout)
    row, issues = project(placed.elements, table)
    if layout.kind == "frames":
        row["frame_number"] = 0
    return [row], issues


def _of_items(placed: Placed, table: Table, layout: _Layout) -> tuple[list[Row], list[Issue]]:
    """One row for each item, numbered from 1; without items one from the top level, numbered 0, where asked for."""
    base, issues = project(placed.elements, table) if layout.is_over_object else ({}, [])
    rows: list[Row] = []
    for number, item in enumerate(items(placed.elements, layout.sequence), 1):
        row, found = project(item, table, placed.elements)
        issues += found
        rows.append(_numbered(layout, number) | base | row)
    if layout.is_over_object and not rows:
        rows.append(_numbered(layout, 0) | base)
    return rows, issues


def _numbered(layout: _Layout, number: int) -> Row:
    return {layout.index: number} if layout.index else {}


def _with_own_keys(rows: list[Row], name: str, key: tuple[str, ...]) -> tuple[list[Row], list[Issue]]:
    kept: dict[tuple[object, ...], Row] = {}
    issues: list[Issue] = []
    for row in rows:
        own = tuple([row.get(column) for column in key])
        if None in own:
            message = f"an item of {name} without its number was left out"
            issues.append(Issue(Reason.MISSING_TYPE1, Stage.MAP, Severity.WARNING, message=message))
        elif own in kept:
            message = f"an item of {name} with the number of another one was left out"
            issues.append(Issue(Reason.DUPLICATE_ITEM, Stage.MAP, Severity.WARNING, message=message))
        else:
            kept[own] = row
    return list(kept.values()), issues
