"""How a frame is looked at when text is searched: stored values as 8-bit images, and where strokes are.

Owns the views and the stroke filter. A view does not depend on windows or look-up tables of the header: text burned in
at any value stands out from what is around it. Contains no networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from imaging_pipeline.deid.pixels.boxes import Box

Plane = NDArray[np.float32]

NEIGHBOURHOOD: Final = 15
"""Side of the neighbourhood, in pixels, against which `relief` shows a pixel."""

_GAIN: Final = 32.0
_SKEWED: Final = 0.1
_REACH: Final = 8
_SAMPLED: Final = 1 << 18

_LEAST_DIFFERENCE: Final = 3.0
"""Share of the value range, in 1/255, below which differences are noise."""

_THIN, _WIDE = 0.7, 2.5
"""Standard deviations, in pixels, of the band of sizes in which strokes of letters lie."""

_LEVEL_SIDE: Final = 65
_LEAST_LEVEL: Final = 0.5
_STRONG: Final = 2.0
"""A stroke is this many times stronger than what is usual around it."""

_DENSE_SIDE: Final = 11
_DENSE: Final = 0.25
"""Share of strokes in a square of `_DENSE_SIDE` from which it may be part of a letter: 98 % of planted lines that the
detector can find, of 7 to 40 pixels, at any angle, over slices and films; an eighth of the area of clean ones."""

_STILL: Final = 0.9
_CELL: Final = 8
_GAP: Final = 4


@dataclass(frozen=True, slots=True)
class Views:
    """One frame, seen in several ways.

    Attributes:
        flat: the range of values that matters, black to white, uint8 (rows, columns) or (rows, columns, 3).
        reliefs: one or two `relief` images: of all values, and of those around the most frequent ones when these share
            a small part of the range, so that faint text in it hardly shows.
        bands: for each relief, signed strength of strokes, float32 (rows, columns).
    """

    flat: NDArray[np.uint8]
    reliefs: tuple[NDArray[np.uint8], ...]
    bands: tuple[Plane, ...]


def plane_of(values: NDArray[Any], photometric: str) -> Plane:
    """Stored values as numbers for looking: (rows, columns), or (rows, columns, 3) with YBR_FULL turned into RGB.

    What is no finite number becomes a level above all others, so that it is seen.
    """
    plane: Plane = values.astype(np.float32)
    is_finite = np.isfinite(plane)
    if not is_finite.all():
        numbers = plane[is_finite] if is_finite.any() else np.zeros(1, np.float32)
        plane[~is_finite] = numbers.max() + max(float(np.ptp(numbers)), 1.0)
    return _rgb(plane) if photometric.startswith("YBR_FULL") and plane.ndim == 3 else plane


def views_of(plane: Plane) -> Views:
    """Every view of a frame (`plane_of`)."""
    low, high = _range(plane)
    scaled = [_scaled(plane, low, high)]
    quarter, most = np.percentile(_sample(plane), (25, 75))
    if most - quarter < _SKEWED * (high - low):
        reach = _REACH * max(most - quarter, (high - low) / 4096)
        narrow = np.clip(plane, quarter - reach, most + reach).astype(np.float32)
        scaled.append(_scaled(narrow, *_range(narrow)))
    flat: NDArray[np.uint8] = np.clip(scaled[0], 0, 255).astype(np.uint8)
    return Views(flat, tuple(map(_relief, scaled)), tuple(map(_band, scaled)))


def strokes(views: Views, last: Views | None = None) -> NDArray[np.bool_]:
    """Pixels, (rows, columns), that are part of a thin mark stronger than what is around it.

    With ``last`` only of those that were not seen there: in any window of `_DENSE_SIDE` whose strokes correlate.
    """
    found = np.zeros(views.bands[0].shape, bool)
    for position, band in enumerate(views.bands):
        strength = np.abs(band)
        usual = _blur(np.minimum(strength, 4 * np.median(_sample(strength)) + _LEAST_LEVEL), _LEVEL_SIDE)
        mark = strength > _STRONG * (usual + _LEAST_LEVEL)
        if last is not None and position < len(last.bands):
            mark &= ~_still(band, last.bands[position])
        found |= mark
    return found


def regions(found: NDArray[np.bool_]) -> list[Box]:
    """Boxes, in reading order and apart from each other, around all places where `strokes` are dense."""
    import cv2  # noqa: PLC0415  # 0.2 s: only objects with pixels pay for it

    rows, columns = found.shape
    dense = (_blur(found.astype(np.float32), _DENSE_SIDE) > _DENSE).astype(np.uint8)
    padded = np.pad(dense, ((0, -rows % _CELL), (0, -columns % _CELL)))
    blocks = padded.reshape(padded.shape[0] // _CELL, _CELL, -1, _CELL).max(axis=(1, 3))
    cells = np.asarray(cv2.dilate(blocks, np.ones((3, 3), np.uint8)), bool)
    boxes = _cut(cells, 0, 0)
    return [Box(*(edge * _CELL for edge in box)).within(rows, columns) for box in boxes]


def _cut(cells: NDArray[np.bool_], top: int, left: int) -> list[Box]:
    """The boxes of set cells, divided at every empty band of rows or columns of `_GAP` cells."""
    for axis in (1, 0):
        used = np.flatnonzero(cells.any(axis=axis))
        if not used.size:
            return []
        groups = np.split(used, np.flatnonzero(np.diff(used) > _GAP) + 1)
        spans = [slice(int(group[0]), int(group[-1]) + 1) for group in groups]
        if axis == 1 and (len(spans) > 1 or spans[0] != slice(0, len(cells))):
            return [box for span in spans for box in _cut(cells[span], top + span.start, left)]
        if axis == 0 and (len(spans) > 1 or spans[0] != slice(0, cells.shape[1])):
            return [box for span in spans for box in _cut(cells[:, span], top, left + span.start)]
    return [Box(left, top, left + cells.shape[1], top + cells.shape[0])]


def _relief(scaled: Plane) -> NDArray[np.uint8]:
    """Every pixel's difference from its neighbourhood, in units of the differences around it; 128 is none."""
    difference = _strongest(scaled - _blur(scaled, NEIGHBOURHOOD))
    usual = _blur(np.abs(difference), 2 * NEIGHBOURHOOD + 1) + _LEAST_DIFFERENCE
    view: NDArray[np.uint8] = np.clip(128 + difference / usual * _GAIN, 0, 255).astype(np.uint8)
    return view


