"""Reading of hostile objects: bytes to data set, and every element of it, without a word about its values.

Owns the guarded use of pydicom's reader. Contains no policy. pydicom describes odd values in warnings, log lines and
exceptions; none of them leaves this module.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from struct import calcsize, unpack
from typing import Final

from pydicom import dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from imaging_pipeline.errors import PoisonInput, Reason

_STRUCTS: Final = {
    "US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q",
}  # fmt: skip
_LONG_TEXTS: Final = frozenset({"ST", "LT", "UT", "UR"})
_PLAIN_TEXTS: Final = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "SH", "TM", "UC", "UI"}) | _LONG_TEXTS
_NAME_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")
_PADDING: Final = " \0\t\r\n"
_UNDEFINED: Final = 0xFFFFFFFF
_TEXTS: Final = frozenset({"LO", "SH", "ST", "LT", "UC", "UT", "PN"})

MAX_DEPTH: Final = 24
"""Sequences nested deeper are refused: real objects stay below 10."""


@contextmanager
def quiet() -> Iterator[None]:
    """Drop pydicom's log lines of this thread, and warnings, while inside: they may quote values.

    The log filter is per thread; Python's warning filters are per process, so another thread may lose a warning
    meanwhile.
    """
    logger, thread = logging.getLogger("pydicom"), threading.get_ident()

    def is_from_elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(is_from_elsewhere)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeFilter(is_from_elsewhere)


def read(content: bytes) -> FileDataset:
    """Parse a whole object; call it inside `quiet`.

    Raises:
        PoisonInput: NOT_DEIDENTIFIABLE when pydicom cannot make a data set of it.
    """
    try:
        return dcmread(BytesIO(content))
    except InvalidDicomError:
        pass  # no preamble: a bare data set, or no DICOM at all
    except Exception:  # noqa: BLE001  # pydicom raises anything on hostile bytes, with values in the text
        raise _unreadable() from None
    try:
        ds = dcmread(BytesIO(content), force=True)
    except Exception:  # noqa: BLE001  # as above
        raise _unreadable() from None
    if "SOPClassUID" not in ds:
        raise _unreadable()
    return ds


def transfer_syntax(ds: FileDataset) -> str:
    """The transfer syntax the object is in, from its file meta or from how it was read.

    Raises:
        PoisonInput: NOT_DEIDENTIFIABLE for a transfer syntax the standard does not register.
    """
    try:
        stated = file_meta(ds).get("TransferSyntaxUID")
        known = bool(stated) and not stated.is_private and stated.is_transfer_syntax
    except Exception:  # noqa: BLE001  # the value may be anything
        raise PoisonInput(Reason.NOT_DEIDENTIFIABLE, "the transfer syntax cannot be read") from None
    is_implicit, is_little = ds.original_encoding
    if known and stated == DeflatedExplicitVRLittleEndian:
        return str(stated)
    actual = {(True, True): ImplicitVRLittleEndian, (False, True): ExplicitVRLittleEndian}
    plain = actual.get((bool(is_implicit), bool(is_little)), ExplicitVRBigEndian)
    if not stated:
        return str(plain)
    if not known:
        raise PoisonInput(Reason.NOT_DEIDENTIFIABLE, "the transfer syntax is not one of the standard")
    return str(stated) if stated.is_encapsulated else str(plain)


def file_meta(ds: FileDataset) -> Dataset:
    """The file meta group of ``ds``, empty when it has none."""
    meta = getattr(ds, "file_meta", None)
    return meta if meta is not None else FileMetaDataset()


@lru_cache(maxsize=1024)
def tag_of(keyword: str) -> BaseTag:
    """The tag of a keyword."""
    return Tag(keyword)


def attribute(ds: Dataset, keyword: str) -> DataElement | None:
    """As `element`, by keyword."""
    return element(ds, tag_of(keyword))


def texts_of(ds: Dataset, keyword: str) -> list[str]:
    """As `values`, by keyword; an attribute that is not there has none."""
    return values(attribute(ds, keyword))


def element(ds: Dataset, tag: BaseTag) -> DataElement | None:
    """The decoded element, or None when it is not there or its bytes are not a value of its VR.

    Plain values (ASCII text, binary numbers, bytes) are decoded here, without pydicom's checks, which take most of the
    time a header takes; numbers in text (DS, IS) come as the texts they are.
    """
    return decoded_of(ds, tag, ds.get_item(tag, keep_deferred=True))


def decoded_of(ds: Dataset, tag: BaseTag, found: object) -> DataElement | None:
    """`element`, where what ``ds`` holds as ``tag`` is at hand."""
    try:
        if isinstance(found, RawDataElement):
            plain = _plain(found)
            if plain is not None:
                return plain
        elif found is None:
            return None
        decoded = ds[tag]
        if decoded.VR == "PN":
            str(decoded.value)  # names are decoded when first read
    except Exception:  # noqa: BLE001  # pydicom raises anything on hostile bytes, with values in the text
        return None
    return decoded


def _plain(raw: RawDataElement) -> DataElement | None:
    """The element when its value needs neither a character set nor pydicom's care, or None."""
    tag, content = raw.tag, raw.value
    vr = raw.VR or _vr(int(tag))
    if not isinstance(content, bytes) or raw.is_raw is not True:
        return None
    value: object
    if vr in _STRUCTS:
        code = _STRUCTS[vr]
        count, rest = divmod(len(content), calcsize(f"={code}"))
        if rest or not content:
            return None
        numbers = unpack(f"{'<' if raw.is_little_endian else '>'}{count}{code}", content)
        value = numbers[0] if count == 1 else list(numbers)
    elif vr in _PLAIN_TEXTS and content.isascii() and b"\x1b" not in content:
        text = content.decode("ascii").rstrip("\0 ") if vr not in _LONG_TEXTS else content.decode("ascii").rstrip("\0")
        value = text.split("\\") if "\\" in text and vr not in _LONG_TEXTS else text
        if not text:
            value = None
    elif vr in ("OB", "OW"):
        value = content
    else:
        return None
    return DataElement(tag, vr, value, raw.value_tell, raw.length == _UNDEFINED, already_converted=True)


