"""Trains a network and fixes its operating point.

Owns the training loop, its schedule, early stopping and the choice of the threshold, all of which see the
training and validation sets only. Contains no evaluation on a test set, no storage and no tracking. Imports
torch at the top; import it lazily.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pneumonia.augmentation import augment
from imaging_pipeline.pneumonia.evaluation import auroc
from imaging_pipeline.pneumonia.memory import ImageMemory, LabelledImages
from imaging_pipeline.pneumonia.network import PneumoniaNetwork, build_network, pick_device, restore_network, score

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from imaging_pipeline.pneumonia.config import TrainingConfig

WARM_UP = 0.2
"""Part of the one-cycle schedule in which the learning rate rises."""
MAX_POSITIVE_WEIGHT = 50.0
"""Above this weight a handful of positives would drive every gradient."""
DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What one pass over the training set achieved.

    Attributes:
        epoch: counted from 1.
        train_loss: mean class-weighted cross-entropy over the augmented training images.
        validation_loss: mean unweighted cross-entropy over the validation images.
        validation_auroc: None when the validation set has one class only.
        learning_rate: at the end of the epoch.
        seconds: wall time of the epoch, validation included.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_auroc: float | None
    learning_rate: float
    seconds: float

    @property
    def rank(self) -> tuple[float, float]:
        """Orders epochs: by AUROC where defined, then by validation loss."""
        return (self.validation_auroc or 0.0, -self.validation_loss)

    def metrics(self) -> dict[str, float]:
        """The defined figures by name, without the epoch."""
        figures = {
            "train_loss": self.train_loss,
            "validation_loss": self.validation_loss,
            "validation_auroc": self.validation_auroc,
            "learning_rate": self.learning_rate,
            "epoch_seconds": self.seconds,
        }
        return {name: value for name, value in figures.items() if value is not None}


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """The weights of the best epoch, on the CPU, and how they came about.

    Attributes:
        state_dict: of a ``PneumoniaNetwork``.
        history: one report per epoch run.
        best_epoch: the epoch the weights are of.
        threshold: scores at or above it are called positive.
        threshold_note: how the threshold was fixed.
        config: what ``build_network`` needs to take the weights.
    """

    state_dict: dict[str, Tensor]
    history: tuple[EpochReport, ...]
    best_epoch: int
    threshold: float
    threshold_note: str
    config: TrainingConfig

    def score(self, images: LabelledImages) -> NDArray[np.float64]:
        """Probabilities (N,) of the images, in their order.

        Raises:
            ConfigurationError: there is no image, or a label is not 0 or 1.
        """
        network = restore_network(self.config, self.state_dict).to(pick_device(self.config.device))
        return _score_all(network, ImageMemory(images, self.config))


def train(
    train_set: LabelledImages,
    val_set: LabelledImages,
    config: TrainingConfig,
    *,
    progress: Callable[[EpochReport], None] | None = None,
) -> TrainedNetwork:
    """Trains on ``train_set``, picks epoch and threshold on ``val_set``.

    On the CPU the result depends on the data, the config and the number of torch threads only; torch's global
    generator is left as it was.

    Raises:
        ConfigurationError: a set is empty, a label is not 0 or 1, the training set lacks a class, or CUDA was
            asked for and is not there.
    """
    device = pick_device(config.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        return _Training(ImageMemory(train_set, config), ImageMemory(val_set, config), config, device).run(progress)


def choose_threshold(
    scores: NDArray[np.float64], labels: NDArray[np.bool_], target_sensitivity: float
) -> tuple[float, str]:
    """The highest operating point with at least ``target_sensitivity`` on these images, and a note about it.

    The threshold lies halfway to the next lower score, so that rounding in another process moves no image
    across it.
    """
    positives = np.sort(scores[labels])[::-1]
    if positives.size == 0:
        return DEFAULT_THRESHOLD, "default: the validation set has no positive image"
    lowest_found = positives[math.ceil(target_sensitivity * positives.size - 1e-9) - 1]
    below = scores[scores < lowest_found]
    threshold = (lowest_found + below.max()) / 2 if below.size else lowest_found
    return float(threshold), f"sensitivity of at least {target_sensitivity:g} on the validation set"


class _Training:
    """One run: a network, its optimiser and schedule, and the best state so far."""

    def __init__(
        self, images: ImageMemory, validation: ImageMemory, config: TrainingConfig, device: torch.device
    ) -> None:
        self._images, self._validation, self._config, self._device = images, validation, config, device
        self._generator = torch.Generator().manual_seed(config.seed)
        self._log_weight = math.log(_positive_weight(images.labels))
        self._steps = max(1, min(math.ceil(len(images) / config.batch_size), len(images) // 2))
        self._network = build_network(config).to(device)
        self._optimiser = torch.optim.AdamW(
            self._network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, config.learning_rate, epochs=config.epochs, steps_per_epoch=self._steps, pct_start=WARM_UP
        )

    def run(self, progress: Callable[[EpochReport], None] | None) -> TrainedNetwork:
        history: list[EpochReport] = []
        best, best_scores, best_state = -1, np.empty(0), {}
        truth = self._validation.labels.numpy() > 0
        while len(history) < self._config.epochs and len(history) - 1 - best < self._config.patience:
            report, scores = self._epoch(len(history) + 1, truth)
            history.append(report)
            if best < 0 or report.rank > history[best].rank:
                best, best_scores, best_state = len(history) - 1, scores, self._state()
            if progress is not None:
                progress(report)
        threshold, note = choose_threshold(best_scores, truth, self._config.target_sensitivity)
        return TrainedNetwork(best_state, tuple(history), best + 1, threshold, note, self._config)

    def _epoch(self, epoch: int, truth: NDArray[np.bool_]) -> tuple[EpochReport, NDArray[np.float64]]:
        started = time.perf_counter()
        train_loss = self._pass_over_training_set()
        scores = _score_all(self._network, self._validation)
        report = EpochReport(
            epoch=epoch,
            train_loss=train_loss,
            validation_loss=_cross_entropy(scores, truth),
            validation_auroc=auroc(scores, truth),
            learning_rate=float(self._schedule.get_last_lr()[0]),
            seconds=time.perf_counter() - started,
        )
        return report, scores

    def _pass_over_training_set(self) -> float:
        """The mean loss over one pass; batches differ by one image at most, as BatchNorm needs two or more."""
        self._network.train()
        order = torch.randperm(len(self._images), generator=self._generator)
        losses = [self._step(indices) * len(indices) for indices in order.tensor_split(self._steps)]
        return sum(losses) / len(order)

    def _step(self, indices: Tensor) -> float:
        images = self._images.take(indices).to(self._device, memory_format=torch.channels_last)
        labels = self._images.labels[indices].to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            logits = self._network(augment(images, self._config, self._generator))
        loss = _balanced_loss(logits.float(), labels, self._log_weight)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._schedule.step()
        return float(loss.detach())

    def _state(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self._network.state_dict().items()}


def _score_all(network: PneumoniaNetwork, images: ImageMemory) -> NDArray[np.float64]:
    return np.concatenate([score(network, batch) for batch in images.batches()])


def _balanced_loss(logits: Tensor, labels: Tensor, log_weight: float) -> Tensor:
    """Cross-entropy in which both classes weigh the same.

    The weight also goes into the logit, so that what is learnt beneath it stays the log-odds at the prevalence
    of the training set: scores are probabilities although the classes were balanced.
    """
    weight = torch.tensor(math.exp(log_weight), device=logits.device)
    return functional.binary_cross_entropy_with_logits(logits + log_weight, labels, pos_weight=weight)


def _positive_weight(labels: Tensor) -> float:
    positives = int(labels.sum())
    if positives in (0, len(labels)):
        raise ConfigurationError("the training set must hold images with and without pneumonia")
    return min((len(labels) - positives) / positives, MAX_POSITIVE_WEIGHT)


def _cross_entropy(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    likelihood = np.where(truth, scores, 1 - scores)
    return float(-np.log(np.maximum(likelihood, 1e-12)).mean())
