"""From a film to its lungs: masks, how much of the film they cover, and whether they look like lungs.

Contains no training, no DICOM and no files. Imports torch at the top; import it lazily.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from imaging_pipeline.segmentation.network import IMAGE_SIZE, ranked, resized

if TYPE_CHECKING:
    from numpy.typing import NDArray

BOTH_LUNGS = (0.10, 0.55)
"""Part of a film that both lungs cover, at least and at most."""

ONE_LUNG = 0.025
"""Part of a film that one lung covers at least."""

UNLIKE = 3.5
"""One lung is at most so many times as large as the other."""

LEAST_SOLID = 0.75
"""Part of what the network calls one lung that lies in the largest piece of it."""

LEAST_SURE = 0.80
"""Mean certainty, from 0.5 to 1, of the pixels that are called lung."""

LEAST_CONTRAST = 0.15
"""By how much lungs are darker than what is around them, in ranks of the film's grey values from -1 to 1."""

FILMS_AT_ONCE = 32

_RIM = 6
"""Pixels of the network's films around the lungs that they are compared with."""

_JUST = 0.01
"""Logit of what is only just lung, a filled hole, or with a minus just not, another piece."""


class Quality(enum.StrEnum):
    """Whether masks look like the lungs of a frontal film."""

    PLAUSIBLE = "PLAUSIBLE"
    DOUBTFUL = "DOUBTFUL"
    NONE = "NONE"


@dataclass(frozen=True, slots=True)
class Lungs:
    """What was found on a film.

    Attributes:
        masks: bool (2, rows, columns): the lung on the film's left, which is the right one as films hang, and the
            other; smooth, one piece each, without holes.
        shares: part of the film that each covers.
        certainty: mean probability over the masks; 0 without any.
        contrast: by how much they are darker than what is around them, in ranks from -1 to 1.
        quality: whether they look like lungs.
    """

    masks: NDArray[np.bool_]
    shares: tuple[float, float]
    certainty: float
    contrast: float
    quality: Quality

    @property
    def both(self) -> NDArray[np.bool_]:
        """Both lungs (rows, columns)."""
        mask: NDArray[np.bool_] = np.logical_or(*self.masks)
        return mask


Segmenter = Callable[[Tensor], Tensor]
"""Films (N, 1, H, W), float32 on 0-1, bright is dense, to logits (N, 2, H, W) of the two lungs."""


def find_lungs(
    segmenter: Segmenter, films: Sequence[NDArray[np.float32]], sizes: Sequence[tuple[int, int]] | None = None
) -> list[Lungs]:
    """The lungs on some films.

    Args:
        segmenter: the network.
        films: each (rows, columns), any size, on 0-1 as it is shown, bright is dense.
        sizes: rows and columns of the masks of each; None: those of the films.
    """
    if not films:
        return []
    sizes = sizes or [film.shape for film in films]
    small = torch.cat([resized(torch.from_numpy(np.ascontiguousarray(film))[None, None], IMAGE_SIZE) for film in films])
    with torch.inference_mode():
        logits = segmenter(small.clamp(0, 1)).float()
    return [_lungs(*each) for each in zip(logits, ranked(small), sizes, strict=True)]


def plausible_masks(
    segmenter: Segmenter, films: Iterable[tuple[str, NDArray[np.float32]]]
) -> dict[str, NDArray[np.bool_]]:
    """Both lungs (rows, columns) of films, by key; films on which nothing looks like two lungs are left out."""
    masks: dict[str, NDArray[np.bool_]] = {}
    waiting = iter(films)
    while some := list(itertools.islice(waiting, FILMS_AT_ONCE)):
        found = find_lungs(segmenter, [film for _, film in some])
        masks |= {
            key: lungs.both for (key, _), lungs in zip(some, found, strict=True) if lungs.quality is Quality.PLAUSIBLE
        }
    return masks


def _lungs(logits: Tensor, ranks: Tensor, size: tuple[int, int]) -> Lungs:
    """Lungs from logits (2, S, S) and ranks (1, S, S): the largest piece of each, without holes, brought to a size."""
    found = [_largest_piece(plane > 0) for plane in logits.numpy()]
    inside = torch.from_numpy(np.stack([piece for piece, _ in found]))
    of_other_pieces = ~inside & (logits > 0)
    cleaned = torch.where(inside, logits.clamp(min=_JUST), logits.masked_fill(of_other_pieces, -_JUST))
    large = functional.interpolate(cleaned[None], size=size, mode="bilinear", align_corners=False)[0]
    right, left = (plane.numpy() for plane in large)
    masks = np.stack([(right > 0) & (right >= left), (left > 0) & (left > right)])  # no pixel is in both
    shares = float(masks[0].mean()), float(masks[1].mean())
    certainty = float(logits.sigmoid()[inside].mean()) if inside.any() else 0.0
    contrast = _contrast(ranks[0], inside.any(dim=0))
    is_sure = certainty >= LEAST_SURE and contrast >= LEAST_CONTRAST and min(share for _, share in found) >= LEAST_SOLID
    return Lungs(masks, shares, certainty, contrast, _quality(masks, shares, is_sure=is_sure))


def _contrast(ranks: Tensor, mask: Tensor) -> float:
    """How much darker a mask (S, S) is than its rim; 0 of an empty one."""
    wide = functional.max_pool2d(mask[None].float(), 2 * _RIM + 1, stride=1, padding=_RIM)[0] > 0
    rim = wide & ~mask
    return float(ranks[rim].mean() - ranks[mask].mean()) if mask.any() and rim.any() else 0.0


def _largest_piece(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], float]:
    """The largest connected piece, its holes filled, and which part of the mask it is."""
    if not mask.any():
        return mask, 1.0
    _, labels, figures, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    sizes = figures[1:, cv2.CC_STAT_AREA]
    piece = labels == 1 + sizes.argmax()
    _, around = cv2.connectedComponents(np.pad(~piece, 1, constant_values=True).astype(np.uint8), connectivity=4)
    filled = around[1:-1, 1:-1] != around[0, 0]
    return filled, float(sizes.max() / sizes.sum())


def _quality(masks: NDArray[np.bool_], shares: Sequence[float], *, is_sure: bool) -> Quality:
    least, most = BOTH_LUNGS
    if sum(shares) < ONE_LUNG:
        return Quality.NONE
    is_plausible = (
        is_sure
        and min(shares) >= ONE_LUNG
        and least <= sum(shares) <= most
        and max(shares) <= UNLIKE * min(shares)
        and _middle(masks[0]) < _middle(masks[1])
    )
    return Quality.PLAUSIBLE if is_plausible else Quality.DOUBTFUL


def _middle(mask: NDArray[np.bool_]) -> float:
    """Mean column of a mask, in pixels."""
    counts = mask.sum(axis=0)
    return float((counts * np.arange(len(counts))).sum() / max(counts.sum(), 1))
