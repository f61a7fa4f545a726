"""The proof: what identifies a patient in the source, looked for in the output.

Owns the identifiers of an object, the search for them, and the second, independent judgement of the written bytes.
Contains no changes to data. Findings name element paths and kinds, never values.
"""

from __future__ import annotations

import json
import re
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from pydicom.uid import DeflatedExplicitVRLittleEndian

from imaging_pipeline.deid.dates import raw_date
from imaging_pipeline.deid.identifiers import (
    DIGITS,
    TEXT_VRS,
    WORD,
    Identifier,
    Kind,
    fold,
    identifiers_of,
    keyword_of,
)
from imaging_pipeline.deid.pseudonyms import is_standard_uid
from imaging_pipeline.deid.reading import name_text
from imaging_pipeline.deid.rules import is_known
from imaging_pipeline.deid.screen_bytes import MIN_DIGITS, Haystack, bare, inflated
from imaging_pipeline.dicom.header import Header, read_header
from imaging_pipeline.errors import Severity

__all__ = [
    "DUMMY_TEXT", "TEXT_VRS", "Identifier", "Index", "Kind", "fold", "identifiers_of", "is_standard", "prove",
    "residual", "violations",
]  # fmt: skip

DUMMY_TEXT: Final = "DEIDENTIFIED"
"""What stands where a text is required."""
MIN_COMPACT: Final = 6
"""Shortest identifier that is also found inside a longer word (``DOEJOHN1``)."""
_LETTERS: Final = re.compile(r"[^\W\d_]{4,}")
_SEARCHED_VRS: Final = TEXT_VRS | {"CS", "PN", "UN"}
_JUDGED_VRS: Final = TEXT_VRS | {"PN", "UI"}
_META_AT: Final = 144
"""Where the file meta group begins that its length (PS3.10 7.1), the element in front, counts."""
_END_OF_PIXELS: Final = b"\xfe\xff\xdd\xe0\0\0\0\0"
"""Ends encapsulated pixel data (PS3.5 A.4); all sequences of a released object have a length."""

IsAllowed = Callable[[Mapping[str, Any], int], bool]
"""Whether an attribute may be in a data set (of the DICOM JSON Model) at all."""


@lru_cache(maxsize=16)
def index_of(identifiers: frozenset[Identifier]) -> Index:
    """The index of some identifiers, the same one for the objects of a series: UIDs are not in it."""
    return Index(identifiers)


