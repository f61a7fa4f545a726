"""Coded concepts and content items: what of a report's tree identifies somebody (PS3.15 E.3.4, PS3.3 C.17.3).

Owns the judgement of coded items and of the concepts under which reports name people, numbers and places. Contains no
walk through data sets.
"""

from __future__ import annotations

import re
from typing import Final

from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset

from imaging_pipeline.deid import codes
from imaging_pipeline.deid.element_values import UNSAFE_TEXT, filled, fitted
from imaging_pipeline.deid.options import DESCRIPTORS, PATIENT, STRUCTURED_CONTENT
from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.reading import attribute, tag_of, texts_of
from imaging_pipeline.deid.screen import DUMMY_TEXT, Index
from imaging_pipeline.deid.text import TextCleaner

CODE_KEYWORDS: Final = frozenset({"CodeValue", "LongCodeValue", "CodingSchemeDesignator", "CodeMeaning"})
"""What is kept of a coded item; the meaning is the dictionary's, or cleaned."""

CODE_VALUE_KEYWORDS: Final = ("CodeValue", "LongCodeValue", "URNCodeValue")

DUMMY_CODE: Final = {"CodeValue": DUMMY_TEXT, "CodingSchemeDesignator": "99DEID", "CodeMeaning": DUMMY_TEXT}
"""Stands for a code that names a person, an organization or a place."""

LOCAL_SCHEME: Final = "99LOCAL"
"""Stands for the designator of a private scheme that may name an institution."""

IDENTIFYING: Final = frozenset(
    {
        "121008", "121009", "121013", "121016", "121017", "121020", "121021", "121022", "121029", "121030", "121031",
        "121040", "121041", "121043", "121121", "121148", "121152", "121193", "121196", "121197", "111700", "111705",
        "111706", "111718", "111724", "113511", "113513", "113514", "113516", "113870", "113871", "113872", "113873",
        "113877", "113880", "122143", "127122", "128774", "128775", "110122", "110152", "110153", "110182", "110190",
        "121114", "121434",
    }
)  # fmt: skip
"""DCM concepts (PS3.16 Annex D) whose values name persons, numbers, organizations, devices and places: TID 1002 to 1010
(observation context), 1204, 10003 and 8001."""

CHARACTERISTICS: Final = frozenset({"121032", "121033", "121034", "121035"})
"""Sex, age, species and breed of the subject (TID 1007), for the option Retain Patient Characteristics."""

SUBJECT_AGE: Final = "121033"

_NAMING: Final = re.compile(
    r"\b(physician|doctor|surgeon|radiologist|nurse|technologist|operator|sonographer|author|recorder|phone|telephone|"
    r"address|e-?mail|login|birth ?date|date of birth|insurance|mrn|ssn|accession|"
    r"(patient|subject|person|observer|organi[sz]ation|institution|hospital|department|ward|staff)\W+"
    r"(s\W+)?(name|id|identifier|number))\b(?! note)",
    re.IGNORECASE,
)
_LOCAL_CODE: Final = re.compile(r"[A-Za-z0-9._+-]{1,16}")
_LOCAL_SCHEME: Final = re.compile(r"[A-Za-z0-9._ -]{1,16}")
_LETTERS: Final = re.compile(r"[A-Za-z]{4,}")


