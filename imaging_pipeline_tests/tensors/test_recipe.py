"""Recipes: their file, their digest and the tensors they make."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from imaging_pipeline.dicom.pixels import decode_frame
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.tensors import recipe as recipe_module
from imaging_pipeline.tensors.recipe import Recipe, ResizeMode, TensorType, load_recipe
from imaging_pipeline_tests.dicom.images import image
from imaging_pipeline_tests.tensors.rows import small_recipe

VALID: dict[str, Any] = {
    "name": "mine",
    "modalities": ["DX"],
    "body_parts": ["CHEST"],
    "allow_missing_body_part": False,
    "size": 16,
    "resize": "fit",
    "correct_pixel_aspect": True,
    "dtype": "uint8",
    "channels": 1,
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in (VALID | changes).items() if value is not None}))
    return path


def test_the_shipped_recipe_makes_one_channel_of_224_bytes_square() -> None:
    recipe = load_recipe("chest-xray-224")

    assert recipe.shape == (1, 224, 224)
    assert recipe.dtype is TensorType.UINT8


@pytest.mark.parametrize(
    ("modality", "body_part", "selected"),
    [
        ("DX", "CHEST", True),
        ("cr ", " chest", True),
        ("CR", None, True),
        ("CR", "", True),
        ("CT", "CHEST", False),
        ("DX", "HAND", False),
        (None, "CHEST", False),
    ],
)
def test_the_shipped_recipe_selects_chest_radiographs(
    modality: str | None,
    body_part: str | None,
    selected: bool,
) -> None:
    assert load_recipe("chest-xray-224").selects(modality, body_part) is selected


def test_an_empty_body_part_is_left_out_when_the_recipe_says_so(tmp_path: Path) -> None:
    assert not load_recipe(written(tmp_path)).selects("DX", None)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("size", 0, "1 to 4096"),
        ("size", "224", "1 to 4096"),
        ("size", True, "1 to 4096"),
        ("resize", "crop", "fit or stretch"),
        ("dtype", "int8", "uint8 or uint16 or float32"),
        ("channels", 3, "1"),
        ("channels", True, "1"),
        ("modalities", "DX", "a list"),
        ("modalities", [], "at least one"),
        ("body_parts", [5], "a list"),
        ("allow_missing_body_part", "yes please", "true or false"),
        ("name", " ", "text"),
    ],
)
def test_a_wrong_value_is_refused_with_key_found_and_allowed(
    key: str, value: object, allowed: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_recipe(written(tmp_path, **{key: value}))

    assert repr(key) in str(caught.value)
    assert repr(value) in str(caught.value)
    assert allowed in str(caught.value)


def test_missing_and_unknown_keys_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="dtype"):
        load_recipe(written(tmp_path, dtype=None))
    with pytest.raises(ConfigurationError, match="sise"):
        load_recipe(written(tmp_path, sise=3))
    with pytest.raises(ConfigurationError, match="chest-xray-224"):
        load_recipe("no-such-recipe")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(ConfigurationError, match="mapping"):
        load_recipe(tmp_path / "list.yaml")


def test_the_digest_changes_with_every_field_and_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_recipe()
    other: dict[str, Any] = {
        "name": "other",
        "modalities": ("MG",),
        "body_parts": ("BREAST",),
        "allow_missing_body_part": False,
        "size": 9,
        "resize": ResizeMode.STRETCH,
        "correct_pixel_aspect": False,
        "dtype": TensorType.FLOAT32,
        "channels": 3,
    }
    assert other.keys() == {field.name for field in fields(Recipe)}

    digests = {replace(recipe, **{key: value}).digest for key, value in other.items()} | {recipe.digest}
    monkeypatch.setattr(recipe_module, "CODE_VERSION", 2)
    digests.add(recipe.digest)

    assert len(digests) == len(other) + 2


def test_the_digest_does_not_depend_on_the_order_of_codes(tmp_path: Path) -> None:
    first = load_recipe(written(tmp_path, modalities=["DX", "CR"])).digest

    assert load_recipe(written(tmp_path, modalities=["cr", "DX"])).digest == first


def test_fit_keeps_the_aspect_and_pads_with_black() -> None:
    tensor = small_recipe().apply(np.ones((20, 10), dtype=np.float32))

    assert tensor.shape == (1, 8, 8)
    assert tensor.dtype == np.uint8
    assert tensor[0].tolist() == [[0, 0, 255, 255, 255, 255, 0, 0]] * 8


def test_stretch_fills_the_square() -> None:
    assert small_recipe(resize=ResizeMode.STRETCH).apply(np.ones((20, 10), dtype=np.float32)).min() == 255


def test_pixels_that_are_not_square_are_corrected_unless_the_recipe_says_otherwise() -> None:
    frame = decode_frame(image(np.tile(np.array([0, 9], dtype="u2"), (4, 4)), PixelAspectRatio=[2, 1]))

    corrected = small_recipe().apply(frame)[0]
    squat = small_recipe(correct_pixel_aspect=False).apply(frame)[0]

    assert corrected.any(axis=1).tolist() == [True] * 8
    assert squat.any(axis=1).tolist() == [False] * 2 + [True] * 4 + [False] * 2


@pytest.mark.parametrize(
    ("dtype", "expected"), [("uint8", [0, 64, 255]), ("uint16", [0, 16384, 65535]), ("float32", [0, 0.25, 1])]
)
def test_an_image_of_the_right_size_is_only_quantized(dtype: str, expected: list[float]) -> None:
    rendered = np.zeros((8, 8), dtype=np.float32)
    rendered[0, :3] = [0, 0.25, 1]

    tensor = small_recipe(dtype=TensorType(dtype)).apply(rendered)

    assert tensor.dtype == np.dtype(dtype)
    assert tensor[0, 0, :3].tolist() == expected


def test_shrinking_averages_instead_of_dropping_lines() -> None:
    stripes = np.zeros((512, 512), dtype=np.float32)
    stripes[::2] = 1

    tensor = small_recipe().apply(stripes)

    assert np.abs(tensor.astype(int) - 127).max() <= 2


def test_extreme_shapes_keep_at_least_one_pixel() -> None:
    assert small_recipe().apply(np.ones((1, 5000), dtype=np.float32)).max() == 255
