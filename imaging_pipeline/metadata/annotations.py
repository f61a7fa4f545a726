"""What is drawn or written on images: presentation states, overlays, microscopy annotations.

Texts and graphics of presentation states (PS3.3 C.10.5), overlay planes (C.9.2), and groups of microscopy bulk simple
annotations (C.37.1). Compound graphics are not rows: the standard has them repeated as simple ones (C.10.5.1.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from imaging_pipeline.errors import Issue
from imaging_pipeline.lake.registry import Table
from imaging_pipeline.metadata.projection import Elements, Row
from imaging_pipeline.metadata.tolerance import bounded, numbered_items, projected, values, word

_GRAPHIC_ANNOTATIONS, _TEXTS, _GRAPHICS = "00700001", "00700008", "00700009"
_GRAPHIC_DATA, _GRAPHIC_UNITS = "00700022", "00700005"
_BOX_UNITS, _BOX_START, _BOX_END = "00700003", "00700010", "00700011"
_ANCHOR_UNITS, _ANCHOR = "00700004", "00700014"
_GROUPS = "006A0002"
_REFERENCED_IMAGES = "00081140"

_OF_THE_OBJECT = ("00700080", "00700081", "00700084")
"""Label, description and creator of the whole content."""

_OVERLAY_GROUPS = frozenset(f"{group:04X}" for group in range(0x6000, 0x6100, 2))
_OVERLAY_ELEMENTS = ("3000", "0010", "0011")
"""Overlay Data, Rows and Columns: one of them makes a group an overlay."""
_OVERLAY_DESCRIPTION, _DECLARED_DESCRIPTION = "0022", "60000022"


class _Annotation(NamedTuple):
    """One annotation: from where, its path in the header, its attributes, and the group of an overlay."""

    source: str
    path: str
    elements: Elements
    overlay_group: str | None = None


def graphic_annotations(elements: Elements, table: Table) -> tuple[list[Row], list[Issue]]:
    """Rows of ``dicom_annotation``, in the order of the object.

    A text has the place it is written at as its graphic data: the corners of its box (4 numbers), else its anchor
    point (2 numbers). Coordinates of microscopy annotations are bulk data, which no header holds.

    Args:
        elements: a header.
        table: ``dicom_annotation``.
    """
    rows: list[Row] = []
    issues: list[Issue] = []
    for annotation in (*_drawn(elements), *_overlays(elements), *_microscopy(elements)):
        row, found = projected(annotation.elements, table, annotation.path)
        row["annotation_index"], row["annotation_source"] = len(rows) + 1, annotation.source
        if annotation.overlay_group:
            row["overlay_group"] = int(annotation.overlay_group, 16)
        rows.append(row)
        issues += found
    return rows, bounded(issues)


def _drawn(elements: Elements) -> Iterator[_Annotation]:
    """Texts and graphics, each with what its annotation and the presentation state say of it."""
    common = _picked(elements, _OF_THE_OBJECT)
    for number, annotation in numbered_items(elements, _GRAPHIC_ANNOTATIONS):
        outer = common | dict(annotation)
        path = f"{_GRAPHIC_ANNOTATIONS}[{number}]"
        for index, text in numbered_items(annotation, _TEXTS):
            yield _Annotation("PR", f"{path}.{_TEXTS}[{index}]", {**outer, **text, **_text_place(text)})
        for index, graphic in numbered_items(annotation, _GRAPHICS):
            yield _Annotation("PR", f"{path}.{_GRAPHICS}[{index}]", {**outer, **graphic})


def _text_place(text: Elements) -> Elements:
    """Where a text is, as graphic data and their units."""
    box, anchor = values(text, _BOX_START) + values(text, _BOX_END), values(text, _ANCHOR)
    units = word(text, _BOX_UNITS if box else _ANCHOR_UNITS)
    place: dict[str, dict[str, Any]] = {}
    if box or anchor:
        place[_GRAPHIC_DATA] = {"vr": "FL", "Value": box or anchor}
        place[_GRAPHIC_UNITS] = {"vr": "CS", "Value": [units]}
    return place


def _overlays(elements: Elements) -> Iterator[_Annotation]:
    """Overlay planes; their elements are told as those of the first group, which the registry declares."""
    groups = {tag[:4] for tag in elements if tag[:2] == "60" and tag[4:] in _OVERLAY_ELEMENTS}
    for group in sorted(groups & _OVERLAY_GROUPS):
        description = elements.get(group + _OVERLAY_DESCRIPTION)
        yield _Annotation("OVERLAY", "", {} if description is None else {_DECLARED_DESCRIPTION: description}, group)


def _microscopy(elements: Elements) -> Iterator[_Annotation]:
    common = _picked(elements, (*_OF_THE_OBJECT, _REFERENCED_IMAGES))
    for index, group in numbered_items(elements, _GROUPS):
        yield _Annotation("ANN", f"{_GROUPS}[{index}]", {**common, **group})


def _picked(elements: Elements, tags: tuple[str, ...]) -> dict[str, Any]:
    return {tag: elements[tag] for tag in tags if tag in elements}
