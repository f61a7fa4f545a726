"""Decoding: from the bytes of one DICOM object to one frame with what is needed to show it.

Owns the reading of the pixel modules and their corner cases; `render` is offered here too, as its other half. Must not
contain resizing, tensors or access to files, and never repeats what a decoder said, which may quote the object.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from io import BytesIO
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
    RLELossless,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
)

from imaging_pipeline.dicom.grayscale import Frame, LookupTable, Pixels, Rescale, Window, WindowFunction, render
from imaging_pipeline.errors import PoisonInput, Reason

__all__ = ["Frame", "decodable_transfer_syntaxes", "decode_frame", "render"]

MAX_FRAME_SAMPLES: Final = 2**28
"""Largest frame decoded, rows x columns x samples: above any radiograph, below what would exhaust a worker."""

_PLAUSIBLE_ASPECT: Final = 10.0
"""Pixels longer than this times their width are taken for a wrong header, and for square."""

_NATIVE_ENCODINGS: Final[Mapping[tuple[bool | None, bool | None], UID]] = MappingProxyType(
    {
        (True, True): ImplicitVRLittleEndian,
        (False, True): ExplicitVRLittleEndian,
        (False, False): ExplicitVRBigEndian,
    }
)

_PIXEL_KEYWORDS: Final = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

_NO_MODALITY_LUT: Final = frozenset(
    {
        XRayAngiographicImageStorage,
        XRayRadiofluoroscopicImageStorage,
        UID("1.2.840.10008.5.1.4.1.1.12.3"),  # X-Ray Angiographic Bi-Plane, retired
    }
)
"""Classes whose Modality LUT undoes the logarithm of the detector and is no step of display (PS3.3 C.8.7.1.1.2)."""

_DECODES_JPEG_12_BIT: Final = "pylibjpeg"
"""The only plugin for 12-bit samples; pydicom lists the others for this transfer syntax because of its 8-bit form."""

_TALKATIVE_LOGGERS: Final = ("pydicom", "pydicom.pixels.utils", "pydicom.pixels.decoders.base")


def decode_frame(data: bytes, frame: int = 0) -> Frame:
    """Decode one frame of a DICOM object.

    Args:
        data: the whole object; preamble and file meta information may be missing.
        frame: frame index from 0; no other frame is decoded.

    Returns:
        The frame with unused bits cleared, sign extended, and colour converted to RGB.

    Raises:
        PoisonInput: TRANSFER_SYNTAX_UNSUPPORTED, PIXEL_UNSUPPORTED or PIXEL_UNDECODABLE.
    """
    try:
        with _quiet():
            return _decode(data, frame)
    except (PoisonInput, MemoryError):
        raise
    except Exception:  # noqa: BLE001 - parser and codecs raise anything on hostile bytes; their text may quote values
        refusal = PoisonInput(Reason.PIXEL_UNDECODABLE, "expected decodable pixel data; the decoder refused it")
    # Raised out of the handler, so that the decoder's exception is not kept as the context of this one.
    raise refusal


def decodable_transfer_syntaxes() -> Mapping[str, tuple[str, tuple[str, ...]]]:
    """Transfer syntax UID to its name and the decoder plugins of this installation.

    Native transfer syntaxes need no plugin. JPEG Extended is listed for its 8-bit form; 12 bits need ``pylibjpeg``.
    """
    found = {}
    for uid in AllTransferSyntaxes:
        try:
            decoder = get_decoder(uid)
        except NotImplementedError:
            continue
        if decoder.is_available:
            found[str(uid)] = (uid.name, decoder.available_plugins)
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep pydicom's remarks, which quote values of the object, out of warnings and logs meanwhile."""

    def mute(_record: logging.LogRecord) -> bool:
        return False

    loggers = [logging.getLogger(name) for name in _TALKATIVE_LOGGERS]
    for logger in loggers:
        logger.addFilter(mute)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(mute)


def _decode(data: bytes, index: int) -> Frame:
    ds = dcmread(BytesIO(data), force=True)
    stored, photometric, bits_stored = _stored_values(ds, index)
    spacing = _spacing_mm(ds, index)
    return Frame(
        stored=stored,
        photometric=photometric,
        bits_stored=bits_stored,
        number_of_frames=int(as_pixel_options(ds)["number_of_frames"]),
        modality=_text(ds, "Modality"),
        body_part=_text(ds, "BodyPartExamined"),
        modality_lut=_modality_lut(ds, index),
        views=_views(ds, index),
        padding=_padding(ds),
        is_inverted=_is_inverted(ds),
        spacing_mm=spacing,
        pixel_aspect=_pixel_aspect(ds, spacing),
    )


