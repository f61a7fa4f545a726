"""Which words of a label file may reach the research side: those of known tasks and of the clinical vocabulary.

A label file is written by hand; a name can stand anywhere in it. What annotators are called never leaves.
"""

from __future__ import annotations

import re
from functools import cached_property

from imaging_pipeline.deid.vocabulary import is_clinical
from imaging_pipeline.deid.vocabulary import plain as folded
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.pneumonia.labels.layouts import CHEXPERT_FINDINGS, CLASS_TASK, NIH_FINDINGS, RSNA_CLASSES
from imaging_pipeline.pneumonia.labels.model import NOT_MENTIONED, SUBSET, UNCERTAIN, Label, value_of

_KNOWN = frozenset({*NIH_FINDINGS, *CHEXPERT_FINDINGS, CLASS_TASK, *RSNA_CLASSES, UNCERTAIN, NOT_MENTIONED})
_COLLECTION = re.compile(r"[A-Za-z][A-Za-z0-9 ._-]{0,31}")
_NUMBER = re.compile(r"\d{1,2}")
_LONG_NUMBER = re.compile(r"\d{5}")

LARGEST_NUMBER = 1000
"""A greater one is no label, but may be somebody's number."""


class Vetting:
    """Decides about the words of labels."""

    def __init__(self, identified: Lake) -> None:
        """Take the lake whose patients' names and numbers may be no source."""
        self._lake = identified

    def objection(self, label: Label) -> str:
        """What is wrong with the words of a label, without any of them; nothing when they may go out."""
        if label.task.startswith(SUBSET):
            if not self._is_collection(label.task.removeprefix(SUBSET)):
                return "expected a short name of a subset that is no name or number of a patient"
        elif not _is_clinical(label.task):
            return "expected a task of clinical words"
        if label.number is None and label.value != value_of(label.task, None) and not _is_clinical(label.value):
            return "expected a label of clinical words, yes, no or a number"
        if label.number is not None and abs(label.number) > LARGEST_NUMBER:
            return f"expected a number of at most {LARGEST_NUMBER} as label"
        if label.collection and not self._is_collection(label.collection):
            return "expected a source that is a short word and no name or number of a patient"
        return ""

    def _is_collection(self, text: str) -> bool:
        if not _COLLECTION.fullmatch(text) or _LONG_NUMBER.search(text):
            return False
        return {text.casefold(), *_words(text)}.isdisjoint(self._identifiers)

    @cached_property
    def _identifiers(self) -> frozenset[str]:
        """Patient IDs and the words of patients' names, in lower case."""
        found: set[str] = set()
        for patient_id, name in self._lake.rows("SELECT patient_id, patient_name FROM silver.dicom_patient"):
            found.add(str(patient_id).casefold())
            found.update(_words(str(name or "")))
        return frozenset(found)


def _is_clinical(text: str) -> bool:
    if text in _KNOWN:
        return True
    words = [word for word in re.split(r"[\s/,()+-]+", folded(text)) if word]
    numbers = [word for word in words if _NUMBER.fullmatch(word)]
    return len(numbers) <= 1 and all(is_clinical(word) for word in words if word not in numbers)


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", text.casefold()) if len(word) > 2]
