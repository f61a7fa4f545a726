"""The plain layout: one row for each label, with columns under their own names; read and written.

An image is named by ``sop_instance_uid`` (``instance_key`` on the research side) or by ``image``; the label is in
``label``, or in a column called like the task. All other columns may be missing.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import TypeVar

from imaging_pipeline.conversion.csv_table import Row
from imaging_pipeline.pneumonia.labels.layouts import box_of
from imaging_pipeline.pneumonia.labels.model import (
    TASK,
    UNCERTAIN,
    Box,
    Label,
    Method,
    OfficialSplit,
    RowRefused,
    value_of,
)

IMAGE = ("sop_instance_uid", "sopinstanceuid", "instance_key", "image", "image_id", "file", "filename", "path")
LABEL = ("label", "target", "class", TASK)
_COLLECTION = ("source", "collection")
_ANNOTATOR = ("annotator", "reader", "radiologist")
_SPLIT = ("official_split", "split")

WRITTEN = (
    "sop_instance_uid", "task", "label", "source", "annotator", "method", "confidence", "is_consensus", "labelled_at",
    "official_split", "x", "y", "width", "height",
)  # fmt: skip

WORDS: Mapping[str, float | None] = MappingProxyType(
    dict.fromkeys(("true", "yes", "y", "positive", "pos", "present"), 1.0)
    | dict.fromkeys(("false", "no", "n", "negative", "neg", "absent", "normal"), 0.0)
    | dict.fromkeys(("-1", "-1.0", UNCERTAIN, "unclear", "equivocal", "indeterminate", "possible", "?"))
)
"""Words of labels that are yes, no or neither."""

_SPLITS: Mapping[str, OfficialSplit] = MappingProxyType(
    {side.value: side for side in OfficialSplit}
    | {"training": OfficialSplit.TRAIN, "valid": OfficialSplit.VAL, "validation": OfficialSplit.VAL}
    | {"testing": OfficialSplit.TEST}
)
_METHODS: Mapping[str, Method] = MappingProxyType({method.value.casefold(): method for method in Method})
_TRUTH: Mapping[str, bool] = MappingProxyType(
    {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
)

LONGEST_WORDS = 64
"""Characters of a task, a label in words or the name of a collection."""


def plain(row: Row) -> Iterator[Label]:
    """The label of a row."""
    cells = row.cells
    image = _first(cells, IMAGE)
    if not image:
        raise RowRefused("expected the name or SOP Instance UID of an image")
    task = " ".join(cells.get("task", "").casefold().replace("_", " ").split()) or TASK
    value, number = _value(_first(cells, LABEL), task)
    collection = _first(cells, _COLLECTION)
    if max(len(task), len(value), len(collection)) > LONGEST_WORDS:
        raise RowRefused(f"expected a task, label and source of {LONGEST_WORDS} characters at most")
    yield Label(
        image=image,
        task=task,
        value=value,
        number=number,
        place=str(row.line),
        box=_box(cells),
        collection=collection,
        annotator=_first(cells, _ANNOTATOR),
        method=_word(cells.get("method", "").replace(" ", "_"), _METHODS, "method"),
        confidence=_share(cells.get("confidence", "")),
        is_consensus=_word(cells.get("is_consensus", ""), _TRUTH, "is_consensus"),
        labelled_at=_moment(cells.get("labelled_at", "")),
        split=_word(_first(cells, _SPLIT), _SPLITS, "official_split"),
    )


def write_plain(labels: Iterable[Label]) -> bytes:
    """Labels as a file of this layout, their images named by SOP Instance UID.

    Args:
        labels: their ``image`` is a SOP Instance UID.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(WRITTEN)
    for label in labels:
        said = label.value if label.number is None else f"{label.number:g}"
        at = label.labelled_at.isoformat() if label.labelled_at else ""
        known = (label.annotator, label.method, label.confidence, label.is_consensus, at, label.split)
        box = label.box or ("", "", "", "")
        writer.writerow((label.image, label.task, said, label.collection, *known, *box))
    return text.getvalue().encode()


def _first(cells: Mapping[str, str], names: Iterable[str]) -> str:
    return next((cells[name] for name in names if cells.get(name)), "")


def _value(text: str, task: str) -> tuple[str, float | None]:
    """A label in words and as a number; what is neither a number nor yes or no is a class of its own."""
    word = " ".join(text.casefold().replace("_", " ").split())
    if not word:
        raise RowRefused("expected a label")
    if word in {task, f"no {task}"}:
        return value_of(task, float(word == task)), float(word == task)
    if word in WORDS:
        return value_of(task, WORDS[word]), WORDS[word]
    try:
        number = float(word)
    except ValueError:
        return word, None
    if not math.isfinite(number):
        raise RowRefused("expected a finite number as label")
    return value_of(task, number), number


def _box(cells: Mapping[str, str]) -> Box | None:
    """The box of a row; a width and height without a place are those of the image."""
    texts = [cells.get(name, "") for name in ("x", "y", "width", "height")]
    return box_of(texts) if any(texts[:2]) else None


def _share(text: str) -> float | None:
    try:
        share = float(text) if text else None
    except ValueError:
        share = -1.0
    if share is not None and not 0 <= share <= 1:
        raise RowRefused("expected a confidence from 0 to 1")
    return share


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        raise RowRefused("expected labelled_at as YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS") from None
    return moment.replace(tzinfo=None) if moment else None  # the wall clock, as all times of the lake


Known = TypeVar("Known")


def _word(text: str, known: Mapping[str, Known], column: str) -> Known | None:
    if not text:
        return None
    if text.casefold() not in known:
        raise RowRefused(f"expected {column} to be one of {', '.join(sorted(known))}")
    return known[text.casefold()]
