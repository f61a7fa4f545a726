from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import duckdb
import pytest

from imaging_pipeline.errors import Severity
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.quality import (
    Finding,
    Rule,
    Scope,
    all_rules,
    count_violations,
    evaluate,
    structural_rules,
)
from imaging_pipeline.metadata.quality.rules import attribute_rules, parse_rules, shipped_rules
from imaging_pipeline_tests.metadata.headers import memory_lake
from imaging_pipeline_tests.metadata.scans import SLICES, Change, key, scan, setting, without

STRUCTURAL = {rule.name for rule in structural_rules("silver")}


@pytest.fixture
def lake() -> Iterator[Lake]:
    with memory_lake("identified") as made:
        yield made


@pytest.fixture(scope="module")
def clean() -> Iterator[Lake]:
    """Two faultless scans; tests change it inside a transaction that they roll back."""
    with memory_lake("identified") as made:
        scan(made, "b1", study=1)
        scan(made, "b2", study=2)
        yield made


@pytest.fixture
def spoilt(clean: Lake) -> Iterator[Lake]:
    clean.connection.execute("USE identified")
    clean.connection.execute("BEGIN")
    yield clean
    clean.connection.execute("ROLLBACK")


def broken(lake: Lake, batch: str | None = None) -> dict[str, Finding]:
    """Broken rules about the data; those about the lake itself have tests of their own."""
    found = evaluate(Scope(lake, "silver", batch), (*attribute_rules(), *shipped_rules()))
    assert not [finding.rule.name for finding in found if finding.error]
    return {finding.rule.name: finding for finding in found if not finding.is_passed}


def first_is(tag: str, *values: object) -> Change:
    return setting(tag, *values, only=0)


def test_every_rule_looks_at_clean_data_and_none_is_broken(clean: Lake) -> None:
    for batch in (None, "b1", "b2"):
        findings = evaluate(Scope(clean, "silver", batch), all_rules("silver"))
        assert all(finding.is_passed for finding in findings)
        counts = {finding.rule.table: finding.checked for finding in findings}
        scans = 2 if batch is None else 1
        assert (counts["dicom_instance"], counts["dicom_series"]) == (SLICES * scans, scans)
        assert (counts["dicom_study"], counts["dicom_patient"], counts["object_catalog"]) == (scans, scans, 6 * scans)


FAULTS: dict[str, Change] = {
    "type_1_attributes_of_dicom_series": without("00080060"),
    "type_1_attributes_of_dicom_instance": without("00080016"),
    "type_1_attributes_of_dicom_image_pixel": without("00280103"),
    "type_2_attributes_of_dicom_patient": without("00100040"),
    "type_2_attributes_of_dicom_study": without("00080050"),
    "type_2_attributes_of_dicom_series": without("00200011"),
    "type_2_attributes_of_dicom_instance": without("00200013"),
    "type_2_attributes_of_dicom_equipment": without("00080070"),
    "type_2_attributes_of_dicom_ct_acquisition": without("00180060"),
    "study_has_the_stated_images": setting("00201208", 9),
    "acquisition_has_the_stated_images": setting("00201002", 9),
    "patient_is_born_before_the_study": setting("00100030", "20240107"),
    "acquisition_is_near_the_study": first_is("00080022", "20240115"),
    "spacing_is_positive": setting("00280030", 0.5, 0),
    "uids_are_distinct": lambda content, _: content.update({"0020000E": content["0020000D"]}),
    "one_patient_per_study": first_is("00100020", "another"),
    "patient_id_is_stated": without("00100020"),
    "image_has_a_size": setting("00280010", 0),
    "stored_bits_fit": setting("00280102", 15),
    "pixels_fill_the_frames": setting("00280011", 8),
    "rescale_slope_is_not_zero": setting("00281053", 0),
    "window_has_a_width": setting("00281051", 0.5),
    "modality_is_defined": setting("00080060", "XR"),
    "one_modality_per_series": first_is("00080060", "MR"),
    "one_frame_of_reference_per_series": first_is("00200052", "1.2.8"),
    "values_are_legal": first_is("00200012", 1, 2),
    "volume_has_one_orientation": first_is("00200037", 1, 0, 0, 0, 0, -1),
}
"""A rule, and a change of headers that breaks it."""

ALSO = {"image_has_a_size": {"pixels_fill_the_frames"}}
"""Rules that the same fault must break: no rows hold no bytes."""


@pytest.fixture(scope="module")
def faulty() -> Iterator[Lake]:
    """A batch for each fault, by the name of the rule that it breaks."""
    with memory_lake("identified") as made:
        for study, (rule, change) in enumerate(FAULTS.items(), 1):
            scan(made, rule, study=study, change=change)
        yield made


