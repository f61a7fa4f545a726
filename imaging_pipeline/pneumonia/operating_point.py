"""What is fixed on the validation set once the weights are: the temperature of the scores and the threshold.

Contains no network and sees no test image.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from imaging_pipeline.pneumonia.config import OperatingPoint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imaging_pipeline.pneumonia.config import TrainingConfig
    from imaging_pipeline.pneumonia.evaluation import Floats, Truth

DEFAULT_THRESHOLD = 0.5

MAX_TEMPERATURE = 10.0

BISECTIONS = 40
"""Halvings of the interval of temperatures, down to float32's precision."""

SMALLEST_SCORE = 1e-7
"""Scores are taken to lie between this and 1 minus this, so that their logits are finite."""


def fit_temperature(scores: Floats, labels: Truth) -> float:
    """The temperature, at least 1, by which logits are divided so that the scores are likeliest (Guo et al. 2017).

    Below 1 it would make scores more certain than training made them. A validation set that is easier than what
    comes later, as a random part of one collection is, asks for that wrongly; it is not done.

    Args:
        scores: probabilities (N,) before calibration.
        labels: truth (N,).

    Returns:
        1 where a class is missing.
    """
    if not 0 < labels.sum() < labels.size:
        return 1.0
    logits = _logits(scores)
    low, high = 1 / MAX_TEMPERATURE, 1.0
    for _ in range(BISECTIONS):  # the likelihood is concave in the inverse temperature
        middle = (low + high) / 2
        if np.mean((labels - _sigmoid(middle * logits)) * logits) > 0:
            low = middle
        else:
            high = middle
    return float(np.float32(2 / (low + high)))


def calibrated(scores: Floats, temperature: float) -> Floats:
    """Scores (N,) as a network with this temperature would give them."""
    return scores if temperature == 1 else _sigmoid(_logits(scores) / temperature)


def choose_threshold(scores: Floats, labels: Truth, config: TrainingConfig) -> tuple[float, str]:
    """The operating point on these images, and a note about it.

    The threshold lies halfway to the next lower score, so that rounding in another process moves no image
    across it.
    """
    if not labels.any():
        return DEFAULT_THRESHOLD, "default: the validation set has no positive image"
    if config.operating_point is OperatingPoint.YOUDEN:
        if labels.all():
            return DEFAULT_THRESHOLD, "default: the validation set has no negative image"
        note = "greatest sensitivity + specificity on the validation set"
        return _halfway(scores, _youden(scores, labels)), note
    positives = np.sort(scores[labels])[::-1]
    lowest_found = positives[math.ceil(config.target_sensitivity * positives.size - 1e-9) - 1]
    note = f"sensitivity of at least {config.target_sensitivity:g} on the validation set"
    return _halfway(scores, lowest_found), note


def _youden(scores: Floats, labels: Truth) -> float:
    """The highest score at which sensitivity + specificity is greatest (Youden 1950)."""
    levels = np.unique(scores)[::-1]
    called = scores >= levels[:, np.newaxis]
    gain = called[:, labels].mean(axis=1) - called[:, ~labels].mean(axis=1)
    return float(levels[int(np.argmax(gain))])


def _halfway(scores: Floats, lowest_found: float) -> float:
    below = scores[scores < lowest_found]
    return float((lowest_found + below.max()) / 2 if below.size else lowest_found)


def _logits(scores: Floats) -> Floats:
    inner = np.clip(scores, SMALLEST_SCORE, 1 - SMALLEST_SCORE)
    logits: Floats = np.log(inner) - np.log1p(-inner)
    return logits


def _sigmoid(logits: Floats) -> Floats:
    scores: NDArray[np.float64] = 1 / (1 + np.exp(-logits))
    return scores
