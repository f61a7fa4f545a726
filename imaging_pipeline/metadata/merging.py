"""Writing entity rows: each row is made from the object that the instances in the lake say it is made from.

An instance is made from one object. A series, study, patient or device is made from the object with the greatest
``row_version`` among those its instances are made from, and goes with the last of them. So the rows follow from the
locations alone: batches may be written in any order, and again, and an object taken back leaves what the others say.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.registry import LOADED_AT
from imaging_pipeline.lake.store import Lake

ENTITY_TABLES = tuple(table.name for table in registry.tables_of("silver") if table.made_from not in ("", "view"))
"""Tables made from headers."""

_LOCATION = "dicom_file_location"

INSTANCE_TABLES = tuple(
    name for name in ENTITY_TABLES if registry.table(name).key[0] == "instance_key" and name != _LOCATION
)
"""Tables whose rows belong to one instance."""

DRIVERS: Mapping[str, tuple[str, ...]] = {
    "dicom_series": ("series_key",),
    "dicom_study": ("study_key",),
    "dicom_patient": ("patient_key",),
    "dicom_equipment": ("equipment_key",),
    "series_equipment": ("series_key", "equipment_key"),
}
"""Tables whose rows several instances share, and their key among the columns of ``dicom_file_location``."""

SHARED_TABLES: Mapping[str, tuple[str, ...]] = {
    driver: (
        driver,
        *(
            name
            for name in ENTITY_TABLES
            if name not in (_LOCATION, *DRIVERS)
            and registry.table(name).key[0] == registry.table(driver).key[0]
            and driver != "series_equipment"
        ),
    )
    for driver in DRIVERS
}
"""Those tables, each with the tables whose rows come and go with its rows: made from the same object."""

Tables = Mapping[str, pa.Table]
"""Candidate rows by table name."""

ReadAgain = Callable[[Sequence[str]], Tables]
"""Projects the stored headers of some objects, by their keys."""


def note_touched(lake: Lake, schema: str, batch_id: str, uid_keys: pa.ChunkedArray) -> None:
    """Remember what a batch is about, before its locations change: its UIDs, those it had, and all they hang on.

    Leaves ``temp.touched_uids`` and ``temp.before``; call inside the transaction that writes the batch.
    """
    lake.connection.register("new_uids", pa.table({"uid_key": uid_keys}))
    try:
        lake.connection.execute(_TOUCHED.format(schema=schema), [batch_id])
    finally:
        lake.connection.unregister("new_uids")
    lake.connection.execute(_BEFORE.format(schema=schema))


def write_entities(lake: Lake, schema: str, batch_id: str, tables: Tables, read_again: ReadAgain) -> None:
    """Bring the rows of the touched UIDs, and of what they belong to, in line with ``temp.wanted``.

    Args:
        lake: the lake; inside a transaction whose locations are written.
        schema: ``silver`` or ``deid``.
        batch_id: the batch; its rows are written anew.
        tables: candidate rows of the batch's objects.
        read_again: gives those of other objects that a row must now be made from.
    """
    lake.connection.execute(_DUE.format(schema=schema), [batch_id])
    lake.connection.execute(_STALE.format(schema=schema))
    tables = _with_others(lake, tables, {"dicom_instance": "temp.due"}, schema, read_again)
    places = lake.written_tables()
    written = {name for name in ENTITY_TABLES if f"{schema}.{name}" in places}
    _delete_stale(lake, schema, written)
    for name in INSTANCE_TABLES:
        _insert(lake, schema, name, tables, "temp.due", "* REPLACE (chosen.instance_key AS instance_key)", ())
    lake.connection.execute(_UPDATE_INSTANCES.format(schema=schema))
    for driver, key in DRIVERS.items():
        lake.connection.execute(_shared_sql(_WANTED_PARENTS, schema, driver, driver, key))
        for name in (name for name in reversed(SHARED_TABLES[driver]) if name in written):
            lake.connection.execute(_shared_sql(_DELETE_PARENTS, schema, name, driver, key), [batch_id])
        lake.connection.execute(_shared_sql(_MISSING_PARENTS, schema, driver, driver, key))
    missing = {driver: f"temp.missing_{driver}" for driver in DRIVERS}
    tables = _with_others(lake, tables, missing, schema, read_again)
    for driver, key in DRIVERS.items():
        for name in SHARED_TABLES[driver]:
            _insert(lake, schema, name, tables, missing[driver], "*", key)
    for counts in (_SERIES_COUNTS, _STUDY_COUNTS):
        lake.connection.execute(counts.format(schema=schema))


def _delete_stale(lake: Lake, schema: str, written: Collection[str]) -> None:
    """Delete the rows of instances that are gone, or are made anew; their batches tell the files they are in."""
    batches = lake.connection.execute("SELECT DISTINCT arrival_batch FROM temp.stale").fetchall()
    if not batches:
        return
    places = ", ".join("?" * len(batches))
    for name in (name for name in INSTANCE_TABLES if name in written):
        lake.connection.execute(
            f"""DELETE FROM {schema}.{name} WHERE arrival_batch IN ({places})
            AND instance_key IN (SELECT instance_key FROM temp.stale)""",
            [batch for (batch,) in batches],
        )


def _with_others(lake: Lake, tables: Tables, chosen: Mapping[str, str], schema: str, read_again: ReadAgain) -> Tables:
    """The candidates, and those of chosen objects that are not among them.

    Args:
        lake: the lake.
        tables: the candidates.
        chosen: for some tables, the table with the ``row_version`` of the objects their rows must come from.
        schema: ``silver`` or ``deid``.
        read_again: see :func:`write_entities`.
    """
    wanted: set[str] = set()
    for name, source in chosen.items():
        versions = {version for (version,) in lake.connection.execute(f"SELECT row_version FROM {source}").fetchall()}
        wanted |= versions - set(tables[name]["row_version"].to_pylist())
    if not wanted:
        return tables
    rows = lake.connection.execute(
        f"SELECT object_key FROM {schema}.{_LOCATION} WHERE row_version IN (SELECT unnest(?)) ORDER BY object_key",
        [sorted(wanted)],
    ).fetchall()
    others = read_again([key for (key,) in rows])
    found = dict(tables)
    for driver in ("dicom_instance", *DRIVERS):
        known = pa.array(tables[driver]["row_version"].to_pylist(), pa.string())
        for name in SHARED_TABLES.get(driver, INSTANCE_TABLES):
            is_new = pc.invert(pc.is_in(others[name]["row_version"], value_set=known))
            found[name] = pa.concat_tables([tables[name], others[name].filter(is_new)])
    return found


def _insert(
    lake: Lake, schema: str, name: str, tables: Tables, chosen: str, columns: str, key: tuple[str, ...]
) -> None:
    if not tables[name].num_rows:
        return
    lake.connection.register("candidates", tables[name])
    same = " AND ".join(f"candidate.{column} = chosen.{column}" for column in ("row_version", *key))
    try:
        lake.connection.execute(
            f"""INSERT INTO {schema}.{name} BY NAME SELECT candidate.{columns}, {_NOW}
            FROM candidates AS candidate JOIN {chosen} AS chosen ON {same}"""
        )
    finally:
        lake.connection.unregister("candidates")


def _shared_sql(template: str, schema: str, name: str, driver: str, key: tuple[str, ...]) -> str:
    """SQL about one of the shared tables; rows are touched by the first column of their key."""
    return template.format(
        schema=schema,
        table=name,
        driver=driver,
        first=key[0],
        key=", ".join(key),
        location_key=", ".join(f"location.{column}" for column in key),
        same=" AND ".join(f"entity.{column} = wanted.{column}" for column in key),
    )


_NOW = f"now()::TIMESTAMPTZ AT TIME ZONE 'UTC' AS {LOADED_AT}"

_TOUCHED = """
CREATE OR REPLACE TEMP TABLE touched_uids AS
SELECT uid_key FROM {schema}.dicom_file_location WHERE arrival_batch = ? UNION SELECT uid_key FROM new_uids
"""

_BEFORE = """
CREATE OR REPLACE TEMP TABLE before AS
SELECT instance_key, series_key, study_key, patient_key, equipment_key FROM {schema}.dicom_file_location
WHERE uid_key IN (SELECT uid_key FROM temp.touched_uids)
"""

_DUE = """
CREATE OR REPLACE TEMP TABLE due AS
SELECT * FROM temp.wanted AS wanted
WHERE arrival_batch = ? OR NOT EXISTS (
    SELECT 1 FROM {schema}.dicom_instance AS instance
    WHERE instance.instance_key = wanted.instance_key AND instance.row_version = wanted.row_version)
