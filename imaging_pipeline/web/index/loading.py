"""From the lake to the serving index: whole studies, all of them or those that the lake's snapshots say have changed.

A study is loaded as it is in the lake, whatever the index had of it: an index that follows the lake for months holds
what one made now would hold.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import duckdb
import pyarrow as pa

from imaging_pipeline.lake.store import Lake, quoted
from imaging_pipeline.objects.folder import file_version, path_to_uri, uri_to_path
from imaging_pipeline.sqlite import transaction
from imaging_pipeline.web.index.attributes import (
    REQUEST_ATTRIBUTES,
    Attribute,
    Document,
    attributes_of,
    document_of,
    dumped,
)
from imaging_pipeline.web.index.clearing import (
    SHOWN_DEVICES,
    batches_of,
    cleared_batches,
    held_studies,
    keep_cleared,
    studies_of,
)
from imaging_pipeline.web.index.file import folded, meta, set_meta
from imaging_pipeline.web.index.names import words_of
from imaging_pipeline.web.zone import Zone, ZoneName

_log = logging.getLogger(__name__)

PART_ROWS = 10_000
"""Rows held at once."""

PERSON_NAMES = ("00100010", "00080090")
"""Names that are found by their sound: patient and referring physician."""

COUNTED = (
    Attribute("00080061", "CS", "dicom_study", "modalities_in_study"),
    Attribute("00080062", "UI", "dicom_study", "sop_classes_in_study"),
    Attribute("00201206", "IS", "dicom_study", "number_of_study_related_series"),
    Attribute("00201208", "IS", "dicom_study", "number_of_study_related_instances"),
)
"""Attributes of a study that are counted and stand in no header (PS3.4 Table C.3-1)."""

NO_PATIENT_ID = "NO_PID:"
"""The lake's patient identifiers of objects that have none start with this; no header says it."""


def bring_up_to_date(connection: sqlite3.Connection, zone: Zone, lake: Lake) -> bool:
    """Load what has changed since the index was last brought up to date; in one transaction.

    Returns:
        Whether anything was loaded.
    """
    snapshot = lake.snapshot_id()  # read first: what comes later is loaded now, and once more by the next call
    with transaction(connection):
        known, known_cleared = meta(connection, "snapshot"), cleared_batches(connection)
        if known == str(snapshot) and _cleared(zone) == known_cleared:
            return False
        studies = None if known is None else _changed_studies(connection, zone, lake, int(known), snapshot)
        with lake.one_snapshot():
            lake.snapshot_id()  # from here on the rows stand still
            # Asked after that: a release takes the marks of its batch away before it writes anything.
            cleared = _cleared(zone)
            if studies is not None:
                studies |= studies_of(lake, zone.schema, cleared ^ known_cleared)
            _load(connection, zone, lake, studies, cleared)
        keep_cleared(connection, cleared)
        set_meta(connection, "snapshot", str(snapshot))
    if studies is None:
        connection.execute("PRAGMA analysis_limit = 1000")
        connection.execute("ANALYZE")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log has become as long as the file
    return studies is None or bool(studies)


def withdraw(connection: sqlite3.Connection, zone: Zone) -> bool:
    """Hide the studies of batches that have lost their marks; without the lake, which may be busy or out of reach.

    Returns:
        Whether there were any.
    """
    if zone.clearance is None:
        return False
    lost = sorted(cleared_batches(connection) - zone.clearance.batches())
    if not lost:
        return False
    with transaction(connection):
        for part in _parts(iter(lost)):
            places = ",".join("?" * len(part))
            rows = connection.execute(f"SELECT DISTINCT study_key FROM study_batch WHERE batch IN ({places})", part)
            studies = [str(key) for (key,) in rows.fetchall()]
            for keys in _parts(iter(studies)):
                _delete(connection, keys)
                connection.executemany("INSERT INTO held VALUES (?)", [(key,) for key in keys])
            connection.execute(f"DELETE FROM cleared WHERE batch IN ({places})", part)
    return True


def _cleared(zone: Zone) -> frozenset[str]:
    """The batches that may be shown now; none are told where all may be."""
    return zone.clearance.batches() if zone.clearance else frozenset()


