from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from pydicom.dataset import Dataset

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.reports import content_items, irradiation_events
from imaging_pipeline_tests.metadata.objects import (
    content,
    ct_dose_report,
    number,
    of_dataset,
    report,
    xray_dose_report,
)
from imaging_pipeline_tests.metadata.views import put, read, with_view

DOSE_TABLES = (
    "dicom_series",
    "dicom_instance",
    "dicom_ct_acquisition",
    "dicom_xray_acquisition",
    "dicom_sr_content_item",
    "dicom_irradiation_event",
)


@pytest.fixture
def dose() -> Iterator[duckdb.DuckDBPyConnection]:
    with with_view("dicom_dose_summary", DOSE_TABLES) as connection:
        yield connection


@pytest.fixture
def codes() -> Iterator[duckdb.DuckDBPyConnection]:
    with with_view("dicom_coded_concept", ("dicom_element", "dicom_sequence_item")) as connection:
        yield connection


@pytest.fixture
def creators() -> Iterator[duckdb.DuckDBPyConnection]:
    with with_view("dicom_private_creator", ("dicom_element", "dicom_sequence_item")) as connection:
        yield connection


def put_series(connection: duckdb.DuckDBPyConnection, series: str, *instances: str, state: str = "CURRENT") -> None:
    put(
        connection,
        "dicom_series",
        [{"series_key": series, "study_key": "study", "protocol_name": f"{series} protocol"}],
    )
    put(
        connection,
        "dicom_instance",
        [{"instance_key": key, "series_key": series, "version_state": state} for key in instances],
    )


def put_report(connection: duckdb.DuckDBPyConnection, key: str, dataset: Dataset) -> None:
    elements = of_dataset(dataset)
    for name, make in (("dicom_sr_content_item", content_items), ("dicom_irradiation_event", irradiation_events)):
        rows, _ = make(elements, registry.table(name))
        put(connection, name, [row | {"instance_key": key} for row in rows])


