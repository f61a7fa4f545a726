"""Tensors for PyTorch: samples by shard, row and label. Imports torch at the top; import it lazily.

Owns the step from a mapped shard to torch tensors. Must not contain splits, labels' meaning or augmentation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from imaging_pipeline.tensors.shards import ShardReader


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled tensor: its shard, its row there, and the label."""

    path: Path
    row: int
    label: float


class ShardDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Samples as pairs of an image, float32 (channels, height, width) in [0, 1], and a label, float32 scalar.

    Each shard is mapped once per process, when first used. Can be sent to DataLoader workers, forked or spawned.
    """

    def __init__(
        self, samples: Sequence[Sample], transform: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> None:
        """Take the samples in this order; ``transform``, if any, gets and returns an image."""
        self._samples = samples
        self._transform = transform
        self._readers: dict[Path, ShardReader] = {}

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image and label of one sample.

        Raises:
            IndexError: there is no such sample, or its shard has no such row.
            ShardError: the shard is missing or damaged.
        """
        sample = self._samples[index]
        stored = self._reader(sample.path).tensor(sample.row)
        white = np.iinfo(stored.dtype).max if stored.dtype.kind == "u" else 1
        # Scaled by numpy: torch would wake its thread pool for one small image, which costs more than the division.
        image = torch.from_numpy(np.divide(stored, white, dtype=np.float32))
        if self._transform is not None:
            image = self._transform(image)
        return image, torch.tensor(sample.label, dtype=torch.float32)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_readers": {}}

    def _reader(self, path: Path) -> ShardReader:
        if path not in self._readers:
            self._readers[path] = ShardReader(path)
        return self._readers[path]