def _changed_studies(
    connection: sqlite3.Connection, zone: Zone, lake: Lake, known: int, snapshot: int
) -> set[str] | None:
    """Keys of the studies that the snapshots after ``known`` touch; None: they cannot be told any more."""

    def changed(table: str, column: str) -> Iterator[str]:
        rows = lake.rows(
            f"""SELECT DISTINCT {column} FROM ducklake_table_changes(?, ?, ?, ?::BIGINT, ?::BIGINT)
            WHERE {column} IS NOT NULL""",
            [lake.name, zone.schema, table, known + 1, snapshot],
        )
        return (str(key) for (key,) in rows)

    if known > snapshot:
        return None  # the lake was made anew
    if known == snapshot:
        return set()
    try:
        studies = {*changed("dicom_file_location", "study_key"), *changed("dicom_study", "study_key")}
        # An object may say that it belongs to another study than the rest of its series.
        series = list(changed("dicom_file_location", "series_key"))
        studies.update(
            str(key)
            for (key,) in lake.rows(
                f"SELECT DISTINCT study_key FROM {zone.schema}.dicom_series WHERE series_key IN (SELECT unnest(?))",
                [series],
            )
        )
        patients = list(changed("dicom_patient", "patient_key"))
    except duckdb.Error as error:
        _log.info("the serving index is made again: the lake's changes are gone (%s)", type(error).__name__)
        return None
    # Both ask: the lake knows studies that are held, the index those that are another patient's by now.
    sql = f"SELECT study_key FROM {zone.schema}.dicom_study WHERE patient_key IN (SELECT unnest(?::VARCHAR[]))"
    studies.update(str(key) for (key,) in lake.rows(sql, [patients]))
    for part in _parts(iter(patients)):
        places = ",".join("?" * len(part))
        rows = connection.execute(f"SELECT key FROM study WHERE patient_key IN ({places})", part)
        studies.update(key for (key,) in rows)
    return studies


def _load(
    connection: sqlite3.Connection, zone: Zone, lake: Lake, studies: set[str] | None, cleared: frozenset[str]
) -> None:
    if studies is None:
        for table in ("study", "series", "instance", "header", "name_word", "held", "study_batch"):
            connection.execute(f"DELETE FROM {table}")
        with _shown(connection, zone, lake, "true", cleared) as where:
            _insert(connection, zone, lake, where, "true")
        return
    for part in _parts(iter(sorted(studies))):
        _delete(connection, part)
        lake.connection.register("wanted_studies", pa.table({"study_key": pa.array(part, pa.string())}))
        try:
            with _shown(connection, zone, lake, _WANTED, cleared) as where:
                _insert(connection, zone, lake, where, _in_batches(lake, zone))
        finally:
            lake.connection.unregister("wanted_studies")


@contextmanager
def _shown(
    connection: sqlite3.Connection, zone: Zone, lake: Lake, where: str, cleared: frozenset[str]
) -> Iterator[str]:
    """The condition without the studies that wait for the checks of a batch; these are noted."""
    if zone.clearance is None:
        yield where
        return
    held = held_studies(lake, zone.schema, cleared, where)
    connection.executemany("INSERT INTO held VALUES (?)", [(key,) for key in held["study_key"].to_pylist()])
    made_of = batches_of(lake, zone.schema, where).to_pydict()
    connection.executemany("INSERT INTO study_batch VALUES (?, ?)", zip(*made_of.values(), strict=True))
    lake.connection.register("held_studies", held)
    lake.connection.register("cleared_batches", pa.table({"batch": pa.array(sorted(cleared), pa.string())}))
    try:
        yield f"{where} AND study_key NOT IN (SELECT study_key FROM held_studies)"
    finally:
        lake.connection.unregister("held_studies")
        lake.connection.unregister("cleared_batches")


def _delete(connection: sqlite3.Connection, study_keys: Sequence[str]) -> None:
    studies = f"(SELECT id FROM study WHERE key IN ({','.join('?' * len(study_keys))}))"
    series = f"(SELECT id FROM series WHERE study IN {studies})"
    for table, where in (
        ("header", f"instance IN (SELECT id FROM instance WHERE series IN {series})"),
        ("instance", f"series IN {series}"),
        ("series", f"study IN {studies}"),
        ("name_word", f"study IN {studies}"),
        ("study", f"id IN {studies}"),
        ("held", f"study_key IN ({','.join('?' * len(study_keys))})"),
        ("study_batch", f"study_key IN ({','.join('?' * len(study_keys))})"),
    ):
        connection.execute(f"DELETE FROM {table} WHERE {where}", list(study_keys))


def _in_batches(lake: Lake, zone: Zone) -> str:
    """A condition that tells the lake which of its files the instances of the wanted studies are in."""
    rows = lake.rows(
        f"""SELECT DISTINCT arrival_batch FROM {zone.schema}.dicom_file_location
        WHERE {_WANTED} OR series_key IN (SELECT series_key FROM {zone.schema}.dicom_series WHERE {_WANTED})"""
    )
    batches = ", ".join(quoted(str(batch)) for (batch,) in rows)
    return f"arrival_batch IN ({batches})" if batches else "false"


