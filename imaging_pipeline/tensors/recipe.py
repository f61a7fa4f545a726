"""Recipes: which images become tensors, and how, as data with a digest.

Owns the recipe file and its validation. Must not contain decoding, resizing, storage or torch.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.shipped import load_yaml, shipped_names
from imaging_pipeline.tensors.selection import Selection, check_condition

CODE_VERSION: Final = 3
"""Raised whenever this package makes other tensors from the same recipe and bytes; part of every digest."""

LARGEST_SIZE: Final = 4096
"""Upper limit of a tensor's edge in pixels."""

LARGEST_ELEMENTS: Final = 2**28
"""Upper limit of a tensor's elements: a volume of 512 x 512 x 1024."""

FULL_RANGE: Final = "full"
"""A window from the lowest to the highest value of the image."""

_PACKAGE: Final = "imaging_pipeline.tensors"


class FrameChoice(enum.StrEnum):
    """Which frames of an image become tensors."""

    FIRST = "first"
    MIDDLE = "middle"
    ALL = "all"


class Values(enum.StrEnum):
    """DISPLAYED: brightness as a viewer shows it; MODALITY: Hounsfield units and the like, spread over ``range``."""

    DISPLAYED = "displayed"
    MODALITY = "modality"


class Crop(enum.StrEnum):
    """BORDER takes away outer lines of one value; CENTER takes the largest central part of the tensor's aspect."""

    NONE = "none"
    BORDER = "border"
    CENTER = "center"


class ResizeMode(enum.StrEnum):
    """FIT keeps the aspect and pads with black; STRETCH fills the whole tensor."""

    FIT = "fit"
    STRETCH = "stretch"


class TensorType(enum.StrEnum):
    """Element type of a tensor; the integer types spread black to white over their whole range."""

    UINT8 = "uint8"
    UINT16 = "uint16"
    FLOAT32 = "float32"

    @property
    def white(self) -> float:
        """The value of full brightness."""
        return {"uint8": 255.0, "uint16": 65535.0}.get(self.value, 1.0)


@dataclass(frozen=True, slots=True)
class VolumeGrid:
    """The grid a series is resampled to, and which series are fit for it.

    Attributes:
        spacing_mm: between slices, rows and columns of the tensor.
        size: slices, rows, columns.
        minimum_slices: series with fewer make no tensor.
        gap_tolerance: a distance between neighbours that is larger than the median by more than this share is a gap.
    """

    spacing_mm: tuple[float, float, float]
    size: tuple[int, int, int]
    minimum_slices: int = 2
    gap_tolerance: float = 0.1


