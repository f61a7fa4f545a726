"""A pool of processes over many small jobs that survives the death of a worker.

Knows nothing of what the jobs do. Decoders are third-party code fed with hostile bytes: one that crashes its
process must cost one object, not the batch.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNKS_IN_FLIGHT = 4
"""Chunks waiting per worker: enough to keep it busy, few enough to bound memory."""

PRELOAD = (
    "imaging_pipeline.catalog.inspection",
    "imaging_pipeline.deid.release",
    "imaging_pipeline.tensors.batch",
)
"""Modules the jobs are in, loaded once for all workers; naming one that a job does not need costs time, no more."""


def map_chunks(
    function: Callable[[Sequence[Item]], Result],
    items: Sequence[Item],
    *,
    workers: int,
    chunk_size: int,
    on_crash: Callable[[Item], Result],
) -> Iterator[Result]:
    """Results of ``function`` over chunks of ``items``, in their order.

    Args:
        function: importable by name (it is pickled); takes a chunk.
        items: what to work on; picklable.
        workers: processes.
        chunk_size: items of one call.
        on_crash: the result for one item whose processing killed its process; called in this process.
    """
    chunks = [items[start : start + chunk_size] for start in range(0, len(items), chunk_size)]
    done = 0
    while done < len(chunks):
        try:
            for result in _map_in_pool(function, chunks[done:], workers):
                yield result
                done += 1
        except BrokenProcessPool:
            # The oldest unfinished chunk may not be the guilty one; tried alone, it either passes or convicts.
            for item in chunks[done]:
                yield _run_alone(function, item, on_crash)
            done += 1


def _map_in_pool(
    function: Callable[[Sequence[Item]], Result], chunks: Sequence[Sequence[Item]], workers: int
) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    with _pool(min(workers, len(chunks))) as pool:
        for chunk in chunks:
            waiting.append(pool.submit(function, chunk))
            if len(waiting) >= CHUNKS_IN_FLIGHT * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _run_alone(function: Callable[[Sequence[Item]], Result], item: Item, on_crash: Callable[[Item], Result]) -> Result:
    try:
        with _pool(1) as pool:
            return pool.submit(function, [item]).result()
    except BrokenProcessPool:
        return on_crash(item)


def _pool(workers: int) -> ProcessPoolExecutor:
    # A forked copy of a process with threads (Dagster, DuckDB, gRPC) can deadlock. The fork server has none: it
    # loads the modules once, and each worker is a cheap fork of it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    pool = ProcessPoolExecutor(workers, mp_context=context)
    # All workers are started before the first job. Python 3.11 would start them one by one with the jobs, and one that
    # is just being started when another dies would never be told to end, and be waited for without end.
    pool._safe_to_dynamically_spawn_children = False  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
    return pool
