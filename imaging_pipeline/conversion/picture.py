"""PNG and JPEG files → the pixels of a DICOM image, as they are wherever the standard allows it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from imaging_pipeline.conversion.jpeg import JpegFrame, read_jpeg
from imaging_pipeline.errors import PoisonInput, Reason

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"

MOST_PIXELS = 200_000_000
"""A larger picture is a bomb, or no radiograph."""

_LARGEST_SIDE = 65_535
_ORIENTATION = 274
_NOT_GREY_16 = frozenset({2, 4, 6})
_HALF = ((2, 1), (1, 1), (1, 1))
"""Sampling of the components of YBR_FULL_422, which colour in JPEG Baseline must have (PS3.5 8.2.1)."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The pixels of a picture.

    Attributes:
        rows: height.
        columns: width.
        photometric: Photometric Interpretation (PS3.3 C.7.6.3.1.2): MONOCHROME2, RGB or YBR_FULL_422.
        bits: of one sample, 8 or 16; samples are unsigned.
        data: little endian, by pixel; or a JPEG stream of the baseline process.
        is_jpeg: ``data`` is such a stream.
        lossy_ratio: by how much the picture was compressed with loss, in the file it comes from; None: it was not.
        limits: smallest and greatest value of a sample.
        steps: what was done to the picture beyond putting it into another file, in words.
    """

    rows: int
    columns: int
    photometric: str
    bits: int
    data: bytes
    is_jpeg: bool
    lossy_ratio: float | None
    limits: tuple[int, int]
    steps: tuple[str, ...]

    @property
    def samples(self) -> int:
        """Samples of a pixel."""
        return 1 if self.photometric == "MONOCHROME2" else 3


def read_picture(data: bytes) -> Picture:
    """Read a picture file.

    A JPEG stream of the baseline process is kept as it is, without its comments and application segments, when it is
    grey, or in colour with the sampling that DICOM wants. All else is decoded: what is grey in every pixel becomes
    MONOCHROME2.

    Raises:
        PoisonInput: it is no PNG or JPEG, is damaged, or has pixels that cannot be kept as they are.
    """
    if data.startswith(JPEG):
        return _jpeg(data)
    if data.startswith(PNG):
        if len(data) > 25 and data[24] == 16 and data[25] in _NOT_GREY_16:
            raise PoisonInput(Reason.PIXEL_UNSUPPORTED, "a PNG of 16 bits that is not plain grey")
        return _decoded(_opened(data), None, [])
    raise PoisonInput(Reason.PIXEL_UNSUPPORTED, "neither PNG nor JPEG by its first bytes")


def _jpeg(data: bytes) -> Picture:
    frame = read_jpeg(data)
    image = _opened(data)
    ratio = image.width * image.height * len(frame.factors) / len(data)
    turned = ImageOps.exif_transpose(image) if image.getexif().get(_ORIENTATION, 1) != 1 else None
    if turned is not None:
        return _decoded(turned, ratio, ["turned as its orientation says"])
    photometric = _photometric(frame)
    pixels = np.asarray(image)
    if not photometric or (pixels.ndim == 3 and _is_grey(pixels)):
        return _decoded(image, ratio, [])
    return Picture(
        rows=image.height,
        columns=image.width,
        photometric=photometric,
        bits=8,
        data=frame.data,
        is_jpeg=True,
        lossy_ratio=ratio,
        limits=(int(pixels.min()), int(pixels.max())),
        steps=(),
    )


def _photometric(frame: JpegFrame) -> str:
    """As what a stream may stand in a DICOM file as it is; nothing when it must be decoded."""
    if not frame.is_baseline or frame.transform not in {None, 1}:
        return ""
    if len(frame.factors) == 1:
        return "MONOCHROME2"
    return "YBR_FULL_422" if frame.factors == _HALF else ""


def _opened(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        if max(image.size) > _LARGEST_SIDE or image.width * image.height > MOST_PIXELS:
            raise PoisonInput(Reason.TOO_LARGE, f"more than {MOST_PIXELS:,} pixels, or {_LARGEST_SIDE:,} in a line")
        image.load()
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        # Pillow's own message may quote the file.
        raise PoisonInput(Reason.PIXEL_UNDECODABLE, "the picture is damaged, or of a kind that is not known") from None
    return image


def _decoded(image: Image.Image, ratio: float | None, steps: list[str]) -> Picture:
    pixels = _samples(image)
    if pixels.ndim == 3 and _is_grey(pixels):
        pixels = pixels[..., 0]
        steps = [*steps, "grey in every pixel: one of three equal samples kept"]
    little_endian = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    return Picture(
        rows=pixels.shape[0],
        columns=pixels.shape[1],
        photometric="MONOCHROME2" if pixels.ndim == 2 else "RGB",
        bits=8 * pixels.dtype.itemsize,
        data=little_endian.tobytes(),
        is_jpeg=False,
        lossy_ratio=ratio,
        limits=(int(pixels.min()), int(pixels.max())),
        steps=tuple(steps),
    )


def _samples(image: Image.Image) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Samples, uint8 or uint16: (rows, columns), or (rows, columns, 3)."""
    if image.mode in {"I", "I;16", "I;16B"}:
        return np.asarray(image).astype(np.uint16)
    if image.mode in {"LA", "PA", "RGBA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getextrema()[-1] != (255, 255):
            raise PoisonInput(Reason.PIXEL_UNSUPPORTED, "parts of the picture are transparent")
    return np.asarray(image.convert("L" if image.mode in {"1", "L"} else "RGB"))


def _is_grey(pixels: npt.NDArray[np.unsignedinteger[Any]]) -> bool:
    red = pixels[..., 0]
    return bool(np.array_equal(red, pixels[..., 1]) and np.array_equal(red, pixels[..., 2]))
