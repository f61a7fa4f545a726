from __future__ import annotations

import os
import signal
from collections.abc import Sequence

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


def test_nothing_to_do_starts_no_process() -> None:
    assert list(map_chunks(square, [], workers=2, chunk_size=4, on_crash=lost)) == []
