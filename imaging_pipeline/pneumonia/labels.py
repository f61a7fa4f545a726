"""Reads the label table of the RSNA Pneumonia Detection Challenge (2018).

Owns that one CSV format: ``patientId,x,y,width,height,Target``, one row per box of an image, or a single row
without box for an image without pneumonia. Contains no join with the catalog and reads no file: bytes in,
labels out. What the CSV calls ``patientId`` names one image there, not a person, hence ``image_id`` here.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
from dataclasses import dataclass
from typing import TypeAlias

from imaging_pipeline.errors import PoisonInput, Reason

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, width and height in pixels of the original image matrix."""

COLUMNS = ("patientId", "x", "y", "width", "height", "Target")
"""The header of the format, in its order and spelling."""


@dataclass(frozen=True, slots=True)
class ImageLabel:
    """What the readers said about one image.

    Attributes:
        image_id: the image's name in the challenge (also the stem of its file).
        pneumonia: whether at least one opacity suspicious for pneumonia was marked.
        boxes: the marked opacities, in file order; empty for an image without pneumonia.
    """

    image_id: str
    pneumonia: bool
    boxes: tuple[Box, ...]


def is_rsna_labels(data: bytes) -> bool:
    """Whether ``data`` begins with the header line of the format."""
    first_line = data.removeprefix(codecs.BOM_UTF8).split(b"\n", 1)[0].strip()
    return first_line == ",".join(COLUMNS).encode()


def read_rsna_labels(data: bytes) -> list[ImageLabel]:
    """All labels of the table, one per image, in order of first appearance.

    Raises:
        PoisonInput: ``Reason.MALFORMED`` with the line number (never a value) when the header, a number or a
            target is not as the format says, or when the rows of one image contradict each other.
    """
    if not is_rsna_labels(data):
        raise _malformed(1, f"expected the header {','.join(COLUMNS)}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _malformed(data.count(b"\n", 0, error.start) + 1, "expected UTF-8 text") from None
    targets: dict[str, bool] = {}
    boxes: dict[str, list[Box]] = {}
    for line, cells in _rows(text):
        image_id, pneumonia, box = _read_row(line, cells)
        if targets.setdefault(image_id, pneumonia) != pneumonia:
            raise _malformed(line, "expected the same Target on all rows of an image")
        boxes.setdefault(image_id, []).extend([box] if box else [])
    return [ImageLabel(image_id, pneumonia, tuple(boxes[image_id])) for image_id, pneumonia in targets.items()]


def _rows(text: str) -> list[tuple[int, list[str]]]:
    """The non-empty rows below the header, each with its line number (the header is line 1)."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error:
        raise _malformed(reader.line_num, "expected comma-separated values") from None
    return rows[1:]


def _read_row(line: int, cells: list[str]) -> tuple[str, bool, Box | None]:
    if len(cells) != len(COLUMNS):
        raise _malformed(line, f"expected {len(COLUMNS)} fields, found {len(cells)}")
    image_id, target, numbers = cells[0].strip(), cells[5].strip(), [cell.strip() for cell in cells[1:5]]
    if not image_id:
        raise _malformed(line, "expected an image id")
    if target not in {"0", "1"}:
        raise _malformed(line, "expected Target 0 or 1")
    box = _read_box(line, numbers) if any(numbers) else None
    if (target == "1") != (box is not None):
        raise _malformed(line, "expected a box on a row with Target 1 and none with Target 0")
    return image_id, target == "1", box


def _read_box(line: int, numbers: list[str]) -> Box:
    try:
        x, y, width, height = (float(number) for number in numbers)
    except ValueError:
        raise _malformed(line, "expected four numbers in x, y, width and height") from None
    if not all(math.isfinite(number) for number in (x, y, width, height)) or min(x, y) < 0 or min(width, height) <= 0:
        raise _malformed(line, "expected a finite box of positive size inside the image")
    return x, y, width, height


def _malformed(line: int, message: str) -> PoisonInput:
    return PoisonInput(Reason.MALFORMED, f"line {line}: {message}")