class Codes:
    """Judges coded items (PS3.3 8.8) of one object.

    Attributes:
        meanings: meanings written into the output.
    """

    def __init__(self, profile: Profile, index: Index, text: TextCleaner | None) -> None:
        self._schemes = profile.coding_schemes
        self._index = index
        self._text = text if not profile.options.isdisjoint((DESCRIPTORS, STRUCTURED_CONTENT)) else None
        self.meanings: set[str] = set()

    def of(self, item: Dataset) -> dict[str, str]:
        """The coded concept as it may be released, or nothing.

        A known code has the dictionary's meaning. Under the options that clean text a code of another scheme stays
        when it has the form of a code, with its meaning cleaned.
        """
        found = {name: texts_of(item, name) for name in CODE_KEYWORDS if tag_of(name) in item}
        value_keyword = "CodeValue" if "CodeValue" in found else "LongCodeValue"
        code, scheme = found.get(value_keyword, []), found.get("CodingSchemeDesignator", [])
        if len(code) != 1 or len(scheme) != 1 or not code[0] or self._index.in_text(code[0]):
            return {}
        meaning = codes.meaning(scheme[0], code[0]) if scheme[0] in self._schemes else None
        designator = scheme[0]
        if meaning is None:
            meaning = self._local(code[0], found.get("CodeMeaning", []))
            designator = self._scheme(scheme[0])
        if meaning is None:
            return {}
        self.meanings.add(meaning)
        return {value_keyword: code[0], "CodingSchemeDesignator": designator, "CodeMeaning": meaning}

    def _local(self, code: str, meanings: list[str]) -> str | None:
        """The cleaned meaning of a code that no dictionary has, or None when the code is none or may name somebody."""
        if self._text is None or len(meanings) != 1 or not _LOCAL_CODE.fullmatch(code) or UNSAFE_TEXT.search(code):
            return None
        if not all(self._is_word(word) for word in _LETTERS.findall(code)):
            return None
        return fitted(self._text.clean(meanings[0]).text, "LO") or None

    def _scheme(self, scheme: str) -> str:
        """The scheme of a local code; one that may be called after a place or a person is `LOCAL_SCHEME`."""
        is_plain = _LOCAL_SCHEME.fullmatch(scheme) and all(self._is_word(word) for word in _LETTERS.findall(scheme))
        return scheme if is_plain else LOCAL_SCHEME

    def _is_word(self, word: str) -> bool:
        """Whether a run of letters in a code is a word the cleaning of texts lets through."""
        return self._text is not None and self._text.clean(word).text == word


def is_coded(item: Dataset) -> bool:
    """Whether an item of a sequence is a coded concept."""
    return any(tag_of(keyword) in item for keyword in CODE_VALUE_KEYWORDS)


def dummy_item() -> Dataset:
    """A coded concept that says nothing, for a sequence that must have an item."""
    elements = (filled(tag_of(keyword), dictionary_VR(keyword), [text]) for keyword, text in DUMMY_CODE.items())
    return Dataset({elem.tag: elem for elem in elements})


def concept(item: Dataset) -> tuple[str, str]:
    """Code and meaning of a content item's concept name, empty when it has none."""
    names = attribute(item, "ConceptNameCodeSequence")
    if names is None or names.VR != "SQ" or not names.value:
        return "", ""
    first = names.value[0]
    code, meaning, scheme = (
        texts_of(first, keyword) for keyword in ("CodeValue", "CodeMeaning", "CodingSchemeDesignator")
    )
    return (code[0] if code and scheme == ["DCM"] else ""), " ".join(meaning)


def is_identifying(item: Dataset) -> bool:
    """Whether a content item says who, where or which number, by its concept name."""
    code, meaning = concept(item)
    return code in IDENTIFYING or _NAMING.search(meaning) is not None


def may_stay(item: Dataset, profile: Profile) -> bool:
    """Whether a content item may stay at all, with its value cleaned or replaced.

    Dates and numbers under an identifying concept go with their item: they have no value that could stand there.
    Characteristics of the patient stay under their option, an age above the profile's highest does not.
    """
    code, _ = concept(item)
    if code in CHARACTERISTICS:
        return PATIENT in profile.options and not (code == SUBJECT_AGE and _is_too_old(item, profile.max_age))
    kind = texts_of(item, "ValueType")
    return not (is_identifying(item) and kind in (["DATE"], ["TIME"], ["DATETIME"], ["NUM"]))


def _is_too_old(item: Dataset, max_age: int | None) -> bool:
    """Whether a NUM content item is above ``max_age``; what cannot be read is."""
    if max_age is None:
        return False
    try:
        return float(item.MeasuredValueSequence[0].NumericValue) > max_age
    except (AttributeError, IndexError, TypeError, ValueError):
        return True
