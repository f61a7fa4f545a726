"""What a reader of a model must know: what it was trained on, what it takes, and what it is worth for whom.

Owns the form of the card that lies beside the model in the store. Contains no training and no store. Counts, codes
and figures only: nothing on it may identify a patient.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from imaging_pipeline.pneumonia.evaluation import Evaluation, evaluate
from imaging_pipeline.pneumonia.label_import import TASK
from imaging_pipeline.tensors.splits import Split

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from imaging_pipeline.pneumonia.training import TrainedNetwork
    from imaging_pipeline.tensors.recipe import Recipe
    from imaging_pipeline.tensors.versions import DatasetVersion, Member

METRICS = ("auroc", "auprc", "sensitivity", "specificity", "brier", "ece", "prevalence")
"""Figures of an evaluation that are compared; some have an interval."""

Subgroups = dict[str, dict[str, str]]
"""Of each instance key: attribute such as ``sex`` or ``view``, and its value."""


def model_card(
    dataset: DatasetVersion, recipe: Recipe, trained: TrainedNetwork, evaluations: list[dict[str, object]]
) -> dict[str, object]:
    """The card of a trained network, as JSON values.

    Args:
        dataset: what it was trained on.
        recipe: how its images are made.
        trained: the network.
        evaluations: from :func:`evaluations_by_subgroup`.
    """
    from imaging_pipeline.pneumonia.network import restore_network  # noqa: PLC0415 - imports torch

    sides = (
        f"{side}: {images} images of {patients} patients, {positive} positive"
        for side, patients, images, positive in dataset.counts()
    )
    return {
        "model_type": "CLASSIFIER",
        "modality_scope": list(recipe.modalities),
        "task_scope": [TASK],
        "dimensionality": restore_network(trained.config, trained.state_dict).width,
        "training_data_summary": "; ".join(sides),
        "dataset_id": dataset.dataset_id,
        "dataset_version": dataset.version,
        "preprocessing_spec": json.loads(recipe.to_json()),
        "postprocessing_notes": f"positive at a probability of {trained.threshold:.6g}; {trained.threshold_note}",
        "evaluations": evaluations,
    }


def evaluations_by_subgroup(
    members: Sequence[Member], scores: NDArray[np.float64], whole: Evaluation, subgroups: Subgroups, seed: int
) -> list[dict[str, object]]:
    """Every figure over all members, then over each subgroup: one entry per (split, subgroup, metric).

    Args:
        members: images of the test side.
        scores: probabilities (N,) of the members.
        whole: the evaluation over all of them.
        subgroups: what is known of each instance; an image may be in several subgroups, or in none.
        seed: of the resampling.
    """
    entries = list(_entries(whole, {}))
    for (attribute, value), positions in sorted(_positions(members, subgroups).items()):
        part = [members[position] for position in positions]
        labels, patients = [member.label for member in part], [member.patient for member in part]
        evaluation = evaluate(scores[positions], labels, patients, whole.threshold, seed=seed)
        entries.extend(_entries(evaluation, {attribute: value}))
    return entries


def _positions(members: Sequence[Member], subgroups: Subgroups) -> dict[tuple[str, str], list[int]]:
    """Positions of the members of each subgroup."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for position, member in enumerate(members):
        for pair in subgroups.get(member.instance_key, {}).items():
            found[pair].append(position)
    return found


def _entries(evaluation: Evaluation, subgroup: Mapping[str, str]) -> Iterator[dict[str, object]]:
    counts = {"images": evaluation.n, "patients": evaluation.patients, "threshold": evaluation.threshold}
    for metric in METRICS:
        interval = getattr(evaluation, f"{metric}_ci", None)
        undefined = {
            name: evaluation.undefined[name] for name in (metric, f"{metric}_ci") if name in evaluation.undefined
        }
        yield {
            "split": str(Split.TEST),
            "subgroup": dict(subgroup),
            "metric_name": metric,
            "metric_value": getattr(evaluation, metric),
            "ci_low": interval.low if interval else None,
            "ci_high": interval.high if interval else None,
            "metric_details": counts | asdict(evaluation.confusion) | ({"undefined": undefined} if undefined else {}),
        }
