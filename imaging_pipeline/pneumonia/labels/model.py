"""The words for labels: what somebody or something said about one image. No input or output."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

TASK = "pneumonia"
"""The task of the model; label files are about it unless they say otherwise."""

SUBSET = "subset "
"""How a task begins whose positive labels name a set of images that models are evaluated on by itself."""

NO_FINDING = "no finding"

UNCERTAIN, NOT_MENTIONED = "uncertain", "not mentioned"
"""Values of labels that are neither yes nor no: seen but not decided, and not spoken of."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, width and height in pixels of the original image matrix."""


class Method(enum.StrEnum):
    """How a label was made."""

    READING = "READING"
    TEXT_MINING = "TEXT_MINING"
    REPORT = "REPORT"
    QUERY = "QUERY"


class OfficialSplit(enum.StrEnum):
    """The side on which the makers of a collection have put an image."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Label:
    """What one source says about one image and one task, or about a region of it.

    Attributes:
        image: SOP Instance UID, or name or path of the image, as the source has it.
        task: what the label is about, e.g. pneumonia; lower case, words apart by blanks.
        value: the label in words.
        number: 1 for the finding, 0 for none, another number on a scale; None: uncertain, or no number.
        place: where it stands in its source: the line of a file, the position in a report.
        box: the region it is about.
        collection: part of the source with a name of its own; empty: the whole.
        annotator: who said it, as the source names them. Never leaves the identified side as it is.
        method: how it was made; None: not known.
        confidence: how sure the annotator was, 0 to 1.
        is_consensus: several annotators agreed on it.
        labelled_at: when.
        split: the official side of the image.
    """

    image: str
    task: str
    value: str
    number: float | None
    place: str
    box: Box | None = None
    collection: str = ""
    annotator: str = ""
    method: Method | None = None
    confidence: float | None = None
    is_consensus: bool | None = None
    labelled_at: datetime | None = None
    split: OfficialSplit | None = None


def value_of(task: str, number: float | None) -> str:
    """A label in words.

    >>> value_of("pneumonia", 1.0), value_of("pneumonia", 0.0), value_of("pneumonia", None)
    ('pneumonia', 'no pneumonia', 'uncertain')
    """
    if number is None:
        return UNCERTAIN
    if number not in {0.0, 1.0}:
        return f"{number:g}"
    if task == NO_FINDING:
        return NO_FINDING if number else "a finding"
    return task if number else f"no {task}"


class RowRefused(Exception):
    """A row has not the form of its layout; the message says what was expected and holds no value of it."""
