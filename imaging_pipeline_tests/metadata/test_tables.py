"""Tables below the instance: rows of real and of made objects, by the registry's declaration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from imaging_pipeline.dicom.header import read_header
from imaging_pipeline.metadata import derived
from imaging_pipeline.metadata.frames import MAX_FRAMES
from imaging_pipeline.metadata.merging import ENTITY_TABLES
from imaging_pipeline.metadata.placing import Placed, StoredObject
from imaging_pipeline.metadata.projection import Row
from imaging_pipeline.metadata.silver import EntityRows, entity_rows
from imaging_pipeline.sources import ElementMode

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
REAL_FILES = Path(__file__).parents[3] / "shared" / "data" / "real_dicom"


def stored(
    header_json: str, *, size: int = 10_000_000, name: str = "object", pixels: int | None = None
) -> StoredObject:
    return StoredObject(
        object_key=name,
        storage_uri=f"file:///{name}",
        source_name="site",
        sha256="0" * 64,
        size=size,
        pixel_data_offset=pixels,
        header_json=header_json,
        has_pixel=True,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        arrival_batch="b1",
        row_version=f"2/b1/{name}",
    )


def of_file(path: Path) -> EntityRows:
    data = path.read_bytes()
    header = read_header(data)
    return entity_rows("b1", [stored(header.json, size=len(data), name=path.name, pixels=header.pixel_offset)])


def made(modality: str = "CT", **values: Any) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.4", "1.2.5"
    ds.Modality, ds.PatientID = modality, "P"
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def rows(ds: Dataset, table: str, **how: Any) -> list[Row]:
    result = entity_rows("b1", [stored(json.dumps(ds.to_json_dict()), **how)])
    assert not result.refused
    found: list[Row] = result.tables[table].to_pylist()
    return found


def item(**values: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def code(value: str, meaning: str) -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator="SCT", CodeMeaning=meaning)


def enhanced(frames: int, *, stated: int | None = None) -> Dataset:
    """Enhanced CT: spacing shared, position per frame, one value at every level."""
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.5], SliceThickness=2)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        CTXRayDetailsSequence=[item(KVP=120)],
    )
    own = [
        item(
            FrameContentSequence=[item(StackID="1", InStackPositionNumber=n + 1, DimensionIndexValues=[1, n + 1])],
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 2.0 * n])],
            CTExposureSequence=[item(XRayTubeCurrentInmA=100 + n)],
        )
        for n in range(frames)
    ]
    return made(
        Rows=4,
        Columns=4,
        SamplesPerPixel=1,
        BitsAllocated=16,
        SliceThickness=9,
        KVP=80,
        NumberOfFrames=frames if stated is None else stated,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=own,
    )


def test_a_frame_says_what_its_own_group_says_before_the_shared_one_before_the_top_level() -> None:
    planes = rows(enhanced(3), "dicom_image_plane")
    assert [plane["frame_number"] for plane in planes] == [1, 2, 3]
    assert [plane["image_position_patient"] for plane in planes] == [[0, 0, 0], [0, 0, 2], [0, 0, 4]]
    assert {plane["slice_thickness"] for plane in planes} == {2.0}
    assert [plane["slice_position_mm"] for plane in planes] == [0, 2, 4]
    assert {plane["orientation_plane"] for plane in planes} == {"AXIAL"}
    acquisitions = rows(enhanced(3), "dicom_ct_acquisition")
    assert [(row["frame_number"], row["kvp"], row["x_ray_tube_current"]) for row in acquisitions] == [
        (1, 120, 100),
        (2, 120, 101),
        (3, 120, 102),
    ]
    frames = rows(enhanced(3), "dicom_frame")
    assert [frame["in_stack_position_number"] for frame in frames] == [1, 2, 3]
    assert frames[2]["dimension_index_values"] == [1, 3]


def test_a_single_image_has_one_frame_and_one_acquisition_of_the_whole() -> None:
    ds = made(Rows=4, Columns=4, KVP=110, ImageOrientationPatient=[0, 1, 0, 0, 0, -1], ImagePositionPatient=[5, 0, 0])
    ((plane,), (acquisition,)) = rows(ds, "dicom_image_plane"), rows(ds, "dicom_ct_acquisition")
    assert (plane["frame_number"], plane["orientation_plane"]) == (1, "SAGITTAL")
    assert (acquisition["frame_number"], acquisition["kvp"]) == (0, 110)
    assert rows(ds, "dicom_mr_acquisition") == []


def test_frames_of_uncompressed_pixels_have_their_place_in_the_object() -> None:
    ds = made("US", Rows=4, Columns=4, SamplesPerPixel=1, BitsAllocated=8, NumberOfFrames=3)
    frames = rows(ds, "dicom_frame", pixels=1000)
    assert [(frame["pixel_offset"], frame["pixel_length"]) for frame in frames] == [(1000, 16), (1016, 16), (1032, 16)]


@pytest.mark.parametrize(
    ("ds", "size", "count", "has_issue"),
    [
        (enhanced(2, stated=5), 10_000, 2, True),
        (enhanced(2), 10_000, 2, False),
        (made(Rows=1, NumberOfFrames=2_000_000_000), 10_000, 1, True),
        (made(Rows=1, NumberOfFrames=MAX_FRAMES + 5), 10_000_000, MAX_FRAMES, True),
        (made(Rows=1, NumberOfFrames=0), 10_000, 1, False),
        (made(Rows=1), 10_000, 1, False),
    ],
)
def test_a_number_of_frames_that_cannot_be_is_told_and_bounded(
    ds: Dataset,
    size: int,
    count: int,
    has_issue: bool,
) -> None:
    result = entity_rows("b1", [stored(json.dumps(ds.to_json_dict()), size=size)])
    assert result.tables["dicom_frame"].num_rows == count
    assert any(issue["dicom_path"] == "00280008" for issue in result.issues) is has_issue


@pytest.mark.parametrize("size", [8_500, 69_000])
def test_a_small_object_gives_no_great_number_of_frames(size: int) -> None:
    ds = made("CR", Rows=1, NumberOfFrames=65_000, ImageLaterality="L" * 5_000)
    result = entity_rows("b1", [stored(json.dumps(ds.to_json_dict()), size=size)])
    assert result.tables["dicom_frame"].num_rows == 1


def test_a_long_value_is_not_repeated_for_each_frame() -> None:
    planes = rows(made("CR", Rows=1, NumberOfFrames=100, ImageLaterality="L" * 5_000), "dicom_image_plane")
    assert len(planes) == 100
    assert {plane["image_laterality"] for plane in planes} == {None}


def test_sizes_beyond_any_image_are_not_computed_with() -> None:
    header = made(Rows=4, Columns=4, SamplesPerPixel=1, BitsAllocated=16).to_json_dict()
    header["00280010"] = {"vr": "UL", "Value": [2**32 - 1]}
    header["00280011"] = {"vr": "IS", "Value": [2**62]}
    result = entity_rows("b1", [stored(json.dumps(header))])
    assert result.tables["dicom_image_pixel"]["frame_bytes"].to_pylist() == [None]
    largest = made("US", Rows=65535, Columns=65535, SamplesPerPixel=65535, BitsAllocated=65535, NumberOfFrames=9)
    assert {frame["pixel_offset"] for frame in rows(largest, "dicom_frame", pixels=10)} == {None}


def test_a_segment_whose_number_is_empty_is_left_out() -> None:
    header = made("SEG", SegmentSequence=[item(SegmentLabel="a")]).to_json_dict()
    header["00620002"]["Value"][0]["00620004"] = {"vr": "IS", "Value": [None, 1]}
    result = entity_rows("b1", [stored(json.dumps(header))])
    assert (result.placed, result.tables["dicom_segmentation_metadata"].num_rows) == (1, 0)


def test_an_object_with_a_value_that_does_not_fit_costs_no_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(placed: Placed, found: list[Row]) -> None:
        if placed.stored.object_key == "bad":
            found[0]["frame_bytes"] = 2**70

    monkeypatch.setattr(derived, "_COMPLETIONS", {**derived._COMPLETIONS, "dicom_image_pixel": broken})
    headers = []
    for number, name in enumerate(("good", "bad", "other")):
        ds = made(Rows=4)
        ds.SOPInstanceUID = f"1.2.3.{number}"
        headers.append(stored(json.dumps(ds.to_json_dict()), name=name))
    result = entity_rows("b1", headers)
    assert (result.placed, result.refused) == (2, 1)
    assert result.tables["dicom_image_pixel"].num_rows == result.tables["dicom_instance"].num_rows == 2
    assert [(issue["object_key"], issue["severity"]) for issue in result.issues] == [("bad", "ERROR")]


def test_items_become_rows_numbered_from_one_with_what_the_top_level_adds() -> None:
    regions = [item(RegionSpatialFormat=1, PhysicalDeltaX=0.1), item(RegionSpatialFormat=3)]
    found = rows(made("US", SequenceOfUltrasoundRegions=regions, TransducerType="CURVED"), "dicom_us_region")
    assert [(row["region_index"], row["region_spatial_format"], row["transducer_type"]) for row in found] == [
        (1, 1, "CURVED"),
        (2, 3, "CURVED"),
    ]


def test_an_item_goes_before_the_top_level_and_without_items_the_top_level_is_row_zero() -> None:
    tracers = [item(Radiopharmaceutical="FDG", RadionuclideTotalDose=1e8, RadionuclideCodeSequence=[code("1", "F18")])]
    ds = made("PT", RadiopharmaceuticalInformationSequence=tracers, Units="BQML", Radiopharmaceutical="other")
    ((row,), (bare,)) = rows(ds, "dicom_nuclear_acquisition"), rows(made("PT"), "dicom_nuclear_acquisition")
    assert (row["isotope_index"], row["radiopharmaceutical"], row["units"]) == (1, "FDG", "BQML")
    assert row["radionuclide_code"]["code_meaning"] == "F18"  # type: ignore[index]
    assert bare["isotope_index"] == 0


def test_a_contrast_agent_is_itself_a_code() -> None:
    ds = made(ContrastBolusAgent="Iohexol", ContrastBolusVolume=50, ContrastBolusAgentSequence=[code("C-1", "Iohexol")])
    (row,) = rows(ds, "dicom_contrast_bolus")
    assert (row["agent_index"], row["contrast_bolus_volume"], row["is_contrast"]) == (1, 50, True)
    assert row["contrast_bolus_agent_code"]["code_value"] == "C-1"  # type: ignore[index]
    (plain,) = rows(made(ContrastBolusAgent="Iohexol"), "dicom_contrast_bolus")
    assert (plain["agent_index"], plain["contrast_bolus_agent_code"]) == (0, None)
    assert rows(made(), "dicom_contrast_bolus") == []


def test_a_segment_with_the_number_of_another_is_left_out_and_told() -> None:
    segments = [
        item(SegmentNumber=1, SegmentLabel="a"),
        item(SegmentNumber=1, SegmentLabel="b"),
        item(SegmentLabel="c"),
    ]
    ds = made("SEG", SegmentSequence=segments, SegmentationType="BINARY")
    result = entity_rows("b1", [stored(json.dumps(ds.to_json_dict()))])
    (row,) = result.tables["dicom_segmentation_metadata"].to_pylist()
    assert (row["segment_number"], row["segment_label"], row["segmentation_type"]) == (1, "a", "BINARY")
    assert {issue["issue_code"] for issue in result.issues} == {"duplicate_item", "missing_type1"}


def test_what_belongs_to_a_series_is_written_once_for_it() -> None:
    requests = [item(RequestedProcedureID="R1"), item(RequestedProcedureID="R2")]
    headers = []
    for number in range(3):
        ds = made(RequestAttributesSequence=requests, PerformedProcedureStepID="S1", ClinicalTrialSubjectID="T1")
        ds.SOPInstanceUID = f"1.2.3.{number}"
        headers.append(stored(json.dumps(ds.to_json_dict()), name=f"o{number}"))
    tables = entity_rows("b1", headers).tables
    assert tables["dicom_instance"].num_rows == 3
    assert tables["dicom_request_attributes"]["requested_procedure_id"].to_pylist() == ["R1", "R2"]
    assert tables["dicom_request_attributes"]["row_version"].to_pylist() == ["2/b1/o2"] * 2
    assert tables["dicom_procedure_step"]["performed_procedure_step_id"].to_pylist() == ["S1"]
    assert tables["dicom_clinical_trial"]["clinical_trial_subject_id"].to_pylist() == ["T1"]
    assert tables["dicom_series"].num_rows == tables["dicom_patient"].num_rows == 1


def test_a_series_without_a_trial_has_no_row_of_one() -> None:
    assert rows(made(), "dicom_clinical_trial") == rows(made(), "dicom_procedure_step") == []


def test_a_report_names_its_title_observers_and_evidence() -> None:
    ds = made(
        "SR", CompletionFlag="COMPLETE", ValueType="CONTAINER", ConceptNameCodeSequence=[code("126000", "Report")]
    )
    ds.VerifyingObserverSequence = [
        item(VerifyingObserverName="House^Greg", VerifyingOrganization="PPTH", VerificationDateTime="20240102030405")
    ]
    ds.ContentSequence = [item(ValueType="TEXT", TextValue="clear", RelationshipType="CONTAINS")]
    (row,) = rows(ds, "dicom_structured_report_header")
    assert row["document_title"]["code_value"] == "126000"  # type: ignore[index]
    ((observer,), count) = row["verifying_observer"], row["content_item_count"]  # type: ignore[misc]
    assert (observer["name"], observer["organization"], observer["datetime"].year) == ("House^Greg", "PPTH", 2024)
    assert count == 2


def test_makers_have_one_spelling() -> None:
    spellings = {"GE MEDICAL SYSTEMS": "GE", "GEMS": "GE", "Siemens Healthineers": "SIEMENS", "TOSHIBA_MEC": "CANON"}
    spellings |= {"Gendex": "GENDEX", "Philips Medical Systems": "PHILIPS"}
    for stated, spelled in spellings.items():
        (row,) = rows(made(Manufacturer=stated), "dicom_equipment")
        assert row["manufacturer_normalized"] == spelled


def test_a_location_names_container_and_path() -> None:
    def place(uri: str) -> tuple[object, object]:
        one = replace(stored(json.dumps(made().to_json_dict())), storage_uri=uri)
        (row,) = entity_rows("b1", [one]).tables["dicom_file_location"].to_pylist()
        return row["storage_container"], row["object_path"]

    assert place("file:///data/a.dcm") == (None, "/data/a.dcm")
    assert place("s3://bucket/a/b.dcm") == ("bucket", "a/b.dcm")
    assert place("zip:///data/cd.zip!a/b.dcm") == ("/data/cd.zip", "a/b.dcm")
    assert place("zip+s3://bucket/cd.zip!b.dcm") == ("bucket/cd.zip", "b.dcm")


def element_rows(ds: Dataset, mode: ElementMode = ElementMode.ALL) -> Mapping[str, Row]:
    one = replace(stored(json.dumps(ds.to_json_dict())), element_mode=mode)
    found = entity_rows("b1", [one]).tables["dicom_element"].to_pylist()
    return {row["element_path"]: row for row in found}


def private() -> Dataset:
    ds = made(
        PatientName="Doe^Jane=ideo", ImageType=["ORIGINAL", "PRIMARY"], PatientWeight="70.5", StudyDate="20240102"
    )
    block = ds.private_block(0x0029, "MAKER X", create=True)
    block.add_new(0x01, "SH", "hidden")
    ds.RequestAttributesSequence = [item(RequestedProcedureID="R1"), item(RequestedProcedureID="R2")]
    ds.PixelAspectRatio = [1, 2, 3]
    ds.AcquisitionDateTime = "no date"
    ds.AccessionNumber = None
    return ds


def test_each_element_is_a_row_with_what_its_value_says() -> None:
    found = element_rows(private())
    assert found["00100010"]["value_string"] == "Doe^Jane=ideo"
    assert (found["00080008"]["vm"], found["00080008"]["value_string"]) == (2, "ORIGINAL\\PRIMARY")
    assert (found["00101030"]["value_number"], found["00101030"]["keyword"]) == (70.5, "PatientWeight")
    assert str(found["00080020"]["value_datetime"]) == "2024-01-02 00:00:00"
    assert found["00280034"]["value_numbers"] == [1, 2, 3]
    assert (found["00080050"]["is_empty"], found["00080050"]["vm"]) == (True, 0)
    assert (found["0020000D"]["tag_group"], found["0020000D"]["tag_element"]) == (0x20, 0xD)


def test_illegal_values_and_counts_are_marked() -> None:
    found = element_rows(private())
    assert found["0008002A"]["is_valid"] is False
    assert found["00280034"]["is_valid"] is False
    assert found["0020000D"]["is_valid"] is True


def test_a_private_element_has_its_creator_and_no_block_number() -> None:
    found = element_rows(private())["00291001"]
    assert (found["tag_hex"], found["private_creator"], found["is_private"]) == ("0029xx01", "MAKER X", True)
    assert "00291001" not in element_rows(private(), ElementMode.STANDARD)
    assert element_rows(private(), ElementMode.OFF) == {}


def test_nested_elements_have_their_path_and_their_item() -> None:
    found = element_rows(private())
    assert found["00400275[1].00401001"]["value_string"] == "R2"
    assert found["00400275[1].00401001"]["item_path"] == "00400275[1]"
    assert (found["00400275"]["vm"], found["00400275"]["value_string"]) == (2, None)
    (first, second) = rows(private(), "dicom_sequence_item")
    assert (first["item_path"], first["sequence_path"], first["item_index"], first["depth"]) == (
        "00400275[0]",
        "00400275",
        0,
        1,
    )
    assert second["parent_item_path"] is None
    frame = element_rows(enhanced(2))["52009230[1].00209113[0].00200032"]
    assert (frame["frame_number"], frame["item_path"]) == (2, "52009230[1].00209113[0]")


def test_every_element_of_every_real_file_is_a_row() -> None:
    paths = [path for path in TEST_FILES.glob("*.dcm") if path.stat().st_size < 200_000]
    paths += sorted(REAL_FILES.rglob("*.dcm"))[:40] if REAL_FILES.exists() else []
    checked = 0
    for path in paths:
        try:
            header = read_header(path.read_bytes())
        except Exception:  # noqa: BLE001 - what cannot be read has no rows
            continue
        result = entity_rows("b1", [stored(header.json, name=path.name)])
        if not result.refused:
            assert result.tables["dicom_element"].num_rows == header.element_count
            assert result.tables["dicom_sequence_item"].num_rows == _items(json.loads(header.json))
            checked += 1
    assert checked > 60


def _items(elements: Mapping[str, Any]) -> int:
    inner = [value for e in elements.values() if e["vr"] == "SQ" for value in e.get("Value", ())]
    return len(inner) + sum(map(_items, inner))


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "rtstruct.dcm", "reportsi.dcm", "liver_1frame.dcm"])
def test_each_real_object_gives_rows_for_its_kind(name: str) -> None:
    expected = {
        "CT_small.dcm": "dicom_ct_acquisition",
        "MR_small.dcm": "dicom_mr_acquisition",
        "rtstruct.dcm": "dicom_rt_roi",
        "reportsi.dcm": "dicom_sr_content_item",
        "liver_1frame.dcm": "dicom_segmentation_metadata",
    }
    assert of_file(TEST_FILES / name).tables[expected[name]].num_rows > 0


_LEAVES = st.one_of(st.none(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5), st.just("20240131"))


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_whatever_a_value_is_the_object_keeps_its_rows(data: st.DataObject) -> None:
    header = json.loads(read_header((TEST_FILES / "CT_small.dcm").read_bytes()).json)
    uids = ("00080018", "0020000D", "0020000E")
    for tag in data.draw(st.lists(st.sampled_from([t for t in header if t not in uids]), max_size=12)):
        header[tag] = {"vr": header[tag]["vr"], "Value": data.draw(st.lists(_LEAVES, max_size=4))}
    result = entity_rows("b1", [stored(json.dumps(header))])
    assert (result.placed, result.refused) == (1, 0)
    assert {name: t.num_rows for name, t in result.tables.items() if name in ("dicom_patient", "dicom_instance")} == {
        "dicom_patient": 1,
        "dicom_instance": 1,
    }
    assert set(result.tables) == set(ENTITY_TABLES)
