"""From one transfer syntax to another: a frame, or a whole object, with the same samples.

Only native encodings and lossless compression are written, so nothing is lost here; colour stored as YBR comes out as
RGB. Must not contain access to files, nor what a peer accepts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import (
    Encoder,
    JPEG2000LosslessEncoder,
    JPEGLSLosslessEncoder,
    RLELosslessEncoder,
)
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from imaging_pipeline.dicom.frame import Pixels
from imaging_pipeline.dicom.pixels import ImageObject, guarded, open_image
from imaging_pipeline.errors import PoisonInput, Reason

__all__ = ["WRITABLE", "sample_bytes", "transcoded"]

MAX_DECODED_BYTES: Final = 1 << 30
"""An object whose samples take more is not transcoded: they are held in memory."""

_ENCODERS: Final[Mapping[str, tuple[Encoder, str]]] = MappingProxyType(
    {
        RLELossless: (RLELosslessEncoder, "pydicom"),
        JPEGLSLossless: (JPEGLSLosslessEncoder, "pyjpegls"),
        JPEG2000Lossless: (JPEG2000LosslessEncoder, "pylibjpeg"),
    }
)
"""One named plugin each: two plugins for the same syntax may give different bytes."""

WRITABLE: Final = frozenset({str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian), *map(str, _ENCODERS)})
"""Transfer syntaxes that can be written."""

_SAMPLE_KEYWORDS: Final = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def sample_bytes(image: ImageObject, index: int, syntax: str) -> bytes:
    """One frame of an opened image in a transfer syntax of :data:`WRITABLE`.

    Args:
        image: the object.
        index: place of the frame in its pixel data, from 0.
        syntax: native ones give little-endian samples, colour by pixel; the others a code stream.

    Raises:
        PoisonInput: PIXEL_UNDECODABLE or TRANSFER_SYNTAX_UNSUPPORTED.
    """
    samples, found = guarded(lambda: _samples(image, index))
    return _encoded(samples, found, syntax)


def transcoded(data: bytes, syntax: str) -> bytes:
    """A DICOM object in a transfer syntax of :data:`WRITABLE`; the same UIDs, the same samples.

    Args:
        data: the whole object.
        syntax: the one asked for; when it is the object's own, ``data`` itself is returned.

    Raises:
        PoisonInput: TRANSFER_SYNTAX_UNSUPPORTED, PIXEL_UNDECODABLE, PIXEL_UNSUPPORTED or TOO_LARGE.
    """
    if syntax not in WRITABLE:
        raise PoisonInput(Reason.TRANSFER_SYNTAX_UNSUPPORTED, "expected a transfer syntax that can be written")
    return guarded(lambda: _transcoded(data, syntax))


def _transcoded(data: bytes, syntax: str) -> bytes:
    ds = dcmread(BytesIO(data), force=True)
    own = ds.file_meta.get("TransferSyntaxUID")
    if own == syntax:
        return data
    keyword = next((keyword for keyword in _SAMPLE_KEYWORDS if keyword in ds), None)
    if keyword is None and ("Rows" in ds or "SOPInstanceUID" not in ds):  # pydicom drops what does not end
        raise PoisonInput(Reason.PIXEL_UNDECODABLE, "expected a whole object; it is cut off")
    if keyword and (UID(own).is_encapsulated or own == ExplicitVRBigEndian or syntax in _ENCODERS):
        _put_samples(ds, open_image(data), keyword, syntax)
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    buffer = BytesIO()
    is_implicit = syntax == ImplicitVRLittleEndian
    dcmwrite(buffer, ds, implicit_vr=is_implicit, little_endian=True, enforce_file_format=True)
    return buffer.getvalue()


def _put_samples(ds: Dataset, image: ImageObject, keyword: str, syntax: str) -> None:
    bits = int(image.options["bits_allocated"])
    samples_per_frame = image.rows * image.columns * int(image.options["samples_per_pixel"])
    if samples_per_frame * image.number_of_frames * bits > 8 * MAX_DECODED_BYTES:
        raise PoisonInput(Reason.TOO_LARGE, f"its samples take more than {MAX_DECODED_BYTES:,} bytes")
    decoded = (_samples(image, index) for index in range(image.number_of_frames))
    if bits == 1:
        samples, kinds = zip(*decoded, strict=True)
        value, found = _packed_bits(samples, syntax), kinds[0]
    else:
        frames, kinds = zip(*((_encoded(*each, syntax), each[1]) for each in decoded), strict=True)
        value, found = encapsulate(list(frames)) if syntax in _ENCODERS else b"".join(frames), kinds[0]
    for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if name in ds:
            del ds[name]
    ds[keyword].value = value + b"\0" * (len(value) % 2)
    ds[keyword].is_undefined_length = syntax in _ENCODERS
    if keyword == "PixelData":
        ds[keyword].VR = "OB" if bits <= 8 or syntax in _ENCODERS else "OW"
    ds.PhotometricInterpretation = found["photometric_interpretation"]
    if found["samples_per_pixel"] > 1:
        ds.PlanarConfiguration = 0


def _samples(image: ImageObject, index: int) -> tuple[Pixels, dict[str, Any]]:
    """Samples as they are stored, colour by pixel and as RGB, and what they are."""
    samples, found = image.decoder.as_array(image.value, index=index, raw=False, **image.options)
    return samples.astype(samples.dtype.newbyteorder("<"), copy=False), dict(found)


def _encoded(samples: Pixels, found: Mapping[str, Any], syntax: str) -> bytes:
    if found["bits_allocated"] == 1:
        return _packed_bits([samples], syntax)
    if syntax not in _ENCODERS:
        return samples.tobytes()
    encoder, plugin = _ENCODERS[syntax]
    named = ("rows", "columns", "samples_per_pixel", "photometric_interpretation", "bits_allocated", "bits_stored",
             "pixel_representation")  # fmt: skip
    try:
        options = {name: found[name] for name in named} | {"number_of_frames": 1, "planar_configuration": 0}
        return bytes(encoder.encode(samples.tobytes(), encoding_plugin=plugin, **options))
    except (ValueError, RuntimeError, KeyError, NotImplementedError):
        refusal = PoisonInput(Reason.TRANSFER_SYNTAX_UNSUPPORTED, "its samples cannot be written in this encoding")
    raise refusal


def _packed_bits(frames: Sequence[Pixels], syntax: str) -> bytes:
    """Frames of one bit a sample, one after the other without a gap (PS3.5 8.1.1)."""
    if syntax in _ENCODERS:
        raise PoisonInput(Reason.TRANSFER_SYNTAX_UNSUPPORTED, "samples of one bit are not compressed here")
    return np.packbits(np.concatenate([frame.ravel() for frame in frames]), bitorder="little").tobytes()
