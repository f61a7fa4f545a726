"""Tensors for PyTorch as a stream of batches: shuffled, shared out, and resumed. Imports torch; import it lazily.

The order of an epoch follows from the seed and the epoch alone. Ranks take turns at samples and workers at batches, so
nothing is lost or repeated, and the batches of a rank are the same whatever the number of its workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.tensors.dataset import ImageDataset, Labelled, Transform
from imaging_pipeline.tensors.shards import ShardReader
from imaging_pipeline.tensors.storage import open_shard

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images (batch, channels, height, width) and labels, float32 (batch,)."""


class ImageStream(IterableDataset[Batch]):
    """Batches of samples; give it to `StreamLoader`, or to a DataLoader with ``batch_size=None``.

    Attributes:
        epoch: decides the order; `set_epoch` changes it.
        position: batches of this epoch that were given out and are not given out again.
    """

    def __init__(
        self,
        samples: Sequence[Labelled],
        batch_size: int,
        transform: Transform | None = None,
        *,
        shuffle: bool = True,
        seed: int = 0,
        scale: bool = True,
        drop_last: bool = False,
        rank: int | None = None,
        ranks: int | None = None,
        open_shard: Callable[[str], ShardReader] = open_shard,
    ) -> None:
        """Share the samples out.

        Args:
            samples: all samples, the same on every rank.
            batch_size: samples of a batch.
            transform: applied to each image.
            shuffle: over all samples of all shards; else they come in their order.
            seed: of the shuffling.
            scale: as in `ImageDataset`.
            drop_last: every rank gets equally many batches, all of the full size; what is over is left out this epoch.
            rank: this process's turn among ``ranks``; by default what torch.distributed says, else the only one.
            ranks: processes that share the samples.
            open_shard: opens a shard by its URI.
        """
        if batch_size < 1:
            raise ConfigurationError(f"batch_size: found {batch_size}, allowed is a whole number above 0")
        self._images = ImageDataset(samples, transform, scale=scale, open_shard=open_shard)
        self._batch_size, self._shuffle, self._seed, self._drop_last = batch_size, shuffle, seed, drop_last
        self._rank, self._ranks = _turn(rank, ranks)
        self.epoch = self.position = 0

    def __len__(self) -> int:
        """Batches of an epoch on this rank."""
        samples, size = len(self._images), self._batch_size
        if self._drop_last:
            return samples // self._ranks // size
        return math.ceil(len(range(self._rank, samples, self._ranks)) / size)

    def __iter__(self) -> Iterator[Batch]:
        """The batches that are left of this epoch, or a worker's share of them."""
        worker = get_worker_info()
        turn, workers = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        order = self.order()
        for number in range(self.position + turn, len(self), workers):
            yield self._images.batch(order[number * self._batch_size : (number + 1) * self._batch_size])

    def order(self) -> npt.NDArray[np.int64]:
        """Positions of this rank's samples in the order of this epoch."""
        count = len(self._images)
        if not self._shuffle:
            return np.arange(self._rank, count, self._ranks)
        # Sorted by raw words, which no release of numpy changes, as its permutations may.
        words = np.random.PCG64([self._seed, self.epoch]).random_raw(count)
        return np.argsort(words, kind="stable")[self._rank :: self._ranks]

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch."""
        self.epoch, self.position = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Where the stream is; load it into one of the same samples and sizes to go on behind the last batch."""
        return {"epoch": self.epoch, "position": self.position} | self._identity()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where another stream was.

        Raises:
            ConfigurationError: it had other samples, another seed, batch size or number of ranks.
        """
        if different := [name for name, value in self._identity().items() if state.get(name) != value]:
            raise ConfigurationError(
                f"the saved position is of a stream with other {', '.join(different)}: make this one in the same way"
            )
        self.epoch, self.position = state["epoch"], state["position"]

    def _identity(self) -> dict[str, int]:
        return {
            "samples": len(self._images),
            "batch_size": self._batch_size,
            "shuffle": int(self._shuffle),
            "seed": self._seed,
            "ranks": self._ranks,
        }


class StreamLoader(DataLoader[Batch]):
    """Iterates over a stream, epoch after epoch, in this process or with workers, and knows how far it is."""

    def __init__(self, stream: ImageStream, workers: int = 0, **options: Any) -> None:
        """Load with ``workers`` processes; ``options`` as a DataLoader takes them, without those of batches.

        Raises:
            ConfigurationError: workers are to be kept: they copy the stream, and its epoch, when they begin.
        """
        if options.get("persistent_workers"):
            raise ConfigurationError("persistent_workers: found true, allowed is false: each epoch has new workers")
        super().__init__(stream, batch_size=None, num_workers=workers, **options)
        self._stream = stream

    def __iter__(self) -> Any:
        """Batches up to the end of the epoch; then the next epoch begins."""
        for batch in super().__iter__():
            self._stream.position += 1
            yield batch
        self._stream.set_epoch(self._stream.epoch + 1)

    def state_dict(self) -> dict[str, int]:
        """Where the loader is: behind the last batch it gave out, whatever workers have read ahead."""
        return self._stream.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where another loader was; raises as `ImageStream.load_state_dict` does."""
        self._stream.load_state_dict(state)


def _turn(rank: int | None, ranks: int | None) -> tuple[int, int]:
    if rank is None and ranks is None:
        is_distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if is_distributed else (0, 1)
    if rank is None or ranks is None or not 0 <= rank < ranks:
        raise ConfigurationError(f"rank: found {rank} of {ranks}, allowed is a number from 0 to one below ranks")
    return rank, ranks
