"""From a cleaned data set to the bytes of a Part 10 file (PS3.10 7.1).

Owns the writing of what the engine has built. Plain little-endian objects are written here, in the bytes pydicom would
give and in a tenth of its time; all others by pydicom. Contains no policy.
"""

from __future__ import annotations

from io import BytesIO
from struct import pack
from typing import Final

from pydicom import dcmwrite
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

IMPLEMENTATION_CLASS_UID: Final = "2.25.303811949226512937862140934118093621877"
"""This implementation, in the file meta of everything it writes (PS3.7 D.3.3.2)."""

IMPLEMENTATION_VERSION_NAME: Final = "IMGPIPELINE_1"

_TEXT_VRS: Final = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
)
_BYTES_VRS: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_STRUCTS: Final = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_LONG_VRS: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
"""Representations with a length of 32 bits in explicit VR (PS3.5 7.1.2)."""
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM: Final = b"\xfe\xff\x00\xe0"
_END_OF_SEQUENCE: Final = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"


class _NotPlainError(Exception):
    """A value that is left to pydicom."""


def write(out: Dataset, sop_class: str, syntax: str) -> bytes:
    """``out`` as a file: zero preamble, new file meta, ``syntax``; texts that are not ASCII in UTF-8 (ISO_IR 192)."""
    out.file_meta = _file_meta(out, sop_class, syntax)
    if syntax not in (ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        try:
            meta = _data_set(out.file_meta, is_implicit=False)
            body = _data_set(out, is_implicit=syntax == ImplicitVRLittleEndian)
        except _NotPlainError:
            return write_with_pydicom(out, syntax)
        length = _element(DataElement(0x00020000, "UL", len(meta)), is_implicit=False)
        return b"".join((bytes(128), b"DICM", length, meta, body))
    return write_with_pydicom(out, syntax)


def write_with_pydicom(out: Dataset, syntax: str) -> bytes:
    """``out``, which has its file meta, as pydicom writes it."""
    out.preamble = bytes(128)
    buffer = BytesIO()
    dcmwrite(
        buffer,
        out,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=True,
    )
    return buffer.getvalue()


def _file_meta(out: Dataset, sop_class: str, syntax: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = out.SOPInstanceUID
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta


def _data_set(ds: Dataset, *, is_implicit: bool) -> bytes:
    found = dict(ds.items())
    return b"".join(_element(found[tag], is_implicit=is_implicit) for tag in sorted(found, key=int))


def _element(elem: DataElement | RawDataElement, *, is_implicit: bool) -> bytes:
    if not isinstance(elem, DataElement):
        raise _NotPlainError
    vr, number = elem.VR, int(elem.tag)
    content = _sequence(elem, is_implicit=is_implicit) if vr == "SQ" else _content(elem)
    length = _UNDEFINED if elem.is_undefined_length else len(content)
    if elem.is_undefined_length:
        if vr not in ("OB", "OW"):
            raise _NotPlainError
        content += _END_OF_SEQUENCE
    group, element = number >> 16, number & 0xFFFF
    if is_implicit:
        return pack("<HHI", group, element, length) + content
    if vr in _LONG_VRS:
        return pack("<HH2sHI", group, element, vr.encode(), 0, length) + content
    if length > 0xFFFF:
        raise _NotPlainError
    return pack("<HH2sH", group, element, vr.encode(), length) + content


def _sequence(elem: DataElement, *, is_implicit: bool) -> bytes:
    items = (_data_set(item, is_implicit=is_implicit) for item in elem.value or ())
    return b"".join(_ITEM + len(item).to_bytes(4, "little") + item for item in items)


def _content(elem: DataElement) -> bytes:
    """The value field, of even length (PS3.5 6.2)."""
    vr, value = elem.VR, elem.value
    if value is None:
        return b""
    if vr in _TEXT_VRS:
        text = value if isinstance(value, str) else "\\".join(map(str, value if elem.VM > 1 else [value]))
        content = text.encode("utf-8")
        return content + (b"\0" if vr == "UI" else b" ") * (len(content) % 2)
    if vr in _BYTES_VRS and isinstance(value, bytes):
        return value + b"\0" * (len(value) % 2)
    if vr in _STRUCTS:
        numbers = [value] if isinstance(value, int | float) else list(value)
        return pack(f"<{len(numbers)}{_STRUCTS[vr]}", *numbers)
    if vr == "AT":
        tags = [int(tag) for tag in ([value] if isinstance(value, int) else value)]
        return b"".join(pack("<HH", tag >> 16, tag & 0xFFFF) for tag in tags)
    raise _NotPlainError
