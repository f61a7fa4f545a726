"""From objects to rows: keys, figures, failures and worker processes."""

from __future__ import annotations

import hashlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from imaging_pipeline.errors import Reason, Stage
from imaging_pipeline.tensors.build import TensorFailure, TensorSource, build_tensor, build_tensors
from imaging_pipeline.tensors.shards import TensorRow
from imaging_pipeline_tests.dicom.images import image
from imaging_pipeline_tests.tensors.rows import radiograph, rows, small_recipe, source


def test_a_row_carries_keys_digests_and_figures_of_its_tensor() -> None:
    recipe = small_recipe()
    stored = np.zeros((8, 8), dtype="u2")
    stored[:4] = 4095
    data = image(stored)

    row = build_tensor(TensorSource("key", "2.25.9", "P1"), data, recipe)

    assert isinstance(row, TensorRow)
    assert (row.instance_key, row.sop_instance_uid, row.patient_id) == ("key", "2.25.9", "P1")
    assert row.tensor_key == hashlib.sha256(f"key|{recipe.digest}".encode()).hexdigest()[:32]
    assert (row.minimum, row.maximum, row.mean, row.standard_deviation) == (0, 255, 127.5, 127.5)
    assert (row.shape, row.dtype) == ((1, 8, 8), "uint8")
    assert row.tensor_sha256 == hashlib.sha256(b"\xff" * 32 + b"\0" * 32).hexdigest()
    assert row.source_content_sha256 == hashlib.sha256(data).hexdigest()


def test_another_recipe_makes_another_key() -> None:
    first, second = (rows(1, recipe)[0] for recipe in (small_recipe(), small_recipe(size=16)))

    assert first.tensor_key != second.tensor_key


def test_every_object_gives_a_row_or_a_failure_in_order() -> None:
    objects = [(source(0), radiograph(0)), (source(1), b"no image"), (source(2), radiograph(2))]

    made = list(build_tensors(objects, small_recipe()))

    assert [item.instance_key for item in made] == ["instance-0", "instance-1", "instance-2"]
    failure = made[1]
    assert isinstance(failure, TensorFailure)
    assert failure.issue.stage is Stage.PIXEL
    assert failure.issue.reason in (Reason.PIXEL_UNSUPPORTED, Reason.PIXEL_UNDECODABLE)


def test_the_same_bytes_make_the_same_tensor_in_another_process() -> None:
    recipe = small_recipe()
    sources, objects = [source(0), source(1)], [radiograph(0), b"no image"]

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        row, failure = pool.map(partial(build_tensor, recipe=recipe), sources, objects)

    expected = rows(1, recipe)[0]
    assert isinstance(row, TensorRow)
    assert np.array_equal(row.array, expected.array)
    assert row.tensor_sha256 == expected.tensor_sha256
    assert failure == build_tensor(sources[1], objects[1], recipe)
