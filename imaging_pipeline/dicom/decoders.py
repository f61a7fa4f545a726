"""Decoders: which library decodes which transfer syntax, in which order of preference.

pydicom's decoders with their plugins put in order of speed, and two forms it leaves out: JPEG with 12 bits, which GDCM
decodes, and RLE by Pillow. Must not contain data sets; the functions below are pydicom decoding plugins.
"""

from __future__ import annotations

import contextlib
import functools
import os
import struct
import threading
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import gdcm
import numpy as np
from PIL import Image
from pydicom.pixels.decoders.base import Decoder, DecodeRunner, get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

__all__ = ["decoder_for", "is_jpeg_12_bit"]

JPEG_SPECTRAL_SELECTION: Final = UID("1.2.840.10008.1.2.4.53")
JPEG_FULL_PROGRESSION: Final = UID("1.2.840.10008.1.2.4.55")
"""Retired processes 6/8 and 10/12, still met in archives, of which the 12-bit form is decoded."""

_THIS_MODULE: Final = "imaging_pipeline.dicom.decoders"

_PLUGINS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "gdcm": ("pydicom.pixels.decoders.gdcm", "_decode_frame"),
        "pillow": ("pydicom.pixels.decoders.pillow", "_decode_frame"),
        "pyjpegls": ("pydicom.pixels.decoders.pyjpegls", "_decode_frame"),
        "pylibjpeg": ("pydicom.pixels.decoders.pylibjpeg", "_decode_frame"),
        "pydicom": ("pydicom.pixels.decoders.rle", "_decode_frame"),
        "gdcm 12 bit": (_THIS_MODULE, "decode_jpeg_12_bit"),
        "packbits": (_THIS_MODULE, "decode_rle"),
    }
)
"""Where pydicom finds each plugin, as `pydicom.pixels.decoders.base.Decoder.add_plugin` takes it."""

_ORDER: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        **dict.fromkeys((JPEGBaseline8Bit, JPEGExtended12Bit), ("pillow", "gdcm")),
        **dict.fromkeys((JPEGLossless, JPEGLosslessSV1), ("gdcm",)),
        **dict.fromkeys(JPEGLSTransferSyntaxes, ("pyjpegls", "gdcm")),
        **dict.fromkeys((JPEG2000Lossless, JPEG2000), ("pylibjpeg", "gdcm", "pillow")),
        **dict.fromkeys((HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K), ("pylibjpeg",)),
        RLELossless: ("packbits", "pydicom"),
    }
)
"""Plugins of each encapsulated transfer syntax, fastest first (benchmarks/pixels.py); all give the same values."""

_NATIVE: Final = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)

_ALWAYS_12_BIT: Final = (JPEG_SPECTRAL_SELECTION, JPEG_FULL_PROGRESSION)
_JPEG_12_BIT: Final = (JPEGExtended12Bit, *_ALWAYS_12_BIT)

DECODER_DEPENDENCIES: Final = dict.fromkeys((*_JPEG_12_BIT, RLELossless), ("python-gdcm>=3.0.24", "pillow>=11"))
"""What pydicom asks a module of plugins for."""


def is_available(uid: str) -> bool:
    """Whether this module has a plugin for a transfer syntax: both libraries are requirements."""
    return uid in DECODER_DEPENDENCIES


def is_jpeg_12_bit(uid: UID, bits_stored: int | None) -> bool:
    """Whether a JPEG of this transfer syntax has 12-bit samples, which libraries for 8 bits cannot read."""
    return uid in _ALWAYS_12_BIT or (uid == JPEGExtended12Bit and bits_stored != 8)


@functools.lru_cache(maxsize=64)
def decoder_for(uid: UID, *, is_12_bit: bool = False) -> Decoder | None:
    """The decoder of a transfer syntax, its plugins fastest first, or None when this installation has none.

    Args:
        uid: the transfer syntax.
        is_12_bit: what `is_jpeg_12_bit` said.
    """
    if is_12_bit:
        return _with_plugins(uid, ("gdcm 12 bit",))
    if uid in _ORDER:
        decoder = _with_plugins(uid, _ORDER[uid])
        return decoder if decoder.is_available else None
    return get_decoder(uid) if uid in _NATIVE else None


def decode_jpeg_12_bit(source: bytes, runner: DecodeRunner) -> bytes:
    """One grayscale frame of a lossy JPEG with 12-bit samples, by GDCM; little endian, 16 bits a pixel.

    Args:
        source: the codestream.
        runner: the frame's size.

    Raises:
        ValueError: GDCM refuses the codestream.
    """
    if runner.samples_per_pixel != 1 or runner.bits_allocated != 16:
        raise ValueError("expected one sample per pixel in 16 bits")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(source)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, runner.pixel_representation))
    with _silent_libjpeg():
        text = image.GetBuffer()
    frame = text.encode("utf-8", "surrogateescape")  # GDCM's wrapper gives a char* as text
    if len(frame) != 2 * runner.rows * runner.columns:
        raise ValueError("expected as many pixels as rows and columns say")
    return bytes(frame)


def decode_rle(source: bytes, runner: DecodeRunner) -> bytes:
    """One RLE frame (PS3.5 Annex G), by Pillow's decoder of PackBits, which is the same scheme.

    Args:
        source: header and segments.
        runner: the frame's size and samples; is told that the samples come by plane.

    Returns:
        Samples in little endian, plane after plane.

    Raises:
        ValueError: a segment is missing, or holds less than a plane.
    """
    pixels = runner.rows * runner.columns
    is_packed = runner.bits_allocated == 1
    size = (pixels + 7) // 8 if is_packed else pixels
    cell = max(1, runner.bits_allocated // 8)
    number, *starts = struct.unpack("<16L", source[:64])
    if number != runner.samples_per_pixel * cell:
        raise ValueError("expected a segment for each byte of a pixel")
    ends = (*starts[1:number], len(source))
    # Segments go from the most to the least significant byte of each sample.
    planes = np.empty((runner.samples_per_pixel, size, cell), np.uint8)
    for position, (start, end) in enumerate(zip(starts[:number], ends, strict=True)):
        sample, byte = divmod(position, cell)
        plane = Image.frombytes("L", (size, 1), source[start:end], "packbits", "L")
        planes[sample, :, cell - 1 - byte] = np.asarray(plane)[0]
    runner.set_option("planar_configuration", 1)
    return np.unpackbits(planes.ravel(), count=pixels, bitorder="little").tobytes() if is_packed else planes.tobytes()


def _with_plugins(uid: UID, names: tuple[str, ...]) -> Decoder:
    decoder = Decoder(uid)
    decoder.add_plugins([(name, _PLUGINS[name]) for name in names])
    return decoder


_STANDARD_ERROR: Final = 2
_lock = threading.Lock()


@contextlib.contextmanager
def _silent_libjpeg() -> Iterator[None]:
    """Keep the two lines a frame that GDCM's libjpeg writes to standard error, whatever GDCM is told, out of logs."""
    with _lock, open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device
        saved = os.dup(_STANDARD_ERROR)
        try:
            os.dup2(nowhere.fileno(), _STANDARD_ERROR)
            yield
        finally:
            os.dup2(saved, _STANDARD_ERROR)
            os.close(saved)
