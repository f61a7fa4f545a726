"""Bar codes and QR codes in one frame: a patient's number in another script.

Owns the finding, by OpenCV. Contains no reading of what they say: where one is, it is blanked.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from imaging_pipeline.deid.pixels.boxes import Box

Image = NDArray[np.uint8]

LEAST: Final = 64
"""Rows and columns below which an image is not searched: no code fits that a scanner could read."""

_ALIKE: Final = 0.7
_ENLARGED: Final = 2
_ENLARGED_UP_TO: Final = 1024
"""Longest side of a frame that is searched for bars of one pixel, twice enlarged."""


def find_codes(image: Image) -> list[Box]:
    """Where codes are, dark on bright or bright on dark, in pixels of ``image``, (rows, columns)."""
    import cv2  # noqa: PLC0415  # 0.2 s: only objects with pixels pay for it

    rows, columns = image.shape
    if min(rows, columns) < LEAST:
        return []
    squares, bars = _detectors()
    found = [_box(corners) for one in (image, 255 - image) for corners in _corners(squares, one)]
    stripes = [_box(corners) for corners in _corners(bars, image)]
    if max(rows, columns) <= _ENLARGED_UP_TO:
        larger = cv2.resize(image, None, fx=_ENLARGED, fy=_ENLARGED, interpolation=cv2.INTER_NEAREST)
        stripes += [_box(corners / np.float32(_ENLARGED)) for corners in _corners(bars, np.asarray(larger, np.uint8))]
    whole = [box.within(rows, columns) for box in (*found, *(_lengthened(image, one) for one in stripes))]
    return [box for box in whole if box.area]


def _lengthened(image: Image, box: Box) -> Box:
    """A box around bars, up and down or left and right for as long as the bars go on."""
    box = box.within(*image.shape)
    if not box.area:
        return box
    down = _same(image[:, box.columns], (box.top + box.bottom) // 2)
    across = _same(image[box.rows].T, (box.left + box.right) // 2)
    return box.union(Box(across[0], down[0], across[1], down[1])) if down[1] and across[1] else box


def _same(lines: Image, middle: int) -> tuple[int, int]:
    """First and last but one of the lines around ``middle`` that look like it."""
    centred = lines.astype(np.float32) - lines.mean(axis=1, keepdims=True)
    size = np.sqrt((centred**2).sum(axis=1))
    alike = centred @ centred[middle] > _ALIKE * np.maximum(size * size[middle], 1)
    others = np.flatnonzero(~alike)
    before, behind = others[others < middle], others[others > middle]
    return int(before[-1]) + 1 if before.size else 0, int(behind[0]) if behind.size else len(lines)


def _corners(detector: Any, image: Image) -> list[NDArray[np.float32]]:
    is_found, corners = detector.detectMulti(np.ascontiguousarray(image))
    return list(corners) if is_found else []


def _box(corners: NDArray[np.float32]) -> Box:
    (left, top), (right, bottom) = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
    return Box(int(left), int(top), int(right) + 1, int(bottom) + 1).grown(2)


@lru_cache(maxsize=1)
def _detectors() -> tuple[Any, Any]:
    import cv2  # noqa: PLC0415  # as above

    return cv2.QRCodeDetector(), cv2.barcode.BarcodeDetector()
