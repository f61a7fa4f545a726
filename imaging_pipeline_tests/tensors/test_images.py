"""From a frame to the pixels of a tensor: values, windows, crops, sizes, channels and types."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from imaging_pipeline.dicom.pixels import decode_frame
from imaging_pipeline.errors import PoisonInput
from imaging_pipeline.tensors.images import fitted, image_tensor, quantized
from imaging_pipeline.tensors.recipe import FULL_RANGE, Crop, Recipe, ResizeMode, TensorType, Values
from imaging_pipeline_tests.dicom.images import image
from imaging_pipeline_tests.tensors.rows import small_recipe

HOUNSFIELD = {"values": Values.MODALITY, "range": (-1000.0, 1000.0), "dtype": TensorType.FLOAT32}


def fit(plane: npt.NDArray[Any], recipe: Recipe) -> npt.NDArray[Any]:
    """The tensor of a picture that is rendered already."""
    return quantized(fitted(plane.astype(np.float32)[np.newaxis], recipe), recipe.dtype)


def tensor(stored: npt.NDArray[Any], recipe: Recipe, **elements: Any) -> npt.NDArray[Any]:
    return image_tensor(decode_frame(image(stored, **elements)), recipe)


def steps() -> npt.NDArray[np.uint16]:
    """8 x 8 pixels whose rows hold 0, 100, … 700."""
    return np.repeat(np.arange(8, dtype=np.uint16) * 100, 8).reshape(8, 8)


def test_fit_keeps_the_aspect_and_pads_with_black() -> None:
    made = fit(np.ones((20, 10)), small_recipe())

    assert made.shape == (1, 8, 8)
    assert made.dtype == np.uint8
    assert made[0].tolist() == [[0, 0, 255, 255, 255, 255, 0, 0]] * 8


def test_fit_into_an_oblong_touches_the_nearer_edges() -> None:
    made = fit(np.ones((10, 10)), small_recipe(size=(4, 8)))

    assert made[0].tolist() == [[0, 0, 255, 255, 255, 255, 0, 0]] * 4


def test_stretch_fills_the_square() -> None:
    assert fit(np.ones((20, 10)), small_recipe(resize=ResizeMode.STRETCH)).min() == 255


def test_pixels_that_are_not_square_are_corrected_unless_the_recipe_says_otherwise() -> None:
    frame = decode_frame(image(np.tile(np.array([0, 9], dtype="u2"), (4, 4)), PixelAspectRatio=[2, 1]))

    corrected = image_tensor(frame, small_recipe())[0]
    squat = image_tensor(frame, small_recipe(correct_pixel_aspect=False))[0]

    assert corrected.any(axis=1).tolist() == [True] * 8
    assert squat.any(axis=1).tolist() == [False] * 2 + [True] * 4 + [False] * 2


@pytest.mark.parametrize(
    ("dtype", "expected"), [("uint8", [0, 64, 255]), ("uint16", [0, 16384, 65535]), ("float32", [0, 0.25, 1])]
)
def test_an_image_of_the_right_size_is_only_quantized(dtype: str, expected: list[float]) -> None:
    rendered = np.zeros((8, 8))
    rendered[0, :3] = [0, 0.25, 1]

    made = fit(rendered, small_recipe(dtype=TensorType(dtype)))

    assert made.dtype == np.dtype(dtype)
    assert made[0, 0, :3].tolist() == expected


def test_shrinking_averages_instead_of_dropping_lines() -> None:
    stripes = np.zeros((512, 512))
    stripes[::2] = 1

    assert np.abs(fit(stripes, small_recipe()).astype(int) - 127).max() <= 2


def test_extreme_shapes_keep_at_least_one_pixel() -> None:
    assert fit(np.ones((1, 5000)), small_recipe()).max() == 255


def test_a_border_of_one_value_is_cut_off_on_each_side_and_a_blank_image_stays() -> None:
    recipe = small_recipe(crop=Crop.BORDER, resize=ResizeMode.STRETCH, dtype=TensorType.FLOAT32)
    inner = np.linspace(0.2, 0.8, 64).reshape(8, 8)
    black = np.pad(inner, ((2, 3), (5, 7)))
    black_and_white = np.pad(inner, ((0, 3), (0, 7)), constant_values=1.0)
    black_and_white = np.pad(black_and_white, ((2, 0), (0, 0)))

    assert np.allclose(fit(black, recipe)[0], inner, atol=1e-6)
    assert np.allclose(fit(black_and_white, recipe)[0], inner, atol=1e-6)
    assert fit(np.full((12, 20), 0.5), recipe).tolist() == np.full((1, 8, 8), 0.5).tolist()


def test_a_central_crop_has_the_aspect_of_the_tensor() -> None:
    plane = np.zeros((8, 16))
    plane[:, 4:12] = 1

    assert fit(plane, small_recipe(crop=Crop.CENTER)).min() == 255
    assert fit(plane.T, small_recipe(crop=Crop.CENTER)).min() == 255
    assert fit(plane, small_recipe(crop=Crop.CENTER, size=(8, 16)))[0, 0].tolist() == [0] * 4 + [255] * 8 + [0] * 4


def test_a_central_crop_knows_the_shape_of_pixels() -> None:
    frame = decode_frame(image(np.full((4, 8), 9, dtype="u2"), PixelAspectRatio=[2, 1], WindowCenter=4, WindowWidth=2))

    assert image_tensor(frame, small_recipe(crop=Crop.CENTER)).min() == 255


def test_the_window_of_the_recipe_goes_before_those_of_the_image() -> None:
    own = {"WindowCenter": [350, 50], "WindowWidth": [700, 100]}
    made = {
        choice: tensor(steps(), small_recipe(window=choice, dtype=TensorType.FLOAT32), **own)[0, :, 0]
        for choice in (0, 1, FULL_RANGE, (250.0, 300.0))
    }

    assert np.allclose(made[FULL_RANGE], np.arange(8) / 7)
    assert np.allclose(made[(250.0, 300.0)], np.clip((np.arange(8) - 1) / 3, 0, 1))
    assert made[1].tolist()[2:] == [1] * 6
    assert np.abs(made[0] - np.arange(8) / 7).max() < 0.01


def test_an_image_without_the_window_that_is_asked_for_is_refused_and_one_without_any_is_shown_whole() -> None:
    with pytest.raises(PoisonInput, match="index"):
        tensor(steps(), small_recipe(window=1), WindowCenter=3, WindowWidth=5)
    assert tensor(steps(), small_recipe())[0, :, 0].tolist() == [0, 36, 73, 109, 146, 182, 219, 255]


def test_modality_values_are_shares_of_the_range_and_padding_is_none() -> None:
    stored = np.full((8, 8), 1024, dtype=np.uint16)
    stored[0], stored[1], stored[2], stored[3] = 24, 2024, 1524, 4000
    stored[7] = 63000
    made = tensor(
        stored,
        small_recipe(**HOUNSFIELD),
        RescaleSlope=1,
        RescaleIntercept=-1024,
        PixelPaddingValue=63000,
        WindowCenter=3,
        WindowWidth=5,
    )

    assert made[0, :, 0].tolist() == [0, 1, 0.75, 1, 0.5, 0.5, 0.5, 0]


def test_whole_hounsfield_units_come_back_from_16_bits() -> None:
    values = np.arange(-1024, 3072, dtype=np.int16).reshape(64, 64)
    recipe = small_recipe(values=Values.MODALITY, range=(-1024.0, 3071.0), dtype=TensorType.UINT16, size=64)
    made = tensor(values, recipe, RescaleSlope=1, RescaleIntercept=0)

    assert np.array_equal(np.rint(-1024 + 4095 * (made[0] / 65535)), values)


def test_colour_stays_in_three_channels_and_becomes_luminance_in_one() -> None:
    stored = np.zeros((8, 8, 3), dtype=np.uint8)
    stored[..., 0], stored[..., 2] = 200, 100

    color = tensor(stored, small_recipe(channels=3), photometric="RGB")
    gray = tensor(stored, small_recipe(), photometric="RGB")

    assert color.shape == (3, 8, 8)
    assert color[:, 0, 0].tolist() == [200, 0, 100]
    assert gray[0, 0, 0] == round(0.299 * 200 + 0.114 * 100)


def test_a_grayscale_image_is_three_times_the_same_in_three_channels() -> None:
    one, three = (tensor(steps(), small_recipe(channels=channels)) for channels in (1, 3))

    assert three.shape == (3, 8, 8)
    assert all(np.array_equal(channel, one[0]) for channel in three)
    assert three.flags.c_contiguous


def test_colour_has_no_modality_values() -> None:
    with pytest.raises(PoisonInput, match="grayscale"):
        tensor(np.zeros((8, 8, 3), dtype=np.uint8), small_recipe(**HOUNSFIELD), photometric="RGB")


def film(photometric: str, *, colors: int = 1) -> bytes:
    """A picture of 1,200 x 1,000 pixels of 12 bits, or 8 in colour, with noise and straight edges."""
    noise = np.random.default_rng(2).normal(0, 40, (1200, 1000))
    stored = np.clip(2000 + 1500 * np.sin(np.mgrid[0:1200, 0:1000][0] / 90) + noise, 0, 4095).astype("u2")
    stored[400:700, 300:360] = 4000
    if colors == 3:
        stored = np.stack([stored // 16, 255 - stored // 16, stored // 32], axis=-1).astype("u1")
        return image(stored, photometric=photometric)
    return image(stored, photometric=photometric, bits_stored=12, WindowCenter=2000, WindowWidth=3000)


@pytest.mark.parametrize(
    ("photometric", "colors", "channels"), [("MONOCHROME1", 1, 1), ("MONOCHROME2", 1, 1), ("RGB", 3, 1), ("RGB", 3, 3)]
)
@pytest.mark.parametrize("crop", list(Crop))
def test_bytes_are_computed_as_bytes_and_off_by_one_level_at_most(
    photometric: str, colors: int, channels: int, crop: Crop
) -> None:
    frame = decode_frame(film(photometric, colors=colors))
    recipe = small_recipe(size=(224, 224), channels=channels, crop=crop)

    in_bytes = image_tensor(frame, recipe)
    exact = 255 * image_tensor(frame, dataclasses.replace(recipe, dtype=TensorType.FLOAT32))

    assert in_bytes.dtype == np.uint8
    assert np.abs(in_bytes - exact).max() < 1.6
    assert np.abs(in_bytes - exact).mean() < 0.5
