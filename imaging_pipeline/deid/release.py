"""A batch of identified instances → de-identified files and rows in the research lake.

Each current instance of the batch is either released or held with an issue; nothing in between. Of one that was
deleted, or whose contents are in conflict, nothing stays. The rows come from the headers of the files written, so
tables and files cannot differ. Reads the identified lake, writes the research lake, the vault and the files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa

from imaging_pipeline.catalog.bronze import stage_filter
from imaging_pipeline.catalog.inspection import issue_row
from imaging_pipeline.deid.engine import Deidentified, Deidentifier
from imaging_pipeline.deid.leakage import count_leaks
from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.deid.targets import Target, heirs_of, targets_of, uids_without_version
from imaging_pipeline.deid.vault import CrosswalkEntry, Vault
from imaging_pipeline.dicom.header import read_header
from imaging_pipeline.errors import ImagingError, Issue, PoisonInput, Reason, Stage, TransientError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.changes import recorded_changes
from imaging_pipeline.metadata.entities import StoredObject
from imaging_pipeline.metadata.merging import note_touched, write_entities
from imaging_pipeline.metadata.silver import entity_rows
from imaging_pipeline.objects.folder import path_to_uri, uri_to_path
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.objects.writing import write_atomically
from imaging_pipeline.workers import map_chunks

CODE_VERSION = "3"
"""Raise it when the same object, profile and key would give another file."""

OBJECTS_PER_CHUNK = 16


@dataclass(frozen=True, slots=True)
class Releaser:
    """What a worker needs to release objects; picklable.

    Attributes:
        profile: the de-identification profile.
        keys: the project's keys.
        reader: reads the originals.
        folder: where de-identified files go.
        batch_id: the batch.
    """

    profile: Profile
    keys: ProjectKeys
    reader: ObjectReader
    folder: Path
    batch_id: str

    def release(self, targets: Sequence[Target]) -> Releases:
        """De-identify some objects; a refused one becomes an issue."""
        engine = Deidentifier(self.profile, self.keys)
        result = Releases()
        for target in targets:
            try:
                result.stored.append(self._release_one(engine, target, result))
            except PoisonInput as refusal:
                result.held.append(issue_row(target.arrival_batch, target.version.key, refusal.issue(Stage.DEID)))
        return result

    def research_key(self, target: Target) -> str:
        """Key the instance has, or would have, on the research side."""
        return key_of(self.keys.uid(target.sop_instance_uid))

    def crashed(self, target: Target) -> Releases:
        """The result for an object whose de-identification killed its process."""
        issue = Issue(Reason.WORKER_CRASHED, Stage.DEID, message="de-identifying it killed the process")
        return Releases(held=[issue_row(target.arrival_batch, target.version.key, issue)])

    def _release_one(self, engine: Deidentifier, target: Target, result: Releases) -> StoredObject:
        content = self.reader.read_content(target.version, keep=target.version.size)
        if content.sha256 != target.sha256:
            raise PoisonInput(Reason.CHANGED_WHILE_READ, "its bytes are not those that were catalogued")
        released = engine.deidentify(content.prefix, patient_domain=target.version.source)
        stored = self._stored(released)
        write_atomically(uri_to_path(stored.storage_uri), released.data)
        result.crosswalk.extend(_crosswalk(released))
        result.verified.append(self._verification(released, stored))
        return stored

    def _stored(self, released: Deidentified) -> StoredObject:
        header = read_header(released.data)
        sha256 = hashlib.sha256(released.data).hexdigest()
        # With the digest in its name a file is never overwritten: two runs at once cannot mix rows and files.
        name = f"{released.sop_instance_uid}-{sha256[:8]}.dcm"
        path = self.folder / released.patient_id / released.study_instance_uid / released.series_instance_uid / name
        instance_key = key_of(released.sop_instance_uid)
        return StoredObject(
            object_key=key_of("deid", released.sop_instance_uid),
            storage_uri=path_to_uri(path),
            source_name=self.keys.project,
            sha256=sha256,
            size=len(released.data),
            pixel_data_offset=header.pixel_offset,
            header_json=header.json,
            has_pixel=header.has_pixel,
            transfer_syntax_uid=header.transfer_syntax_uid,
            arrival_batch=self.batch_id,
            row_version=f"{self.batch_id}/{instance_key}",
            role="DEIDENTIFIED",
        )

    def _verification(self, released: Deidentified, stored: StoredObject) -> dict[str, object]:
        return {
            "instance_key": key_of(released.sop_instance_uid),
            "profile_id": self.profile.profile_id,
            "profile_version": self.profile.version,
            "profile_digest": self.profile.digest,
            "actions": json.dumps(dict(released.actions), sort_keys=True),
            "residual_hits": 0,
            "content_sha256": stored.sha256,
            "arrival_batch": self.batch_id,
            "row_version": stored.row_version,
        }


@dataclass(slots=True)
class Releases:
    """What releasing some objects gave."""

    stored: list[StoredObject] = field(default_factory=list)
    verified: list[dict[str, object]] = field(default_factory=list)
    crosswalk: list[CrosswalkEntry] = field(default_factory=list)
    held: list[dict[str, object]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ReleaseCounts:
    """What became of the instances that a batch had to release.

    Attributes:
        instances: to be released or held; a deleted one is neither.
        released: with a file and its proof.
        held: each with an issue.
        held_keys: research keys of those held and of those deleted: nothing of them may stay on the research side.
    """

    instances: int
    released: int
    held: int
    held_keys: frozenset[str] = frozenset()

    @property
    def is_closed(self) -> bool:
        """Every instance was either released or held."""
        return self.instances == self.released + self.held


class ReleaseRefused(ImagingError):
    """Rows about to go to research hold an identifier: the batch is held whole and nothing of it is written."""

    def __init__(self, leaks: Mapping[str, int]) -> None:
        super().__init__(f"identifiers in {', '.join(sorted(leaks))}: the batch is held, nothing was written")
        self.leaks = dict(leaks)


def release_batch(
    identified: Lake,
    research: Lake,
    vault: Vault,
    releaser: Releaser,
    *,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> ReleaseCounts:
    """Release the current instances of a batch; run again, it leaves the same files and rows.

    The files are written first, the crosswalk next, the rows last: a row names a file that is there and that the key
    holder can trace. What is withdrawn goes the other way round, so that no file is left without a row. Instances are
    taken in the order of their research keys: neither rows nor file times keep an order of the source. Where an object
    of the batch has vanished and another batch has the same instance, which nothing else would release, that one is
    released in its place.

    Raises:
        ReleaseRefused: the rows hold an identifier.
        TransientError: a lake is locked, or a released file that is needed is gone.
    """
    batch_id = releaser.batch_id
    found = targets_of(identified, batch_id) + heirs_of(identified, research, releaser.keys, batch_id)
    targets = sorted((target for target in found if not target.is_in_conflict), key=releaser.research_key)
    total = Releases(held=[_conflict(target) for target in found if target.is_in_conflict])
    for part in map_chunks(
        releaser.release, targets, workers=workers, chunk_size=OBJECTS_PER_CHUNK, on_crash=releaser.crashed
    ):
        vault.record(part.crosswalk)
        total.stored += part.stored
        total.verified += part.verified
        total.held += part.held
        if progress:
            progress(len(part.stored) + len(part.held), len(targets))
    keys = {releaser.research_key(target) for target in targets}
    keys |= {key_of(releaser.keys.uid(uid)) for uid in uids_without_version(identified, batch_id)}
    _write(identified, research, releaser, total, keys)
    _write_issues(identified, batch_id, total.held, [target.version.key for target in found])
    held = frozenset(keys - {str(row["instance_key"]) for row in total.verified})
    return ReleaseCounts(len(found), len(total.stored), len(total.held), held)


def release_counts(identified: Lake, research: Lake, keys: ProjectKeys, batch_id: str) -> ReleaseCounts:
    """The counts of a batch as the two lakes hold them, each instance followed by its key."""
    targets = [target for target in targets_of(identified, batch_id) if target.arrival_batch == batch_id]
    instances = {target.version.key: key_of(keys.uid(target.sop_instance_uid)) for target in targets}
    ((released,),) = research.rows(
        "SELECT count(*) FROM deid.deid_verification WHERE instance_key IN (SELECT unnest(?))",
        [list(instances.values())],
    )
    ((held,),) = identified.rows(
        """SELECT count(DISTINCT object_key) FROM bronze.ingest_issue
        WHERE stage = 'DEID' AND object_key IN (SELECT unnest(?))""",
        [list(instances)],
    )
    return ReleaseCounts(len(instances), int(str(released)), int(str(held)))


def _conflict(target: Target) -> dict[str, object]:
    message = (
        "other bytes have the same SOP Instance UID: take one of the objects out of its source, it is released then"
    )
    issue = Issue(Reason.CONFLICT_CONTENT, Stage.DEID, message=message)
    return issue_row(target.arrival_batch, target.version.key, issue)


def _write(identified: Lake, research: Lake, releaser: Releaser, total: Releases, instance_keys: set[str]) -> None:
    batch_id = releaser.batch_id
    rows = entity_rows(batch_id, total.stored)
    if rows.refused:
        raise AssertionError(f"{rows.refused} de-identified headers have no legal UIDs: the engine is broken")
    before = _released_files(research, batch_id, instance_keys)
    now = {stored.storage_uri for stored in total.stored}
    if leaks := count_leaks(identified, rows.tables, batch_id):
        _remove(now - before.keys())
        raise ReleaseRefused(leaks)
    released_keys = set(rows.tables["dicom_instance"]["instance_key"].to_pylist())
    # What is taken back goes first, then its row: a kill in here is mended by running again.
    _remove({uri for uri, key in before.items() if key not in released_keys})
    _write_rows(research, releaser, rows.tables, total.verified, instance_keys - released_keys)
    _remove((before.keys() | now) - _released_files(research, batch_id, instance_keys).keys())  # replaced ones


def _write_rows(
    research: Lake,
    releaser: Releaser,
    tables: Mapping[str, pa.Table],
    verified: list[dict[str, object]],
    withdrawn: set[str],
) -> None:
    """Write what is released and take back what is not, whichever batch released an earlier version."""
    batch_id, locations = releaser.batch_id, tables["dicom_file_location"]
    with research.transaction():
        touched = pa.chunked_array([*locations["uid_key"].chunks, pa.array(sorted(withdrawn), pa.string())])
        note_touched(research, "deid", batch_id, touched)
        with recorded_changes(research, "deid", batch_id):
            for table in ("dicom_file_location", "deid_verification"):
                research.connection.execute(
                    f"DELETE FROM deid.{table} WHERE instance_key IN (SELECT unnest(?))", [sorted(withdrawn)]
                )
            research.merge_batch("deid", "dicom_file_location", locations, batch_id)
            proofs = registry.table("deid_verification").rows(verified)
            research.merge_batch("deid", "deid_verification", proofs, batch_id)
            research.connection.execute(_WANTED)
            write_entities(research, "deid", batch_id, tables, partial(_read_again, research, releaser.keys.project))


_WANTED = """
CREATE OR REPLACE TEMP TABLE wanted AS
SELECT instance_key, object_key, row_version, arrival_batch, 1 AS version_no, 'CURRENT' AS version_state
FROM deid.dicom_file_location WHERE uid_key IN (SELECT uid_key FROM temp.touched_uids)
"""


def _read_again(research: Lake, project: str, object_keys: Sequence[str]) -> Mapping[str, pa.Table]:
    """Candidate rows of instances released before, from the headers of their files."""
    rows = research.rows(
        """SELECT object_key, storage_uri, checksum_sha256, arrival_batch, row_version FROM deid.dicom_file_location
        WHERE object_key IN (SELECT unnest(?)) ORDER BY object_key""",
        [list(object_keys)],
    )
    return entity_rows("", [_stored_again(project, *map(str, row)) for row in rows]).tables


def _stored_again(project: str, key: str, uri: str, sha256: str, batch_id: str, row_version: str) -> StoredObject:
    try:
        data = uri_to_path(uri).read_bytes()
    except OSError:
        raise TransientError(f"a released file is gone: run batch {batch_id} again, then this one") from None
    header = read_header(data)
    return StoredObject(
        object_key=key,
        storage_uri=uri,
        source_name=project,
        sha256=sha256,
        size=len(data),
        pixel_data_offset=header.pixel_offset,
        header_json=header.json,
        has_pixel=header.has_pixel,
        transfer_syntax_uid=header.transfer_syntax_uid,
        arrival_batch=batch_id,
        row_version=row_version,
        role="DEIDENTIFIED",
    )


def _write_issues(identified: Lake, batch_id: str, held: list[dict[str, object]], object_keys: list[str]) -> None:
    """Put the issues of this release in the place of earlier ones, of the batch and of all objects looked at."""
    issues = registry.table("ingest_issue").rows(held)
    where = f"{stage_filter([Stage.DEID])} AND (arrival_batch = ? OR object_key IN (SELECT unnest(?)))"
    with identified.transaction():
        identified.replace_all("bronze", "ingest_issue", issues, where=where, parameters=[batch_id, object_keys])


def _remove(uris: set[str]) -> None:
    for uri in uris:
        uri_to_path(uri).unlink(missing_ok=True)


def _released_files(research: Lake, batch_id: str, instance_keys: set[str]) -> dict[str, str]:
    """Files of the batch, and of its instances in whatever batch they came before: URI to instance key."""
    rows = research.rows(
        """SELECT storage_uri, instance_key FROM deid.dicom_file_location
        WHERE arrival_batch = ? OR instance_key IN (SELECT unnest(?))""",
        [batch_id, sorted(instance_keys)],
    )
    return {str(uri): str(key) for uri, key in rows}


def _crosswalk(released: Deidentified) -> list[CrosswalkEntry]:
    patient = f"{released.patient_domain}\x1f{released.original_patient_id}"
    entries = [CrosswalkEntry("PATIENT", released.patient_id, patient)]
    return entries + [CrosswalkEntry("UID", new, original) for original, new in released.uid_map.items()]
