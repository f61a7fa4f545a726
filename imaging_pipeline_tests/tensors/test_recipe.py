"""Recipes: their file and their digest."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.settings import Settings
from imaging_pipeline.tensors import recipe as recipe_module
from imaging_pipeline.tensors.recipe import (
    FULL_RANGE,
    Crop,
    FrameChoice,
    Recipe,
    ResizeMode,
    TensorType,
    Values,
    VolumeGrid,
    load_recipe,
    shipped_recipes,
)
from imaging_pipeline.tensors.selection import Selection
from imaging_pipeline.tensors.storage import ShardStore
from imaging_pipeline_tests.conftest import environment
from imaging_pipeline_tests.tensors.rows import small_recipe

VALID: dict[str, Any] = {
    "name": "mine",
    "select": {"modalities": ["DX"], "body_parts": ["CHEST"]},
    "size": 16,
    "dtype": "uint8",
}
VOLUME: dict[str, Any] = {"spacing_mm": [2, 1, 1], "size": [4, 5, 6]}


def written(folder: Path, **changes: Any) -> Path:
    """A recipe's file; a key with a dot is one of a section, None takes a key away."""
    content: dict[str, Any] = deepcopy(VALID)
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        place = content.setdefault(section, {}) if section else content
        if value is None:
            place.pop(name, None)
        else:
            place[name] = value
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_shipped_recipes_are_whole() -> None:
    shapes = {name: (load_recipe(name).shape, load_recipe(name).dtype) for name in shipped_recipes()}

    assert shapes == {
        "chest-xray-224": ((1, 224, 224), TensorType.UINT8),
        "chest-xray-512": ((1, 512, 512), TensorType.UINT16),
        "ct-volume": ((1, 128, 256, 256), TensorType.UINT16),
    }


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
    assert load_recipe("chest-xray-224").select.takes(modality, body_part) is selected


def test_an_empty_body_part_is_left_out_when_the_recipe_says_so(tmp_path: Path) -> None:
    assert not load_recipe(written(tmp_path)).select.takes("DX", None)


def test_without_body_parts_any_is_taken_and_views_are_asked_for(tmp_path: Path) -> None:
    select = load_recipe(written(tmp_path, **{"select.body_parts": None, "select.view_positions": ["pa", "AP"]})).select

    assert select.takes("DX", None, "PA")
    assert select.takes("dx", "HAND", " ap")
    assert not select.takes("DX", None, "LL")
    assert not select.takes("DX", None, None)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("size", 0, "1 to 4096"),
        ("size", "224", "1 to 4096"),
        ("size", True, "1 to 4096"),
        ("size", [1, 2, 3], "[height, width]"),
        ("resize", "crop", "fit or stretch"),
        ("crop", "middle", "none or border or center"),
        ("frames", 1, "first or middle or all"),
        ("values", "hu", "displayed or modality"),
        ("window", -1, "an index from 0"),
        ("window", [40, 0], "[centre, width]"),
        ("window", [40, float("nan")], "[centre, width]"),
        ("range", [3, 3], "[lowest, highest]"),
        ("dtype", "int8", "uint8 or uint16 or float32"),
        ("channels", 2, "1 or 3"),
        ("channels", True, "1 or 3"),
        ("select.modalities", "DX", "a list"),
        ("select.modalities", [], "at least one"),
        ("select.body_parts", [5], "a list"),
        ("select.allow_missing_body_part", "yes please", "true or false"),
        ("select.where", " ", "text"),
        ("volume.spacing_mm", [1, 1], "above 0"),
        ("volume.spacing_mm", [1, 1, 0], "above 0"),
        ("volume.size", 8, "[slices, rows, columns]"),
        ("volume.minimum_slices", 1, "from 2"),
        ("volume.gap_tolerance", 0, "above 0"),
        ("name", " ", "text"),
        ("name", "../up", "letters"),
    ],
)
def test_a_wrong_value_is_refused_with_key_found_and_allowed(
    key: str, value: object, allowed: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_recipe(written(tmp_path, **({"volume": dict(VOLUME)} if "volume" in key else {}), **{key: value}))

    assert repr(key) in str(caught.value)
    assert repr(value) in str(caught.value)
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"size": None}, "'size' is needed"),
        ({"volume": VOLUME}, "not both"),
        ({"size": None, "volume": VOLUME, "channels": 3}, "channels: 1"),
        ({"size": None, "volume": VOLUME, "crop": "center"}, "crop"),
        ({"size": None, "volume": VOLUME, "frames": "all"}, "frames"),
        ({"size": None, "volume": VOLUME | {"size": [4096, 4096, 4096]}}, "elements"),
        ({"values": "modality"}, "range"),
        ({"range": [0, 1]}, "range"),
        ({"values": "modality", "range": [0, 1], "window": "full"}, "window"),
        ({"values": "modality", "range": [0, 1], "channels": 3}, "channels: 1"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=told):
        load_recipe(written(tmp_path, **changes))


