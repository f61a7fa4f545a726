"""Pictures of a training and its evaluation, small enough to be shown inline.

Owns drawing, each picture as PNG bytes of at most 100 kB. Contains no computation of figures beyond what a curve
needs, and shows no identifier: images are numbered by their position. No global matplotlib state is used.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from imaging_pipeline.pneumonia.evaluation import Evaluation, checked, reliability

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from imaging_pipeline.pneumonia.training import EpochReport

MAX_BYTES = 100_000
RESOLUTIONS = (110, 80, 60, 40, 25)
"""Dots per inch tried in turn until a picture is small enough."""

PICTURE = (5.2, 4.2)
POSITIVE, NEGATIVE, NEUTRAL = "#b2182b", "#2166ac", "#666666"
EXAMPLES = 12
EXAMPLE_COLUMNS = 4
EXAMPLE_PIXELS = 128
HISTOGRAM_BINS = 20


def roc_figure(scores: ArrayLike, labels: ArrayLike, evaluation: Evaluation) -> bytes:
    """The ROC curve with its area, interval and operating point."""
    values, truth = checked(scores, labels)
    figure, axes = _canvas("false positive rate (1 - specificity)", "sensitivity")
    axes.plot([0, 1], [0, 1], color=NEUTRAL, linewidth=0.8, linestyle=":")
    if evaluation.auroc is None:
        _say(axes, f"no ROC curve: {evaluation.undefined['auroc']}")
    else:
        alarms, found = _roc(values, truth)
        axes.plot(alarms, found, color=NEGATIVE, label=_with_interval("AUROC", evaluation))
        if evaluation.sensitivity is not None and evaluation.specificity is not None:
            point = 1 - evaluation.specificity, evaluation.sensitivity
            axes.plot(*point, "o", color=POSITIVE, label=f"threshold {evaluation.threshold:.3g}")
        axes.legend(loc="lower right")
    axes.set_title(f"ROC, {evaluation.n} images of {evaluation.patients} patients")
    return _png(figure)


def training_curves(history: Sequence[EpochReport], best_epoch: int) -> bytes:
    """Losses and validation AUROC per epoch; a line marks the epoch that was kept."""
    figure, axes = _canvas("epoch", "loss")
    epochs = [report.epoch for report in history]
    axes.plot(epochs, [report.train_loss for report in history], color=NEUTRAL, label="training loss (weighted)")
    axes.plot(epochs, [report.validation_loss for report in history], color=POSITIVE, label="validation loss")
    axes.axvline(best_epoch, color=NEUTRAL, linewidth=0.8, linestyle=":", label=f"kept: epoch {best_epoch}")
    right = axes.twinx()
    aurocs = [np.nan if report.validation_auroc is None else report.validation_auroc for report in history]
    right.plot(epochs, aurocs, color=NEGATIVE, label="validation AUROC")
    right.set_ylim(0, 1.02)
    right.set_ylabel("AUROC")
    handles, names = axes.get_legend_handles_labels()
    more_handles, more_names = right.get_legend_handles_labels()
    axes.legend(handles + more_handles, names + more_names, loc="center left")
    axes.set_title("training")
    return _png(figure)


def score_histogram(scores: ArrayLike, labels: ArrayLike, threshold: float) -> bytes:
    """How the scores of both classes lie on either side of the threshold."""
    values, truth = checked(scores, labels)
    figure, axes = _canvas("score", "images")
    bins = np.linspace(0, 1, HISTOGRAM_BINS + 1).tolist()
    axes.hist(values[~truth], bins=bins, color=NEGATIVE, alpha=0.6, label=f"no pneumonia ({int((~truth).sum())})")
    axes.hist(values[truth], bins=bins, color=POSITIVE, alpha=0.6, label=f"pneumonia ({int(truth.sum())})")
    axes.axvline(threshold, color=NEUTRAL, linestyle=":", label=f"threshold {threshold:.3g}")
    axes.legend()
    axes.set_title("scores")
    return _png(figure)


def reliability_figure(scores: ArrayLike, labels: ArrayLike) -> bytes:
    """Part of positives against mean score per tenth of the scale; on the diagonal, scores are probabilities."""
    values, truth = checked(scores, labels)
    figure, axes = _canvas("mean score", "part with pneumonia")
    axes.plot([0, 1], [0, 1], color=NEUTRAL, linewidth=0.8, linestyle=":")
    if values.size:
        mean_score, observed, counts = reliability(values, truth)
        axes.plot(mean_score, observed, color=NEGATIVE, linewidth=0.8)
        axes.scatter(mean_score, observed, s=20 + 180 * counts / counts.max(), color=NEGATIVE, alpha=0.6)
    else:
        _say(axes, "no image")
    axes.set_title("reliability (area of a dot: number of images)")
    return _png(figure)


def example_sheet(images: NDArray[np.float32], scores: ArrayLike, labels: ArrayLike, threshold: float) -> bytes:
    """The first images with label and score, the wrongly called ones in red.

    Args:
        images: (N, 1, H, W), float32 on 0-1; at most twelve are shown.
        scores: probabilities (N,).
        labels: truth (N,).
        threshold: scores at or above it are called positive.
    """
    values, truth = checked(scores, labels)
    shown = min(len(images), EXAMPLES)
    rows = max(1, -(-shown // EXAMPLE_COLUMNS))
    figure = _figure(1.7 * EXAMPLE_COLUMNS, 1.9 * rows)
    for index in range(shown):
        axes = figure.add_subplot(rows, EXAMPLE_COLUMNS, index + 1)
        pixels = images[index, 0]
        step = max(1, max(pixels.shape) // EXAMPLE_PIXELS)
        axes.imshow(pixels[::step, ::step], cmap="gray", vmin=0, vmax=1)
        is_right = (values[index] >= threshold) == truth[index]
        title = f"{index + 1}: {'pneumonia' if truth[index] else 'none'}, {values[index]:.2f}"
        axes.set_title(title, fontsize=7, color="black" if is_right else POSITIVE)
        axes.set_axis_off()
    return _png(figure)


def report_figures(
    history: Sequence[EpochReport],
    best_epoch: int,
    *,
    evaluation: Evaluation,
    scores: ArrayLike,
    labels: ArrayLike,
    examples: NDArray[np.float32],
) -> Mapping[str, bytes]:
    """All pictures of one training by file name; ``examples`` are the first test images (K, 1, H, W)."""
    values, truth = checked(scores, labels)
    shown = len(examples)
    return {
        "roc.png": roc_figure(values, truth, evaluation),
        "training.png": training_curves(history, best_epoch),
        "scores.png": score_histogram(values, truth, evaluation.threshold),
        "reliability.png": reliability_figure(values, truth),
        "examples.png": example_sheet(examples, values[:shown], truth[:shown], evaluation.threshold),
    }


def _roc(values: NDArray[np.float64], truth: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False positive rate and sensitivity (K,) at every distinct score, from the highest down."""
    order = np.argsort(-values, kind="stable")
    last_of_step = np.append(np.flatnonzero(np.diff(values[order])), values.size - 1)
    found = np.cumsum(truth[order])[last_of_step] / truth.sum()
    alarms = np.cumsum(~truth[order])[last_of_step] / (~truth).sum()
    return np.append(0.0, alarms), np.append(0.0, found)


def _with_interval(name: str, evaluation: Evaluation) -> str:
    interval = evaluation.auroc_ci
    text = f"{name} {evaluation.auroc:.3f}"
    return text if interval is None else f"{text} [{interval.low:.3f}, {interval.high:.3f}]"


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to load

    return Figure(figsize=(width, height), layout="tight")


def _canvas(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = _figure(*PICTURE)
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure, axes


def _say(axes: Axes, message: str) -> None:
    axes.text(0.5, 0.5, message, transform=axes.transAxes, ha="center", va="center")


def _png(figure: Figure) -> bytes:
    """The picture at the highest resolution that keeps it under ``MAX_BYTES``; same input, same bytes."""
    png = b""
    for resolution in RESOLUTIONS:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=resolution, metadata={"Software": None})
        png = buffer.getvalue()
        if len(png) <= MAX_BYTES:
            break
    return png
