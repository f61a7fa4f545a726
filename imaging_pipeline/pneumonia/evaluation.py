"""Figures of merit of scores against labels, with honest intervals.

Owns the definitions and the patient-clustered bootstrap. Contains no plots, no network and no choice of a
threshold. Where the data cannot answer (one class, no image) a figure is None and ``undefined`` says why.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from imaging_pipeline.pneumonia.resampling import RESAMPLES, Interval, interval, resample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Truth: TypeAlias = NDArray[np.bool_]

CALIBRATION_BINS = 10

FIGURES = ("auroc", "auprc", "accuracy", "sensitivity", "specificity", "ppv", "npv", "brier")
"""Those with an interval."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of images at the threshold."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the scores are worth on one set of images.

    Attributes:
        n: images.
        patients: distinct patients.
        prevalence: part of the images that are positive.
        threshold: scores at or above it are called positive.
        auroc: area under the ROC curve, ties counted half.
        auroc_ci: its interval from resampling patients; likewise the other ``_ci``.
        auprc: average precision (step-wise area under the precision-recall curve).
        accuracy: part of the images that are called rightly.
        sensitivity: part of the positives that are called.
        specificity: part of the negatives that are not called.
        ppv: part of the called that are positive, at the prevalence of these images.
        npv: part of those not called that are negative, likewise.
        brier: mean squared difference of score and label.
        confusion: counts at the threshold.
        ece: expected calibration error over ten bins of equal width.
        undefined: figure to the reason why it is None.
    """

    n: int
    patients: int
    prevalence: float | None
    threshold: float
    auroc: float | None
    auroc_ci: Interval | None
    auprc: float | None
    auprc_ci: Interval | None
    accuracy: float | None
    accuracy_ci: Interval | None
    sensitivity: float | None
    sensitivity_ci: Interval | None
    specificity: float | None
    specificity_ci: Interval | None
    ppv: float | None
    ppv_ci: Interval | None
    npv: float | None
    npv_ci: Interval | None
    brier: float | None
    brier_ci: Interval | None
    confusion: Confusion
    ece: float | None
    undefined: Mapping[str, str] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """All defined figures by name; an interval gives ``<name>_low`` and ``<name>_high``."""
        figures: dict[str, float] = {}
        for attribute in dataclasses.fields(self):
            value = getattr(self, attribute.name)
            if isinstance(value, Interval):
                figures[f"{attribute.name}_low"], figures[f"{attribute.name}_high"] = value.low, value.high
            elif isinstance(value, int | float):
                figures[attribute.name] = float(value)
        return figures | {name: float(count) for name, count in dataclasses.asdict(self.confusion).items()}


def evaluate(
    scores: ArrayLike,
    labels: ArrayLike,
    patient_ids: Sequence[str],
    threshold: float,
    *,
    bootstrap: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """All figures of the scores, with intervals from resampling whole patients.

    Args:
        scores: probabilities (N,).
        labels: truth (N,), 0/1 or bool.
        patient_ids: whose image each is; images of one patient are not independent, so patients are resampled.
        threshold: fixed beforehand, on other data.
        bootstrap: number of resamples.
        seed: of the resampling.

    Raises:
        ValueError: the three do not have the same length, a score is not within 0-1 or a label is not 0 or 1.
    """
    values, truth = checked(scores, labels)
    if len(patient_ids) != truth.size:
        raise ValueError(f"expected one patient per score, found {len(patient_ids)} for {truth.size}")
    figures = Figures(values, truth, threshold)
    points = {name: _defined(value) for name, value in zip(FIGURES, figures.all(), strict=True)}
    drawn = resample(figures.weighted, patient_ids, resamples=bootstrap, seed=seed)
    intervals = {f"{name}_ci": interval(row, patient_ids) for name, row in zip(FIGURES, drawn, strict=True)}
    named: dict[str, Any] = points | intervals
    return Evaluation(
        n=truth.size,
        patients=len(set(patient_ids)),
        prevalence=float(truth.mean()) if truth.size else None,
        threshold=float(threshold),
        confusion=_confusion(values >= threshold, truth),
        ece=_calibration_error(values, truth),
        undefined=_reasons(points, intervals, truth),
        **named,
    )


def auroc(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Area under the ROC curve, ties counted half; None when a class is missing."""
    values, truth = checked(scores, labels)
    return _defined(Figures(values, truth, threshold=0.5).all()[0])


