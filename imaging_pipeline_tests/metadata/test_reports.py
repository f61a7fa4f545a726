from __future__ import annotations

from datetime import date, datetime, time
from typing import Any

import pytest
from pydicom.dataset import Dataset

from imaging_pipeline.errors import Reason, Severity
from imaging_pipeline.lake import registry
from imaging_pipeline.metadata.reports import content_items, irradiation_events, power_of_ten
from imaging_pipeline_tests.metadata.objects import (
    REAL_OBJECTS,
    assert_survives,
    coded,
    content,
    ct_dose_report,
    number,
    of_dataset,
    of_test_file,
    real_objects,
    report,
    xray_dose_report,
)

CONTENT = registry.table("dicom_sr_content_item")
EVENT = registry.table("dicom_irradiation_event")


def tree(*children: Dataset) -> dict[str, dict[str, Any]]:
    """Rows of a report with some content items, by their place."""
    rows, issues = content_items(of_dataset(report("121111", *children)), CONTENT)
    assert not issues
    return {str(row["node_path"]): row for row in rows}


def meaning(row: dict[str, Any], column: str = "concept_name") -> object:
    return row[column]["code_meaning"]


def test_a_real_report_is_a_tree_in_the_order_of_the_document() -> None:
    rows, issues = content_items(of_test_file("reportsi.dcm"), CONTENT)
    assert not issues
    by_path: dict[str, dict[str, Any]] = {str(row["node_path"]): row for row in rows}
    expected = ["1", "1.1", "1.2", "1.3", "1.4", "1.5", "1.5.1", "1.5.1.1", "1.5.2"]
    assert [row["node_path"] for row in rows] == expected == list(by_path)
    root = by_path["1"]
    assert (root["value_type"], root["depth"], root["parent_node_path"]) == ("CONTAINER", 1, None)
    assert meaning(root) == "Document Title"
    assert "relationship_type" not in root
    source = by_path["1.5.1.1"]
    assert (source["value_type"], source["relationship_type"], source["depth"]) == ("IMAGE", "INFERRED FROM", 4)
    assert source["parent_node_path"] == "1.5.1"
    assert meaning(by_path["1.3"]) == "Recording Observer's Organization Name"


def test_a_comprehensive_report_has_items_of_all_types_and_references_within_itself() -> None:
    rows, issues = content_items(of_test_file("test-SR.dcm"), CONTENT)
    assert not issues
    by_path: dict[str, dict[str, Any]] = {str(row["node_path"]): row for row in rows}
    types = {"CONTAINER", "TEXT", "CODE", "NUM", "UIDREF", "DATE", "TIME", "DATETIME", "IMAGE", "COMPOSITE", "WAVEFORM"}
    assert {row.get("value_type") for row in rows} == types | {"SCOORD", "TCOORD", None}
    assert by_path["1.5.1.1.1"]["relationship_type"] == "INFERRED FROM"
    assert by_path["1.5.1.1.1"]["referenced_content_item_identifier"]
    assert by_path["1.5.2.1"]["referenced_sop_instance_uid"] == "1.2.3.4.0.1"
    assert by_path["1.2.2"]["measurement_units"]["code_value"]
    assert by_path["1.3.2"]["graphic_data"]


def test_every_value_type_has_its_column() -> None:
    qualified = number("125007", 1.5, "mm", NumericValueQualifierCodeSequence=[coded("114000", "Not a number")])
    where = Dataset()
    where.ReferencedSOPClassUID, where.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.3.4"
    where.ReferencedFrameNumber, where.ReferencedSegmentNumber = [2, 3], 5
    rows = tree(
        content("TEXT", "1", TextValue="seen"),
        content("CODE", "2", ConceptCodeSequence=[coded("R-1", "coded")]),
        qualified,
        content("DATETIME", "4", DateTime="20260102030405.5"),
        content("DATE", "5", Date="20260102"),
        content("TIME", "6", Time="030405"),
        content("UIDREF", "7", UID="1.2.3"),
        content("PNAME", "8", PersonName="Doe^Jane"),
        content("IMAGE", "9", ReferencedSOPSequence=[where]),
        content("SCOORD", "10", GraphicType="POINT", GraphicData=[1.5, 2.5]),
        content(
            "SCOORD3D", "11", GraphicType="POINT", GraphicData=[1.0, 2.0, 3.0], ReferencedFrameOfReferenceUID="1.2.9"
        ),
        content("TCOORD", "12", TemporalRangeType="POINT", ReferencedTimeOffsets=[1.0]),
    )
    assert rows["1.1"]["text_value"] == "seen"
    assert rows["1.2"]["concept_value"]["code_value"] == "R-1"
    assert rows["1.3"]["numeric_value"] == 1.5
    assert rows["1.3"]["measurement_units"]["code_value"] == "mm"
    assert meaning(rows["1.3"], "numeric_qualifier") == "Not a number"
    assert rows["1.4"]["datetime_value"] == datetime(2026, 1, 2, 3, 4, 5, 500000)  # noqa: DTZ001
    assert rows["1.5"]["date_value"] == date(2026, 1, 2)
    assert rows["1.6"]["time_value"] == time(3, 4, 5)
    assert rows["1.7"]["uid_value"] == "1.2.3"
    assert rows["1.8"]["person_name_value"] == "Doe^Jane"
    assert rows["1.9"]["referenced_sop_instance_uid"] == "1.2.3.4"
    assert rows["1.9"]["referenced_frame_numbers"] == [2, 3]
    assert rows["1.9"]["referenced_segment_numbers"] == [5]
    assert rows["1.10"]["graphic_data"] == [1.5, 2.5]
    assert rows["1.11"]["referenced_frame_of_reference_uid"] == "1.2.9"
    assert rows["1.12"]["temporal_range_type"] == "POINT"


