from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from imaging_pipeline.workers import map_chunks

POISON = 7


def square(numbers: Sequence[int]) -> list[int]:
    if POISON in numbers:
        os.kill(os.getpid(), signal.SIGKILL)
    return [number * number for number in numbers]


def lost(number: int) -> list[int]:
    return [-number]


def test_results_come_in_the_order_of_the_items() -> None:
    results = map_chunks(square, list(range(100, 160)), workers=2, chunk_size=4, on_crash=lost)
    assert [value for chunk in results for value in chunk] == [n * n for n in range(100, 160)]


def test_an_item_that_kills_its_process_costs_itself_alone() -> None:
    results = map_chunks(square, list(range(12)), workers=2, chunk_size=4, on_crash=lost)
    assert [value for chunk in results for value in chunk] == [-n if n == POISON else n * n for n in range(12)]


LATE_WORKERS = """
import time
from concurrent.futures import ProcessPoolExecutor
from imaging_pipeline.workers import map_chunks
from imaging_pipeline_tests.test_workers import lost, square

start = ProcessPoolExecutor._spawn_process

def start_late(pool):
    time.sleep(1)
    start(pool)

if __name__ == "__main__":
    ProcessPoolExecutor._spawn_process = start_late
    results = map_chunks(square, [7, 8, 9, 10], workers=2, chunk_size=1, on_crash=lost)
    assert [value for chunk in results for value in chunk] == [-7, 64, 81, 100]
"""


def test_a_death_while_another_worker_is_started_ends(tmp_path: Path) -> None:
    """In a process of its own: what waits without end would not let this one end, either."""
    (tmp_path / "late.py").write_text(LATE_WORKERS)
    with subprocess.Popen([sys.executable, tmp_path / "late.py"], start_new_session=True) as process:
        try:
            assert process.wait(timeout=120) == 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_nothing_to_do_starts_no_process() -> None:
    assert list(map_chunks(square, [], workers=2, chunk_size=4, on_crash=lost)) == []
