"""The proof: what identifies a patient in the source, looked for in the output.

Owns the identifiers of an object, the search for them, and the second, independent judgement of the written bytes.
Contains no changes to data. Findings name element paths and kinds, never values.
"""

from __future__ import annotations

import enum
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Final

from pydicom import dcmread
from pydicom.datadict import dictionary_keyword, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from imaging_pipeline.deid.dates import raw_date
from imaging_pipeline.deid.pseudonyms import is_standard_uid
from imaging_pipeline.deid.reading import elements, file_meta, values
from imaging_pipeline.deid.rules import is_known
from imaging_pipeline.deid.table import load_table

DUMMY_TEXT: Final = "DEIDENTIFIED"
"""What stands where a text is required."""
TEXT_VRS: Final = frozenset({"AE", "LO", "LT", "SH", "ST", "UC", "UR", "UT"})
_READ_AS_TEXT: Final = TEXT_VRS | {"PN", "UI", "DA", "DT"}
MIN_NAME_LETTERS: Final = 2
"""Shortest part of a name that is looked for, as a word, in decoded values."""
MIN_RAW_LETTERS: Final = 4
"""Shortest word that is looked for in the bytes themselves, where short ones occur by chance."""
MIN_DIGITS: Final = 5
"""Shortest number that counts as an identifier by itself: shorter ones are ordinary measurements."""
MIN_COMPACT: Final = 6
"""Shortest identifier that is also found inside a longer word (``DOEJOHN1``)."""

_DIGITS: Final = re.compile(r"[0-9]{5,}")
_WORD: Final = re.compile(r"[^\W_]+")
_IDENTIFYING: Final = re.compile(r"(Number|IDs?|Identifier|Name|Address|Telephone\w*|Title)$")
_DEVICE: Final = re.compile(r"Manufacturer|Model|Version|Scheme|Equipment|Algorithm|Device")
_PIXEL_TAGS: Final = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_ENCODINGS: Final = (
    "utf-8", "latin-1", "utf-16-le", "utf-16-be", "shift_jis", "iso2022_jp", "euc_jp", "euc_kr", "gb18030", "cp1251",
    "iso8859_2", "iso8859_5", "iso8859_7",
)  # fmt: skip


class Kind(enum.StrEnum):
    """What an identifier is."""

    PERSON = "PERSON"
    NUMBER = "NUMBER"
    TEXT = "TEXT"
    UID = "UID"
    DATE = "DATE"


@dataclass(frozen=True, slots=True)
class Identifier:
    """One value of the source that must not survive; its representation does not show it."""

    kind: Kind
    text: str = field(repr=False)


class Index:
    """Identifiers arranged for asking about single values (used while cleaning and on the decoded output)."""

    __slots__ = ("_compact", "_phrases", "_words")

    def __init__(self, identifiers: Iterable[Identifier]) -> None:
        folded = {fold(found.text) for found in identifiers if found.kind is not Kind.UID}
        self._words = {text for text in folded if " " not in text}
        self._words |= {_bare(text) for text in self._words}
        self._phrases = tuple(f" {text} " for text in folded if " " in text)
        compact = {text.replace(" ", "") for text in folded}
        self._compact = tuple(text for text in compact if len(text) >= MIN_COMPACT and not text.isdigit())

    def in_text(self, text: str) -> bool:
        """Whether ``text`` holds an identifier: as a word, a number, several words, or inside a longer word."""
        folded = fold(text)
        if not self._words.isdisjoint((*folded.split(), *map(_bare, _DIGITS.findall(folded)))) or any(
            phrase in f" {folded} " for phrase in self._phrases
        ):
            return True
        compact = folded.replace(" ", "")
        return any(part in compact for part in self._compact)

    def in_number(self, text: str) -> bool:
        """Whether the whole part of a number is an identifier (``12345`` and ``12345.0``, not ``0.12345``)."""
        whole = text.strip().lstrip("+-").partition(".")[0]
        return len(whole) >= MIN_DIGITS and _bare(whole) in self._words


def _bare(word: str) -> str:
    """A number without the zeros it is filled up with (``0012345`` is ``12345``), other words as they are."""
    number = word.lstrip("0") if word.isdecimal() else ""
    return number if len(number) >= MIN_DIGITS else word