def test_a_key_object_selection_is_a_tree_too() -> None:
    image = Dataset()
    image.RelationshipType, image.ValueType = "CONTAINS", "IMAGE"  # its images have no names (TID 2010)
    image.ReferencedSOPSequence = [Dataset()]
    image.ReferencedSOPSequence[0].ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3.4"
    selection = report("113000", content("TEXT", "113012", TextValue="see here"), image)
    rows, issues = content_items(of_dataset(selection, "1.2.840.10008.5.1.4.1.1.88.59"), CONTENT)
    assert not issues
    assert [row["node_path"] for row in rows] == ["1", "1.1", "1.2"]
    assert rows[2]["referenced_sop_instance_uid"] == "1.2.3.4"
    assert "concept_name" not in rows[2]


def test_a_reference_within_the_tree_names_the_place_of_its_target() -> None:
    pointing = Dataset()
    pointing.RelationshipType, pointing.ReferencedContentItemIdentifier = "INFERRED FROM", [1, 2]
    rows = tree(
        content("TEXT", "1", pointing, TextValue="conclusion"), content("TEXT", "2", TextValue="what it is from")
    )
    assert rows["1.1.1"]["referenced_content_item_identifier"] == [1, 2]
    assert rows["1.1.1"]["relationship_type"] == "INFERRED FROM"
    assert rows["1.2"]["text_value"] == "what it is from"


def test_of_several_values_of_a_measurement_the_first_is_taken_and_it_is_told() -> None:
    rows, issues = content_items(of_dataset(report("121111", number("1", [3.5, 4.5], "mm"))), CONTENT)
    assert rows[1]["numeric_value"] == 3.5
    ((reason, severity, path),) = [(issue.reason, issue.severity, issue.dicom_path) for issue in issues]
    assert (reason, severity, path) == (Reason.VM_INVALID, Severity.INFO, "0040A730[0].0040A300")


def test_a_value_that_is_no_date_costs_the_value_and_says_where_it_was() -> None:
    elements: Any = of_dataset(report("121111", content("CONTAINER", "1", content("DATE", "2", Date="20260102"))))
    elements["0040A730"]["Value"][0]["0040A730"]["Value"][0]["0040A121"]["Value"] = ["yesterday"]
    rows, issues = content_items(elements, CONTENT)
    assert [row["node_path"] for row in rows] == ["1", "1.1", "1.1.1"]
    assert "date_value" not in rows[2]
    assert [issue.dicom_path for issue in issues] == ["0040A730[0].0040A730[0].0040A121"]
    assert "yesterday" not in issues[0].message


def test_an_item_that_is_none_keeps_its_number_so_that_later_ones_keep_theirs() -> None:
    elements: Any = of_dataset(report("121111", *(content("TEXT", str(n), TextValue=str(n)) for n in range(3))))
    elements["0040A730"]["Value"][1] = "damage"
    rows, issues = content_items(elements, CONTENT)
    assert [row["node_path"] for row in rows] == ["1", "1.1", "1.3"]
    assert [(issue.reason, issue.dicom_path) for issue in issues] == [(Reason.MALFORMED, "0040A730[1]")]


