"""Rendering: what a decoded frame looks like, and what its values mean.

The grayscale pipeline of PS3.4 N.2: modality, VOI, presentation. Must not contain decoding, data sets or resizing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from imaging_pipeline.dicom.frame import Frame, Mask, Pixels, Rescale, Values, View, Window, WindowFunction

__all__ = ["modality_values", "render", "render_color", "render_levels"]

_LUMINANCE: Final = (0.299, 0.587, 0.114)
"""Weights of R, G and B in Y, PS3.3 C.7.6.3.1.2."""

_GREATEST_ERROR: Final = 1e-6
"""Brightness that may be lost where a window is computed in single precision."""

Picture: TypeAlias = npt.NDArray[np.float32]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Function: TypeAlias = Callable[[Values], Pixels]


def render(frame: Frame, *, window: int | str | View | None = 0) -> Picture:
    """The frame as displayed: modality, VOI, then presentation transformation (PS3.4 N.2).

    Without a VOI LUT or a valid window the modality values of the pixels that are no padding are spread from
    black to white. Padding is shown black. Colour becomes luminance.

    Args:
        frame: what `decode_frame` returned.
        window: index into ``frame.views``, the explanation of one of them, or a view of your own; not looked at when
            it is an index and the frame has no views. None: the full range of values.

    Returns:
        float32 array (H, W) in [0, 1], 0 is black.

    Raises:
        ValueError: the frame has no such view.
    """
    if frame.is_color:
        return _luminance(frame)
    return _mapped(frame, window, white=1.0)


def render_levels(frame: Frame, *, window: int | str | View | None = 0) -> Bytes:
    """The frame as displayed, as `render` shows it, in 256 levels of grey; quicker than rounding what `render` gives.

    Args:
        frame: what `decode_frame` returned.
        window: as for `render`.

    Returns:
        uint8 array (H, W), 0 is black.

    Raises:
        ValueError: the frame has no such view.
    """
    if frame.is_color:
        return np.asarray(Image.fromarray(_eight_bits(frame.stored, frame.bits_stored)).convert("L"))
    picture = _mapped(frame, window, white=255.0)
    return np.rint(picture, out=picture).astype(np.uint8)


def render_color(frame: Frame, *, window: int | str | View | None = 0) -> Bytes:
    """The frame as displayed, in colour; a grayscale frame has three equal samples.

    Args:
        frame: what `decode_frame` returned.
        window: as for `render`; colour has no windows.

    Returns:
        uint8 array (H, W, 3), RGB.

    Raises:
        ValueError: the frame has no such view.
    """
    if not frame.is_color:
        return np.repeat(render_levels(frame, window=window)[..., np.newaxis], 3, axis=2)
    return _eight_bits(frame.stored, frame.bits_stored)


def modality_values(frame: Frame) -> Picture:
    """What the stored values mean after the modality transformation (PS3.3 C.11.1): of CT images Hounsfield units.

    Padding takes the lowest value of the image, so that interpolation and ranges see nothing that was not measured.
    Values that are not finite count as padding.

    Args:
        frame: a grayscale frame.

    Returns:
        float32 array (H, W); all 0 when there is nothing but padding.

    Raises:
        ValueError: the frame is in colour, which has no modality values.
    """
    if frame.is_color:
        raise ValueError("expected a grayscale frame: colour has no modality values")
    with np.errstate(over="ignore", invalid="ignore"):
        values = _by_value(frame, lambda stored: frame.modality_lut.apply(stored).astype(np.float32))
    outside = ~np.isfinite(values)
    if frame.padding is not None:
        outside |= _is_padding(frame.stored, frame.padding)
    if outside.any():
        inside = values[~outside]
        values[outside] = inside.min() if inside.size else 0
    return values


def _chosen(frame: Frame, window: int | str | View) -> View:
    return frame.view(window) if isinstance(window, int | str) else window


def _full_range(frame: Frame) -> Window:
    low, high = _value_range(frame)
    return Window((low + high) / 2, high - low, WindowFunction.LINEAR_EXACT)


def _value_range(frame: Frame) -> tuple[float, float]:
    """Lowest and highest modality value of the image, padding and values that are not finite left out."""
    if frame.bits_stored == 1:
        return 0.0, 1.0
    stored = frame.stored
    if frame.padding is not None:
        stored = stored[~_is_padding(stored, frame.padding)]
    if stored.dtype.kind == "f":
        stored = stored[np.isfinite(stored)]
    if stored.size == 0:
        return 0.0, 0.0
    if isinstance(frame.modality_lut, Rescale):
        stored = np.array([stored.min(), stored.max()])
    values = frame.modality_lut.apply(stored.astype(np.float64))
    return float(values.min()), float(values.max())


def _mapped(frame: Frame, window: int | str | View | None, *, white: float) -> Picture:
    """Brightness from 0 to ``white`` of a grayscale frame."""
    # Float pixels may hold NaN and a hostile rescale may overflow; both end as black.
    with np.errstate(over="ignore", invalid="ignore"):
        view = _full_range(frame) if window is None or (window == 0 and not frame.views) else _chosen(frame, window)
        return _map_pixels(frame, view, white)


def _map_pixels(frame: Frame, view: View, white: float) -> Picture:
    ramp = _ramp_of_stored(frame, view)
    if ramp is None:

        def brightness(stored: Values) -> Picture:
            shown = view.brightness(frame.modality_lut.apply(stored))
            shown = frame.presentation.present(shown) if frame.presentation else shown
            shown = 1.0 - shown if frame.is_inverted else shown
            return np.nan_to_num(shown * white, copy=False).astype(np.float32)

        picture = _by_value(frame, brightness)
    else:
        low, scale = ramp
        picture = np.subtract(frame.stored, low, dtype=np.float32)
        picture *= scale * np.float32(white)
        np.clip(picture, 0, white, out=picture)
    if frame.padding is not None:
        picture[_is_padding(frame.stored, frame.padding)] = 0
    return picture


def _ramp_of_stored(frame: Frame, view: View) -> tuple[np.float32, np.float32] | None:
    """The stored value that is black, and the brightness one step adds, when single precision is enough for both."""
    if not isinstance(view, Window) or view.function is WindowFunction.SIGMOID:
        return None
    if frame.presentation or not isinstance(frame.modality_lut, Rescale):
        return None
    if frame.stored.dtype.kind == "f" or frame.stored.itemsize > 2:
        return None
    low, width = view.ramp()
    if width == 0:
        return None
    black, scale = (low - frame.modality_lut.intercept) / frame.modality_lut.slope, frame.modality_lut.slope / width
    if frame.is_inverted:
        black, scale = black + 1 / scale, -scale
    rounded = np.float32(black)
    is_enough = abs(float(rounded) - black) * abs(scale) < _GREATEST_ERROR
    return (rounded, np.float32(scale)) if is_enough else None


def _by_value(frame: Frame, function: Function) -> Pixels:
    """A function of the stored values, evaluated once per distinct value where that is less work."""
    stored = frame.stored
    if stored.dtype.kind == "f" or stored.itemsize > 4:
        return function(stored.astype(np.float64))
    low, high = int(stored.min()), int(stored.max())
    if high - low >= stored.size:
        return function(stored.astype(np.float64))
    table = function(np.arange(low, high + 1, dtype=np.float64))
    return table.take(np.subtract(stored, low, dtype=np.intp))


def _is_padding(stored: Pixels, padding: tuple[float, float]) -> Mask:
    low, high = padding
    return np.equal(stored, low) if low == high else (stored >= low) & (stored <= high)


def _luminance(frame: Frame) -> Picture:
    weights = np.array(_LUMINANCE, dtype=np.float32) / np.float32(2**frame.bits_stored - 1)
    luminance = frame.stored.astype(np.float32) @ weights
    return np.clip(luminance, 0, 1, out=luminance)


def _eight_bits(samples: Pixels, bits: int) -> Bytes:
    """Samples of ``bits`` bits as bytes: the whole range becomes 0 to 255."""
    if bits == 8 and samples.dtype == np.uint8:
        return samples
    levels: Bytes = np.rint(np.clip(samples / (2**bits - 1), 0, 1) * 255).astype(np.uint8)
    return levels
