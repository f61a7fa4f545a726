"""Tests of what is fixed on the validation set: the threshold and the temperature."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from imaging_pipeline.pneumonia.config import OperatingPoint, TrainingConfig
from imaging_pipeline.pneumonia.operating_point import calibrated, choose_threshold, fit_temperature

SCORES = np.array([0.9, 0.8, 0.6, 0.2, 0.7, 0.5, 0.1])
LABELS = np.array([1, 1, 1, 1, 0, 0, 0], dtype=np.bool_)


@pytest.mark.parametrize(
    ("target", "expected"), [(1.0, (0.2 + 0.1) / 2), (0.75, (0.6 + 0.5) / 2), (0.5, (0.8 + 0.7) / 2), (0.3, 0.75)]
)
def test_the_threshold_is_the_highest_that_reaches_the_target(target: float, expected: float) -> None:
    threshold, note = choose_threshold(SCORES, LABELS, TrainingConfig(target_sensitivity=target))
    assert threshold == pytest.approx(expected)
    assert (SCORES[LABELS] >= threshold).mean() >= target
    assert "validation" in note


def test_youdens_point_has_the_greatest_sum_of_sensitivity_and_specificity() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.4
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.15), 0, 1).round(2)
    threshold, _ = choose_threshold(scores, labels, TrainingConfig(operating_point=OperatingPoint.YOUDEN))
    alarms, found, _ = metrics.roc_curve(labels, scores)
    called = scores >= threshold
    assert called[labels].mean() - called[~labels].mean() == pytest.approx((found - alarms).max())


@pytest.mark.parametrize("point", OperatingPoint)
def test_without_positives_the_default_threshold_is_taken_and_said(point: OperatingPoint) -> None:
    config = TrainingConfig(operating_point=point)
    assert choose_threshold(SCORES, np.zeros(7, np.bool_), config)[0] == 0.5
    assert "no positive" in choose_threshold(SCORES, np.zeros(7, np.bool_), config)[1]


def overconfident(factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose logits are ``factor`` times those of the truth."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, size=20_000)
    labels = rng.random(logits.size) < 1 / (1 + np.exp(-logits))
    return 1 / (1 + np.exp(-factor * logits)), labels


def test_the_temperature_takes_back_what_the_scores_are_too_certain() -> None:
    scores, labels = overconfident(3)
    temperature = fit_temperature(scores, labels)
    assert temperature == pytest.approx(3, rel=0.05)
    after = calibrated(scores, temperature)
    assert metrics.log_loss(labels, after) < metrics.log_loss(labels, scores) - 0.1
    assert (np.diff(after[np.argsort(scores)]) >= 0).all()


def test_scores_are_never_made_more_certain() -> None:
    scores, labels = overconfident(0.5)
    assert fit_temperature(scores, labels) == pytest.approx(1)


def test_a_set_of_one_class_or_without_an_error_leaves_the_scores_as_they_are() -> None:
    assert fit_temperature(SCORES, np.ones(7, np.bool_)) == 1.0
    assert fit_temperature(np.array([0.0, 1.0]), np.array([False, True])) == pytest.approx(1)
    assert calibrated(SCORES, 1.0) is SCORES
