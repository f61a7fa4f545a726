"""Changes a radiograph as another positioning and exposure would have.

Owns the random changes made to training images. Contains nothing that a radiographer could not have caused: no
cut-outs, and no mirror image unless asked for. Imports torch at the top; import it lazily.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from imaging_pipeline.pneumonia.config import TrainingConfig


def augment(images: Tensor, config: TrainingConfig, generator: torch.Generator) -> Tensor:
    """Images (N, 1, H, W), float32 on 0-1, each moved and exposed anew; same shape, type, device and range.

    Args:
        images: are left as they are.
        config: gives the limits of each change.
        generator: a CPU generator; all randomness comes from it.
    """
    moved = _move(images, config, generator)
    contrast = 1 + _uniform(len(images), config.contrast, generator)
    brightness = _uniform(len(images), config.brightness, generator)
    contrast, brightness = (change.to(images.device).view(-1, 1, 1, 1) for change in (contrast, brightness))
    return ((moved - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)


def _move(images: Tensor, config: TrainingConfig, generator: torch.Generator) -> Tensor:
    """Rotates, scales, shifts and perhaps mirrors; what comes in from outside is black, as collimated."""
    count = len(images)
    angle = torch.deg2rad(_uniform(count, config.rotation_degrees, generator))
    scale = 1 + _uniform(count, config.scaling, generator)
    shift = 2 * _uniform(count * 2, config.translation, generator).view(count, 2)
    mirror = torch.ones(count)
    if config.horizontal_flip:
        mirror -= 2 * torch.randint(0, 2, (count,), generator=generator)
    cosine, sine = scale * torch.cos(angle), scale * torch.sin(angle)
    columns = torch.stack([mirror * cosine, -sine, shift[:, 0]], dim=1)
    rows = torch.stack([mirror * sine, cosine, shift[:, 1]], dim=1)
    transform = torch.stack([columns, rows], dim=1).to(images.device)
    grid = functional.affine_grid(transform, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _uniform(count: int, limit: float, generator: torch.Generator) -> Tensor:
    """Numbers (count,) between -limit and limit."""
    return limit * (2 * torch.rand(count, generator=generator) - 1)
