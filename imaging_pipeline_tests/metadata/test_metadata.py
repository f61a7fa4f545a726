from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pydicom
import pytest

from imaging_pipeline.catalog.bronze import load_bronze
from imaging_pipeline.dicom.header import read_header
from imaging_pipeline.errors import Issue, PoisonInput, Reason, TransientError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.elements import ElementRows
from imaging_pipeline.metadata.entities import candidate_rows
from imaging_pipeline.metadata.merging import ENTITY_TABLES
from imaging_pipeline.metadata.placing import StoredObject, place
from imaging_pipeline.metadata.projection import Row, project
from imaging_pipeline.metadata.quality import count_placed, count_violations
from imaging_pipeline.metadata.silver import load_silver
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline_tests.conftest import folder as folder_source

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def stored(name: str, source: str = "site") -> StoredObject:
    data = (TEST_FILES / name).read_bytes()
    header = read_header(data)
    return StoredObject(
        object_key="object",
        storage_uri=f"file:///{name}",
        source_name=source,
        sha256="0" * 64,
        size=len(data),
        pixel_data_offset=header.pixel_offset,
        header_json=header.json,
        has_pixel=header.has_pixel,
        transfer_syntax_uid=header.transfer_syntax_uid,
        arrival_batch="2026-01-31.00001",
        row_version="v",
    )


def rows_of(stored: StoredObject) -> tuple[dict[str, Row], list[Issue]]:
    """The first row of each table that an object has rows in, and the issues."""
    placed = place(stored)
    names = [name for name in ENTITY_TABLES if name not in ElementRows.TABLES]
    made = {name: candidate_rows(placed, registry.table(name)) for name in names}
    issues = [issue for _, found in made.values() for issue in found]
    return {name: rows[0] for name, (rows, _) in made.items() if rows}, issues


def elements(**values: tuple[str, list[Any]]) -> Mapping[str, Mapping[str, Any]]:
    return {tag.removeprefix("t"): {"vr": vr, "Value": content} for tag, (vr, content) in values.items()}


def test_a_real_ct_gives_the_values_of_its_header() -> None:
    rows, issues = rows_of(stored("CT_small.dcm"))
    assert rows["dicom_patient"]["patient_id"] == "1CT1"
    assert rows["dicom_patient"]["patient_name"] == "CompressedSamples^CT1"
    assert rows["dicom_study"]["study_date"] == date(2004, 1, 19)
    assert rows["dicom_study"]["study_time"] == time(7, 27, 30)
    assert rows["dicom_study"]["study_datetime"] == datetime(2004, 1, 19, 7, 27, 30)  # noqa: DTZ001
    assert rows["dicom_series"]["modality"] == "CT"
    assert rows["dicom_instance"]["sop_class_name"] == "CT Image Storage"
    assert rows["dicom_instance"]["image_type"] == ["ORIGINAL", "PRIMARY", "AXIAL"]
    assert rows["dicom_image_pixel"]["image_rows"] == 128
    assert rows["dicom_image_pixel"]["rescale_intercept"] == -1024.0
    assert rows["dicom_image_pixel"]["frame_bytes"] == 128 * 128 * 2
    assert rows["dicom_image_pixel"]["is_encapsulated"] is False
    assert rows["dicom_equipment"]["manufacturer"] == "GE MEDICAL SYSTEMS"
    assert "dicom_xray_acquisition" not in rows
    assert not issues


def test_keys_tie_the_rows_together() -> None:
    rows, _ = rows_of(stored("CT_small.dcm"))
    assert rows["dicom_study"]["patient_key"] == rows["dicom_patient"]["patient_key"]
    assert rows["dicom_series"]["study_key"] == rows["dicom_study"]["study_key"]
    assert rows["dicom_instance"]["series_key"] == rows["dicom_series"]["series_key"]
    assert rows["dicom_file_location"]["instance_key"] == rows["dicom_instance"]["instance_key"]
    assert rows["dicom_instance"]["instance_key"] == key_of(str(rows["dicom_instance"]["sop_instance_uid"]))


def test_the_same_patient_id_from_two_sources_stays_two_patients() -> None:
    here, _ = rows_of(stored("CT_small.dcm", source="north"))
    there, _ = rows_of(stored("CT_small.dcm", source="south"))
    assert here["dicom_patient"]["patient_key"] != there["dicom_patient"]["patient_key"]


def test_an_object_without_uids_is_refused_with_the_path() -> None:
    whole = stored("CT_small.dcm")
    header = json.loads(whole.header_json)
    del header["0020000D"]
    with pytest.raises(PoisonInput) as refusal:
        rows_of(replace(whole, header_json=json.dumps(header)))
    assert refusal.value.reason is Reason.MISSING_UID
    assert refusal.value.dicom_path == "0020000D"
    header["0020000D"] = {"vr": "UI", "Value": ["Doe^John"]}
    with pytest.raises(PoisonInput) as refusal:
        rows_of(replace(whole, header_json=json.dumps(header)))
    assert refusal.value.reason is Reason.UID_INVALID
    assert "Doe" not in str(refusal.value)


