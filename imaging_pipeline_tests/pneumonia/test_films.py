"""What is a chest film to a model that was trained on chest films: phantoms, and real ones where they are there."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file
from sklearn.datasets import load_sample_images

from imaging_pipeline.dicom.pixels import decode_frame
from imaging_pipeline.pneumonia.config import Device, TrainingConfig
from imaging_pipeline.pneumonia.evaluation import auroc
from imaging_pipeline.pneumonia.examination import answers_of, knowing_films
from imaging_pipeline.pneumonia.memory import ImageMemory
from imaging_pipeline.pneumonia.network import PneumoniaNetwork
from imaging_pipeline.pneumonia.prediction import answer
from imaging_pipeline.pneumonia.training import train
from imaging_pipeline.samples.phantoms import make_image, plan_patient
from imaging_pipeline.tensors.images import fitted, image_tensor
from imaging_pipeline.tensors.recipe import load_recipe

pytestmark = pytest.mark.slow

RECIPE = load_recipe("chest-xray-224")
CONFIG = TrainingConfig(image_size=64, epochs=3, device=Device.CPU)
REAL = Path(__file__).parents[3] / "shared" / "data" / "cxr"
SLICES = ("CT_small.dcm", "MR_small.dcm", "693_J2KR.dcm", "emri_small.dcm", "color-px.dcm")


class Films:
    """Levels uint8 (N, 1, 224, 224) with labels, as a dataset for torch."""

    def __init__(self, images: list[np.ndarray[Any, Any]], labels: list[float]) -> None:
        self.images, self.labels = np.stack(images), labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, float]:
        return torch.from_numpy(self.images[index].astype(np.float32) / 255), self.labels[index]


def phantoms(first: int, count: int) -> Films:
    made = []
    number = first
    while len(made) < count:
        made += [make_image(plan) for plan in plan_patient(7, number, 128)]
        number += 1
    chosen = made[:count]
    return Films(
        [image_tensor(decode_frame(film.content), RECIPE) for film in chosen],
        [float(bool(film.boxes)) for film in chosen],
    )


def real_films(split: str, source: str, count: int) -> Films:
    """The first films of a source by their digest, which is as good as any chance."""
    with (REAL / "labels.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["source"] == source and row["official_split"] == split]
    chosen = sorted(rows, key=lambda row: row["sha256"])[:count]
    images = [picture(Image.open(REAL / row["file"])) for row in chosen]
    return Films(images, [float(row["pneumonia"]) for row in chosen])


def picture(image: Image.Image) -> np.ndarray[Any, Any]:
    return fitted(np.asarray(image.convert("L"))[np.newaxis], RECIPE)


def strange() -> dict[str, np.ndarray[Any, Any]]:
    """What is no chest film: levels (N, 1, 224, 224) by kind. One that is upside down or a negative is one, still."""
    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(each) for each in load_sample_images().images]
    photographs.append(Image.open(Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg"))
    parts = [each.crop((x, y, x + 300, y + 300)) for each in photographs for x in (0, 150) for y in (0, 100)]
    paths = [path for name in SLICES if isinstance(path := get_testdata_file(name), str)]
    return {
        "photographs": np.stack([picture(each) for each in (*photographs, *parts)]),
        "slices": np.stack([image_tensor(decode_frame(Path(path).read_bytes()), RECIPE) for path in paths]),
        "noise": rng.integers(0, 256, (10, 1, 224, 224), dtype=np.uint8),
        "plain": np.stack([np.full((1, 224, 224), level, np.uint8) for level in (0, 90, 255)]),
    }


def refused(network: PneumoniaNetwork, levels: np.ndarray[Any, Any]) -> float:
    """The part of images that get no answer."""
    images = torch.from_numpy(levels.astype(np.float32) / 255)
    size = (network.image_size, network.image_size)
    small = torch.nn.functional.interpolate(images, size=size, mode="bilinear", antialias=True)
    return float(np.isnan(answer(network, small, with_uncertainty=False).probabilities).mean())


def check(train_set: Films, validation_set: Films, unseen: Films) -> tuple[PneumoniaNetwork, dict[str, float]]:
    network = knowing_films(train(train_set, validation_set, CONFIG), train_set, validation_set).network()
    shares = {name: refused(network, levels) for name, levels in strange().items()}
    return network, shares | {"unseen films": refused(network, unseen.images)}


def test_a_model_of_phantoms_answers_phantoms_and_nothing_else() -> None:
    _, shares = check(phantoms(0, 200), phantoms(1000, 110), phantoms(2000, 100))
    assert shares.pop("unseen films") <= 0.05
    assert all(share >= 0.9 for share in shares.values()), shares


@pytest.mark.skipif(not REAL.is_dir(), reason="the collection of real films is not here")
def test_a_model_of_real_films_answers_other_films_of_their_kind_and_nothing_else() -> None:
    learnt = real_films("train", "kermany", 1200)
    train_set = Films(list(learnt.images[:1000]), learnt.labels[:1000])
    validation_set = Films(list(learnt.images[1000:]), learnt.labels[1000:])
    unseen = real_films("test", "kermany", 400)
    network, shares = check(train_set, validation_set, unseen)
    assert shares.pop("unseen films") <= 0.05
    assert all(share >= 0.9 for share in shares.values()), shares
    said = answers_of(network, ImageMemory(unseen, CONFIG))
    answered = np.isfinite(said.probabilities)
    is_wrong = (said.probabilities >= 0.5) != (np.array(unseen.labels) > 0)
    area = auroc(said.uncertainties[answered], is_wrong[answered])
    assert area is not None
    assert area > 0.65, "wrong answers are less certain"
