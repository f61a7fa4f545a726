"""What a reader of a model must know: what it was trained on, what it takes, and what it is worth for whom.

Owns the form of the card that lies beside the model in the store. Contains no training and no store. Counts, codes
and figures only: nothing on it may identify a patient.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from imaging_pipeline.pneumonia.evaluation import FIGURES, Evaluation, evaluate
from imaging_pipeline.pneumonia.label_import import TASK
from imaging_pipeline.tensors.splits import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imaging_pipeline.pneumonia.alarms import Alarm
    from imaging_pipeline.pneumonia.training import TrainedNetwork
    from imaging_pipeline.tensors.recipe import Recipe
    from imaging_pipeline.tensors.versions import DatasetVersion, Member

METRICS = (*FIGURES, "ece", "prevalence")
"""Figures of an evaluation that are compared; some have an interval."""

EXTERNAL = "external"
"""What stands for the side of images of another dataset."""

Groups = Mapping[str, Mapping[str, str]]
"""Of each instance key: name of a group such as ``sex`` or ``view``, and its value."""


@dataclass(frozen=True, slots=True)
class Part:
    """The model on some images.

    Attributes:
        split: ``test``, or ``external``.
        subgroup: name and value of a group; empty for all images.
        evaluation: over those that are answered.
        unanswered: images without an answer.
        dataset: id and version where it is another dataset than that of the training.
    """

    split: str
    subgroup: Mapping[str, str]
    evaluation: Evaluation
    unanswered: int = 0
    dataset: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        """As it stands in a table."""
        of = f"{self.dataset[0]}: " if self.dataset else ""
        return of + (", ".join(f"{name} {value}" for name, value in self.subgroup.items()) or "all images")

    def entries(self) -> Iterator[dict[str, object]]:
        """One entry per metric, as JSON values."""
        dataset = {}
        if self.dataset:
            seen = f"{self.evaluation.n} images of {self.evaluation.patients} patients that the model has not seen"
            named = ("dataset_name", "dataset_version", "dataset_description")
            dataset = dict(zip(named, (*self.dataset, seen), strict=True))
        for entry in _entries(self.evaluation, self.subgroup, self.unanswered):
            yield {"split": self.split, **entry, **dataset}


def model_card(
    dataset: DatasetVersion,
    recipe: Recipe,
    trained: TrainedNetwork,
    parts: Sequence[Part],
    alarms: Sequence[Alarm],
    calibration: Mapping[str, float],
    answers: Mapping[str, float],
) -> dict[str, object]:
    """The card of a trained network, as JSON values.

    Args:
        dataset: what it was trained on.
        recipe: how its images are made.
        trained: the network.
        parts: the test images, their subgroups, and external sets.
        alarms: what was found of shortcuts.
        calibration: figures before and after the temperature.
        answers: how many test images get none, and how uncertain right and wrong ones are.
    """
    from imaging_pipeline.pneumonia.network import restore_network  # noqa: PLC0415 - imports torch

    sides = (
        f"{side}: {images} images of {patients} patients, {positive} positive"
        for side, patients, images, positive in dataset.counts()
    )
    return {
        "model_type": "CLASSIFIER",
        "architecture": trained.config.architecture,
        "modality_scope": list(recipe.modalities),
        "task_scope": [TASK],
        "dimensionality": restore_network(trained.config, trained.state_dict).width,
        "training_data_summary": "; ".join(sides),
        "dataset_id": dataset.dataset_id,
        "dataset_version": dataset.version,
        "preprocessing_spec": json.loads(recipe.to_json()),
        "postprocessing_notes": f"positive at a probability of {trained.threshold:.6g}; {trained.threshold_note}",
        "training_seconds": sum(report.seconds for report in trained.history),
        "calibration": dict(calibration),
        "answers": dict(answers),
        "alarms": [alarm.to_dict() for alarm in alarms],
        "evaluations": [entry for part in parts for entry in part.entries()],
    }


def parts_of(
    members: Sequence[Member],
    scores: NDArray[np.float64],
    threshold: float,
    groups: Groups,
    seed: int,
    *,
    split: str = Split.TEST,
    dataset: tuple[str, str] | None = None,
) -> list[Part]:
    """The evaluation over all members that are answered, then over each subgroup.

    Args:
        members: the images.
        scores: probabilities (N,) of the members, NaN where there is no answer.
        threshold: scores at or above it are called positive.
        groups: what is known of each instance; an image may be in several subgroups, or in none.
        seed: of the resampling.
        split: ``test``, or ``external``.
        dataset: id and version where it is another dataset than that of the training.
    """
    parts = []
    everything: dict[tuple[str, ...], list[int]] = {(): list(range(len(members)))}
    for pair, positions in (everything | dict(sorted(_positions(members, groups).items()))).items():
        answered = [position for position in positions if np.isfinite(scores[position])]
        chosen = [members[position] for position in answered]
        labels, patients = [member.label for member in chosen], [member.patient for member in chosen]
        evaluation = evaluate(scores[answered], labels, patients, threshold, seed=seed)
        subgroup, unanswered = dict(zip(pair[::2], pair[1::2], strict=True)), len(positions) - len(answered)
        parts.append(Part(str(split), subgroup, evaluation, unanswered, dataset))
    return parts


def _positions(members: Sequence[Member], groups: Groups) -> dict[tuple[str, ...], list[int]]:
    """Positions of the members of each subgroup."""
    found: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for position, member in enumerate(members):
        for pair in groups.get(member.instance_key, {}).items():
            found[pair].append(position)
    return found


def _entries(evaluation: Evaluation, subgroup: Mapping[str, str], unanswered: int) -> Iterator[dict[str, object]]:
    counts = {"images": evaluation.n, "patients": evaluation.patients, "threshold": evaluation.threshold}
    counts |= {"unanswered": unanswered}
    for metric in METRICS:
        interval = getattr(evaluation, f"{metric}_ci", None)
        undefined = {
            name: evaluation.undefined[name] for name in (metric, f"{metric}_ci") if name in evaluation.undefined
        }
        yield {
            "subgroup": dict(subgroup),
            "metric_name": metric,
            "metric_value": getattr(evaluation, metric),
            "ci_low": interval.low if interval else None,
            "ci_high": interval.high if interval else None,
            "metric_details": counts | asdict(evaluation.confusion) | ({"undefined": undefined} if undefined else {}),
        }
