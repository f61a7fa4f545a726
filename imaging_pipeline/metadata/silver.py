"""A batch of stored headers → the entity tables of one schema, in one transaction.

Serves ``silver`` from bronze headers and ``deid`` from de-identified ones. Rows merge by key and version, so
batches may be loaded in any order, and again, with the same result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from imaging_pipeline.catalog.bronze import stage_filter
from imaging_pipeline.catalog.inspection import issue_row
from imaging_pipeline.errors import Issue, PoisonInput, Reason, Severity, Stage
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.entities import StoredObject, rows_of

ENTITY_TABLES = (
    "dicom_patient",
    "dicom_study",
    "dicom_series",
    "dicom_instance",
    "dicom_image_pixel",
    "dicom_xray_acquisition",
    "dicom_equipment",
    "series_equipment",
    "dicom_file_location",
)
"""Tables projected from headers and merged by key and version."""

CODE_VERSION = "1"
"""Raise it when the same headers would give other rows."""


@dataclass(frozen=True, slots=True)
class EntityRows:
    """Candidate rows of a batch by table, and the issues met.

    Attributes:
        tables: Arrow table by table name, for all of :data:`ENTITY_TABLES`.
        issues: rows of ``ingest_issue``.
        placed: objects that became rows.
        refused: objects that cannot be placed; each has an ERROR issue.
    """

    tables: Mapping[str, pa.Table]
    issues: list[dict[str, object]] = field(default_factory=list)
    placed: int = 0
    refused: int = 0


def entity_rows(batch_id: str, stored_objects: Iterable[StoredObject]) -> EntityRows:
    """Project headers into candidate rows."""
    rows: dict[str, list[dict[str, object]]] = {name: [] for name in ENTITY_TABLES}
    issues: list[dict[str, object]] = []
    refused = 0
    for stored in stored_objects:
        try:
            candidates, found = rows_of(stored)
        except PoisonInput as refusal:
            candidates, found, refused = {}, [refusal.issue(Stage.MAP)], refused + 1
        except Exception as error:  # noqa: BLE001 - whatever a hostile header provokes costs that object, not its batch
            message = f"placing it failed unexpectedly ({type(error).__name__})"
            candidates, found, refused = {}, [Issue(Reason.MALFORMED, Stage.MAP, message=message)], refused + 1
        for name, row in candidates.items():
            rows[name].append(row)
        issues += [issue_row(batch_id, stored.object_key, issue) for issue in found]
    tables = {name: registry.table(name).rows(rows[name]) for name in ENTITY_TABLES}
    return EntityRows(tables, issues, tables["dicom_file_location"].num_rows, refused)


def load_silver(lake: Lake, batch_id: str) -> EntityRows:
    """Bring silver up to date with a batch of bronze.

    Raises:
        TransientError: the lake is locked.
    """
    rows = entity_rows(batch_id, stored_headers(lake, batch_id))
    with lake.transaction():
        lake.connection.execute(_NOTE_OWN_KEYS, [batch_id])
        write_entities(lake, "silver", rows, batch_id)
        locations = [rows.tables["dicom_file_location"]]
        for other in _batches_with_lost_keys(lake, batch_id):
            restored = entity_rows(other, stored_headers(lake, other))
            write_entities(lake, "silver", restored, other)
            locations.append(restored.tables["dicom_file_location"])
        issues = registry.table("ingest_issue").rows(rows.issues)
        lake.replace_batch("bronze", "ingest_issue", issues, batch_id, where=stage_filter([Stage.MAP]))
        _settle_versions(lake, pa.concat_tables(locations))
    return rows


def stored_headers(lake: Lake, batch_id: str) -> Iterable[StoredObject]:
    """The headers of a batch as bronze keeps them."""
    table = lake.query(
        """SELECT object_key, storage_uri, source_name, sha256, length AS size, pixel_data_offset,
            header_json::VARCHAR AS header_json, has_pixel, transfer_syntax_uid, arrival_batch,
            concat_ws('/', arrival_batch, strftime(modification_time, '%Y%m%dT%H%M%S.%f'), object_key) AS row_version
        FROM bronze.dicom_header JOIN bronze.object_catalog USING (object_key, arrival_batch)
        WHERE arrival_batch = ? ORDER BY object_key""",
        [batch_id],
    )
    for part in table.to_batches(max_chunksize=500):
        for row in part.to_pylist():
            yield StoredObject(**row)


def write_entities(lake: Lake, schema: str, rows: EntityRows, batch_id: str) -> None:
    """Merge candidate rows into a schema's tables; call inside a transaction."""
    for name in ENTITY_TABLES:
        lake.merge_batch(schema, name, rows.tables[name], batch_id)
    _derive_counts(lake, schema, rows)


