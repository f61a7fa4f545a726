"""Recipes and rows made in memory, for tests of tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from imaging_pipeline.tensors.build import TensorSource, build_tensor
from imaging_pipeline.tensors.recipe import Recipe, load_recipe
from imaging_pipeline.tensors.shards import TensorRow
from imaging_pipeline_tests.dicom.images import image


def small_recipe(**changes: Any) -> Recipe:
    """The shipped recipe at 8 x 8, with ``changes``; a whole number as size is a square."""
    size = changes.pop("size", 8)
    square = (size, size) if isinstance(size, int) else size
    return replace(load_recipe("chest-xray-224"), size=square, **changes)


def source(number: int) -> TensorSource:
    return TensorSource(f"instance-{number}", f"2.25.{number}", f"patient-{number // 2}")


def radiograph(number: int) -> bytes:
    """A 10 x 8 image, another one for every number."""
    return image(np.random.default_rng(number).integers(0, 4096, (10, 8)).astype("u2"), bits_stored=12)


def rows(count: int, recipe: Recipe) -> list[TensorRow]:
    made = [build_tensor(source(number), radiograph(number), recipe) for number in range(count)]
    return [row for row in made if isinstance(row, TensorRow)]
