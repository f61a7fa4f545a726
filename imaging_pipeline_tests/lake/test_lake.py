from __future__ import annotations

import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.console import QueryRefused, run_query
from imaging_pipeline.lake.store import Lake, attach
from imaging_pipeline.settings import LakeLocation, Settings

SERIES = registry.table("dicom_series")


def series(key: str, batch: str, version: str) -> dict[str, object]:
    return {
        "series_key": key,
        "study_key": "study",
        "series_instance_uid": key,
        "arrival_batch": batch,
        "row_version": f"{batch}/{version}",
    }


def write(lake: Lake, batch: str, rows: list[dict[str, object]]) -> None:
    with lake.transaction():
        lake.replace_batch("silver", "dicom_series", SERIES.rows(rows), batch)


def stored(lake: Lake) -> list[tuple[object, ...]]:
    return lake.rows("SELECT series_key, row_version FROM silver.dicom_series ORDER BY 1, 2")


BATCHES = {
    "b1": [series("x", "b1", "1"), series("y", "b1", "1")],
    "b2": [series("z", "b2", "0"), series("zz", "b2", "1")],
}


def test_a_failed_transaction_leaves_nothing(identified: Lake) -> None:
    def fail_in_the_middle() -> None:
        with identified.transaction():
            identified.replace_batch("silver", "dicom_series", SERIES.rows(BATCHES["b1"]), "b1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_the_middle()
    assert stored(identified) == []
    write(identified, "b2", BATCHES["b2"])
    assert len(stored(identified)) == 2


def test_a_batch_replaces_its_own_rows_only(identified: Lake) -> None:
    table = registry.table("ingest_issue")

    def issue(key: str, batch: str) -> dict[str, object]:
        return {
            "issue_key": key,
            "object_key": key,
            "stage": "PARSE",
            "severity": "ERROR",
            "issue_code": "empty",
            "arrival_batch": batch,
        }

    for rows, batch in (([issue("a", "1")], "1"), ([issue("b", "2")], "2"), ([issue("c", "1")], "1")):
        with identified.transaction():
            identified.replace_batch("bronze", "ingest_issue", table.rows(rows), batch)
    assert identified.rows("SELECT issue_key FROM bronze.ingest_issue ORDER BY 1") == [("b",), ("c",)]


def write_many(home: str, name: str) -> None:
    from imaging_pipeline_tests.conftest import environment

    settings = Settings.from_environment(environment(Path(home)))
    with duckdb.connect() as connection:
        lake = attach(connection, settings.identified)
        for number in range(5):
            batch = f"{name}{number}"
            write(lake, batch, [series(batch, batch, "1")])


def test_processes_writing_at_once_lose_nothing(settings: Settings, identified: Lake) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(str(settings.home), name)) for name in "pqr"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    keys = [key for key, _ in stored(identified)]
    assert keys == sorted(f"{name}{number}" for name in "pqr" for number in range(5))


def test_each_lake_holds_only_its_own_schemas(identified: Lake, research: Lake) -> None:
    for lake, schemas in ((identified, {"bronze", "silver"}), (research, {"deid", "gold"})):
        found = lake.rows("SELECT DISTINCT schema_name FROM duckdb_tables() WHERE database_name = ?", [lake.name])
        assert {name for (name,) in found} == schemas


def test_a_lake_that_is_not_there_is_not_made_by_reading(settings: Settings) -> None:
    with duckdb.connect() as connection, pytest.raises(ConfigurationError, match="no research lake yet"):
        attach(connection, settings.research, read_only=True)
    assert not settings.home.exists()


def test_a_password_in_a_catalog_string_is_not_in_the_error() -> None:
    location = LakeLocation("research", "postgres:host=127.0.0.1 port=1 password=hunter2 dbname=x", "/tmp/x")
    with duckdb.connect() as connection, pytest.raises(ConfigurationError) as error:
        attach(connection, location)
    assert "hunter2" not in str(error.value)
    assert "hunter2" not in repr(location)


def test_every_table_of_the_registry_can_be_created_and_filled(identified: Lake, research: Lake) -> None:
    for schema, lake_name in registry.SCHEMA_LAKES.items():
        lake = {"identified": identified, "research": research}[lake_name]
        for table in registry.tables_of(schema):
            columns = lake.query(f"DESCRIBE {schema}.{table.name}")["column_name"].to_pylist()
            assert columns == [column.name for column in table.columns]
            assert table.key, f"{table.name} has no key"
            assert len(set(columns)) == len(columns)


def test_an_older_lake_gets_the_columns_and_views_it_lacks_and_no_snapshot_when_it_lacks_none(
    settings: Settings, identified: Lake
) -> None:
    write(identified, "b1", BATCHES["b1"])
    view = registry.table("dicom_dose_summary")
    with identified.transaction():
        identified.connection.execute("ALTER TABLE silver.dicom_series DROP COLUMN body_part_code")
        identified.connection.execute(f"CREATE OR REPLACE VIEW silver.{view.name} AS SELECT 1 AS old")
        identified.connection.execute("DROP TABLE silver.dicom_us_region")
    with duckdb.connect() as connection:
        lake = attach(connection, settings.identified)
        assert len(stored(lake)) == 2
        assert lake.rows("SELECT body_part_code FROM silver.dicom_series") == [(None,), (None,)]
        assert lake.query(f"FROM silver.{view.name}").column_names == [column.name for column in view.columns]
        assert lake.rows("SELECT * FROM silver.dicom_us_region") == []
        snapshot = lake.snapshot_id()
    with duckdb.connect() as connection:
        assert attach(connection, settings.identified).snapshot_id() == snapshot


def _open(settings: Settings, gate: Barrier) -> None:
    with duckdb.connect() as connection:
        gate.wait()
        attach(connection, settings.identified)