def _batches_with_lost_keys(lake: Lake, batch_id: str) -> list[str]:
    """Other batches that hold a study, patient … this batch wrote before and no longer has; seldom any.

    A batch run again may have fewer rows than before (an object was withdrawn, the parser changed). What it had
    won from other batches is theirs again.
    """
    rows = lake.connection.execute(_LOST_BATCHES, [batch_id]).fetchall()
    lake.connection.execute("DROP TABLE temp.own_keys")
    return sorted(batch for (batch,) in rows)


def _derive_counts(lake: Lake, schema: str, rows: EntityRows) -> None:
    """Counts and sets of the touched series and studies, from their instances; headers are never believed."""
    lake.connection.register("touched_series", rows.tables["dicom_series"].select(["series_key"]))
    lake.connection.register("touched_studies", rows.tables["dicom_study"].select(["study_key"]))
    try:
        lake.connection.execute(_SERIES_COUNTS.format(schema=schema))
        lake.connection.execute(_STUDY_COUNTS.format(schema=schema))
    finally:
        lake.connection.unregister("touched_series")
        lake.connection.unregister("touched_studies")


def _settle_versions(lake: Lake, locations: pa.Table) -> None:
    """Number the versions of the touched instances and note copies and conflicts."""
    lake.connection.register("touched_instances", locations.select(["instance_key"]))
    try:
        lake.connection.execute(_VERSIONS)
    finally:
        lake.connection.unregister("touched_instances")
    lake.connection.execute(_UPDATE_LOCATIONS)
    lake.connection.execute(_UPDATE_INSTANCES)
    rows = lake.connection.execute(
        "SELECT object_key, arrival_batch, role FROM temp.versions WHERE role <> 'ORIGINAL' ORDER BY object_key"
    ).fetchall()
    issues = [issue_row(batch, key, _version_issue(role)) for key, batch, role in rows]
    codes = f"'{Reason.DUPLICATE_CONTENT}', '{Reason.CONFLICT_CONTENT}'"
    where = f"issue_code IN ({codes}) AND object_key IN (SELECT object_key FROM temp.versions)"
    lake.replace_all("bronze", "ingest_issue", registry.table("ingest_issue").rows(issues), where=where, parameters=[])
    lake.connection.execute("DROP TABLE temp.versions")


def _version_issue(role: str) -> Issue:
    if role == "COPY":
        message = "the same bytes are catalogued under another name too"
        return Issue(Reason.DUPLICATE_CONTENT, Stage.MAP, Severity.INFO, message=message)
    message = "another object has the same SOP Instance UID and other bytes; the later one is current"
    return Issue(Reason.CONFLICT_CONTENT, Stage.MAP, Severity.WARNING, message=message)


_CHILDREN = """
    SELECT instance_key AS key, arrival_batch FROM silver.dicom_file_location
    UNION ALL SELECT series_key, arrival_batch FROM silver.dicom_instance
    UNION ALL SELECT series_key, arrival_batch FROM silver.series_equipment
    UNION ALL SELECT equipment_key, arrival_batch FROM silver.series_equipment
    UNION ALL SELECT study_key, arrival_batch FROM silver.dicom_series
    UNION ALL SELECT patient_key, arrival_batch FROM silver.dicom_study
"""

