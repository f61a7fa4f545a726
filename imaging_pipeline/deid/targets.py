"""What a batch's run has to release, hold or take back: read from silver and the released rows, decided nowhere else.

What was released decides, not which batch released it: each UID the batch has, or had, an object of is looked at as the
two lakes have it now. So the batches may be run in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from imaging_pipeline.deid.known import Patients, facts_of
from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.deid.screen import Identifier
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.folder import uri_to_path
from imaging_pipeline.objects.model import ObjectVersion, key_of


@dataclass(frozen=True, slots=True)
class Target:
    """An identified instance, its original UID, and the digest its bytes must still have.

    Attributes:
        version: the object it is made from.
        sha256: digest of that object as catalogued.
        sop_instance_uid: its original UID.
        arrival_batch: the batch it came in.
        research_key: key the instance has, or would have, on the research side.
        source_token: stands for its source and content on the research side.
        known: identifiers of its patient from all headers, once `with_known` has looked.
    """

    version: ObjectVersion
    sha256: str
    sop_instance_uid: str = field(repr=False)
    arrival_batch: str
    research_key: str
    source_token: str
    known: frozenset[Identifier] = field(default=frozenset(), repr=False)


@dataclass(frozen=True, slots=True)
class Released:
    """What stands on the research side for an instance."""

    storage_uri: str
    source_token: str | None
    profile_digest: str | None
    engine_version: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The UIDs a batch is about, by research key, as the two lakes have them.

    Attributes:
        batch_id: the batch.
        keys: all of them; also those that it released and silver no longer places in it.
        current: the version that is current, of whatever batch.
        conflicts: objects whose UID has other contents too: a person must choose, none is released.
        released: what is released.
    """

    batch_id: str
    keys: frozenset[str]
    current: Mapping[str, Target]
    conflicts: Sequence[Target]
    released: Mapping[str, Released]

    @property
    def withdrawn(self) -> frozenset[str]:
        """Released, though no version is current: all were deleted, or are in conflict."""
        return frozenset(key for key in self.released if key not in self.current)

    @property
    def superseded(self) -> frozenset[str]:
        """Released from another content than the current one."""
        return frozenset(key for key in self.released if key in self.current and not self.is_released(key))

    @property
    def due(self) -> dict[str, Target]:
        """To be released by a run of the batch: its own objects, and others that took their place and are not yet."""
        return {
            key: target
            for key, target in self.current.items()
            if target.arrival_batch == self.batch_id or not self.is_released(key) or not self._has_file(key)
        }

    def is_released(self, key: str) -> bool:
        """What is released was made from the current content."""
        return key in self.released and self.released[key].source_token == self.current[key].source_token

    def is_up_to_date(self, key: str, profile_digest: str, engine_version: str) -> bool:
        """What is released is what releasing it now would give."""
        if not self.is_released(key) or not self._has_file(key):
            return False
        found = self.released[key]
        return (found.profile_digest, found.engine_version) == (profile_digest, engine_version)

    def _has_file(self, key: str) -> bool:
        return uri_to_path(self.released[key].storage_uri).is_file()


def plan_of(identified: Lake, research: Lake, keys: ProjectKeys, batch_id: str) -> Plan:
    """What a run of the batch would have to do now."""
    current, conflicts, others = _versions(identified, keys, _UIDS_OF_BATCH, batch_id)
    known = current.keys() | {target.research_key for target in conflicts} | others
    released = _released(research, batch_id, known)
    if lost := released.keys() - known:
        # Released by the batch, and silver no longer places it there: another batch may have the instance still.
        uids = identified.rows("SELECT DISTINCT sop_instance_uid FROM silver.dicom_instance")
        uid_keys = [key_of(str(uid)) for (uid,) in uids if key_of(keys.uid(str(uid))) in lost]
        more, more_conflicts, _ = _versions(identified, keys, "SELECT unnest($1)", uid_keys)
        current |= more
        conflicts += more_conflicts
    return Plan(batch_id, frozenset(known | lost), current, conflicts, released)


def keys_of_batch(identified: Lake, research: Lake, keys: ProjectKeys, batch_id: str) -> frozenset[str]:
    """Research keys of all a run of the batch may change: of its UIDs, and of tensors that it made."""
    rows = research.rows("SELECT DISTINCT instance_key FROM gold.image_tensor WHERE arrival_batch = ?", [batch_id])
    return plan_of(identified, research, keys, batch_id).keys | {str(key) for (key,) in rows}