@dataclass(frozen=True, slots=True)
class Recipe:
    """How images are chosen and turned into tensors (channels, height, width), or series into volumes.

    Attributes:
        name: what people call it.
        select: which images are taken.
        frames: which frames of an image; each becomes a tensor.
        values: what the elements stand for.
        range: modality values that become 0 and white; only with ``values: modality``.
        window: index into the image's own VOI LUTs and windows, centre and width in modality values, or `FULL_RANGE`;
            an image without a VOI LUT or window is shown from its lowest to its highest value.
        crop: what is cut off first.
        resize: how the rest gets to ``size``.
        size: rows and columns.
        correct_pixel_aspect: pixels that are not square are made so.
        dtype: element type.
        channels: 1: grayscale, colour becomes luminance; 3: red, green, blue, grayscale three times the same.
        volume: the grid of a volume, or None for images.
    """

    name: str
    select: Selection
    frames: FrameChoice
    values: Values
    range: tuple[float, float] | None
    window: int | str | tuple[float, float]
    crop: Crop
    resize: ResizeMode
    size: tuple[int, int]
    correct_pixel_aspect: bool
    dtype: TensorType
    channels: int
    volume: VolumeGrid | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of every tensor: channels, height, width; of a volume: channels, slices, rows, columns."""
        return (self.channels, *(self.volume.size if self.volume else self.size))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities it is meant for."""
        return self.select.modalities

    @property
    def digest(self) -> str:
        """SHA-256 over all fields and the code version, hex: equal digests make equal tensors from equal bytes."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical JSON of all fields and the code version."""
        return json.dumps(asdict(self) | {"code_version": CODE_VERSION}, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe that `to_json` described, as this version of the package makes it.

        Raises:
            ConfigurationError: it is no recipe of this package.
        """
        content = json.loads(text)
        del content["code_version"]
        return _recipe_of(_without_empty(content))


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return shipped_names(_PACKAGE, "recipes")


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Load a recipe that comes with the package, by name, or one from a YAML file.

    Raises:
        ConfigurationError: no such recipe, or a key is missing, unknown or has a value that is not allowed.
    """
    return _recipe_of(load_yaml(name_or_path, kind="recipe", package=_PACKAGE, folder="recipes"))


def _without_empty(content: Mapping[str, Any]) -> dict[str, Any]:
    """Without the keys that were not given, of sections too."""
    plain = {key: _without_empty(value) if isinstance(value, Mapping) else value for key, value in content.items()}
    return {key: value for key, value in plain.items() if value not in (None, [])}


def _recipe_of(content: Mapping[str, Any]) -> Recipe:
    found = _read("", content, _RECIPE)
    volume: VolumeGrid | None = found["volume"]
    if (volume is None) == (found["size"] is None):
        raise ConfigurationError("recipe: 'size' is needed, or 'volume' with a size of its own; not both")
    recipe = Recipe(**(found | {"size": volume.size[1:] if volume else found["size"]}))
    _refuse_contradictions(recipe)
    return recipe


def _refuse_contradictions(recipe: Recipe) -> None:
    contradictions = (
        (recipe.volume and recipe.channels != 1, "a volume has 'channels: 1'"),
        (recipe.volume and recipe.crop is not Crop.NONE, "a volume is cut by its grid: 'crop' cannot be given"),
        (recipe.volume and recipe.frames is not FrameChoice.FIRST, "a volume takes all frames: leave out 'frames'"),
        (
            (recipe.values is Values.MODALITY) != (recipe.range is not None),
            "'range' belongs to 'values: modality', which needs it",
        ),
        (recipe.values is Values.MODALITY and recipe.window != 0, "'window' belongs to 'values: displayed'"),
        (recipe.values is Values.MODALITY and recipe.channels != 1, "modality values have 'channels: 1'"),
        (math.prod(recipe.shape) > LARGEST_ELEMENTS, f"a tensor has at most {LARGEST_ELEMENTS:,} elements"),
    )
    for is_so, message in contradictions:
        if is_so:
            raise ConfigurationError(f"recipe: {message}")


_NEEDED: Final = object()


@dataclass(frozen=True, slots=True)
class _Key:
    """A key of the file: how its value is checked, and what it is when it is not given."""

    check: Callable[[str, object], Any]
    default: Any = _NEEDED


def _read(section: str, content: object, keys: Mapping[str, _Key]) -> dict[str, Any]:
    """Values of a mapping of the file by key, with defaults."""
    where = f"recipe: {section}: " if section else "recipe: "
    if not isinstance(content, dict):
        raise ConfigurationError(f"{where}expected a mapping of keys, found {type(content).__name__}")
    if unknown := sorted(map(str, content.keys() - keys.keys())):
        raise ConfigurationError(f"{where}found the unknown keys {unknown}, allowed are {sorted(keys)}")
    if missing := sorted(name for name in keys.keys() - content.keys() if keys[name].default is _NEEDED):
        raise ConfigurationError(f"{where}the keys {missing} are missing")
    prefix = f"{section}." if section else ""
    return {
        name: key.check(prefix + name, content[name]) if name in content else key.default for name, key in keys.items()
    }


def _refused(key: str, value: object, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"recipe: key {key!r}: found {value!r}, allowed is {allowed}")


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _refused(key, value, "text")
    return value.strip()


def _name(key: str, value: object) -> str:
    """A name that can be the name of a folder and an entry of a list."""
    name = _text(key, value)
    if not all(character.isalnum() or character in "-_." for character in name) or not name[0].isalnum():
        raise _refused(key, value, "text of letters, digits, '-', '_' and '.'")
    return name


def _condition(key: str, value: object) -> str:
    condition = _text(key, value)
    check_condition(condition)
    return condition


def _codes(key: str, value: object) -> tuple[str, ...]:
    """A set of codes: upper case, sorted, so that their order in the file does not change the digest."""
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise _refused(key, value, "a list of text with at least one entry")
    return tuple(sorted({item.strip().upper() for item in value}))


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _refused(key, value, "true or false")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_edge(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_SIZE


def _size(key: str, value: object) -> tuple[int, int]:
    edges: list[Any] = value if isinstance(value, list) else [value, value]
    if len(edges) != 2 or not all(map(_is_edge, edges)):
        raise _refused(key, value, f"a whole number from 1 to {LARGEST_SIZE}, or two as [height, width]")
    return edges[0], edges[1]


def _grid_size(key: str, value: object) -> tuple[int, int, int]:
    if not isinstance(value, list) or len(value) != 3 or not all(map(_is_edge, value)):
        raise _refused(key, value, f"[slices, rows, columns], whole numbers from 1 to {LARGEST_SIZE}")
    return value[0], value[1], value[2]


def _spacing(key: str, value: object) -> tuple[float, float, float]:
    if not isinstance(value, list) or len(value) != 3 or not all(_is_number(item) and item > 0 for item in value):
        raise _refused(key, value, "[between slices, between rows, between columns] in mm, above 0")
    return float(value[0]), float(value[1]), float(value[2])


def _minimum(key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 2:
        raise _refused(key, value, "a whole number from 2")
    return value


def _tolerance(key: str, value: object) -> float:
    if not isinstance(value, int | float) or not _is_number(value) or value <= 0:
        raise _refused(key, value, "a share above 0, as 0.1")
    return float(value)


def _range(key: str, value: object) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2 or not all(map(_is_number, value)) or value[0] >= value[1]:
        raise _refused(key, value, "[lowest, highest] modality value")
    return float(value[0]), float(value[1])


def _window(key: str, value: object) -> int | str | tuple[float, float]:
    if value in ("first", FULL_RANGE):
        return 0 if value == "first" else FULL_RANGE
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)) and value[1] > 0:
        return float(value[0]), float(value[1])
    raise _refused(key, value, "first, full, an index from 0, or [centre, width]")


def _channels(key: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value in (1, 3):
        return value
    raise _refused(key, value, "1 or 3")


def _one_of(kind: type[enum.StrEnum]) -> Callable[[str, object], enum.StrEnum]:
    def check(key: str, value: object) -> enum.StrEnum:
        if value not in list(kind):
            raise _refused(key, value, " or ".join(kind))
        return kind(str(value))

    return check


def _selection(key: str, value: object) -> Selection:
    return Selection(**_read(key, value, _SELECTION))


def _volume(key: str, value: object) -> VolumeGrid:
    return VolumeGrid(**_read(key, value, _VOLUME))


_SELECTION: Final[Mapping[str, _Key]] = {
    "modalities": _Key(_codes),
    "body_parts": _Key(_codes, ()),
    "allow_missing_body_part": _Key(_flag, default=False),
    "view_positions": _Key(_codes, ()),
    "where": _Key(_condition, None),
}
_VOLUME: Final[Mapping[str, _Key]] = {
    "spacing_mm": _Key(_spacing),
    "size": _Key(_grid_size),
    "minimum_slices": _Key(_minimum, 2),
    "gap_tolerance": _Key(_tolerance, 0.1),
}
_RECIPE: Final[Mapping[str, _Key]] = {
    "name": _Key(_name),
    "select": _Key(_selection),
    "frames": _Key(_one_of(FrameChoice), FrameChoice.FIRST),
    "values": _Key(_one_of(Values), Values.DISPLAYED),
    "range": _Key(_range, None),
    "window": _Key(_window, 0),
    "crop": _Key(_one_of(Crop), Crop.NONE),
    "resize": _Key(_one_of(ResizeMode), ResizeMode.FIT),
    "size": _Key(_size, None),
    "correct_pixel_aspect": _Key(_flag, default=True),
    "dtype": _Key(_one_of(TensorType)),
    "channels": _Key(_channels, 1),
    "volume": _Key(_volume, None),
}
