"""Every row of Table E.1-1, in one generated object: what the Basic Profile asks for is what happens."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.datadict import dictionary_has_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from imaging_pipeline.deid.iod import load_types
from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline.deid.rules import Action, Rules
from imaging_pipeline.deid.table import BASIC_PROFILE_CODES, Row, load_table
from imaging_pipeline_tests.deid.corpus import DX, chest_film, encode, release

SAMPLES: dict[str, object] = {
    "LO": "leaky", "SH": "leaky", "ST": "leaky", "LT": "leaky", "UT": "leaky", "UC": "leaky", "PN": "Leaky^Name",
    "CS": "LEAKY", "AE": "LEAKY", "UR": "http://leaky", "AS": "063Y", "DA": "20210105", "TM": "101530",
    "UI": "1.2.826.0.9.1", "DT": "20210105101530", "DS": "77", "IS": "77", "US": 77, "OB": b"leaky ", "UN": b"leaky ",
}  # fmt: skip
PLACED = {"PatientID", "PatientName", "AccessionNumber"}
IDENTITY = {"SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "IssuerOfPatientID", "DeidentificationMethod"}


def _rows() -> list[Row]:
    return [row for row in load_table().rows if len(row.tag) == 8 and "x" not in row.tag and row.keyword]


def _everything() -> Dataset:
    """An object with every attribute of the table that a data set may hold."""
    ds = chest_film()
    for row in _rows():
        tag = int(row.tag, 16)
        if tag >> 16 < 0x0008 or row.keyword in IDENTITY:
            continue
        if row.vr == "SQ":
            item = Dataset()
            item.ReferencedSOPInstanceUID = "1.2.826.0.9.2"
            ds.add(DataElement(tag, "SQ", Sequence([item])))
        else:
            ds.add(DataElement(tag, row.vr, SAMPLES[row.vr]))
    return ds


def _expected(row: Row) -> str:
    """What the row's actions allow in a DX image, worked out from the standard's words and not from `Rules`."""
    profile, code = load_profile(), row.basic_profile
    kind = load_types().type_of(row.keyword, DX)
    if row.keyword in PLACED:
        return "replaced"
    dated = row.vr in ("DA", "TM", "DT") and "retain_longitudinal_modified_dates" in row.options
    if (dated and row.keyword not in profile.never_shifted) or code in ("U", "X/Z/U*"):
        return "replaced"
    if row.vr == "SQ" and "D" in code:
        return {"1": "replaced", "1C": "replaced", "2": "empty", "2C": "empty"}.get(kind, "absent")
    if row.keyword in profile.type1 or kind in ("1", "1C"):
        return {"Z": "empty", "X/Z": "empty", "X": "absent"}.get(code, "replaced")
    if kind in ("2", "2C"):
        return "replaced" if code == "D" else "empty"
    return {"D": "replaced", "Z": "empty", "Z/D": "empty"}.get(code, "absent")


def test_the_table_is_whole() -> None:
    table = load_table()
    assert len(table.rows) == 656
    assert {row.basic_profile for row in table.rows} <= BASIC_PROFILE_CODES
    assert len(table.by_tag) + len(table.by_pattern) == 656


def test_every_row_of_the_table_has_the_effect_it_asks_for() -> None:
    source = _everything()
    result = release(source)
    out = dcmread(BytesIO(result.data))
    seen = 0
    for row in _rows():
        tag = int(row.tag, 16)
        if tag >> 16 < 0x0008 or row.keyword in IDENTITY or tag not in source:
            continue
        seen += 1
        expected = _expected(row)
        if expected == "absent":
            assert tag not in out, row
        elif expected == "empty":
            assert tag in out, row
            assert not out[tag].value, row
        else:
            assert out[tag].value, row
            assert out[tag].value != SAMPLES.get(row.vr), row
    assert seen > 600
    assert b"leaky" not in result.data.lower()
    assert b"1.2.826.0.9" not in result.data


@pytest.mark.parametrize(
    ("keyword", "action"),
    [
        ("PatientBirthDate", Action.EMPTY),
        ("PatientAge", Action.REMOVE),
        ("StudyDescription", Action.REMOVE),
        ("DeviceSerialNumber", Action.DUMMY),
        ("ProtocolName", Action.REMOVE),
        ("ContrastBolusAgent", Action.EMPTY),
        ("ReferencedImageSequence", Action.UID),
        ("ContentSequence", Action.REMOVE),
        ("AcquisitionDateTime", Action.CLEAN),
        ("TimezoneOffsetFromUTC", Action.REMOVE),
        ("TemplateVersion", Action.REMOVE),
        ("ContextGroupVersion", Action.DUMMY),
        ("Rows", Action.KEEP),
        ("Manufacturer", Action.KEEP),
        ("LensDescription", Action.REMOVE),
        ("PositionReferenceIndicator", Action.EMPTY),
        ("ReceiveCoilName", Action.DUMMY),
        ("ReferencedPerformedProcedureStepSequence", Action.REMOVE),
        ("WaveformData", Action.REMOVE),
        ("SecondaryReviewerName", Action.REMOVE),
        ("SpecificCharacterSet", Action.REMOVE),
    ],
)
def test_actions_are_resolved(keyword: str, action: Action) -> None:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    assert Rules(load_profile()).action(tag) is action


CT, PET, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.88.33"


@pytest.mark.parametrize(
    ("keyword", "sop_class", "action"),
    [
        ("AcquisitionDateTime", "", Action.EMPTY),  # X/Z/D, the IOD not known
        ("AcquisitionDateTime", CT, Action.REMOVE),  # Type 3
        ("SeriesDate", CT, Action.REMOVE),  # X/D, Type 3
        ("SeriesDate", PET, Action.DUMMY),  # X/D, Type 1
        ("ContentDate", CT, Action.EMPTY),  # Z/D, Type 3: Z is asked for by the table
        ("ContentDate", SR, Action.DUMMY),  # Z/D, Type 1
        ("OperatorsName", CT, Action.REMOVE),  # X/Z/D, Type 3
        ("OperatorsName", "1.2.840.10008.5.1.4.1.1.481.5", Action.EMPTY),  # Type 2
        ("ContentSequence", SR, Action.CLEAN),  # D, a sequence, Type 1C
        ("PositionReferenceIndicator", CT, Action.EMPTY),  # not in the table, Type 2
    ],
)
def test_a_compound_action_is_resolved_by_the_type_of_the_attribute_in_its_iod(
    keyword: str, sop_class: str, action: Action
) -> None:
    profile = replace(load_profile(), options=frozenset(), type1=frozenset(), type2=frozenset())
    assert Rules(profile, sop_class).action(tag_for_keyword(keyword) or 0) is action


def test_inside_a_sequence_the_sequence_decides_the_type() -> None:
    types = load_types()
    assert types.type_of("VerifyingObserverName", SR, "VerifyingObserverSequence") == "1"
    assert types.type_of("VerifyingObserverName", SR) == "3"
    assert types.type_of("PatientName", "1.2.3") == ""


@pytest.mark.parametrize(
    "tag", [0x00090010, 0x00100000, 0x50003000, 0x60003000, 0x60000010, 0x00020016, 0x00041220, 0x00189FFF]
)
def test_what_no_data_set_should_hold_is_removed(tag: int) -> None:
    assert Rules(load_profile()).action(tag) is Action.REMOVE


def test_rows_the_dictionary_does_not_know_are_removed() -> None:
    unknown = [int(row.tag, 16) for row in load_table().rows if "x" not in row.tag and row.tag != "private"
               and not dictionary_has_tag(int(row.tag, 16))]  # fmt: skip
    assert unknown
    assert {Rules(load_profile()).action(tag) for tag in unknown} == {Action.REMOVE}


def test_encoding_the_generated_object_works() -> None:
    assert len(encode(_everything())) > 10_000
