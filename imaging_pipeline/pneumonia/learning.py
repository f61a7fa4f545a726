"""A dataset version → a trained, evaluated and registered model. Opens the research side only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import imaging_pipeline
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pneumonia.alarms import Alarm
from imaging_pipeline.pneumonia.config import COLLECTION, TrainingConfig
from imaging_pipeline.pneumonia.facts import ImageFacts
from imaging_pipeline.pneumonia.gate import Contender, Decision, JudgedImages, decide, decide_first
from imaging_pipeline.pneumonia.report import report_of
from imaging_pipeline.pneumonia.tracking import DatasetInfo, ModelTracker, RegisteredModel
from imaging_pipeline.tensors.shards import ShardReader
from imaging_pipeline.tensors.splits import Split
from imaging_pipeline.tensors.storage import open_shard
from imaging_pipeline.tensors.versions import DatasetVersion, Member

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imaging_pipeline.pneumonia.training import EpochReport
    from imaging_pipeline.tensors.dataset import ImageDataset
    from imaging_pipeline.tensors.recipe import Recipe

CODE_VERSION = "6"
"""Raise it when the same dataset and configuration would give another model, or another record of it."""

TRAINING_TAG = "training_digest"

WEIGHTS_TAG = "pretrained_sha256"

STAYS = Decision(is_promoted=True, reasons=("it is the champion",))
"""Of the champion itself; what was once decided of it stays with it."""


@dataclass(frozen=True, slots=True)
class Material:
    """What a model is learned from and judged by.

    Attributes:
        dataset: the images and their labels.
        recipe: how they were made.
        facts: what else is known of each image, by instance key; of external ones, too.
        external: other datasets on which the model is evaluated; images of patients it has seen are left out.
        lung_masks: bool (H, W) by instance key, of test images, for the audit of the heat maps.
        open_shard: opens a shard by its URI; picklable, where several processes train.
    """

    dataset: DatasetVersion
    recipe: Recipe
    facts: Mapping[str, ImageFacts]
    external: Sequence[DatasetVersion] = ()
    lung_masks: Mapping[str, NDArray[np.bool_]] | None = None
    open_shard: Callable[[str], ShardReader] = open_shard

    def images(self, members: Sequence[Member]) -> ImageDataset:
        """The images and labels of some members, for torch."""
        from imaging_pipeline.tensors.dataset import ImageDataset  # noqa: PLC0415 - imports torch

        return ImageDataset(members, open_shard=self.open_shard)


@dataclass(frozen=True, slots=True)
class Learned:
    """The model of a dataset version.

    Attributes:
        model: the registered version.
        metrics: metrics on the test side, by name.
        figures: plots as PNG by file name.
        alarms: what was found of shortcuts.
        decision: of the promotion gate.
        report: for people, Markdown.
        is_new: trained by this call; else the same training was found.
        is_champion: the version predictions are made with.
    """

    model: RegisteredModel
    metrics: Mapping[str, float]
    figures: Mapping[str, bytes]
    alarms: Sequence[Alarm]
    decision: Decision
    report: str
    is_new: bool
    is_champion: bool


def learn(
    material: Material,
    tracker: ModelTracker,
    config: TrainingConfig,
    *,
    tags: Mapping[str, str],
    checkpoints: Path | None = None,
    progress: Callable[[EpochReport], None] | None = None,
) -> Learned:
    """Train on a dataset version, evaluate on its test side, register, and promote if the gate lets it through.

    The same dataset, configuration and code are trained once: the registered version is found again, and judged anew
    by the gate, since champion and rules may be others.

    Args:
        material: what it is learned from and judged by.
        tracker: the model store.
        config: how to train.
        tags: kept with the run and the registered version.
        checkpoints: folder in which a training that is killed leaves its state; None: it starts anew.
        progress: is told of each epoch.

    Raises:
        ConfigurationError: a side of the split has no image, or training has only one class.
        TransientError: the model store is busy.
    """
    dataset = material.dataset
    digest = training_digest(dataset, config)
    model = tracker.find(TRAINING_TAG, digest)
    is_new = model is None or not tracker.card(model)  # a version without its record cannot be judged
    if model is None or is_new:
        _require_sides(dataset)
        tags = dict(tags) | {TRAINING_TAG: digest, "code_version": imaging_pipeline.__version__}
        model = _train(material, tracker, config, tags, checkpoints, progress)
    card = tracker.card(model)
    alarms = [Alarm.from_dict(each) for each in card["alarms"]]
    is_champion = tracker.champion() == model
    decision = STAYS if is_champion else _decide(material, tracker, model, alarms, config)
    report = report_of(card, decision)
    if not is_champion:
        tracker.decide(model, decision, report)
    return Learned(
        model,
        tracker.metrics(model),
        tracker.figures(model),
        alarms,
        decision,
        report,
        is_new=is_new,
        is_champion=decision.is_promoted,
    )


def training_digest(dataset: DatasetVersion, config: TrainingConfig) -> str:
    """Digest of everything a training depends on; what becomes of the model afterwards is not part of it."""
    settings = config.to_dict() | {"weights_path": _digest_of(config.weights_path)}
    del settings["promotion"]
    parts = {"dataset": dataset.manifest_sha256, "config": settings, "code": CODE_VERSION}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _train(
    material: Material,
    tracker: ModelTracker,
    config: TrainingConfig,
    tags: Mapping[str, str],
    checkpoints: Path | None,
    progress: Callable[[EpochReport], None] | None,
) -> RegisteredModel:
    from imaging_pipeline.pneumonia.checkpoint import Checkpoint  # noqa: PLC0415 - these load torch
    from imaging_pipeline.pneumonia.examination import examine, knowing_films  # noqa: PLC0415
    from imaging_pipeline.pneumonia.training import train  # noqa: PLC0415

    dataset, digest = material.dataset, tags[TRAINING_TAG]
    checkpoint = Checkpoint(checkpoints / f"{digest}.pt", digest) if checkpoints else None
    if weights := _digest_of(config.weights_path):
        tags = dict(tags) | {WEIGHTS_TAG: weights}
    with tracker.training_run(_info(dataset), tags, TRAINING_TAG) as run_id:
        train_set, val_set = (material.images(dataset.side(side)) for side in (Split.TRAIN, Split.VAL))
        sources = _sources(material, Split.TRAIN, config.equal_sources) if config.equal_sources else None

        def note(report: EpochReport) -> None:
            tracker.note_epochs(run_id, [report])
            if progress:
                progress(report)

        trained = train(train_set, val_set, config, sources=sources, checkpoint=checkpoint, progress=note)
        collections = (_sources(material, Split.TRAIN, COLLECTION), _sources(material, Split.VAL, COLLECTION))
        trained = knowing_films(trained, train_set, val_set, collections)
        found = examine(material, trained)
        model = tracker.record(run_id, trained, found.evaluation, found.figures, _info(dataset), tags, found.card)
    if checkpoint:
        checkpoint.remove()
    return model


def _decide(
    material: Material, tracker: ModelTracker, model: RegisteredModel, alarms: Sequence[Alarm], config: TrainingConfig
) -> Decision:
    """What the gate says of a registered model, against the champion on the same test images."""
    rules, champion = config.promotion, tracker.champion()
    if champion is None:
        unanswered = int(tracker.metrics(model).get("test_images_refused", 0))
        return decide_first(alarms, rules, unanswered, len(material.dataset.side(Split.TEST)))
    members = material.dataset.side(Split.TEST)
    images = JudgedImages(
        labels=np.array([member.label > 0 for member in members]),
        patients=[member.patient for member in members],
        groups=[_facts(material, member).groups for member in members],
    )
    old, new = (_contender(material, tracker, each) for each in (champion, model))
    return decide(old, new, images, alarms, rules, config.seed)


def _contender(material: Material, tracker: ModelTracker, model: RegisteredModel) -> Contender:
    from imaging_pipeline.pneumonia.examination import answers_of  # noqa: PLC0415 - these load torch
    from imaging_pipeline.pneumonia.memory import ImageMemory  # noqa: PLC0415
    from imaging_pipeline.pneumonia.network import pick_device, restore_network  # noqa: PLC0415

    stored = tracker.load(model)
    network = restore_network(stored.config, stored.state_dict).to(pick_device(stored.config.device))
    images = ImageMemory(material.images(material.dataset.side(Split.TEST)), stored.config)
    return Contender(answers_of(network, images, with_uncertainty=False).probabilities, stored.threshold)


def _facts(material: Material, member: Member) -> ImageFacts:
    return material.facts.get(member.instance_key, ImageFacts())


def _sources(material: Material, side: Split, attribute: str) -> list[str]:
    """Where each image of a side comes from; the unknown are a source of their own."""
    members = material.dataset.side(side)
    return [_facts(material, member).sources.get(attribute, "") for member in members]


def _digest_of(weights_path: str | None) -> str | None:
    """SHA-256 of a file of weights.

    Raises:
        ConfigurationError: it cannot be read.
    """
    if weights_path is None:
        return None
    try:
        with Path(weights_path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigurationError(f"weights_path cannot be read ({type(error).__name__})") from None


def _info(dataset: DatasetVersion) -> DatasetInfo:
    return DatasetInfo(
        name=dataset.dataset_id,
        version=dataset.version,
        digest=dataset.manifest_sha256,
        snapshot=str(dataset.snapshot_id),
        members={name: images for name, _, images, _ in dataset.counts()},
        source_uri=f"ducklake:research?snapshot={dataset.snapshot_id}",
    )


def _require_sides(dataset: DatasetVersion) -> None:
    for name, _, images, positive in dataset.counts():
        if not images:
            raise ConfigurationError(f"the {name} side of dataset {dataset.version} is empty: more patients are needed")
        if name == Split.TRAIN and positive in (0, images):
            raise ConfigurationError("the training images have one class only: label both kinds")
