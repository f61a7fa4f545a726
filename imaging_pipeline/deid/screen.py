"""The proof: what identifies a patient in the source, looked for in the output.

Owns the identifiers of an object, the search for them, and the second, independent judgement of the written bytes.
Contains no changes to data. Findings name element paths and kinds, never values.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from io import BytesIO
from typing import Final

from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from imaging_pipeline.deid.dates import raw_date
from imaging_pipeline.deid.identifiers import (
    DIGITS,
    TEXT_VRS,
    WORD,
    Found,
    Identifier,
    Kind,
    elements_of,
    expected_vr,
    fold,
    identifiers_of,
    keyword_of,
)
from imaging_pipeline.deid.pseudonyms import is_standard_uid
from imaging_pipeline.deid.reading import file_meta
from imaging_pipeline.deid.rules import is_known
from imaging_pipeline.deid.screen_bytes import MIN_DIGITS, Haystack, bare, inflated

__all__ = [
    "DUMMY_TEXT", "TEXT_VRS", "Identifier", "Index", "Kind", "fold", "identifiers_of", "is_standard", "prove",
    "residual", "violations",
]  # fmt: skip

DUMMY_TEXT: Final = "DEIDENTIFIED"
"""What stands where a text is required."""
MIN_COMPACT: Final = 6
"""Shortest identifier that is also found inside a longer word (``DOEJOHN1``)."""
_SEARCHED_VRS: Final = TEXT_VRS | {"CS", "PN"}
_READ_VRS: Final = _SEARCHED_VRS | {"DS", "IS", "UI", "DA", "DT", "SQ", "UN"}
_JUDGED_VRS: Final = TEXT_VRS | {"PN", "UI", "UN"}
_PIXEL_TAGS: Final = (0x7FE00008, 0x7FE00009, 0x7FE00010)


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
        if not self._words.isdisjoint((*folded.split(), *map(bare, DIGITS.findall(folded)))) or any(
            phrase in f" {folded} " for phrase in self._phrases
        ):
            return True
        compact = folded.replace(" ", "")
        return len(compact) >= MIN_COMPACT and any(part in compact for part in self._compact)

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where identifiers stand in ``text``, dates apart: single words, several words, or parts of longer ones."""
        tokens = [(fold(match[0]), *match.span()) for match in WORD.finditer(text)]
        padded, places = " ", {}
        for number, (word, start, end) in enumerate(tokens):
            places[len(padded)] = number
            padded += word + " "
            if word not in self.days and (word in self._words or self._has_number(word)):
                yield start, end
        for phrase in self._phrases:
            position = padded.find(phrase)
            while position >= 0:
                first = places[position + 1]
                yield tokens[first][1], tokens[first + phrase.count(" ") - 2][2]
                position = padded.find(phrase, position + 1)
        yield from self._compact_spans(tokens)

    def _has_number(self, word: str) -> bool:
        return any(bare(digits) in self._words for digits in DIGITS.findall(word))

    def _compact_spans(self, tokens: list[tuple[str, int, int]]) -> Iterator[tuple[int, int]]:
        compact, owners = "", []
        for number, (word, _, _) in enumerate(tokens):
            compact += word
            owners += [number] * len(word)
        for part in self._compact:
            position = compact.find(part)
            while position >= 0:
                yield tokens[owners[position]][1], tokens[owners[position + len(part) - 1]][2]
                position = compact.find(part, position + 1)

    def in_number(self, text: str) -> bool:
        """Whether the whole part of a number is an identifier (``12345`` and ``12345.0``, not ``0.12345``)."""
        whole = text.strip().lstrip("+-").partition(".")[0]
        return len(whole) >= MIN_DIGITS and bare(whole) in self._words


def is_standard(_: Dataset, tag: BaseTag) -> bool:
    """Whether an element is a standard one of a data set, so that it may be in a released object."""
    return is_known(int(tag))


