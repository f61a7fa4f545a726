"""What identifies a patient in an object: names, numbers, texts, UIDs and dates, with the forms people write them in.

Owns the identifiers of an object. Contains no search for them, that is `screen`. Their representations show no value.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VR
from pydicom.dataset import Dataset, FileDataset

from imaging_pipeline.deid.dates import raw_date
from imaging_pipeline.deid.pseudonyms import is_standard_uid
from imaging_pipeline.deid.reading import MAX_DEPTH, decoded_of, file_meta, plain_texts, raw_content, values
from imaging_pipeline.deid.rules import is_known
from imaging_pipeline.deid.screen_bytes import MIN_DIGITS
from imaging_pipeline.deid.table import load_table
from imaging_pipeline.deid.vocabulary import plain
from imaging_pipeline.errors import PoisonInput, Reason

TEXT_VRS: Final = frozenset({"AE", "LO", "LT", "SH", "ST", "UC", "UR", "UT"})
MIN_NAME_LETTERS: Final = 2
"""Shortest part of a name that is looked for, as a word, in decoded values."""
MIN_SPELLED: Final = 5
"""Shortest word that is also looked for in another spelling, and shortest short form of a name."""

MIN_TEXT: Final = 3
"""Shortest text of an identifying attribute that is looked for."""

_PATIENT_ID: Final = 0x00100020
_SHORT_ID: Final = re.compile(r"[a-z]\d|\d[a-z]")
"""The shortest Patient ID that is looked for: shorter than `MIN_TEXT`, but no word and no measurement."""

DIGITS: Final = re.compile(r"[0-9]{5,}")
WORD: Final = re.compile(r"[^\W_]+")
_IDENTIFYING_VRS: Final = frozenset({"PN", "UI", "DA", "DT"})
"""Representations whose values identify whatever the attribute is."""
_SIZES: Final = {
    "US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "UV": 8, "SV": 8, "AT": 4,
    "OB": 1, "OW": 1, "OF": 4, "OD": 8, "OL": 4, "OV": 8,
}  # fmt: skip
_PLAIN_VRS: Final = TEXT_VRS | {"AS", "CS", "DS", "IS", "TM"}
_IDENTIFYING: Final = re.compile(r"(Number|IDs?|Identifier|Name|Address|Telephone\w*|Title)$")
_DAYS: Final = frozenset({"DA", "DT"})
_DEVICE: Final = re.compile(r"Manufacturer|Model|Version|Scheme|Equipment|Algorithm|Device|SequenceName")
_UMLAUTS: Final = (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("å", "aa"), ("ø", "oe"), ("æ", "ae"))


IsSpared = Callable[[int, int], bool]
"""Whether the value of an attribute is no identifier, by its tag and that of the sequence it is in."""


class Kind(enum.StrEnum):
    """What an identifier is."""

    __hash__ = str.__hash__  # that of an enumeration is slow, and every identifier is hashed many times

    PERSON = "PERSON"
    NUMBER = "NUMBER"
    TEXT = "TEXT"
    UID = "UID"
    DATE = "DATE"


class Identifier(NamedTuple):
    """One value of the source that must not survive; its representation does not show it."""

    kind: Kind
    text: str

    def __repr__(self) -> str:
        return f"Identifier(kind={self.kind!r})"


class _Found(NamedTuple):
    """One element that may identify.

    Attributes:
        sequence: tag of the sequence it is in; 0 at the top level.
        content: its bytes as they were read; empty when it had been decoded before.
        vr: its VR.
        texts: its values, where they are no bytes.
        value: its bytes, where it was read as such.
    """

    tag: int
    sequence: int
    content: bytes
    vr: str
    texts: list[str]
    value: bytes = b""


@lru_cache(maxsize=4096)
def fold(text: str) -> str:
    """Words of ``text`` in lower case without accents, separated by one blank."""
    return " ".join(WORD.findall(plain(text)))


def identifiers_of(ds: Dataset, is_spared: IsSpared | None = None) -> frozenset[Identifier]:
    """Every value of ``ds`` that must not be in its de-identified form, at every depth and in the file meta.

    Names and their parts, numbers and texts of attributes PS3.15 Table E.1-1 lists, UIDs that are not registered, and
    dates as ``YYYYMMDD``. Descriptive attributes (option Clean Descriptors) give none: their words are clinical, and
    names in them are found by the names of the other attributes and by `text`.

    Args:
        ds: the data set.
        is_spared: see `imaging_pipeline.deid.rules.Rules.spares`; asked about the data set, not about the file meta.
    """
    found = list(_elements(ds))
    if is_spared is not None:
        found = [elem for elem in found if not is_spared(elem.tag, elem.sequence)]
    if isinstance(ds, FileDataset):
        found += _elements(file_meta(ds))
    return frozenset(identifier for elem in found for identifier in _of_element(elem))


def _elements(ds: Dataset, sequence: int = 0, depth: int = 0) -> Iterator[_Found]:
    """Every element at every depth that may identify and has a value, in no particular order.

    Raises:
        PoisonInput: NOT_DEIDENTIFIABLE when sequences nest deeper than `MAX_DEPTH`.
    """
    if depth > MAX_DEPTH:
        raise PoisonInput(Reason.NOT_DEIDENTIFIABLE, f"sequences nest deeper than {MAX_DEPTH}")
    for tag, raw in list(ds.items()):
        number, content = int(tag), raw_content(raw)
        plain = _plain_element(number, sequence, raw.VR or "", content) if content else None
        if plain is not None:
            yield plain
            continue
        decoded = decoded_of(ds, tag, raw)
        if decoded is not None and decoded.VR == "SQ":
            for item in decoded.value or ():
                yield from _elements(item, number, depth + 1)
        elif decoded is not None:
            value = decoded.value if isinstance(decoded.value, bytes) else b""
            yield _Found(number, sequence, content, decoded.VR, values(decoded), value)


def _plain_element(tag: int, sequence: int, claimed: str, content: bytes) -> _Found | None:
    """An element that can be told from its bytes, without its texts where these cannot identify; None for others."""
    vr = claimed or _reading(tag).vr
    if not _may_identify(claimed, tag):
        return _Found(tag, sequence, b"", vr, []) if _is_sound(vr, content) else None
    texts = plain_texts(vr, content)
    return None if texts is None else _Found(tag, sequence, content, vr, texts)


def _is_sound(vr: str, content: bytes) -> bool:
    """Whether an element that is not asked for need not be decoded: it is no sequence, and a value of its VR."""
    size = _SIZES.get(vr, 0)
    return (size > 0 and len(content) % size == 0) or vr in _PLAIN_VRS


@lru_cache(maxsize=8192)
def keyword_of(tag: int) -> str:
    """The keyword of a standard attribute or of one of the file meta group; empty otherwise."""
    is_meta = tag >> 16 == 0x0002 and dictionary_has_tag(tag)
    return dictionary_keyword(tag) if is_meta or is_known(tag) else ""


@dataclass(frozen=True, slots=True)
class _Reading:
    """How the values of an attribute identify: the VR of the dictionary and whether its texts do."""

    vr: str
    is_identifying: bool


@lru_cache(maxsize=8192)
def _reading(tag: int) -> _Reading:
    row, keyword = load_table().row(tag), keyword_of(tag)
    is_named = (
        bool(_IDENTIFYING.search(keyword)) and not _DEVICE.search(keyword) and keyword != "ImplementationVersionName"
    )
    return _Reading(
        vr=dictionary_VR(tag) if is_known(tag) else "",
        is_identifying=not tag >> 16 & 1 and (is_named if row is None else "clean_descriptors" not in row.options),
    )


@lru_cache(maxsize=8192)
def _may_identify(vr: str, tag: int) -> bool:
    """Whether an attribute may hold identifiers, by the VR it is said to have and by that of the dictionary."""
    reading = _reading(tag)
    vrs = {vr, reading.vr}
    return bool(vrs & _IDENTIFYING_VRS) or (reading.is_identifying and bool(vrs & TEXT_VRS))


def _of_element(elem: _Found) -> Iterator[Identifier]:
    """Identifiers in one element, whose VR may be another than the dictionary's: it then counts as both."""
    reading = _reading(elem.tag)
    vr, expected = elem.vr, reading.vr
    texts = [elem.value.decode("latin-1").strip(" \0")] if elem.value else elem.texts
    if "PN" in (vr, expected):
        yield from _of_names(elem.content, texts)
    if "UI" in (vr, expected):
        for text in texts:
            if text and not is_standard_uid(text):
                yield Identifier(Kind.UID, text)
    if vr in _DAYS or expected in _DAYS:
        for text in texts:
            day = raw_date(text)
            if day and day.strip("0"):
                yield Identifier(Kind.DATE, day)
    if reading.is_identifying and (vr in TEXT_VRS or expected in TEXT_VRS):
        yield from _of_texts(texts, is_patient_id=elem.tag == _PATIENT_ID)