def plain_texts(vr: str, content: bytes) -> list[str] | None:
    """What `values` gives for an element with this value, or None when only `element` can say it.

    Args:
        vr: the VR the element has, by its own word or by the dictionary.
        content: its value as it was read.
    """
    if not content.isascii() or b"\x1b" in content:
        return None
    if vr in _LONG_TEXTS:
        text = content.decode("ascii").rstrip("\0")
        return [text.strip(_PADDING)] if text else []
    if vr in _PLAIN_TEXTS or (vr == "PN" and b"=" not in content):
        text = content.decode("ascii").rstrip("\0 ")
        return [part.strip(_PADDING) for part in text.split("\\")] if text else []
    return None


@lru_cache(maxsize=8192)
def _vr(tag: int) -> str:
    """The VR of the dictionary where there is only one; empty otherwise."""
    return dictionary_VR(tag) if dictionary_has_tag(tag) and " or " not in dictionary_VR(tag) else ""


def raw_bytes(ds: Dataset, tag: BaseTag) -> bytes:
    """The undecoded value of ``tag``; empty once it has been decoded."""
    return raw_content(ds.get_item(tag))


def raw_content(found: object) -> bytes:
    """`raw_bytes`, where what the data set holds is at hand."""
    return found.value if isinstance(found, RawDataElement) and isinstance(found.value, bytes) else b""


def values(decoded: DataElement | None) -> list[str]:
    """The values of an element as texts without padding; an empty, binary or undecodable element has none."""
    if decoded is None or decoded.VR == "SQ":
        return []
    value = decoded.value
    if isinstance(value, str):
        return [value.strip(_PADDING)] if value else []
    if isinstance(value, int | float):
        return [str(value).strip(_PADDING)]
    if isinstance(value, bytes) or decoded.is_empty:
        return []
    parts = value if decoded.VM > 1 else [value]
    return [str(part).strip(_PADDING) for part in parts]


def elements(
    ds: Dataset, path: str = "", depth: int = 0
) -> Iterator[tuple[str, Dataset, BaseTag, bytes, DataElement | None]]:
    """Every element at every depth, in order: path, data set it is in, tag, raw bytes, decoded element.

    Raises:
        PoisonInput: NOT_DEIDENTIFIABLE when sequences nest deeper than `MAX_DEPTH`.
    """
    if depth > MAX_DEPTH:
        raise PoisonInput(Reason.NOT_DEIDENTIFIABLE, f"sequences nest deeper than {MAX_DEPTH}")
    for tag in sorted(ds.keys(), key=int):
        here, raw = f"{path}{tag:08X}", raw_bytes(ds, tag)
        decoded = element(ds, tag)
        yield here, ds, tag, raw, decoded
        if decoded is not None and decoded.VR == "SQ":
            for number, item in enumerate(decoded.value or ()):
                yield from elements(item, f"{here}[{number}].", depth + 1)


def name_text(groups: Mapping[str, str]) -> str:
    """A person name of the DICOM JSON Model with its component groups as in a file."""
    return "=".join(groups.get(group) or "" for group in _NAME_GROUPS).rstrip("=")


def is_ascii(ds: Dataset) -> bool:
    """Whether every text of a data set made here, at any depth, is ASCII, so that it needs no character set."""
    for elem in ds.values():
        if not isinstance(elem, DataElement):
            return False  # not decoded, so not looked at
        if elem.VR == "SQ":
            if not all(is_ascii(item) for item in elem.value or ()):
                return False
        elif isinstance(elem.value, str):
            if not elem.value.isascii():
                return False
        elif elem.VR in _TEXTS and not all(text.isascii() for text in values(elem)):
            return False
    return True


def count(ds: Dataset) -> int:
    """How many elements ``ds`` holds at every depth."""
    return sum(1 for _ in elements(ds))


def _unreadable() -> PoisonInput:
    return PoisonInput(Reason.NOT_DEIDENTIFIABLE, "the object cannot be parsed as a DICOM data set")
