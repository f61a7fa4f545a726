"""Finding text in one frame, and telling it from film markers and from anatomy.

Owns the scales and views a frame is looked at, and the judgement of what the detector sees. Contains no changes to
pixels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from imaging_pipeline.deid.pixels import detector, views
from imaging_pipeline.deid.pixels.boxes import Box, distinct

if TYPE_CHECKING:  # the profile reads its pixel section with this package
    from imaging_pipeline.deid.screen import Index

SHARPEST: Final = 1536
"""A frame is enlarged until its longer side has this many pixels, at most by `LARGEST_ZOOM`: letters of 6 pixels are
then as tall as the detector needs."""

LARGEST_ZOOM: Final = 3.0
SURE: Final = 0.5
"""Score from which the detector's lines are judged."""

VERY_SURE: Final = 0.8
"""A line with this score in two looks is text although nobody can read it, if it is long."""

READ: Final = 0.6
"""Mean confidence from which a reading counts."""

SURELY_READ: Final = 0.9
"""Mean confidence from which the first reading of a line is enough to call it text."""

SMALLEST_SIDE: Final = 12
"""A frame with fewer rows and columns cannot hold a word."""

_WORDS: Final = re.compile(r"[^\W_]+")
_SAME: Final = 0.6
_LINE_SHAPE: Final = 2.5
_UNREADABLE: Final = 20
_MARGIN: Final = 16
_UPRIGHT: Final = 1.4
"""A box taller than this times its width holds a line that runs up or down."""


@dataclass(frozen=True, slots=True)
class Text:
    """Text found in a frame.

    Attributes:
        boxes: what must be blanked, in reading order.
        markers: film markers and orientation letters that may stay.
    """

    boxes: tuple[Box, ...]
    markers: tuple[Box, ...]


def find_text(plane: views.Plane, markers: frozenset[str], index: Index) -> Text:
    """All text of a frame.

    Args:
        plane: the frame's values as numbers (`views.planes_of`).
        markers: words that may stay.
        index: identifiers of the patient; a marker that is one of them is text.
    """
    rows, columns = plane.shape[:2]
    if max(rows, columns) < SMALLEST_SIDE:
        return Text((), ())
    flat, relief = views.flat_view(plane), views.relief(plane)
    seen = [flat, relief]
    zoom = min(max(SHARPEST / max(rows, columns), 1.0), LARGEST_ZOOM)
    looks = [
        _look(relief, zoom),
        _look(relief, zoom / 2),
        detector.find_lines(flat, zoom / 3, SURE),
    ]
    if views.is_skewed(plane):
        narrow = views.relief(views.narrowed(plane))
        looks.append(_look(narrow, zoom))
        seen.append(narrow)
    text: list[Box] = []
    kept: list[Box] = []
    for line, is_agreed in _gathered(looks):
        readings = read(seen, line.box, markers)
        if is_marker(readings, markers, index):
            kept.append(line.box)
        elif is_text(readings) or (is_agreed and _is_line_shaped(line.box)):
            text.append(line.box)
    return Text(distinct(text), tuple(box for box in distinct(kept) if not any(box.overlap(other) for other in text)))


def _look(relief: NDArray[np.uint8], zoom: float) -> list[detector.Line]:
    """Lines in a relief; a margin around it lets the detector see letters that the edge of the image cuts."""
    rows, columns = relief.shape
    padded = np.pad(relief, _MARGIN, constant_values=128)
    moved = [
        detector.Line(Box(*(edge - _MARGIN for edge in line.box)).within(rows, columns), line.score)
        for line in detector.find_lines(padded, zoom, SURE)
    ]
    return [line for line in moved if line.box.area]


def _gathered(looks: list[list[detector.Line]]) -> list[tuple[detector.Line, bool]]:
    """Lines of all looks, those at nearly the same place once, and whether two looks were very sure of it."""
    found: list[tuple[detector.Line, bool]] = []
    for lines in looks:
        for line in lines:
            for position, (other, _) in enumerate(found):
                if line.box.overlap(other.box) >= _SAME * line.box.union(other.box).area:
                    is_agreed = min(line.score, other.score) >= VERY_SURE
                    found[position] = (
                        detector.Line(line.box.union(other.box), max(line.score, other.score)),
                        is_agreed,
                    )
                    break
            else:
                found.append((line, False))
    return found


def _is_line_shaped(box: Box) -> bool:
    """Whether a box is that of a line too small to be read; a larger one could be."""
    width, height = box.right - box.left, box.bottom - box.top
    return max(width, height) >= _LINE_SHAPE * min(width, height) and min(width, height) <= _UNREADABLE


def read(seen: list[NDArray[np.uint8]], box: Box, markers: frozenset[str]) -> list[tuple[str, float]]:
    """What the recogniser reads in a box: every view, and both directions of a line that runs up or down.

    A first reading that is surely text, and no marker, is enough: reading costs more than finding.
    """
    readings: list[tuple[str, float]] = []
    for view in seen:
        crop = view[box.rows, box.columns]
        is_upright = crop.shape[0] > _UPRIGHT * crop.shape[1]
        for turn in (1, 3) if is_upright else (0, 2):
            readings.append(detector.read_line(np.ascontiguousarray(np.rot90(crop, turn))))
            if len(readings) == 1 and _is_surely_text(readings[0], markers):
                return readings
    return readings


def _is_surely_text(reading: tuple[str, float], markers: frozenset[str]) -> bool:
    text, confidence = reading
    words = [word.upper() for word in _WORDS.findall(text)]
    is_marker_like = markers.issuperset(words) or _is_joined("".join(words), markers)
    return confidence >= SURELY_READ and not is_marker_like and is_text([reading])


def is_marker(readings: list[tuple[str, float]], markers: frozenset[str], index: Index) -> bool:
    """Whether the surest reading is made of marker words alone and names nobody."""
    text, confidence = max(readings, key=lambda reading: reading[1])
    words = [word.upper() for word in _WORDS.findall(text)]
    joined = "".join(words)
    is_made_of = markers.issuperset(words) or _is_joined(joined, markers)
    return bool(words) and confidence >= READ and is_made_of and not index.in_text(text)


def _is_joined(text: str, markers: frozenset[str]) -> bool:
    """Whether ``text`` is two or more marker words without a blank, none of them a single letter (``APERECT``)."""
    words = "|".join(sorted((word for word in markers if len(word) > 1), key=len, reverse=True))
    return bool(words) and re.fullmatch(f"(?:{words})+", text) is not None


def is_text(readings: list[tuple[str, float]]) -> bool:
    """Whether a reading counts that has at least two letters or digits: a single one names nobody."""
    return any(confidence >= READ and len("".join(_WORDS.findall(text))) >= 2 for text, confidence in readings)
