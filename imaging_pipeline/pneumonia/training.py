"""Trains a network and fixes its operating point.

Owns the training loop, its schedule, early stopping and the choice of the epoch, all of which see the training and
validation sets only. Contains no evaluation on a test set, no storage and no tracking. Imports torch at the top;
import it lazily.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from imaging_pipeline.pneumonia.augmentation import augment, draw_changes
from imaging_pipeline.pneumonia.balance import BalancedLoss
from imaging_pipeline.pneumonia.config import Schedule
from imaging_pipeline.pneumonia.evaluation import auroc
from imaging_pipeline.pneumonia.memory import ImageMemory, LabelledImages
from imaging_pipeline.pneumonia.network import (
    PneumoniaNetwork,
    build_network,
    pick_device,
    restore_network,
    score_and_embed,
)
from imaging_pipeline.pneumonia.operating_point import calibrated, choose_threshold, fit_temperature
from imaging_pipeline.pneumonia.team import Team, lead

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imaging_pipeline.pneumonia.checkpoint import Checkpoint
    from imaging_pipeline.pneumonia.config import TrainingConfig

SMALLEST_RATE = 1e-4
"""Part of the peak learning rate at which the cosine schedule ends."""


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
        state_dict: of a ``PneumoniaNetwork``, its temperature included.
        history: one report per epoch run.
        best_epoch: the epoch the weights are of.
        threshold: scores at or above it are called positive.
        threshold_note: how the threshold was fixed.
        config: what ``build_network`` needs to take the weights.
        temperature: by which logits are divided.
    """

    state_dict: dict[str, Tensor]
    history: tuple[EpochReport, ...]
    best_epoch: int
    threshold: float
    threshold_note: str
    config: TrainingConfig
    temperature: float = 1.0

    def score(self, images: LabelledImages) -> NDArray[np.float64]:
        """Probabilities (N,) of the images, in their order.

        Raises:
            ConfigurationError: there is no image, or a label is not 0 or 1.
        """
        return self.score_and_embed(images)[0]

    def score_and_embed(self, images: LabelledImages) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """As `score`, with the embeddings (N, width)."""
        return score_all(self.network(), ImageMemory(images, self.config))

    def network(self) -> PneumoniaNetwork:
        """The network in evaluation mode, where the config says it runs."""
        return restore_network(self.config, self.state_dict).to(pick_device(self.config.device))


def train(
    train_set: LabelledImages,
    val_set: LabelledImages,
    config: TrainingConfig,
    *,
    sources: Sequence[str] | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[EpochReport], None] | None = None,
) -> TrainedNetwork:
    """Trains on ``train_set``, picks epoch, temperature and threshold on ``val_set``.

    On the CPU the result depends on the data, the config and the number of torch threads only; torch's global
    generator is left as it was. A training that was killed and is called again with its checkpoint goes on after the
    last whole epoch and comes to the same weights.

    Args:
        train_set: what is learnt from; picklable where several processes train.
        val_set: what epoch, temperature and threshold are chosen on.
        config: how.
        sources: of the training images, where each comes from; with it every source is drawn equally often.
        checkpoint: where the state is kept after each epoch; None: nowhere.
        progress: is told of each epoch, of those before a kill, too.

    Raises:
        ConfigurationError: a set is empty, a label is not 0 or 1, the training set lacks a class, or CUDA was
            asked for and is not there.
    """
    with lead(config, _follow, (train_set, val_set, config, sources, checkpoint)) as team, _own_randomness(team):
        training = _Training(train_set, val_set, config, sources, team, checkpoint)
        training.run(progress)
        return training.result()


def _follow(
    team: Team,
    train_set: LabelledImages,
    val_set: LabelledImages,
    config: TrainingConfig,
    sources: Sequence[str] | None,
    checkpoint: Checkpoint | None,
) -> None:
    """The part of a process that is not the first."""
    with _own_randomness(team):
        _Training(train_set, val_set, config, sources, team, checkpoint).run(None)


@contextlib.contextmanager
def _own_randomness(team: Team) -> Iterator[None]:
    """Leaves the caller's generators as they were, and takes only algorithms that repeat themselves on a GPU."""
    generators = [team.device] if team.device.type == "cuda" else []
    with torch.random.fork_rng(devices=generators), torch.backends.cudnn.flags(enabled=True, deterministic=True):
        yield


