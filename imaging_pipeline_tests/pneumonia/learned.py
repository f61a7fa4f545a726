"""A small dataset version with its shard, and a model learnt from it, as the steps before prediction leave them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imaging_pipeline.objects.folder import path_to_uri
from imaging_pipeline.pneumonia.config import Device, TrainingConfig
from imaging_pipeline.pneumonia.facts import ImageFacts
from imaging_pipeline.pneumonia.learning import Learned, Material, learn
from imaging_pipeline.pneumonia.tracking import ModelTracker
from imaging_pipeline.tensors.build import TensorSource, build_tensor
from imaging_pipeline.tensors.recipe import Recipe
from imaging_pipeline.tensors.shards import ShardInfo, TensorRow, write_shard
from imaging_pipeline.tensors.splits import Split
from imaging_pipeline.tensors.versions import DatasetVersion, Member
from imaging_pipeline_tests.dicom.images import image
from imaging_pipeline_tests.pneumonia.images import BrightSpots
from imaging_pipeline_tests.tensors.rows import small_recipe

COUNT = 24
COPY = COUNT
"""Position of an image that is the same as the first one, of another instance."""

SUBGROUPS = {f"instance-{n}": {"sex": "FM"[n // 2 % 2]} | ({"view": "AP"} if n % 3 else {}) for n in range(COUNT)}


@dataclass(frozen=True)
class LearnedModel:
    """A registered model, what it was learnt from, and the store it lies in."""

    tracker: ModelTracker
    learned: Learned
    dataset: DatasetVersion
    recipe: Recipe
    shard: ShardInfo
    rows: list[TensorRow]

    def learn_again(self) -> Learned:
        return learn_from(self.dataset, self.tracker, self.recipe)


def learn_from(dataset: DatasetVersion, tracker: ModelTracker, recipe: Recipe) -> Learned:
    config = TrainingConfig(image_size=32, epochs=1, batch_size=8, device=Device.CPU)
    facts = {key: ImageFacts(groups=groups) for key, groups in SUBGROUPS.items()}
    return learn(Material(dataset, recipe, facts), tracker, config, tags={"dagster/run_id": "a-run"})


def learn_in(folder: Path, count: int = COUNT) -> LearnedModel:
    recipe = small_recipe(size=32)
    spots = BrightSpots(count, seed=5)
    order = np.random.default_rng(5).permutation(count)  # both classes on every side
    pixels = np.round(spots.images[order, 0] * 255).astype(np.uint8)
    labels = [spots.labels[position] for position in order]
    made = [_tensor(number, pixels[number % count], recipe) for number in range(count + 1)]
    shard = write_shard(folder / "shard.arrow", made, recipe)
    members = tuple(
        Member(
            tensor_key=row.tensor_key,
            instance_key=row.instance_key,
            patient=row.patient_id,
            split=(Split.TRAIN, Split.VAL, Split.TEST)[number // 2 % 3],
            label_key=row.instance_key,
            label=float(labels[number]),
            tensor_sha256=row.tensor_sha256,
            shard=path_to_uri(shard.path),
            row=number,
        )
        for number, row in enumerate(made[:count])
    )
    dataset = DatasetVersion("pneumonia-chest", "abcdef", "ab" * 32, 7, members, is_new=True)
    tracker = ModelTracker(f"sqlite:///{folder}/mlflow.db", folder / "artifacts", "pneumonia", "pneumonia")
    return LearnedModel(tracker, learn_from(dataset, tracker, recipe), dataset, recipe, shard, made)


def _tensor(number: int, pixels: np.ndarray, recipe: Recipe) -> TensorRow:
    source = TensorSource(f"instance-{number}", f"2.25.{number}", f"patient-{number // 2}")
    made = build_tensor(source, image(pixels, WindowCenter=127.5, WindowWidth=255), recipe)
    assert isinstance(made, TensorRow)
    return made