def _band(scaled: Plane) -> Plane:
    """What has the width of strokes: difference of two Gaussians."""
    import cv2  # noqa: PLC0415  # as above

    return _strongest(cv2.GaussianBlur(scaled, (0, 0), _THIN) - cv2.GaussianBlur(scaled, (0, 0), _WIDE))


def _strongest(difference: NDArray[Any]) -> Plane:
    """Of colour the channel with the greatest difference."""
    plane: Plane = difference
    if difference.ndim == 3:
        strongest = np.abs(difference).argmax(axis=2)
        plane = np.take_along_axis(difference, strongest[..., None], axis=2)[..., 0]
    return plane


def _still(band: Plane, last: Plane) -> NDArray[np.bool_]:
    """Where two frames have the same strokes: local correlation."""
    both, first, second = (_blur(one * other, _DENSE_SIDE) for one, other in ((band, last), (band, band), (last, last)))
    still: NDArray[np.bool_] = both > _STILL * np.sqrt(np.maximum(first * second, 0))
    return still


def _scaled(plane: Plane, low: float, high: float) -> Plane:
    """Values with the range ``low`` to ``high`` as 0 to 255, and half of it beyond either end."""
    span = high - low
    scaled: Plane = (np.clip(plane, low - span / 2, high + span / 2) - low) * np.float32(255 / span)
    return scaled


def _blur(plane: NDArray[Any], side: int) -> Plane:
    import cv2  # noqa: PLC0415  # as above

    blurred: Plane = np.asarray(cv2.blur(plane, (side, side)), np.float32)
    return blurred


def _range(plane: Plane) -> tuple[float, float]:
    low, high = np.percentile(_sample(plane), (0.1, 99.9))
    if high <= low:
        low, high = float(plane.min()), float(plane.max())
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)


def _sample(plane: Plane) -> Plane:
    """Every value of a small frame, every nth of the rows of a large one: enough for its percentiles."""
    return plane[:: 1 + plane.size // _SAMPLED]


def _rgb(plane: Plane) -> Plane:
    """Full-range YCbCr to RGB (PS3.3 C.7.6.3.1.2)."""
    luma, blue, red = plane[..., 0], plane[..., 1] - 128, plane[..., 2] - 128
    channels = (luma + 1.402 * red, luma - 0.3441 * blue - 0.7141 * red, luma + 1.772 * blue)
    rgb: Plane = np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.float32)
    return rgb
