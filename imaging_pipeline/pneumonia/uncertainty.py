"""How much a score hangs on how the film was taken: its spread under small changes of position and exposure.

Owns the changes and the spread. Test-time changes (Ayhan and Berens 2018; Wang et al. 2019) ask nothing of the
network: the networks here have no dropout to sample from, and an ensemble costs a training for each member. The changes
are fixed, so the same image has the same uncertainty on every machine. Imports torch at the top; import it lazily.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from imaging_pipeline.pneumonia.augmentation import Changes, augment
from imaging_pipeline.pneumonia.network import score

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from imaging_pipeline.pneumonia.network import PneumoniaNetwork

CHANGES = (
    # degrees, scale, shift to the right and down as parts of the side, contrast, brightness
    (4.0, 1.0, 0.02, 0.0, 1.1, 0.0),
    (-4.0, 1.0, -0.02, 0.0, 0.9, 0.0),
    (0.0, 1.06, 0.0, 0.03, 1.0, 0.05),
    (0.0, 0.94, 0.0, -0.03, 1.0, -0.05),
)
"""Half of what training changes at most: another radiographer would have made such a film of the same patient."""


def spread(network: PneumoniaNetwork, images: Tensor, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation (N,) of the score over an image and its changes, from 0 to 0.5.

    Args:
        network: left in evaluation mode.
        images: (N, 1, H, W), float32 on 0-1.
        scores: of the images as they are (N,).
    """
    if not len(images):
        return np.empty(0)
    changed = [score(network, augment(images, _changes(len(images), *change))) for change in CHANGES]
    found: NDArray[np.float64] = np.std([scores, *changed], axis=0)
    return found


def _changes(
    count: int, degrees: float, scale: float, right: float, down: float, contrast: float, brightness: float
) -> Changes:
    """The same change for all of ``count`` images."""
    cosine, sine = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    transform = torch.tensor([[cosine, -sine, 2 * right], [sine, cosine, 2 * down]])
    ones = torch.ones(count)
    return Changes(transform.expand(count, 2, 3), contrast * ones, brightness * ones, gamma=ones)