def _stored_values(ds: Dataset, index: int) -> tuple[Pixels, str, int]:
    """Stored values, their photometric interpretation and significant bits."""
    options = _pixel_options(ds)
    uid, decoder = _decoder(ds)
    shift = _excess_high_bits(ds, uid)
    if shift:
        options["bits_stored"] += shift
    stored, found = decoder.as_array(ds, index=index, **options)
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    photometric = str(found["photometric_interpretation"])
    if photometric == "PALETTE COLOR":
        stored = _palette_to_rgb(ds, stored)
        return stored, "RGB", 8 * stored.itemsize
    if photometric not in ("MONOCHROME1", "MONOCHROME2", "RGB"):
        message = "expected grayscale, palette, RGB or YBR pixels"
        raise PoisonInput(Reason.PIXEL_UNSUPPORTED, message, dicom_path="00280004")
    bits_stored = int(found.get("bits_stored", 8 * stored.itemsize)) - shift
    return stored >> shift if shift else stored, photometric, bits_stored


def _decoder(ds: Dataset) -> tuple[UID, Decoder]:
    uid = getattr(ds, "file_meta", Dataset()).get("TransferSyntaxUID") or _NATIVE_ENCODINGS[ds.original_encoding]
    with contextlib.suppress(NotImplementedError):
        decoder = get_decoder(uid)
        if decoder.is_available and not (
            _is_jpeg_12_bit(ds, uid) and _DECODES_JPEG_12_BIT not in decoder.available_plugins
        ):
            return uid, decoder
    message = "expected a transfer syntax this installation decodes"
    raise PoisonInput(Reason.TRANSFER_SYNTAX_UNSUPPORTED, message, dicom_path="00020010")


def _is_jpeg_12_bit(ds: Dataset, uid: UID) -> bool:
    return uid == JPEGExtended12Bit and ds.get("BitsStored") != 8


def _pixel_options(ds: Dataset) -> dict[str, Any]:
    if not any(keyword in ds for keyword in _PIXEL_KEYWORDS):
        raise PoisonInput(Reason.PIXEL_UNSUPPORTED, "expected an image; the object has no pixel data")
    options = as_pixel_options(ds)
    if options["rows"] * options["columns"] * options["samples_per_pixel"] > MAX_FRAME_SAMPLES:
        raise PoisonInput(Reason.PIXEL_UNSUPPORTED, f"expected at most {MAX_FRAME_SAMPLES} samples in a frame")
    return options


def _excess_high_bits(ds: Dataset, uid: UID) -> int:
    """Bits below the value in its cell: PS3.5 8.1.1 wants High Bit = Bits Stored - 1, older objects differ."""
    if "PixelData" not in ds or "HighBit" not in ds or (uid.is_encapsulated and uid != RLELossless):
        return 0
    return max(0, ds.HighBit + 1 - ds.BitsStored) if ds.BitsStored else 0


def _palette_to_rgb(ds: Dataset, stored: Pixels) -> Pixels:
    """RGB (H, W, 3), 8 or 16 bits per sample."""
    count, first, bits = (int(value) for value in ds.RedPaletteColorLookupTableDescriptor)
    count = count % 2**16 or 2**16
    if bits == 8 and count > 2**8:
        # pydicom looks entries up with an index as wide as an entry, which would wrap.
        raise PoisonInput(Reason.PIXEL_UNSUPPORTED, "expected at most 256 palette entries", dicom_path="00281101")
    within = np.minimum(stored.astype(np.int64), first + count - 1)
    return apply_color_lut(within, ds)[..., :3]


def _modality_lut(ds: Dataset, index: int) -> Rescale | LookupTable:
    """PS3.3 C.11.1: a Modality LUT, else slope and intercept; an incomplete pair and a slope of 0 mean nothing."""
    if ds.get("SOPClassUID") in _NO_MODALITY_LUT:
        return Rescale()
    if items := ds.get("ModalityLUTSequence"):
        return _lookup_table(ds, items[0], "00283000[0].00283006")
    group = _functional_group(ds, index, "PixelValueTransformationSequence")
    slope, intercept = _numbers(group, "RescaleSlope"), _numbers(group, "RescaleIntercept")
    if not (slope and intercept and slope[0]):
        return Rescale()
    if not (math.isfinite(slope[0]) and math.isfinite(intercept[0])):
        raise PoisonInput(Reason.PIXEL_UNSUPPORTED, "expected numbers as rescale slope and intercept")
    return Rescale(slope[0], intercept[0])