@pytest.mark.parametrize("rule", FAULTS)
def test_a_fault_in_headers_breaks_its_rule_in_its_batch_alone(faulty: Lake, rule: str) -> None:
    assert set(broken(faulty, rule)) == {rule} | ALSO.get(rule, set())


def test_over_all_batches_each_fault_is_found_once(faulty: Lake) -> None:
    found = broken(faulty)
    assert set(found) == set(FAULTS)
    assert found["study_has_the_stated_images"].failed == found["one_modality_per_series"].failed == 1
    assert not count_violations(faulty, "silver")


SPOILS = {
    "uids_are_legal": "UPDATE silver.dicom_series SET series_instance_uid = '1.02' WHERE arrival_batch = 'b1'",
    "study_date_is_plausible": """UPDATE silver.dicom_study SET study_date = '2099-01-01' WHERE arrival_batch = 'b1';
        UPDATE silver.dicom_instance SET acquisition_date = '2099-01-01' WHERE arrival_batch = 'b1'""",
    "image_has_the_stated_frames": """DELETE FROM silver.dicom_frame
        WHERE instance_key = (SELECT min(instance_key) FROM silver.dicom_frame WHERE arrival_batch = 'b1')""",
    "orientation_is_orthogonal": """UPDATE silver.dicom_image_plane
        SET image_orientation_patient = [1, 0, 0, 0.1, 1, 0] WHERE arrival_batch = 'b1'""",
    "objects_are_accounted_for": "UPDATE bronze.object_catalog SET parse_status = 'FAILED' WHERE arrival_batch = 'b1'",
    "parsed_objects_are_placed": """INSERT INTO bronze.dicom_header BY NAME
        SELECT 'lost' AS object_key, 'b1' AS arrival_batch""",
    "type_1_attributes_of_dicom_us_region": """INSERT INTO silver.dicom_us_region BY NAME
        SELECT instance_key, 1 AS region_index, 1 AS region_data_type, arrival_batch, row_version
        FROM silver.dicom_instance WHERE arrival_batch = 'b1'""",
}
"""A rule, and a change of tables that breaks it where no header can, or where it is said faster."""


@pytest.mark.parametrize("rule", SPOILS)
def test_a_fault_in_tables_breaks_its_rule_alone(spoilt: Lake, rule: str) -> None:
    spoilt.connection.execute(SPOILS[rule])
    assert set(broken(spoilt, "b1")) == {rule}
    assert not broken(spoilt, "b2"), "one batch does not answer for another"


GEOMETRY = {
    "volume_has_no_missing_slices", "slices_have_distinct_positions", "slices_are_evenly_spaced",
    "gantry_is_not_tilted", "instance_numbers_have_no_gaps",
}  # fmt: skip
"""Rules with tests in test_quality_geometry, which look at the named pair."""

UNHEADED = {
    "type_1_attributes_of_dicom_reference", "type_1_attributes_of_dicom_segmentation_metadata",
    "type_1_attributes_of_dicom_structured_report_header", "type_1_attributes_of_dicom_sr_content_item",
    "type_1_attributes_of_dicom_encapsulated_document", "type_2_attributes_of_dicom_encapsulated_document",
    "type_1_attributes_of_dicom_rt_roi", "type_2_attributes_of_dicom_rt_roi",
}  # fmt: skip


@pytest.mark.parametrize("rule", sorted(UNHEADED))
def test_attributes_of_other_objects_are_looked_at_too(spoilt: Lake, rule: str) -> None:
    table = registry.table(rule.split("_attributes_of_")[1])
    row = {c.name: {"VARCHAR": "x", "INTEGER": 1}[c.type] for c in table.columns if c.is_required and c.type != "JSON"}
    ((instance, version),) = spoilt.rows(
        "SELECT instance_key, row_version FROM silver.dicom_instance WHERE arrival_batch = 'b1' LIMIT 1"
    )
    row |= {"instance_key": instance, "row_version": version, "arrival_batch": "b1"}
    spoilt.connection.register("one_row", table.rows([{k: v for k, v in row.items() if k != "_loaded_at"}]))
    spoilt.connection.execute(f"INSERT INTO silver.{table.name} BY NAME SELECT * FROM one_row")
    found = broken(spoilt, "b1")
    assert rule in found
    assert {name.split("_attributes_of_")[-1] for name in found} == {table.name}


def test_every_rule_has_a_test_that_breaks_it() -> None:
    tested = {*FAULTS, *SPOILS, *GEOMETRY, *UNHEADED}
    assert tested == {rule.name for rule in (*attribute_rules(), *shipped_rules())}


