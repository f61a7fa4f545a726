"""What a data set says on how a frame of it is shown: LUTs, windows, padding, polarity, size of a pixel."""

from __future__ import annotations

import functools
import math
from itertools import chain, repeat
from types import MappingProxyType
from typing import Any, Final

from pydicom import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, XRayAngiographicImageStorage, XRayRadiofluoroscopicImageStorage

from imaging_pipeline.dicom._luts import lookup_table
from imaging_pipeline.dicom.frame import LookupTable, Rescale, View, Window, WindowFunction
from imaging_pipeline.errors import PoisonInput, Reason

_PLAUSIBLE_ASPECT: Final = 10.0
"""Pixels longer than this times their width are taken for a wrong header, and for square."""

_NO_MODALITY_LUT: Final = frozenset(
    {
        XRayAngiographicImageStorage,
        XRayRadiofluoroscopicImageStorage,
        UID("1.2.840.10008.5.1.4.1.1.12.3"),  # X-Ray Angiographic Bi-Plane, retired
    }
)
"""Classes whose Modality LUT undoes the logarithm of the detector and is no step of display (PS3.3 C.8.7.1.1.2)."""

_FUNCTIONS: Final = MappingProxyType({str(function): function for function in WindowFunction})


def display_of(ds: Dataset, index: int, *, is_color: bool) -> dict[str, Any]:
    """The fields of a `Frame` that say how it is shown.

    Args:
        ds: the object.
        index: frame index from 0.
        is_color: the frame is in colour, which has no modality, VOI or presentation transformation.

    Raises:
        PoisonInput: PIXEL_UNSUPPORTED or PIXEL_UNDECODABLE for a table or a rescale that cannot be used.
    """
    spacing = _spacing_mm(ds, index)
    common = {
        "modality": text(ds, "Modality").upper(),
        "body_part": text(ds, "BodyPartExamined").upper(),
        "spacing_mm": spacing,
        "pixel_aspect": _pixel_aspect(ds, spacing),
    }
    if is_color:
        return common
    presentation = _presentation_lut(ds)
    return common | {
        "modality_lut": _modality_lut(ds, index),
        "views": _views(ds, index),
        "presentation": presentation,
        "padding": _padding(ds),
        "is_inverted": presentation is None and _is_inverted(ds),
    }


def value_of(ds: Dataset, keyword: str) -> Any:
    """The value of an element, or None: what `Dataset.get` gives, without the price of an element that is not there."""
    tag = _tag(keyword)
    return ds[tag].value if tag in ds else None


@functools.cache
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)


def text(ds: Dataset, keyword: str) -> str:
    """The value of an element as text, without outer spaces."""
    return str(value_of(ds, keyword) or "").strip()


def _modality_lut(ds: Dataset, index: int) -> Rescale | LookupTable:
    """PS3.3 C.11.1: a Modality LUT, else slope and intercept; an incomplete pair and a slope of 0 mean nothing."""
    if value_of(ds, "SOPClassUID") in _NO_MODALITY_LUT:
        return Rescale()
    if items := value_of(ds, "ModalityLUTSequence"):
        return lookup_table(items[0], "00283000[0].00283006", is_signed=_is_signed(ds))
    group = _functional_group(ds, index, "PixelValueTransformationSequence")
    slope, intercept = _numbers(group, "RescaleSlope"), _numbers(group, "RescaleIntercept")
    if not (slope and intercept and slope[0]):
        return Rescale()
    if not (math.isfinite(slope[0]) and math.isfinite(intercept[0])):
        raise PoisonInput(Reason.PIXEL_UNSUPPORTED, "expected numbers as rescale slope and intercept")
    return Rescale(slope[0], intercept[0])


def _views(ds: Dataset, index: int) -> tuple[View, ...]:
    """PS3.3 C.11.2: every VOI LUT, then every window whose width is legal."""
    group = _functional_group(ds, index, "FrameVOILUTSequence")
    tables = [
        lookup_table(item, f"00283010[{position}].00283006", is_signed=_is_signed(ds))
        for position, item in enumerate(value_of(group, "VOILUTSequence") or ())
        if "LUTDescriptor" in item and "LUTData" in item
    ]
    function = _FUNCTIONS.get(text(group, "VOILUTFunction").upper(), WindowFunction.LINEAR)
    names = chain(_texts(group, "WindowCenterWidthExplanation"), repeat(""))
    values = zip(_numbers(group, "WindowCenter"), _numbers(group, "WindowWidth"), names, strict=False)
    windows = [Window(center, width, function, name) for center, width, name in values]
    return (*tables, *(window for window in windows if window.is_valid()))


