"""Tests of the pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from imaging_pipeline.pneumonia.evaluation import evaluate
from imaging_pipeline.pneumonia.plots import MAX_BYTES, example_sheet, report_figures, roc_figure, worst_errors
from imaging_pipeline.pneumonia.training import EpochReport

HISTORY = [EpochReport(1, 0.7, 0.6, None, 1e-3, 2.0), EpochReport(2, 0.5, 0.4, 0.9, 1e-4, 2.0)]


def decoded(png: bytes) -> Image.Image:
    assert png.startswith(b"\x89PNG")
    assert len(png) <= MAX_BYTES
    return Image.open(io.BytesIO(png))


def test_all_pictures_of_a_training_are_small_and_readable() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(60) < 0.4
    scores = np.clip(rng.normal(0.4 + 0.3 * labels, 0.2), 0, 1)
    evaluation = evaluate(scores, labels, [str(index) for index in range(60)], 0.5)
    examples = rng.random((16, 1, 224, 180), dtype=np.float32)
    subgroups = {"all images": evaluation, "sex F": evaluate([0.1], [0], ["a"], 0.5)}
    pictures = report_figures(HISTORY, 2, evaluation=evaluation, scores=scores, labels=labels, subgroups=subgroups)
    names = {"roc.png", "training.png", "scores.png", "reliability.png", "confusion.png", "subgroups.png"}
    assert set(pictures) == names
    pictures["examples.png"] = example_sheet(examples, scores[:16], labels[:16], 0.5)
    for png in pictures.values():
        assert min(decoded(png).size) > 100
        assert len(np.unique(np.asarray(decoded(png).convert("L")))) > 10


@pytest.mark.parametrize(("scores", "labels"), [([], []), ([0.5], [1]), ([0.2, 0.9], [0, 0])])
def test_sets_too_small_for_a_curve_still_give_pictures(scores: list[float], labels: list[int]) -> None:
    evaluation = evaluate(scores, labels, [str(index) for index in range(len(scores))], 0.5)
    examples = np.zeros((len(scores), 1, 32, 32), dtype=np.float32)
    pictures = report_figures([], 0, evaluation=evaluation, scores=scores, labels=labels, subgroups={})
    pictures["examples.png"] = example_sheet(examples, scores, labels, 0.5)
    for png in pictures.values():
        decoded(png)


def test_the_same_input_gives_the_same_bytes() -> None:
    evaluation = evaluate([0.1, 0.8], [0, 1], ["a", "b"], 0.5)
    assert roc_figure([0.1, 0.8], [0, 1], evaluation) == roc_figure([0.1, 0.8], [0, 1], evaluation)


def test_the_example_sheet_shows_the_pixels() -> None:
    dark, bright = np.zeros((1, 1, 64, 64), np.float32), np.ones((1, 1, 64, 64), np.float32)
    sheets = [np.asarray(decoded(example_sheet(image, [0.5], [1], 0.5)).convert("L")) for image in (dark, bright)]
    assert (sheets[0] == 0).sum() > (sheets[1] == 0).sum() + 1000


def test_heat_is_laid_over_the_image() -> None:
    image, hot = np.full((1, 1, 64, 64), 0.5, np.float32), np.zeros((1, 8, 8), np.float32)
    hot[0, :4] = 1
    plain, over = (decoded(example_sheet(image, [0.5], [1], 0.5, heat=heat)) for heat in (None, hot))
    coloured = np.ptp(np.asarray(over.convert("RGB")).astype(int), axis=2) > 40
    assert coloured.sum() > 500
    assert not (np.ptp(np.asarray(plain.convert("RGB")).astype(int), axis=2) > 40).any()


def test_the_worst_errors_come_first_and_right_calls_not_at_all() -> None:
    scores, labels = [0.9, 0.6, 0.1, 0.55, 0.2, 0.45], [0, 0, 1, 1, 0, 1]
    assert worst_errors(scores, labels, 0.5).tolist() == [0, 2, 1, 5]
    assert worst_errors([0.9], [1], 0.5).size == 0
