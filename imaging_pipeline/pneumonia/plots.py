"""Pictures of a training and its evaluation, small enough to be shown inline.

Owns drawing, each picture as PNG bytes of at most 100 kB. Contains no computation of figures beyond what a curve
needs, and shows no identifier: images are numbered by their position. No global matplotlib state is used.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from imaging_pipeline.pneumonia.evaluation import Evaluation, checked, reliability
from imaging_pipeline.tensors.datasheet import SMALLEST_CELL

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from imaging_pipeline.pneumonia.training import EpochReport

MAX_BYTES = 100_000
RESOLUTIONS = (110, 95, 80, 70, 60, 50, 40, 25)
"""Dots per inch tried in turn until a picture is small enough."""

COLOURS = 64
"""Of a picture that is too large with all its colours: films need more pixels, not more greys."""

PICTURE = (5.2, 4.2)
POSITIVE, NEGATIVE, NEUTRAL = "#b2182b", "#2166ac", "#666666"
EXAMPLES = 12
EXAMPLE_COLUMNS = 4
EXAMPLE_PIXELS = 128
HISTOGRAM_BINS = 20
MOST_SUBGROUPS = 24
HEAT = 0.45
"""How much a heat map covers of the image beneath."""


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


def confusion_figure(evaluation: Evaluation) -> bytes:
    """How many images of each class are called what, at the threshold."""
    counts = evaluation.confusion
    table = np.array([[counts.true_negatives, counts.false_positives], [counts.false_negatives, counts.true_positives]])
    figure, axes = _canvas("called", "label")
    axes.imshow(table, cmap="Blues")
    for row, column in np.ndindex(2, 2):
        is_dark = table[row, column] > table.max() / 2
        axes.text(column, row, f"{table[row, column]}", ha="center", va="center", color="white" if is_dark else "black")
    names = ("no pneumonia", "pneumonia")
    axes.set_xticks((0, 1), names)
    axes.set_yticks((0, 1), names, rotation=90, va="center")
    axes.set_title(f"calls at {evaluation.threshold:.3g}")
    return _png(figure)


def subgroup_figure(subgroups: Mapping[str, Evaluation]) -> bytes:
    """AUROC of each subgroup with its interval, one below the other; without those that have none or are too small."""
    large = {name: each for name, each in subgroups.items() if each.patients >= SMALLEST_CELL}
    shown = [(name, each, each.auroc) for name, each in large.items() if each.auroc is not None][:MOST_SUBGROUPS]
    figure = _figure(PICTURE[0] + 1, 1.4 + 0.25 * len(shown))
    axes = figure.add_subplot()
    for row, (name, each, area) in enumerate(shown):
        if each.auroc_ci:
            axes.plot([each.auroc_ci.low, each.auroc_ci.high], [row, row], color=NEUTRAL, linewidth=1)
        axes.plot(area, row, "o", color=NEGATIVE)
        axes.text(1.01, row, f"{area:.3f}, {each.n} of {each.patients}", va="center", fontsize=7)
        axes.text(-0.01, row, name, va="center", ha="right", fontsize=7)
    if not shown:
        _say(axes, "no subgroup of enough patients has both classes")
    axes.axvline(0.5, color=NEUTRAL, linewidth=0.8, linestyle=":")
    axes.set_xlim(0, 1)
    axes.set_yticks([])
    axes.invert_yaxis()
    axes.set_title("AUROC by subgroup, images of patients")
    return _png(figure)


def drift_figure(values: Mapping[str, tuple[ArrayLike, ArrayLike]], drifted: Collection[str]) -> bytes:
    """How each quantity is distributed in the reference and in a batch, those that have drifted in red."""
    figure = _figure(2.6 * max(1, len(values)), 2.4)
    for place, (name, (reference, batch)) in enumerate(values.items(), start=1):
        axes = figure.add_subplot(1, len(values), place)
        both = np.concatenate([np.asarray(reference), np.asarray(batch)])
        bins = np.histogram_bin_edges(both, HISTOGRAM_BINS).tolist() if both.size else HISTOGRAM_BINS
        for each, colour, label in ((reference, NEUTRAL, "reference"), (batch, NEGATIVE, "batch")):
            size = np.asarray(each).size
            if size:
                axes.hist(each, bins=bins, weights=np.full(size, 1 / size), color=colour, alpha=0.6, label=label)
        axes.set_title(f"{name.replace('_', ' ')}{': drift' if name in drifted else ''}", fontsize=8,
                       color=POSITIVE if name in drifted else "black")  # fmt: skip
        axes.tick_params(labelsize=6)
        if place == 1 and both.size:
            axes.legend(fontsize=6)
    return _png(figure)


def worst_errors(scores: ArrayLike, labels: ArrayLike, threshold: float) -> NDArray[np.intp]:
    """Positions of the images called wrongly, the worst first, at most as many as a sheet shows."""
    values, truth = checked(scores, labels)
    wrong = np.flatnonzero((values >= threshold) != truth)
    how_wrong = np.where(truth, threshold - values, values - threshold)[wrong]
    return wrong[np.argsort(-how_wrong, kind="stable")][:EXAMPLES]


def example_sheet(
    images: NDArray[np.float32],
    scores: ArrayLike,
    labels: ArrayLike,
    threshold: float,
    *,
    heat: NDArray[np.float32] | None = None,
    numbers: Sequence[int] | None = None,
) -> bytes:
    """The first images with label and score, the wrongly called ones in red and with a cross.

    Args:
        images: (N, 1, H, W), float32 on 0-1; at most twelve are shown.
        scores: probabilities (N,).
        labels: truth (N,).
        threshold: scores at or above it are called positive.
        heat: maps (N, S, S) on 0-1 to lay over the images.
        numbers: of the images, from 1; by default, 1 to N.
    """
    values, truth = checked(scores, labels)
    shown = min(len(images), EXAMPLES)
    rows = max(1, -(-shown // EXAMPLE_COLUMNS))
    figure = _figure(1.7 * EXAMPLE_COLUMNS, 1.9 * rows)
    if not shown:
        figure.text(0.5, 0.5, "no image", ha="center", va="center")
    for index in range(shown):
        axes = figure.add_subplot(rows, EXAMPLE_COLUMNS, index + 1)
        pixels = images[index, 0]
        step = max(1, max(pixels.shape) // EXAMPLE_PIXELS)
        place = (0, pixels.shape[1], pixels.shape[0], 0)
        axes.imshow(pixels[::step, ::step], cmap="gray", vmin=0, vmax=1, extent=place)
        if heat is not None:
            axes.imshow(heat[index], cmap="turbo", vmin=0, vmax=1, alpha=HEAT * heat[index] ** 0.5, extent=place)
        is_right = (values[index] >= threshold) == truth[index]
        number = numbers[index] if numbers is not None else index + 1
        mark = "" if is_right else " \N{BALLOT X}"
        title = f"{number}: {'pneumonia' if truth[index] else 'none'}, {values[index]:.2f}{mark}"
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
    subgroups: Mapping[str, Evaluation],
) -> dict[str, bytes]:
    """The curves and tables of one training by file name."""
    return {
        "roc.png": roc_figure(scores, labels, evaluation),
        "training.png": training_curves(history, best_epoch),
        "scores.png": score_histogram(scores, labels, evaluation.threshold),
        "reliability.png": reliability_figure(scores, labels),
        "confusion.png": confusion_figure(evaluation),
        "subgroups.png": subgroup_figure(subgroups),
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
        if len(png) > MAX_BYTES:
            png = _with_fewer_colours(buffer)
        if len(png) <= MAX_BYTES:
            break
    return png


def _with_fewer_colours(png: io.BytesIO) -> bytes:
    with Image.open(png) as picture:
        reduced = io.BytesIO()
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(reduced, "PNG", optimize=True)
    return reduced.getvalue()
