"""How unlike the films it was trained on an image is: what is no chest film gets no answer.

A network answers to anything. Beside it three descriptions of the training images are kept, each with mean and
covariance: the layout (a coarse picture), the texture (energy by scale, brightness, black and white parts) and the
network's own embedding. An image's Mahalanobis distance (Lee et al. 2018) in each is divided by what hardly any
validation image exceeds; the greatest of the three says how unlike it is. The embedding alone does not do: a network
that learned to tell opacities from air maps much that is no chest to places it knows. Films of one collection may be
nothing like those of another, and one collection may be much the smaller: each has descriptions of its own, and a film
need be like one of them only. Owns these descriptions and their limits. They are tensors of the model: stored, digested
and exported with its weights. Imports torch at the top; import it lazily.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

REFUSED_FILMS = 0.01
"""Part of films like those of the validation side that may go without an answer."""

FEWEST_TRAINING = 100
FEWEST_VALIDATION = 20
"""With fewer images nothing is known of what a film looks like: nothing is refused."""

SLACK = 1.1
"""The limit over the greatest validation distance, where that is all that so few images can tell."""

LAYOUT = 16
"""Side of the coarse picture in pixels."""

SMALLEST_BAND = 8
"""Textures are looked at down to this side in pixels."""

BLACK, WHITE = 0.03, 0.97

_VIEWS = ("layout", "texture", "embedding")
_SMALL = 1e-3


class Plausibility(nn.Module):
    """Images and their embeddings to how unlike the training films they are; above 1 there is no answer.

    Attributes:
        kinds: descriptions of each kind of film that was trained on.
    """

    def __init__(self, kinds: Iterable[_Kind]) -> None:
        super().__init__()
        self.kinds = nn.ModuleList(kinds)

    def forward(self, images: Tensor, embeddings: Tensor) -> Tensor:
        """Ratios (N,) of images (N, 1, S, S), float32 on 0-1, and embeddings (N, width)."""
        described = describe(images, embeddings)
        return torch.stack([kind(described) for kind in self.kinds]).amin(dim=0)

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor]) -> Plausibility:
        """One from its state dict."""
        count = sum(name.endswith(".views.layout.mean") for name in tensors)
        made = cls(
            _Kind({view: len(tensors[f"kinds.{kind}.views.{view}.mean"]) for view in _VIEWS}) for kind in range(count)
        )
        made.load_state_dict(dict(tensors))
        return made


class _Kind(nn.Module):
    """One kind of film.

    Attributes:
        views: mean, whitening matrix and limit of the distance, by what they describe.
        limit: of the greatest ratio to these.
    """

    limit: Tensor

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.views = nn.ModuleDict({name: _Gaussian(size) for name, size in sizes.items()})
        self.register_buffer("limit", torch.ones(()))

    def forward(self, described: Mapping[str, Tensor]) -> Tensor:
        """Ratios (N,) of what images look like."""
        return torch.stack([self.views[name](values) for name, values in described.items()]).amax(dim=0) / self.limit


class _Gaussian(nn.Module):
    """The root of the mean square of whitened values, over a limit."""

    mean: Tensor
    whitening: Tensor
    limit: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("whitening", torch.eye(size))
        self.register_buffer("limit", torch.ones(()))

    def forward(self, values: Tensor) -> Tensor:
        """Distances (N,) of values (N, size)."""
        return ((values - self.mean) @ self.whitening).square().mean(dim=1).sqrt() / self.limit


def describe(images: Tensor, embeddings: Tensor) -> dict[str, Tensor]:
    """What images (N, 1, S, S) look like: float32 (N, F) by name."""
    return {"layout": _layout(images), "texture": _texture(images), "embedding": embeddings}


def fit_plausibility(
    train: Iterable[tuple[Tensor, Tensor]],
    validation: Iterable[tuple[Tensor, Tensor]],
    collections: tuple[Sequence[str], Sequence[str]] | None = None,
) -> Plausibility | None:
    """Learn what films look like from the training side, and how far they may lie off from the validation side.

    The limit is the conformal quantile (Laxhammar and Falkman 2010): of films that come from where those of the
    validation side do, `REFUSED_FILMS` are refused on average.

    Args:
        train: images (n, 1, S, S), float32 on 0-1, and embeddings (n, width), some at a time.
        validation: likewise.
        collections: the one that each image of either side is of. Those with enough images on both sides are described
            each by itself, the others together, or with all where they are too few. None: all are of one.

    Returns:
        None: there are too few images.
    """
    learned, held_out = _described(train), _described(validation)
    sides = collections or ([""] * len(learned["layout"]), [""] * len(held_out["layout"]))
    kinds = [_fit_kind(learned, held_out, *chosen) for chosen in _apart(*sides)]
    return Plausibility(kinds) if kinds else None


def _apart(train: Sequence[str], validation: Sequence[str]) -> list[tuple[list[int], list[int]]]:
    """Positions on both sides of what is described together; nothing where there are too few images for it."""
    learned, held_out = Counter(train), Counter(validation)

    def is_enough(names: Iterable[str]) -> bool:
        images = [(learned[name], held_out[name]) for name in names]
        return (
            sum(count for count, _ in images) >= FEWEST_TRAINING
            and sum(count for _, count in images) >= FEWEST_VALIDATION
        )

    every = {*learned, *held_out}
    groups = [{name} for name in sorted(learned) if is_enough({name})]
    if rest := every.difference(*groups):
        groups.append(rest if is_enough(rest) else every)
    return [
        (
            [position for position, name in enumerate(train) if name in group],
            [position for position, name in enumerate(validation) if name in group],
        )
        for group in groups
        if is_enough(group)
    ]


def _fit_kind(
    learned: Mapping[str, Tensor], held_out: Mapping[str, Tensor], train: list[int], validation: list[int]
) -> _Kind:
    made = _Kind({name: values.shape[1] for name, values in learned.items()})
    ratios = []
    for name, view in made.views.items():
        assert isinstance(view, _Gaussian)
        _fit(view, learned[name][train])
        distances = view(held_out[name][validation]).double().numpy()
        view.limit.fill_(_limit(distances))
        ratios.append(distances / _limit(distances))
    made.limit.fill_(_limit(np.max(ratios, axis=0)))
    return made


def _described(parts: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    found = [describe(images, embeddings) for images, embeddings in parts]
    return {name: torch.cat([part[name] for part in found]).cpu() for name in _VIEWS}


def _fit(view: _Gaussian, values: Tensor) -> None:
    """Mean and whitening of values (N, F), with the covariance shrunk after Ledoit and Wolf (2004)."""
    from sklearn.covariance import ledoit_wolf  # noqa: PLC0415 - only training pays for it

    samples = values.double().numpy()
    mean = samples.mean(axis=0)
    covariance, _ = ledoit_wolf(samples - mean, assume_centered=True)
    variances, directions = np.linalg.eigh(covariance)
    floor = max(float(variances[-1]) * 1e-6, 1e-12)
    whitening = directions / np.sqrt(np.maximum(variances, floor))
    view.mean.copy_(torch.from_numpy(mean))
    view.whitening.copy_(torch.from_numpy(whitening))


def _limit(distances: Floats) -> float:
    rank = math.ceil((len(distances) + 1) * (1 - REFUSED_FILMS))
    if rank >= len(distances):
        return SLACK * float(distances.max())
    return float(np.sort(distances)[rank - 1])


def _layout(images: Tensor) -> Tensor:
    """The coarse picture without its brightness and contrast, float32 (N, LAYOUT * LAYOUT)."""
    coarse = functional.adaptive_avg_pool2d(images, LAYOUT).flatten(1)
    centred = coarse - coarse.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True).sqrt() + _SMALL)


def _texture(images: Tensor) -> Tensor:
    """Logarithms of the energy by scale and direction, brightness, contrast, black and white parts, float32 (N, F)."""
    flat = images.flatten(1)
    found = [
        flat.mean(dim=1),
        flat.square().mean(dim=1).sub(flat.mean(dim=1).square()).clamp_min(0).sqrt(),
        (flat < BLACK).float().mean(dim=1),
        (flat > WHITE).float().mean(dim=1),
    ]
    level = images
    while level.shape[-1] >= 2 * SMALLEST_BAND:
        across, down = level.diff(dim=3), level.diff(dim=2)
        found += [torch.log(step.square().mean(dim=(1, 2, 3)).sqrt() + _SMALL) for step in (across, down)]
        level = functional.avg_pool2d(level, 2)
    return torch.stack(found, dim=1)
