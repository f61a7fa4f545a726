"""The film with the heat map laid over it, and beside it, never on it, what the model says: as pixels.

Owns the drawing. Contains no DICOM. The same input gives the same pixels with the same Pillow.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from imaging_pipeline.pneumonia.results.finding import MAKER, NOT_FOR_CLINICAL_USE, Finding
from imaging_pipeline.tensors.images import Placement, resized

LARGEST, SMALLEST = 1024, 512
"""Longer edge of the film in the picture, in pixels: what a screen shows, and what text needs."""

OPACITY: Final = 0.45
"""How much the heat map covers of the film where it is greatest."""

LINE: Final = 30
"""Lines of text as high as the film, at the largest size of a letter."""

BLACK, WHITE, GREY = (0, 0, 0), (255, 255, 255), (160, 160, 160)

Picture = NDArray[np.uint8]


def heat_on_film(
    heat: NDArray[np.float32], place: Placement, tensor: tuple[int, int], film: tuple[int, ...]
) -> NDArray[np.float32]:
    """A heat map laid back on the image its tensor was made from.

    Args:
        heat: of the whole tensor (S, S), on 0-1.
        place: which part of the image lies where in the tensor.
        tensor: rows and columns of the tensor.
        film: rows and columns of the image.

    Returns:
        float32, of the image's size; 0 where the network has not seen it.
    """
    seen = resized(heat, *tensor)[place.placed]
    rows, columns = (part.stop - part.start for part in place.taken)
    laid = np.zeros(film, np.float32)
    laid[place.taken] = resized(seen, rows, columns)
    return laid


def overlay(film: NDArray[np.float32], heat: NDArray[np.float32], finding: Finding, aspect: float = 1.0) -> Picture:
    """The film in grey with the heat in colours, a bar that explains them, and text above and below.

    Args:
        film: brightness (H, W) on 0-1, 0 is black.
        heat: of the same size, on 0-1.
        finding: what the model says.
        aspect: height of a pixel divided by its width; the picture's are square.

    Returns:
        uint8 (rows, columns, 3), RGB.
    """
    height, width = _size(film.shape[0] * aspect, film.shape[1])
    grey, warmth = (resized(plane, height, width)[..., np.newaxis] for plane in (film, heat))
    colours = _colours()[np.rint(warmth[..., 0] * 255).astype(np.uint8)]
    opacity = OPACITY * np.sqrt(warmth)
    blended = grey * (1 - opacity) + colours * opacity
    return _framed(np.rint(blended * 255).astype(np.uint8), finding)


def _size(height: float, width: float) -> tuple[int, int]:
    longer = max(height, width)
    scale = min(max(longer, SMALLEST), LARGEST) / longer
    return max(1, round(height * scale)), max(1, round(width * scale))


@functools.cache
def _colours() -> NDArray[np.float32]:
    """Colours (256, 3) of heat on 0-1."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to load

    return np.asarray(mpl.colormaps["turbo"](np.arange(256))[:, :3], np.float32)


def _framed(film: Picture, finding: Finding) -> Picture:
    """The film with a band of text above and below, and the bar on its right."""
    height, width, _ = film.shape
    line = max(height, width) // LINE
    bar = 5 * line
    canvas = Image.new("RGB", (max(width + bar, SMALLEST), height + 5 * line), BLACK)
    canvas.paste(Image.fromarray(film), (0, 3 * line))
    pen = ImageDraw.Draw(canvas)
    for text, top in ((_said(finding), line // 2), (_by(finding), 3 * line // 2)):
        _write(pen, text, (line // 2, top), canvas.width - line, line)
    _write(pen, NOT_FOR_CLINICAL_USE, (line // 2, 3 * line + height + line // 2), canvas.width - line, line)
    _draw_bar(canvas, pen, (width + line, 5 * line), (line, max(line, height - 5 * line)), line)
    return np.asarray(canvas)


def _said(finding: Finding) -> str:
    spread = "" if finding.uncertainty is None else f" \N{PLUS-MINUS SIGN} {finding.uncertainty:.3f}"
    score = "" if finding.score is None else f"   score {finding.score:.3f}{spread}"
    return f"Pneumonia: {finding.flag}{score}   threshold {finding.threshold:.3f}"


def _by(finding: Finding) -> str:
    weights = f" (weights {finding.weights_sha256[:8]})" if finding.weights_sha256 else ""
    return f"{MAKER}, model {finding.model}{weights}"


def _write(pen: ImageDraw.ImageDraw, text: str, place: tuple[int, int], width: int, line: int) -> None:
    """A line of text in the largest letters that fit."""
    size = float(line) * 0.8
    font = _font(size)
    if (length := font.getlength(text)) > width:
        font = _font(size * width / length)
    pen.text(place, text, fill=WHITE, font=font)


def _draw_bar(
    canvas: Image.Image, pen: ImageDraw.ImageDraw, place: tuple[int, int], size: tuple[int, int], line: int
) -> None:
    """The colours from the greatest heat down to none."""
    (left, top), (width, height) = place, size
    levels = np.linspace(255, 0, height).round().astype(np.uint8)
    colours = np.rint(_colours()[levels] * 255).astype(np.uint8)
    canvas.paste(Image.fromarray(np.repeat(colours[:, np.newaxis], width, axis=1)), place)
    pen.rectangle((left, top, left + width - 1, top + height - 1), outline=GREY)
    font = _font(line * 0.6)
    for text, row in (("most", top), ("none", top + height - line)):
        pen.text((left + width + line // 4, row), text, fill=WHITE, font=font)
    pen.text((left, top - line), "heat (Grad-CAM)", fill=WHITE, font=_font(line * 0.5))


def _font(size: float) -> Any:
    """Pillow's own letters, the same on every machine."""
    return ImageFont.load_default(size=size)