"""

_STALE = """
CREATE OR REPLACE TEMP TABLE stale AS
SELECT instance_key, arrival_batch FROM {schema}.dicom_instance WHERE instance_key IN (
    (SELECT instance_key FROM temp.before UNION SELECT instance_key FROM temp.wanted)
    EXCEPT (SELECT instance_key FROM temp.wanted EXCEPT SELECT instance_key FROM temp.due))
"""

_UPDATE_INSTANCES = """
UPDATE {schema}.dicom_instance AS instance SET version_no = wanted.version_no, version_state = wanted.version_state
FROM temp.wanted AS wanted
WHERE instance.instance_key = wanted.instance_key
    AND (instance.version_no, instance.version_state) IS DISTINCT FROM (wanted.version_no, wanted.version_state)
"""

_TOUCHED_PARENTS = """
    SELECT {first} FROM temp.before
    UNION SELECT {first} FROM {schema}.dicom_file_location
    WHERE uid_key IN (SELECT uid_key FROM temp.touched_uids)
"""

_WANTED_PARENTS = f"""
CREATE OR REPLACE TEMP TABLE wanted_{{table}} AS
SELECT {{location_key}}, max(location.row_version) AS row_version
FROM {{schema}}.dicom_file_location AS location
JOIN {{schema}}.dicom_instance AS instance USING (instance_key, object_key)
WHERE location.{{first}} IN ({_TOUCHED_PARENTS}) GROUP BY ALL
"""

_DELETE_PARENTS = f"""
DELETE FROM {{schema}}.{{table}} AS entity
WHERE {{first}} IN ({_TOUCHED_PARENTS}) AND (arrival_batch = ? OR NOT EXISTS (
    SELECT 1 FROM temp.wanted_{{driver}} AS wanted WHERE {{same}} AND entity.row_version = wanted.row_version))