def _insert(connection: sqlite3.Connection, zone: Zone, lake: Lake, where: str, in_batches: str) -> None:
    placed = _insert_studies(connection, zone, lake, where)
    placed = _insert_series(connection, zone, lake, where, placed)
    _insert_instances(connection, zone, lake, where, in_batches, placed)


def _insert_studies(connection: sqlite3.Connection, zone: Zone, lake: Lake, where: str) -> dict[str, int]:
    """Insert studies; their ids here by their keys."""
    attributes = attributes_of("study")
    placed: dict[str, int] = {}
    for part in _rows(lake, _STUDIES.format(schema=zone.schema, where=where, columns=_columns("study"))):
        rows, words = [], []
        for number, (key, patient_key, modalities, classes, series, instances, *values) in enumerate(
            part, start=_next_id(connection, "study")
        ):
            document = document_of(attributes, values)
            if _first(document, "00100020").startswith(NO_PATIENT_ID):
                del document["00100020"]
            document |= document_of(COUNTED, (modalities, classes, series, instances))
            placed[key] = number
            rows.append((number, key, patient_key, *_study_columns(document), dumped(document)))
            for tag in PERSON_NAMES:
                words += [(number, tag, word, sound) for word, sound in words_of(_first(document, tag))]
        connection.executemany(f"INSERT INTO study VALUES ({','.join('?' * 14)})", rows)
        connection.executemany("INSERT INTO name_word VALUES (?, ?, ?, ?)", words)
    return placed


def _study_columns(document: Document) -> tuple[str | None, ...]:
    def first(tag: str) -> str | None:
        return _first(document, tag) or None

    return (
        first("0020000D"),
        first("00100020"),
        folded(first("00100010")),
        *(first(tag) for tag in ("00100030", "00100040", "00080020", "00080030", "00080050", "00200010")),
        folded(first("00080090")),
    )


