"""The change feed: what happened to instances and studies, numbered, for readers that follow along.

A change is written in the transaction that makes it: a reader sees both or neither. Numbers go up by one, because the
lake's write lock admits one transaction at a time; a catalog in Postgres has no such lock, there two transactions at
once could take one number, which the check of unique keys reports.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from imaging_pipeline.lake.registry import LOADED_AT
from imaging_pipeline.lake.store import Lake


@contextmanager
def recorded_changes(lake: Lake, schema: str, batch_id: str) -> Iterator[None]:
    """Compare the touched instances before and after the body and write what changed; nothing changed, no row.

    An instance whose new content belongs to another study or series is deleted there and created here.

    Args:
        lake: the lake; inside a transaction, after :func:`imaging_pipeline.metadata.merging.note_touched`.
        schema: ``silver`` (original UIDs) or ``deid`` (research UIDs only).
        batch_id: the batch whose run makes the changes.
    """
    note = "CREATE OR REPLACE TEMP TABLE {name} AS " + _INSTANCES
    lake.connection.execute(note.format(name="seen_before", schema=schema, keys=_KEYS_BEFORE))
    yield
    lake.connection.execute(note.format(name="seen_after", schema=schema, keys=_KEYS_AFTER.format(schema=schema)))
    append_changes(lake, schema, f"SELECT *, ? AS arrival_batch FROM ({_CHANGES})", [batch_id])


def append_changes(lake: Lake, schema: str, sql: str, parameters: list[object] | None = None) -> None:
    """Number the changes that a query gives and append them; call inside a transaction.

    The query's columns are those of ``change_feed``, as far as they are not empty. Deletions come first, then by UID:
    no order of the source is kept.
    """
    order = "action <> 'delete', study_instance_uid, series_instance_uid, sop_instance_uid, action <> 'reopen', action"
    lake.connection.execute(
        f"""INSERT INTO {schema}.change_feed BY NAME
        SELECT *, (SELECT coalesce(max(sequence), 0) FROM {schema}.change_feed) + row_number() OVER (ORDER BY {order})
                AS sequence,
            now()::TIMESTAMPTZ AT TIME ZONE 'UTC' AS {LOADED_AT}
        FROM ({sql})""",
        parameters or [],
    )


def read_changes(lake: Lake, schema: str, after: int = 0, limit: int = 1000) -> list[dict[str, object]]:
    """The next changes after a sequence number, oldest first, as column to value."""
    table = lake.query(
        f"SELECT * FROM {schema}.change_feed WHERE sequence > ? ORDER BY sequence LIMIT ?", [after, limit]
    )
    rows: list[dict[str, object]] = table.to_pylist()
    return rows


_KEYS_BEFORE = "SELECT instance_key FROM temp.before"

_KEYS_AFTER = """
    SELECT instance_key FROM {schema}.dicom_file_location
    WHERE uid_key IN (SELECT uid_key FROM temp.touched_uids)
"""

_INSTANCES = """
SELECT instance_key, study_instance_uid, series_instance_uid, sop_instance_uid, content_sha256, version_state
FROM {schema}.dicom_instance JOIN {schema}.dicom_series USING (series_key) JOIN {schema}.dicom_study USING (study_key)
WHERE version_state <> 'DELETED' AND instance_key IN ({keys})
"""

_CHANGES = """
SELECT CASE WHEN was.instance_key IS NULL THEN 'create' WHEN now.instance_key IS NULL THEN 'delete' ELSE 'update' END
        AS action,
    CASE WHEN now.instance_key IS NOT NULL THEN lower(now.version_state)
         WHEN sop_instance_uid IN (SELECT sop_instance_uid FROM temp.seen_after) THEN 'replaced'
         ELSE 'deleted' END AS state,
    study_instance_uid, series_instance_uid, sop_instance_uid
FROM temp.seen_before AS was
FULL JOIN temp.seen_after AS now USING (instance_key, study_instance_uid, series_instance_uid, sop_instance_uid)
WHERE (was.content_sha256, was.version_state) IS DISTINCT FROM (now.content_sha256, now.version_state)
"""
