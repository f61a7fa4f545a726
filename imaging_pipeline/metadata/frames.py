"""Frames of an image: what the functional groups say of each (PS3.3 C.7.6.16), and where it lies.

A value of the frame's own groups goes before one of the shared groups, and that before the top level. Images without
functional groups have frames too, which say what the top level says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from imaging_pipeline.errors import Issue, Reason, Severity, Stage
from imaging_pipeline.lake.registry import Table
from imaging_pipeline.metadata.projection import Elements, Row, find, items, project

SHARED_GROUPS, FRAME_GROUPS = "52009229", "52009230"
"""Shared and Per-Frame Functional Groups Sequence."""

MAX_FRAMES = 65_536
"""Frames listed of one object; whole-slide images can have more."""

_NUMBER_OF_FRAMES = "00280008"
_LEAST_FRAME_BYTES = 16
"""No object has more frames than a sixteenth of its bytes: less is no picture, and a header can say anything."""

_LONGEST_SHARED_VALUE = 256
"""Characters of a text, or values of a list, that is repeated for each frame; no such attribute needs more."""

_FEW_FRAMES = 16

_PLANES = ("SAGITTAL", "CORONAL", "AXIAL")
_OBLIQUE_COSINE = 0.95
"""A slice normal within 18 degrees of an axis is of that axis' plane, as viewers name it."""


@dataclass(frozen=True)
class Frames:
    """The frames of one object.

    Attributes:
        elements: the header.
        size: bytes of the object.
    """

    elements: Elements
    size: int

    @cached_property
    def has_groups(self) -> bool:
        """There are functional groups."""
        return bool(self._shared or self._own)

    @cached_property
    def count(self) -> int:
        """Frames that are listed, at least 1."""
        return min(self._stated, MAX_FRAMES)

    @cached_property
    def issues(self) -> list[Issue]:
        """What is wrong with the number of frames."""
        message = None
        if self._stated > MAX_FRAMES:
            message = f"only the first {MAX_FRAMES} frames are listed"
        elif self._own and len(self._own) != self._number:
            message = "the number of per-frame functional groups is not the number of frames"
        elif self._number is not None and self._stated != max(self._number, 1):
            message = "more frames are stated than fit into the object; one is listed"
        issue = Issue(Reason.VR_INVALID, Stage.MAP, Severity.WARNING, _NUMBER_OF_FRAMES, message or "")
        return [issue] if message else []

    def rows(self, table: Table) -> tuple[list[Row], list[Issue]]:
        """One row for each frame, numbered from 1, of the declared columns."""
        base, issues = project({**self.elements, **self._shared}, table)
        if self.count > _FEW_FRAMES:
            for name in [name for name, value in base.items() if _is_long(value)]:
                del base[name]
                message = f"the value of {table.name}.{name} is too long to be repeated for each frame"
                issues.append(Issue(Reason.VR_INVALID, Stage.MAP, Severity.WARNING, message=message))
        rows: list[Row] = []
        for number in range(1, self.count + 1):
            own: Row = {}
            if number <= len(self._own):
                own, found = project(self._own[number - 1], table)
                issues += found
            rows.append({**base, **own, "frame_number": number})
        return rows, issues

    @cached_property
    def _number(self) -> int | None:
        values = find(self.elements, _NUMBER_OF_FRAMES)
        try:
            return int(float(values[0])) if values else None
        except (TypeError, ValueError, OverflowError):
            return None

    @cached_property
    def _stated(self) -> int:
        if self._own:
            return len(self._own)
        number = self._number or 1
        return number if 1 <= number <= max(self.size // _LEAST_FRAME_BYTES, 1) else 1

    @cached_property
    def _shared(self) -> Elements:
        return flattened(next(iter(items(self.elements, SHARED_GROUPS)), {}))

    @cached_property
    def _own(self) -> Sequence[Elements]:
        return [flattened(group) for group in items(self.elements, FRAME_GROUPS)[: MAX_FRAMES + 1]]


def _is_long(value: object) -> bool:
    if isinstance(value, list):
        return len(value) > _LONGEST_SHARED_VALUE or any(map(_is_long, value))
    return isinstance(value, str) and len(value) > _LONGEST_SHARED_VALUE


def flattened(group: Elements) -> Elements:
    """The attributes of a functional group, those of the first item of each sequence in it included."""
    found: dict[str, Mapping[str, Any]] = {}
    waiting = [group]
    while waiting:
        inner: list[Elements] = []
        for tag, element in waiting.pop(0).items():
            found.setdefault(tag, element)
            values = element.get("Value")
            if element.get("vr") == "SQ" and values and isinstance(values[0], dict):
                inner.append(values[0])
        waiting = inner + waiting
    return found


def complete_planes(rows: Sequence[Row]) -> None:
    """Name the plane of each frame, and its position along the slice normal (mm), from position and orientation."""
    for row in rows:
        normal = slice_normal(row.get("image_orientation_patient"))
        if normal is None:
            continue
        greatest = max(range(3), key=lambda axis: abs(normal[axis]))
        row["orientation_plane"] = _PLANES[greatest] if abs(normal[greatest]) >= _OBLIQUE_COSINE else "OBLIQUE"
        position = row.get("image_position_patient")
        if isinstance(position, list) and None not in position:
            row["slice_position_mm"] = sum(a * b for a, b in zip(normal, position, strict=True))


def slice_normal(orientation: object) -> tuple[float, float, float] | None:
    """Unit normal of a plane: row direction times column direction (PS3.3 C.7.6.2.1.1); None when it has none."""
    if not isinstance(orientation, list) or len(orientation) != 6 or None in orientation:
        return None
    a, b, c, d, e, f = orientation
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    length = math.sqrt(sum(part * part for part in normal))
    if not length or not math.isfinite(length):
        return None
    return (normal[0] / length, normal[1] / length, normal[2] / length)
