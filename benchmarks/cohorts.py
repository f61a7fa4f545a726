"""Cohort queries over a large lake, as the loader leaves it and after compaction. Last line: one JSON object.

The lake is a real one (SQLite catalog, Parquet) filled by SQL, in files of about 5,000 objects, as batches are:
CT and MR studies of 250 images in a few series, and radiographs, two to a study. Keys are digests, so no file knows a
range of them; study dates rise with the batches, but for some that are older. There are 20 rows of ``dicom_element``
to an instance. Then the same queries once more after ``compact``: neighbouring files merged, rows sorted.

    python benchmarks/cohorts.py [--instances 1000000] [--no-elements] [--threads 2] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from imaging_pipeline.lake.store import Lake, attach
from imaging_pipeline.settings import LakeLocation

OBJECTS_PER_BATCH = 5_000
OBJECTS_PER_INSERT = 100_000
FEWEST_INSTANCES = 50_000
ROUNDS = 3
TARGET_FILE_SIZE = "128MB"

SORT_ORDERS: Mapping[str, str] = {
    "dicom_patient": "patient_id",
    "dicom_study": "study_date",
    "dicom_series": "study_key",
    "dicom_instance": "series_key",
    "dicom_image_plane": "instance_key",
    "dicom_ct_acquisition": "instance_key",
}
"""How the rows of each table are sorted when files are merged.

