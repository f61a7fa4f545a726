"""References from one object to others: every SOP Instance Reference at any depth of a header (PS3.3 10.8, C.17.2.1).

A segmentation or an enhanced image refers to the same images in the groups of thousands of frames. Such references are
one row for each target and place, with all the frames referred to; which frame of the object refers to which image is
in ``dicom_element``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from pydicom.datadict import keyword_for_tag

from imaging_pipeline.dicom.values import is_uid
from imaging_pipeline.errors import Issue, Reason, Severity, Stage
from imaging_pipeline.lake.registry import Table
from imaging_pipeline.metadata.projection import Elements, Row
from imaging_pipeline.metadata.tolerance import bounded, numbered_items, projected, values, word

_TARGET, _TARGET_CLASS = "00081155", "00081150"
_STUDY, _SERIES = "0020000D", "0020000E"

_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management (retired): the instance referred to is a study, as in RT structure sets (C.8.8.5)."""

_PARTS = ("to_frame_numbers", "to_segment_numbers")


@dataclass(frozen=True, slots=True)
class _Place:
    """An item and what leads to it: keywords of the sequences, element path, study and series stated around it."""

    item: Elements
    keywords: tuple[str, ...] = ()
    path: str = ""
    study: str | None = None
    series: str | None = None


@dataclass(slots=True)
class _Target:
    """A reference met once or often; ``parts`` are the frames and segments, None: all of them."""

    row: Row
    parts: dict[str, dict[int, None] | None] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        for name in _PARTS:
            stated, known = row.get(name), self.parts.setdefault(name, {})
            if known is None or not isinstance(stated, list):
                self.parts[name] = None
            else:
                known.update(dict.fromkeys(number for number in stated if number is not None))


def references(elements: Elements, table: Table) -> tuple[list[Row], list[Issue]]:
    """Rows of ``dicom_reference``: one for each target, place (keywords of the sequences), series, study and purpose.

    Frames (and segments) of repeated references are put together; one without any means the whole object, and then
    none are listed. Study and series are those of the nearest item around that states them, never the object's own.

    Args:
        elements: a header.
        table: ``dicom_reference``.
    """
    targets: dict[tuple[object, ...], _Target] = {}
    issues: list[Issue] = []
    waiting = [_Place(elements)]
    while waiting:
        place = waiting.pop()
        if place.path and values(place.item, _TARGET):
            row, found = _row(place, table)
            issues += found
            if row:
                purpose = row.get("purpose_of_reference")
                code = tuple(purpose.values()) if isinstance(purpose, dict) else ()
                stated = (row[name] for name in ("to_sop_instance_uid", "sequence_path"))
                key = (*stated, place.study, place.series, code)
                targets.setdefault(key, _Target(row)).add(row)
        waiting += reversed(_inner(place))
    rows = [
        target.row | {name: list(known) if known else None for name, known in target.parts.items()}
        for target in targets.values()
    ]
    return [row | {"reference_index": index} for index, row in enumerate(rows, start=1)], bounded(issues)


def _row(place: _Place, table: Table) -> tuple[Row, list[Issue]]:
    row, issues = projected(place.item, table, place.path)
    target = row.get("to_sop_instance_uid")
    if not isinstance(target, str) or not is_uid(target):
        message = "a reference states no legal UID (PS3.5 9.1)"
        issues.append(Issue(Reason.UID_INVALID, Stage.MAP, Severity.INFO, f"{place.path}.{_TARGET}", message))
    if not target:
        return {}, issues
    row["to_study_instance_uid"], row["to_series_instance_uid"] = place.study, place.series
    row["sequence_path"] = ".".join(place.keywords)
    return row, issues


def _inner(place: _Place) -> list[_Place]:
    """The items of all sequences of an item, in the order of the object."""
    found: list[_Place] = []
    for tag, element in place.item.items():
        if not isinstance(element, dict) or element.get("vr") != "SQ":
            continue
        keywords = (*place.keywords, _keyword(tag))
        prefix = f"{place.path}.{tag}" if place.path else tag
        for index, item in numbered_items(place.item, tag):
            study, series = _around(item, place)
            found.append(_Place(item, keywords, f"{prefix}[{index}]", study, series))
    return found


def _around(item: Elements, outer: _Place) -> tuple[str | None, str | None]:
    """The study and series that an item states for itself and what is in it."""
    study = word(item, _TARGET) if word(item, _TARGET_CLASS) == _STUDY_CLASS else word(item, _STUDY)
    if study is not None:
        return study, word(item, _SERIES)
    return outer.study, word(item, _SERIES) or outer.series


@functools.lru_cache(maxsize=4096)
def _keyword(tag: str) -> str:
    """Keyword of an attribute, or its tag when it has none."""
    try:
        return keyword_for_tag(int(tag, 16)) or tag
    except (ValueError, OverflowError):
        return tag