def _views(ds: Dataset, index: int) -> tuple[LookupTable | Window, ...]:
    """PS3.3 C.11.2: every VOI LUT, then every window whose width is legal."""
    group = _functional_group(ds, index, "FrameVOILUTSequence")
    tables = [
        _lookup_table(ds, item, f"00283010[{position}].00283006")
        for position, item in enumerate(group.get("VOILUTSequence") or ())
        if "LUTDescriptor" in item and "LUTData" in item
    ]
    try:
        function = WindowFunction(_text(group, "VOILUTFunction") or WindowFunction.LINEAR)
    except ValueError:
        function = WindowFunction.LINEAR
    pairs = zip(_numbers(group, "WindowCenter"), _numbers(group, "WindowWidth"), strict=False)
    windows = (Window(center, width, function) for center, width in pairs)
    return (*tables, *(window for window in windows if window.is_valid()))


def _lookup_table(ds: Dataset, item: Dataset, path: str) -> LookupTable:
    """A table from LUT Descriptor (entries, first input, bits) and LUT Data (US or OW, 8 or 16 bits per entry)."""
    count, first, bits = (int(value) for value in item.LUTDescriptor)
    count = count % 2**16 or 2**16
    if first >= 2**15 and ds.get("PixelRepresentation") == 1:
        first -= 2**16
    is_little = ds.original_encoding[1]
    raw = item.LUTData
    words = np.frombuffer(raw[: len(raw) // 2 * 2], "<u2" if is_little else ">u2") if isinstance(raw, bytes) else raw
    entries = np.atleast_1d(np.asarray(words, dtype=np.uint16))
    if len(entries) < count <= 2 * len(entries):
        entries = entries.astype("<u2").view(np.uint8).astype(np.uint16)
    if len(entries) < count:
        message = "expected as many LUT entries as its descriptor says"
        raise PoisonInput(Reason.PIXEL_UNDECODABLE, message, dicom_path=path)
    entries = entries[:count]
    return LookupTable(first, entries, max(bits & 0xFF, int(entries.max()).bit_length(), 1))


def _padding(ds: Dataset) -> tuple[float, float] | None:
    """Pixel Padding Value and, when there is one, its Range Limit, in either order (PS3.3 C.7.5.1.1.2)."""
    for kind in ("", "Float", "DoubleFloat"):
        bounds = (*_numbers(ds, f"{kind}PixelPaddingValue"), *_numbers(ds, f"{kind}PixelPaddingRangeLimit"))
        if bounds and all(map(math.isfinite, bounds)):
            if not kind and ds.get("PixelRepresentation") == 1:
                bounds = tuple(bound - 2**16 if bound >= 2**15 else bound for bound in bounds)
            return min(bounds), max(bounds)
    return None


def _is_inverted(ds: Dataset) -> bool:
    """Photometric Interpretation (PS3.3 C.7.6.3.1.2); a Presentation LUT Shape, when present, decides (C.11.6)."""
    shape = _text(ds, "PresentationLUTShape")
    return shape == "INVERSE" if shape else _text(ds, "PhotometricInterpretation") == "MONOCHROME1"


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


def _functional_group(ds: Dataset, index: int, keyword: str) -> Dataset:
    """Where a frame's attributes are: its own functional group, the shared one, or the object (PS3.3 C.7.6.16)."""
    per_frame = list(ds.get("PerFrameFunctionalGroupsSequence") or ())[index : index + 1]
    shared = list(ds.get("SharedFunctionalGroupsSequence") or ())[:1]
    for group in (*per_frame, *shared):
        if items := group.get(keyword):
            return items[0]  # type: ignore[no-any-return]
    return ds


def _numbers(ds: Dataset, keyword: str) -> tuple[float, ...]:
    """All values of a numeric element; NaN where one is blank, a single NaN when the element is no number at all."""
    try:
        value = ds.get(keyword)
        if value is None or value == "":
            return ()
        values = [value] if isinstance(value, str | int | float) or not hasattr(value, "__iter__") else value
        return tuple(math.nan if item in (None, "") else float(item) for item in values)
    except (ValueError, TypeError, ArithmeticError):
        return (math.nan,)


def _text(ds: Dataset, keyword: str) -> str:
    return str(ds.get(keyword) or "").strip().upper()
