"""A decoded frame and the transformations that turn its stored values into what a viewer shows.

Plain values and arithmetic, PS3.3 C.11. Must not contain decoding, DICOM data sets or the order of the steps.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

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
    """A Modality, VOI or Presentation LUT, PS3.3 C.11.1.1, C.11.2.1.1 and C.11.4.

    Attributes:
        first: input value mapped to the first entry; smaller inputs get the first entry, larger ones the last.
        entries: outputs, uint16.
        bits: significant bits of an output.
        explanation: LUT Explanation (0028,3003), or empty.
    """

    first: int
    entries: npt.NDArray[np.uint16]
    bits: int
    explanation: str = field(default="", repr=False)

    def apply(self, values: Values) -> Values:
        """Entries for ``values``, same shape; a value between two integers takes the nearer one."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        outputs: Values = self.entries[index.astype(np.intp)].astype(np.float64)
        return outputs

    def brightness(self, values: Values) -> Values:
        """Entries for ``values`` as a share of the table's output range, 0 to 1."""
        return self.apply(values) / ((1 << self.bits) - 1)

    def present(self, shown: Values) -> Values:
        """Brightness through the table as a Presentation LUT: black is its first input, white its last."""
        return self.brightness(self.first + shown * (len(self.entries) - 1))


@dataclass(frozen=True, slots=True)
class Window:
    """A VOI window in modality values, PS3.3 C.11.2.1.2 and C.11.2.1.3."""

    center: float
    width: float
    function: WindowFunction = WindowFunction.LINEAR
    explanation: str = field(default="", compare=False, repr=False)

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
        low, width = self.ramp()
        if width == 0:
            return np.where(values > low, 1.0, 0.0)
        return np.clip((values - low) / width, 0.0, 1.0)

    def ramp(self) -> tuple[float, float]:
        """Where a linear window leaves black, and how far from there it reaches white, in modality values."""
        is_exact = self.function is WindowFunction.LINEAR_EXACT
        center, width = (self.center, self.width) if is_exact else (self.center - 0.5, self.width - 1)
        return center - width / 2, width


View: TypeAlias = LookupTable | Window
"""A VOI transformation."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One decoded frame and what is needed to show it.

    Attributes:
        stored: stored values (H, W) of a grayscale frame, any integer or float dtype; (H, W, 3) of a colour frame. May
            be read-only.
        photometric: ``MONOCHROME1``, ``MONOCHROME2`` or, for every kind of colour, ``RGB``.
        bits_stored: significant bits of a stored value.
        index: which frame of its object it is, from 0.
        number_of_frames: frames of the object this one comes from.
        modality: Modality (0008,0060), or empty.
        body_part: Body Part Examined (0018,0015), or empty.
        spacing_mm: distance between rows and between columns, or None.
        pixel_aspect: height of a pixel divided by its width.
        modality_lut: stored values to modality values.
        views: alternative VOI transformations: the VOI LUTs first, then the windows.
        presentation: Presentation LUT, or None; what it gives is shown as it is.
        padding: lowest and highest stored value that is no image, or None (PS3.3 C.7.5.1.1.2).
        is_inverted: the lowest value is shown white.
    """

    stored: Pixels
    photometric: str
    bits_stored: int
    index: int
    number_of_frames: int
    modality: str
    body_part: str
    spacing_mm: tuple[float, float] | None
    pixel_aspect: float
    modality_lut: Rescale | LookupTable = Rescale()
    views: tuple[View, ...] = ()
    presentation: LookupTable | None = None
    padding: tuple[float, float] | None = None
    is_inverted: bool = False

    @property
    def is_color(self) -> bool:
        """Whether a pixel has three samples."""
        return self.stored.ndim == 3

    def view(self, choice: int | str) -> View:
        """A VOI transformation by its index in ``views``, or by its explanation, whose case does not matter.

        Raises:
            ValueError: the frame has no such view.
        """
        if isinstance(choice, str):
            wanted = choice.strip().casefold()
            found = [view for view in self.views if view.explanation.casefold() == wanted]
            if found:
                return found[0]
            raise ValueError(f"expected the explanation of one of the frame's {len(self.views)} views")
        if not 0 <= choice < len(self.views):
            raise ValueError(f"expected a view index below {len(self.views)}, found {choice}")
        return self.views[choice]
