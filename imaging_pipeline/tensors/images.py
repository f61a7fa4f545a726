"""From a decoded frame to the pixels of a tensor: brightness, crop, size, element type.

Owns what a recipe says of one image. Must not contain decoding, storage or volumes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from imaging_pipeline.dicom.frame import View, Window, WindowFunction
from imaging_pipeline.dicom.pixels import Frame, modality_values, render, render_color, render_levels
from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.tensors.recipe import FULL_RANGE, Crop, Recipe, ResizeMode, TensorType, Values

_ONE_LEVEL: Final = 1 / 255
"""Lines whose brightness differs by no more than this from their corner's are a border: what 8 bits cannot tell."""

_CLOSE_ENOUGH: Final = 3.0
"""Averaging bytes down to this many times the size first (Pillow's ``reducing_gap``) moves real films by one level."""

Planes: TypeAlias = npt.NDArray[np.float32]
"""Brightness (channels, height, width) in [0, 1], 0 is black."""

Levels: TypeAlias = npt.NDArray[np.uint8]
"""The same in 256 levels."""


def image_tensor(frame: Frame, recipe: Recipe) -> npt.NDArray[Any]:
    """The tensor of one frame.

    Returns:
        C-contiguous array (channels, height, width) of the recipe's type; 0 is black.

    Raises:
        PoisonInput: PIXEL_UNSUPPORTED: the frame has no such window, or is in colour and has no modality values.
    """
    aspect = frame.pixel_aspect if recipe.correct_pixel_aspect else 1.0
    is_in_bytes = recipe.dtype is TensorType.UINT8 and recipe.values is Values.DISPLAYED
    if is_in_bytes:
        made = fitted(levels(frame, recipe), recipe, aspect)
    else:
        made = quantized(fitted(brightness(frame, recipe), recipe, aspect), recipe.dtype)
    return made if len(made) == recipe.channels else np.repeat(made, recipe.channels, axis=0)


def brightness(frame: Frame, recipe: Recipe) -> Planes:
    """What the recipe shows of a frame, at the size of the frame; one channel of a grayscale frame.

    Raises:
        PoisonInput: as `image_tensor`.
    """
    if recipe.values is Values.MODALITY:
        return _spread_over_range(frame, recipe)[np.newaxis]
    if recipe.channels == 3 and frame.is_color:
        return levels(frame, recipe).astype(np.float32) / np.float32(255)
    return _rendered(render, frame, recipe)[np.newaxis]


def levels(frame: Frame, recipe: Recipe) -> Levels:
    """`brightness` of a recipe that shows what a viewer does, in bytes: for tensors of bytes half the work.

    Raises:
        PoisonInput: as `image_tensor`.
    """
    if recipe.channels == 3 and frame.is_color:
        return np.moveaxis(render_color(frame), 2, 0)
    return _rendered(render_levels, frame, recipe)[np.newaxis]


def _rendered(renderer: Callable[..., npt.NDArray[Any]], frame: Frame, recipe: Recipe) -> npt.NDArray[Any]:
    try:
        return renderer(frame, window=_view(recipe))
    except ValueError:
        message = "expected an image with the VOI LUT or window of this index: see key 'window' of the recipe"
        raise PoisonInput(Reason.PIXEL_UNSUPPORTED, message, dicom_path="00281050") from None


def _view(recipe: Recipe) -> int | View | None:
    if recipe.window == FULL_RANGE:
        return None
    if isinstance(recipe.window, tuple):
        return Window(*recipe.window, WindowFunction.LINEAR_EXACT)
    assert isinstance(recipe.window, int)
    return recipe.window


def _spread_over_range(frame: Frame, recipe: Recipe) -> npt.NDArray[np.float32]:
    """Modality values of the recipe's range as shares of it; padding is 0."""
    if frame.is_color:
        message = "expected a grayscale image: colour has no modality values"
        raise PoisonInput(Reason.PIXEL_UNSUPPORTED, message, dicom_path="00280004")
    assert recipe.range is not None
    low, high = recipe.range
    values = (modality_values(frame) - np.float32(low)) / np.float32(high - low)
    shares: npt.NDArray[np.float32] = np.clip(values, 0, 1, out=values)
    if frame.padding is not None:
        first, last = frame.padding
        shares[(frame.stored >= first) & (frame.stored <= last)] = 0
    return shares


@dataclass(frozen=True, slots=True)
class Placement:
    """Which part of an image lies where in its tensor, in pixels.

    Attributes:
        taken: rows and columns of the image that are left after cropping.
        placed: rows and columns of the tensor they fill; around them it is black.
    """

    taken: tuple[slice, slice]
    placed: tuple[slice, slice]