def test_what_is_not_said_has_a_default(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, size=[16, 8]))

    assert (recipe.frames, recipe.values, recipe.range, recipe.window) == (FrameChoice.FIRST, Values.DISPLAYED, None, 0)
    assert (recipe.crop, recipe.resize, recipe.correct_pixel_aspect) == (Crop.NONE, ResizeMode.FIT, True)
    assert (recipe.shape, recipe.volume, recipe.select.where) == ((1, 16, 8), None, None)
    assert load_recipe(written(tmp_path, size=None, volume=VOLUME)).volume == VolumeGrid((2, 1, 1), (4, 5, 6), 2, 0.1)


def test_missing_and_unknown_keys_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="dtype"):
        load_recipe(written(tmp_path, dtype=None))
    with pytest.raises(ConfigurationError, match="sise"):
        load_recipe(written(tmp_path, sise=3))
    with pytest.raises(ConfigurationError, match=r"select: .*modalities.* missing"):
        load_recipe(written(tmp_path, **{"select.modalities": None}))
    with pytest.raises(ConfigurationError, match="select: expected a mapping"):
        load_recipe(written(tmp_path, select="DX"))
    with pytest.raises(ConfigurationError, match="chest-xray-224"):
        load_recipe("no-such-recipe")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(ConfigurationError, match="mapping"):
        load_recipe(tmp_path / "list.yaml")


def test_the_digest_changes_with_every_field_and_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_recipe()
    other: dict[str, Any] = {
        "name": "other",
        "select": Selection(("MG",)),
        "frames": FrameChoice.ALL,
        "values": Values.MODALITY,
        "range": (0.0, 1.0),
        "window": FULL_RANGE,
        "crop": Crop.BORDER,
        "resize": ResizeMode.STRETCH,
        "size": (9, 8),
        "correct_pixel_aspect": False,
        "dtype": TensorType.FLOAT32,
        "channels": 3,
        "volume": VolumeGrid((1, 1, 1), (8, 8, 8)),
    }
    assert other.keys() == {field.name for field in fields(Recipe)}

    digests = {replace(recipe, **{key: value}).digest for key, value in other.items()} | {recipe.digest}
    monkeypatch.setattr(recipe_module, "CODE_VERSION", 0)
    digests.add(recipe.digest)

    assert len(digests) == len(other) + 2


def test_the_digest_does_not_depend_on_the_order_of_codes(tmp_path: Path) -> None:
    first = load_recipe(written(tmp_path, **{"select.modalities": ["DX", "CR"]})).digest

    assert load_recipe(written(tmp_path, **{"select.modalities": ["cr", "DX"]})).digest == first


def test_the_recipe_that_the_page_shows_is_one(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "recipe.md"
    (tmp_path / "shown.yaml").write_text(page.read_text("utf-8").split("```yaml\n")[1].split("```")[0])

    assert load_recipe(tmp_path / "shown.yaml").shape == (1, 256, 320)


def test_an_installation_may_have_several_recipes_the_first_of_which_is_the_models(tmp_path: Path) -> None:
    def workspace(recipes: str) -> Workspace:
        return Workspace(Settings.from_environment(environment(tmp_path, RECIPE=recipes)))

    several = workspace("chest-xray-512, ct-volume")
    assert [recipe.name for recipe in several.recipes()] == ["chest-xray-512", "ct-volume"]
    assert several.recipe().name == "chest-xray-512"
    assert several.chain_version() != workspace("chest-xray-512").chain_version()
    with pytest.raises(ConfigurationError, match="same name"):
        workspace("chest-xray-224,chest-xray-224").recipes()
    with pytest.raises(ConfigurationError, match="make images"):
        workspace("ct-volume").recipe()


def test_shards_are_where_the_settings_say(tmp_path: Path) -> None:
    def shards(**settings: str) -> ShardStore:
        return Workspace(Settings.from_environment(environment(tmp_path, **settings))).shards()

    assert shards().location == str(tmp_path / "research" / "tensors")
    bucket = shards(TENSOR_FILES="s3://bucket/some/prefix", SHARD_COMPRESSION="lz4", SHARD_BYTES="1000")
    assert (bucket.location, bucket.compression, bucket.shard_bytes) == ("s3://bucket/some/prefix", "lz4", 1000)
    assert bucket.cache == tmp_path / "research" / "tensor_cache"
    for wrong in ({"TENSOR_FILES": "https://host/x"}, {"TENSOR_FILES": "s3://bucket"}, {"SHARD_COMPRESSION": "zip"}):
        with pytest.raises(ConfigurationError):
            shards(**wrong)
