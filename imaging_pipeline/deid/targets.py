"""Which instances a batch has to release, hold or take back: read from silver, decided nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, field

from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.model import ObjectVersion, key_of


@dataclass(frozen=True, slots=True)
class Target:
    """An identified instance, its original UID, and the digest its bytes must still have.

    Attributes:
        version: the object it is made from.
        sha256: digest of that object as catalogued.
        sop_instance_uid: its original UID.
        arrival_batch: the batch it came in.
        is_in_conflict: other contents have the same UID: a person must choose, it is not released.
    """

    version: ObjectVersion
    sha256: str
    sop_instance_uid: str = field(repr=False)
    arrival_batch: str
    is_in_conflict: bool = False


def targets_of(identified: Lake, batch_id: str) -> list[Target]:
    """Instances of the batch that are there, and those of any batch in conflict with one of its objects."""
    return _instances(
        identified,
        f"""version_state = 'CURRENT' AND instance.arrival_batch = $1
        OR version_state = 'CONFLICT' AND location.uid_key IN (SELECT uid_key FROM ({_LOCATIONS_OF_BATCH}))""",
        batch_id,
    )


def heirs_of(identified: Lake, research: Lake, keys: ProjectKeys, batch_id: str) -> list[Target]:
    """Instances of other batches that took the place of a vanished object of this one and that nobody has released."""
    found = _instances(
        identified,
        f"""version_state = 'CURRENT' AND instance.arrival_batch <> $1
        AND location.uid_key IN (SELECT uid_key FROM ({_LOCATIONS_OF_BATCH}) WHERE role = 'DELETED')""",
        batch_id,
    )
    research_keys = {key_of(keys.uid(target.sop_instance_uid)): target for target in found}
    rows = research.rows(
        """SELECT instance_key FROM deid.dicom_file_location
        WHERE arrival_batch <> ? AND instance_key IN (SELECT unnest(?))""",
        [batch_id, list(research_keys)],
    )
    released = {key for (key,) in rows}
    return [target for key, target in research_keys.items() if key not in released]


def _instances(identified: Lake, where: str, batch_id: str) -> list[Target]:
    rows = identified.rows(
        f"""SELECT catalog.storage_uri, object_version, length, modification_time, source_name, content_sha256,
            sop_instance_uid, instance.arrival_batch, version_state = 'CONFLICT'
        FROM silver.dicom_instance AS instance
        JOIN silver.dicom_file_location AS location USING (instance_key, object_key)
        JOIN bronze.object_catalog AS catalog USING (object_key)
        WHERE {where}""",
        [batch_id],
    )
    return [
        Target(ObjectVersion(*row[:5]), str(row[5]), str(row[6]), str(row[7]), bool(row[8]))  # type: ignore[arg-type]
        for row in rows
    ]


_LOCATIONS_OF_BATCH = "SELECT uid_key, role FROM silver.dicom_file_location WHERE arrival_batch = $1"


def uids_without_version(identified: Lake, batch_id: str) -> list[str]:
    """SOP Instance UIDs of the batch's objects of which no version may be released: deleted, or in conflict."""
    rows = identified.rows(
        """SELECT sop_instance_uid FROM silver.dicom_instance JOIN silver.dicom_file_location AS location
            USING (instance_key)
        WHERE location.arrival_batch = ?
        EXCEPT SELECT sop_instance_uid FROM silver.dicom_instance WHERE version_state = 'CURRENT'""",
        [batch_id],
    )
    return [str(uid) for (uid,) in rows]
