"""Reduced decoding: frames at half, a quarter or an eighth of their size, for pictures that need no more.

JPEG with 8 bits and JPEG 2000 give coarser versions of themselves for a fraction of the work. Must not contain data
sets or rendering; the functions below are pydicom decoding plugins that look at an option of ours, `REDUCTION`.
"""

from __future__ import annotations

import functools
from io import BytesIO
from typing import Final

import numpy as np
from PIL import Image
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from pydicom.pixels.decoders.base import Decoder, DecodeRunner
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)

__all__ = ["REDUCTION", "reduced_decoder_for", "reduction_for"]

LARGEST_REDUCTION: Final = 3
"""Most times rows and columns are halved: what JPEG offers; JPEG 2000 has five levels as a rule."""

REDUCTION: Final = "reduction"
"""Option of a decoder: how many times rows and columns are halved."""

_JPEG_2000: Final = (JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)

DECODER_DEPENDENCIES: Final = dict.fromkeys((JPEGBaseline8Bit, *_JPEG_2000), ("pillow>=11",))
"""What pydicom asks a module of plugins for."""


def is_available(uid: str) -> bool:
    """Whether this module has a plugin for a transfer syntax."""
    return uid in DECODER_DEPENDENCIES


@functools.lru_cache(maxsize=64)
def reduced_decoder_for(uid: UID) -> Decoder | None:
    """The decoder that gives smaller frames of a transfer syntax, or None when only the whole can be decoded.

    It takes, besides pydicom's options, `REDUCTION`, and as rows and columns those of the smaller frame: the original
    ones divided by 2 to the power of the reduction, rounded up.
    """
    if uid not in DECODER_DEPENDENCIES:
        return None
    decoder = Decoder(uid)
    decoder.add_plugin("reduced", (__name__, "decode_jpeg_2000" if uid in _JPEG_2000 else "decode_jpeg"))
    return decoder


def reduction_for(rows: int, columns: int, least_edge: int) -> int:
    """How many times a frame can be halved and still have rows or columns of at least ``least_edge``; 0: not once.

    JPEG and JPEG 2000 round sizes up where they are halved. Pillow expects JPEG 2000 to round to the nearest, and
    refuses what does not fit: such sizes are halved less often.
    """
    most = min(LARGEST_REDUCTION, (max(rows, columns) // least_edge).bit_length() - 1)
    return next((n for n in range(most, 0, -1) if all(_is_rounded_up(edge, 2**n) for edge in (rows, columns))), 0)


def _is_rounded_up(edge: int, factor: int) -> bool:
    return (edge + factor // 2) // factor == -(-edge // factor)


def decode_jpeg(source: bytes, runner: DecodeRunner) -> bytes:
    """One smaller frame of a JPEG with 8 bits, by libjpeg's scaled inverse transform; colour as it is stored.

    Args:
        source: the codestream.
        runner: the frame's size after reduction.

    Raises:
        ValueError: the codestream has another size.
    """
    image = Image.open(BytesIO(source), formats=("JPEG",))
    factor = 2 ** int(runner.get_option(REDUCTION))
    # Without the marker Pillow takes colour for YBR and converts it; asked for YBR it leaves the samples alone.
    is_unmarked = runner.samples_per_pixel > 1 and "adobe_transform" not in image.info
    image.draft("YCbCr" if is_unmarked else None, (max(1, image.width // factor), max(1, image.height // factor)))
    return _checked(image, runner).tobytes()


def decode_jpeg_2000(source: bytes, runner: DecodeRunner) -> bytes:
    """One smaller frame of a JPEG 2000, by leaving out its finest resolutions; 8 bits, or grayscale of up to 16.

    Args:
        source: the codestream.
        runner: the frame's size after reduction; is told of cells of 8 bits and of colour that became RGB.

    Raises:
        ValueError: the codestream has another size, fewer resolutions, or values that Pillow does not give as they are.
    """
    image = Image.open(BytesIO(source), formats=("JPEG2000",))
    assert isinstance(image, Jpeg2KImageFile)
    bits = int(runner.get_option("j2k_precision", runner.bits_stored))
    is_signed = bool(runner.get_option("j2k_is_signed", runner.pixel_representation))
    if image.mode not in ("L", "I;16", "RGB") or is_signed != bool(runner.pixel_representation):
        raise ValueError("expected grayscale or RGB with the sign the header says")
    image.reduce = int(runner.get_option(REDUCTION))
    values = np.asarray(_checked(image, runner))
    # Pillow spreads values over all bits of a cell, and shifts signed ones above 0.
    cell = 8 * values.itemsize
    if cell < bits:
        raise ValueError("expected no more bits than Pillow gives")
    values = values >> (cell - bits)
    if is_signed:
        values = values.astype(np.int32) - 2 ** (bits - 1)
    runner.set_option("bits_allocated", cell)
    if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):
        runner.set_option("photometric_interpretation", "RGB")
    return values.astype(f"<{'i' if is_signed else 'u'}{cell // 8}").tobytes()


def _checked(image: Image.Image, runner: DecodeRunner) -> Image.Image:
    image.load()
    if image.size != (runner.columns, runner.rows):
        raise ValueError("expected the size of the reduced frame")
    return image
