"""The table ``delivery``: the delivery log of a zone as rows of its lake, for whoever asks what went where."""

from __future__ import annotations

from typing import Final

import pyarrow.compute as pc

from imaging_pipeline.delivery.log import DeliveryLog, Entry, State
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.pacs.config import ZoneName

TABLE: Final = "delivery"

RECORD_SCHEMAS: Final = {ZoneName.RESEARCH: ("gold", "deid"), ZoneName.CLINICAL: ("silver", "silver")}
"""Of each zone: the schema of this table, and that of its objects."""

_WITHDRAWN: Final = """
SELECT log.* REPLACE (log.accepted_at IS NOT NULL AND file.instance_key IS NULL AS is_withdrawn) FROM log_rows AS log
LEFT JOIN (SELECT DISTINCT instance_key, checksum_sha256 FROM {objects}.dicom_file_location WHERE role <> 'DELETED')
    AS file ON file.instance_key = log.instance_key AND file.checksum_sha256 = log.checksum_sha256
"""
"""A peer has accepted it, and what it was is not there any more: it was taken back, or has come with other bytes."""


def record(lake: Lake, zone: ZoneName, log: DeliveryLog, peer: str | None = None) -> int:
    """Bring the rows of some lines of the log up to date, and what of it has been withdrawn since.

    What has been withdrawn is noted in the log, too, and before it is told to anybody: a peer that is told deletes it,
    and must be sent it once more should it be released again.

    Args:
        lake: of the zone, to be written.
        zone: whose log it is.
        log: of that zone.
        peer: whose lines are meant; None: all.

    Returns:
        How many objects peers have accepted that have been withdrawn since: somebody must tell these peers.
    """
    schema, objects = RECORD_SCHEMAS[zone]
    table = registry.table(TABLE)
    columns = ", ".join(field.name for field in table.arrow_schema)
    lake.connection.register("log_rows", table.rows([_row(entry) for entry in log.entries(peer)]))
    try:
        now = lake.query(_WITHDRAWN.format(objects=objects))
        lake.connection.register("now_rows", now)
        changed = lake.query(
            f"""SELECT {columns} FROM now_rows EXCEPT SELECT {columns} FROM {schema}.{TABLE}
            ORDER BY delivery_key"""
        ).cast(table.arrow_schema)
    finally:
        lake.connection.unregister("log_rows")
    log.withdraw(now.filter(pc.field("is_withdrawn"))["delivery_key"].to_pylist())
    if changed.num_rows:
        with lake.transaction():
            where = "delivery_key IN (SELECT delivery_key FROM staged_rows)"
            lake.replace_all(schema, TABLE, changed, where=where, parameters=[])
    lake.connection.unregister("now_rows")
    return sum(now["is_withdrawn"].to_pylist())


def _row(entry: Entry) -> dict[str, object]:
    return {
        "delivery_key": entry.delivery_key,
        "delivery_name": entry.delivery,
        "peer": entry.peer,
        "instance_key": entry.instance_key,
        "study_instance_uid": entry.study_uid,
        "sop_instance_uid": entry.sop_uid,
        "checksum_sha256": entry.sha256,
        "file_size_bytes": entry.size,
        "state": State.ACCEPTED if entry.state is State.WITHDRAWN else entry.state,  # is_withdrawn says the rest
        "answer": entry.code,
        "attempts": entry.attempts,
        "tried_at": entry.tried_at,
        "next_at": entry.next_at,
        "accepted_at": entry.accepted_at,
        "is_withdrawn": False,
    }