def _of_names(raw: bytes, texts: list[str]) -> Iterator[Identifier]:
    if any(byte > 0x7F or byte == 0x1B for byte in raw):
        yield Identifier(Kind.PERSON, raw.decode("latin-1").strip())  # the name as the source spells it in bytes
    for text in texts:
        yield from _name(text)


def _of_texts(texts: list[str], *, is_patient_id: bool) -> Iterator[Identifier]:
    for text in texts:
        folded = fold(text)
        if len(folded) >= MIN_TEXT or (is_patient_id and _SHORT_ID.fullmatch(folded)):
            yield Identifier(Kind.TEXT, text)
        yield from _numbers(folded)


def _numbers(folded: str) -> Iterator[Identifier]:
    """Numbers inside an identifying text: single ones, all digits together (``555-123``), and those with letters."""
    parts = [part for part in folded.split() if any(char.isdigit() for char in part)]
    runs = [run for part in parts for run in DIGITS.findall(part)]
    for part in {*parts, *runs, "".join(parts)}:
        if len(part) >= MIN_DIGITS:
            yield Identifier(Kind.NUMBER, part)


def _name(text: str) -> Iterator[Identifier]:
    """A person name (PS3.5 6.2.1.1): the whole, each component group and component, its words, and short forms.

    Short forms are what people make of a name when they write it elsewhere: given and family name written together in
    either order, with one of them as an initial, and umlauts spelled with two letters or one.
    """
    for group in text.split("="):
        if len(fold(group)) >= MIN_NAME_LETTERS:
            yield Identifier(Kind.PERSON, group)
        components = group.split("^")[:3]
        for component in components:
            words = WORD.findall(component)
            if len(words) > 1:
                yield Identifier(Kind.PERSON, component)
            for word in words:
                if len(word) >= MIN_NAME_LETTERS:
                    yield from (Identifier(Kind.PERSON, spelling) for spelling in _spellings(word))
        yield from (Identifier(Kind.PERSON, form) for form in _short_forms(components))


def _spellings(word: str) -> Iterator[str]:
    yield word
    lowered = word.casefold()
    for letter, two in _UMLAUTS:
        if letter in lowered:
            lowered = lowered.replace(letter, two)
    if lowered != word.casefold():
        yield lowered
    one = lowered.replace("ae", "a").replace("oe", "o").replace("ue", "u")
    if one != lowered and len(one) >= MIN_SPELLED:
        yield one


def _short_forms(components: list[str]) -> Iterator[str]:
    family, given = (fold(part).replace(" ", "") for part in [*components, "", ""][:2])
    if len(family) < MIN_NAME_LETTERS or not given:
        return
    for form in (family + given, given + family, given[0] + family, family + given[0]):
        if len(form) >= MIN_SPELLED:
            yield form
