"""Decoding: from the bytes of one DICOM object to its frames with what is needed to show them.

Owns the reading of the pixel modules and their corner cases; rendering is offered here too, as its other half. Must not
contain resizing, tensors or access to files, and never repeats what a decoder said, which may quote the object.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from types import MappingProxyType
from typing import Any, Final, TypeVar

import numpy as np
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.encaps import parse_basic_offsets, parse_fragments
from pydicom.pixels.decoders.base import Decoder
from pydicom.pixels.processing import convert_color_space
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from imaging_pipeline.dicom._display import display_of
from imaging_pipeline.dicom._luts import palette_to_rgb
from imaging_pipeline.dicom.decoders import decoder_for, is_jpeg_12_bit
from imaging_pipeline.dicom.frame import Frame, Pixels
from imaging_pipeline.dicom.reduced import REDUCTION, reduced_decoder_for, reduction_for
from imaging_pipeline.dicom.rendering import modality_values, render, render_color, render_levels
from imaging_pipeline.errors import PoisonInput, Reason

__all__ = [
    "Frame",
    "ImageObject",
    "decode_frame",
    "decode_frames",
    "guarded",
    "modality_values",
    "open_image",
    "open_lone_frame",
    "render",
    "render_color",
    "render_levels",
]

MAX_FRAME_SAMPLES: Final = 2**28
"""Largest frame decoded, rows x columns x samples: above any radiograph, below what would exhaust a worker."""

_NATIVE_ENCODINGS: Final[Mapping[tuple[bool | None, bool | None], UID]] = MappingProxyType(
    {
        (True, True): ImplicitVRLittleEndian,
        (False, True): ExplicitVRLittleEndian,
        (False, False): ExplicitVRBigEndian,
    }
)

_PIXEL_KEYWORDS: Final = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

_GRAYSCALE: Final = ("MONOCHROME1", "MONOCHROME2")
_YBR: Final = ("YBR_FULL", "YBR_FULL_422")

_TALKATIVE_LOGGERS: Final = ("pydicom", "pydicom.pixels.utils", "pydicom.pixels.decoders.base")

_T = TypeVar("_T")


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
    return open_image(data).frame(frame)


def decode_frames(data: bytes, frames: Iterable[int] | None = None) -> Iterator[Frame]:
    """Decode several frames of a DICOM object, which is parsed once; one frame is in memory at a time.

    Args:
        data: as for `decode_frame`.
        frames: frame indices from 0, in any order; None: all.

    Raises:
        PoisonInput: as `decode_frame`, at the first frame that cannot be decoded.
    """
    image = open_image(data)
    for index in range(image.number_of_frames) if frames is None else frames:
        yield image.frame(index)


def open_image(data: bytes) -> ImageObject:
    """Parse a DICOM object with pixel data; no frame is decoded yet.

    Raises:
        PoisonInput: TRANSFER_SYNTAX_UNSUPPORTED, PIXEL_UNSUPPORTED or PIXEL_UNDECODABLE.
    """
    return guarded(lambda: _opened(data, None))


def open_lone_frame(data: bytes) -> ImageObject:
    """Parse an object of several frames of which ``data`` holds one only, which is decoded as its frame 0.

    `ImageObject.shown_as` then gives it the display of the frame that it is.

    Raises:
        PoisonInput: as `open_image`.
    """
    return guarded(lambda: _opened(data, 1))


@dataclass(frozen=True, slots=True)
class ImageObject:
    """An object with pixel data, ready to be decoded.

    Attributes:
        ds: the object.
        value: the value of its pixel element.
        options: what pydicom's decoders want to know of it.
        decoder: the decoder of its transfer syntax.
        excess_bits: bits below the value in its cell.
    """

    ds: Dataset
    value: bytes
    options: Mapping[str, Any]
    decoder: Decoder
    excess_bits: int

    @property
    def number_of_frames(self) -> int:
        """Number of Frames (0028,0008), 1 when it is not there."""
        return int(self.options["number_of_frames"])

    @property
    def rows(self) -> int:
        """Rows (0028,0010)."""
        return int(self.options["rows"])

    @property
    def columns(self) -> int:
        """Columns (0028,0011)."""
        return int(self.options["columns"])

    def frame(self, index: int) -> Frame:
        """Decode one frame, by its index from 0.

        Raises:
            PoisonInput: PIXEL_UNSUPPORTED or PIXEL_UNDECODABLE.
        """
        return guarded(lambda: _frame(self, index, index))

    def shown_as(self, index: int) -> Frame:
        """Decode a lone frame, with the index and the display of another: that of its place in the whole object.

        Raises:
            PoisonInput: PIXEL_UNSUPPORTED or PIXEL_UNDECODABLE.
        """
        return guarded(lambda: _frame(self, 0, index))

    def reduced_frame(self, index: int, least_edge: int) -> Frame:
        """Decode one frame at a half, a quarter or an eighth of its size where that is less work, else as it is.

        A smaller frame has other lowest and highest values and no clean edge to its padding: grayscale without a window
        of its own or with padding is decoded whole.

        Args:
            index: which one, from 0.
            least_edge: rows or columns of what is decoded are not fewer, unless the frame's are.

        Raises:
            PoisonInput: PIXEL_UNSUPPORTED or PIXEL_UNDECODABLE.
        """
        smaller = _reduced(self, least_edge)
        if smaller is not None:
            with contextlib.suppress(PoisonInput):  # fewer resolutions than asked for, or broken: the whole frame tells
                frame = smaller.frame(index)
                if frame.is_color or (frame.views and frame.padding is None):
                    return frame
        return self.frame(index)


def guarded(action: Callable[[], _T]) -> _T:
    """What ``action`` gives, in silence; whatever else it raises becomes a refusal."""
    try:
        with _quiet:
            return action()
    except (PoisonInput, MemoryError):
        raise
    except Exception:  # noqa: BLE001 - parser and codecs raise anything on hostile bytes; their text may quote values
        refusal = PoisonInput(Reason.PIXEL_UNDECODABLE, "expected decodable pixel data; the decoder refused it")
    # Raised out of the handler, so that the decoder's exception is not kept as the context of this one.
    raise refusal


class _Silence:
    """Keeps pydicom's remarks, which quote values of the object, out of warnings and logs.

    Filters of warnings belong to the process: they are set by the first thread that decodes and taken back by the last.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._set = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._threads += 1
            if self._threads > 1:
                return
            self._set.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            for name in _TALKATIVE_LOGGERS:
                logging.getLogger(name).addFilter(_mute)
                self._set.callback(logging.getLogger(name).removeFilter, _mute)

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                self._set.close()


