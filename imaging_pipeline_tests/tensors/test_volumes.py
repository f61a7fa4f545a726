"""Volumes: which slices make one, in what order, and what the grid gets of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.tensors.recipe import Recipe, TensorType, Values, VolumeGrid
from imaging_pipeline.tensors.volumes import Slice, stack_of, volume_tensor
from imaging_pipeline_tests.dicom.images import image
from imaging_pipeline_tests.tensors.rows import small_recipe

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SIZE = 6


def grid(**changes: Any) -> VolumeGrid:
    """The grid of the slices below as they are."""
    return replace(VolumeGrid((2.0, 1.0, 1.0), (5, SIZE, SIZE)), **changes)


def recipe(**changes: Any) -> Recipe:
    """Values from 0 to 1000 as shares of it."""
    values = {"values": Values.MODALITY, "range": (0.0, 1000.0), "dtype": TensorType.FLOAT32}
    return small_recipe(**values, volume=grid(**changes))


def slices(count: int = 5, orientation: tuple[float, ...] = AXIAL, step: float = 2.0, **changes: Any) -> list[Slice]:
    """Slices of 6 x 6 pixels above each other along the normal."""
    normal = np.cross(orientation[:3], orientation[3:])
    return [
        replace(
            Slice(f"i{number}", 1, tuple(number * step * normal + 10), orientation, (1.0, 1.0), SIZE, SIZE), **changes
        )
        for number in range(count)
    ]


def body(seed: int = 1) -> npt.NDArray[np.float64]:
    """Values (5, 6, 6) in whole numbers from 0 to 1000."""
    return np.random.default_rng(seed).integers(0, 1001, (5, SIZE, SIZE)).astype(np.float64)


def files(values: npt.NDArray[Any]) -> Callable[[str], bytes]:
    """Objects i0, i1, … with these pixels."""
    return lambda key: image(values[int(key[1:])].astype(np.uint16))


def volume(
    values: npt.NDArray[Any], places: Iterable[Slice], read: Callable[[str], bytes] | None = None, **changes: Any
) -> npt.NDArray[Any]:
    """The volume's one channel, in units of the values."""
    made = recipe(**changes)
    assert made.volume is not None
    tensor = volume_tensor(stack_of(list(places), made.volume), made, read or files(values))
    assert tensor.shape == made.shape
    assert tensor.dtype == np.float32
    scaled: npt.NDArray[Any] = tensor[0] * 1000
    return scaled


def test_a_grid_like_the_slices_holds_them_in_their_order_in_space() -> None:
    values = body()
    mixed = [slices()[number] for number in (3, 0, 4, 2, 1)]

    assert np.allclose(volume(values, mixed), values, atol=1e-3)


@pytest.mark.parametrize(
    "orientation", [AXIAL, CORONAL, (0.0, 1.0, 0.0, 0.0, 0.0, 1.0), (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)]
)
def test_slices_are_sorted_along_their_normal_whatever_it_is(orientation: tuple[float, ...]) -> None:
    values, places = body(), slices(orientation=orientation)
    downward = [replace(each, position=places[-1 - number].position) for number, each in enumerate(places)]

    assert np.allclose(volume(values, places), values, atol=1e-3)
    assert np.allclose(volume(values, downward), values[::-1], atol=1e-3)


def test_between_slices_and_pixels_values_are_interpolated() -> None:
    ramp = np.broadcast_to(np.arange(5).reshape(5, 1, 1) * 100.0, (5, SIZE, SIZE))
    finer = volume(ramp, slices(), spacing_mm=(1.0, 1.0, 1.0), size=(9, SIZE, SIZE))
    assert np.allclose(finer[:, 2, 2], np.arange(9) * 50, atol=1e-3)

    across = np.broadcast_to(np.arange(SIZE) * 100.0, (5, SIZE, SIZE))
    wider = volume(across, slices(), spacing_mm=(2.0, 1.0, 0.5), size=(5, SIZE, 2 * SIZE))
    assert np.allclose(wider[2, 2, 1:-1], np.arange(25, 500, 50), atol=1e-3)


def test_a_coarser_grid_averages_slices_instead_of_dropping_them() -> None:
    values = np.zeros((41, SIZE, SIZE))
    values[::2] = 1000  # the grid's slices lie on these
    coarse = volume(values, slices(41, step=1.0), spacing_mm=(8.0, 1.0, 1.0), size=(3, SIZE, SIZE))

    assert np.abs(coarse - 500).max() < 20


def test_outside_of_what_was_measured_the_volume_is_black() -> None:
    values = np.full((5, SIZE, SIZE), 800.0)
    large = volume(values, slices(), size=(9, SIZE + 4, SIZE + 2))

    inside = large[2:7, 2:-2, 1:-1]
    assert np.allclose(inside, 800, atol=1e-3)
    assert large.sum() == pytest.approx(inside.sum())


