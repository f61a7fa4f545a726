"""Intervals from resampling patients: images of one patient are not independent, so whole patients are drawn.

Owns the patient-clustered bootstrap (Field and Welsh 2007): how often each image is drawn, and the interval of what
is computed under such weights. Contains no figure of merit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

CONFIDENCE = 0.95

RESAMPLES = 1000

WEIGHTS_AT_ONCE = 2_000_000
"""Bootstrap weights held in memory at a time (16 MB)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided 95 % confidence interval."""

    low: float
    high: float


def resample(
    statistic: Callable[[Floats], Floats], patients: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> Floats:
    """A statistic under many resamples of the patients.

    Args:
        statistic: from weights (B, N) of the images to values (..., B), NaN where it is not defined; for one seed
            and one set of patients, the weights are the same whatever the statistic.
        patients: whose image each is, (N,).
        resamples: how many.
        seed: of the resampling.

    Returns:
        Values (..., resamples).
    """
    _, clusters = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    count = int(clusters.max(initial=-1)) + 1
    rng = np.random.default_rng(seed)
    at_once = max(1, WEIGHTS_AT_ONCE // max(1, clusters.size))
    chunks = []
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = rng.integers(max(1, count), size=(rows, count)) + count * np.arange(rows)[:, np.newaxis]
        counts = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        chunks.append(statistic(counts[:, clusters].astype(np.float64)))
    return np.concatenate(chunks, axis=-1)


def interval(values: Floats, patients: Sequence[str]) -> Interval | None:
    """The central 95 % of resampled values (B,); None where one patient only, or most resamples, leave it undefined."""
    defined = values[np.isfinite(values)]
    if len(set(patients)) < 2 or defined.size <= values.size / 2:
        return None
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    return Interval(float(low), float(high))
