"""Tests of the figures of merit and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics

from imaging_pipeline.pneumonia.evaluation import Confusion, Interval, auroc, evaluate


def noisy(count: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_], list[str]]:
    """Scores with ties, labels, and one patient per image."""
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.35
    scores = np.clip(rng.normal(np.where(labels, 0.6, 0.4), 0.2), 0, 1).round(2).astype(np.float64)
    return scores, labels, [str(index) for index in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_figures_agree_with_scikit_learn_also_with_ties(seed: int) -> None:
    scores, labels, patients = noisy(301, seed)
    evaluation = evaluate(scores, labels, patients, 0.5, bootstrap=10)
    called = scores >= 0.5
    assert evaluation.auroc == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert evaluation.auprc == pytest.approx(metrics.average_precision_score(labels, scores))
    assert evaluation.brier == pytest.approx(metrics.brier_score_loss(labels, scores))
    assert evaluation.sensitivity == pytest.approx(metrics.recall_score(labels, called))
    assert evaluation.specificity == pytest.approx(metrics.recall_score(~labels, ~called))
    assert evaluation.accuracy == pytest.approx(metrics.accuracy_score(labels, called))
    assert evaluation.ppv == pytest.approx(metrics.precision_score(labels, called))
    assert evaluation.npv == pytest.approx(metrics.precision_score(~labels, ~called))
    negatives, positives = metrics.confusion_matrix(labels, called).tolist()
    assert evaluation.confusion == Confusion(positives[1], negatives[1], negatives[0], positives[0])
    assert evaluation.prevalence == pytest.approx(labels.mean())
    assert not evaluation.undefined


def test_intervals_are_those_of_a_plain_bootstrap_loop() -> None:
    scores, labels, patients = noisy(120, 1)
    evaluation = evaluate(scores, labels, patients, 0.5, bootstrap=1000, seed=4)
    rng = np.random.default_rng(99)
    draws = [rng.integers(120, size=120) for _ in range(400)]
    areas = [metrics.roc_auc_score(labels[draw], scores[draw]) for draw in draws]
    precisions = [metrics.average_precision_score(labels[draw], scores[draw]) for draw in draws]
    for interval, replicates in ((evaluation.auroc_ci, areas), (evaluation.auprc_ci, precisions)):
        assert interval is not None
        assert (interval.low, interval.high) == pytest.approx(np.percentile(replicates, [2.5, 97.5]), abs=0.03)


def test_images_of_one_patient_widen_the_interval_as_they_bring_no_new_evidence() -> None:
    scores, labels, patients = noisy(60, 2)
    repeated, truth = np.tile(scores, 9), np.tile(labels, 9)
    width = {}
    for name, ids in (("clustered", patients * 9), ("apart", [str(index) for index in range(540)])):
        evaluation = evaluate(repeated, truth, ids, 0.5)
        assert evaluation.auroc_ci is not None
        width[name] = evaluation.auroc_ci.high - evaluation.auroc_ci.low
    assert width["clustered"] == pytest.approx(3 * width["apart"], rel=0.2)
    single = evaluate(scores, labels, patients, 0.5)
    clustered = evaluate(repeated, truth, patients * 9, 0.5)
    assert clustered.auroc_ci == single.auroc_ci
    assert (clustered.n, clustered.patients) == (540, 60)


def test_the_same_seed_gives_the_same_intervals_whatever_the_memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels, patients = noisy(80, 3)
    whole = evaluate(scores, labels, patients, 0.5, bootstrap=300, seed=7)
    assert whole.auroc_ci != evaluate(scores, labels, patients, 0.5, bootstrap=300, seed=8).auroc_ci
    monkeypatch.setattr("imaging_pipeline.pneumonia.resampling.WEIGHTS_AT_ONCE", 80 * 7)
    assert evaluate(scores, labels, patients, 0.5, bootstrap=300, seed=7) == whole


@pytest.mark.parametrize(("label", "reason"), [(0, "no positive image"), (1, "no negative image")])
def test_one_class_leaves_figures_undefined_with_the_reason(label: int, reason: str) -> None:
    evaluation = evaluate([0.2, 0.7, 0.9], [label] * 3, ["a", "b", "c"], 0.5)
    assert evaluation.auroc is None
    assert evaluation.auroc_ci is None
    assert evaluation.undefined["auroc"] == reason
    assert evaluation.brier is not None
    assert (evaluation.sensitivity is None) == (label == 0)
    assert (evaluation.specificity is None) == (label == 1)
    assert (evaluation.auprc is None) == (label == 0)


def test_no_image_leaves_everything_undefined() -> None:
    evaluation = evaluate([], [], [], 0.5)
    assert evaluation.n == evaluation.patients == 0
    assert evaluation.prevalence is evaluation.auroc is evaluation.brier is evaluation.ece is None
    assert set(evaluation.undefined.values()) == {"no image"}


def test_one_patient_gives_figures_without_intervals() -> None:
    evaluation = evaluate([0.1, 0.9], [0, 1], ["a", "a"], 0.5)
    assert evaluation.auroc == 1.0
    assert evaluation.auroc_ci is None
    assert "too few patients" in evaluation.undefined["auroc_ci"]


def test_a_score_at_the_threshold_is_positive() -> None:
    evaluation = evaluate([0.5, 0.5, 0.4], [1, 0, 0], ["a", "b", "c"], 0.5, bootstrap=10)
    assert evaluation.confusion == Confusion(1, 1, 1, 0)
    assert (evaluation.sensitivity, evaluation.specificity) == (1.0, 0.5)


@pytest.mark.parametrize("threshold", [-0.1, 1.1])
def test_thresholds_beyond_all_scores_are_defined(threshold: float) -> None:
    evaluation = evaluate([0.2, 0.8], [0, 1], ["a", "b"], threshold, bootstrap=10)
    assert (evaluation.sensitivity, evaluation.specificity) == ((1.0, 0.0) if threshold < 0 else (0.0, 1.0))
    assert (evaluation.ppv, evaluation.npv) == ((0.5, None) if threshold < 0 else (None, 0.5))
    uncalled = "npv" if threshold < 0 else "ppv"
    assert evaluation.undefined[uncalled].startswith("no image is called")


def test_calibration_error_is_the_mean_gap_between_score_and_truth() -> None:
    evaluation = evaluate([0.25] * 4 + [0.85] * 4, [1, 0, 0, 0, 1, 1, 0, 0], [*"abcdefgh"], 0.5, bootstrap=10)
    assert evaluation.ece == pytest.approx((0.0 + 0.35) / 2)


def test_metrics_hold_every_defined_figure_and_no_undefined_one() -> None:
    figures = evaluate([0.2, 0.8, 0.3], [0, 0, 0], ["a", "b", "c"], 0.5).metrics()
    assert figures["n"] == 3
    assert figures["specificity"] == pytest.approx(2 / 3)
    assert figures["specificity_ci_low"] <= figures["specificity"] <= figures["specificity_ci_high"]
    assert figures["false_positives"] == 1
    assert "auroc" not in figures
    assert "auroc_ci_low" not in figures


def test_area_is_half_when_all_scores_are_equal() -> None:
    assert auroc([0.3] * 4, [0, 1, 0, 1]) == 0.5
    assert auroc([0.3], [1]) is None


@pytest.mark.parametrize(
    ("scores", "labels", "patients"),
    [
        ([0.5], [1, 0], ["a"]),
        ([0.5, 0.1], [1, 0], ["a"]),
        ([float("nan")], [1], ["a"]),
        ([1.5], [1], ["a"]),
        ([0.5], [2], ["a"]),
        ([0.5], [float("nan")], ["a"]),
    ],
)
def test_inputs_that_do_not_fit_are_refused(scores: list[float], labels: list[float], patients: list[str]) -> None:
    with pytest.raises(ValueError, match="expected"):
        evaluate(scores, labels, patients, 0.5)


def test_a_perfect_ranking_has_a_closed_interval() -> None:
    evaluation = evaluate([0.1, 0.2, 0.3, 0.8, 0.9, 1.0], [0, 0, 0, 1, 1, 1], [*"abcdef"], 0.5)
    assert evaluation.auroc_ci == Interval(1.0, 1.0)
