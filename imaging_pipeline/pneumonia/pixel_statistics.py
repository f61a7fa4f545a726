"""Numbers of an image that know nothing of anatomy: brightness, histogram, borders, corners."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

HISTOGRAM_BINS = 16
BORDER = 0.05
CORNER = 0.15
"""Widths of border and corners as parts of the side."""


def pixel_statistics(images: Iterable[NDArray[np.float32]]) -> Floats:
    """Numbers (N, F) of each image (1, H, W), float32 on 0-1, that know nothing of anatomy."""
    return np.array([_statistics_of(image[0]) for image in images], np.float64)


def _statistics_of(image: NDArray[np.float32]) -> list[float]:
    height, width = image.shape
    border = max(1, int(BORDER * min(height, width)))
    corner = max(1, int(CORNER * min(height, width)))
    edges = (image[:border], image[-border:], image[:, :border], image[:, -border:])
    corners = (
        image[:corner, :corner],
        image[:corner, -corner:],
        image[-corner:, :corner],
        image[-corner:, -corner:],
    )
    histogram = np.histogram(image, HISTOGRAM_BINS, (0, 1))[0] / image.size
    parts = [value for part in (image, *edges, *corners) for value in (part.mean(), part.std())]
    return [*map(float, parts), *map(float, np.percentile(image, [1, 25, 50, 75, 99])), *map(float, histogram)]
