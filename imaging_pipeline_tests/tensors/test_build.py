"""From objects to rows: keys, figures, failures and worker processes."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import pytest

from imaging_pipeline.dicom.pixels import Frame
from imaging_pipeline.errors import Reason, Stage
from imaging_pipeline.tensors import build
from imaging_pipeline.tensors.build import TensorFailure, TensorSource, build_tensor, build_tensors
from imaging_pipeline.tensors.recipe import FrameChoice, Recipe, TensorType, Values
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
    assert (row.frame_number, row.series_key, row.source_instance_keys) == (1, None, ())
    assert (row.minimum, row.maximum, row.mean, row.standard_deviation) == (0, 255, 127.5, 127.5)
    assert (row.shape, row.dtype) == ((1, 8, 8), "uint8")
    assert row.tensor_sha256 == hashlib.sha256(b"\xff" * 32 + b"\0" * 32).hexdigest()
    assert row.source_content_sha256 == hashlib.sha256(data).hexdigest()


def test_another_recipe_makes_another_key() -> None:
    first, second = (rows(1, recipe)[0] for recipe in (small_recipe(), small_recipe(size=16)))

    assert first.tensor_key != second.tensor_key


def test_an_object_that_is_no_image_is_a_failure_with_its_key_and_a_reason() -> None:
    failure = build_tensor(source(1), b"no image", small_recipe())

    assert isinstance(failure, TensorFailure)
    assert failure.subject_key == "instance-1"
    assert failure.issue.stage is Stage.PIXEL
    assert failure.issue.reason in (Reason.PIXEL_UNSUPPORTED, Reason.PIXEL_UNDECODABLE)


def cine(count: int) -> tuple[TensorSource, bytes]:
    """Frames of 8 x 8 pixels, the n-th of them all n, counted from 1."""
    stored = np.repeat(np.arange(1, count + 1, dtype=np.uint8), 64).reshape(count, 8, 8)
    data = image(stored, WindowCenter=127.5, WindowWidth=255)
    return TensorSource("key", "2.25.9", "P1", "series", count), data


def frames(choice: FrameChoice, count: int) -> list[tuple[int | None, int]]:
    made = build_tensors(*cine(count), [small_recipe(frames=choice)])[0]
    assert isinstance(made, list)
    assert len({row.tensor_key for row in made}) == len(made)
    return [(row.frame_number, int(row.array.max())) for row in made]


def test_a_recipe_says_which_frames_become_tensors() -> None:
    assert frames(FrameChoice.FIRST, 4) == [(1, 1)]
    assert frames(FrameChoice.MIDDLE, 4) == [(3, 3)]
    assert frames(FrameChoice.MIDDLE, 1) == [(1, 1)]
    assert frames(FrameChoice.ALL, 4) == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_several_recipes_decode_each_frame_once_and_only_those_they_want(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    decode_frames = build.decode_frames

    def counting(data: bytes, indices: Iterable[int]) -> Iterator[Frame]:
        for index, frame in zip(indices, decode_frames(data, indices), strict=True):
            decoded.append(index)
            yield frame

    monkeypatch.setattr(build, "decode_frames", counting)
    recipes = [small_recipe(frames=FrameChoice.MIDDLE), small_recipe(), small_recipe(frames=FrameChoice.MIDDLE, size=4)]
    middle, first, small = build_tensors(*cine(5), recipes)

    assert decoded == [0, 2]
    assert [[row.frame_number for row in made] for made in (middle, first, small)] == [[3], [1], [3]]
    assert small[0].shape == (1, 4, 4)


def test_a_recipe_that_an_image_does_not_fit_fails_alone() -> None:
    color = image(np.zeros((8, 8, 3), dtype=np.uint8), photometric="RGB")
    hounsfield = small_recipe(values=Values.MODALITY, range=(0.0, 1.0))

    failed, made = build_tensors(source(0), color, [hounsfield, small_recipe()])

    assert isinstance(failed, TensorFailure)
    assert failed.issue.reason is Reason.PIXEL_UNSUPPORTED
    assert isinstance(made, list)


def test_an_object_that_breaks_off_keeps_no_tensors_of_a_recipe_that_wants_all_frames() -> None:
    _, data = cine(4)
    stated_more = TensorSource("key", "2.25.9", "P1", "series", 5)

    every, first = build_tensors(stated_more, data, [small_recipe(frames=FrameChoice.ALL), small_recipe()])

    assert isinstance(every, TensorFailure)
    assert isinstance(first, list)


def test_a_tensor_that_two_recipes_make_alike_has_two_keys() -> None:
    def key(recipe: Recipe) -> str:
        row = build_tensor(source(0), radiograph(0), recipe)
        assert isinstance(row, TensorRow)
        return row.tensor_key

    assert len({key(small_recipe()), key(small_recipe(name="other")), key(small_recipe(dtype=TensorType.UINT16))}) == 3


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