def fold(text: str) -> str:
    """Words of ``text`` in lower case without accents, separated by one blank."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    return " ".join(_WORD.findall(plain.casefold()))


def identifiers_of(ds: Dataset) -> frozenset[Identifier]:
    """Every value of ``ds`` that must not be in its de-identified form, at every depth and in the file meta.

    Names and their parts, numbers and texts of attributes PS3.15 Table E.1-1 lists, UIDs that are not registered, and
    dates as ``YYYYMMDD``. Descriptive attributes count as a whole and only when long: their single words are clinical.
    """
    sources = [ds, file_meta(ds)] if isinstance(ds, FileDataset) else [ds]
    return frozenset(
        found
        for source in sources
        for _, _, tag, raw, decoded in elements(source)
        if decoded is not None
        for found in _of_element(tag, raw, decoded)
    )


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
    ds = dcmread(BytesIO(output))
    shifted = {found.text for found in identifiers_of(ds) if found.kind is Kind.DATE}
    wanted = [
        found
        for found in identifiers
        if not harmless.issuperset(fold(found.text).split()) and not (found.kind is Kind.DATE and found.text in shifted)
    ]
    ds = dcmread(BytesIO(output))  # anew: identifiers_of has decoded the values whose places are needed
    bytes_found = {f"bytes:{found.kind}" for found in _in_bytes(_outside_pixels(output, ds), wanted)}
    return tuple(sorted(bytes_found | set(_in_values(ds, wanted))))


def violations(output: bytes, *, patient_id: str, texts: frozenset[str]) -> tuple[str, ...]:
    """Elements of a written object that no policy could have let through, whatever the source was.

    Args:
        output: a complete Part 10 file.
        patient_id: the pseudonym, the only person name allowed.
        texts: keywords of the text attributes that may hold a value.

    Returns:
        Findings as ``path:RULE``, sorted.
    """
    ds = dcmread(BytesIO(output))
    found = {"preamble:NOT_ZERO"} if any(output[:128]) else set()
    for is_meta, source in ((True, file_meta(ds)), (False, ds)):
        for path, _, tag, _, decoded in elements(source):
            rule = _violation(tag, decoded, patient_id, texts, is_meta=is_meta)
            if rule:
                found.add(f"{path}:{rule}")
    return tuple(sorted(found))


def _violation(
    tag: BaseTag, decoded: DataElement | None, patient_id: str, texts: frozenset[str], *, is_meta: bool
) -> str:
    if decoded is None:
        return "UNREADABLE"
    if not is_known(tag) and not (is_meta and tag >> 16 == 0x0002 and not tag.is_private):
        return "UNKNOWN_OR_PRIVATE"
    found = [text for text in values(decoded) if text and text != DUMMY_TEXT]
    if decoded.VR == "PN" and any(text != patient_id for text in found):
        return "NAME"
    if decoded.VR == "UI" and not all(text.startswith("2.25.") or is_standard_uid(text) for text in found):
        return "UID"
    if decoded.VR in TEXT_VRS and found and dictionary_keyword(tag) not in texts:
        return "TEXT"
    return "VR" if decoded.VR == "UN" and found else ""


def _of_element(tag: BaseTag, raw: bytes, decoded: DataElement) -> Iterator[Identifier]:
    """Identifiers in one element, whose VR may be another than the dictionary's: it then counts as both."""
    vrs, texts = {decoded.VR, dictionary_VR(tag) if is_known(tag) else ""}, values(decoded)
    if isinstance(decoded.value, bytes) and vrs & _READ_AS_TEXT:
        texts = [decoded.value.decode("latin-1").strip(" \0")]
    if "PN" in vrs:
        if any(byte > 0x7F or byte == 0x1B for byte in raw):
            yield Identifier(Kind.PERSON, raw.decode("latin-1").strip())  # the name as the source spells it in bytes
        for text in texts:
            yield from _name(text)
    if "UI" in vrs:
        yield from (Identifier(Kind.UID, text) for text in texts if text and not is_standard_uid(text))
    if vrs & {"DA", "DT"}:
        days = (raw_date(text) for text in texts)
        yield from (Identifier(Kind.DATE, day) for day in days if day and day.strip("0"))
    if vrs & TEXT_VRS and not tag.is_private:
        yield from _of_text(tag, texts)


