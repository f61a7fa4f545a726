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

_TELLING = 4
"""Characters of a Patient ID from which on it may not stand within a word either."""

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
        """Whether a name that a site has chosen is short and holds no name or number of a patient, however written."""
        words = _words(text)
        squeezed = "".join(words)
        if not _COLLECTION.fullmatch(text) or _LONG_NUMBER.search(squeezed):
            return False
        runs = {"".join(words[start:end]) for end in range(len(words) + 1) for start in range(end)}
        names, numbers = self._identifiers
        is_within = any(number in squeezed for number in numbers if len(number) >= _TELLING)
        return runs.isdisjoint(names | numbers) and not is_within

    @cached_property
    def _identifiers(self) -> tuple[frozenset[str], frozenset[str]]:
        """Words of patients' names, and Patient IDs, in lower case and without punctuation."""
        names, numbers = set[str](), set[str]()
        for patient_id, name in self._lake.rows("SELECT patient_id, patient_name FROM silver.dicom_patient"):
            numbers.add("".join(_words(str(patient_id))))
            names.update(word for word in _words(str(name or "")) if len(word) > 1)
        return frozenset(names), frozenset(numbers - {""})


def _is_clinical(text: str) -> bool:
    if text in _KNOWN:
        return True
    words = [word for word in re.split(r"[\s/,()+-]+", folded(text)) if word]
    numbers = [word for word in words if _NUMBER.fullmatch(word)]
    return len(numbers) <= 1 and all(is_clinical(word) for word in words if word not in numbers)


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", text.casefold()) if word]