def summary(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    return read(connection, "dicom_dose_summary", "dose_source, series_key, sr_instance_key")


def test_projections_of_a_series_are_summed(dose: duckdb.DuckDBPyConnection) -> None:
    put_series(dose, "chest", "pa", "lateral")
    put(
        dose,
        "dicom_xray_acquisition",
        [
            {"instance_key": "pa", "kvp": 120.0, "exposure": 2.0, "exposure_time": 5.0, "entrance_dose_in_mgy": 0.1},
            {
                "instance_key": "lateral",
                "kvp": 125.0,
                "exposure_in_uas": 6500.0,
                "exposure_time": 20.0,
                "image_and_fluoroscopy_area_dose_product": 1.5,
            },
        ],
    )
    (row,) = summary(dose)
    assert (row["study_key"], row["series_key"], row["dose_source"]) == ("study", "chest", "HEADER")
    assert (row["exposure"], row["exposure_time"], row["kvp"]) == (8.5, 25, 125)
    assert row["image_and_fluoroscopy_area_dose_product"] == 1.5
    assert (row["entrance_dose_in_mgy"], row["instance_count"]) == (0.1, 2)
    assert (row["protocol_name"], row["sr_instance_key"], row["ctdi_vol"]) == ("chest protocol", None, None)


def test_slices_of_a_ct_series_are_not_summed_and_frames_count_as_one_instance(dose: duckdb.DuckDBPyConnection) -> None:
    put_series(dose, "ct", "slice1", "slice2", "enhanced")
    acquired: dict[str, Any] = {"kvp": 120.0, "exposure": 100.0, "exposure_time": 500.0, "x_ray_tube_current": 200.0}
    put(
        dose,
        "dicom_ct_acquisition",
        [
            acquired | {"instance_key": "slice1", "frame_number": 0, "ctdi_vol": 7.0},
            acquired | {"instance_key": "slice2", "frame_number": 0, "ctdi_vol": 8.0, "x_ray_tube_current": 300.0},
            *(acquired | {"instance_key": "enhanced", "frame_number": frame} for frame in (1, 2, 3)),
        ],
    )
    (row,) = summary(dose)
    assert (row["exposure"], row["exposure_time"], row["ctdi_vol"], row["instance_count"]) == (100, 500, 8, 3)
    assert row["x_ray_tube_current"] == pytest.approx(700 / 3)


def test_deleted_instances_and_series_without_a_figure_have_no_dose(dose: duckdb.DuckDBPyConnection) -> None:
    put_series(dose, "deleted", "gone", state="DELETED")
    put_series(dose, "silent", "kept")
    put(dose, "dicom_xray_acquisition", [{"instance_key": "gone", "exposure": 2.0}, {"instance_key": "kept"}])
    put(dose, "dicom_ct_acquisition", [{"instance_key": "gone", "frame_number": 0, "ctdi_vol": 7.0}])
    put_report(dose, "gone", ct_dose_report())
    assert summary(dose) == []


def test_a_ct_dose_report_is_a_row_of_its_study(dose: duckdb.DuckDBPyConnection) -> None:
    put_series(dose, "reports", "report")
    put_report(dose, "report", ct_dose_report())
    (row,) = summary(dose)
    assert (row["study_key"], row["series_key"], row["sr_instance_key"]) == ("study", None, "report")
    assert (row["dose_source"], row["irradiation_event_count"], row["instance_count"]) == ("RDSR", 1, 1)
    assert (row["dose_length_product"], row["ctdi_vol"], row["exposure_time"]) == (310.5, 7.5, 2500)
    assert (row["kvp"], row["dose_area_product_total"]) == (120, None)


def test_the_totals_of_both_planes_are_added(dose: duckdb.DuckDBPyConnection) -> None:
    put_series(dose, "reports", "report")
    put_report(dose, "report", xray_dose_report())
    (row,) = summary(dose)
    assert row["dose_area_product_total"] == pytest.approx(0.0000325)
    assert (row["irradiation_event_count"], row["exposure_time"], row["dose_length_product"]) == (2, 3000, None)


@pytest.mark.parametrize(("unit", "expected"), [("cGy.cm2", 4e-6), ("uGy.m2", 4e-6), ("Gym2", 4), ("[arb'U]", None)])
def test_a_total_is_converted_or_left_out(dose: duckdb.DuckDBPyConnection, unit: str, expected: float | None) -> None:
    put_series(dose, "reports", "report")
    totals = content("CONTAINER", "113702", number("113722", 3, unit)), number("113722", 1, unit)
    put_report(dose, "report", report("113701", *totals))
    (row,) = summary(dose)
    assert row["dose_area_product_total"] == (None if expected is None else pytest.approx(expected))
    assert row["irradiation_event_count"] == 0


def test_one_total_in_an_unknown_unit_leaves_no_sum_of_the_others(dose: duckdb.DuckDBPyConnection) -> None:
    put_series(dose, "reports", "report")
    put_report(dose, "report", report("113701", number("113813", 3, "mGy.cm"), number("113813", 1, "parsec")))
    assert summary(dose)[0]["dose_length_product"] is None


def test_other_reports_state_no_dose(dose: duckdb.DuckDBPyConnection) -> None:
    put_series(dose, "reports", "report")
    put_report(dose, "report", report("121111", number("113813", 3, "mGy.cm")))
    assert summary(dose) == []


def element(instance: str, item: str | None, tag: str, value: str | None, **more: Any) -> dict[str, Any]:
    return {
        "instance_key": instance,
        "element_path": f"{item}.{tag}" if item else tag,
        "item_path": item,
        "tag_group": int(tag[:4], 16),
        "tag_element": int(tag[4:], 16),
        "tag_hex": tag,
        "vr": "LO",
        "vm": 1,
        "value_string": value,
        "is_private": False,
    } | more


def code(
    instance: str, item: str, value: str, meaning: str | None, scheme: str | None = "SCT", tag: str = "00080100"
) -> list[dict[str, Any]]:
    stated = ((tag, value), ("00080102", scheme), ("00080104", meaning))
    return [element(instance, item, name, text) for name, text in stated if text is not None]


def test_a_code_has_its_most_frequent_meaning_and_all_others(codes: duckdb.DuckDBPyConnection) -> None:
    rows = [
        *code("a", "00082218[0]", "51185008", "Thorax"),
        *code("a", "00540220[0]", "51185008", "Chest"),
        *code("b", "00082218[0]", "51185008", "Chest"),
        element("b", "00082218[0]", "00080103", "2026"),
        *code("b", "00082218[1]", "51185008", None),
        *code("b", "0040A043[0]", "a-very-long-code", "long", "99LOCAL", "00080119"),
        *code("b", "0040A043[1]", "urn:oid:1.2", "urn", "URN", "00080120"),
    ]
    put(codes, "dicom_element", rows)
    chest, long, urn = read(codes, "dicom_coded_concept", "use_count DESC, code_value")
    assert (chest["coding_scheme_designator"], chest["code_value"]) == ("SCT", "51185008")
    assert (chest["code_meaning"], chest["meanings"]) == ("Chest", ["Chest", "Thorax"])
    assert (chest["use_count"], chest["instance_count"], chest["coding_scheme_version"]) == (4, 2, "2026")
    assert [row["code_value"] for row in (long, urn)] == ["a-very-long-code", "urn:oid:1.2"]


def test_what_has_no_scheme_or_is_at_the_top_level_is_no_code(codes: duckdb.DuckDBPyConnection) -> None:
    rows = [*code("a", "00082218[0]", "51185008", "Chest", scheme=None), element("a", None, "00080100", "top")]
    rows += [element("a", None, "00080102", "SCT"), element("a", "00082218[1]", "00080102", "SCT")]
    put(codes, "dicom_element", rows)
    assert read(codes, "dicom_coded_concept", "code_value") == []


def private(instance: str, tag: str, vr: str, creator: str | None) -> dict[str, Any]:
    return element(instance, None, tag, "1", vr=vr, is_private=True, private_creator=creator)


def test_private_attributes_are_counted_by_creator_whatever_their_block(creators: duckdb.DuckDBPyConnection) -> None:
    rows = [
        element("a", None, "00080070", "SIEMENS"),
        element("b", None, "00080070", "Siemens Healthineers"),
        private("a", "00190010", "LO", None),
        private("a", "0019100C", "IS", "SIEMENS MR HEADER"),
        private("b", "0019110C", "IS", "SIEMENS MR HEADER"),
        private("b", "0019120C", "UN", "SIEMENS MR HEADER"),
        private("c", "0019100D", "CS", "SIEMENS MR HEADER"),
        private("c", "0019100E", "CS", None),
    ]
    put(creators, "dicom_element", rows)
    b_value, direction = read(creators, "dicom_private_creator", "element_offset")
    assert (b_value["tag_group"], b_value["private_creator"]) == (0x0019, "SIEMENS MR HEADER")
    assert (b_value["element_offset"], b_value["vr"]) == (0x0C, "IS")
    assert b_value["manufacturers"] == ["SIEMENS", "Siemens Healthineers"]
    assert (b_value["occurrences"], b_value["instance_count"]) == (3, 2)
    assert (direction["element_offset"], direction["manufacturers"]) == (0x0D, None)


@pytest.mark.parametrize("name", [table.name for table in registry.tables_of("deid") if table.is_view])
def test_every_view_of_a_new_lake_is_empty_and_has_the_types_of_the_registry(research: Lake, name: str) -> None:
    found = research.query(f"SELECT * FROM deid.{name}")
    assert found.num_rows == 0
    assert {field.name: field.type for field in found.schema} == {
        column.name: column.arrow_type for column in registry.table(name).columns
    }
