"""Tests of what gets no answer, and of how sure an answer is."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from imaging_pipeline.pneumonia.config import Device, TrainingConfig
from imaging_pipeline.pneumonia.examination import knowing_films
from imaging_pipeline.pneumonia.network import PneumoniaNetwork, ProbabilityNetwork, restore_network
from imaging_pipeline.pneumonia.plausibility import FEWEST_TRAINING, FEWEST_VALIDATION, Plausibility, fit_plausibility
from imaging_pipeline.pneumonia.prediction import Flag, answer
from imaging_pipeline.pneumonia.training import TrainedNetwork, train
from imaging_pipeline_tests.pneumonia.images import SIZE, BrightSpots

CONFIG = TrainingConfig(
    architecture="shufflenet_v2_x0_5", image_size=SIZE, epochs=4, batch_size=16, learning_rate=3e-3, device=Device.CPU
)
UNSEEN = BrightSpots(200, seed=3)


@pytest.fixture(scope="module")
def trained() -> TrainedNetwork:
    sets = BrightSpots(160, seed=1), BrightSpots(100, seed=2)
    return knowing_films(train(*sets, CONFIG), *sets)


@pytest.fixture(scope="module")
def network(trained: TrainedNetwork) -> PneumoniaNetwork:
    return trained.network()


def strange_images() -> dict[str, np.ndarray[Any, Any]]:
    rng, ramp = np.random.default_rng(4), np.linspace(0, 1, SIZE, dtype=np.float32)
    scene = UNSEEN.images[:1, 0]
    shown = {
        "black": np.zeros((1, SIZE, SIZE)),
        "white": np.ones((1, SIZE, SIZE)),
        "a ramp": np.tile(ramp, (1, SIZE, 1)),
        "strong noise": rng.uniform(0, 1, (1, SIZE, SIZE)),
        "stripes": np.tile(np.arange(SIZE) // 4 % 2, (1, SIZE, 1)),
        "a negative": 1 - scene,
        "half an image": np.where(np.arange(SIZE) < SIZE // 2, scene, 0),
    }
    return {name: each[:, np.newaxis].astype(np.float32) for name, each in shown.items()}


@pytest.mark.parametrize("name", sorted(strange_images()))
def test_what_is_unlike_the_training_films_gets_no_answer(network: PneumoniaNetwork, name: str) -> None:
    said = answer(network, torch.from_numpy(strange_images()[name]))
    assert said.implausibilities[0] > 1
    assert np.isnan(said.probabilities[0])
    assert np.isnan(said.uncertainties[0])
    assert said.flags(0.5) == [Flag.NO_ANSWER]
    assert np.isfinite(said.embeddings).all()


def test_hardly_any_unseen_film_is_refused(network: PneumoniaNetwork) -> None:
    said = answer(network, torch.from_numpy(UNSEEN.images))
    assert np.isnan(said.probabilities).mean() <= 0.04, "one in a hundred is meant"
    assert set(said.flags(0.5)) <= {Flag.POSITIVE, Flag.NEGATIVE, Flag.NO_ANSWER}
    answered = np.isfinite(said.probabilities)
    assert ((said.implausibilities <= 1) == answered).all()
    assert (said.uncertainties[answered] >= 0).all()


class Centre(nn.Module):
    """One logit from how bright the centre of an image is."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(1, 1)
        nn.init.constant_(self.last.weight, 10.0)
        nn.init.zeros_(self.last.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(images[:, :, 12:20, 12:20].mean(dim=(2, 3)))


def test_a_score_that_hangs_on_the_position_of_the_film_is_less_certain() -> None:
    network = PneumoniaNetwork(Centre(), TrainingConfig(image_size=SIZE), "last")
    images = torch.zeros(2, 1, SIZE, SIZE)
    images[0, :, 4:28, 4:28] = 1  # moved a little, it still fills the centre
    images[1, :, :, 16:] = 1  # its edge goes through the centre
    said = answer(network, images)
    assert said.probabilities == pytest.approx([1, 0.5], abs=1e-3)
    assert said.uncertainties[0] < 1e-3
    assert said.uncertainties[1] > 0.05
    assert said.uncertainties[1] == pytest.approx(answer(network, images[1:]).uncertainties[0], abs=1e-12)


def test_the_same_image_is_as_uncertain_among_others_and_at_another_time(network: PneumoniaNetwork) -> None:
    together = answer(network, torch.from_numpy(UNSEEN.images[:20]))
    alone = answer(network, torch.from_numpy(UNSEEN.images[7:8]))
    assert alone.uncertainties[0] == pytest.approx(together.uncertainties[7], abs=1e-6)
    assert alone.implausibilities[0] == pytest.approx(together.implausibilities[7], abs=1e-5)


def test_uncertainty_is_left_out_when_it_is_not_asked_for(network: PneumoniaNetwork) -> None:
    said = answer(network, torch.from_numpy(UNSEEN.images[:3]), with_uncertainty=False)
    assert np.isnan(said.uncertainties).all()
    assert np.isfinite(said.probabilities).any()


def test_the_stored_state_holds_what_films_look_like(trained: TrainedNetwork) -> None:
    again = restore_network(CONFIG, trained.state_dict)
    images = torch.from_numpy(UNSEEN.images)
    said, expected = answer(again, images), answer(trained.network(), images)
    assert np.array_equal(said.implausibilities, expected.implausibilities)
    earlier = {
        name.replace("plausibility.kinds.0.", "plausibility."): each for name, each in trained.state_dict.items()
    }
    assert earlier.keys() != trained.state_dict.keys()
    assert np.array_equal(answer(restore_network(CONFIG, earlier), images).implausibilities, said.implausibilities)
    without = {name: each for name, each in trained.state_dict.items() if not name.startswith("plausibility.")}
    unaware = answer(restore_network(CONFIG, without), images)
    assert np.isnan(unaware.implausibilities).all()
    assert np.isfinite(unaware.probabilities).all(), "a model of an earlier version answers everything"


def test_the_network_that_is_served_says_the_same(trained: TrainedNetwork, network: PneumoniaNetwork) -> None:
    images = torch.from_numpy(np.concatenate([UNSEEN.images[:40], *strange_images().values()]))
    served = ProbabilityNetwork(trained.network()).eval()
    with torch.inference_mode():
        said = served(images).numpy()
    assert said == pytest.approx(answer(network, images).probabilities, abs=1e-5, nan_ok=True)
    assert np.isnan(said).any()


def test_too_few_films_teach_nothing_about_what_a_film_is() -> None:
    def films(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        images = torch.from_numpy(BrightSpots(count, seed=count).images)
        return [(images, images.mean(dim=(2, 3)))]

    assert fit_plausibility(films(FEWEST_TRAINING - 1), films(FEWEST_VALIDATION)) is None
    assert fit_plausibility(films(FEWEST_TRAINING), films(FEWEST_VALIDATION - 1)) is None
    assert fit_plausibility(films(FEWEST_TRAINING), films(FEWEST_VALIDATION)) is not None
    few = train(BrightSpots(8, 1), BrightSpots(4, 2), dataclasses.replace(CONFIG, epochs=1))
    assert knowing_films(few, BrightSpots(8, 1), BrightSpots(4, 2)) == few


def test_a_small_collection_of_other_films_is_described_by_itself() -> None:
    def films(count: int, seed: int, *, is_dark: bool) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.from_numpy(BrightSpots(count, seed=seed).images) * (0.3 if is_dark else 1.0)
        return images, images.mean(dim=(2, 3))

    train = [films(900, 1, is_dark=False), films(100, 2, is_dark=True)]
    validation = [films(200, 3, is_dark=False), films(20, 4, is_dark=True)]
    names = [["bright"] * 900 + ["dark"] * 100, ["bright"] * 200 + ["dark"] * 20]
    unseen = films(200, 5, is_dark=True)
    together, apart = fit_plausibility(train, validation), fit_plausibility(train, validation, (names[0], names[1]))
    assert together is not None
    assert apart is not None
    refused_together, refused_apart = ((each(*unseen) > 1).float().mean().item() for each in (together, apart))
    assert refused_apart < 0.05
    assert refused_apart < refused_together
    assert (apart(*films(200, 6, is_dark=False)) > 1).float().mean() < 0.05
    assert (apart(1 - unseen[0], unseen[1]) > 1).all()
    again = Plausibility.restored(apart.state_dict())
    assert torch.equal(again(*unseen), apart(*unseen))


def test_films_are_described_the_same_way_however_they_are_batched() -> None:
    images = torch.from_numpy(BrightSpots(FEWEST_TRAINING + 20, seed=5).images)
    vectors = images.mean(dim=2).flatten(1)
    whole = [(images, vectors)]
    parts = list(zip(images.split(33), vectors.split(33), strict=True))
    first, second = fit_plausibility(whole, whole), fit_plausibility(parts, parts)
    assert first is not None
    assert second is not None
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