class Index:
    """Identifiers arranged for asking about single values (used while cleaning and on the decoded output)."""

    __slots__ = ("_compact", "_phrases", "_words", "days")

    def __init__(self, identifiers: Iterable[Identifier]) -> None:
        identifiers = list(identifiers)
        self.days = frozenset(found.text for found in identifiers if found.kind is Kind.DATE)
        """Dates of the patient as ``YYYYMMDD``."""
        folded = {fold(found.text) for found in identifiers if found.kind is not Kind.UID} - {""}
        self._words = {text for text in folded if " " not in text}
        self._words |= {bare(text) for text in self._words if text[0] == "0"}
        self._phrases = tuple(f" {text} " for text in folded if " " in text)
        compact = {text.replace(" ", "") for text in folded}
        self._compact = tuple(text for text in compact if len(text) >= MIN_COMPACT and not text.isdigit())

    def in_text(self, text: str) -> bool:
        """Whether ``text`` holds an identifier: as a word, a number, several words, or inside a longer word."""
        folded = fold(text)
        if not self._words.isdisjoint((*folded.split(), *map(bare, DIGITS.findall(folded)))):
            return True
        if " " in folded:
            padded = f" {folded} "
            for phrase in self._phrases:  # half the time of any()
                if phrase in padded:
                    return True
        compact = folded.replace(" ", "")
        if len(compact) >= MIN_COMPACT:
            for part in self._compact:
                if part in compact:
                    return True
        return False

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where identifiers stand in ``text``, dates apart: single words, several words, or parts of longer ones."""
        tokens = [(word, *match.span()) for match in WORD.finditer(text) for word in fold(match[0]).split()]
        for word, start, end in tokens:
            if (word in self._words or self._has_part(word)) and word not in self.days:
                yield start, end
        if len(tokens) > 1:
            yield from self._phrase_spans(tokens)
        yield from self._compact_spans(tokens)

    def _has_part(self, word: str) -> bool:
        """Whether a number, or a name with digits written to it, is an identifier."""
        if word.isalpha() or len(word) < MIN_DIGITS:
            return False
        parts = (*map(bare, DIGITS.findall(word)), *_LETTERS.findall(word))
        return not self._words.isdisjoint(parts)

    def _phrase_spans(self, tokens: list[tuple[str, int, int]]) -> Iterator[tuple[int, int]]:
        padded = f" {' '.join(word for word, _, _ in tokens)} "
        for phrase in self._phrases:
            if phrase in padded:
                position = padded.find(phrase)
                while position >= 0:
                    first = padded.count(" ", 0, position)
                    yield tokens[first][1], tokens[first + phrase.count(" ") - 2][2]
                    position = padded.find(phrase, position + 1)

    def _compact_spans(self, tokens: list[tuple[str, int, int]]) -> Iterator[tuple[int, int]]:
        compact = "".join(word for word, _, _ in tokens)
        found = [part for part in self._compact if part in compact]
        owners = [number for number, (word, _, _) in enumerate(tokens) for _ in word] if found else []
        for part in found:
            position = compact.find(part)
            while position >= 0:
                yield tokens[owners[position]][1], tokens[owners[position + len(part) - 1]][2]
                position = compact.find(part, position + 1)

    def in_number(self, text: str) -> bool:
        """Whether the whole part of a number is an identifier (``12345`` and ``12345.0``, not ``0.12345``)."""
        whole = text.strip().lstrip("+-").partition(".")[0]
        if len(whole) < MIN_DIGITS:
            return False
        is_day = len(whole) in (6, 8) and any(whole in _numbers_of(day) for day in self.days)
        return is_day or bare(whole) in self._words


def _numbers_of(day: str) -> tuple[str, ...]:
    """How else a day is written as a number, as national numbers do: ``241056``, ``24101956``."""
    year, month, date = day[:4], day[4:6], day[6:]
    return (year[2:] + month + date, date + month + year[2:], date + month + year, month + date + year)


def is_standard(_: Mapping[str, Any], tag: int) -> bool:
    """Whether an element is a standard one of a data set, so that it may be in a released object."""
    return is_known(tag)


def prove(
    output: bytes,
    identifiers: Iterable[Identifier],
    *,
    patient_id: str,
    texts: frozenset[str] | None,
    harmless: frozenset[str] = frozenset(),
    keeps_uids: bool = False,
    is_allowed: IsAllowed = is_standard,
    header: Header | None = None,
) -> tuple[str, ...]:
    """What speaks against releasing a written object: `residual` and `violations` in one reading of it.

    Args:
        output: a complete Part 10 file.
        identifiers: what must not be in it.
        patient_id: the pseudonym, the only person name allowed.
        texts: keywords of the text attributes that may hold a value; None when any may.
        harmless: see `residual`.
        keeps_uids: whether original UIDs stay (PS3.15 E.3.8).
        is_allowed: whether an attribute may be in this data set at all.
        header: the header of ``output``, where it has been read before.

    Returns:
        Findings as ``path:KIND``, ``bytes:KIND`` or ``path:RULE``, sorted.
    """
    written = _Written(output, header)
    judged = set(written.violations(patient_id, texts, is_allowed, keeps_uids=keeps_uids))
    return tuple(sorted(judged | set(written.residual(identifiers, harmless))))


def residual(
    output: bytes, identifiers: Iterable[Identifier], harmless: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """Where identifiers are found in a written object: in its bytes outside the pixel data, and in its decoded values.

    Args:
        output: a complete Part 10 file.
        identifiers: what must not be in it.
        harmless: folded words the output holds by policy (values every object may have, texts of the engine); an
            identifier made of them alone is not looked for. `Index` has kept all other text free of them before. A date
            of the source that is also a shifted date of the output is not looked for either.

    Returns:
        Findings as ``path:KIND`` or ``bytes:KIND``, sorted.
    """
    return tuple(sorted(set(_Written(output).residual(identifiers, harmless))))


def violations(output: bytes, *, patient_id: str, texts: frozenset[str] | None) -> tuple[str, ...]:
    """Elements of a written object that no policy could have let through, whatever the source was.

    Args:
        output: a complete Part 10 file.
        patient_id: the pseudonym, the only person name allowed.
        texts: keywords of the text attributes that may hold a value; None when any may.

    Returns:
        Findings as ``path:RULE``, sorted.
    """
    found = _Written(output).violations(patient_id, texts, is_standard, keeps_uids=False)
    return tuple(sorted(set(found)))


class _Entry(NamedTuple):
    """One element of a written object.

    Attributes:
        path: tags of the sequences it is in, with numbers of items, and its own.
        holder: the data set it is in.
        texts: its values; the bytes of an element of unknown representation as one text.
    """

    path: str
    holder: Mapping[str, Any]
    tag: int
    vr: str
    texts: list[str]


class _Written:
    """A written object, read once and by another reader than the source: its elements, its bytes outside the pixels."""

    __slots__ = ("_bytes", "_entries", "_has_preamble", "_unreadable")

    def __init__(self, output: bytes, header: Header | None = None) -> None:
        header = header or read_header(output)
        self._has_preamble = any(output[:128])
        self._unreadable = [issue.dicom_path or "object" for issue in header.issues if issue.severity != Severity.INFO]
        outside = _outside_pixels(output, header)
        self._bytes = b"\n\n".join((outside, *inflated(outside)))
        # digits stay as they are written
        document = json.loads(header.json, parse_int=str, parse_float=str)
        self._entries = list(_entries(document))

    def residual(self, identifiers: Iterable[Identifier], harmless: frozenset[str]) -> Iterator[str]:
        days = {raw_date(text) for entry in self._entries if entry.vr in ("DA", "DT") for text in entry.texts}
        wanted = [
            found
            for found in identifiers
            if not _is_made_of(harmless, fold(found.text)) and not (found.kind is Kind.DATE and found.text in days)
        ]
        haystack = Haystack(self._bytes)
        searches = {Kind.UID: haystack.has_uid, Kind.DATE: haystack.has_day}
        for found in wanted:
            if searches.get(found.kind, haystack.has_text)(found.text):
                yield f"bytes:{found.kind}"
        yield from self._in_values(wanted)

    def _in_values(self, identifiers: list[Identifier]) -> Iterator[str]:
        """Findings among the decoded values, where a word has true borders and short names can be told from chance."""
        index = index_of(frozenset(found for found in identifiers if found.kind not in (Kind.DATE, Kind.UID)))
        searched = [text for entry in self._entries if entry.vr in _SEARCHED_VRS for text in entry.texts]
        is_clean = not index.in_text("\n".join(searched))  # most objects are: one look instead of one for each value
        uids = {found.text for found in identifiers if found.kind is Kind.UID}
        for entry in self._entries:
            if entry.vr in _SEARCHED_VRS:
                if not is_clean and any(index.in_text(text) for text in entry.texts):
                    yield f"{entry.path}:TEXT"
            elif entry.vr in ("DS", "IS"):
                if any(index.in_number(text) for text in entry.texts):
                    yield f"{entry.path}:NUMBER"
            elif entry.vr == "UI" and not uids.isdisjoint(entry.texts):
                yield f"{entry.path}:UID"

    def violations(
        self, patient_id: str, texts: frozenset[str] | None, is_allowed: IsAllowed, *, keeps_uids: bool
    ) -> Iterator[str]:
        if self._has_preamble:
            yield "preamble:NOT_ZERO"
        yield from (f"{path}:UNREADABLE" for path in self._unreadable)
        for entry in self._entries:
            is_meta = entry.tag >> 16 == 0x0002 and entry.path == f"{entry.tag:08X}"
            if not is_meta and not is_allowed(entry.holder, entry.tag):
                yield f"{entry.path}:UNKNOWN_OR_PRIVATE"
            elif rule := _violation(entry, patient_id, texts, keeps_uids=keeps_uids):
                yield f"{entry.path}:{rule}"


def _entries(data_set: Mapping[str, Any], place: str = "") -> Iterator[_Entry]:
    """Every element of a document of the DICOM JSON Model, at every depth."""
    for key, element in data_set.items():
        vr, values = element["vr"], element.get("Value", ())
        if vr == "SQ":
            yield _Entry(f"{place}{key}", data_set, int(key, 16), vr, [])
            for number, item in enumerate(values):
                yield from _entries(item or {}, f"{place}{key}[{number}].")
            continue
        if vr == "PN":
            texts = [name_text(value) for value in values if value]
        elif vr == "UN":
            texts = [b64decode(element.get("InlineBinary", "")).decode("latin-1")]
        else:
            texts = [value.strip() for value in values if value]
        yield _Entry(f"{place}{key}", data_set, int(key, 16), vr, texts)


def _is_made_of(words: frozenset[str], folded: str) -> bool:
    return folded in words or ((" " in folded or not folded) and words.issuperset(folded.split()))


def _violation(entry: _Entry, patient_id: str, texts: frozenset[str] | None, *, keeps_uids: bool) -> str:
    if entry.vr in TEXT_VRS and "BulkDataURI" in entry.holder[f"{entry.tag:08X}"]:
        return "UNREADABLE"  # longer than any text that is released
    found = [text for text in entry.texts if text and text != DUMMY_TEXT] if entry.vr in _JUDGED_VRS else []
    if not found:
        return ""
    if entry.vr == "PN" and any(text != patient_id for text in found):
        return "NAME"
    if entry.vr == "UI" and not keeps_uids and not all(_is_fit_uid(text) for text in found):
        return "UID"
    if entry.vr in TEXT_VRS and texts is not None and not entry.tag >> 16 & 1:
        return "TEXT" if keyword_of(entry.tag) not in texts else ""
    return ""


def _is_fit_uid(text: str) -> bool:
    return text.startswith("2.25.") or is_standard_uid(text)


def _outside_pixels(output: bytes, header: Header) -> bytes:
    """The object's bytes with the value of its pixel data blanked; a deflated data set is inflated first."""
    begin = header.pixel_offset
    if header.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        start = _META_AT + int.from_bytes(output[_META_AT - 4 : _META_AT], "little")
        data_set = zlib.decompress(output[start:], -zlib.MAX_WBITS)
        output = output[:start] + data_set
        found = read_header(data_set).pixel_offset
        begin = None if found is None else start + found
    if begin is None:
        return output
    end = output.rfind(_END_OF_PIXELS) if header.pixel_length is None else begin + header.pixel_length
    return output[:begin] + bytes(max(0, end - begin)) + output[max(begin, end) :]
