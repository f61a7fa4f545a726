"""When all images of a study are thought to have come: after a quiet while, after a limit, or when a load is over.

DICOM has no end of a study. A study is OPEN while images come and COMPLETE after; a late image opens it again. Both
lakes hold the state, each under its own keys; times of arrival stay on the identified side.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pyarrow as pa

from imaging_pipeline.lake.registry import LOADED_AT
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.changes import append_changes
from imaging_pipeline.objects.model import key_of


class ResearchUids(Protocol):
    """Gives research UIDs for original ones: the keys of a research project."""

    def uid(self, original: str) -> str:
        """The research UID of an original UID."""
        ...


@dataclass(frozen=True, slots=True)
class StudyCounts:
    """What settling found and did.

    Attributes:
        open: studies that still wait.
        completed: studies completed by this call, the forced ones included.
        reopened: studies a late image has opened again; one may have been completed by the same call.
        forced: studies completed by this call although images still come.
    """

    open: int
    completed: int
    reopened: int
    forced: int


def settle_studies(
    identified: Lake,
    now: datetime,
    *,
    quiet_seconds: float = 300.0,
    limit_seconds: float = 3600.0,
    everything: bool = False,
) -> StudyCounts:
    """Bring ``silver.study_state`` up to date; run again at the same time, it writes nothing.

    A study is opened again by an image that was first seen after it was completed, by more images than it had then,
    and by other content of one. Fewer images, because some were deleted, and copies of known ones do not open it.

    Args:
        identified: the identified lake.
        now: the present; with a time zone, or naive UTC.
        quiet_seconds: a study is complete when its newest image was first seen this long ago.
        limit_seconds: it is completed by force when the oldest image since the last completion was seen this long ago.
        everything: no more images come: all studies are complete.

    Raises:
        TransientError: the lake is locked.
    """
    moment = now.astimezone(UTC).replace(tzinfo=None) if now.tzinfo else now
    quiet, limit = (moment - timedelta(seconds=seconds) for seconds in (quiet_seconds, limit_seconds))
    with identified.transaction():
        run = identified.connection.execute
        run(_ARRIVED)
        run(_SETTLED, {"now": moment, "quiet": quiet, "limit": limit, "everything": everything})
        counts = run(_COUNTS).fetchone()
        _write(identified, "silver")
    assert counts is not None
    return StudyCounts(*map(int, counts))


def are_unsettled(
    identified: Lake, now: datetime, *, quiet_seconds: float = 300.0, limit_seconds: float = 3600.0
) -> tuple[bool, bool]:
    """Whether :func:`settle_studies` would change anything now, and whether a study is open; writes nothing."""
    moment = now.astimezone(UTC).replace(tzinfo=None) if now.tzinfo else now
    quiet, limit = (moment - timedelta(seconds=seconds) for seconds in (quiet_seconds, limit_seconds))
    identified.rows(_ARRIVED)
    identified.rows(_SETTLED, {"now": moment, "quiet": quiet, "limit": limit, "everything": False})
    identified.rows(_DIFFERENT.format(schema="silver", columns=", ".join(_COLUMNS)))
    ((changed, is_open),) = identified.rows(
        """SELECT (SELECT count(*) FROM temp.study_changed) > 0,
        coalesce((SELECT bool_or(state = 'OPEN') FROM temp.study_after), false)"""
    )
    return bool(changed), bool(is_open)


def publish_study_state(identified: Lake, research: Lake, keys: ResearchUids) -> None:
    """Bring ``deid.study_state`` up to date, for studies with released instances, under research keys.

    Counts are those of released instances; times of arrival are not copied. Only rows that change are written.

    Raises:
        TransientError: a lake is locked.
    """
    with research.transaction():
        research.connection.execute(_RELEASED)  # before the states are read: what is released by then is in them
        states = identified.query(_STATES)
        uids = [keys.uid(str(uid)) for uid in states["study_instance_uid"].to_pylist()]
        states = states.set_column(0, "study_instance_uid", pa.array(uids, pa.string()))
        states = states.append_column("study_key", pa.array([key_of(uid) for uid in uids], pa.string()))
        research.connection.register("identified_states", states)
        try:
            research.connection.execute(_PUBLISHED)
        finally:
            research.connection.unregister("identified_states")
        research.connection.execute(
            "DELETE FROM deid.study_state WHERE study_key NOT IN (SELECT study_key FROM temp.released)"
        )
        _write(research, "deid")


def _write(lake: Lake, schema: str) -> None:
    """Write the rows of ``temp.study_after`` that differ, and the changes they mean."""
    lake.connection.execute(_DIFFERENT.format(schema=schema, columns=", ".join(_COLUMNS)))
    append_changes(lake, schema, _STUDY_CHANGES)
    lake.connection.execute(
        f"DELETE FROM {schema}.study_state WHERE study_key IN (SELECT study_key FROM temp.study_changed)"
    )
    lake.connection.execute(
        f"""INSERT INTO {schema}.study_state BY NAME
        SELECT {", ".join(_COLUMNS)}, now()::TIMESTAMPTZ AT TIME ZONE 'UTC' AS {LOADED_AT} FROM temp.study_changed"""
    )


_COLUMNS = (
    "study_key",
    "study_instance_uid",
    "state",
    "is_forced",
    "revision",
    "instances",
    "content_sha256",
    "first_arrival_at",
    "last_arrival_at",
    "settled_at",
)

_ARRIVED = """
CREATE OR REPLACE TEMP TABLE arrived AS
WITH content AS (
    SELECT series.study_key, instance.instance_key, content_sha256,
        min(coalesce(first_seen_at, modification_time)) AS arrival
    FROM silver.dicom_instance AS instance
    JOIN silver.dicom_series AS series ON series.series_key = instance.series_key
    JOIN silver.dicom_file_location AS location ON location.instance_key = instance.instance_key
    JOIN bronze.object_catalog AS catalog ON catalog.object_key = location.object_key
    WHERE version_state <> 'DELETED' AND checksum_sha256 = content_sha256
    GROUP BY ALL
)
SELECT study.study_key, study.study_instance_uid,
    count(instance_key)::INTEGER AS instances,
    sha256(coalesce(string_agg(content.content_sha256, ' ' ORDER BY content.content_sha256), '')) AS content_sha256,
    min(arrival) AS first_arrival_at,
    max(arrival) AS last_arrival_at,
    min(arrival) FILTER (state IS NULL OR settled_at IS NULL OR arrival > settled_at) AS oldest_since
