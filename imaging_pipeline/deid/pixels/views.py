"""How a frame is looked at when text is searched: stored values as 8-bit images, and where thin strokes are.

Owns the views and the stroke filter. A view does not depend on windows or look-up tables of the header: text burned in
at any value stands out from what is around it. Contains no networks.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

STROKE: Final = 15
"""Side of the neighbourhood, in pixels, against which a stroke is seen."""

_GAIN: Final = 32.0
_STRONG: Final = 56
"""A pixel of `relief` this far from the middle is a stroke: 1.75 times the usual difference around it."""

_SKEWED: Final = 0.1
_REACH: Final = 8

_LEAST_DIFFERENCE: Final = 3.0
"""Share of the value range, in 1/255, below which differences are noise."""

_GLYPH_SIDES: Final = (3, 80)
_GLYPHS_IN_LINE: Final = 3


def plane_of(values: NDArray[Any], photometric: str) -> Plane:
    """Stored values as numbers for looking: (rows, columns), or (rows, columns, 3) with YBR_FULL turned into RGB."""
    plane: Plane = np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0)
    return _rgb(plane) if photometric.startswith("YBR_FULL") and plane.ndim == 3 else plane


def flat_view(plane: Plane) -> NDArray[np.uint8]:
    """The range of values that matters, black to white."""
    low, high = _range(plane)
    view: NDArray[np.uint8] = np.clip((plane - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    return view


def relief(plane: Plane, side: int = STROKE) -> NDArray[np.uint8]:
    """Every pixel's difference from its neighbourhood, in units of the differences around it; 128 is none.

    Of colour the channel with the greatest difference is taken.
    """
    import cv2  # noqa: PLC0415  # 0.2 s: only objects with pixels pay for it

    low, high = _range(plane)
    span = high - low
    scaled = (np.clip(plane, low - span / 2, high + span / 2) - low) * np.float32(255 / span)
    difference = scaled - cv2.blur(scaled, (side, side))
    if difference.ndim == 3:
        strongest = np.abs(difference).argmax(axis=2)
        difference = np.take_along_axis(difference, strongest[..., None], axis=2)[..., 0]
    usual = cv2.blur(np.abs(difference), (2 * side + 1, 2 * side + 1)) + _LEAST_DIFFERENCE
    view: NDArray[np.uint8] = np.clip(128 + difference / usual * _GAIN, 0, 255).astype(np.uint8)
    return view


def is_skewed(plane: Plane) -> bool:
    """Whether half of the pixels share a small part of the range, so that faint text in it hardly shows."""
    low, quarter, most, high = np.percentile(plane, (0.1, 25, 75, 99.9))
    return bool(most - quarter < _SKEWED * (high - low))


def narrowed(plane: Plane) -> Plane:
    """The values cut to the range around those that half of the pixels share, as a narrow window shows them."""
    low, quarter, most, high = np.percentile(plane, (0.1, 25, 75, 99.9))
    reach = _REACH * max(most - quarter, (high - low) / 4096)
    cut: Plane = np.clip(plane, quarter - reach, most + reach).astype(np.float32)
    return cut


def has_strokes(view: NDArray[np.uint8]) -> bool:
    """Whether a `relief` shows several small marks close together on one line, across or down, as letters are.

    The first and cheap look at frames that hardly ever hold text; noise passes it at times, text always should.
    """
    import cv2  # noqa: PLC0415  # as above

    bright = (view > 128 + _STRONG).astype(np.uint8)
    dark = (view < 128 - _STRONG).astype(np.uint8)
    return any(_is_line(cv2.connectedComponentsWithStats(mask, connectivity=8)[2][1:]) for mask in (bright, dark))


def _is_line(stats: NDArray[Any]) -> bool:
    """Whether marks of similar size follow each other (left, top, width, height, area of each)."""
    small, large = _GLYPH_SIDES
    side, area = np.maximum(stats[:, 2], stats[:, 3]), stats[:, 4]
    glyphs = stats[(side >= small) & (side <= large) & (area > small)]
    return any(_longest_run(glyphs, across, size) >= _GLYPHS_IN_LINE for across, size in ((0, 3), (1, 2)))


def _longest_run(glyphs: NDArray[Any], across: int, size: int) -> int:
    """Most marks in a row: next to each other along one axis, level and of like size along the other."""
    if len(glyphs) < _GLYPHS_IN_LINE:
        return 0
    ordered = glyphs[np.argsort(glyphs[:, across], kind="stable")]
    start, end = ordered[:, across], ordered[:, across] + ordered[:, 2 + across]
    middle = ordered[:, 1 - across] + ordered[:, size] / 2
    extent = ordered[:, size]
    length, small = np.ones(len(ordered), int), _GLYPH_SIDES[0]
    for index in range(1, len(ordered)):
        near = slice(max(0, index - 32), index)
        gap = start[index] - end[near]
        tall = np.maximum(extent[near], extent[index])
        follows = (
            (gap <= 1.2 * tall)
            & (gap >= -small)
            & (np.abs(middle[near] - middle[index]) <= 0.35 * tall)
            & (np.minimum(extent[near], extent[index]) >= 0.55 * tall)
        )
        if follows.any():
            length[index] = 1 + int(length[near][follows].max())
    return int(length.max())


def _range(plane: Plane) -> tuple[float, float]:
    low, high = np.percentile(plane, (0.1, 99.9))
    if high <= low:
        low, high = float(plane.min()), float(plane.max())
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)


def _rgb(plane: Plane) -> Plane:
    """Full-range YCbCr to RGB (PS3.3 C.7.6.3.1.2)."""
    luma, blue, red = plane[..., 0], plane[..., 1] - 128, plane[..., 2] - 128
    channels = (luma + 1.402 * red, luma - 0.3441 * blue - 0.7141 * red, luma + 1.772 * blue)
    rgb: Plane = np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.float32)
    return rgb