_PARENTS = """
    SELECT instance_key AS key, arrival_batch FROM silver.dicom_instance
    UNION ALL SELECT series_key, arrival_batch FROM silver.dicom_series
    UNION ALL SELECT study_key, arrival_batch FROM silver.dicom_study
    UNION ALL SELECT patient_key, arrival_batch FROM silver.dicom_patient
    UNION ALL SELECT equipment_key, arrival_batch FROM silver.dicom_equipment
"""

_NOTE_OWN_KEYS = f"CREATE OR REPLACE TEMP TABLE own_keys AS SELECT key FROM ({_PARENTS}) WHERE arrival_batch = ?"

_LOST_BATCHES = f"""
WITH lost AS (SELECT key FROM temp.own_keys EXCEPT SELECT key FROM ({_PARENTS}))
SELECT DISTINCT arrival_batch FROM ({_CHILDREN}) WHERE key IN (SELECT key FROM lost) AND arrival_batch <> ?
"""

_SERIES_COUNTS = """
UPDATE {schema}.dicom_series AS series SET
    number_of_series_related_instances = counts.instances,
    series_size_bytes = counts.bytes,
    transfer_syntax_uids = counts.transfer_syntaxes,
    sop_class_uids = counts.sop_classes
FROM (
    SELECT series_key, count(*) AS instances, sum(file_size_bytes)::BIGINT AS bytes,
        list_sort(list(DISTINCT instance.transfer_syntax_uid)) AS transfer_syntaxes,
        list_sort(list(DISTINCT sop_class_uid)) AS sop_classes
    FROM {schema}.dicom_instance AS instance
    JOIN {schema}.dicom_file_location USING (instance_key, object_key)
    WHERE series_key IN (SELECT series_key FROM touched_series)
    GROUP BY series_key
) AS counts
WHERE series.series_key = counts.series_key
"""

_STUDY_COUNTS = """
UPDATE {schema}.dicom_study AS study SET
    number_of_study_related_series = counts.series,
    number_of_study_related_instances = counts.instances,
    study_size_bytes = counts.bytes,
    modalities_in_study = counts.modalities,
    sop_classes_in_study = counts.sop_classes
FROM (
    SELECT study_key, count(*) AS series, sum(number_of_series_related_instances)::INTEGER AS instances,
        sum(series_size_bytes)::BIGINT AS bytes,
        list_sort(list(DISTINCT modality) FILTER (modality IS NOT NULL)) AS modalities,
        list_sort(list_distinct(flatten(list(sop_class_uids)))) AS sop_classes
    FROM {schema}.dicom_series
    WHERE study_key IN (SELECT study_key FROM touched_studies)
    GROUP BY study_key
) AS counts
WHERE study.study_key = counts.study_key
"""

_VERSIONS = """
CREATE OR REPLACE TEMP TABLE versions AS
WITH location AS (
    SELECT *, min(row_version) OVER (PARTITION BY instance_key, checksum_sha256) AS first_seen
    FROM silver.dicom_file_location
    WHERE instance_key IN (SELECT instance_key FROM touched_instances)
)
SELECT location.location_key, location.object_key, location.instance_key, location.arrival_batch,
    dense_rank() OVER (PARTITION BY location.instance_key ORDER BY first_seen)::INTEGER AS version_no,
    CASE WHEN location.object_key = instance.object_key THEN 'ORIGINAL'
         WHEN location.checksum_sha256 = instance.content_sha256 THEN 'COPY'
         ELSE 'REPLACED' END AS role
FROM location JOIN silver.dicom_instance AS instance USING (instance_key)
"""

_UPDATE_LOCATIONS = """
UPDATE silver.dicom_file_location AS location SET version_no = versions.version_no, role = versions.role
FROM temp.versions AS versions WHERE location.location_key = versions.location_key
"""

_UPDATE_INSTANCES = """
UPDATE silver.dicom_instance AS instance SET version_no = versions.version_no
FROM temp.versions AS versions
WHERE instance.instance_key = versions.instance_key AND versions.role = 'ORIGINAL'
"""