@pytest.mark.parametrize(
    ("table", "column", "tag", "vr", "value", "expected"),
    [
        ("dicom_study", "study_date", "00080020", "DA", ["1997.04.24"], date(1997, 4, 24)),
        ("dicom_study", "study_date", "00080020", "DA", ["20260231"], None),
        ("dicom_study", "patient_weight", "00101030", "DS", ["heavy"], None),
        ("dicom_study", "patient_weight", "00101030", "DS", [70.5], 70.5),
        ("dicom_series", "series_number", "00200011", "IS", ["12"], 12),
        ("dicom_series", "series_number", "00200011", "IS", [2**40], None),
        ("dicom_series", "series_number", "00200011", "IS", ["1.5"], None),
        ("dicom_patient", "patient_name", "00100010", "PN", [{"Ideographic": "山田^太郎"}], "山田^太郎"),
        ("dicom_patient", "patient_name", "00100010", "PN", [{"Alphabetic": " Doe^J "}], "Doe^J"),
        ("dicom_image_pixel", "window_center", "00281050", "DS", [40, 300.5], [40.0, 300.5]),
        ("dicom_image_pixel", "has_extended_offset_table", "7FE00001", "OV", [1], True),
    ],
)
def test_values_get_their_type_or_become_null_with_an_issue(
    table: str, column: str, tag: str, vr: str, value: list[Any], expected: object
) -> None:
    row, issues = project({tag: {"vr": vr, "Value": value}}, registry.table(table))
    assert row.get(column) == expected
    assert [(issue.reason, issue.dicom_path) for issue in issues] == (
        [] if expected is not None else [(Reason.VR_INVALID, tag)]
    )


def test_issues_name_the_place_and_never_the_value() -> None:
    _, issues = project(elements(t00101030=("DS", ["secret"])), registry.table("dicom_study"))
    assert "secret" not in repr(issues)


def test_nested_attributes_are_found_by_their_path() -> None:
    modifier = {"00080100": {"vr": "SH", "Value": ["260421001"]}, "00080104": {"vr": "LO", "Value": ["Left"]}}
    view = {
        "00080100": {"vr": "SH", "Value": ["399348003"]},
        "00080102": {"vr": "SH", "Value": ["SCT"]},
        "00540222": {"vr": "SQ", "Value": [modifier]},
    }
    row, _ = project({"00540220": {"vr": "SQ", "Value": [view]}}, registry.table("dicom_xray_acquisition"))
    assert row["view_code"] == {
        "code_value": "399348003",
        "coding_scheme_designator": "SCT",
        "coding_scheme_version": None,
        "code_meaning": None,
    }
    assert [code["code_meaning"] for code in row["view_modifier_code"]] == ["Left"]  # type: ignore[attr-defined]


