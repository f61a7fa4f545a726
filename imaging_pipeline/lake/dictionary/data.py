"""What the dictionary keeps: its shipped lists, and what it has worked out from the registry."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Hashable, Mapping
from importlib import resources
from typing import TypeVar

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.registry import Table

T = TypeVar("T")


def read_data(name: str) -> list[dict[str, str]]:
    """Rows of a CSV file of ``lake/data``."""
    text = resources.files("imaging_pipeline.lake").joinpath("data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def kept(function: Callable[..., T]) -> Callable[..., T]:
    """As ``functools.cache``, but worked out again when the registry is another one (the site's columns changed)."""
    results: dict[tuple[Hashable, ...], T] = {}
    seen: list[Mapping[str, Table]] = []

    @functools.wraps(function)
    def call(*arguments: Hashable) -> T:
        if not seen or seen[0] is not registry.tables():
            results.clear()
            seen[:] = [registry.tables()]
        if arguments not in results:
            results[arguments] = function(*arguments)
        return results[arguments]

    return call