FROM silver.dicom_study AS study
LEFT JOIN content ON content.study_key = study.study_key
LEFT JOIN silver.study_state AS known ON known.study_key = study.study_key
GROUP BY ALL
"""
"""What is there of each study. An image is as old as the first object with its content, a vanished
one too: neither a copy nor a moved file is a late image."""

_SETTLED = """
CREATE OR REPLACE TEMP TABLE study_after AS
WITH opened AS (
    SELECT arrived.*,
        coalesce(known.state = 'COMPLETE' AND (
            arrived.last_arrival_at > known.settled_at
            OR arrived.instances > known.instances
            OR arrived.instances = known.instances AND arrived.content_sha256 <> known.content_sha256), false)
            AS is_reopened,
        coalesce(known.state, 'OPEN') AS known_state,
        coalesce(known.is_forced, false) AS was_forced,
        coalesce(known.revision, 0) AS known_revision,
        known.settled_at AS known_settled_at
    FROM temp.arrived AS arrived LEFT JOIN silver.study_state AS known USING (study_key)
), judged AS (
    SELECT *,
        is_reopened OR known_state = 'OPEN' AS is_waiting,
        coalesce(last_arrival_at <= $quiet, true) AS is_quiet,
        coalesce(oldest_since <= $limit, false) AS is_overdue
    FROM opened
), settled AS (
    SELECT *, is_waiting AND ($everything OR is_quiet OR is_overdue) AS is_completed FROM judged
)
SELECT study_key, study_instance_uid,
    CASE WHEN is_waiting AND NOT is_completed THEN 'OPEN' ELSE 'COMPLETE' END AS state,
    CASE WHEN is_completed THEN NOT ($everything OR is_quiet) ELSE was_forced AND NOT is_waiting END AS is_forced,
    known_revision + is_reopened::INTEGER AS revision,
    instances, content_sha256, first_arrival_at, last_arrival_at,
    CASE WHEN is_completed THEN $now::TIMESTAMP ELSE known_settled_at END AS settled_at,
    is_completed, is_reopened
FROM settled
"""

_COUNTS = """
SELECT count(*) FILTER (state = 'OPEN'), count(*) FILTER (is_completed), count(*) FILTER (is_reopened),
    count(*) FILTER (is_completed AND is_forced)
FROM temp.study_after
"""

_RELEASED = """
CREATE OR REPLACE TEMP TABLE released AS
SELECT study_key, number_of_study_related_instances - coalesce(made, 0) AS instances FROM deid.dicom_study
LEFT JOIN (
    SELECT study_key, count(*) AS made FROM deid.dicom_instance JOIN deid.dicom_series USING (series_key)
    WHERE instance_key IN (SELECT instance_key FROM deid.made_object) GROUP BY study_key
) USING (study_key)
"""

_STATES = """
SELECT state.study_instance_uid, is_forced, revision,
    CASE WHEN number_of_study_related_instances - coalesce(made, 0) > instances THEN 'OPEN' ELSE state END AS state
FROM silver.study_state AS state JOIN silver.dicom_study USING (study_key)
LEFT JOIN (
    SELECT study_key, count(*) AS made
    FROM silver.dicom_instance JOIN silver.dicom_series USING (series_key)
    WHERE object_key IN (SELECT object_key FROM silver.made_object) GROUP BY study_key
) USING (study_key)
"""
"""A study with an image that came after it was looked at is open, even before it is looked at again. What this software
made of it is no such image."""

_PUBLISHED = """
CREATE OR REPLACE TEMP TABLE study_after AS
SELECT study_key, study_instance_uid, state, is_forced, revision, instances,
    NULL::VARCHAR AS content_sha256, NULL::TIMESTAMP AS first_arrival_at, NULL::TIMESTAMP AS last_arrival_at,
    NULL::TIMESTAMP AS settled_at
FROM identified_states JOIN temp.released USING (study_key)
"""

_DIFFERENT = """
CREATE OR REPLACE TEMP TABLE study_changed AS
SELECT after.*, known.state AS known_state, known.revision AS known_revision
FROM (
    SELECT {columns} FROM temp.study_after EXCEPT SELECT {columns} FROM {schema}.study_state
) AS after
LEFT JOIN {schema}.study_state AS known USING (study_key)
"""

_STUDY_CHANGES = """
SELECT 'reopen' AS action, 'open' AS state, study_instance_uid, NULL::VARCHAR AS series_instance_uid,
    NULL::VARCHAR AS sop_instance_uid
FROM temp.study_changed WHERE known_state = 'COMPLETE' AND (state = 'OPEN' OR revision > known_revision)
UNION ALL
SELECT 'complete', 'complete', study_instance_uid, NULL, NULL
FROM temp.study_changed
WHERE state = 'COMPLETE' AND (known_state IS DISTINCT FROM 'COMPLETE' OR revision > known_revision)
"""
