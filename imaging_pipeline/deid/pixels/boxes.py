"""Rectangles of an image, in whole pixels.

Owns the arithmetic of boxes and their order. Contains no pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Box(NamedTuple):
    """Columns ``left`` to ``right`` - 1 and rows ``top`` to ``bottom`` - 1, counted from 0."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        """Number of pixels; 0 for an empty box."""
        return max(0, self.right - self.left) * max(0, self.bottom - self.top)

    @property
    def sides(self) -> tuple[int, int]:
        """Number of rows and of columns."""
        return self.bottom - self.top, self.right - self.left

    @property
    def rows(self) -> slice:
        """Rows as an index."""
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        """Columns as an index."""
        return slice(self.left, self.right)

    def within(self, rows: int, columns: int) -> Box:
        """The part inside an image of ``rows`` x ``columns``."""
        left, top = min(max(self.left, 0), columns), min(max(self.top, 0), rows)
        return Box(left, top, max(left, min(self.right, columns)), max(top, min(self.bottom, rows)))

    def grown(self, margin: int) -> Box:
        """The box with ``margin`` pixels more on every side."""
        return Box(self.left - margin, self.top - margin, self.right + margin, self.bottom + margin)

    def moved(self, right: int, down: int) -> Box:
        """The box ``right`` and ``down`` pixels further."""
        return Box(self.left + right, self.top + down, self.right + right, self.bottom + down)

    def overlap(self, other: Box) -> int:
        """Number of pixels both boxes have."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0, width) * max(0, height)

    def union(self, other: Box) -> Box:
        """The smallest box around both."""
        return Box(
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
        )


def box_of(values: Sequence[object]) -> Box | None:
    """A box from ``left, top, right, bottom``, or None when these are not four numbers that span one."""
    if len(values) != 4 or not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return None
    box = Box(*(int(str(value)) for value in values))
    return box if min(box.left, box.top) >= 0 and box.area else None


def outside(inner: Iterable[Box], rows: int, columns: int) -> list[Box]:
    """Boxes that together cover everything outside ``inner``, without overlap, in reading order."""
    rest = [Box(0, 0, columns, rows)]
    for hole in inner:
        rest = [part for box in rest for part in _minus(box, hole)]
    return sorted(rest, key=lambda box: (box.top, box.left))


def distinct(boxes: Iterable[Box]) -> tuple[Box, ...]:
    """The boxes in reading order, without those that lie inside another."""
    found: list[Box] = []
    for box in sorted(set(boxes), key=lambda box: (-box.area, box)):
        if box.area and not any(box.overlap(other) == box.area for other in found):
            found.append(box)
    return tuple(sorted(found, key=lambda box: (box.top, box.left, box)))


def written(boxes: Iterable[Box], limit: int = 8) -> str:
    """Boxes for a message: ``left,top,right,bottom`` separated by semicolons, the first ``limit`` of them."""
    return ";".join(",".join(map(str, box)) for box in list(boxes)[:limit])


def _minus(box: Box, hole: Box) -> list[Box]:
    if not box.overlap(hole):
        return [box]
    top, bottom = max(box.top, hole.top), min(box.bottom, hole.bottom)
    parts = [
        Box(box.left, box.top, box.right, top),
        Box(box.left, top, max(box.left, hole.left), bottom),
        Box(min(box.right, hole.right), top, box.right, bottom),
        Box(box.left, bottom, box.right, box.bottom),
    ]
    return [part for part in parts if part.area]
