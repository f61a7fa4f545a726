"""Finding text in one frame, and telling it from film markers and from anatomy.

Owns the scales and views a frame is looked at, and the judgement of what the detector sees. Contains no changes to
pixels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from imaging_pipeline.deid.pixels import detector
from imaging_pipeline.deid.pixels.barcodes import find_codes
from imaging_pipeline.deid.pixels.boxes import Box, distinct
from imaging_pipeline.deid.pixels.views import Views

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

SHORT_READ: Final = 0.75
"""The same for fewer than `_MANY` letters in a line that is `TALL`."""

SURELY_READ: Final = 0.9
"""Mean confidence from which one reading of a line is enough to call it text."""

TALL: Final = 24
LARGE: Final = 48
"""Heights of a line, in pixels, from which few letters, or any, must be read with more confidence."""

SMALLEST_SIDE: Final = 12
"""A frame with fewer rows and columns cannot hold a word."""

_WORDS: Final = re.compile(r"[^\W_]+")
_MANY: Final = 4
_SAME: Final = 0.6
_LINE_SHAPE: Final = 2.5
_UNREADABLE: Final = 20
_MARGIN: Final = 16
_GROWN: Final = 1 / 8
"""Share of its height by which a line is grown before it is blanked: the detector may cut the tips of letters."""

_INKED: Final = 48
_CLEAR: Final = 0.27
"""Gap, in heights of the line, between a film marker and the initials beside it; between words it is smaller."""


@dataclass(frozen=True, slots=True)
class Text:
    """Text found in a frame.

    Attributes:
        boxes: what must be blanked, in reading order.
        markers: film markers and orientation letters that may stay.
    """

    boxes: tuple[Box, ...]
    markers: tuple[Box, ...]


def find_text(
    seen: Views, markers: frozenset[str], index: Index, regions: Sequence[Box], *, is_whole: bool = False
) -> Text:
    """Text, bar codes and QR codes of a frame.

    Args:
        seen: the views of the frame.
        markers: words that may stay.
        index: identifiers of the patient; a marker that is one of them is text.
        regions: where to look.
        is_whole: look everywhere else as well, less closely.
    """
    rows, columns = seen.flat.shape[:2]
    zoom = min(max(SHARPEST / max(rows, columns), 1.0), LARGEST_ZOOM)
    whole = [Box(0, 0, columns, rows)]
    looks = [
        *(_look(relief, zoom, regions) for relief in seen.reliefs),
        _look(seen.reliefs[0], zoom / 2, whole if is_whole else ()),
        _look(seen.flat, zoom / 3, whole if is_whole else regions),
    ]
    text = find_codes(seen.flat if seen.flat.ndim == 2 else seen.flat.max(axis=2))
    kept: list[Box] = []
    for line, is_agreed in _gathered(looks):
        readings = read([*seen.reliefs, seen.flat], line, markers)
        if is_marker(readings, markers, index):
            kept.append(line.box)
        elif is_text(readings, line.height) or (is_agreed and _is_line_shaped(line)):
            beside, parts = _divided(seen, line, markers, index)
            kept += beside
            text += [part.grown(1 + int(line.height * _GROWN)).within(rows, columns) for part in parts]
    return Text(distinct(text), tuple(box for box in distinct(kept) if not any(box.overlap(other) for other in text)))


def _look(view: NDArray[np.uint8], zoom: float, regions: Sequence[Box]) -> list[detector.Line]:
    """Lines in regions of a view; a margin around it lets the detector see letters that the edge of the image cuts."""
    rows, columns = view.shape[:2]
    padded = np.pad(view, [(_MARGIN, _MARGIN)] * 2 + [(0, 0)] * (view.ndim - 2), mode="edge")
    found = []
    for region in regions:
        part = padded[region.top : region.bottom + 2 * _MARGIN, region.left : region.right + 2 * _MARGIN]
        for line in detector.find_lines(part, zoom, SURE):
            moved = line.moved(region.left - _MARGIN, region.top - _MARGIN)
            box = moved.box.within(rows, columns)
            if box.area:
                found.append(replace(moved, box=box))
    return found


def _gathered(looks: list[list[detector.Line]]) -> list[tuple[detector.Line, bool]]:
    """Lines of all looks, those at nearly the same place once, and whether two looks were very sure of it."""
    found: list[tuple[detector.Line, bool]] = []
    for lines in looks:
        for line in lines:
            for position, (other, _) in enumerate(found):
                if line.box.overlap(other.box) >= _SAME * line.box.union(other.box).area:
                    is_agreed = min(line.score, other.score) >= VERY_SURE
                    joined = detector.Line(line.box.union(other.box), max(line.score, other.score), other.slant)
                    found[position] = (joined, is_agreed)
                    break
            else:
                found.append((line, False))
    return found


def _divided(seen: Views, line: detector.Line, markers: frozenset[str], index: Index) -> tuple[list[Box], list[Box]]:
    """Markers at either end of a line of text, with a clear gap between, and what is left of the line."""
    kept: list[Box] = []
    box = line.box
    if line.slant or line.is_upright:
        return kept, line.parts
    least = max(int(_CLEAR * line.height), 2)
    for is_right in (False, True):
        inked = np.flatnonzero(
            (np.abs(seen.reliefs[0][box.rows, box.columns].astype(np.int16) - 128) > _INKED).any(axis=0)
        )
        gaps = np.flatnonzero(np.diff(inked) > least)
        if not gaps.size:
            break
        gap = gaps[-1 if is_right else 0]
        middle = box.left + int(inked[gap] + inked[gap + 1]) // 2
        left, right = box._replace(right=middle), box._replace(left=middle)
        end, rest = (right, left) if is_right else (left, right)
        if is_marker(read([*seen.reliefs, seen.flat], detector.Line(end, line.score), markers), markers, index):
            kept.append(end)
            box = rest
    return kept, [box] if kept else line.parts


def _is_line_shaped(line: detector.Line) -> bool:
    """Whether a line is long, and too small to be read; a larger one could be."""
    return line.length >= _LINE_SHAPE * line.height and line.height <= _UNREADABLE


def read(seen: list[NDArray[np.uint8]], line: detector.Line, markers: frozenset[str]) -> list[tuple[str, float]]:
    """What the recogniser reads of a line: in every view, and in both directions.

    A reading that is surely text, and no marker, is enough: reading costs as much as finding.
    """
    readings: list[tuple[str, float]] = []
    for view in seen:
        crop = line.crop(view)
        for turned in (crop, crop[::-1, ::-1]):
            readings.append(detector.read_line(turned))
            if _is_surely_text(readings[-1], markers):
                return readings
    return readings


def _is_surely_text(reading: tuple[str, float], markers: frozenset[str]) -> bool:
    words = [word.upper() for word in _WORDS.findall(reading[0])]
    is_marker_like = markers.issuperset(words) or _is_joined("".join(words), markers)
    return not is_marker_like and reading[1] >= SURELY_READ and is_text([reading], 0)


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


def is_text(readings: list[tuple[str, float]], height: float) -> bool:
    """Whether a reading of a line of ``height`` pixels counts: bones and lungs look like few and large letters.

    It needs at least two letters or digits: a single one names nobody.
    """
    for text, confidence in readings:
        count = len("".join(_WORDS.findall(text)))
        least = SURELY_READ if height > LARGE else SHORT_READ if height >= TALL and count < _MANY else READ
        if count >= 2 and confidence >= least:
            return True
    return False
