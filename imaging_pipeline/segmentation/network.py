"""The network that finds the lungs: a small U-Net (Ronneberger et al. 2015), its preparation of films included.

Contains no training and no files. Imports torch at the top; import it lazily.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGE_SIZE = 128
"""Side in pixels to which films are brought; lungs are large, and their outline is drawn again on the film."""

WIDTHS = (12, 24, 48, 96)
"""Channels from the finest level to the coarsest; each halves the size."""

FOLD = 2
"""Pixels a side that are one pixel with more channels to the network (Shi et al. 2016): a quarter of the work."""

LUNGS = ("right lung", "left lung")
"""What the two outputs are; the right lung is on the left of a film that hangs as radiographs do."""


class LungNetwork(nn.Module):
    """Films (N, 1, H, W), float32, to logits (N, 2, H, W): the right and the left lung.

    Films are ranked first: only the order of their grey values counts, so that exposure, window and tone curve of a
    film do not matter. Bright must be dense.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.down = nn.ModuleList([_block(FOLD**2, widths[0]), *(_block(a, b) for a, b in pairwise(widths))])
        self.up = nn.ModuleList([_block(a + b, a) for a, b in reversed(list(pairwise(widths)))])
        self.last = nn.Conv2d(widths[0], len(LUNGS) * FOLD**2, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits; above 0 a pixel is more likely lung than not."""
        size = images.shape[-2:]
        found = self.body(ranked(resized(images, IMAGE_SIZE)))
        return functional.interpolate(found, size=size, mode="bilinear", align_corners=False)

    def body(self, planes: Tensor) -> Tensor:
        """Logits (N, 2, S, S) of prepared films (N, 1, S, S), S a multiple of 16."""
        kept: list[Tensor] = []
        planes = functional.pixel_unshuffle(planes, FOLD)
        for level, block in enumerate(self.down):
            planes = block(functional.max_pool2d(planes, 2) if level else planes)
            kept.append(planes)
        kept.pop()
        for block in self.up:
            larger = functional.interpolate(planes, scale_factor=2.0, mode="bilinear", align_corners=False)
            planes = block(torch.cat([kept.pop(), larger], dim=1))
        return functional.pixel_shuffle(self.last(planes), FOLD)


def resized(images: Tensor, size: int) -> Tensor:
    """Films (N, 1, H, W) brought to (N, 1, size, size), without aliasing."""
    if images.shape[-2:] == (size, size):
        return images
    return functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def ranked(images: Tensor) -> Tensor:
    """Each film's grey values replaced by their rank, from -1 to 1; equal values share the mean of their ranks."""
    flat = images.flatten(1)
    ordered, _ = flat.sort(dim=1)
    first = torch.searchsorted(ordered, flat)
    last = torch.searchsorted(ordered, flat, right=True)
    return ((first + last) / flat.shape[1] - 1).reshape(images.shape)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