def test_a_row_left_over_by_an_earlier_version_of_an_instance_is_found(lake: Lake) -> None:
    scan(lake, "b1")
    lake.rows("CREATE TEMP TABLE earlier AS SELECT * FROM silver.dicom_frame LIMIT 1")
    scan(lake, "b2")  # the same images again, from other objects: they are made from these now
    assert not count_violations(lake, "silver")
    lake.rows("INSERT INTO silver.dicom_frame SELECT * FROM temp.earlier")
    expected = {
        "dicom_frame: instance_key is in dicom_instance",
        "dicom_frame: instance_key, frame_number is unique",
    }
    assert set(count_violations(lake, "silver", "b2")) == expected
    assert set(count_violations(lake, "silver", "b1")) == expected
    assert set(count_violations(lake, "silver")) == expected


@pytest.mark.parametrize("rule", structural_rules("silver"), ids=lambda rule: rule.name)
def test_each_structural_rule_is_broken_by_its_own_fault(spoilt: Lake, rule: Rule) -> None:
    ((count,),) = spoilt.rows(f"SELECT count(*) FROM silver.{rule.table}")
    if not count:
        put_row(spoilt, rule.table)
    (before,) = evaluate(Scope(spoilt, "silver"), [rule])
    if rule.name.endswith("is unique"):
        spoilt.connection.execute(
            f"INSERT INTO silver.{rule.table} SELECT * FROM silver.{rule.table} ORDER BY ALL DESC LIMIT 1"
        )
    else:
        column = rule.name.partition(": ")[2].split()[0]
        spoilt.connection.execute(f"UPDATE silver.{rule.table} SET {column} = 'nobody'")
    has_batch = any(column.name == "arrival_batch" for column in registry.table(rule.table).columns)
    after = [evaluate(Scope(spoilt, "silver", batch), [rule])[0] for batch in (None, "b1", "b2")]
    assert before.is_passed
    assert not after[0].is_passed
    assert not (after[1].is_passed and after[2].is_passed) or not has_batch


def put_row(lake: Lake, name: str) -> None:
    """A row of the first instance of a batch in a table that has none."""
    table = registry.table(name)
    some: dict[str, object] = {"VARCHAR": "x", "INTEGER": 1, "BIGINT": 1, "BOOLEAN": False, "BLOB": b"x"}
    some["TIMESTAMP"] = datetime(2026, 1, 1)  # noqa: DTZ001 - as the lake keeps times
    row = {c.name: some[c.type] for c in table.columns if c.is_required}
    found = lake.query(
        """SELECT instance_key, series_key, study_key, patient_key, equipment_key, arrival_batch, row_version
        FROM silver.dicom_file_location WHERE arrival_batch = 'b1' ORDER BY row_version DESC LIMIT 1"""
    ).to_pylist()[0]
    row |= {column: value for column, value in found.items() if column in {c.name for c in table.columns}}
    lake.connection.register("one_row", table.rows([row]))
    lake.connection.execute(f"INSERT INTO silver.{name} BY NAME SELECT * FROM one_row")


def test_offenders_are_keys_and_counts_and_at_most_twenty_are_kept(lake: Lake) -> None:
    for study in range(1, 5):
        scan(lake, f"b{study}", study=study, change=setting("00281053", 0))
    finding = broken(lake)["rescale_slope_is_not_zero"]
    assert (finding.checked, finding.failed, len(finding.offenders)) == (4 * SLICES, 4 * SLICES, 20)
    assert {str(offender["instance_key"]) for offender in finding.offenders} <= {
        key(study, number) for study in range(1, 5) for number in range(SLICES)
    }


def test_a_warning_that_cannot_be_looked_at_is_a_finding_and_an_error_is_raised(clean: Lake) -> None:
    head = "-- rule: r\n-- table: dicom_study\n-- severity: {}\n-- schemas: silver\n-- means: m\n-- do: d\n"
    sql = "SELECT study_key, error('x') AS mm FROM {own.dicom_study}"
    (warning,), (error,) = (parse_rules(head.format(each) + sql) for each in ("WARN", "ERROR"))
    (finding,) = evaluate(Scope(clean, "silver", "b1"), [warning])
    assert (finding.is_passed, finding.error) == (False, "InvalidInputException")
    with pytest.raises(duckdb.Error):
        evaluate(Scope(clean, "silver", "b1"), [error])


def test_a_rule_without_advice_is_refused() -> None:
    with pytest.raises(ValueError, match="rule r: needs"):
        parse_rules("-- rule: r\n-- table: dicom_study\nSELECT 1")


def test_only_faults_of_the_lake_itself_hold_a_batch() -> None:
    holding = {rule.name for rule in all_rules("silver") if rule.severity is Severity.ERROR}
    assert holding == STRUCTURAL | {"objects_are_accounted_for", "parsed_objects_are_placed"}


def test_the_rules_of_the_research_side_run_there() -> None:
    with memory_lake("research") as research:
        for batch in (None, "b1"):
            findings = evaluate(Scope(research, "deid", batch), all_rules("deid"))
            assert all(finding.is_passed for finding in findings)
            assert {"uids_are_legal", "modality_is_defined"} <= {finding.rule.name for finding in findings}