def prove(
    output: bytes,
    identifiers: Iterable[Identifier],
    *,
    patient_id: str,
    texts: frozenset[str] | None,
    harmless: frozenset[str] = frozenset(),
    keeps_uids: bool = False,
    is_allowed: Callable[[Dataset, BaseTag], bool] = is_standard,
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

    Returns:
        Findings as ``path:KIND``, ``bytes:KIND`` or ``path:RULE``, sorted.
    """
    written = _Written(output)
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


@lru_cache(maxsize=8192)
def _is_searched(vr: str, tag: int) -> bool:
    """Whether the values of an attribute are judged, by the VR it is said to have or that of the dictionary."""
    return vr in _READ_VRS or expected_vr(tag) in _READ_VRS


class _Written:
    """A written object, read once: its elements with their texts, and its bytes outside the pixel data."""

    __slots__ = ("_body", "_bytes", "_has_preamble", "_meta")

    def __init__(self, output: bytes) -> None:
        ds = dcmread(BytesIO(output))
        self._has_preamble = any(output[:128])
        outside = _outside_pixels(output, ds)
        self._meta = list(elements_of(file_meta(ds), _is_searched))
        self._body = list(elements_of(ds, _is_searched))
        hidden = (inflated(found.content) for found in self._all() if found.tag not in _PIXEL_TAGS)
        self._bytes = b"\n\n".join((outside, *filter(None, hidden)))

    def _all(self) -> Iterator[Found]:
        yield from self._meta
        yield from self._body

    def residual(self, identifiers: Iterable[Identifier], harmless: frozenset[str]) -> Iterator[str]:
        days = {raw_date(text) for entry in self._all() if entry.vr in ("DA", "DT") for text in entry.texts}
        wanted = [
            found
            for found in identifiers
            if not _is_made_of(harmless, fold(found.text)) and not (found.kind is Kind.DATE and found.text in days)
        ]
        haystack = Haystack(self._bytes)
        for found in wanted:
            search = {Kind.UID: haystack.has_uid, Kind.DATE: haystack.has_day}.get(found.kind, haystack.has_text)
            if search(found.text):
                yield f"bytes:{found.kind}"
        yield from self._in_values(wanted)

    def _in_values(self, identifiers: list[Identifier]) -> Iterator[str]:
        """Findings among the decoded values, where a word has true borders and short names can be told from chance."""
        index = Index(found for found in identifiers if found.kind is not Kind.DATE)
        searched = [text for entry in self._all() if entry.vr in _SEARCHED_VRS for text in entry.texts]
        is_clean = not index.in_text("\n".join(searched))  # most objects are: one look instead of one for each value
        uids = {found.text for found in identifiers if found.kind is Kind.UID}
        for entry in self._all():
            if entry.vr in _SEARCHED_VRS:
                if not is_clean and any(index.in_text(text) for text in entry.texts):
                    yield f"{entry.path}:TEXT"
            elif entry.vr in ("DS", "IS"):
                if any(index.in_number(text) for text in entry.texts):
                    yield f"{entry.path}:NUMBER"
            elif entry.vr == "UI" and not uids.isdisjoint(entry.texts):
                yield f"{entry.path}:UID"

    def violations(
        self,
        patient_id: str,
        texts: frozenset[str] | None,
        is_allowed: Callable[[Dataset, BaseTag], bool],
        *,
        keeps_uids: bool,
    ) -> Iterator[str]:
        if self._has_preamble:
            yield "preamble:NOT_ZERO"
        number_of_meta = len(self._meta)
        for position, entry in enumerate(self._all()):
            is_meta = position < number_of_meta and entry.tag >> 16 == 0x0002
            if entry.is_read and not is_meta and not is_allowed(entry.holder, entry.tag):
                yield f"{entry.path}:UNKNOWN_OR_PRIVATE"
            elif rule := _violation(entry, patient_id, texts, keeps_uids=keeps_uids):
                yield f"{entry.path}:{rule}"


def _is_made_of(words: frozenset[str], folded: str) -> bool:
    return folded in words or ((" " in folded or not folded) and words.issuperset(folded.split()))


def _violation(entry: Found, patient_id: str, texts: frozenset[str] | None, *, keeps_uids: bool) -> str:
    if not entry.is_read:
        return "UNREADABLE"
    found = [text for text in entry.texts if text and text != DUMMY_TEXT] if entry.vr in _JUDGED_VRS else []
    if not found:
        return ""
    if entry.vr == "PN" and any(text != patient_id for text in found):
        return "NAME"
    if entry.vr == "UI" and not keeps_uids and not all(_is_fit_uid(text) for text in found):
        return "UID"
    if entry.vr in TEXT_VRS and texts is not None and not entry.tag.is_private:
        return "TEXT" if keyword_of(int(entry.tag)) not in texts else ""
    return "VR" if entry.vr == "UN" else ""


def _is_fit_uid(text: str) -> bool:
    return text.startswith("2.25.") or is_standard_uid(text)


def _outside_pixels(output: bytes, ds: FileDataset) -> bytes:
    """The object's bytes with the value of its pixel data blanked; a deflated data set is inflated first."""
    if file_meta(ds).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        start = 144 + file_meta(ds).FileMetaInformationGroupLength
        output = output[:start] + zlib.decompress(output[start:], -zlib.MAX_WBITS)
        offset = start
    else:
        offset = 0
    plain = bytearray(output)
    for tag in _PIXEL_TAGS:
        raw = ds.get_item(tag)
        if isinstance(raw, RawDataElement) and raw.value:
            begin = raw.value_tell + offset
            plain[begin : begin + len(raw.value)] = bytes(len(raw.value))
    return bytes(plain)
