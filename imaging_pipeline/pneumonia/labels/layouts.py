"""The label tables of the large public collections of chest films.

RSNA Pneumonia Detection Challenge (Shih et al., Radiology: AI 2019): boxes, and the classes of its detailed table.
ChestX-ray14 (Wang et al., CVPR 2017): findings mined from reports, and its list of boxes. CheXpert (Irvin et al., AAAI
2019): 14 findings, each 1, 0, -1 (uncertain) or empty (not mentioned). Owns what is in a row of them, and nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from imaging_pipeline.conversion.csv_table import Row
from imaging_pipeline.pneumonia.labels.model import (
    NO_FINDING,
    NOT_MENTIONED,
    TASK,
    Box,
    Label,
    Method,
    OfficialSplit,
    RowRefused,
    value_of,
)

RSNA_COLUMNS = ("patientid", "x", "y", "width", "height", "target")
RSNA_CLASS_COLUMNS = ("patientid", "class")
NIH_COLUMNS = ("image index", "finding labels")
NIH_BOX_COLUMNS = ("image index", "finding label", "bbox [x", "y", "w", "h]")
CHEXPERT_COLUMNS = ("path", "frontal/lateral", "ap/pa", "no finding")

NIH_FINDINGS = (
    "atelectasis", "cardiomegaly", "consolidation", "edema", "effusion", "emphysema", "fibrosis", "hernia",
    "infiltration", "mass", "nodule", "pleural thickening", "pneumonia", "pneumothorax",
)  # fmt: skip
"""The findings of ChestX-ray14."""

CHEXPERT_FINDINGS = (
    "no finding", "enlarged cardiomediastinum", "cardiomegaly", "lung opacity", "lung lesion", "edema", "consolidation",
    "pneumonia", "atelectasis", "pneumothorax", "pleural effusion", "pleural other", "fracture", "support devices",
)  # fmt: skip
"""The columns of CheXpert."""

LARGEST_IMAGE = 65_535
"""Rows and columns an image may have (PS3.3 C.7.6.3)."""

CLASS_TASK = "chest film class"
"""Task of the detailed table of the RSNA challenge: its value is one of three classes."""

RSNA_CLASSES = frozenset({"normal", "lung opacity", "no lung opacity / not normal"})
_NIH_SPELLINGS: Mapping[str, str] = MappingProxyType({"infiltrate": "infiltration"})
_CHEXPERT_PATH = re.compile(r"(?:(?P<side>train|valid|test)/)?(?P<image>patient\d+/study\d+/[^/]+)$")
_CHEXPERT_SIDES = MappingProxyType(
    {"train": OfficialSplit.TRAIN, "valid": OfficialSplit.VAL, "test": OfficialSplit.TEST}
)


def rsna(row: Row) -> Iterator[Label]:
    """One row for each box of an image, or a single one without box. What is called patientId names one image."""
    target = row.cells["target"]
    numbers = [row.cells[name] for name in RSNA_COLUMNS[1:5]]
    if target not in {"0", "1"}:
        raise RowRefused("expected Target 0 or 1")
    box = box_of(numbers) if any(numbers) else None
    if (target == "1") != (box is not None):
        raise RowRefused("expected a box on a row with Target 1 and none with Target 0")
    number = float(target)
    image = _named(row.cells["patientid"])
    yield Label(image, TASK, value_of(TASK, number), number, str(row.line), box, method=Method.READING)


def rsna_class(row: Row) -> Iterator[Label]:
    """One row for each box of an image, with its class."""
    found = row.cells["class"].casefold()
    if found not in RSNA_CLASSES:
        raise RowRefused("expected one of the three classes of the challenge")
    yield Label(_named(row.cells["patientid"]), CLASS_TASK, found, None, str(row.line), method=Method.READING)


def nih(row: Row) -> Iterator[Label]:
    """One row for each image, its findings with ``|`` between them; what is not named is not there."""
    image = _named(row.cells["image index"])
    named = {_nih_finding(text) for text in row.cells["finding labels"].split("|")}
    unknown = named - {NO_FINDING, *NIH_FINDINGS}
    if unknown or (NO_FINDING in named and len(named) > 1):
        raise RowRefused("expected findings of ChestX-ray14, or No Finding alone")
    place = str(row.line)
    for task in (NO_FINDING, *NIH_FINDINGS):
        number = float(task in named)
        yield Label(image, task, value_of(task, number), number, place, method=Method.TEXT_MINING)


def nih_box(row: Row) -> Iterator[Label]:
    """One row for each box, drawn by a radiologist."""
    task = _nih_finding(row.cells["finding label"])
    if task not in NIH_FINDINGS:
        raise RowRefused("expected a finding of ChestX-ray14")
    box = box_of([row.cells[name] for name in NIH_BOX_COLUMNS[2:]])
    yield Label(_named(row.cells["image index"]), task, task, 1.0, str(row.line), box, method=Method.READING)


def chexpert(row: Row) -> Iterator[Label]:
    """One row for each image. The folder says the official side; radiologists have read all but the training side."""
    found = _CHEXPERT_PATH.search(row.cells["path"])
    if found is None:
        raise RowRefused("expected a path that ends with patient, study and view")
    split = _CHEXPERT_SIDES.get(found["side"] or "")
    method = Method.TEXT_MINING if split is OfficialSplit.TRAIN else Method.READING if split else None
    image, place = found["image"], str(row.line)
    for task in CHEXPERT_FINDINGS:
        text = row.cells.get(task, "")
        if text not in _CHEXPERT_NUMBERS:
            raise RowRefused("expected 1, 0, -1 or nothing for each finding")
        number = _CHEXPERT_NUMBERS[text]
        value = value_of(task, number) if text else NOT_MENTIONED
        yield Label(image, task, value, number, place, method=method, split=split)


_CHEXPERT_NUMBERS: Mapping[str, float | None] = MappingProxyType(
    {"": None, "1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": None, "-1.0": None}
)


def box_of(texts: Sequence[str]) -> Box:
    """A box from the texts of x, y, width and height.

    Raises:
        RowRefused: they are no box of positive size.
    """
    try:
        x, y, width, height = (float(text) for text in texts)
    except ValueError:
        raise RowRefused("expected four numbers in x, y, width and height") from None
    is_inside = min(x, y) >= 0 and min(width, height) > 0 and max(x + width, y + height) <= LARGEST_IMAGE
    if not (math.isfinite(x + y + width + height) and is_inside):
        raise RowRefused("expected a finite box of positive size inside the image")
    return x, y, width, height


def _nih_finding(text: str) -> str:
    name = text.strip().casefold().replace("_", " ")
    return _NIH_SPELLINGS.get(name, name)


def _named(image: str) -> str:
    if not image:
        raise RowRefused("expected the name of an image")
    return image