def test_processes_that_open_an_older_lake_at_once_do_not_stumble(settings: Settings, identified: Lake) -> None:
    with identified.transaction():
        identified.connection.execute("ALTER TABLE silver.dicom_series DROP COLUMN body_part_code")
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(3)
    processes = [context.Process(target=_open, args=(settings, gate)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]


def test_a_column_of_another_type_is_named_without_a_value(settings: Settings, identified: Lake) -> None:
    with identified.transaction():
        identified.connection.execute("ALTER TABLE silver.dicom_series DROP COLUMN series_number")
        identified.connection.execute("ALTER TABLE silver.dicom_series ADD COLUMN series_number VARCHAR")
    with (
        duckdb.connect() as connection,
        pytest.raises(ConfigurationError, match="series_number is VARCHAR in the lake"),
    ):
        attach(connection, settings.identified)


def test_a_value_that_does_not_fit_is_named_by_column_not_by_value() -> None:
    with pytest.raises(ValueError, match=r"dicom_series\.series_number") as error:
        SERIES.rows([series("a", "b", "1") | {"series_number": "Doe^John"}])
    assert "Doe" not in str(error.value)


def test_a_missing_key_or_unknown_column_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dicom_series\.series_key"):
        SERIES.rows([series("a", "b", "1") | {"series_key": None}])
    with pytest.raises(ValueError, match="no column"):
        SERIES.rows([{"nonsense": 1}])


def test_structs_and_lists_survive_the_way_into_the_lake(identified: Lake) -> None:
    code = {"code_value": "1", "coding_scheme_designator": "DCM", "coding_scheme_version": None, "code_meaning": "one"}
    row = series("a", "b", "1") | {"performed_protocol_code_sequence": [code], "sop_class_uids": ["1.2", "1.3"]}
    write(identified, "b", [row])
    found = identified.query("SELECT performed_protocol_code_sequence, sop_class_uids FROM silver.dicom_series")
    assert found.to_pylist() == [{"performed_protocol_code_sequence": [code], "sop_class_uids": ["1.2", "1.3"]}]


def test_arrow_types_of_the_registry() -> None:
    assert registry.arrow_type("TIME") == pa.time64("us")
    assert registry.arrow_type(registry.CODE_TYPE + "[]").value_type.num_fields == 4


ATTACKS = [
    "DELETE FROM deid.dicom_study",
    "INSERT INTO deid.dicom_study SELECT * FROM deid.dicom_study",
    "DROP TABLE deid.dicom_study",
    "COPY (SELECT 1) TO '/tmp/stolen.csv'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "ATTACH '/tmp/other.duckdb' AS other",
    "SELECT 1; SELECT 2",
    "SET enable_external_access = true",
    "INSTALL httpfs",
    "LOAD httpfs",
    "CALL identified.set_option('x', 'y')",
    "EXPORT DATABASE '/tmp/stolen'",
    "SELECT * FROM identified.silver.dicom_patient",
    "SELECT * FROM sqlite_scan('{home}/identified/ledger.sqlite', 'object')",
    "SELECT (SELECT max(uri) FROM sqlite_scan('{home}/identified/ledger.sqlite', 'object'))",
    "WITH x AS (FROM sqlite_query('{home}/identified/ledger.sqlite', 'SELECT 1')) FROM x",
    "DESCRIBE SELECT * FROM sqlite_scan('{home}/identified/ledger.sqlite', 'object')",
    "SELECT * FROM glob('{home}/*')",
    "SELECT * FROM query('SELECT 1')",
    "EXPLAIN ANALYZE SELECT 1",
    "",
]


@pytest.mark.parametrize("sql", ATTACKS)
def test_the_console_only_reads_what_it_was_given(
    settings: Settings, identified: Lake, research: Lake, sql: str
) -> None:
    with pytest.raises(QueryRefused):
        run_query(sql.format(home=settings.home), [settings.research])


def test_the_console_answers(settings: Settings, identified: Lake, research: Lake) -> None:
    sql = "SELECT count(*) AS n FROM research.deid.dicom_study JOIN identified.silver.dicom_study USING (study_key)"
    assert run_query(sql, [settings.research, settings.identified]).to_pylist() == [{"n": 0}]
    assert run_query("SHOW ALL TABLES", [settings.research]).num_rows > 10
    assert run_query("DESCRIBE deid.dicom_study", [settings.research]).num_rows > 10
    crosswalk = run_query("FROM vault.uid_map", [settings.research], crosswalk=[("2.25.1", "1.2.3")])
    assert crosswalk.to_pylist() == [{"research_uid": "2.25.1", "original_uid": "1.2.3"}]


def test_a_home_with_a_quote_and_spaces_in_its_name_works(tmp_path: Path) -> None:
    settings = Settings.from_environment({"IMAGING_PIPELINE_HOME": str(tmp_path / "it's a home")})
    with duckdb.connect() as connection:
        write(attach(connection, settings.identified), "b1", BATCHES["b1"])
    found = run_query("SELECT count(*) AS n FROM silver.dicom_series", [settings.identified])
    assert found.to_pylist() == [{"n": 2}]


def test_a_long_query_stops_no_writer(settings: Settings, identified: Lake) -> None:
    write(identified, "b1", BATCHES["b1"])
    with duckdb.connect() as connection:
        reader = attach(connection, settings.identified, read_only=True)
        reader.connection.execute("USE identified")
        reader.connection.execute("BEGIN")
        reader.connection.execute("SELECT * FROM silver.dicom_series").fetchone()
        write(identified, "b2", BATCHES["b2"])
        assert len(stored(identified)) == 4
        reader.connection.execute("ROLLBACK")