def _mute(_record: logging.LogRecord) -> bool:
    return False


_quiet = _Silence()


def _opened(data: bytes, number_of_frames: int | None) -> ImageObject:
    ds = dcmread(BytesIO(data), force=True)
    keyword = next((keyword for keyword in _PIXEL_KEYWORDS if keyword in ds), None)
    if keyword is None:
        raise PoisonInput(Reason.PIXEL_UNSUPPORTED, "expected an image; the object has no pixel data")
    options = as_pixel_options(ds, pixel_keyword=keyword, pixel_vr=ds[keyword].VR)
    if number_of_frames is not None:
        options |= {"number_of_frames": number_of_frames}
        options.pop("extended_offsets", None)
    if options["rows"] * options["columns"] * options["samples_per_pixel"] > MAX_FRAME_SAMPLES:
        raise PoisonInput(Reason.PIXEL_UNSUPPORTED, f"expected at most {MAX_FRAME_SAMPLES} samples in a frame")
    decoder = _decoder(ds)
    if not decoder.is_encapsulated:
        options |= {"view_only": True}
    excess = 0
    if keyword == "PixelData" and (not decoder.is_encapsulated or RLELossless == decoder.UID):
        options |= {"correct_unused_bits": False}
        excess = _excess_high_bits(ds)
    value = ds[keyword].value
    if decoder.is_encapsulated and options["number_of_frames"] > 1 and "extended_offsets" not in options:
        options |= _frame_places(value, options["number_of_frames"])
    return ImageObject(ds, value, options, decoder, excess)