def load(lake: Lake, folder: Path, batch: str, names: Mapping[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    manifest = []
    for name, content in names.items():
        (folder / name).write_bytes(content)
        (entry,) = folder_source(folder / name).list(datetime(2100, 1, 1))  # noqa: DTZ001
        manifest.append(replace(entry, modified_at=datetime(2026, 1, 1)))  # noqa: DTZ001
    load_bronze(lake, batch, manifest, ObjectReader(), run_id="run", workers=1)
    load_silver(lake, batch)


def changed(data: bytes) -> bytes:
    """The same instance with other bytes: the last bytes are pixels."""
    return data[:-2] + bytes(byte ^ 0xFF for byte in data[-2:])


@pytest.mark.parametrize("order", [("1", "2", "3"), ("3", "1", "2"), ("2", "3", "1")])
def test_versions_copies_and_conflicts_do_not_depend_on_the_order(
    identified: Lake, tmp_path: Path, order: tuple[str, ...]
) -> None:
    first = (TEST_FILES / "CT_small.dcm").read_bytes()
    batches = {"1": {"a": first}, "2": {"b": first}, "3": {"c": changed(first)}}
    for batch in order:
        load(identified, tmp_path / "in", batch, batches[batch])
    assert identified.rows("SELECT arrival_batch, version_no, version_state FROM silver.dicom_instance") == [
        ("3", 2, "CURRENT")
    ]
    assert identified.rows("SELECT arrival_batch, role, version_no FROM silver.dicom_file_location ORDER BY 1") == [
        ("1", "REPLACED", 1),
        ("2", "REPLACED", 1),
        ("3", "ORIGINAL", 2),
    ]
    assert identified.rows("SELECT arrival_batch, issue_code FROM bronze.ingest_issue ORDER BY 1") == [
        ("1", "conflict_content"),
        ("2", "conflict_content"),
    ]
    assert identified.rows("SELECT number_of_study_related_instances, modalities_in_study FROM silver.dicom_study") == [
        (1, ["CT"])
    ]
    assert not any(count_violations(identified, "silver").values())


def test_the_same_bytes_under_another_name_are_a_copy(identified: Lake, tmp_path: Path) -> None:
    data = (TEST_FILES / "CT_small.dcm").read_bytes()
    load(identified, tmp_path / "in", "1", {"a": data, "b": data})
    roles = identified.rows("SELECT role, version_no FROM silver.dicom_file_location ORDER BY 1")
    assert roles == [("COPY", 1), ("ORIGINAL", 1)]
    assert identified.rows("SELECT issue_code FROM bronze.ingest_issue") == [("duplicate_content",)]
    assert identified.rows("SELECT count(*) FROM silver.dicom_instance") == [(1,)]


def test_a_batch_with_everything_wrong_closes_its_counts(identified: Lake, tmp_path: Path) -> None:
    data = (TEST_FILES / "CT_small.dcm").read_bytes()
    content = {
        "good.dcm": data,
        "empty.dcm": b"",
        "text.txt": b"hello",
        "text.dcm": b"hello",
        "noise": bytes(range(256)) * 4,
        "cut.dcm": data[:700],
        "picture.png": b"\x89PNG\r\n\x1a\n" + bytes(50),
        "fake.zip": b"PK\x05\x06",
    }
    folder = tmp_path / "in"
    load(identified, folder, "1", content)
    status = dict(
        identified.rows("SELECT regexp_extract(storage_uri, '[^/]+$'), parse_status FROM bronze.object_catalog")
    )
    assert status == {
        "good.dcm": "PARSED",
        "empty.dcm": "FAILED",
        "text.txt": "SKIPPED",
        "text.dcm": "FAILED",
        "noise": "SKIPPED",
        "cut.dcm": "PARSED_WITH_ISSUES",
        "picture.png": "SKIPPED",
        "fake.zip": "FAILED",
    }
    with_issue = identified.rows("SELECT count(DISTINCT object_key) FROM bronze.ingest_issue")
    assert with_issue == [(len(content) - 1,)]
    parsed, placed, refused = count_placed(identified, "1")
    assert parsed == placed + refused == 2


def test_an_object_that_is_gone_keeps_what_was_read_of_it(identified: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    names = ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm")
    load(identified, folder, "1", {name: (TEST_FILES / name).read_bytes() for name in names})
    manifest = [
        replace(entry, modified_at=datetime(2026, 1, 1))  # noqa: DTZ001
        for entry in folder_source(folder).list(datetime(2100, 1, 1))  # noqa: DTZ001
    ]
    (folder / "CT_small.dcm").unlink()
    counts = load_bronze(identified, "1", manifest, ObjectReader(), run_id="again", workers=1)
    load_silver(identified, "1")
    assert (counts.parsed, counts.failed, counts.unread) == (3, 0, 0)
    assert counts.is_closed
    assert identified.rows("SELECT count(*) FROM silver.dicom_instance") == [(3,)]


def test_a_source_out_of_reach_is_an_outage_not_a_loss(identified: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    load(identified, folder, "1", {name: (TEST_FILES / name).read_bytes() for name in ("CT_small.dcm", "MR_small.dcm")})
    manifest = list(folder_source(folder).list(datetime(2100, 1, 1)))  # noqa: DTZ001
    folder.rename(tmp_path / "away")
    with pytest.raises(TransientError, match="reachable"):
        load_bronze(identified, "2", manifest, ObjectReader(), run_id="run", workers=1)
    assert identified.rows("SELECT arrival_batch FROM bronze.dicom_header") == [("1",), ("1",)]


@pytest.mark.parametrize("value", ["9" * 5000, "0", "1", "no number", "2"])
def test_any_number_of_frames_is_survived(value: str) -> None:
    whole = stored("CT_small.dcm")
    header = json.loads(whole.header_json) | {"00280008": {"vr": "IS", "Value": [value]}}
    rows, _ = rows_of(replace(whole, header_json=json.dumps(header)))
    assert rows["dicom_series"]["is_multiframe"] is (value in {"9" * 5000, "2"})


def test_violations_are_seen(identified: Lake, tmp_path: Path) -> None:
    load(identified, tmp_path / "in", "1", {"a": (TEST_FILES / "CT_small.dcm").read_bytes()})
    with identified.transaction():
        identified.connection.execute("DELETE FROM silver.dicom_study")
        identified.connection.execute("INSERT INTO silver.dicom_instance SELECT * FROM silver.dicom_instance")
    broken = {rule for rule, rows in count_violations(identified, "silver").items() if rows}
    assert broken == {"dicom_series: study_key is in dicom_study", "dicom_instance: instance_key is unique"}


@pytest.mark.parametrize("order", [("1", "2"), ("2", "1")])
def test_a_truncated_copy_never_takes_the_place_of_a_whole_object(
    identified: Lake, tmp_path: Path, order: tuple[str, ...]
) -> None:
    whole = (TEST_FILES / "CT_small.dcm").read_bytes()
    batches = {"1": {"whole": whole}, "2": {"cut off": whole[:-5000]}}
    for batch in order:
        load(identified, tmp_path / "in", batch, batches[batch])
    assert identified.rows("SELECT arrival_batch, version_state FROM silver.dicom_instance") == [("1", "CURRENT")]
    assert identified.rows("SELECT arrival_batch, role FROM silver.dicom_file_location ORDER BY 1") == [
        ("1", "ORIGINAL"),
        ("2", "REPLACED"),
    ]
