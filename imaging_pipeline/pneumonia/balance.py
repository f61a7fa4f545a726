"""Unequal classes and unequal sources: how often images are drawn, and what their loss weighs.

Imports torch at the top; import it lazily.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pneumonia.config import Balance

MAX_POSITIVE_WEIGHT = 50.0
"""Above this weight a handful of positives would drive every gradient."""


class BalancedLoss:
    """Cross-entropy for unequal classes, and the order of the images that goes with it.

    Where classes are made equal, by weight or by drawing, the log-odds that this adds also go into the logit, so that
    what is learnt beneath stays the log-odds at the prevalence of the training set: scores are probabilities.
    """

    def __init__(self, labels: Tensor, balance: Balance, sources: Sequence[str] | None) -> None:
        positives = int(labels.sum())
        if positives in (0, len(labels)):
            raise ConfigurationError("the training set must hold images with and without pneumonia")
        ratio = (len(labels) - positives) / positives
        weight = min(ratio, MAX_POSITIVE_WEIGHT)
        self._shift = {Balance.WEIGHT: math.log(weight), Balance.SAMPLER: math.log(ratio), Balance.NONE: 0.0}[balance]
        self._weight = weight if balance is Balance.WEIGHT else 1.0
        self._chances = _chances(labels, sources) if balance is Balance.SAMPLER else None
        self._count = len(labels)

    def order(self, generator: torch.Generator) -> Tensor:
        """Positions (N,) of the images of one epoch."""
        if self._chances is not None:
            return torch.multinomial(self._chances, self._count, replacement=True, generator=generator)
        return torch.randperm(self._count, generator=generator)

    def sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sum of the losses of some images."""
        weight = torch.tensor(self._weight, device=logits.device)
        return functional.binary_cross_entropy_with_logits(
            logits + self._shift, labels, pos_weight=weight, reduction="sum"
        )


def _chances(labels: Tensor, sources: Sequence[str] | None) -> Tensor:
    """How often each image is drawn (N,), so that every source has both classes equally often.

    Where each source has its own prevalence, a network that knows the source knows half of the label; drawn like
    this, the source tells nothing (Idrissi et al. 2022). A source with one class only gives half of its share.
    """
    cells = list(zip(sources or [""] * len(labels), labels.tolist(), strict=True))
    counts = Counter(cells)
    return torch.tensor([1 / counts[cell] for cell in cells])
