"""Is a file that was sent a whole DICOM object, and which? Its header and structure tell; no pixel is decoded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from imaging_pipeline.dicom.header import read_header
from imaging_pipeline.dicom.values import is_uid
from imaging_pipeline.errors import PoisonInput, Reason

FIRST_BYTES: Final = 65_536
"""Headers are mostly shorter; of a longer one more is read."""

_NAMES: Final = {
    "00080016": "SOP Class UID",
    "00080018": "SOP Instance UID",
    "0020000D": "Study Instance UID",
    "0020000E": "Series Instance UID",
}
_OF_META: Final = {"00080016": "00020002", "00080018": "00020003"}
_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_LOST: Final = (Reason.TRUNCATED, Reason.MALFORMED)


@dataclass(frozen=True, slots=True)
class Examined:
    """What a file says it is.

    Attributes:
        sop_class_uid: its kind.
        study_uid: Study Instance UID.
        series_uid: Series Instance UID.
        sop_uid: SOP Instance UID.
        transfer_syntax_uid: how it is encoded.
    """

    sop_class_uid: str
    study_uid: str
    series_uid: str
    sop_uid: str
    transfer_syntax_uid: str


def examine(path: Path) -> Examined:
    """Read the header of a Part 10 file (PS3.10 7.1), and see that the file is whole.

    Raises:
        PoisonInput: it is no such file, lacks a UID, has one that is not legal, contradicts itself, or is cut off.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        header = read_header(stream.read(FIRST_BYTES), size=size, more=_more(stream))
        if not header.has_preamble or not header.transfer_syntax_uid:
            raise PoisonInput(Reason.MISSING_FILE_META, "expected a DICOM file with its file meta information")
        elements = json.loads(header.json)
        sop_class, sop, study, series = (_uid(elements, tag) for tag in _NAMES)
        for tag, of_meta in _OF_META.items():
            if _text(elements, of_meta) not in ("", _text(elements, tag)):
                raise PoisonInput(Reason.MALFORMED, f"the file meta information has another {_NAMES[tag]}")
        lost = next((issue for issue in header.issues if issue.reason in _LOST), None)
        if lost is not None:
            raise PoisonInput(lost.reason, lost.message, dicom_path=lost.dicom_path)
        if header.pixel_offset is not None and header.pixel_length is None:
            _walk_fragments(stream, header.pixel_offset, size)
    return Examined(sop_class, study, series, sop, header.transfer_syntax_uid)


def _more(stream: BinaryIO) -> Callable[[int], bytes]:
    def more(count: int) -> bytes:
        stream.seek(0)
        return stream.read(count)

    return more


def _text(elements: dict[str, dict[str, list[object]]], tag: str) -> str:
    values = elements.get(tag, {}).get("Value") or [""]
    return str(values[0])


def _uid(elements: dict[str, dict[str, list[object]]], tag: str) -> str:
    value = _text(elements, tag)
    if not value:
        raise PoisonInput(Reason.MISSING_UID, f"no {_NAMES[tag]}", dicom_path=tag)
    if not is_uid(value):
        raise PoisonInput(Reason.UID_INVALID, f"the {_NAMES[tag]} is no legal UID (PS3.5 9.1)", dicom_path=tag)
    return value


def _walk_fragments(stream: BinaryIO, at: int, size: int) -> None:
    """Follow the items of encapsulated pixel data to their delimiter (PS3.5 A.4)."""
    while at + 8 <= size:
        stream.seek(at)
        head = stream.read(8)
        if head[:4] == _DELIMITER:
            return
        if head[:4] != _ITEM:
            raise PoisonInput(Reason.MALFORMED, "the compressed pixel data are no items", dicom_path="7FE00010")
        at += 8 + int.from_bytes(head[4:], "little")
    raise PoisonInput(Reason.TRUNCATED, "the compressed pixel data end before their delimiter", dicom_path="7FE00010")
