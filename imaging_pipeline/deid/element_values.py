"""Single values: whether one may stay, what stands in its place, and how long it may be.

Owns the judgement of values by VR. Contains no policy about attributes and no data sets.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from functools import lru_cache
from typing import Final

from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from imaging_pipeline.deid import dates
from imaging_pipeline.deid.screen import DUMMY_TEXT

UNSAFE_TEXT: Final = re.compile(
    r"[^ -~]|[@^]|\d{7}|://|\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}", re.ASCII
)
"""What no kept text may hold: other characters, addresses, names in DICOM's form, long numbers, dates."""

NAMING_TEXT: Final = re.compile(
    r"\b(dr|prof|herr|frau|dott|mme|mlle)\b\.?\s*\w|\b(mr|ms|mrs)\.\s*\w|"
    r"hospital|klinik|clinic|clinique|krankenhaus|hopital|h\u00f4pital|ospedale|infirmary|praxis|universit|"
    r"\b(asked|called|ordered|requested|reviewed|seen|signed|told|patient|mother|father)\b|(\d[ ()/-]{0,2}){7}",
    re.IGNORECASE,
)
"""People and places where only makers, models and programs should be: such a text is not kept as it is."""

PATIENT_WORDS: Final = frozenset(
    {
        "african", "alaska", "american", "arab", "asian", "asiatic", "black", "caucasian", "chinese", "european",
        "former", "hawaiian", "hispanic", "indian", "islander", "japanese", "korean", "latin", "latina", "latino",
        "maori", "mixed", "multiracial", "native", "never", "non", "none", "not", "or", "other", "pacific",
        "polynesian", "smoker", "unknown", "unspecified", "white",
    }
)  # fmt: skip
"""Words of Ethnic Group and the like, kept under Retain Patient Characteristics."""

LEGAL_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)+")
"""What a UID may be made of (PS3.5 9.1)."""

_LETTERS: Final = re.compile(rb"[A-Za-z]{8,}")
_WIDE_LETTERS: Final = re.compile(rb"(?:[A-Za-z]\0){8,}|(?:\0[A-Za-z]){8,}")
_MIN_LETTERS: Final = 8
_DECIMAL: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INTEGER: Final = re.compile(r"[+-]?\d{1,12}", re.ASCII)
_AGE: Final = re.compile(r"(\d{3})([DWMY])", re.ASCII)
_MAX_DECIMAL: Final = 32
_PER_YEAR: Final = {"Y": 1, "M": 12, "W": 52, "D": 365}
_MAX_LENGTH: Final = {"SH": 16, "LO": 64, "ST": 1024, "LT": 10_240, "AE": 16, "CS": 16}
_ONE_LINE_VRS: Final = frozenset({"SH", "LO", "UC"})
_DUMMIES: Final[dict[str, object]] = {
    "DA": "19000101", "TM": "000000", "DT": "19000101", "AS": "000Y", "DS": "0", "IS": "0",
    "OB": b"\0\0", "OW": b"\0\0", "UN": b"\0\0", "US": 0, "SS": 0, "UL": 0, "SL": 0, "FL": 0.0, "FD": 0.0,
}  # fmt: skip


def dummy(vr: str) -> object:
    """A value of ``vr`` that says nothing."""
    return _DUMMIES.get(vr, DUMMY_TEXT)


def is_characteristic(text: str) -> bool:
    """Whether a text is made of the words that describe a patient's group, and nothing else."""
    return all(word in PATIENT_WORDS for word in re.findall(r"[^\W_]+", text.casefold()))


def is_number(vr: str, text: str) -> bool:
    """Whether a DS or IS value is one: what is none is a place for text."""
    pattern = _DECIMAL if vr == "DS" else _INTEGER
    return not text or (len(text) <= _MAX_DECIMAL and pattern.fullmatch(text) is not None)


def capped_age(text: str, max_age: int | None) -> str | None:
    """An AS value, one year above ``max_age`` where it is higher than that (PS3.5 6.2, AS); None when it is no age.

    >>> capped_age("093Y", 89)
    '090Y'
    """
    match = _AGE.fullmatch(text)
    if match is None:
        return None
    years = int(match[1]) / _PER_YEAR[match[2]]
    return f"{max_age + 1:03d}Y" if max_age is not None and years >= max_age + 1 else text


def fitted(text: str, vr: str) -> str:
    """``text`` as ``vr`` may hold it: without backslash and control characters, cut at a word where it is too long."""
    if vr in _ONE_LINE_VRS:
        text = " ".join(text.split())
        text = text.replace("\\", " ")
    if not text.isprintable():
        text = "".join(char for char in text if char.isprintable() or char in "\r\n\t\f")
    text = text.strip()
    limit = _MAX_LENGTH.get(vr)
    if limit is None or len(text) <= limit:
        return text
    cut = text[:limit]
    return (cut if text[limit].isspace() else cut.rpartition(" ")[0] or cut).strip()


def is_moment(vr: str, text: str) -> bool:
    """Whether ``text`` is a legal DA, TM or DT, so that it can stay as it is."""
    move = {"DA": dates.shift_date, "TM": dates.shift_time}.get(vr)
    if move is None:
        return dates.shift_datetime(text, timedelta(0), date.min) is not None
    return move(text, "", timedelta(0), date.min) is not None


@lru_cache(maxsize=4096)
def most_values(tag: int) -> int | None:
    """How many values an attribute may have (PS3.6, VM); None for any number."""
    last = dictionary_VM(tag).rpartition("-")[2]
    return None if last.endswith("n") else int(last)


def hides_text(content: bytes) -> bool:
    """Whether numbers spell a text: eight letters in a row, as bytes or UTF-16, that are no ramp.

    A palette of 8 bits written in 16 has each byte twice, so a run of pairs counts half.
    """
    runs = [_once(match[0]) for match in _LETTERS.finditer(content)]
    runs += [match[0].replace(b"\0", b"") for match in _WIDE_LETTERS.finditer(content)]
    return any(len(run) >= _MIN_LETTERS and list(run) not in (sorted(run), sorted(run, reverse=True)) for run in runs)


def _once(run: bytes) -> bytes:
    """Each letter once where every one stands twice; else the run as it is."""
    return run[::2] if run[::2] == run[1::2] else run


def filled(tag: BaseTag, vr: str, texts: list[str]) -> DataElement:
    """An element with these values."""
    return DataElement(tag, vr, texts if len(texts) > 1 else "".join(texts), already_converted=True)


def empty(tag: BaseTag) -> DataElement:
    """An element of a standard attribute without a value."""
    vr = dictionary_VR(tag).split(" or ")[0]
    return DataElement(tag, vr, Sequence() if vr == "SQ" else None, already_converted=True)