def _insert_series(
    connection: sqlite3.Connection, zone: Zone, lake: Lake, where: str, studies: dict[str, int]
) -> dict[str, int]:
    """Insert series; their ids here by their keys."""
    attributes = attributes_of("series")
    requests = _requests(lake, zone, where)
    placed: dict[str, int] = {}
    shown = "true" if zone.clearance is None else SHOWN_DEVICES
    sql = _SERIES.format(schema=zone.schema, where=where, columns=_columns("series"), shown=shown)
    for part in _rows(lake, sql):
        rows = []
        for number, (key, study_key, instances, *values) in enumerate(part, start=_next_id(connection, "series")):
            document = document_of(attributes, values) | {"00201209": {"vr": "IS", "Value": [instances]}}
            if key in requests:
                document[REQUEST_ATTRIBUTES] = {"vr": "SQ", "Value": requests[key]}
            placed[key] = number
            uid, modality = _first(document, "0020000E"), _first(document, "00080060") or None
            series_number = document.get("00200011", {}).get("Value", [None])[0]
            rows.append((number, studies[study_key], key, uid, modality, series_number, dumped(document)))
        connection.executemany("INSERT INTO series VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    return placed


def _requests(lake: Lake, zone: Zone, where: str) -> dict[str, list[Document]]:
    """Items of the Request Attributes Sequence by series key."""
    attributes = attributes_of("request")
    found: dict[str, list[Document]] = {}
    for part in _rows(lake, _REQUESTS.format(schema=zone.schema, where=where, columns=_columns("request"))):
        for key, *values in part:
            found.setdefault(key, []).append(document_of(attributes, values))
    return found


def _insert_instances(
    connection: sqlite3.Connection, zone: Zone, lake: Lake, where: str, in_batches: str, series: dict[str, int]
) -> None:
    is_clinical = zone.name is ZoneName.CLINICAL
    sql = _INSTANCES.format(
        schema=zone.schema,
        where=where,
        in_batches=in_batches,
        version="catalog.object_version" if is_clinical else "NULL",
        catalog=_CATALOG.format(in_batches=in_batches) if is_clinical else "",
    )
    confined = "" if is_clinical else path_to_uri(zone.folder) + "/"
    for part in _rows(lake, sql):
        rows = [
            (series[series_key], key, object_key, uid, sop_class, syntax, uri, version or _version_of(uri), *rest)
            for series_key, key, object_key, uid, sop_class, syntax, uri, version, *rest in part
            if uri.startswith(confined) and series_key in series
        ]
        connection.executemany(f"INSERT INTO instance VALUES (NULL, {','.join('?' * 21)})", rows)


def _version_of(uri: str) -> str:
    """Version of a file that no catalog lists: one that this software has made; empty where it is gone.

    It never makes links: the version of one is the link's own, so that what it leads to is refused as changed.
    """
    try:
        return file_version(uri_to_path(uri).lstat())
    except OSError:
        return ""


def _next_id(connection: sqlite3.Connection, table: str) -> int:
    ((greatest,),) = connection.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchall()
    return int(greatest) + 1


def _first(document: Document, tag: str) -> str:
    """The first value of an attribute as text; of a name, its alphabetic group."""
    value = document.get(tag, {}).get("Value", [""])[0]
    return str(value.get("Alphabetic", "") if isinstance(value, dict) else value or "")


def _columns(level: str) -> str:
    return ", ".join(attribute.sql for attribute in attributes_of(level))


def _rows(lake: Lake, sql: str) -> Iterator[list[tuple[Any, ...]]]:
    result = lake.connection.execute(sql)
    while part := result.fetchmany(PART_ROWS):
        yield part


def _parts(keys: Iterator[str]) -> Iterator[list[str]]:
    while part := list(islice(keys, PART_ROWS)):
        yield part


_WANTED = "study_key IN (SELECT study_key FROM wanted_studies)"

_CATALOG = """LEFT JOIN (SELECT object_key, object_version FROM bronze.object_catalog WHERE {in_batches}) AS catalog
    ON catalog.object_key = place.object_key"""

_STUDIES = """
SELECT dicom_study.study_key, dicom_study.patient_key, modalities_in_study, sop_classes_in_study,
    number_of_study_related_series, number_of_study_related_instances, {columns}
FROM {schema}.dicom_study AS dicom_study JOIN {schema}.dicom_patient AS dicom_patient USING (patient_key)
WHERE number_of_study_related_instances > 0 AND {where}
"""

_SERIES = """
SELECT dicom_series.series_key, dicom_series.study_key, number_of_series_related_instances, {columns}
FROM (SELECT * FROM {schema}.dicom_series WHERE number_of_series_related_instances > 0 AND {where}) AS dicom_series
LEFT JOIN {schema}.dicom_procedure_step AS dicom_procedure_step
    ON dicom_procedure_step.series_key = dicom_series.series_key
LEFT JOIN (
    SELECT series_key, max_by(equipment_key, row_version) AS equipment_key FROM {schema}.series_equipment
    WHERE purpose_of_reference = 'ACQUISITION' GROUP BY series_key
) AS device ON device.series_key = dicom_series.series_key
LEFT JOIN {schema}.dicom_equipment AS dicom_equipment
    ON dicom_equipment.equipment_key = device.equipment_key AND {shown}
"""

_REQUESTS = """
SELECT dicom_request_attributes.series_key, {columns} FROM {schema}.dicom_request_attributes AS dicom_request_attributes
WHERE series_key IN (SELECT series_key FROM {schema}.dicom_series WHERE {where})
ORDER BY series_key, item_index
"""

_INSTANCES = """
SELECT instance.series_key, instance_key, place.object_key, sop_instance_uid, coalesce(sop_class_uid, ''),
    coalesce(place.transfer_syntax_uid, instance.transfer_syntax_uid, ''), place.storage_uri, {version},
    coalesce(place.file_size_bytes, 0), coalesce(place.ingestion_source, ''), coalesce(place.checksum_sha256, ''),
    instance_number,
    CASE WHEN image_rows IS NOT NULL THEN greatest(1, coalesce(pixel.number_of_frames, instance.number_of_frames, 1))
    END, coalesce(pixel.number_of_frames, instance.number_of_frames),
    image_rows, image_columns, bits_allocated, samples_per_pixel, photometric_interpretation, place.pixel_data_offset,
    instance.arrival_batch
FROM (SELECT * FROM {schema}.dicom_instance WHERE {in_batches}) AS instance
JOIN (SELECT * FROM {schema}.dicom_file_location WHERE {in_batches}) AS place USING (instance_key, object_key)
LEFT JOIN (SELECT * FROM {schema}.dicom_image_pixel WHERE {in_batches}) AS pixel USING (instance_key)
{catalog}
WHERE version_state IS DISTINCT FROM 'DELETED'
    AND instance.series_key IN (SELECT series_key FROM {schema}.dicom_series WHERE {where})
QUALIFY row_number() OVER (
    PARTITION BY instance.series_key, sop_instance_uid
    ORDER BY version_state = 'CURRENT' DESC, instance.row_version DESC
) = 1
"""
"""Where both contents of a UID are kept, the current one, or else the latest, is served."""
