"""Trains the lung network on phantoms; the same seed gives the same weights on one kind of machine.

Contains no files. Imports torch at the top; import it lazily.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from imaging_pipeline.segmentation.network import IMAGE_SIZE, LungNetwork, ranked
from imaging_pipeline.segmentation.training_films import changed, draw_films


@dataclass(frozen=True, slots=True)
class LungTraining:
    """How the lung network is trained.

    Attributes:
        seed: of phantoms, changes and first weights.
        films: phantoms that are drawn; each is seen several times, changed in another way.
        steps: batches.
        batch: films of one step.
        rate: largest learning rate (AdamW, one cycle).
    """

    seed: int = 7
    films: int = 900
    steps: int = 750
    batch: int = 16
    rate: float = 4e-3


def train_lungs(training: LungTraining, progress: Callable[[int, int], None] | None = None) -> LungNetwork:
    """A network trained on phantoms, in evaluation mode.

    Args:
        training: how.
        progress: called with the steps done since the last call, and all there are.
    """
    films, lungs = (torch.stack(list(each)) for each in zip(*draw_films(training.seed, training.films), strict=True))
    films, lungs = (planes.mul(255).round().to(torch.uint8) for planes in (films.clamp(0, 1), lungs))
    generator = torch.Generator().manual_seed(training.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network = LungNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.rate, total_steps=training.steps)
    network = network.train().to(memory_format=torch.channels_last)  # half the time on a CPU
    for _ in range(training.steps):
        chosen = torch.randint(len(films), (training.batch,), generator=generator)
        seen, truth = changed(films[chosen] / 255, lungs[chosen] / 255, generator, IMAGE_SIZE)
        prepared = ranked(seen).contiguous(memory_format=torch.channels_last)
        loss = lung_loss(network.body(prepared), truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if progress:
            progress(1, training.steps)
    return network.eval()


def lung_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy and soft Dice loss (Milletari et al. 2016), added; logits and truth (N, 2, H, W)."""
    probability = logits.sigmoid()
    both = (probability * truth).sum(dim=(2, 3))
    dice = (2 * both + 1) / (probability.sum(dim=(2, 3)) + truth.sum(dim=(2, 3)) + 1)
    return functional.binary_cross_entropy_with_logits(logits, truth) + (1 - dice).mean()
