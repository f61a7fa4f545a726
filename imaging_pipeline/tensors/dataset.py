"""Tensors for PyTorch, by index. Imports torch at the top; import it lazily.

Owns the step from mapped shards to torch tensors. Must not contain splits, labels' meaning or augmentation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from imaging_pipeline.tensors.shards import ShardReader
from imaging_pipeline.tensors.storage import open_shard

Transform = Callable[[torch.Tensor], torch.Tensor]
"""Gets and returns one image, such as a transform of torchvision.transforms.v2."""


class Labelled(Protocol):
    """A labelled tensor: members of dataset versions are such, and `Sample`."""

    @property
    def shard(self) -> str:
        """URI of its shard."""

    @property
    def row(self) -> int:
        """Its row there."""

    @property
    def label(self) -> float:
        """What is to be learned of it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled tensor: its shard's URI, its row there, and the label."""

    shard: str
    row: int
    label: float


class ImageDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Samples as pairs of an image (channels, height, width), or a volume, and a label, float32 scalar.

    Each shard is mapped once per process, when first used. Can be sent to DataLoader workers, forked or spawned.
    """

    def __init__(
        self,
        samples: Sequence[Labelled],
        transform: Transform | None = None,
        *,
        scale: bool = True,
        open_shard: Callable[[str], ShardReader] = open_shard,
    ) -> None:
        """Take the samples in this order.

        Args:
            samples: members of a dataset version, or others.
            transform: applied to each image.
            scale: images are float32, those of whole numbers scaled to [0, 1]; else they have the shard's dtype.
            open_shard: opens a shard by its URI; picklable, where there are workers.
        """
        self._shards = sorted({sample.shard for sample in samples})
        number = {uri: position for position, uri in enumerate(self._shards)}
        self._shard_numbers = np.array([number[sample.shard] for sample in samples], np.int32)
        self._rows = np.array([sample.row for sample in samples], np.int64)
        self._labels = np.array([sample.label for sample in samples], np.float32)
        self._transform, self._scale, self._open = transform, scale, open_shard
        self._readers: dict[int, ShardReader] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image and label of one sample.

        Raises:
            IndexError: there is no such sample, or its shard has no such row.
            ShardError: the shard is missing or damaged.
        """
        images, labels = self.batch([index])
        return images[0], labels[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Several samples at once; DataLoader asks for its batches in this way."""
        images, labels = self.batch(indices)
        return list(zip(images.unbind(0), labels.unbind(0), strict=True))

    def batch(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (batch, channels, height, width) and labels, float32 (batch,), of some samples.

        Raises:
            IndexError: there is no such sample, or its shard has no such row.
            ShardError: a shard is missing or damaged.
        """
        stored = [
            self._reader(shard).tensor(row)
            for shard, row in zip(self._shard_numbers[indices].tolist(), self._rows[indices].tolist(), strict=True)
        ]
        images = torch.from_numpy(self._scaled(stored) if self._scale else np.stack(stored))
        if self._transform is not None:
            images = torch.stack([self._transform(image) for image in images])
        return images, torch.from_numpy(self._labels[indices])

    @staticmethod
    def _scaled(stored: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        # By numpy: torch would wake its thread pool for one small image, which costs more than the division.
        scaled = np.empty((len(stored), *stored[0].shape), np.float32)
        white = np.float32(np.iinfo(stored[0].dtype).max if stored[0].dtype.kind == "u" else 1)
        for position, tensor in enumerate(stored):
            np.divide(tensor, white, out=scaled[position], dtype=np.float32)
        return scaled

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_readers": {}}

    def _reader(self, shard: int) -> ShardReader:
        if shard not in self._readers:
            self._readers[shard] = self._open(self._shards[shard])
        return self._readers[shard]
