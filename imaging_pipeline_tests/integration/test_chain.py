from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import duckdb
import pydicom
import pytest

from imaging_pipeline.samples.landing import new_study
from imaging_pipeline_tests.integration import chain

UNEXPLAINED = """
SELECT count(*) AS n FROM identified.bronze.object_catalog AS object
WHERE NOT EXISTS (SELECT 1 FROM identified.silver.dicom_file_location AS l WHERE l.object_key = object.object_key)
AND NOT EXISTS (SELECT 1 FROM identified.bronze.ingest_issue AS i WHERE i.object_key = object.object_key)
"""
"""Objects that are neither placed as an instance nor have an issue."""


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chain.small_landing(tmp_path_factory.mktemp("in") / "landing")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, landing: Path) -> Path:
    """A home in which the landing folder was taken in once, undisturbed."""
    home = tmp_path_factory.mktemp("home")
    status, output = chain.run(home, landing, "ingest", str(landing))
    assert status == 0, output
    return home


def test_every_object_is_accounted_for(home: Path, landing: Path) -> None:
    files = sum(path.is_file() for path in landing.rglob("*"))
    rows = chain.query(
        home, landing, "SELECT parse_status, parent_uri IS NULL AS is_file FROM identified.bronze.object_catalog"
    )
    assert sum(bool(row["is_file"]) for row in rows) == files
    silent = chain.query(
        home,
        landing,
        UNEXPLAINED,
    )
    assert silent == [{"n": 0}]


def test_every_instance_is_released_or_held_with_a_reason(home: Path, landing: Path) -> None:
    (counts,) = chain.query(
        home,
        landing,
        """SELECT (SELECT count(*) FROM identified.silver.dicom_instance) AS instances,
            (SELECT count(*) FROM research.deid.dicom_instance) AS released,
            (SELECT count(DISTINCT object_key) FROM identified.bronze.ingest_issue WHERE stage = 'DEID') AS held""",
    )
    assert counts["instances"] == int(str(counts["released"])) + int(str(counts["held"]))
    assert int(str(counts["released"])) > 50


def test_every_phantom_becomes_a_tensor(home: Path, landing: Path) -> None:
    with (landing / "stage_2_train_labels.csv").open(newline="") as stream:
        labelled = {row["patientId"] for row in csv.DictReader(stream)}
    stems = chain.query(
        home,
        landing,
        r"""SELECT regexp_extract(storage_uri, '([^/!]+)\.dcm$', 1) AS stem, sop_instance_uid
        FROM identified.silver.dicom_file_location JOIN identified.silver.dicom_instance USING (instance_key)""",
    )
    known = {str(row["stem"]) for row in stems}
    assert labelled <= known
    (tensors,) = chain.query(home, landing, "SELECT count(*) AS n FROM research.gold.image_tensor")
    assert int(str(tensors["n"])) >= len(labelled)


def test_no_identifier_of_any_source_file_is_in_any_released_byte_or_research_table(home: Path, landing: Path) -> None:
    identifiers = set()
    for row in chain.query(
        home,
        landing,
        """SELECT patient_name, patient_id, accession_number, study_instance_uid, institution_name, institution_address,
            referring_physician_name, sop_instance_uid, series_instance_uid
        FROM identified.silver.dicom_instance JOIN identified.silver.dicom_series USING (series_key)
        JOIN identified.silver.dicom_study USING (study_key) JOIN identified.silver.dicom_patient USING (patient_key)
        LEFT JOIN identified.silver.series_equipment USING (series_key)
        LEFT JOIN identified.silver.dicom_equipment USING (equipment_key)""",
    ):
        identifiers |= {str(value) for value in row.values() if value and len(str(value)) >= 8}
    makers = chain.query(home, landing, "SELECT DISTINCT manufacturer FROM identified.silver.dicom_equipment")
    identifiers -= {str(row["manufacturer"]) for row in makers}  # kept on purpose; one file names it as institution
    assert len(identifiers) > 100
    released = chain.released_files(home)
    assert released
    research = b"\0".join(released.values())
    tables = "\n".join(
        str(rows) for name, rows in chain.contents(home, landing).items() if name[:4] in ("deid", "gold")
    )
    for folder in ("lake", "tensors"):
        files = [path for path in (home / "research" / folder).rglob("*") if path.is_file()]
        # Parquet by its values, also of rows that are deleted: its packed numbers spell 12345678 by themselves.
        research += b"\0".join(path.read_bytes() for path in files if path.suffix != ".parquet")
        tables += "\n".join(str(duckdb.read_parquet(str(f)).fetchall()) for f in files if f.suffix == ".parquet")
    names = "\n".join(str(path) for path in (home / "research").rglob("*"))
    leaked = [
        kind
        for kind in identifiers
        if kind in tables or kind in names or any(kind.encode(e, "replace") in research for e in ("utf-8", "latin-1"))
    ]
    assert not leaked, f"{len(leaked)} identifiers survived"


