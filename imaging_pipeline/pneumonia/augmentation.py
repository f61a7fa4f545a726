"""Changes a radiograph as another positioning and exposure would have.

Owns the random changes made to training images. Contains nothing that a radiographer could not have caused: no
cut-outs, and no mirror image unless asked for. Transforms of torchvision draw one change for a whole batch, and from
the global generator; these are drawn for each image, beforehand, so that processes can share a batch. Imports torch
at the top; import it lazily.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from imaging_pipeline.pneumonia.config import TrainingConfig


@dataclass(frozen=True, slots=True)
class Changes:
    """How each of N images is changed.

    Attributes:
        transforms: from places in the changed image to places in the original, float32 (N, 2, 3) on -1 to 1.
        contrast: factors, float32 (N,).
        brightness: offsets, float32 (N,).
        gamma: exponents of the grey values, float32 (N,).
    """

    transforms: Tensor
    contrast: Tensor
    brightness: Tensor
    gamma: Tensor

    def of(self, positions: slice) -> Changes:
        """The changes of some of the images."""
        return Changes(
            self.transforms[positions], self.contrast[positions], self.brightness[positions], self.gamma[positions]
        )


def draw_changes(count: int, config: TrainingConfig, generator: torch.Generator) -> Changes:
    """Changes of ``count`` images within the limits of ``config``; all randomness comes from the CPU generator."""
    angle = torch.deg2rad(_uniform(count, config.rotation_degrees, generator))
    scale = 1 + _uniform(count, config.scaling, generator)
    shift = 2 * _uniform(count * 2, config.translation, generator).view(count, 2)
    mirror = torch.ones(count)
    if config.horizontal_flip:
        mirror -= 2 * torch.randint(0, 2, (count,), generator=generator)
    cosine, sine = scale * torch.cos(angle), scale * torch.sin(angle)
    stretch = (1 + config.aspect) ** (_uniform(count, 1.0, generator) / 2)
    columns = torch.stack([stretch * mirror * cosine, -stretch * sine, shift[:, 0]], dim=1)
    rows = torch.stack([mirror * sine / stretch, cosine / stretch, shift[:, 1]], dim=1)
    contrast = 1 + _uniform(count, config.contrast, generator)
    brightness = _uniform(count, config.brightness, generator)
    gamma = (1 + config.gamma) ** _uniform(count, 1.0, generator)
    return Changes(torch.stack([columns, rows], dim=1), contrast, brightness, gamma)


def augment(images: Tensor, changes: Changes) -> Tensor:
    """Images (N, 1, H, W), float32 on 0-1, each moved and exposed anew; same shape, type, device and range.

    What comes in from outside is black, as collimated. The images passed in are left as they are.
    """
    grid = functional.affine_grid(changes.transforms.to(images.device), list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    contrast, brightness, gamma = (
        change.to(images.device).view(-1, 1, 1, 1) for change in (changes.contrast, changes.brightness, changes.gamma)
    )
    return ((moved.clamp(0, 1) ** gamma - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)


def _uniform(count: int, limit: float, generator: torch.Generator) -> Tensor:
    """Numbers (count,) between -limit and limit."""
    return limit * (2 * torch.rand(count, generator=generator) - 1)