"""

_MISSING_PARENTS = """
CREATE OR REPLACE TEMP TABLE missing_{table} AS
SELECT * FROM temp.wanted_{table} AS wanted
WHERE NOT EXISTS (SELECT 1 FROM {schema}.{table} AS entity WHERE {same})
"""

_SERIES_COUNTS = f"""
UPDATE {{schema}}.dicom_series AS series SET
    number_of_series_related_instances = counts.instances,
    series_size_bytes = counts.bytes,
    transfer_syntax_uids = counts.transfer_syntaxes,
    sop_class_uids = counts.sop_classes
FROM (
    SELECT touched.series_key, count(instance.instance_key)::INTEGER AS instances,
        coalesce(sum(file_size_bytes), 0)::BIGINT AS bytes,
        list_sort(list(DISTINCT instance.transfer_syntax_uid)) AS transfer_syntaxes,
        list_sort(list(DISTINCT sop_class_uid)) AS sop_classes
    FROM ({_TOUCHED_PARENTS.replace("{first}", "series_key")}) AS touched
    LEFT JOIN {{schema}}.dicom_instance AS instance
        ON instance.series_key = touched.series_key AND version_state <> 'DELETED'
    LEFT JOIN {{schema}}.dicom_file_location AS location
        ON location.instance_key = instance.instance_key AND location.object_key = instance.object_key
    GROUP BY ALL
) AS counts
WHERE series.series_key = counts.series_key
"""

_STUDY_COUNTS = f"""
UPDATE {{schema}}.dicom_study AS study SET
    number_of_study_related_series = counts.series,
    number_of_study_related_instances = counts.instances,
    study_size_bytes = counts.bytes,
    modalities_in_study = counts.modalities,
    sop_classes_in_study = counts.sop_classes
FROM (
    SELECT study_key, count(*) FILTER (number_of_series_related_instances > 0)::INTEGER AS series,
        sum(number_of_series_related_instances)::INTEGER AS instances,
        sum(series_size_bytes)::BIGINT AS bytes,
        list_sort(list(DISTINCT modality) FILTER (modality IS NOT NULL AND number_of_series_related_instances > 0))
            AS modalities,
        list_sort(list_distinct(flatten(list(sop_class_uids)))) AS sop_classes
    FROM {{schema}}.dicom_series
    WHERE study_key IN ({_TOUCHED_PARENTS.replace("{first}", "study_key")})
    GROUP BY study_key
) AS counts
WHERE study.study_key = counts.study_key
"""