def deleted_of_batch(identified: Lake, keys: ProjectKeys, batch_id: str) -> frozenset[str]:
    """Research keys of the batch's UIDs of which every version was deleted; what is held or in conflict was not."""
    current, conflicts, seen = _versions(identified, keys, _UIDS_OF_BATCH, batch_id)
    return frozenset(seen - current.keys() - {target.research_key for target in conflicts})


def with_known(identified: Lake, targets: Mapping[str, Target], profile: Profile) -> dict[str, Target]:
    """The targets with the identifiers of their patients, from the headers of all objects of these, in any batch."""
    patients = Patients()
    patient_of: dict[str, tuple[str, str]] = {}
    found = identified.connection.execute(_HEADERS, [[target.version.key for target in targets.values()]])
    while rows := found.fetchmany(_HEADERS_AT_ONCE):
        for object_key, source, header_json in rows:
            facts = facts_of(header_json, source)
            patients.add(facts)
            patient_of[object_key] = facts.domain, facts.patient_id
    known = patients.identifiers(profile)
    return {key: replace(target, known=known[patient_of[target.version.key]]) for key, target in targets.items()}


_HEADERS_AT_ONCE = 500
_HEADERS = """
WITH named AS (SELECT patient_key, study_key FROM silver.dicom_file_location WHERE object_key IN (SELECT unnest($1))),
around AS (
    SELECT patient_key FROM silver.dicom_file_location WHERE study_key IN (SELECT study_key FROM named)
    UNION SELECT patient_key FROM named
)
SELECT object_key, source_name, header_json::VARCHAR
FROM silver.dicom_file_location
JOIN bronze.object_catalog USING (object_key)
JOIN bronze.dicom_header USING (object_key)
WHERE patient_key IN (SELECT patient_key FROM around) OR study_key IN (SELECT study_key FROM named)
"""
"""Headers of the patients of some objects, and of all objects of their studies, whoever these say they are of."""


def _versions(
    identified: Lake, keys: ProjectKeys, uid_keys: str, parameter: object
) -> tuple[dict[str, Target], list[Target], set[str]]:
    """Current versions by research key, those in conflict, and research keys of all UIDs that a query names."""
    rows = identified.rows(
        f"""SELECT catalog.storage_uri, object_version, length, modification_time, source_name, content_sha256,
            sop_instance_uid, instance.arrival_batch, version_state
        FROM silver.dicom_instance AS instance
        JOIN silver.dicom_file_location AS location USING (instance_key, object_key)
        JOIN bronze.object_catalog AS catalog USING (object_key)
        WHERE location.uid_key IN ({uid_keys})""",
        [parameter],
    )
    current: dict[str, Target] = {}
    conflicts: list[Target] = []
    seen: set[str] = set()
    for row in rows:
        version = ObjectVersion(*row[:5])  # type: ignore[arg-type]
        sha256, uid, batch_id, state = map(str, row[5:])
        key = key_of(keys.uid(uid))
        seen.add(key)
        token = keys.uid("\x1f".join(("content", version.source, sha256)))
        target = Target(version, sha256, uid, batch_id, key, token)
        if state == "CURRENT":
            current[key] = target
        elif state == "CONFLICT":
            conflicts.append(target)
    return current, conflicts, seen


_UIDS_OF_BATCH = "SELECT uid_key FROM silver.dicom_file_location WHERE arrival_batch = $1"


def _released(research: Lake, batch_id: str, instance_keys: set[str]) -> dict[str, Released]:
    """What is released of the batch, and of its instances in whatever batch they came."""
    rows = research.rows(
        """SELECT location.instance_key, storage_uri, source_token, profile_digest, engine_version
        FROM deid.dicom_file_location AS location LEFT JOIN deid.deid_verification USING (instance_key)
        WHERE location.arrival_batch = ? OR location.instance_key IN (SELECT unnest(?))""",
        [batch_id, sorted(instance_keys)],
    )
    return {str(key): Released(str(uri), *(None if v is None else str(v) for v in found)) for key, uri, *found in rows}
