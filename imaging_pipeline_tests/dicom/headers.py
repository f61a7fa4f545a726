"""Headers for tests: real files, bytes built by hand, and documents in the forms that pydicom and we share."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from imaging_pipeline.dicom.header import Header, read_header

DATA = Path(pydicom.__file__).parent / "data"
NO_OBJECTS = {".py", ".json", ".txt", ".dump", ".md", ".icc", ".gz"}
FILES = sorted(
    path
    for folder in ("test_files", "charset_files", "palettes")
    for path in (DATA / folder).rglob("*")
    if path.is_file() and path.suffix not in NO_OBJECTS and path.name != "README"
)
PIXEL_DATA = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 4) + b"\1\2\3\4"


def element(tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """One explicit little endian element."""
    size = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    if vr in ("OB", "OW", "UN", "SQ", "UT", "UC", "OF", "UV"):
        return head + struct.pack("<HL", 0, size) + value
    return head + struct.pack("<H", size) + value


def implicit(tag: int, value: bytes, length: int | None = None) -> bytes:
    """One implicit little endian element."""
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def item(content: bytes, length: int | None = None) -> bytes:
    """One item; of undefined length without a delimiter when told so."""
    return implicit(0xFFFEE000, content, length)


def file_of(content: bytes, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """A DICOM file with the given data set bytes."""
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    meta = element(0x00020010, "UI", uid)
    return b"\0" * 128 + b"DICM" + element(0x00020000, "UL", struct.pack("<L", len(meta))) + meta + content


def saved(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """A data set as pydicom writes it."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.file_meta.MediaStorageSOPClassUID = UID("1.2.3")
    ds.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def document(header: Header) -> dict[str, Any]:
    """The header's JSON, read by a parser that accepts nothing but JSON."""

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    header.json.encode("utf-8")
    return dict(json.loads(header.json, parse_constant=refuse, object_pairs_hook=unique))


def values_of(content: bytes, tag: str, syntax: str = ExplicitVRLittleEndian) -> list[Any]:
    """The values of one attribute of a data set."""
    return list(document(read_header(file_of(content, syntax)))[tag]["Value"])


def issues_of(header: Header) -> list[tuple[str, str, str | None]]:
    return [(issue.reason.value, issue.severity.value, issue.dicom_path) for issue in header.issues]


def normal(attributes: dict[str, Any]) -> dict[str, Any]:
    """The forms in which pydicom's document and ours say the same (see the module's docstring)."""
    result = {}
    for tag, attribute in attributes.items():
        if tag.endswith("0000"):
            continue
        vr, value = attribute["vr"], attribute.get("Value")
        if tag.startswith("7FE0") or "BulkDataURI" in attribute:
            result[tag] = {"vr": vr}
        elif vr == "SQ":
            result[tag] = {"vr": vr, "Value": [normal(one) for one in value or []]}
        elif vr == "PN" and value:
            result[tag] = {"vr": vr, "Value": [{k: v for k, v in (one or {}).items() if v} for one in value]}
        elif value:
            result[tag] = {"vr": vr, "Value": ["" if one is None else one for one in value]}
        else:
            result[tag] = attribute
    return result


def by_pydicom(data: bytes) -> dict[str, Any]:
    ds = pydicom.dcmread(io.BytesIO(data), force=True)
    text = ds.to_json(bulk_data_threshold=1368, bulk_data_element_handler=lambda _: "x")
    return dict(json.loads(text))


def without_meta(attributes: dict[str, Any]) -> dict[str, Any]:
    return {tag: attribute for tag, attribute in attributes.items() if not tag.startswith("0002")}


def every_vr() -> Dataset:
    """A data set with a value of each representation, several where it may have several."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "", "AXIAL"]
    ds.SOPInstanceUID = "1.2.3.4"
    ds.StudyDate, ds.StudyTime, ds.AcquisitionDateTime = "20240229", "101112.5", "20240229101112+0100"
    ds.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    ds.OtherPatientNames = ["Adams^John", "Müller^Jörg"]
    ds.PatientAge, ds.RetrieveAETitle = "042Y", ["AE1", "AE2"]
    ds.PatientComments, ds.InstitutionAddress = "a\\b\r\nc", "Straße 1"
    ds.AdditionalPatientHistory, ds.TextValue = "x" * 300, "long text"
    ds.RetrieveURL = "https://example.org/a\\b"
    ds.LongCodeValue = "code"
    ds.PixelSpacing, ds.InstanceNumber = ["0.5", "0.50"], "7"
    ds.Rows, ds.PixelRepresentation, ds.SmallestImagePixelValue = 2, 1, -5
    ds.add_new(0x00189810, "SS", -7)
    ds.FrameIncrementPointer = [0x00181063, 0x00181065]
    ds.RecommendedDisplayFrameRateInFloat = 0.1
    ds.RealWorldValueSlope = float("nan")
    ds.RealWorldValueLUTData = [1.5, float("inf"), float("-inf")]
    ds.SimpleFrameList = [1, 2**32 - 1]
    ds.ReferencePixelX0, ds.TagSpacingFirstDimension = -3, 2.5
    ds.SelectorUVValue, ds.SelectorSVValue = 2**64 - 1, -(2**63)
    ds.RedPaletteColorLookupTableData = bytes(range(64))
    item_ds = Dataset()
    item_ds.CodeValue, item_ds.CodeMeaning = "T-D3000", "Brust"
    ds.ProcedureCodeSequence = [item_ds, Dataset()]
    ds.add_new(0x00090010, "LO", "GEMS_IDEN_01")
    ds.add_new(0x00091001, "LO", "GE_GENESIS_FF")
    ds.add_new(0x00091099, "UN", b"\1\2\3")
    return ds
