"""A batch of stored headers → the entity tables of silver, in one transaction.

Batches may be loaded in any order, and again, with the same result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import pyarrow as pa

from imaging_pipeline.catalog.bronze import stage_filter
from imaging_pipeline.catalog.inspection import issue_row
from imaging_pipeline.errors import Issue, PoisonInput, Reason, Stage
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.candidates import Candidates
from imaging_pipeline.metadata.changes import recorded_changes
from imaging_pipeline.metadata.merging import ENTITY_TABLES, note_touched, write_entities
from imaging_pipeline.metadata.own_files import ModeOf, settle_instances, stored_files
from imaging_pipeline.metadata.placing import StoredObject
from imaging_pipeline.metadata.versions import VersionPolicy, note_versions
from imaging_pipeline.sources import ElementMode

__all__ = ["CODE_VERSION", "ENTITY_TABLES", "EntityRows", "VersionPolicy", "entity_rows", "load_silver"]

CODE_VERSION = "4"
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
    candidates = Candidates()
    issues: list[dict[str, object]] = []
    refused = 0
    for stored in stored_objects:
        try:
            candidates.add(stored)
        except PoisonInput as refusal:
            found, refused = refusal.issue(Stage.MAP), refused + 1
        except Exception as error:  # noqa: BLE001 - whatever a hostile header provokes costs that object, not its batch
            message = f"placing it failed unexpectedly ({type(error).__name__})"
            found, refused = Issue(Reason.MALFORMED, Stage.MAP, message=message), refused + 1
        else:
            continue
        issues.append(issue_row(batch_id, stored.object_key, found))
    tables, notes = candidates.finish()
    issues += [issue_row(batch_id, object_key, issue) for object_key, issue in notes]
    refused += candidates.refused
    return EntityRows(tables, issues, tables["dicom_file_location"].num_rows, refused)


def load_silver(
    lake: Lake,
    batch_id: str,
    policy: VersionPolicy = VersionPolicy.KEEP_LAST,
    mode_of: ModeOf = lambda _: ElementMode.ALL,
) -> EntityRows:
    """Bring silver up to date with a batch of bronze: also with what the catalog says has vanished.

    Args:
        lake: the identified lake.
        batch_id: the batch.
        policy: what becomes of other bytes under a SOP Instance UID that is known already; the same for all batches.
        mode_of: which elements become rows of ``dicom_element``.

    Raises:
        TransientError: the lake is locked.
    """
    rows = entity_rows(batch_id, stored_headers(lake, batch_id, mode_of))
    locations = rows.tables["dicom_file_location"]
    with lake.transaction():
        note_touched(lake, "silver", batch_id, locations["uid_key"])
        lake.replace_batch("silver", "dicom_file_location", locations, batch_id)
        settle_instances(lake, "silver", policy)
        with recorded_changes(lake, "silver", batch_id):
            write_entities(lake, "silver", batch_id, rows.tables, partial(read_again, lake, "silver", mode_of))
        issues = registry.table("ingest_issue").rows(rows.issues)
        lake.replace_batch("bronze", "ingest_issue", issues, batch_id, where=stage_filter([Stage.MAP]))
        note_versions(lake, policy)
    return rows


def stored_headers(lake: Lake, batch_id: str, mode_of: ModeOf = lambda _: ElementMode.ALL) -> Iterable[StoredObject]:
    """The headers of a batch as bronze keeps them, those of vanished objects too.

    A ``row_version`` starts with 2 for a whole object, 1 for a truncated one, and 0 for a vanished one: a copy that was
    cut off never takes the place of a whole one, nor a vanished one that of any, whichever came first. The greatest
    come first: what several objects share is then projected once.
    """
    return _stored(
        lake,
        """SELECT object_key, storage_uri, source_name, sha256, length AS size, pixel_data_offset,
            header_json::VARCHAR AS header_json, has_pixel, transfer_syntax_uid, arrival_batch,
            concat_ws('/', CASE WHEN deleted_at IS NOT NULL THEN '0' WHEN object_key IN (
                    SELECT object_key FROM bronze.ingest_issue WHERE issue_code = 'truncated' AND stage = 'PARSE'
                ) THEN '1' ELSE '2' END, arrival_batch,
                strftime(modification_time, '%Y%m%dT%H%M%S.%f'), object_key) AS row_version
        FROM bronze.dicom_header JOIN bronze.object_catalog USING (object_key, arrival_batch)
        WHERE arrival_batch = ? ORDER BY row_version DESC""",
        [batch_id],
        mode_of,
    )


def read_again(lake: Lake, schema: str, mode_of: ModeOf, object_keys: Sequence[str]) -> Mapping[str, pa.Table]:
    """Candidate rows of objects of any batch, with the versions they are known by.

    Args:
        lake: the lake.
        schema: ``silver``, whose headers are in bronze but for those of made objects, or ``deid``.
        mode_of: which elements become rows of ``dicom_element``.
        object_keys: the objects.

    Raises:
        TransientError: a file of this software is gone.
    """
    stored_objects: Iterable[StoredObject] = []
    where = "object_key IN (SELECT unnest(?))"
    if schema == "silver":
        stored_objects = _stored_again(lake, mode_of, object_keys)
        where += " AND object_key IN (SELECT object_key FROM silver.made_object)"
    files = stored_files(lake, schema, where, [list(object_keys)], mode_of)
    return entity_rows("", chain(stored_objects, files)).tables


def _stored_again(lake: Lake, mode_of: ModeOf, object_keys: Sequence[str]) -> Iterator[StoredObject]:
    """Headers of objects of sources, of any batch, with the versions silver knows them by."""
    return _stored(
        lake,
        """SELECT object_key, header.storage_uri, source_name, sha256, length AS size, header.pixel_data_offset,
            header_json, has_pixel, header.transfer_syntax_uid, arrival_batch, location.row_version
        FROM (
            SELECT object_key, arrival_batch, storage_uri, source_name, sha256, length, pixel_data_offset,
                header_json::VARCHAR AS header_json, has_pixel, transfer_syntax_uid
            FROM bronze.dicom_header JOIN bronze.object_catalog USING (object_key, arrival_batch)
        ) AS header
        JOIN silver.dicom_file_location AS location USING (object_key, arrival_batch)
        WHERE object_key IN (SELECT unnest(?)) ORDER BY object_key""",
        [list(object_keys)],
        mode_of,
    )


def _stored(lake: Lake, sql: str, parameters: list[object], mode_of: ModeOf) -> Iterator[StoredObject]:
    for part in lake.query(sql, parameters).to_batches(max_chunksize=500):
        for row in part.to_pylist():
            yield StoredObject(**row, element_mode=mode_of(row["source_name"]))