def _of_text(tag: BaseTag, texts: list[str]) -> Iterator[Identifier]:
    row = load_table().row(tag)
    keyword = dictionary_keyword(tag) if is_known(tag) or tag >> 16 == 0x0002 else ""
    if row is None and (
        not _IDENTIFYING.search(keyword) or _DEVICE.search(keyword) or keyword == "ImplementationVersionName"
    ):
        return
    is_descriptive = row is not None and "clean_descriptors" in row.options
    for text in texts:
        folded = fold(text)
        if is_descriptive and (len(folded) < 12 or folded.count(" ") < 2):
            continue
        if len(folded) >= 3:
            yield Identifier(Kind.TEXT, text)
        if not is_descriptive:
            yield from _numbers(folded)


def _numbers(folded: str) -> Iterator[Identifier]:
    """Numbers inside an identifying text: single ones, and all digits together (``555-123`` is ``555123``)."""
    parts = [part for part in folded.split() if any(char.isdigit() for char in part)]
    for part in {*parts, "".join(parts)}:
        if len(part) >= MIN_DIGITS:
            yield Identifier(Kind.NUMBER, part)


def _name(text: str) -> Iterator[Identifier]:
    """A person name (PS3.5 6.2.1.1): the whole, each component group, and the words of family, given, middle name."""
    for group in text.split("="):
        if len(fold(group)) >= MIN_NAME_LETTERS:
            yield Identifier(Kind.PERSON, group)
        for component in group.split("^")[:3]:
            for word in _WORD.findall(component):
                if len(word) >= MIN_NAME_LETTERS:
                    yield Identifier(Kind.PERSON, word)


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


def _in_bytes(haystack: bytes, identifiers: Iterable[Identifier]) -> Iterator[Identifier]:
    lowered = haystack.lower()
    words = set(re.findall(rb"[a-z0-9]+", lowered))
    numbers = {_bare(run.decode()) for run in re.findall(rb"(?<![0-9.])[0-9]{5,}(?![0-9]|\.[0-9])", lowered)}
    days = {digits[:8] for digits in re.findall(rb"(?<![0-9])[0-9]{8,14}(?![0-9])", lowered)}
    uids = set(re.findall(rb"[0-9]+(?:\.[0-9]+)+", lowered))
    for found in identifiers:
        text = found.text.casefold().strip()
        if found.kind is Kind.UID:
            needle = text.encode("utf-8", "replace")
            is_found = needle in uids if _is_dotted(text) else len(text) >= MIN_RAW_LETTERS and needle in lowered
        elif found.kind is Kind.DATE:
            is_found = text.encode("ascii", "replace") in days
        elif text.isascii() and text.isdigit():
            is_found = len(text) >= MIN_DIGITS and _bare(text) in numbers
        elif text.isascii() and text.isalnum():
            is_found = len(text) >= MIN_RAW_LETTERS and (text.encode() in words or _in_wide(lowered, text))
        else:
            is_found = len(text) >= MIN_RAW_LETTERS and any(needle in haystack for needle in _needles(found.text))
            is_found = is_found or (text.isascii() and len(text) >= MIN_RAW_LETTERS and text.encode() in lowered)
        if is_found:
            yield found


def _is_dotted(text: str) -> bool:
    return re.fullmatch(r"[0-9]+(\.[0-9]+)+", text) is not None


def _in_wide(lowered: bytes, text: str) -> bool:
    return text.encode("utf-16-le") in lowered or text.encode("utf-16-be") in lowered


def _needles(text: str) -> Iterator[bytes]:
    for variant in {text, text.lower(), text.upper()}:
        for encoding in _ENCODINGS:
            try:
                yield variant.encode(encoding)
            except UnicodeError:
                continue


def _in_values(ds: FileDataset, identifiers: list[Identifier]) -> Iterator[str]:
    """Findings among the decoded values, where a word has true borders and short names can be told from chance."""
    index = Index(found for found in identifiers if found.kind is not Kind.DATE)
    uids = {found.text for found in identifiers if found.kind is Kind.UID}
    for source in (file_meta(ds), ds):
        for path, _, _, _, decoded in elements(source):
            texts = values(decoded) if decoded is not None and decoded.VR not in ("OB", "OW") else []
            vr = decoded.VR if decoded is not None else ""
            if vr == "UI" and not uids.isdisjoint(texts):
                yield f"{path}:UID"
            elif vr in ("DS", "IS") and any(index.in_number(text) for text in texts):
                yield f"{path}:NUMBER"
            elif vr in TEXT_VRS | {"CS", "PN"} and any(index.in_text(text) for text in texts):
                yield f"{path}:TEXT"
