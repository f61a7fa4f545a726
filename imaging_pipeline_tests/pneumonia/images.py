"""Small synthetic images for the tests of this folder."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SIZE = 32


class BrightSpots:
    """Noise, with a soft bright spot at a random place in every positive image.

    Attributes:
        images: float32 (N, 1, 32, 32) on 0-1.
        labels: 0 or 1.
    """

    def __init__(self, count: int, seed: int, *, part_positive: float = 0.5) -> None:
        rng = np.random.default_rng(seed)
        self.labels = [int(index < count * part_positive) for index in range(count)]
        rows, columns = np.mgrid[:SIZE, :SIZE]
        pixels = rng.uniform(0.2, 0.5, size=(count, 1, SIZE, SIZE))
        for index, label in enumerate(self.labels):
            row, column = rng.uniform(8, SIZE - 8, size=2)
            pixels[index, 0] += 0.5 * label * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 18)
        self.images = pixels.clip(0, 1).astype(np.float32)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, float]:
        return torch.from_numpy(self.images[index]), float(self.labels[index])
