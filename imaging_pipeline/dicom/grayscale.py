"""Grayscale rendering: a decoded frame and the transformations that turn stored values into what a viewer shows.

Owns the frame and the pipeline of PS3.4 N.2: modality, VOI, presentation. Must not contain decoding, DICOM data sets
or resizing.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

_LUMINANCE: Final = (0.299, 0.587, 0.114)
"""Weights of R, G and B in Y, PS3.3 C.7.6.3.1.2."""

Pixels: TypeAlias = npt.NDArray[Any]
Values: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]


class WindowFunction(enum.StrEnum):
    """VOI LUT Function (0028,1056)."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True, slots=True)
class Rescale:
    """Rescale Slope and Intercept, PS3.3 C.11.1: output = slope x stored + intercept."""

    slope: float = 1.0
    intercept: float = 0.0

    def apply(self, values: Values) -> Values:
        """Modality values of stored ``values``, same shape."""
        return values * self.slope + self.intercept


@dataclass(frozen=True, slots=True, eq=False)
class LookupTable:
    """A Modality or VOI LUT, PS3.3 C.11.1.1 and C.11.2.1.1.

    Attributes:
        first: input value mapped to the first entry; smaller inputs get the first entry, larger ones the last.
        entries: outputs, uint16.
        bits: significant bits of an output.
    """

    first: int
    entries: npt.NDArray[np.uint16]
    bits: int

    def apply(self, values: Values) -> Values:
        """Entries for ``values``, same shape; a value between two integers takes the nearer one."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        outputs: Values = self.entries[index.astype(np.intp)].astype(np.float64)
        return outputs

    def brightness(self, values: Values) -> Values:
        """Entries for ``values`` as a share of the table's output range, 0 to 1."""
        return self.apply(values) / ((1 << self.bits) - 1)


