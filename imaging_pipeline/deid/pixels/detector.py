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
from typing import Any, Final

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
_READ_WIDTHS: Final = (320, 960)
_MULTIPLE: Final = 32


@dataclass(frozen=True, slots=True)
class Line:
    """A place where the detector sees text: its box, and how sure it is, 0 to 1."""

    box: Box
    score: float


def find_lines(image: Image, zoom: float, least: float) -> list[Line]:
    """Lines of text with a score of at least ``least``, in pixels of ``image``, seen ``zoom`` times larger."""
    import cv2  # noqa: PLC0415  # 0.2 s: only objects with pixels pay for it

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
        score = float(ink[part][labels[part] == label].mean())
        if score < least:
            continue
        grown = _GROW * width * height / (2 * (width + height)) + 1
        edges = (left - grown, top - grown, left + width + grown, top + height + grown)
        box = Box(
            *(int(np.floor(edge / zoom)) for edge in edges[:2]), *(int(np.ceil(edge / zoom)) for edge in edges[2:])
        )
        found.append(Line(box.within(rows, columns), score))
    return found


def read_line(image: Image) -> tuple[str, float]:
    """The text of one line, upright, and the mean confidence of its characters, 0 to 1; empty when none is read."""
    import cv2  # noqa: PLC0415  # as above

    rows, columns = image.shape[:2]
    width = min(max(round(columns * _READ_HEIGHT / rows), 8), _READ_WIDTHS[1])
    scaled = cv2.resize(image, (width, _READ_HEIGHT), interpolation=cv2.INTER_LINEAR)
    padded = np.zeros((1, 3, _READ_HEIGHT, max(_READ_WIDTHS[0], width)), np.float32)
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
