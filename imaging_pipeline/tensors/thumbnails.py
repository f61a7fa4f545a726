"""Thumbnails: a DICOM object in, a small picture out. And a sheet of several.

Pure: bytes and pictures. Must not contain storage, selection of objects or processes; everything here can be sent to a
worker process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from PIL import Image

from imaging_pipeline.dicom.pixels import Frame, open_image, render_color, render_levels

CODE_VERSION: Final = "2"
"""Raised whenever the same bytes would give another picture."""

LONGEST_EDGE: Final = 256
"""Largest width or height of a thumbnail, pixels; a smaller image is not enlarged."""

MIME_TYPE: Final = "image/webp"

SHEET_PICTURES: Final = 24
"""Most thumbnails on a sheet."""

_QUALITY: Final = 75
_EFFORT: Final = 2
"""4, the default, takes two and a half times as long and saves 4 % of the bytes."""

_COLUMNS: Final = 6
_CELL: Final = 128
_GAP: Final = 2
_CLOSE_ENOUGH: Final = 3.0
"""Averaging down to this many times the size first costs a quarter and is not seen (Pillow's ``reducing_gap``)."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture of one frame of an object.

    Attributes:
        image: WebP, at most 256 x 256, gray or RGB.
        frame_number: the frame shown, from 1.
        number_of_frames: frames of the object.
        rows: height of the frame, pixels.
        columns: width of the frame, pixels.
    """

    image: bytes
    frame_number: int
    number_of_frames: int
    rows: int
    columns: int

    @property
    def sha256(self) -> str:
        """Digest of the picture, hexadecimal."""
        return hashlib.sha256(self.image).hexdigest()


def make_thumbnail(data: bytes) -> Thumbnail:
    """Make the thumbnail of an object: its middle frame as a viewer shows it first, with square pixels.

    A first window that leaves one grey of an image that has more is not used: the full range is shown.

    Args:
        data: the whole DICOM object.

    Raises:
        PoisonInput: the object has no pixels, or they cannot be decoded.
    """
    image = open_image(data)
    frame = image.reduced_frame(image.number_of_frames // 2, LONGEST_EDGE)
    return Thumbnail(
        image=_encoded(_shrunk(picture_of(frame), frame.pixel_aspect)),
        frame_number=frame.index + 1,
        number_of_frames=image.number_of_frames,
        rows=image.rows,
        columns=image.columns,
    )


def contact_sheet(pictures: Sequence[bytes]) -> bytes:
    """One WebP picture of the first 24 thumbnails, six in a row, each in a cell of 128 pixels; of none, one cell."""
    shown = pictures[:SHEET_PICTURES]
    pitch = _CELL + _GAP
    size = max(1, min(len(shown), _COLUMNS)) * pitch, max(1, -(-len(shown) // _COLUMNS)) * pitch
    sheet = Image.new("RGB", size)
    for position, picture in enumerate(shown):
        cell = Image.open(BytesIO(picture)).convert("RGB")
        cell.thumbnail((_CELL, _CELL))
        row, column = divmod(position, _COLUMNS)
        sheet.paste(cell, (column * pitch + (_CELL - cell.width) // 2, row * pitch + (_CELL - cell.height) // 2))
    return _encoded(sheet)


def picture_of(frame: Frame) -> Image.Image:
    """A gray or RGB picture of the size of the frame, as a viewer shows it first.

    A first window that leaves one grey of an image that has more is not used: the full range is shown.
    """
    if frame.is_color:
        return Image.fromarray(render_color(frame))
    shown = render_levels(frame)
    if shown.min() == shown.max():
        in_full = render_levels(frame, window=None)
        shown = in_full if in_full.min() != in_full.max() else shown
    return Image.fromarray(shown)


def _shrunk(picture: Image.Image, aspect: float) -> Image.Image:
    """The picture with square pixels, its longest edge as long as a thumbnail's; the shorter side is what is scaled."""
    width, height = picture.width / min(aspect, 1), picture.height * max(aspect, 1)
    scale = min(1.0, LONGEST_EDGE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == picture.size:
        return picture
    return picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=_CLOSE_ENOUGH)


def _encoded(picture: Image.Image) -> bytes:
    target = BytesIO()
    picture.save(target, format="WEBP", quality=_QUALITY, method=_EFFORT)
    return target.getvalue()
