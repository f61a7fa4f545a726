"""Headers of real files say what pydicom says; each difference is named here and in docs/reference/json_model.md."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from imaging_pipeline.dicom.header import read_header
from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline_tests.dicom.headers import (
    DATA,
    FILES,
    by_pydicom,
    document,
    element,
    file_of,
    implicit,
    issues_of,
    item,
    normal,
    saved,
    without_meta,
)

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "json_model.md").read_text(encoding="utf-8")
REAL_OBJECTS = Path(__file__).parents[3] / "shared" / "data" / "real_dicom"
DIFFERENT = {"no_meta.dcm", "rtplan_truncated.dcm", "badVR.dcm"}
"""Files of pydicom of which the two documents differ; each has a test of its own below."""

DIFFERENT_ELSEWHERE = {
    "GH1339.dcm": None,  # the elements that differ, or None where pydicom has no document to compare
    "GH177_D_CLUNIE_CT1_IVRLE_BigEndian_undefined_length.dcm": None,
    "GH179A.dcm": {"00280120"},
    "GH179B.dcm": {"00280120"},
    "GH195.dcm": None,
    "GH626.dcm": {"2005140F"},
}

pytestmark = pytest.mark.filterwarnings("ignore")


def ours_of(data: bytes) -> dict[str, Any]:
    return without_meta(document(read_header(data)))


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.name not in DIFFERENT],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_a_real_header_says_what_pydicom_says(path: Path) -> None:
    data = path.read_bytes()
    header = read_header(data)
    attributes = document(header)
    assert list(attributes) == sorted(attributes)
    assert normal(without_meta(attributes)) == normal(by_pydicom(data))
    again = read_header(data[:4096], size=len(data), more=lambda upto: data[:upto])
    if not header.has_pixel:
        assert again == header


def test_every_other_file_that_comes_with_pydicom_is_not_dicom() -> None:
    others = {path for path in DATA.rglob("*") if path.is_file() and "__pycache__" not in path.parts} - set(FILES)
    assert len(FILES) > 150
    assert others
    for path in others:
        with pytest.raises(PoisonInput) as caught:
            read_header(path.read_bytes())
        assert caught.value.reason is Reason.NOT_DICOM, path.name


def test_a_file_shifted_by_one_byte_is_not_dicom() -> None:
    with pytest.raises(PoisonInput) as caught:
        read_header((DATA / "test_files" / "no_meta.dcm").read_bytes())
    assert caught.value.reason is Reason.NOT_DICOM


def test_a_file_with_a_wrong_integer_is_read_but_for_that() -> None:
    data = (DATA / "test_files" / "badVR.dcm").read_bytes()
    with pytest.raises(ValueError, match="1A"):
        by_pydicom(data)
    header = read_header(data)
    assert document(header)["00280008"] == {"vr": "IS", "Value": ["1A"]}
    assert issues_of(header) == [("vr_invalid", "WARNING", "00280008")]
    correct = by_pydicom(data.replace(b"1A", b"1 ", 1))
    assert {tag for tag, attribute in normal(ours_of(data)).items() if normal(correct).get(tag) != attribute} == {
        "00280008"
    }


def test_a_truncated_plan_keeps_what_comes_before() -> None:
    data = (DATA / "test_files" / "rtplan_truncated.dcm").read_bytes()
    header = read_header(data)
    assert issues_of(header) == [("truncated", "WARNING", "300A00B0[0].300A0111[0].300A012C")]
    ours, theirs = document(header), by_pydicom(data)
    theirs["300A00B0"]["Value"][0]["300A0111"]["Value"][0].pop("300A012C")
    assert normal(without_meta(ours)) == normal(theirs)


@pytest.mark.skipif(not REAL_OBJECTS.is_dir(), reason="no further real objects beside this checkout")
def test_real_objects_of_other_projects_say_what_pydicom_says() -> None:
    compared, refused = 0, []
    for path in sorted(path for path in REAL_OBJECTS.rglob("*") if path.is_file() and path.name not in DIFFERENT):
        data = path.read_bytes()
        try:
            ours = normal(ours_of(data))
        except PoisonInput as caught:
            refusal: PoisonInput | None = caught
        else:
            refusal = None
        if refusal is not None:
            refused.append((refusal.reason, data[128:132] == b"DICM"))
            continue
        compared += 1
        if path.name not in DIFFERENT_ELSEWHERE:
            assert ours == normal(by_pydicom(data)), path.name
            continue
        differing = DIFFERENT_ELSEWHERE[path.name]
        if differing is None:
            assert len(ours) > 40
        else:
            theirs = normal(by_pydicom(data))
            assert {tag for tag in ours.keys() | theirs.keys() if ours.get(tag) != theirs.get(tag)} == differing
    assert compared > 250
    assert set(refused) == {(Reason.NOT_DICOM, False)}


# Differences of form: (what pydicom's document has, what ours has)


def of_keyword(keyword: str, value: object) -> Dataset:
    ds = Dataset()
    ds.Modality = "CT"
    setattr(ds, keyword, value)
    return ds


FORMS: list[tuple[str, bytes, str, dict[str, Any] | None, dict[str, Any] | None]] = [
    (
        "group lengths",
        file_of(element(0x00080000, "UL", b"\x0a\0\0\0") + element(0x00080060, "CS", b"CT")),
        "00080000",
        {"vr": "UL", "Value": [10]},
        None,
    ),
    (
        "empty values of several",
        saved(of_keyword("ImageType", ["ORIGINAL", "", "AXIAL"])),
        "00080008",
        {"vr": "CS", "Value": ["ORIGINAL", "", "AXIAL"]},
        {"vr": "CS", "Value": ["ORIGINAL", None, "AXIAL"]},
    ),
    (
        "empty groups of a name",
        file_of(element(0x00080005, "CS", b"ISO_IR 192") + element(0x00100010, "PN", "=山田".encode() + b" ")),
        "00100010",
        {"vr": "PN", "Value": [{"Alphabetic": "", "Ideographic": "山田"}]},
        {"vr": "PN", "Value": [{"Ideographic": "山田"}]},
    ),
    (
        "empty sequences",
        saved(of_keyword("ProcedureCodeSequence", [])),
        "00081032",
        {"vr": "SQ", "Value": []},
        {"vr": "SQ"},
    ),
    (
        "numbers that are not finite",
        saved(of_keyword("RealWorldValueLUTData", [float("inf"), 1.5])),
        "00409212",
        {"vr": "FD", "Value": [float("inf"), 1.5]},
        {"vr": "FD", "Value": ["inf", 1.5]},
    ),
    (
        "ambiguous representations",
        file_of(implicit(0x00080060, b"CT") + implicit(0x00281200, b"\1\0\2\0"), ImplicitVRLittleEndian),
        "00281200",
        {"vr": "US or SS or OW", "InlineBinary": "AQACAA=="},
        {"vr": "OW", "InlineBinary": "AQACAA=="},
    ),
    (
        "escape sequences that are not announced",
        file_of(element(0x00080005, "CS", b"ISO_IR 6") + element(0x00080080, "LO", b"\x1b$B;3ED\x1b(B ")),
        "00080080",
        {"vr": "LO", "Value": ["\x1b$B;3ED"]},
        {"vr": "LO", "Value": ["山田"]},
    ),
    (
        "long binary values",
        file_of(element(0x00091001, "OB", b"A" * 1026)),
        "00091001",
        {"vr": "OB", "InlineBinary": "QUFB" * 342},
        {"vr": "OB", "BulkDataURI": "?offset=184&length=1026"},
    ),
]


@pytest.mark.parametrize(("name", "data", "tag", "theirs", "ours"), FORMS, ids=[form[0] for form in FORMS])
def test_a_difference_of_form_is_as_documented(
    name: str, data: bytes, tag: str, theirs: dict[str, Any] | None, ours: dict[str, Any] | None
) -> None:
    ds = pydicom.dcmread(pydicom.filebase.DicomBytesIO(data))
    assert ds.to_json_dict(bulk_data_threshold=1 << 20).get(tag) == theirs
    assert document(read_header(data)).get(tag) == ours
    assert f"**{name}**" in PAGE


def test_digits_of_numeric_text_are_kept() -> None:
    data = saved(of_keyword("PixelSpacing", ["0.50", "1.0e1"]), ExplicitVRLittleEndian)
    assert pydicom.dcmread(pydicom.filebase.DicomBytesIO(data)).to_json_dict()["00280030"]["Value"] == [0.5, 10.0]
    assert '"00280030":{"vr":"DS","Value":[0.50,10.0]}' in read_header(data).json
    assert "**digits**" in PAGE


def test_a_character_set_stated_as_unknown_is_read_all_the_same() -> None:
    data = file_of(element(0x00080005, "UN", b"ISO_IR 100") + element(0x00080080, "LO", b"M\xfcller"))
    attributes = document(read_header(data))
    assert attributes["00080005"] == {"vr": "CS", "Value": ["ISO_IR 100"]}
    assert attributes["00080080"]["Value"] == ["Müller"]
    assert normal(without_meta(attributes)) == normal(by_pydicom(data))


def test_reading_goes_on_after_an_element_that_pydicom_gives_up_on() -> None:
    bad = element(0x00091001, "ZZ", b"ab") + element(0x00180050, "DS", b"thick ")
    data = file_of(bad + element(0x00400100, "SQ", item(element(0x00400002, "DA", b"20240229"))))
    with pytest.raises((NotImplementedError, ValueError)):
        by_pydicom(data)
    header = read_header(data)
    assert document(header)["00180050"] == {"vr": "DS", "Value": ["thick"]}
    assert document(header)["00400100"]["Value"][0]["00400002"]["Value"] == ["20240229"]
    assert [path for _, _, path in issues_of(header)] == ["00091001", "00180050"]


def test_every_file_that_differs_is_named_in_the_reference() -> None:
    for name in DIFFERENT | DIFFERENT_ELSEWHERE.keys():
        assert f"`{name}`" in PAGE


def test_elements_after_the_pixel_data_are_read_where_the_object_is_whole() -> None:
    pixel_data = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 4) + b"\1\2\3\4"
    data = file_of(element(0x00080060, "CS", b"CT") + pixel_data + element(0x7FE10010, "LO", b"OWNER "))
    assert document(read_header(data))["7FE10010"] == by_pydicom(data)["7FE10010"]
