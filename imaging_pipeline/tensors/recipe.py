"""Recipes: how a decoded frame becomes a tensor, as data with a digest.

Owns the recipe file, its validation, and resizing. Must not contain decoding, storage or torch.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image

from imaging_pipeline.dicom.grayscale import Frame, render
from imaging_pipeline.errors import ConfigurationError

CODE_VERSION: Final = 1
"""Raised whenever this package makes other tensors from the same recipe and bytes; part of every digest."""

LARGEST_SIZE: Final = 4096
"""Upper limit of a tensor's edge in pixels."""

_RECIPES: Final = "imaging_pipeline.tensors"


class ResizeMode(enum.StrEnum):
    """FIT keeps the aspect and pads with black to a square; STRETCH fills the square."""

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
class Recipe:
    """How images are chosen and turned into tensors (channels, size, size).

    Attributes:
        name: what people call it.
        modalities: Modality (0008,0060) values taken.
        body_parts: Body Part Examined (0018,0015) values taken.
        allow_missing_body_part: an empty body part is taken too.
        size: edge of the square in pixels.
        resize: how the image gets to that size.
        correct_pixel_aspect: pixels that are not square are made so first.
        dtype: element type.
        channels: always 1.
    """

    name: str
    modalities: tuple[str, ...]
    body_parts: tuple[str, ...]
    allow_missing_body_part: bool
    size: int
    resize: ResizeMode
    correct_pixel_aspect: bool
    dtype: TensorType
    channels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of every tensor: channels, height, width."""
        return self.channels, self.size, self.size

    @property
    def digest(self) -> str:
        """SHA-256 over all fields and the code version, hex: equal digests make equal tensors from equal bytes."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical JSON of all fields and the code version."""
        return json.dumps(asdict(self) | {"code_version": CODE_VERSION}, sort_keys=True, separators=(",", ":"))

    def selects(self, modality: str | None, body_part: str | None) -> bool:
        """Whether the recipe is meant for such images; case and outer spaces do not matter."""
        part = (body_part or "").strip().upper()
        is_part = part in self.body_parts if part else self.allow_missing_body_part
        return is_part and (modality or "").strip().upper() in self.modalities

    def apply(self, image: Frame | npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Make the tensor of one image.

        Args:
            image: a decoded frame, or one already rendered: float32 (H, W) in [0, 1] with square pixels.

        Returns:
            C-contiguous array (channels, size, size) of ``dtype``; 0 is black.

        Raises:
            ValueError: a frame has views, but not the first one.
        """
        aspect = image.pixel_aspect if isinstance(image, Frame) and self.correct_pixel_aspect else 1.0
        rendered = render(image) if isinstance(image, Frame) else image
        height, width = self._fitted(rendered.shape[0] * aspect, rendered.shape[1])
        canvas = np.zeros((self.size, self.size), dtype=np.float32)
        top, left = (self.size - height) // 2, (self.size - width) // 2
        canvas[top : top + height, left : left + width] = _resized(rendered, height, width)
        return np.stack([self._quantized(canvas)] * self.channels)

    def _fitted(self, height: float, width: float) -> tuple[int, int]:
        if self.resize is ResizeMode.STRETCH:
            return self.size, self.size
        scale = self.size / max(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _quantized(self, canvas: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        if self.dtype is TensorType.FLOAT32:
            return canvas
        levels: npt.NDArray[Any] = np.rint(canvas * np.float32(self.dtype.white)).astype(self.dtype.value)
        return levels


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Load a recipe that comes with the package, by name, or one from a YAML file.

    Raises:
        ConfigurationError: no such recipe, or a key is missing, unknown or has a value that is not allowed.
    """
    content = _parsed(name_or_path)
    keys = {field.name for field in fields(Recipe)}
    if unknown := sorted(map(str, content.keys() - keys)):
        raise ConfigurationError(f"recipe: found the unknown keys {unknown}, allowed are {sorted(keys)}")
    if missing := sorted(keys - content.keys()):
        raise ConfigurationError(f"recipe: the keys {missing} are missing")
    return Recipe(**{key: _CHECKS[key](key, value) for key, value in content.items()})


def _parsed(name_or_path: str | Path) -> Mapping[str, Any]:
    shipped = resources.files(_RECIPES) / "data" / "recipes" / f"{name_or_path}.yaml"
    path = Path(name_or_path)
    try:
        text = shipped.read_text("utf-8") if shipped.is_file() else path.read_text("utf-8")
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(
            f"recipe: expected the name of a shipped recipe ({_shipped_names()}) or a readable YAML file"
        ) from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"recipe: expected a mapping of keys, found {type(content).__name__}")
    return content


def _shipped_names() -> str:
    folder = resources.files(_RECIPES) / "data" / "recipes"
    return ", ".join(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir()))


def _resized(image: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """Antialiased with a triangle filter, which keeps values inside [0, 1]."""
    source = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32))
    resized = np.asarray(source.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
    return np.clip(resized, 0.0, 1.0)


def _refused(key: str, value: object, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"recipe: key {key!r}: found {value!r}, allowed is {allowed}")


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _refused(key, value, "text")
    return value.strip()


def _codes(key: str, value: object) -> tuple[str, ...]:
    """A set of codes: upper case, sorted, so that their order in the file does not change the digest."""
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise _refused(key, value, "a list of text with at least one entry")
    return tuple(sorted({item.strip().upper() for item in value}))


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _refused(key, value, "true or false")
    return value


def _size(key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST_SIZE:
        raise _refused(key, value, f"a whole number from 1 to {LARGEST_SIZE}")
    return value


def _one_channel(key: str, value: object) -> int:
    if value is not True and value == 1:
        return 1
    raise _refused(key, value, "1")


def _resize_mode(key: str, value: object) -> ResizeMode:
    if value not in list(ResizeMode):
        raise _refused(key, value, " or ".join(ResizeMode))
    return ResizeMode(str(value))


def _tensor_type(key: str, value: object) -> TensorType:
    if value not in list(TensorType):
        raise _refused(key, value, " or ".join(TensorType))
    return TensorType(str(value))


_CHECKS: Final[Mapping[str, Callable[[str, object], Any]]] = {
    "name": _text,
    "modalities": _codes,
    "body_parts": _codes,
    "allow_missing_body_part": _flag,
    "size": _size,
    "resize": _resize_mode,
    "correct_pixel_aspect": _flag,
    "dtype": _tensor_type,
    "channels": _one_channel,
}
