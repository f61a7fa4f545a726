"""Tests of training and of the operating point."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pneumonia.augmentation import augment, draw_changes
from imaging_pipeline.pneumonia.balance import BalancedLoss
from imaging_pipeline.pneumonia.config import Balance, Device, TrainingConfig
from imaging_pipeline.pneumonia.evaluation import auroc
from imaging_pipeline.pneumonia.training import EpochReport, TrainedNetwork, train
from imaging_pipeline_tests.pneumonia.images import BrightSpots

SHORT = TrainingConfig(image_size=32, epochs=2, batch_size=12, device=Device.CPU, seed=3)


@pytest.fixture(scope="module")
def learnt() -> TrainedNetwork:
    config = TrainingConfig(image_size=32, epochs=6, batch_size=16, device=Device.CPU)
    return train(BrightSpots(64, seed=1), BrightSpots(24, seed=2), config)


def test_a_visible_finding_is_learnt_and_found_on_unseen_images(learnt: TrainedNetwork) -> None:
    unseen = BrightSpots(48, seed=9)
    area = auroc(learnt.score(unseen), unseen.labels)
    assert area is not None
    assert area > 0.9


def test_the_kept_epoch_is_the_best_on_the_validation_set(learnt: TrainedNetwork) -> None:
    areas = [report.validation_auroc or 0.0 for report in learnt.history]
    assert areas[learnt.best_epoch - 1] == max(areas)
    validation = BrightSpots(24, seed=2)
    assert auroc(learnt.score(validation), validation.labels) == pytest.approx(max(areas))


def test_the_threshold_reaches_the_target_on_the_validation_set(learnt: TrainedNetwork) -> None:
    validation = BrightSpots(24, seed=2)
    found = learnt.score(validation)[np.array(validation.labels) == 1] >= learnt.threshold
    assert found.mean() >= learnt.config.target_sensitivity


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, again = (train(BrightSpots(24, seed=1), BrightSpots(8, seed=2), SHORT) for _ in range(2))
    other_config = TrainingConfig.from_dict(SHORT.to_dict() | {"seed": 4})
    other = train(BrightSpots(24, seed=1), BrightSpots(8, seed=2), other_config)
    assert all(torch.equal(first.state_dict[name], again.state_dict[name]) for name in first.state_dict)
    assert first.threshold == again.threshold
    assert not torch.equal(first.state_dict["backbone.conv1.weight"], other.state_dict["backbone.conv1.weight"])


def test_images_read_anew_each_epoch_give_the_same_weights_as_images_in_memory() -> None:
    streaming = TrainingConfig.from_dict(SHORT.to_dict() | {"cache_bytes": 0})
    kept, read = (train(BrightSpots(16, seed=1), BrightSpots(8, seed=2), config) for config in (SHORT, streaming))
    assert all(torch.equal(kept.state_dict[name], read.state_dict[name]) for name in kept.state_dict)


def test_the_callers_random_state_is_left_alone_and_progress_is_reported() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    seen: list[EpochReport] = []
    trained = train(BrightSpots(8, seed=1), BrightSpots(4, seed=2), SHORT, progress=seen.append)
    assert torch.equal(torch.rand(3), expected)
    assert tuple(seen) == trained.history
    assert [report.epoch for report in seen] == [1, 2]


def test_training_stops_when_validation_no_longer_improves() -> None:
    config = TrainingConfig.from_dict(SHORT.to_dict() | {"epochs": 30, "patience": 1, "learning_rate": 1e-7})
    trained = train(BrightSpots(8, seed=1), BrightSpots(6, seed=2), config)
    assert len(trained.history) < 30
    assert len(trained.history) - trained.best_epoch == 1


def test_every_source_is_drawn_equally_often_with_both_classes() -> None:
    labels = torch.tensor([1.0] * 60 + [0.0] * 20 + [1.0] * 5 + [0.0] * 15)
    sources = ["large"] * 80 + ["small"] * 20
    loss = BalancedLoss(labels, Balance.SAMPLER, sources)
    many = torch.cat([loss.order(torch.Generator().manual_seed(n)) for n in range(60)])
    assert len(many) == 60 * len(labels)
    assert float(labels[many].mean()) == pytest.approx(0.5, abs=0.03)
    assert float((many >= 80).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float(labels[many[many >= 80]].mean()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("balance", Balance)
def test_scores_stay_probabilities_when_one_class_is_rare(balance: Balance) -> None:
    rare = BrightSpots(40, seed=5, part_positive=0.1)
    config = TrainingConfig.from_dict(SHORT.to_dict() | {"epochs": 4, "batch_size": 10, "balance": str(balance)})
    assert train(rare, rare, config).score(rare).mean() < 0.3


@pytest.mark.parametrize(
    ("train_count", "part_positive", "validation_count"), [(8, 0.0, 4), (8, 1.0, 4), (0, 0.5, 4), (8, 0.5, 0)]
)
def test_sets_that_cannot_be_learnt_from_are_refused(
    train_count: int, part_positive: float, validation_count: int
) -> None:
    with pytest.raises(ConfigurationError, match="set"):
        train(BrightSpots(train_count, 1, part_positive=part_positive), BrightSpots(validation_count, 2), SHORT)


def test_a_missing_label_is_refused() -> None:
    images = BrightSpots(8, seed=1)
    images.labels[3] = -1
    with pytest.raises(ConfigurationError, match="label"):
        train(images, BrightSpots(4, seed=2), SHORT)


def test_a_validation_set_of_one_class_still_trains_with_the_default_threshold() -> None:
    trained = train(BrightSpots(8, seed=1), BrightSpots(4, seed=2, part_positive=0.0), SHORT)
    assert trained.threshold == 0.5
    assert "default" in trained.threshold_note
    assert all(report.validation_auroc is None for report in trained.history)


def augmented(images: torch.Tensor, config: TrainingConfig) -> torch.Tensor:
    return augment(images, draw_changes(len(images), config, torch.Generator().manual_seed(0)))


def test_augmentation_moves_and_exposes_every_image_anew_within_the_range() -> None:
    images = torch.from_numpy(BrightSpots(6, seed=1).images)
    changed = augmented(images, TrainingConfig())
    again = augmented(images, TrainingConfig())
    assert changed.shape == images.shape
    assert 0 <= changed.min() <= changed.max() <= 1
    assert torch.equal(changed, again)
    assert all((changed[index] - images[index]).abs().mean() > 0.01 for index in range(6))


def test_augmentation_without_limits_changes_nothing_and_never_mirrors() -> None:
    still = TrainingConfig(rotation_degrees=0, translation=0, scaling=0, brightness=0, contrast=0)
    images = torch.from_numpy(BrightSpots(6, seed=1).images)
    assert torch.allclose(augmented(images, still), images, atol=1e-5)


def test_augmentation_stretches_films_and_bends_their_grey_values_when_asked() -> None:
    still = {"rotation_degrees": 0.0, "translation": 0.0, "scaling": 0.0, "brightness": 0.0, "contrast": 0.0}
    disc = (torch.linspace(-1, 1, 64)[:, None] ** 2 + torch.linspace(-1, 1, 64)[None] ** 2 < 0.25).float()
    changed = augmented(disc.expand(200, 1, -1, -1), TrainingConfig(**still, aspect=0.5))[:, 0] > 0.5
    ratio = changed.any(dim=1).sum(dim=1) / changed.any(dim=2).sum(dim=1)  # width over height
    assert 1 / 1.6 < ratio.min() < 0.75
    assert 1.33 < ratio.max() < 1.6
    assert changed.sum(dim=(1, 2)).float().std() / disc.sum() < 0.05, "the area stays"

    grey = augmented(torch.full((200, 1, 8, 8), 0.5), TrainingConfig(**still, gamma=1.0))[:, 0, 4, 4]
    assert 0.5**2 <= grey.min() < 0.3
    assert 0.65 < grey.max() <= 0.5**0.5 + 1e-6


def test_augmentation_mirrors_when_asked() -> None:
    mirroring = TrainingConfig(
        rotation_degrees=0, translation=0, scaling=0, brightness=0, contrast=0, horizontal_flip=True
    )
    image = torch.from_numpy(BrightSpots(1, seed=1).images)
    changed = augmented(image.expand(32, -1, -1, -1), mirroring)
    mirrored = [torch.allclose(each, image[0].flip(-1), atol=1e-5) for each in changed]
    kept = [torch.allclose(each, image[0], atol=1e-5) for each in changed]
    assert 0 < sum(mirrored) < 32
    assert sum(mirrored) + sum(kept) == 32
