"""Which content of a SOP Instance UID is current: copies, conflicts and deletions settled by one policy.

Looks at all objects placed under a UID at once, so the order in which batches are loaded does not matter.
"""

from __future__ import annotations

from enum import StrEnum

from imaging_pipeline.catalog.inspection import issue_row
from imaging_pipeline.errors import Issue, Reason, Severity, Stage
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake


class VersionPolicy(StrEnum):
    """What becomes of other bytes under a SOP Instance UID that is known already."""

    KEEP_LAST = "keep_last"
    KEEP_FIRST = "keep_first"
    KEEP_BOTH = "keep_both"


_CONFLICTS = {
    VersionPolicy.KEEP_LAST: "another object has the same SOP Instance UID and other bytes; the later one is current",
    VersionPolicy.KEEP_FIRST: "another object has the same SOP Instance UID and other bytes; the first one is current",
    VersionPolicy.KEEP_BOTH: "another object has the same SOP Instance UID and other bytes; both wait for a person",
}


def choose_versions(lake: Lake, policy: VersionPolicy) -> None:
    """Choose the object that each touched instance is made from, and mark all locations of its UID.

    Reads ``temp.touched_uids``; leaves ``temp.wanted``, the instances that there must be, and ``temp.versions``, what
    each object is; call inside a transaction.
    """
    run = lake.connection.execute
    group = _CONTENT_KEY if policy is VersionPolicy.KEEP_BOTH else "uid_key"
    order = "ASC" if policy is VersionPolicy.KEEP_FIRST else "DESC"
    run(_VERSIONS.format(instance_key=group, order=order, several=policy is VersionPolicy.KEEP_BOTH))
    run(_WANTED)
    run(_UPDATE_LOCATIONS)


def choose_only(lake: Lake, schema: str) -> None:
    """Where each instance has one object, as on the research side: leaves ``temp.wanted`` of the touched ones."""
    lake.connection.execute(_ONLY.format(schema=schema))


def note_versions(lake: Lake, policy: VersionPolicy) -> None:
    """Issues of the objects in ``temp.versions``: copies, other bytes, other patients."""
    rows = lake.connection.execute(_NOTEWORTHY).fetchall()
    issues = []
    for object_key, batch, is_copy, is_conflict, is_other_patient in rows:
        if is_copy:
            message = "the same bytes are catalogued under another name too"
            found = Issue(Reason.DUPLICATE_CONTENT, Stage.MAP, Severity.INFO, message=message)
            issues.append(issue_row(batch, object_key, found))
        if is_conflict:
            found = Issue(Reason.CONFLICT_CONTENT, Stage.MAP, Severity.WARNING, message=_CONFLICTS[policy])
            issues.append(issue_row(batch, object_key, found))
        if is_other_patient:
            message = "another source has the same SOP Instance UID under another patient"
            found = Issue(Reason.PATIENT_CONFLICT, Stage.MAP, Severity.WARNING, message=message)
            issues.append(issue_row(batch, object_key, found))
    codes = f"'{Reason.DUPLICATE_CONTENT}', '{Reason.CONFLICT_CONTENT}', '{Reason.PATIENT_CONFLICT}'"
    where = f"""stage = '{Stage.MAP}' AND issue_code IN ({codes})
        AND object_key IN (SELECT object_key FROM temp.versions)"""
    lake.replace_all("bronze", "ingest_issue", registry.table("ingest_issue").rows(issues), where=where, parameters=[])


_CONTENT_KEY = "substr(sha256(uid_key || chr(31) || checksum_sha256), 1, 32)"
"""As ``key_of(uid_key, checksum_sha256)``: every content is an instance of its own."""

_VERSIONS = """
CREATE OR REPLACE TEMP TABLE versions AS
WITH location AS (
    SELECT object_key, uid_key, patient_key, checksum_sha256, arrival_batch, row_version,
        {instance_key} AS instance_key,
        row_version[1] AS worth,
        row_version[1] <> '0' AS is_live,
        row_version[3:] AS arrival,
        min(row_version[3:]) OVER (PARTITION BY uid_key, checksum_sha256) AS first_seen
    FROM silver.dicom_file_location WHERE uid_key IN (SELECT uid_key FROM temp.touched_uids)
), ranked AS (
    SELECT *,
        dense_rank() OVER (PARTITION BY uid_key ORDER BY first_seen)::INTEGER AS version_no,
        row_number() OVER chosen_first = 1 AS is_chosen,
        first_value(checksum_sha256) OVER chosen_first AS chosen_content,
        first_value(object_key) OVER (PARTITION BY uid_key ORDER BY worth DESC, arrival {order}) AS main_object,
        first_value(patient_key) OVER (PARTITION BY uid_key ORDER BY worth DESC, arrival {order}) AS main_patient,
        count(DISTINCT CASE WHEN is_live THEN checksum_sha256 END) OVER (PARTITION BY uid_key) AS live_contents
    FROM location
    WINDOW chosen_first AS (PARTITION BY instance_key ORDER BY worth DESC, arrival {order})
)
SELECT *,
    CASE WHEN NOT is_live THEN 'DELETED'
         WHEN is_chosen THEN 'ORIGINAL'
         WHEN checksum_sha256 = chosen_content THEN 'COPY'
         ELSE 'REPLACED' END AS role,
    CASE WHEN NOT is_live THEN 'DELETED'
         WHEN {several} AND live_contents > 1 THEN 'CONFLICT'
         ELSE 'CURRENT' END AS version_state
FROM ranked
"""

_WANTED = """
CREATE OR REPLACE TEMP TABLE wanted AS
SELECT instance_key, object_key, row_version, arrival_batch, version_no, version_state
FROM temp.versions WHERE is_chosen
"""

_ONLY = """
CREATE OR REPLACE TEMP TABLE wanted AS
SELECT instance_key, object_key, row_version, arrival_batch, 1 AS version_no, 'CURRENT' AS version_state
FROM {schema}.dicom_file_location WHERE uid_key IN (SELECT uid_key FROM temp.touched_uids)
"""

_UPDATE_LOCATIONS = """
UPDATE silver.dicom_file_location AS location
SET version_no = versions.version_no, role = versions.role, instance_key = versions.instance_key
FROM temp.versions AS versions
WHERE location.object_key = versions.object_key AND location.arrival_batch = versions.arrival_batch
    AND (location.version_no, location.role, location.instance_key)
        IS DISTINCT FROM (versions.version_no, versions.role, versions.instance_key)
"""

_NOTEWORTHY = """
SELECT versions.object_key, versions.arrival_batch, role = 'COPY',
    role = 'REPLACED' OR (role = 'ORIGINAL' AND version_state = 'CONFLICT'),
    coalesce(patient_key <> main_patient AND object.source_name <> main.source_name, false)
FROM temp.versions AS versions
LEFT JOIN bronze.object_catalog AS object USING (object_key)
LEFT JOIN bronze.object_catalog AS main ON main.object_key = main_object
WHERE role <> 'DELETED' ORDER BY versions.object_key
"""