def placement(planes: npt.NDArray[Any], recipe: Recipe, aspect: float = 1.0) -> Placement:
    """Where the recipe puts an image.

    Args:
        planes: brightness of a whole image, or its levels.
        recipe: what to make of it.
        aspect: height of a pixel divided by its width.
    """
    taken = _cropped(planes, recipe, aspect)
    (rows, columns), (height, width) = (part.stop - part.start for part in taken), recipe.size
    if recipe.resize is ResizeMode.FIT:
        scale = min(recipe.size[0] / (rows * aspect), recipe.size[1] / columns)
        height, width = (
            min(max(1, round(edge * scale)), most) for edge, most in ((rows * aspect, height), (columns, width))
        )
    top, left = (recipe.size[0] - height) // 2, (recipe.size[1] - width) // 2
    return Placement(taken, (slice(top, top + height), slice(left, left + width)))


def fitted(planes: npt.NDArray[Any], recipe: Recipe, aspect: float = 1.0) -> npt.NDArray[Any]:
    """Cropped and resized to the recipe's size; arguments as of `placement`."""
    place = placement(planes, recipe, aspect)
    height, width = (part.stop - part.start for part in place.placed)
    canvas = np.zeros((len(planes), *recipe.size), dtype=planes.dtype)
    for channel, plane in enumerate(planes):
        canvas[channel][place.placed] = resized(plane[place.taken], height, width)
    return canvas


def _cropped(planes: npt.NDArray[Any], recipe: Recipe, aspect: float) -> tuple[slice, slice]:
    """Rows and columns that are left."""
    _, rows, columns = planes.shape
    if recipe.crop is Crop.BORDER:
        top, bottom = _inside(planes)
        left, right = _inside(planes[:, top:bottom].swapaxes(1, 2))
        return slice(top, bottom), slice(left, right)
    if recipe.crop is Crop.CENTER:
        wanted = recipe.size[0] / recipe.size[1]
        height = min(rows, max(1, round(columns * wanted / aspect)))
        width = min(columns, max(1, round(rows * aspect / wanted)))
        top, left = (rows - height) // 2, (columns - width) // 2
        return slice(top, top + height), slice(left, left + width)
    return slice(0, rows), slice(0, columns)


def _inside(lines: npt.NDArray[Any]) -> tuple[int, int]:
    """First line that is no border, and the one behind the last; all lines when every one is a border."""
    from_first = _differs(lines, lines[:, :1, :1])
    from_last = _differs(lines, lines[:, -1:, -1:])
    if not from_first.any():
        return 0, lines.shape[1]
    return int(from_first.argmax()), lines.shape[1] - int(from_last[::-1].argmax())


def _differs(lines: npt.NDArray[Any], corner: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """For each line whether something in it is not as its corner, by more than one level."""
    one, kind = (1, np.int16) if lines.dtype == np.uint8 else (_ONE_LEVEL, np.float32)
    differs: npt.NDArray[np.bool_] = (np.abs(np.subtract(lines, corner, dtype=kind)) > one).any(axis=(0, 2))
    return differs


def resized(
    plane: npt.NDArray[Any], height: int, width: int, box: tuple[float, float, float, float] | None = None
) -> npt.NDArray[Any]:
    """A plane, or a box (left, top, right, bottom in pixels) of it, at another size.

    Antialiased with a triangle filter, which keeps values between the lowest and the highest; enlarging is bilinear.

    Args:
        plane: brightness, float32, or levels, uint8; (H, W).
        height: rows of the result.
        width: its columns.
        box: the part that is taken.

    Returns:
        Array (height, width) of the same type.
    """
    source = Image.fromarray(np.ascontiguousarray(plane))
    if plane.dtype == np.uint8:
        return np.asarray(source.resize((width, height), Image.Resampling.BILINEAR, box, reducing_gap=_CLOSE_ENOUGH))
    made = np.asarray(source.resize((width, height), Image.Resampling.BILINEAR, box), dtype=np.float32)
    return np.clip(made, 0.0, 1.0)


def quantized(planes: npt.NDArray[Any], dtype: TensorType) -> npt.NDArray[Any]:
    """Brightness as elements of a tensor, same shape; white is the greatest of an integer type."""
    if dtype is TensorType.FLOAT32:
        return np.ascontiguousarray(planes)
    elements: npt.NDArray[Any] = np.rint(planes * np.float32(dtype.white)).astype(dtype.value)
    return elements