Not those of ``dicom_element``: sorted by tag, each key of an instance stands alone, and the table grows tenfold.
"""

ELEMENTS = 20
"""Rows of ``dicom_element`` to an instance."""

ROWS_PER_FILE: Mapping[str, int] = {
    "dicom_patient": OBJECTS_PER_BATCH // 40,
    "dicom_study": OBJECTS_PER_BATCH // 18,
    "dicom_series": OBJECTS_PER_BATCH // 15,
    "dicom_instance": OBJECTS_PER_BATCH,
    "dicom_image_plane": OBJECTS_PER_BATCH,
    "dicom_ct_acquisition": OBJECTS_PER_BATCH,
    "dicom_element": OBJECTS_PER_BATCH * ELEMENTS,
}
"""About what a batch leaves."""


# Filling


OBJECTS = """
CREATE OR REPLACE TEMP TABLE object AS
WITH slot AS (
    -- 250 images: one CT study of three series, one MR study of five, or 125 pairs of radiographs.
    SELECT i, i // 250 AS slot, i % 250 AS place, hash(i // 250) % 10 AS kind
    FROM range($first, $first + $count) AS numbers(i)
), study AS (
    SELECT *, CASE WHEN kind < 6 THEN 'CT' WHEN kind < 9 THEN 'MR' ELSE 'DX' END AS modality,
        slot * 125 + CASE WHEN kind = 9 THEN place // 2 ELSE 0 END AS study,
        CASE WHEN kind < 6 THEN place // 84 WHEN kind < 9 THEN place // 50 ELSE 0 END AS series
    FROM slot
)
SELECT i, modality, series, md5('i' || i) AS instance_key, md5('s' || study || '.' || series) AS series_key,
    md5('t' || study) AS study_key, hash(study) % ($instances // 40 + 1) AS patient,
    md5('p' || patient) AS patient_key,
    '1.2.826.0.1.1.' || i AS sop_instance_uid, '1.2.826.0.1.2.' || study || '.' || series AS series_instance_uid,
    '1.2.826.0.1.3.' || study AS study_instance_uid,
    DATE '2023-11-01' + (1000 * i // $instances)::INTEGER
        - CASE WHEN hash(study) % 20 = 0 THEN (hash(study) % 2000)::INTEGER ELSE 0 END AS study_date,
    ['B31f', 'B60f', 'H40s', 'B70f', 'Br40'][1 + (hash(study) % 5)::INTEGER] AS kernel,
    [0.6, 1.0, 1.25, 2.0, 3.0, 5.0][1 + (hash(study + series) % 6)::INTEGER] AS thickness,
    CASE WHEN hash(study * 7 + series) % 5000 = 0 THEN 'Rare protocol' ELSE modality || ' routine '
        || hash(study + series) % 40 END AS protocol,
    ['Siemens', 'GE', 'Philips', 'Canon'][1 + (hash(study) % 4)::INTEGER] AS manufacturer,
    printf('2026-01-01.%05d', i // 5000) AS arrival_batch,
    '2/' || arrival_batch || '/20260101T000000.000000/' || instance_key AS row_version
FROM study
"""

ROWS: Mapping[str, str] = {
    "dicom_patient": """SELECT md5('p' || p) AS patient_key, 'site' AS patient_domain, 'PID' || p AS patient_id,
            'Name' || p || '^Given' AS patient_name, ['M', 'F'][1 + p % 2] AS patient_sex,
            printf('2026-01-01.%05d', p // 125) AS arrival_batch, '2/' || arrival_batch AS row_version
        FROM range($first // 40 + ($first > 0)::INTEGER, ($first + $count) // 40 + 1) AS numbers(p)""",
    "dicom_study": """SELECT study_key, any_value(patient_key) AS patient_key,
            any_value(study_instance_uid) AS study_instance_uid, 'A' || min(i) AS accession_number,
            any_value(study_date) AS study_date, any_value(study_date)::TIMESTAMP AS study_datetime,
            any_value(protocol) AS study_description, [any_value(modality)] AS modalities_in_study,
            count(DISTINCT series)::INTEGER AS number_of_study_related_series,
            count(*)::INTEGER AS number_of_study_related_instances, count(*) * 525000 AS study_size_bytes,
            any_value(arrival_batch) AS arrival_batch, max(row_version) AS row_version
        FROM temp.object GROUP BY study_key""",
    "dicom_series": """SELECT series_key, any_value(study_key) AS study_key,
            any_value(series_instance_uid) AS series_instance_uid, any_value(modality) AS modality,
            any_value(series)::INTEGER AS series_number, any_value(protocol) AS series_description,
            any_value(protocol) AS protocol_name, any_value(study_date) AS series_date, 'CHEST' AS body_part_examined,
            count(*)::INTEGER AS number_of_series_related_instances, count(*) * 525000 AS series_size_bytes,
            any_value(arrival_batch) AS arrival_batch, max(row_version) AS row_version
        FROM temp.object GROUP BY series_key""",
    "dicom_instance": """SELECT instance_key, series_key, sop_instance_uid,
            '1.2.840.10008.5.1.4.1.1.2' AS sop_class_uid, '1.2.840.10008.1.2.1' AS transfer_syntax_uid,
            (i % 250)::INTEGER AS instance_number, ['ORIGINAL', 'PRIMARY'] AS image_type, 1 AS number_of_frames,
            md5('o' || i) AS object_key, md5('c' || i) || md5('d' || i) AS content_sha256, 1 AS version_no,
            'CURRENT' AS version_state, arrival_batch, row_version
        FROM temp.object""",
    "dicom_image_plane": """SELECT instance_key, 1 AS frame_number, [0.7, 0.7] AS pixel_spacing,
            thickness AS slice_thickness, [-160.5, -170.25, thickness * (i % 250)] AS image_position_patient,
            [1.0, 0, 0, 0, 1, 0] AS image_orientation_patient, thickness * (i % 250) AS slice_position_mm,
            arrival_batch, row_version
        FROM temp.object""",
    "dicom_ct_acquisition": """SELECT instance_key, 0 AS frame_number, 120.0 AS kvp, [kernel] AS convolution_kernel,
            100.0 + i % 250 AS x_ray_tube_current, 7.5 AS ctdi_vol, arrival_batch, row_version
        FROM temp.object WHERE modality = 'CT'""",
    "dicom_element": """SELECT instance_key, element.tag AS element_path, element.tag AS tag_hex,
            ('0x' || element.tag[:4])::INTEGER AS tag_group, ('0x' || element.tag[5:])::INTEGER AS tag_element,
            element.vr AS vr, 1 AS vm, element.value AS value_string,
            CASE WHEN element.vr IN ('DS', 'IS', 'US') THEN try_cast(element.value AS DOUBLE) END AS value_number,
            element.tag[4] IN ('1', '3', '5', '7', '9') AS is_private, false AS is_empty, true AS is_valid,
            arrival_batch, row_version
        FROM (SELECT instance_key, arrival_batch, row_version, unnest([
            {{tag: '00080008', vr: 'CS', value: 'ORIGINAL'}},
            {{tag: '00080016', vr: 'UI', value: '1.2.840.10008.5.1.4.1.1.2'}},
            {{tag: '00080018', vr: 'UI', value: sop_instance_uid}},
            {{tag: '00080020', vr: 'DA', value: study_date::VARCHAR}}, {{tag: '00080060', vr: 'CS', value: modality}},
            {{tag: '00080070', vr: 'LO', value: manufacturer}}, {{tag: '00081030', vr: 'LO', value: protocol}},
            {{tag: '0008103E', vr: 'LO', value: protocol || ' ' || series}},
            {{tag: '00091001', vr: 'LO', value: md5('v' || i % 1000)}},
            {{tag: '00100010', vr: 'PN', value: 'Name' || patient || '^Given'}},
            {{tag: '00100020', vr: 'LO', value: 'PID' || patient}},
            {{tag: '00180050', vr: 'DS', value: thickness::VARCHAR}},
            {{tag: '00180060', vr: 'DS', value: '120'}}, {{tag: '00181030', vr: 'LO', value: protocol}},
            {{tag: '00181210', vr: 'SH', value: kernel}}, {{tag: '0020000D', vr: 'UI', value: study_instance_uid}},
            {{tag: '0020000E', vr: 'UI', value: series_instance_uid}},
            {{tag: '00200013', vr: 'IS', value: (i % 250)::VARCHAR}},
            {{tag: '00200032', vr: 'DS', value: '-160.5\\-170.25\\' || thickness * (i % 250)}},
            {{tag: '00281050', vr: 'DS', value: (i % 97)::VARCHAR}}
        ]) AS element FROM temp.object)""".replace("{{", "{").replace("}}", "}"),
}  # fmt: skip
"""Rows of a batch, table by table, from ``temp.object``."""


def fill(lake: Lake, instances: int, *, has_elements: bool) -> None:
    tables = [name for name in ROWS if has_elements or name != "dicom_element"]
    _set_file_sizes(lake, "1KB", ROWS_PER_FILE)  # a file is full after its first row group
    for first in range(0, instances, OBJECTS_PER_INSERT):
        values = {"first": first, "count": min(OBJECTS_PER_INSERT, instances - first), "instances": instances}
        with lake.transaction():
            _run(lake.connection, OBJECTS, values)
            for name in tables:
                rows = f"SELECT *, TIMESTAMP '2026-01-01' AS _loaded_at FROM ({ROWS[name]})"
                _run(lake.connection, f"INSERT INTO silver.{name} BY NAME {rows}", values)


def _set_file_sizes(lake: Lake, file_size: str, row_group_sizes: Mapping[str, int]) -> None:
    option = f"CALL {lake.name}.set_option"
    lake.connection.execute(f"{option}('target_file_size', '{file_size}')")
    for name, rows in row_group_sizes.items():
        lake.connection.execute(
            f"{option}('parquet_row_group_size', '{rows}', schema => 'silver', table_name => '{name}')"
        )


def _run(connection: duckdb.DuckDBPyConnection, sql: str, values: Mapping[str, int]) -> None:
    connection.execute(sql, {name: value for name, value in values.items() if f"${name}" in sql})


def compact(lake: Lake) -> None:
    """Merge neighbouring files, their rows sorted; nothing a query answers changes."""
    run = lake.connection.execute
    _set_file_sizes(lake, TARGET_FILE_SIZE, dict.fromkeys(ROWS, 122_880))  # DuckDB's own
    for name in ROWS:
        if order := SORT_ORDERS.get(name):
            run(f"ALTER TABLE {lake.name}.silver.{name} SET SORTED BY ({order})")
        run(f"CALL ducklake_merge_adjacent_files('{lake.name}', '{name}', schema => 'silver')")
    run(f"CALL ducklake_cleanup_old_files('{lake.name}', cleanup_all => true)")


# Asking


QUERIES: Mapping[str, str] = {
    "study_list": """SELECT patient_id, study_date, study_description, number_of_instances FROM silver.study_list
        WHERE study_date BETWEEN DATE '2024-09-01' AND DATE '2024-09-07' AND list_contains(modalities_in_study, 'CT')
        ORDER BY study_date DESC, study_key LIMIT 100""",
    "patient": """SELECT study_date, modality, series_number, instance_number, sop_instance_uid
        FROM silver.dicom_patient JOIN silver.dicom_study USING (patient_key) JOIN silver.dicom_series USING (study_key)
        JOIN silver.dicom_instance USING (series_key)
        WHERE patient_id = 'PID7' AND version_state <> 'DELETED' ORDER BY ALL""",
    "thin_series": """SELECT series_key, min(slice_thickness) AS thickness, count(*) AS images
        FROM silver.dicom_instance JOIN silver.dicom_image_plane USING (instance_key)
        JOIN silver.dicom_ct_acquisition AS ct USING (instance_key)
        WHERE slice_thickness < 1.5 AND list_contains(convolution_kernel, 'B60f') AND version_state <> 'DELETED'
        GROUP BY series_key ORDER BY series_key""",
    "element_rare": """SELECT instance_key FROM silver.dicom_element
        WHERE tag_hex = '00181030' AND value_string = 'Rare protocol' ORDER BY instance_key""",
    "element_common": """SELECT count(*) FROM silver.dicom_element
        WHERE tag_hex = '00080060' AND value_string = 'CT'""",
    "element_number": """SELECT count(DISTINCT instance_key) FROM silver.dicom_element
        WHERE tag_hex = '00180050' AND value_number < 0.9""",
    "element_of_instance": """SELECT tag_hex, value_string FROM silver.dicom_element
        WHERE instance_key = md5('i42') ORDER BY tag_hex""",
    "daily_metrics": "SELECT * FROM silver.daily_metrics ORDER BY study_date, modality",
    "modality_summary": "SELECT * FROM silver.modality_summary ORDER BY modality",
}


@dataclass(frozen=True)
class Answer:
    """What a query took: median of the rounds, after one that does not count; and what its plan read."""

    wall_seconds: float
    cpu_seconds: float
    rows: list[tuple[object, ...]]
    scans: list[str]


def ask(lake: Lake, sql: str) -> Answer:
    walls, cpus = [], []
    rows = lake.rows(sql)
    for _ in range(ROUNDS):
        wall, cpu = time.perf_counter(), time.process_time()
        rows = lake.rows(sql)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    ((_, plan),) = lake.connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}").fetchall()
    return Answer(statistics.median(walls), statistics.median(cpus), rows, list(scans(json.loads(str(plan)))))


def scans(plan: Any) -> Iterator[str]:
    """The tables a plan reads: how many files, and the rows that its filters let pass."""
    info = plan.get("extra_info") or {}
    if "SCAN" in plan.get("operator_type", "") and "Total Files Read" in info:
        table = str(info.get("Table", "?")).rpartition(".")[2]
        yield f"{table}: {info['Total Files Read']} files, {plan['operator_cardinality']:,} rows"
    for child in plan.get("children", ()):
        yield from scans(child)


def ask_all(lake: Lake, state: str, *, has_elements: bool) -> dict[str, Answer]:
    answers = {}
    for name, sql in QUERIES.items():
        if has_elements or "dicom_element" not in sql:
            answers[name] = answer = ask(lake, sql)
            print(f"{state:>9} {name:20} {answer.wall_seconds:7.3f} s, {answer.cpu_seconds:7.3f} s CPU, "
                  f"{len(answer.rows):>7,} rows; {'; '.join(answer.scans)}", flush=True)  # fmt: skip
    return answers


def files_of(lake: Lake) -> dict[str, tuple[int, int]]:
    """Files and bytes of the tables that have any."""
    rows = lake.connection.execute(
        f"SELECT table_name, file_count, file_size_bytes FROM ducklake_table_info('{lake.name}')"
    )
    return {name: (count, size) for name, count, size in rows.fetchall() if count}


def measure(folder: Path, instances: int, threads: int, *, has_elements: bool) -> dict[str, float]:
    figures: dict[str, float] = {"instances": instances}
    location = LakeLocation("identified", f"sqlite:{folder / 'catalog.sqlite'}", str(folder / "data"))
    with duckdb.connect(config={"threads": threads}) as connection:
        lake = attach(connection, location)
        start = time.perf_counter()
        fill(lake, instances, has_elements=has_elements)
        figures["fill_seconds"] = time.perf_counter() - start
        print(f"filled in {figures['fill_seconds']:.0f} s: {files_of(lake)}", flush=True)
    answers: dict[str, dict[str, Answer]] = {}
    for state in ("loaded", "compacted"):
        with duckdb.connect(config={"threads": threads}) as connection:
            lake = attach(connection, location)
            if state == "compacted":
                start, cpu = time.perf_counter(), time.process_time()
                compact(lake)
                figures["compact_seconds"] = time.perf_counter() - start
                figures["compact_cpu_seconds"] = time.process_time() - cpu
                print(f"compacted in {figures['compact_seconds']:.0f} s: {files_of(lake)}", flush=True)
            sizes = files_of(lake)
            figures[f"files_{state}"] = sum(count for count, _ in sizes.values())
            figures[f"megabytes_{state}"] = sum(size for _, size in sizes.values()) / 1e6
            answers[state] = ask_all(lake, state, has_elements=has_elements)
        for name, answer in answers[state].items():
            figures[f"{name}_{state}_seconds"] = answer.wall_seconds
            figures[f"{name}_{state}_cpu_seconds"] = answer.cpu_seconds
    for name, answer in answers["loaded"].items():
        assert answer.rows, name
        assert answers["compacted"][name].rows == answer.rows, name
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--no-elements", action="store_true", help="leave dicom_element empty")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="put the lake here and leave it")
    arguments = parser.parse_args()
    if arguments.instances < FEWEST_INSTANCES:
        parser.error(f"with less than {FEWEST_INSTANCES:,} instances some queries find nothing")
    with nullcontext(arguments.keep) if arguments.keep else tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments.instances, arguments.threads, has_elements=not arguments.no_elements)
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))


if __name__ == "__main__":
    main()