def _frame_places(value: bytes, number_of_frames: int) -> dict[str, Any]:
    """Where frames of one fragment each lie that have no offset table: as option what an extended one would say.

    Without it pydicom walks over all fragments for every frame.
    """
    buffer = BytesIO(value)
    if parse_basic_offsets(buffer):
        return {}
    first = buffer.tell()
    count, places = parse_fragments(buffer)
    if count != number_of_frames:
        return {}
    lengths = [struct.unpack_from("<L", value, place + 4)[0] for place in places]
    return {"extended_offsets": ([place - first for place in places], lengths)}


def _reduced(image: ImageObject, least_edge: int) -> ImageObject | None:
    """The same object with smaller frames; None when its transfer syntax or its size has none."""
    decoder = reduced_decoder_for(image.decoder.UID)
    halvings = reduction_for(image.rows, image.columns, least_edge)
    if decoder is None or not halvings:
        return None
    smaller = {"rows": -(-image.rows // 2**halvings), "columns": -(-image.columns // 2**halvings), REDUCTION: halvings}
    return replace(image, decoder=decoder, options=dict(image.options) | smaller)


def _decoder(ds: Dataset) -> Decoder:
    uid = getattr(ds, "file_meta", Dataset()).get("TransferSyntaxUID") or _NATIVE_ENCODINGS[ds.original_encoding]
    decoder = decoder_for(uid, is_12_bit=is_jpeg_12_bit(uid, ds.get("BitsStored")))
    if decoder is None:
        message = "expected a transfer syntax this installation decodes"
        raise PoisonInput(Reason.TRANSFER_SYNTAX_UNSUPPORTED, message, dicom_path="00020010")
    return decoder


def _excess_high_bits(ds: Dataset) -> int:
    """Bits below the value in its cell: PS3.5 8.1.1 wants High Bit = Bits Stored - 1, older objects differ."""
    if "HighBit" not in ds or not ds.BitsStored:
        return 0
    return max(0, int(ds.HighBit) + 1 - int(ds.BitsStored))


def _frame(image: ImageObject, place: int, index: int) -> Frame:
    """The frame at a place of the pixel data, shown as the frame of an index."""
    stored, photometric, bits_stored = _stored_values(image, place)
    return Frame(
        stored=stored,
        photometric=photometric,
        bits_stored=bits_stored,
        index=index,
        number_of_frames=image.number_of_frames,
        **display_of(image.ds, index, is_color=stored.ndim == 3),
    )


def _stored_values(image: ImageObject, index: int) -> tuple[Pixels, str, int]:
    """Stored values, their photometric interpretation and significant bits."""
    stored, found = image.decoder.as_array(image.value, index=index, raw=True, **image.options)
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    bits_stored = int(found.get("bits_stored", 8 * stored.itemsize))
    if image.options.get("correct_unused_bits") is False:
        stored = _significant(stored, bits_stored, image.excess_bits)
    photometric = str(found["photometric_interpretation"])
    if photometric == "PALETTE COLOR":
        stored = palette_to_rgb(image.ds, stored)
        return stored, "RGB", 8 * stored.itemsize
    if photometric in _YBR:
        return _ybr_to_rgb(stored), "RGB", bits_stored
    if photometric not in ("RGB", *_GRAYSCALE) or (photometric == "RGB") != (stored.ndim == 3):
        message = "expected grayscale, palette, RGB or YBR pixels"
        raise PoisonInput(Reason.PIXEL_UNSUPPORTED, message, dicom_path="00280004")
    return stored, photometric, bits_stored


def _ybr_to_rgb(stored: Pixels) -> Pixels:
    """PS3.3 C.7.6.3.1.2, the same as JFIF's: Pillow's integers for 8 bits, pydicom's floats for more."""
    if stored.dtype != np.uint8:
        return convert_color_space(stored, "YBR_FULL", "RGB")
    return np.asarray(Image.fromarray(np.ascontiguousarray(stored), "YCbCr").convert("RGB"))


def _significant(stored: Pixels, bits: int, below: int) -> Pixels:
    """The value of ``bits`` bits above ``below`` others in its cell, sign extended (PS3.5 8.1.1)."""
    above = 8 * stored.itemsize - bits - below
    if stored.dtype.kind == "u":
        shifted = stored >> below if below else stored
        return shifted & ((1 << bits) - 1) if above > 0 and bits > 1 else shifted
    if above > 0:
        stored = stored << above
    return stored >> (above + below) if above > 0 or below else stored
