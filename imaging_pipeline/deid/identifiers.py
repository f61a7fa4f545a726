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

from pydicom.datadict import dictionary_keyword, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import BaseTag

from imaging_pipeline.deid.dates import raw_date
from imaging_pipeline.deid.pseudonyms import is_standard_uid
from imaging_pipeline.deid.reading import MAX_DEPTH, element, file_meta, plain_texts, values
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
_DEVICE: Final = re.compile(r"Manufacturer|Model|Version|Scheme|Equipment|Algorithm|Device")
_UMLAUTS: Final = (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("å", "aa"), ("ø", "oe"), ("æ", "ae"))


class Kind(enum.StrEnum):
    """What an identifier is."""

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


class Found(NamedTuple):
    """One element of an object.

    Attributes:
        path: tags of the sequences it is in, with numbers of items, and its own.
        holder: data set it is in.
        content: its bytes as they were read; empty when it had been decoded before.
        vr: its VR; empty when neither the object nor the dictionary says it.
        texts: its values, where they were asked for and are no bytes.
        decoded: the element, where its texts alone do not say everything.
        is_read: whether its bytes are a value of its VR.
    """

    path: str
    holder: Dataset
    tag: BaseTag
    content: bytes
    vr: str
    texts: list[str]
    decoded: DataElement | None = None
    is_read: bool = True


@lru_cache(maxsize=4096)
def fold(text: str) -> str:
    """Words of ``text`` in lower case without accents, separated by one blank."""
    return " ".join(WORD.findall(plain(text)))


def identifiers_of(ds: Dataset) -> frozenset[Identifier]:
    """Every value of ``ds`` that must not be in its de-identified form, at every depth and in the file meta.

    Names and their parts, numbers and texts of attributes PS3.15 Table E.1-1 lists, UIDs that are not registered, and
    dates as ``YYYYMMDD``. Descriptive attributes (option Clean Descriptors) give none: their words are clinical, and
    names in them are found by the names of the other attributes and by `text`.
    """
    sources = [ds, file_meta(ds)] if isinstance(ds, FileDataset) else [ds]
    return frozenset(
        found
        for source in sources
        for elem in elements_of(source, _may_identify)
        if elem.texts or elem.decoded is not None
        for found in _of_element(elem)
    )


def elements_of(ds: Dataset, is_asked: Callable[[str, int], bool], path: str = "", depth: int = 0) -> Iterator[Found]:
    """Every element at every depth, its values decoded only where they are asked for; in no particular order.

    Args:
        ds: what to walk through.
        is_asked: whether the values of an attribute are asked for, by the VR the object gives it (empty in implicit VR)
            and its tag. Sequences are always walked through.
        path: where ``ds`` is, with a dot behind it.
        depth: number of sequences ``ds`` is in.

    Raises:
        PoisonInput: NOT_DEIDENTIFIABLE when sequences nest deeper than `MAX_DEPTH`.
    """
    if depth > MAX_DEPTH:
        raise PoisonInput(Reason.NOT_DEIDENTIFIABLE, f"sequences nest deeper than {MAX_DEPTH}")
    for tag, raw in list(ds.items()):
        here, content = f"{path}{tag:08X}", b""
        if isinstance(raw, RawDataElement) and isinstance(raw.value, bytes):
            content, number, claimed = raw.value, int(tag), raw.VR or ""
            vr = claimed or _reading(number).vr
            if is_asked(claimed, number):
                texts = plain_texts(vr, content)
                if texts is not None:
                    yield Found(here, ds, tag, content, vr, texts)
                    continue
            elif _is_sound(vr, content):
                yield Found(here, ds, tag, content, claimed, [])
                continue
        decoded = element(ds, tag)
        if decoded is None:
            yield Found(here, ds, tag, content, "", [], is_read=False)
            continue
        yield Found(here, ds, tag, content, decoded.VR, values(decoded), decoded)
        if decoded.VR == "SQ":
            for position, item in enumerate(decoded.value or ()):
                yield from elements_of(item, is_asked, f"{here}[{position}].", depth + 1)


def _is_sound(vr: str, content: bytes) -> bool:
    """Whether an element that is not asked for need not be decoded: it is no sequence, and a value of its VR."""
    size = _SIZES.get(vr, 0)
    return (size > 0 and len(content) % size == 0) or vr in _PLAIN_VRS


@lru_cache(maxsize=8192)
def keyword_of(tag: int) -> str:
    """The keyword of a standard attribute or of one of the file meta group; empty otherwise."""
    return dictionary_keyword(tag) if is_known(tag) or tag >> 16 == 0x0002 else ""


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


def expected_vr(tag: int) -> str:
    """The VR of the dictionary, with all that may be (``US or SS``); empty for what is no attribute of a data set."""
    return _reading(tag).vr


@lru_cache(maxsize=8192)
def _may_identify(vr: str, tag: int) -> bool:
    """Whether an attribute may hold identifiers, by the VR it is said to have and by that of the dictionary."""
    reading = _reading(tag)
    vrs = {vr, reading.vr}
    return bool(vrs & _IDENTIFYING_VRS) or (reading.is_identifying and bool(vrs & TEXT_VRS))


def _of_element(elem: Found) -> Iterator[Identifier]:
    """Identifiers in one element, whose VR may be another than the dictionary's: it then counts as both."""
    reading = _reading(int(elem.tag))
    vr, expected, texts = elem.vr, reading.vr, elem.texts
    if elem.decoded is not None and isinstance(elem.decoded.value, bytes):
        texts = [elem.decoded.value.decode("latin-1").strip(" \0")]
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
        yield from _of_texts(texts)


def _of_names(raw: bytes, texts: list[str]) -> Iterator[Identifier]:
    if any(byte > 0x7F or byte == 0x1B for byte in raw):
        yield Identifier(Kind.PERSON, raw.decode("latin-1").strip())  # the name as the source spells it in bytes
    for text in texts:
        yield from _name(text)


def _of_texts(texts: list[str]) -> Iterator[Identifier]:
    for text in texts:
        folded = fold(text)
        if len(folded) >= MIN_TEXT:
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
