"""The images of one set at the network's size, kept in memory when they fit.

Owns reading, resizing and keeping. Contains no augmentation and no order of images. Imports torch at the top;
import it lazily.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.utils.data import Subset

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pneumonia.network import SCORING_BATCH, resize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imaging_pipeline.pneumonia.config import TrainingConfig


class LabelledImages(Protocol):
    """A map-style torch dataset: item i is a float32 image (1, H, W) on 0-1 and its label, 0 or 1."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor | float]: ...


class ImageMemory:
    """All labels, and the resized images: from memory when they fit ``config.cache_bytes``, else read each time.

    Attributes:
        labels: float32 (N,), 0 or 1.

    Raises:
        ConfigurationError: the set is empty, an image has colours or a label is not 0 or 1.
    """

    def __init__(self, source: LabelledImages, config: TrainingConfig) -> None:
        self._source, self._size = source, config.image_size
        self._kept: Tensor | None = None
        count, size = len(source), config.image_size
        if count == 0:
            raise ConfigurationError("the training and validation sets must hold at least one image each")
        self.labels = torch.empty(count)
        kept = torch.empty(count, 1, size, size) if count * size**2 * 4 <= config.cache_bytes else None
        for indices in torch.split(torch.arange(count), SCORING_BATCH):
            images, self.labels[indices] = self._read(indices)
            if kept is not None:
                kept[indices] = images
        self._kept = kept
        if not bool(((self.labels == 0) | (self.labels == 1)).all()):
            raise ConfigurationError("every label must be 0 or 1")

    def __len__(self) -> int:
        return len(self._source)

    def take(self, indices: Tensor) -> Tensor:
        """Images (len(indices), 1, S, S), float32 on 0-1."""
        return self._read(indices)[0] if self._kept is None else self._kept[indices]

    def only(self, positions: Sequence[int]) -> ImageMemory:
        """Some of the images, in this order; nothing is read again."""
        some = copy.copy(self)
        some._source = Subset(self._source, positions)  # type: ignore[arg-type]  # noqa: SLF001 - one of its own class
        some._kept = None if self._kept is None else self._kept[list(positions)]  # noqa: SLF001
        some.labels = self.labels[list(positions)]
        return some

    def batches(self) -> Iterator[Tensor]:
        """All images in their order, some at a time."""
        for indices in torch.split(torch.arange(len(self)), SCORING_BATCH):
            yield self.take(indices)

    def _read(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        items = [self._source[index] for index in indices.tolist()]
        if any(len(image) != 1 for image, _ in items):
            raise ConfigurationError("images must be grey: take a tensor recipe of one channel")
        images = torch.cat([resize(image.unsqueeze(0), self._size) for image, _ in items])
        return images, torch.tensor([float(label) for _, label in items])