def test_nothing_is_said_of_a_patient_in_the_dagster_instance(home: Path, landing: Path) -> None:
    events = b"".join(path.read_bytes() for path in (home / "dagster").rglob("*") if path.is_file())
    assert len(events) > 100_000
    rows = chain.query(home, landing, "SELECT DISTINCT patient_name, patient_id FROM identified.silver.dicom_patient")
    identifiers = {str(value) for row in rows for value in row.values() if value and len(str(value)) >= 6}
    assert not [1 for value in identifiers if value.encode() in events]


def test_released_files_are_readable_and_keep_their_pixels(home: Path, landing: Path) -> None:
    pairs = chain.query(
        home,
        landing,
        """SELECT storage_uri, rows.image_rows AS height FROM research.deid.dicom_file_location
        JOIN research.deid.dicom_image_pixel AS rows USING (instance_key)
        JOIN research.deid.dicom_instance USING (instance_key) WHERE has_pixel ORDER BY storage_uri LIMIT 40""",
    )
    for pair in pairs:
        ds = pydicom.dcmread(str(pair["storage_uri"]).removeprefix("file://"))
        assert ds.PatientIdentityRemoved == "YES"
        assert ds.Rows == pair["height"]
        assert "PixelData" in ds


def test_taking_it_in_again_parses_nothing(home: Path, landing: Path) -> None:
    before = chain.contents(home, landing)
    status, output = chain.run(home, landing, "ingest", str(landing))
    assert status == 0, output
    assert "nothing new" in output
    assert output.rstrip().endswith("seen 0 = parsed 0 + failed 0 + skipped 0")
    assert chain.contents(home, landing) == before


def is_parsing(home: Path) -> bool:
    return (home / "identified" / "lake" / "catalog.sqlite").exists()


def is_releasing(home: Path) -> bool:
    return any((home / "research" / "files").rglob("*.dcm"))


def is_making_tensors(home: Path) -> bool:
    return any((home / "research" / "tensors").rglob(".*"))


@pytest.mark.parametrize(
    "moment",
    [
        is_parsing,
        pytest.param(is_releasing, marks=pytest.mark.slow),  # test_bucket kills while releasing, too
        pytest.param(is_making_tensors, marks=pytest.mark.slow),
    ],
    ids=lambda f: f.__name__,
)
def test_a_run_killed_in_the_middle_and_run_again_leaves_the_same_tables_and_files(
    home: Path, landing: Path, tmp_path: Path, moment: object
) -> None:
    assert callable(moment)
    chain.run_and_kill(tmp_path, landing, "ingest", str(landing), when=lambda: moment(tmp_path))
    status, output = chain.run(tmp_path, landing, "ingest", str(landing))
    assert status == 0, output
    undisturbed = chain.contents(home, landing)
    again = chain.contents(tmp_path, landing)
    assert {name: len(rows) for name, rows in again.items()} == {name: len(rows) for name, rows in undisturbed.items()}
    assert again == undisturbed
    partial = [name for name in chain.released_files(tmp_path) if "/." in name]
    files = {name: data for name, data in chain.released_files(tmp_path).items() if name not in partial}
    assert files == chain.released_files(home)


def test_a_new_file_is_taken_in_alone(home: Path, landing: Path, tmp_path: Path) -> None:
    new_study(tmp_path / "more", seed=5, size=96)
    status, output = chain.run(home, landing, "ingest", str(tmp_path / "more"))
    assert status == 0, output
    assert output.rstrip().endswith("seen 1 = parsed 1 + failed 0 + skipped 0")


@pytest.mark.slow
def test_all_files_of_pydicom_go_through(tmp_path: Path) -> None:
    landing = chain.pydicom_landing(tmp_path / "landing")
    status, output = chain.run(tmp_path / "home", landing, "ingest", str(landing))
    assert status == 0, output
    rows = chain.query(tmp_path / "home", landing, "SELECT parse_status FROM identified.bronze.object_catalog")
    found = Counter(str(row["parse_status"]) for row in rows)
    assert sum(found.values()) == sum(path.is_file() for path in landing.rglob("*"))
    assert found["PARSED"] > 100
    last = output.rstrip().splitlines()[-1]
    assert last == (
        f"seen {sum(found.values())} = parsed {found['PARSED'] + found['PARSED_WITH_ISSUES']} "
        f"+ failed {found['FAILED']} + skipped {found['SKIPPED']}"
    )
    unexplained = chain.query(
        tmp_path / "home",
        landing,
        UNEXPLAINED,
    )
    assert unexplained == [{"n": 0}]