def test_a_grid_within_the_slices_is_a_cut_from_the_middle() -> None:
    values = body()

    assert np.allclose(volume(values, slices(), size=(3, 2, 4)), values[1:4, 2:4, 1:5], atol=1e-3)


def test_pixels_that_are_not_square_keep_their_proportions() -> None:
    values = np.zeros((5, 3, SIZE))
    values[:, 1] = 900
    flat = slices(rows=3, spacing=(2.0, 1.0))

    made = volume(values, flat)

    assert made.shape == (5, SIZE, SIZE)
    assert np.allclose(made[:, 2:4].mean(axis=(1, 2)), 900 * 0.75, atol=1)


def test_slices_of_a_tilted_gantry_are_put_straight() -> None:
    values = np.zeros((5, SIZE, SIZE))
    for number in range(5):
        values[number, 5 - number] = 600  # one row of the room, one pixel higher in each slice
    tilted = [replace(each, position=(10, 10.0 + number, 10 + 2.0 * number)) for number, each in enumerate(slices())]

    made = volume(values, tilted, size=(5, 10, SIZE))

    assert all((layer.argmax(axis=0) == made[0].argmax(axis=0)).all() for layer in made)
    assert np.allclose(made.max(axis=1), 600, atol=1)


def test_frames_of_one_object_are_slices_too_and_it_is_read_once() -> None:
    values, read = body(), []

    def enhanced(key: str) -> bytes:
        read.append(key)
        return image(values[::-1].astype(np.uint16))

    places = [replace(each, instance_key="one", frame_number=5 - number) for number, each in enumerate(slices())]

    assert np.allclose(volume(values, places, enhanced), values, atol=1e-3)
    assert read == ["one"]


def test_hounsfield_units_of_every_slice_are_its_own() -> None:
    def with_own_slope(key: str) -> bytes:
        number = int(key[1:]) + 1
        stored = np.full((SIZE, SIZE), 100 * number, np.uint16)
        return image(stored, RescaleSlope=1 / number, RescaleIntercept=50)

    assert np.allclose(volume(body(), slices(), with_own_slope), 150, atol=0.01)


def test_the_order_in_which_slices_are_given_changes_no_byte() -> None:
    values = body()
    forwards, backwards = (volume(values, places, spacing_mm=(1.3, 0.7, 0.9)) for places in (slices(), slices()[::-1]))

    assert forwards.tobytes() == backwards.tobytes()


@pytest.mark.parametrize(
    ("places", "told"),
    [
        (slices(1), "at least 2"),
        (slices(position=None), "position"),
        (slices(position=(1.0, float("nan"), 1.0)), "position"),
        ([*slices(4), slices(orientation=CORONAL)[4]], "orientation"),
        ([replace(each, orientation=None) for each in slices()], "orientation"),
        (slices(orientation=(1.0, 0.0, 0.0, 1.0, 0.0, 0.0), position=(0.0, 0.0, 0.0)), "right angle"),
        ([*slices(4), replace(slices()[4], spacing=(1.0, 1.1))], "pixel spacing"),
        (slices(spacing=(0.0, 1.0)), "above 0"),
        ([*slices(4), replace(slices()[4], rows=7)], "one size"),
        ([*slices(), replace(slices()[2], instance_key="twin")], "1 at a place"),
        ([each for number, each in enumerate(slices(6)) if number != 2], "1 gaps in 5"),
        ([*slices(4), replace(slices()[4], position=(10.0, 10.0, 18.3))], "gaps"),
    ],
)
def test_slices_that_make_no_volume_are_refused_with_a_reason_and_no_value(places: list[Slice], told: str) -> None:
    with pytest.raises(PoisonInput, match=told) as refusal:
        stack_of(places, grid())

    assert refusal.value.reason is Reason.PIXEL_UNSUPPORTED
    assert refusal.value.dicom_path


def test_the_recipe_says_how_many_slices_and_how_uneven_distances() -> None:
    uneven = [*slices(4), replace(slices()[4], position=(10.0, 10.0, 18.3))]
    assert len(stack_of(uneven, grid(gap_tolerance=0.2)).slices) == 5
    with pytest.raises(PoisonInput, match="at least 6 slices, found 5"):
        stack_of(slices(), grid(minimum_slices=6))


def test_pixels_that_are_not_as_the_header_says_are_refused() -> None:
    with pytest.raises(PoisonInput, match="size"):
        volume(np.zeros((5, 4, 4)), slices())


def test_a_spacing_that_no_scanner_has_costs_no_memory() -> None:
    with pytest.raises(PoisonInput, match="spacing"):
        volume(body(), slices(spacing=(1e-6, 1e-6)))
