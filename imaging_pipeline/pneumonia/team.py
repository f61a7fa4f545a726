"""Several processes that train one network together: one for each GPU, or, when asked for, several on the CPU.

Owns starting, joining and ending them. The process that asks is the first of them, so that progress and results need
no way back. Contains no training. Imports torch at the top; import it lazily.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from imaging_pipeline.pneumonia.config import Device, TrainingConfig
from imaging_pipeline.pneumonia.network import pick_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = timedelta(minutes=30)
"""How long the others wait while the first one validates, or for one that does not answer."""

FAREWELL_SECONDS = 30.0
"""How long a process may take to end after its work."""


@dataclass(frozen=True, slots=True)
class Team:
    """The place of this process among those that train together.

    Attributes:
        rank: from 0; 0 validates, reports and saves.
        size: number of processes.
        device: where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    def share(self, count: int) -> slice:
        """Which of ``count`` images of a batch are this process's; shares differ by one image at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with gradients averaged over the processes; on GPUs, with batch statistics of all of them."""
        if self.size == 1:
            return network
        if self.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return DistributedDataParallel(network)

    def total(self, value: Tensor) -> Tensor:
        """The sum of a value over all processes."""
        if self.size > 1:
            distributed.all_reduce(value)
        return value

    def agree(self, said: bool) -> bool:  # noqa: FBT001 - what the first process says
        """What the first process says, in all of them."""
        if self.size == 1:
            return said
        answer = torch.tensor([int(said)], device=self.device)
        distributed.broadcast(answer, src=0)
        return bool(answer.item())


def team_size(config: TrainingConfig) -> int:
    """How many processes train together.

    Raises:
        ConfigurationError: CUDA was asked for and is not there.
    """
    is_cuda = pick_device(config.device).type == "cuda"
    return config.processes or (torch.cuda.device_count() if is_cuda else 1)


@contextlib.contextmanager
def lead(config: TrainingConfig, follow: Callable[..., None], arguments: tuple[Any, ...]) -> Iterator[Team]:
    """Be the first of a team whose other processes run ``follow(team, *arguments)``, which are pickled.

    Raises:
        RuntimeError: another process ended before its time.
    """
    size, kind = team_size(config), pick_device(config.device).type
    if size == 1:
        yield Team(0, 1, torch.device(kind))
        return
    threads = max(1, torch.get_num_threads() // size)
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder, "meeting").as_uri()
        context = multiprocessing.get_context("spawn")
        others = [
            context.Process(target=_join, args=(rank, size, kind, meeting, threads, follow, arguments), daemon=True)
            for rank in range(1, size)
        ]
        for process in others:
            process.start()
        try:
            with _joined(0, size, kind, meeting) as team:
                yield team
        finally:
            _see_off(others)


def _join(
    rank: int, size: int, kind: str, meeting: str, threads: int, follow: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    """What another process does."""
    torch.set_num_threads(threads)
    with _joined(rank, size, kind, meeting) as team:
        follow(team, *arguments)


@contextlib.contextmanager
def _joined(rank: int, size: int, kind: str, meeting: str) -> Iterator[Team]:
    device = torch.device(kind, rank % torch.cuda.device_count()) if kind == Device.CUDA else torch.device(kind)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=meeting, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield Team(rank, size, device)
    finally:
        distributed.destroy_process_group()


def _see_off(processes: list[Any]) -> None:
    for process in processes:
        process.join(FAREWELL_SECONDS)
        if process.is_alive():
            process.terminate()
            process.join()