@dataclass(frozen=True, slots=True)
class Window:
    """A VOI window in modality values, PS3.3 C.11.2.1.2 and C.11.2.1.3."""

    center: float
    width: float
    function: WindowFunction = WindowFunction.LINEAR

    def is_valid(self) -> bool:
        """Whether the width is one its function allows: at least 1 for LINEAR, above 0 for the others."""
        if not (math.isfinite(self.center) and math.isfinite(self.width)):
            return False
        return self.width >= 1 if self.function is WindowFunction.LINEAR else self.width > 0

    def brightness(self, values: Values) -> Values:
        """``values`` through the window, 0 to 1, same shape."""
        if self.function is WindowFunction.SIGMOID:
            # The same curve as 1 / (1 + exp(-4 (x - c) / w)), without overflow far from the centre.
            return 0.5 + 0.5 * np.tanh(2 * (values - self.center) / self.width)
        is_linear = self.function is WindowFunction.LINEAR
        center, width = (self.center - 0.5, self.width - 1) if is_linear else (self.center, self.width)
        if width == 0:
            return np.where(values > center, 1.0, 0.0)
        return np.clip((values - center) / width + 0.5, 0.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One decoded frame and what is needed to show it.

    Attributes:
        stored: stored values (H, W) of a grayscale frame, any integer or float dtype; (H, W, 3) of a colour frame.
        photometric: ``MONOCHROME1``, ``MONOCHROME2`` or, for every kind of colour, ``RGB``.
        bits_stored: significant bits of a stored value.
        number_of_frames: frames of the object this one comes from.
        modality: Modality (0008,0060), or empty.
        body_part: Body Part Examined (0018,0015), or empty.
        modality_lut: stored values to modality values.
        views: alternative VOI transformations: the VOI LUTs first, then the windows.
        padding: lowest and highest stored value that is no image, or None (PS3.3 C.7.5.1.1.2).
        is_inverted: the lowest value is shown white.
        spacing_mm: distance between rows and between columns, or None.
        pixel_aspect: height of a pixel divided by its width.
    """

    stored: Pixels
    photometric: str
    bits_stored: int
    number_of_frames: int
    modality: str
    body_part: str
    modality_lut: Rescale | LookupTable
    views: tuple[LookupTable | Window, ...]
    padding: tuple[float, float] | None
    is_inverted: bool
    spacing_mm: tuple[float, float] | None
    pixel_aspect: float

    @property
    def is_color(self) -> bool:
        """Whether a pixel has three samples."""
        return self.stored.ndim == 3


def render(frame: Frame, *, window: int = 0) -> npt.NDArray[np.float32]:
    """The frame as displayed: modality, VOI, then presentation transformation (PS3.4 N.2).

    Without a VOI LUT or a valid window the modality values of the pixels that are no padding are spread from
    black to white. Padding is shown black. Colour becomes luminance.

    Args:
        frame: what `decode_frame` returned.
        window: index into ``frame.views``; not looked at when there is none.

    Returns:
        float32 array (H, W) in [0, 1], 0 is black.

    Raises:
        ValueError: the frame has views, but none with this index.
    """
    if frame.is_color:
        return _luminance(frame)
    padding = _padding_mask(frame)
    # Float pixels may hold NaN and a hostile rescale may overflow; both end as black.
    with np.errstate(over="ignore", invalid="ignore"):
        image = _map_pixels(frame, _view(frame, window, padding))
    if padding is not None:
        image[padding] = 0
    return image


def _view(frame: Frame, window: int, padding: Mask | None) -> LookupTable | Window:
    if not frame.views:
        low, high = _value_range(frame, padding)
        return Window((low + high) / 2, high - low, WindowFunction.LINEAR_EXACT)
    if not 0 <= window < len(frame.views):
        raise ValueError(f"expected a view index below {len(frame.views)}, found {window}")
    return frame.views[window]


def _value_range(frame: Frame, padding: Mask | None) -> tuple[float, float]:
    """Lowest and highest modality value of the image, padding and values that are not finite left out."""
    if frame.bits_stored == 1:
        return 0.0, 1.0
    stored = frame.stored if padding is None else frame.stored[~padding]
    if stored.dtype.kind == "f":
        stored = stored[np.isfinite(stored)]
    if stored.size == 0:
        return 0.0, 0.0
    if isinstance(frame.modality_lut, Rescale):
        stored = np.array([stored.min(), stored.max()])
    values = frame.modality_lut.apply(stored.astype(np.float64))
    return float(values.min()), float(values.max())


def _map_pixels(frame: Frame, view: LookupTable | Window) -> npt.NDArray[np.float32]:
    """All transformations are by value, so they run once per distinct value where that is less work."""
    stored = frame.stored
    if stored.dtype.kind == "f" or stored.itemsize > 4:
        return _brightness(frame, view, stored.astype(np.float64))
    low, high = int(stored.min()), int(stored.max())
    if high - low >= stored.size:
        return _brightness(frame, view, stored.astype(np.float64))
    table = _brightness(frame, view, np.arange(low, high + 1, dtype=np.float64))
    return table[np.subtract(stored, low, dtype=np.int64)]


def _brightness(frame: Frame, view: LookupTable | Window, stored: Values) -> npt.NDArray[np.float32]:
    shown = view.brightness(frame.modality_lut.apply(stored))
    oriented = 1.0 - shown if frame.is_inverted else shown
    return np.nan_to_num(oriented.astype(np.float32), copy=False)


def _padding_mask(frame: Frame) -> Mask | None:
    if frame.padding is None:
        return None
    low, high = frame.padding
    return (frame.stored >= low) & (frame.stored <= high)


def _luminance(frame: Frame) -> npt.NDArray[np.float32]:
    weights = np.array(_LUMINANCE, dtype=np.float32) / np.float32(2**frame.bits_stored - 1)
    return np.clip(frame.stored.astype(np.float32) @ weights, 0.0, 1.0)