def _presentation_lut(ds: Dataset) -> LookupTable | None:
    """PS3.3 C.11.4: its first input is 0 and its last the number of entries less one."""
    items = value_of(ds, "PresentationLUTSequence")
    if not items or "LUTData" not in items[0]:
        return None
    return lookup_table(items[0], "20500010[0].00283006", is_signed=False)


def _padding(ds: Dataset) -> tuple[float, float] | None:
    """Pixel Padding Value and, when there is one, its Range Limit, in either order (PS3.3 C.7.5.1.1.2)."""
    for kind in ("", "Float", "DoubleFloat"):
        bounds = (*_numbers(ds, f"{kind}PixelPaddingValue"), *_numbers(ds, f"{kind}PixelPaddingRangeLimit"))
        if bounds and all(map(math.isfinite, bounds)):
            if not kind and _is_signed(ds):
                bounds = tuple(bound - 2**16 if bound >= 2**15 else bound for bound in bounds)
            return min(bounds), max(bounds)
    return None


def _is_inverted(ds: Dataset) -> bool:
    """Photometric Interpretation (PS3.3 C.7.6.3.1.2); a Presentation LUT Shape, when present, decides (C.11.6)."""
    shape = text(ds, "PresentationLUTShape").upper()
    return shape == "INVERSE" if shape else text(ds, "PhotometricInterpretation").upper() == "MONOCHROME1"


def _spacing_mm(ds: Dataset, index: int) -> tuple[float, float] | None:
    sources = (
        (_functional_group(ds, index, "PixelMeasuresSequence"), "PixelSpacing"),
        (ds, "ImagerPixelSpacing"),
        (ds, "NominalScannedPixelSpacing"),
    )
    for source, keyword in sources:
        spacing = _numbers(source, keyword)
        if len(spacing) == 2 and all(math.isfinite(value) and value > 0 for value in spacing):
            return spacing[0], spacing[1]
    return None


def _pixel_aspect(ds: Dataset, spacing: tuple[float, float] | None) -> float:
    """Height over width of a pixel: from the spacing, else Pixel Aspect Ratio (PS3.3 C.7.6.3.1.7), else 1."""
    pair = spacing or _numbers(ds, "PixelAspectRatio")
    if len(pair) != 2 or not all(math.isfinite(value) and value > 0 for value in pair):
        return 1.0
    aspect = pair[0] / pair[1]
    return aspect if 1 / _PLAUSIBLE_ASPECT <= aspect <= _PLAUSIBLE_ASPECT else 1.0


def _is_signed(ds: Dataset) -> bool:
    return bool(value_of(ds, "PixelRepresentation") == 1)


def _functional_group(ds: Dataset, index: int, keyword: str) -> Dataset:
    """Where a frame's attributes are: its own functional group, the shared one, or the object (PS3.3 C.7.6.16)."""
    per_frame = (value_of(ds, "PerFrameFunctionalGroupsSequence") or ())[index : index + 1]
    shared = (value_of(ds, "SharedFunctionalGroupsSequence") or ())[:1]
    for group in (*per_frame, *shared):
        if items := value_of(group, keyword):
            return items[0]  # type: ignore[no-any-return]
    return ds


def _numbers(ds: Dataset, keyword: str) -> tuple[float, ...]:
    """All values of a numeric element; NaN where one is blank, a single NaN when the element is no number at all."""
    try:
        value = value_of(ds, keyword)
        if value is None or value == "":
            return ()
        values = [value] if isinstance(value, str | int | float) or not hasattr(value, "__iter__") else value
        return tuple(math.nan if item in (None, "") else float(item) for item in values)
    except (ValueError, TypeError, ArithmeticError):
        return (math.nan,)


def _texts(ds: Dataset, keyword: str) -> list[str]:
    value = value_of(ds, keyword) or ()
    return [str(item).strip() for item in ([value] if isinstance(value, str) else value)]
