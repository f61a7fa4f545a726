"""The promotion gate: whether a challenger may take the champion's place.

Owns the comparison of two models on the same images and the decision. Contains no store: scores and alarms come in, a
decision with its reasons goes out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from imaging_pipeline.pneumonia.alarms import Alarm, Verdict
from imaging_pipeline.pneumonia.evaluation import FIGURES, Figures
from imaging_pipeline.pneumonia.resampling import Interval, interval, resample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imaging_pipeline.pneumonia.config import PromotionRules

    Floats: TypeAlias = NDArray[np.float64]
    Truth: TypeAlias = NDArray[np.bool_]

ALL_IMAGES = "all images"

COMPARED = ("auroc", "sensitivity")
"""What may not fall in a subgroup; sensitivity at each model's own operating point."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A model on the test images: its scores (N,), NaN where it gives no answer, and its threshold."""

    scores: Floats
    threshold: float


@dataclass(frozen=True, slots=True)
class JudgedImages:
    """The images both models are judged on.

    Attributes:
        labels: bool (N,).
        patients: whose image each is.
        groups: of each image, value by name, such as ``sex``.
    """

    labels: Truth
    patients: Sequence[str]
    groups: Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of both models over the same images.

    Attributes:
        subgroup: ``all images``, or name and value of a group.
        figure: ``auroc`` or ``sensitivity``.
        patients: distinct patients.
        champion: its figure.
        challenger: its figure.
        difference: of the challenger to the champion.
        interval: of the difference, from paired resamples of patients.
        better_in: part of the resamples in which the challenger's figure is greater.
    """

    subgroup: str
    figure: str
    patients: int
    champion: float
    challenger: float
    difference: float
    interval: Interval | None
    better_in: float


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the challenger becomes champion.

    Attributes:
        is_promoted: it does.
        reasons: why, or why not; never empty.
        comparisons: with the champion; empty where there was none.
    """

    is_promoted: bool
    reasons: tuple[str, ...]
    comparisons: tuple[Comparison, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def decide_first(alarms: Sequence[Alarm], rules: PromotionRules, unanswered: int = 0, images: int = 0) -> Decision:
    """The decision where there is no champion: only alarms, and too many films without an answer, speak against it.

    Args:
        alarms: what was found of shortcuts.
        rules: when a model is promoted.
        unanswered: test images without an answer.
        images: test images.
    """
    refusals = (*_refusals_for_alarms(alarms, rules), *_refusals_for_silence(unanswered, images, rules))
    return Decision(not refusals, refusals or ("there was no champion", *_waivers(alarms, rules)))


def decide(
    champion: Contender,
    challenger: Contender,
    images: JudgedImages,
    alarms: Sequence[Alarm],
    rules: PromotionRules,
    seed: int = 0,
) -> Decision:
    """The decision between two models on the same test images.

    The challenger needs an AUROC that is greater by the margin, and greater in enough of the paired resamples; no
    subgroup of enough patients may lose more AUROC or sensitivity than is tolerated; no alarm may be raised that was
    not waived; and it may not keep silent about more of the images than is tolerated. Both are compared on the images
    that both answer: a model that refuses what is difficult gains nothing by it.
    """
    comparisons = compare(champion, challenger, images, seed)
    unanswered, of_champion = (int(np.isnan(each.scores).sum()) for each in (challenger, champion))
    count = len(images.labels)
    refusals = [*_refusals_for_alarms(alarms, rules), *_refusals_for_silence(unanswered, count, rules)]
    whole = next((each for each in comparisons if (each.subgroup, each.figure) == (ALL_IMAGES, "auroc")), None)
    if whole is None:
        refusals.append("the AUROC of the test images is not defined: one class only")
    elif whole.difference < rules.margin or whole.better_in < rules.confidence:
        refusals.append(
            f"its AUROC is {whole.challenger:.4f} against {whole.champion:.4f} and greater in {whole.better_in:.0%} of "
            f"the resamples; asked are {rules.margin:g} more, and {rules.confidence:.0%}"
        )
    refusals += [
        f"{each.figure} falls by {-each.difference:.4f} for {each.subgroup} ({each.patients} patients); tolerated are "
        f"{rules.subgroup_tolerance:g}"
        for each in comparisons
        if each is not whole
        and each.patients >= rules.subgroup_patients
        and each.difference < -rules.subgroup_tolerance
    ]
    if refusals:
        return Decision(is_promoted=False, reasons=tuple(refusals), comparisons=comparisons)
    assert whole is not None
    better = f"its AUROC is greater by {whole.difference:.4f}, and in {whole.better_in:.0%} of the resamples"
    silent = f"of {count} test images {unanswered} get no answer, {of_champion} by the champion"
    return Decision(is_promoted=True, reasons=(better, silent, *_waivers(alarms, rules)), comparisons=comparisons)


def compare(champion: Contender, challenger: Contender, images: JudgedImages, seed: int = 0) -> tuple[Comparison, ...]:
    """Both models over all images that both answer and over each subgroup; what is not defined for both is left out."""
    answered = np.flatnonzero(np.isfinite(champion.scores) & np.isfinite(challenger.scores)).tolist()
    positions: defaultdict[str, list[int]] = defaultdict(list)
    for position in answered:
        for name, value in images.groups[position].items():
            positions[f"{name} {value}"].append(position)
    parts = {ALL_IMAGES: answered, **dict(sorted(positions.items()))}
    return tuple(
        comparison
        for subgroup, part in parts.items()
        for comparison in _compared(subgroup, np.array(part, np.intp), champion, challenger, images, seed)
    )


def _compared(
    subgroup: str, part: NDArray[np.intp], champion: Contender, challenger: Contender, images: JudgedImages, seed: int
) -> list[Comparison]:
    patients = [images.patients[position] for position in part]
    rows = [FIGURES.index(name) for name in COMPARED]
    old, new = (Figures(each.scores[part], images.labels[part], each.threshold) for each in (champion, challenger))
    before, after = old.all()[rows], new.all()[rows]
    drawn = resample(lambda weights: (new.weighted(weights) - old.weighted(weights))[rows], patients, seed=seed)
    return [
        Comparison(
            subgroup,
            name,
            len(set(patients)),
            float(was),
            float(now),
            float(now - was),
            interval(differences, patients),
            float(np.mean(differences[np.isfinite(differences)] > 0)) if np.isfinite(differences).any() else 0.0,
        )
        for name, was, now, differences in zip(COMPARED, before, after, drawn, strict=True)
        if np.isfinite(was) and np.isfinite(now)
    ]


def _refusals_for_alarms(alarms: Sequence[Alarm], rules: PromotionRules) -> tuple[str, ...]:
    return tuple(
        f"alarm {alarm.name} is raised ({alarm.figure:.3f}, limit {alarm.limit:g}); look into it, or waive it by name "
        "and with a reason in promotion.waived"
        for alarm in alarms
        if alarm.verdict is Verdict.RAISED and alarm.name not in rules.waived
    )


def _refusals_for_silence(unanswered: int, images: int, rules: PromotionRules) -> tuple[str, ...]:
    if unanswered <= max(1, rules.most_unanswered * images):  # one image of a small test side tells nothing
        return ()
    return (
        f"{unanswered} of {images} test images get no answer, tolerated are {rules.most_unanswered:.0%}: the "
        "validation side is unlike the test side",
    )


def _waivers(alarms: Sequence[Alarm], rules: PromotionRules) -> tuple[str, ...]:
    return tuple(
        f"alarm {alarm.name} is raised and was waived: {rules.waived[alarm.name]}"
        for alarm in alarms
        if alarm.verdict is Verdict.RAISED and alarm.name in rules.waived
    )
