"""Tests of trainings that are killed, and of several processes that train together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from imaging_pipeline.pneumonia.checkpoint import Checkpoint
from imaging_pipeline.pneumonia.config import Device, Schedule, TrainingConfig
from imaging_pipeline.pneumonia.evaluation import auroc
from imaging_pipeline.pneumonia.training import EpochReport, TrainedNetwork, train
from imaging_pipeline_tests.pneumonia.images import BrightSpots

CONFIG = TrainingConfig(
    architecture="shufflenet_v2_x0_5",
    image_size=32,
    epochs=3,
    batch_size=8,
    device=Device.CPU,
    schedule=Schedule.COSINE,
    learning_rate=3e-3,
)
KILLED = f"""
import os, signal, sys
from pathlib import Path
import torch
from imaging_pipeline.pneumonia.checkpoint import Checkpoint
from imaging_pipeline.pneumonia.config import TrainingConfig
from imaging_pipeline.pneumonia.training import train
from imaging_pipeline_tests.pneumonia.images import BrightSpots
torch.set_num_threads(1)
def kill(report):
    if report.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
config = TrainingConfig.from_dict({CONFIG.to_dict()!r})
train(BrightSpots(24, 1), BrightSpots(8, 2), config, checkpoint=Checkpoint(Path(sys.argv[1]), "a"), progress=kill)
"""


def trained(checkpoint: Checkpoint | None = None, seen: list[EpochReport] | None = None) -> TrainedNetwork:
    progress = None if seen is None else seen.append
    return train(BrightSpots(24, 1), BrightSpots(8, 2), CONFIG, checkpoint=checkpoint, progress=progress)


def same(left: TrainedNetwork, right: TrainedNetwork) -> bool:
    weights = (torch.equal(left.state_dict[name], right.state_dict[name]) for name in left.state_dict)
    return all(weights) and (left.threshold, left.best_epoch) == (right.threshold, right.best_epoch)


@pytest.fixture(scope="module")
def whole() -> TrainedNetwork:
    return trained()


def test_a_training_killed_between_epochs_goes_on_and_comes_to_the_same_weights(
    tmp_path: Path, whole: TrainedNetwork
) -> None:
    path = tmp_path / "new" / "checkpoint.pt"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    seen: list[EpochReport] = []
    resumed = trained(Checkpoint(path, "a"), seen)
    assert [report.epoch for report in seen] == [1, 2, 3]
    assert same(resumed, whole)
    assert {report.epoch: report.train_loss for report in whole.history} == {r.epoch: r.train_loss for r in seen}


def test_a_finished_training_is_not_trained_again_and_one_of_other_data_starts_anew(
    tmp_path: Path, whole: TrainedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "a")
    assert same(trained(checkpoint), whole)
    assert same(trained(Checkpoint(checkpoint.path, "b")), whole)
    checkpoint = Checkpoint(checkpoint.path, "b")
    monkeypatch.setattr(torch.optim.AdamW, "step", None)
    assert same(trained(checkpoint), whole), "no step was needed"
    checkpoint.remove()
    checkpoint.remove()
    with pytest.raises(TypeError):
        trained(checkpoint)


def test_a_checkpoint_half_written_is_not_there(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "a")
    checkpoint.save({"best": 1})
    with pytest.raises(AttributeError):
        checkpoint.save({"best": lambda: None})
    assert checkpoint.load() == {"best": 1}


def test_two_processes_learn_what_one_learns() -> None:
    config = TrainingConfig(image_size=32, epochs=6, batch_size=16, device=Device.CPU, processes=2)
    seen: list[EpochReport] = []
    together = train(BrightSpots(64, 1), BrightSpots(24, 2), config, progress=seen.append)
    unseen = BrightSpots(48, 9)
    area = auroc(together.score(unseen), unseen.labels)
    assert area is not None
    assert area > 0.9
    assert seen[-1].train_loss < seen[0].train_loss
    assert not torch.distributed.is_initialized()
