"""Rendered pictures of frames: window, viewport, quality, as PNG, JPEG, GIF or WebP (PS3.18 8.3.5, 10.4.1.1.4).

Frames in, bytes of pictures out. Must not contain access to objects, nor answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from types import MappingProxyType
from typing import Final

from PIL import Image

from imaging_pipeline.dicom.frame import Frame, Window, WindowFunction
from imaging_pipeline.dicom.rendering import render_color, render_levels
from imaging_pipeline.tensors.thumbnails import LONGEST_EDGE, picture_of
from imaging_pipeline.web.errors import WebError

JPEG: Final = "image/jpeg"
PNG: Final = "image/png"
GIF: Final = "image/gif"
WEBP: Final = "image/webp"

PICTURES: Final = (JPEG, PNG, GIF, WEBP)
"""Media types of rendered pictures; JPEG is the default (PS3.18 table 8.7.4-1)."""

MAX_EDGE: Final = 8192
"""Longest edge of a rendered picture."""

MAX_MOVING_PIXELS: Final = 1 << 26
"""Pixels of all pictures of one animation: they are held in memory."""

DEFAULT_QUALITY: Final = 90

DEFAULT_FRAME_MS: Final = 100.0
"""How long a frame of an animation is shown."""

_FORMATS: Final[Mapping[str, str]] = MappingProxyType({JPEG: "JPEG", PNG: "PNG", GIF: "GIF", WEBP: "WEBP"})
_FUNCTIONS: Final = MappingProxyType(
    {"": WindowFunction.LINEAR, **{function.replace("_", "-").lower(): function for function in WindowFunction}}
)


@dataclass(frozen=True, slots=True)
class Viewport:
    """The size of a picture and the part of the frame in it (PS3.18 8.3.5.1.3).

    Attributes:
        width: of the viewport, pixels; the picture keeps its shape and fills it one way.
        height: the same.
        left: first column of the part shown.
        top: first row.
        columns: of the part; below 0: mirrored; None: to the edge.
        rows: the same, upside down below 0.
    """

    width: int
    height: int
    left: float = 0
    top: float = 0
    columns: float | None = None
    rows: float | None = None


@dataclass(frozen=True, slots=True)
class Rendering:
    """How frames are shown.

    Attributes:
        media_type: one of :data:`PICTURES`.
        window: instead of the frame's own view.
        viewport: None: the frame's own size, with square pixels.
        quality: of a lossy picture, 1 to 100.
    """

    media_type: str
    window: Window | None = None
    viewport: Viewport | None = None
    quality: int = DEFAULT_QUALITY


def read_rendering(parameters: Mapping[str, str], media_type: str) -> Rendering:
    """What the query parameters ``window``, ``viewport`` and ``quality`` ask for.

    Raises:
        WebError: 400.
    """
    window, viewport, quality = (parameters.get(name) for name in ("window", "viewport", "quality"))
    return Rendering(
        media_type,
        read_window(window) if window else None,
        read_viewport(viewport) if viewport else None,
        read_quality(quality) if quality else DEFAULT_QUALITY,
    )


def read_window(text: str) -> Window:
    """``center,width,function`` as a window.

    Raises:
        WebError: 400.
    """
    center, width, function = (*text.split(","), "", "")[:3]
    try:
        window = Window(float(center), float(width), _FUNCTIONS[function.strip().lower()])
    except (ValueError, KeyError):
        window = None
    if window is None or not window.is_valid():
        raise WebError(400, "expected window=center,width,function with linear, linear-exact or sigmoid")
    return window


def read_viewport(text: str) -> Viewport:
    """``vw,vh`` or ``vw,vh,sx,sy,sw,sh``, of which the last four may be empty.

    Raises:
        WebError: 400.
    """
    parts = text.split(",")
    try:
        width, height = int(parts[0]), int(parts[1])
        left, top = (float(part or 0) for part in (*parts[2:4], "", "")[:2])
        columns, rows = (float(part) if part else None for part in (*parts[4:6], "", "")[:2])
    except (ValueError, IndexError):
        raise WebError(400, "expected viewport=width,height or viewport=width,height,sx,sy,sw,sh") from None
    numbers = [number for number in (left, top, columns, rows) if number is not None]
    is_size = 1 <= width <= MAX_EDGE and 1 <= height <= MAX_EDGE
    if not (is_size and len(parts) <= 6 and all(map(math.isfinite, numbers))):
        raise WebError(400, f"expected a viewport of 1 to {MAX_EDGE} pixels each way")
    return Viewport(width, height, left, top, columns, rows)


def read_quality(text: str) -> int:
    """A quality, 1 to 100.

    Raises:
        WebError: 400.
    """
    if not text.isdecimal() or not 1 <= int(text[:4]) <= 100:
        raise WebError(400, "expected quality from 1 to 100")
    return int(text)


def picture(frame: Frame, rendering: Rendering) -> bytes:
    """One frame as a picture."""
    return _saved(_drawn(frame, rendering), rendering)


def moving_picture(frames: Iterable[Frame], rendering: Rendering, frame_ms: float) -> bytes:
    """Frames as one GIF that plays them again and again.

    Args:
        frames: at least one.
        rendering: how each is shown.
        frame_ms: how long each is shown.

    Raises:
        WebError: 413 when they take too much memory.
    """
    drawn, pixels = [], 0
    for frame in frames:
        drawn.append(_drawn(frame, rendering))
        pixels += drawn[-1].width * drawn[-1].height
        if pixels > MAX_MOVING_PIXELS:
            raise WebError(413, "the animation is too large: ask for fewer frames or a smaller viewport")
    target = BytesIO()
    drawn[0].save(target, format="GIF", save_all=True, append_images=drawn[1:], duration=max(frame_ms, 20), loop=0)
    return target.getvalue()


def thumbnail(frame: Frame, media_type: str, viewport: Viewport | None) -> bytes:
    """One frame as a small picture."""
    small = viewport or Viewport(LONGEST_EDGE, LONGEST_EDGE)
    return picture(frame, Rendering(media_type, viewport=small))


def resaved(image: bytes, media_type: str, viewport: Viewport | None) -> bytes:
    """A picture that is there, in another form; never larger than it is."""
    shown = Image.open(BytesIO(image))
    if viewport is not None:
        shown.thumbnail((viewport.width, viewport.height))
    return _saved(shown, Rendering(media_type))


def _drawn(frame: Frame, rendering: Rendering) -> Image.Image:
    if rendering.window is None:
        shown = picture_of(frame)
    else:
        draw = render_color if frame.is_color else render_levels
        shown = Image.fromarray(draw(frame, window=rendering.window))
    viewport = rendering.viewport or Viewport(MAX_EDGE, MAX_EDGE)
    return _fitted(shown, viewport, frame.pixel_aspect, is_scaled=rendering.viewport is not None)


def _fitted(shown: Image.Image, viewport: Viewport, aspect: float, *, is_scaled: bool) -> Image.Image:
    """The part of a picture that a viewport asks for, with square pixels and in its size."""
    part, flips = _part(shown.size, viewport)
    width, height = (part[2] - part[0]) / min(aspect, 1), (part[3] - part[1]) * max(aspect, 1)
    scale = min(viewport.width / width, viewport.height / height)
    scale = scale if is_scaled else min(scale, 1.0)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if part != (0, 0, *shown.size) or size != shown.size:
        shown = shown.resize(size, Image.Resampling.BILINEAR, box=part, reducing_gap=3.0)
    for flip in flips:
        shown = shown.transpose(flip)
    return shown


def _part(size: tuple[int, int], viewport: Viewport) -> tuple[tuple[float, float, float, float], list[Image.Transpose]]:
    width = size[0] - viewport.left if viewport.columns is None else viewport.columns
    height = size[1] - viewport.top if viewport.rows is None else viewport.rows
    left, top = max(viewport.left, 0), max(viewport.top, 0)
    right, bottom = min(left + abs(width), size[0]), min(top + abs(height), size[1])
    if right - left < 1 or bottom - top < 1:
        raise WebError(400, "the viewport shows no pixel of the frame")
    flips = [Image.Transpose.FLIP_LEFT_RIGHT] if width < 0 else []
    return (left, top, right, bottom), flips + ([Image.Transpose.FLIP_TOP_BOTTOM] if height < 0 else [])


def _saved(shown: Image.Image, rendering: Rendering) -> bytes:
    target = BytesIO()
    lossy = {"quality": rendering.quality} if rendering.media_type in (JPEG, WEBP) else {}
    shown.save(target, format=_FORMATS[rendering.media_type], **lossy)
    return target.getvalue()