def checked(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Truth]:
    """Scores as float64 (N,) and labels as bool (N,).

    Raises:
        ValueError: the lengths differ, a score is not within 0-1 or a label is not 0 or 1.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if values.ndim != 1 or values.shape != truth.shape:
        raise ValueError(f"expected one label per score, found shapes {values.shape} and {truth.shape}")
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError("expected scores between 0 and 1")
    if not np.all((truth == 0) | (truth == 1)):
        raise ValueError("expected labels 0 or 1")
    return values, truth.astype(np.bool_)


def reliability(scores: Floats, labels: Truth) -> tuple[Floats, Floats, Floats]:
    """Mean score, part of positives and number of images of each bin of the score that is not empty."""
    bins = np.minimum((scores * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    used = counts > 0
    mean_score = np.bincount(bins, weights=scores, minlength=CALIBRATION_BINS)[used] / counts[used]
    observed = np.bincount(bins, weights=labels, minlength=CALIBRATION_BINS)[used] / counts[used]
    return mean_score, observed, counts[used].astype(np.float64)


class Figures:
    """The figures of one set of images under many weightings of the images at once."""

    def __init__(self, values: Floats, truth: Truth, threshold: float) -> None:
        self._order = np.argsort(-values, kind="stable")
        ordered = values[self._order]
        self._truth = truth[self._order]
        self._errors = (ordered - self._truth) ** 2
        self._steps = np.flatnonzero(np.diff(ordered, prepend=np.inf))
        self._called = int(np.count_nonzero(ordered[self._steps] >= threshold))

    def all(self) -> Floats:
        """The figures (F,) of all images, in the order of `FIGURES`."""
        return self.weighted(np.ones((1, self._truth.size)))[:, 0]

    def weighted(self, weights: Floats) -> Floats:
        """The figures (F, B) under the weights (B, N), in the order of `FIGURES`; NaN where one is not defined."""
        if not self._truth.size:
            return np.full((len(FIGURES), len(weights)), np.nan)
        weights = weights[:, self._order]
        positive = np.add.reduceat(weights * self._truth, self._steps, axis=1)
        negative = np.add.reduceat(weights * ~self._truth, self._steps, axis=1)
        found, alarms = _from_zero(positive), _from_zero(negative)
        positives, negatives = found[:, -1], alarms[:, -1]
        hits, false_alarms = found[:, self._called], alarms[:, self._called]
        rejected, missed = negatives - false_alarms, positives - hits
        halfway = found[:, 1:] - positive / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.nan_to_num(found[:, 1:] / (found[:, 1:] + alarms[:, 1:]))
            return np.stack(
                [
                    (negative * halfway).sum(axis=1) / (positives * negatives),
                    (positive * precision).sum(axis=1) / positives,
                    (hits + rejected) / (positives + negatives),
                    hits / positives,
                    rejected / negatives,
                    hits / (hits + false_alarms),
                    rejected / (rejected + missed),
                    (weights @ self._errors) / (positives + negatives),
                ]
            )


def _from_zero(steps: Floats) -> Floats:
    """Running sums (B, K + 1) of steps (B, K)."""
    return np.pad(np.cumsum(steps, axis=1), ((0, 0), (1, 0)))


def _confusion(called: Truth, truth: Truth) -> Confusion:
    pairs = ((called, truth), (called, ~truth), (~called, ~truth), (~called, truth))
    return Confusion(*(int(np.count_nonzero(call & fact)) for call, fact in pairs))


def _calibration_error(values: Floats, truth: Truth) -> float | None:
    if not truth.size:
        return None
    mean_score, observed, counts = reliability(values, truth)
    return float(np.average(np.abs(mean_score - observed), weights=counts))


def _reasons(
    points: Mapping[str, float | None], intervals: Mapping[str, Interval | None], truth: Truth
) -> dict[str, str]:
    """Why each missing figure is missing."""
    why = "no image"
    if truth.size:
        why = "no positive image" if not truth.any() else "no negative image"
    of_calls = {"ppv": "no image is called positive", "npv": "no image is called negative"} if truth.size else {}
    missing = {name: of_calls.get(name, why) for name, value in points.items() if value is None}
    too_few = "too few patients for resampling"
    return missing | {
        name: missing.get(name.removesuffix("_ci"), too_few) for name, found in intervals.items() if found is None
    }


def _defined(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