def test_a_ct_acquisition_is_an_event_in_the_units_of_the_columns() -> None:
    rows, issues = irradiation_events(of_dataset(ct_dose_report()), EVENT)
    assert not issues
    (event,) = rows
    assert event["event_index"] == 1
    assert event["irradiation_event_uid"] == "1.2.3.4"
    assert event["acquisition_protocol"] == "Chest"
    assert meaning(event, "target_region") == "Chest"
    assert meaning(event, "event_type") == "Spiral"
    assert event["exposure_time_ms"] == 2500
    assert (event["kvp"], event["tube_current_ma"]) == (120, 200)
    assert (event["mean_ctdi_vol_mgy"], event["dlp_mgy_cm"]) == (7.5, 310.5)
    assert "dap_gy_m2" not in event


def test_projection_events_are_rows_in_the_order_of_the_report() -> None:
    rows, issues = irradiation_events(of_dataset(xray_dose_report()), EVENT)
    assert not issues
    assert [row["event_index"] for row in rows] == [1, 2]
    assert [row["irradiation_event_uid"] for row in rows] == ["1.2.3.1", "1.2.3.2"]
    assert [row["dap_gy_m2"] for row in rows] == [0.0000125, 0.00002]
    assert [row["kvp"] for row in rows] == [71, 72]
    assert rows[0]["started_at"] == datetime(2026, 1, 2, 8, 1)  # noqa: DTZ001
    assert rows[0]["dose_rp_gy"] == 0.002
    assert meaning(rows[0], "event_type") == "Fluoroscopy"


def test_of_what_an_event_states_twice_the_first_is_taken() -> None:
    names = [content("TEXT", "125203", TextValue=name) for name in ("first", "second")]
    (event,), _ = irradiation_events(of_dataset(report("113701", content("CONTAINER", "113819", *names))), EVENT)
    assert event["acquisition_protocol"] == "first"


def test_a_value_in_an_unknown_unit_is_left_out_and_told() -> None:
    event = content("CONTAINER", "113706", number("122130", 12.5, "[arb'U]"), number("113733", 70, "kV"))
    rows, issues = irradiation_events(of_dataset(report("113701", event)), EVENT)
    assert rows[0].get("dap_gy_m2") is None
    assert rows[0]["kvp"] == 70
    assert [issue.reason for issue in issues] == [Reason.VR_INVALID]
    assert "dap_gy_m2" in issues[0].message


def test_other_reports_have_no_events() -> None:
    assert irradiation_events(of_test_file("test-SR.dcm"), EVENT) == ([], [])
    event = content("CONTAINER", "113706", number("113733", 70, "kV"))
    assert irradiation_events(of_dataset(report("121111", event)), EVENT) == ([], [])


@pytest.mark.parametrize(
    ("unit", "wanted", "power"),
    [
        ("mGy.cm", "mGy.cm", 0),
        ("mGycm", "mGy.cm", 0),
        ("Gy.cm", "mGy.cm", 3),
        ("cGy.cm2", "Gy.m2", -6),
        ("dGy.cm2", "Gy.m2", -5),
        ("cm2.uGy", "Gy.m2", -10),
        ("uGym2", "Gy.m2", -6),
        ("uA", "mA", -3),
        ("V", "kV", -3),
        ("min", "ms", None),
        ("mGy", "mGy.cm", None),
        ("1", "mGy", None),
        ("", "mGy", None),
    ],
)
def test_units_of_the_same_kind_differ_by_a_power_of_ten(unit: str, wanted: str, power: int | None) -> None:
    assert power_of_ten(unit, wanted) == power


@pytest.mark.parametrize("name", ["reportsi.dcm", "test-SR.dcm"])
def test_no_damage_to_a_report_stops_its_rows(name: str) -> None:
    assert_survives(content_items, CONTENT, of_test_file(name))


def test_no_damage_to_a_dose_report_stops_its_events() -> None:
    for dataset in (ct_dose_report(), xray_dose_report()):
        assert_survives(irradiation_events, EVENT, of_dataset(dataset))
        assert_survives(content_items, CONTENT, of_dataset(dataset))


@pytest.mark.skipif(not REAL_OBJECTS.is_dir(), reason="no objects of public test suites here")
def test_reports_of_public_test_suites_are_whole_trees() -> None:
    found = 0
    for elements in real_objects():
        if "0040A730" in elements:
            rows, _ = content_items(elements, CONTENT)
            paths = {row["node_path"] for row in rows}
            assert len(paths) == len(rows) > 1
            assert all(row["parent_node_path"] in paths for row in rows[1:])
            found += 1
    assert found
