"""The text detector and the recogniser of RapidOCR, run on one image.

Owns the two networks (PP-OCRv4, ONNX, inside the package ``rapidocr_onnxruntime``), their input and output. One thread
and deterministic kernels, so that the same frame gives the same boxes. Contains no decision what is text.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imaging_pipeline.deid.pixels.boxes import Box
from imaging_pipeline.errors import ConfigurationError

Image = NDArray[np.uint8]
"""(rows, columns), or (rows, columns, 3)."""

INK: Final = 0.3
"""Probability from which a pixel counts as text (PP-OCR's default)."""

TILE: Final = 1536
OVERLAP: Final = 192
"""A larger image is read in tiles of this side, in pixels, that overlap by as much, so that memory is bounded."""

_GROW: Final = 1.6
"""By how much the kernel of a text line that the network gives is grown to the line (DBNet, arXiv 1911.08947, 3.4)."""

_SMALLEST_KERNEL: Final = 3
_READ_HEIGHT: Final = 48
_READ_WIDTHS: Final = (80, 960)
"""Narrowest and widest line the recogniser is given: a third of the time of the 320 it is usually padded to, and short
lines are read no worse."""

_UPRIGHT: Final = 1.4
"""A box taller than this times its width holds a line that runs up or down."""

_SLANTED: Final = 3.0
"""Degrees from which a line is turned before it is read."""

_WASTED: Final = 2.0
"""A box this much larger than the slanted line in it is not blanked as a whole."""

_LONG: Final = 2.0
"""Length by height from which the angle of a line is known."""

_MULTIPLE: Final = 32


class Slant(NamedTuple):
    """A rectangle that does not lie along rows and columns.

    Attributes:
        x, y: its middle, in pixels.
        length, height: its sides, the longer one first.
        angle: of the longer side to the rows, clockwise, above -90 and up to 90 degrees.
    """

    x: float
    y: float
    length: float
    height: float
    angle: float

    def scaled(self, by: float) -> Slant:
        """The rectangle in an image ``by`` times as large."""
        return Slant(self.x * by, self.y * by, self.length * by, self.height * by, self.angle)


@dataclass(frozen=True, slots=True)
class Line:
    """A place where the detector sees text.

    Attributes:
        box: around it.
        score: how sure the detector is, 0 to 1.
        slant: where it lies inside ``box`` when it runs neither across nor up or down.
    """

    box: Box
    score: float
    slant: Slant | None = None

    @property
    def length(self) -> float:
        """The longer side in pixels."""
        return self.slant.length if self.slant else max(self.box.sides)

    @property
    def height(self) -> float:
        """The shorter side in pixels."""
        return self.slant.height if self.slant else min(self.box.sides)

    @property
    def is_upright(self) -> bool:
        """Whether it runs up or down."""
        rows, columns = self.box.sides
        return self.slant is None and rows > _UPRIGHT * columns

    @property
    def parts(self) -> list[Box]:
        """Boxes that cover the line, and of a slanted one little beside it."""
        import cv2  # noqa: PLC0415  # 0.2 s: only objects with pixels pay for it

        if self.slant is None or self.box.area < _WASTED * self.length * self.height:
            return [self.box]
        corners = _corners(self.slant) - np.array((self.box.left, self.box.top), np.float32)
        inside = np.zeros(self.box.sides, np.uint8)
        cv2.fillConvexPoly(inside, np.round(corners).astype(np.int32), 1)
        found, step = [], max(int(self.slant.height / 2), 4)
        for left in range(0, inside.shape[1], step):
            used = np.flatnonzero(inside[:, left : left + step].any(axis=1))
            if used.size:
                right = min(left + step, inside.shape[1])
                part = Box(left, int(used[0]), right, int(used[-1]) + 1)
                found.append(part.moved(self.box.left, self.box.top))
        return found

    def moved(self, right: int, down: int) -> Line:
        """The line ``right`` and ``down`` pixels further."""
        slant = self.slant and self.slant._replace(x=self.slant.x + right, y=self.slant.y + down)
        return Line(self.box.moved(right, down), self.score, slant)

    def crop(self, image: Image) -> Image:
        """The line out of ``image``, from left to right or from right to left, a slanted one turned upright."""
        import cv2  # noqa: PLC0415  # as above

        if self.slant is None:
            crop = image[self.box.rows, self.box.columns]
            return np.ascontiguousarray(np.rot90(crop)) if self.is_upright else crop
        x, y, length, height, angle = self.slant
        turn = np.asarray(cv2.getRotationMatrix2D((x, y), angle, 1), np.float64)
        turn[:, 2] += np.array((length / 2 - x, height / 2 - y))
        size = (max(round(length), 1), max(round(height), 1))
        return np.asarray(cv2.warpAffine(image, turn, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def find_lines(image: Image, zoom: float, least: float) -> list[Line]:
    """Lines of text with a score of at least ``least``, in pixels of ``image``, seen ``zoom`` times larger."""
    import cv2  # noqa: PLC0415  # as above

    way = cv2.INTER_LINEAR if zoom > 1 else cv2.INTER_AREA
    scaled = image if zoom == 1 else cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=way)
    ink = _probabilities(np.asarray(scaled, np.uint8))
    mask = cv2.dilate((ink > INK).astype(np.uint8), np.ones((2, 2), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    rows, columns = image.shape[:2]
    found = []
    for label, (left, top, width, height, _area) in enumerate(stats.tolist()):
        if not label or min(width, height) < _SMALLEST_KERNEL:
            continue
        part = (slice(top, top + height), slice(left, left + width))
        kernel = labels[part] == label
        score = float(ink[part][kernel].mean())
        if score < least:
            continue
        slant = _slant(kernel, left, top)
        if slant is None:
            grown = _grown(width, height)
            edges = (left - grown, top - grown, left + width + grown, top + height + grown)
        else:
            corners = _corners(slant)
            edges = (*corners.min(axis=0).tolist(), *(corners.max(axis=0) + 1).tolist())
            slant = slant.scaled(1 / zoom)
        box = Box(
            *(int(np.floor(edge / zoom)) for edge in edges[:2]), *(int(np.ceil(edge / zoom)) for edge in edges[2:])
        ).within(rows, columns)
        if box.area:
            found.append(Line(box, score, slant))
    return found


def _slant(kernel: NDArray[np.bool_], left: int, top: int) -> Slant | None:
    """The grown rectangle of a long kernel at an angle; None for one along rows or columns."""
    import cv2  # noqa: PLC0415  # as above

    points = np.argwhere(kernel)[:, ::-1].astype(np.float32)
    (x, y), (length, height), angle = cv2.minAreaRect(points)
    if length < height:
        length, height, angle = height, length, angle + 90
    length, height = length + 1, height + 1
    angle = -((-angle + 90) % 180 - 90)  # above -90, up to 90
    beside = min(abs(angle), 90 - abs(angle))
    if beside < _SLANTED or length < _LONG * height or height < _SMALLEST_KERNEL:
        return None
    more = 2 * _grown(length, height)
    return Slant(x + left, y + top, length + more, height + more, angle)


def _corners(slant: Slant) -> NDArray[np.float32]:
    """The four corners, (4, 2): x and y."""
    import cv2  # noqa: PLC0415  # as above

    return np.asarray(cv2.boxPoints(((slant.x, slant.y), (slant.length, slant.height), slant.angle)), np.float32)


def _grown(width: float, height: float) -> float:
    return _GROW * width * height / (2 * (width + height)) + 1


def read_line(image: Image) -> tuple[str, float]:
    """The text of one line, upright, and the mean confidence of its characters, 0 to 1; empty when none is read."""
    import cv2  # noqa: PLC0415  # as above

    rows, columns = image.shape[:2]
    width = min(max(round(columns * _READ_HEIGHT / rows), 8), _READ_WIDTHS[1])
    scaled = cv2.resize(image, (width, _READ_HEIGHT), interpolation=cv2.INTER_LINEAR)
    padded = np.zeros((1, 3, _READ_HEIGHT, max(_READ_WIDTHS[0], width + -width % 8)), np.float32)
    padded[..., :width] = _planes(np.asarray(scaled, np.uint8))
    session, characters = _recogniser()
    chances = session.run(None, {session.get_inputs()[0].name: padded})[0][0]
    best = chances.argmax(axis=1)
    is_new = np.concatenate([[True], best[1:] != best[:-1]]) & (best != 0)
    if not is_new.any():
        return "", 0.0
    text = "".join(characters[index] for index in best[is_new])
    return text, float(chances.max(axis=1)[is_new].mean())


def _probabilities(image: Image) -> NDArray[np.float32]:
    """Probability of text, (rows, columns); tiles are joined by the greater value."""
    rows, columns = image.shape[:2]
    found = np.zeros((rows, columns), np.float32)
    step = TILE - OVERLAP
    for top in range(0, max(rows - OVERLAP, 1), step):
        for left in range(0, max(columns - OVERLAP, 1), step):
            part = (slice(top, min(top + TILE, rows)), slice(left, min(left + TILE, columns)))
            found[part] = np.maximum(found[part], _tile(image[part]))
    return found


def _tile(image: Image) -> NDArray[np.float32]:
    rows, columns = image.shape[:2]
    more = [(0, -rows % _MULTIPLE), (0, -columns % _MULTIPLE)] + [(0, 0)] * (image.ndim - 2)
    planes = _planes(np.pad(image, more, mode="edge"))
    session = _detector()
    ink: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: planes[None]})[0][0, 0]
    return ink[:rows, :columns]


def _planes(image: Image) -> NDArray[np.float32]:
    """(3, rows, columns) from -1 to 1, as both networks were trained."""
    scaled = image.astype(np.float32) / 127.5 - 1
    return np.repeat(scaled[None], 3, axis=0) if image.ndim == 2 else np.ascontiguousarray(scaled.transpose(2, 0, 1))


@lru_cache(maxsize=1)
def _detector() -> Any:
    return _session("ch_PP-OCRv4_det_infer.onnx")


@lru_cache(maxsize=1)
def _recogniser() -> tuple[Any, list[str]]:
    """The session and its characters; the first is the blank of its alignment, the last the space."""
    session = _session("ch_PP-OCRv4_rec_infer.onnx")
    listed = session.get_modelmeta().custom_metadata_map["character"].splitlines()
    return session, ["", *listed, " "]


def _session(name: str) -> Any:
    import cv2  # noqa: PLC0415  # as above

    package = importlib.util.find_spec("rapidocr_onnxruntime")
    if package is None or package.origin is None:
        raise ConfigurationError("the text detector is not installed; install rapidocr-onnxruntime")
    onnxruntime: Any = importlib.import_module("onnxruntime")
    cv2.setNumThreads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    path = Path(package.origin).parent / "models" / name
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