class _Training:
    """One run: a network, its optimiser and schedule, and the best state so far.

    All random numbers of an epoch follow from the seed and its number, so that nothing of them need be kept. Only the
    first process of a team validates, keeps the history and saves.
    """

    def __init__(
        self,
        train_set: LabelledImages,
        val_set: LabelledImages,
        config: TrainingConfig,
        sources: Sequence[str] | None,
        team: Team,
        checkpoint: Checkpoint | None,
    ) -> None:
        torch.manual_seed(config.seed)
        self._config, self._team, self._checkpoint = config, team, checkpoint
        self._images = ImageMemory(train_set, config)
        self._loss = BalancedLoss(self._images.labels, config.balance, sources)
        self._validation = ImageMemory(val_set, config) if team.rank == 0 else None
        self._steps = max(
            1, min(math.ceil(len(self._images) / config.batch_size), len(self._images) // (2 * team.size))
        )
        self._network = build_network(config).to(team.device)
        self._optimiser = torch.optim.AdamW(
            self._network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self._schedule = _schedule(self._optimiser, config, config.epochs * self._steps)
        self._done = 0
        self._history: list[EpochReport] = []
        self._best = -1
        self._best_scores = np.empty(0)
        self._best_state: dict[str, Tensor] = {}
        self._resume()
        self._shared = team.wrap(self._network)

    def run(self, progress: Callable[[EpochReport], None] | None) -> None:
        """All epochs that are left."""
        tell = progress or (lambda _: None)
        for report in self._history:
            tell(report)
        while not self._team.agree(self._is_over()):
            started = time.perf_counter()
            train_loss = self._pass_over_training_set()
            self._done += 1
            if self._validation is not None:
                self._judge(self._validation, train_loss, started)
                self._save()
                tell(self._history[-1])

    def result(self) -> TrainedNetwork:
        """The best epoch with its temperature and threshold."""
        assert self._validation is not None
        truth = self._validation.labels.numpy() > 0
        temperature = fit_temperature(self._best_scores, truth) if self._config.calibrate else 1.0
        scores = calibrated(self._best_scores, temperature)
        threshold, note = choose_threshold(scores, truth, self._config)
        return TrainedNetwork(
            self._best_state | {"temperature": torch.tensor(temperature)},
            tuple(self._history),
            self._best + 1,
            threshold,
            note,
            self._config,
            temperature,
        )

    def _is_over(self) -> bool:
        return self._done >= self._config.epochs or self._done - 1 - self._best >= self._config.patience

    def _judge(self, validation: ImageMemory, train_loss: float, started: float) -> None:
        truth = validation.labels.numpy() > 0
        scores, _ = score_all(self._network, validation)
        report = EpochReport(
            epoch=self._done,
            train_loss=train_loss,
            validation_loss=_cross_entropy(scores, truth),
            validation_auroc=auroc(scores, truth),
            learning_rate=float(self._schedule.get_last_lr()[0]),
            seconds=time.perf_counter() - started,
        )
        if self._best < 0 or report.rank > self._history[self._best].rank:
            self._best, self._best_scores, self._best_state = len(self._history), scores, _copied(self._network)
        self._history.append(report)

    def _pass_over_training_set(self) -> float:
        """The mean loss over one pass; batches differ by one image at most, as BatchNorm needs two or more."""
        epoch = self._done + 1
        torch.manual_seed(_seed(self._config.seed, epoch, f"process {self._team.rank}"))
        generator = torch.Generator().manual_seed(_seed(self._config.seed, epoch, "order"))
        self._shared.train()
        order = self._loss.order(generator)
        total = torch.zeros((), device=self._team.device)
        for indices in order.tensor_split(self._steps):
            total += self._step(indices, generator)
        return float(self._team.total(total)) / len(order)

    def _step(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """One step on a batch, of which this process computes its share; the sum of the losses of its images."""
        device, share = self._team.device, self._team.share(len(indices))
        changes = draw_changes(len(indices), self._config, generator).of(share)
        images = self._images.take(indices[share]).to(device, memory_format=torch.channels_last)
        labels = self._images.labels[indices[share]].to(device)
        is_mixed = self._config.mixed_precision and device.type == "cuda"
        with torch.autocast(device.type, torch.bfloat16, enabled=is_mixed):
            logits = self._shared(augment(images, changes))
        loss = self._loss.sum(logits.float(), labels)
        self._optimiser.zero_grad()
        # Gradients are averaged over the processes.
        (loss * self._team.size / len(indices)).backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._schedule.step()
        return loss.detach()

    def _save(self) -> None:
        if self._checkpoint is None:
            return
        self._checkpoint.save(
            {
                "network": self._network.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "schedule": _numbers(self._schedule.state_dict()),
                "history": [dataclasses.asdict(report) for report in self._history],
                "best": self._best,
                "best_scores": torch.from_numpy(self._best_scores),
                "best_state": self._best_state,
            }
        )

    def _resume(self) -> None:
        state = self._checkpoint.load() if self._checkpoint else None
        if state is None:
            return
        self._network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(self._schedule.state_dict() | state["schedule"])
        self._history = [EpochReport(**report) for report in state["history"]]
        self._done, self._best = len(self._history), state["best"]
        self._best_scores, self._best_state = state["best_scores"].numpy(), state["best_state"]


def _schedule(optimiser: torch.optim.Optimizer, config: TrainingConfig, steps: int) -> LRScheduler:
    """Learning rates of all steps; the same state may be given to a new one."""
    if config.schedule is Schedule.ONE_CYCLE:
        total = steps + 1  # the schedule is moved after the last step, too
        rising = min(0.9, max(config.warm_up, 2 / total))  # it cannot rise within one step
        return OneCycleLR(optimiser, config.learning_rate, total_steps=total, pct_start=rising)
    first = config.warm_up * steps

    def part(step: int) -> float:
        if step < first:
            return (step + 1) / (first + 1)
        if config.schedule is Schedule.CONSTANT:
            return 1.0
        way = (step - first) / max(1.0, steps - first)
        return SMALLEST_RATE + (1 - SMALLEST_RATE) * (1 + math.cos(math.pi * min(1.0, way))) / 2

    return LambdaLR(optimiser, part)


def _numbers(state: dict[str, Any]) -> dict[str, Any]:
    """The counters of a schedule; its functions are made anew."""
    return {name: value for name, value in state.items() if isinstance(value, int | float | list)}


def _seed(seed: int, epoch: int, purpose: str) -> int:
    digest = hashlib.sha256(f"{seed}|{epoch}|{purpose}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _copied(network: PneumoniaNetwork) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def score_all(network: PneumoniaNetwork, images: ImageMemory) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Probabilities (N,) and embeddings (N, width) of all images, in their order."""
    parts = [score_and_embed(network, batch) for batch in images.batches()]
    return np.concatenate([scores for scores, _ in parts]), np.concatenate([vectors for _, vectors in parts])


def _cross_entropy(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    likelihood = np.where(truth, scores, 1 - scores)
    return float(-np.log(np.maximum(likelihood, 1e-12)).mean())
