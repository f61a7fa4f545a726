"""A dataset version → a trained, evaluated and registered model. Opens the research side only."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import imaging_pipeline
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pneumonia.config import TrainingConfig
from imaging_pipeline.pneumonia.model_card import evaluations_by_subgroup, model_card
from imaging_pipeline.pneumonia.tracking import DatasetInfo, ModelTracker, RegisteredModel
from imaging_pipeline.tensors.splits import Split
from imaging_pipeline.tensors.versions import DatasetVersion, Member

if TYPE_CHECKING:
    from imaging_pipeline.pneumonia.model_card import Subgroups
    from imaging_pipeline.pneumonia.training import EpochReport
    from imaging_pipeline.tensors.dataset import ShardDataset
    from imaging_pipeline.tensors.recipe import Recipe

CODE_VERSION = "2"
"""Raise it when the same dataset and configuration would give another model, or another record of it."""

EXAMPLES_SHOWN = 12

TRAINING_TAG = "training_digest"


@dataclass(frozen=True, slots=True)
class Learned:
    """The model of a dataset version.

    Attributes:
        model: the registered version.
        metrics: metrics on the test side, by name.
        figures: plots as PNG by file name.
        is_new: trained by this call; else the same training was found.
        is_champion: the version predictions are made with.
    """

    model: RegisteredModel
    metrics: Mapping[str, float]
    figures: Mapping[str, bytes]
    is_new: bool
    is_champion: bool


def learn(
    dataset: DatasetVersion,
    tracker: ModelTracker,
    config: TrainingConfig,
    *,
    recipe: Recipe,
    subgroups: Subgroups,
    tags: Mapping[str, str],
    progress: Callable[[EpochReport], None] | None = None,
) -> Learned:
    """Train on a dataset version, evaluate on its test side, register, and promote if it is no worse.

    The same dataset, configuration and code are trained once: the registered version is found again.

    Args:
        dataset: the images and their labels.
        tracker: the model store.
        config: how to train.
        recipe: how the dataset's images were made; recorded with the model.
        subgroups: the evaluation is also made over each of these.
        tags: kept with the run and the registered version.
        progress: is told of each epoch.

    Raises:
        ConfigurationError: a side of the split has no image, or training has only one class.
        TransientError: the model store is busy.
    """
    digest = training_digest(dataset, config)
    found = tracker.find(TRAINING_TAG, digest)
    if found is not None:
        is_champion = _promote_if_better(tracker, found)
        return Learned(found, tracker.metrics(found), tracker.figures(found), is_new=False, is_champion=is_champion)
    _require_sides(dataset)
    tags = dict(tags) | {TRAINING_TAG: digest, "code_version": imaging_pipeline.__version__}
    model, figures = _train(dataset, tracker, config, recipe, subgroups, tags, progress)
    is_champion = _promote_if_better(tracker, model)
    return Learned(model, tracker.metrics(model), figures, is_new=True, is_champion=is_champion)


def training_digest(dataset: DatasetVersion, config: TrainingConfig) -> str:
    """Digest of everything a training depends on."""
    parts = {"dataset": dataset.manifest_sha256, "config": config.to_dict(), "code": CODE_VERSION}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _train(
    dataset: DatasetVersion,
    tracker: ModelTracker,
    config: TrainingConfig,
    recipe: Recipe,
    subgroups: Subgroups,
    tags: Mapping[str, str],
    progress: Callable[[EpochReport], None] | None,
) -> tuple[RegisteredModel, Mapping[str, bytes]]:
    from imaging_pipeline.pneumonia.evaluation import evaluate  # noqa: PLC0415 - torch and sklearn load slowly
    from imaging_pipeline.pneumonia.plots import report_figures  # noqa: PLC0415
    from imaging_pipeline.pneumonia.training import train  # noqa: PLC0415

    test = dataset.side(Split.TEST)
    test_images = _images(test)
    trained = train(_images(dataset.side(Split.TRAIN)), _images(dataset.side(Split.VAL)), config, progress=progress)
    scores = trained.score(test_images)
    labels = [member.label for member in test]
    evaluation = evaluate(scores, labels, [member.patient for member in test], trained.threshold, seed=config.seed)
    figures = report_figures(
        trained.history,
        trained.best_epoch,
        evaluation=evaluation,
        scores=scores,
        labels=labels,
        examples=np.stack([test_images[index][0].numpy() for index in range(min(EXAMPLES_SHOWN, len(test)))]),
    )
    by_subgroup = evaluations_by_subgroup(test, scores, evaluation, subgroups, config.seed)
    card = model_card(dataset, recipe, trained, by_subgroup)
    return tracker.log_training_run(trained, evaluation, figures, _info(dataset), tags, card), figures


def _info(dataset: DatasetVersion) -> DatasetInfo:
    return DatasetInfo(
        name=dataset.dataset_id,
        version=dataset.version,
        digest=dataset.manifest_sha256,
        snapshot=str(dataset.snapshot_id),
        members={name: images for name, _, images, _ in dataset.counts()},
        source_uri=f"ducklake:research?snapshot={dataset.snapshot_id}",
    )


def _promote_if_better(tracker: ModelTracker, model: RegisteredModel) -> bool:
    """A challenger becomes champion when its test AUROC is not below the champion's."""
    champion = tracker.champion()
    if champion is not None and champion.version == model.version:
        return True
    if champion is not None:
        challenge = tracker.metrics(model).get("test_auroc", math.nan)
        if not challenge >= tracker.metrics(champion).get("test_auroc", 0.0):  # also when it is not defined
            return False
    tracker.promote(model.version)
    return True


def _require_sides(dataset: DatasetVersion) -> None:
    for name, _, images, positive in dataset.counts():
        if not images:
            raise ConfigurationError(f"the {name} side of dataset {dataset.version} is empty: more patients are needed")
        if name == Split.TRAIN and positive in (0, images):
            raise ConfigurationError("the training images have one class only: label both kinds")


def _images(members: Sequence[Member]) -> ShardDataset:
    from imaging_pipeline.tensors.dataset import Sample, ShardDataset  # noqa: PLC0415 - imports torch

    return ShardDataset([Sample(member.shard, member.row, member.label) for member in members])
