"""A batch of identified instances → de-identified files and rows in the research lake.

Each current instance of the batch is either released or held with an issue; nothing in between. The rows come
from the headers of the files written, so tables and files cannot differ. Reads the identified lake, writes the
research lake, the vault and the de-identified files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imaging_pipeline.catalog.bronze import stage_filter
from imaging_pipeline.catalog.inspection import issue_row
from imaging_pipeline.deid.engine import Deidentified, Deidentifier
from imaging_pipeline.deid.leakage import count_leaks
from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.deid.vault import CrosswalkEntry, Vault
from imaging_pipeline.dicom.header import read_header
from imaging_pipeline.errors import ImagingError, Issue, PoisonInput, Reason, Stage
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.entities import StoredObject
from imaging_pipeline.metadata.silver import entity_rows, write_entities
from imaging_pipeline.objects.folder import path_to_uri, uri_to_path
from imaging_pipeline.objects.model import ObjectVersion, key_of
from imaging_pipeline.objects.reading import read_content
from imaging_pipeline.workers import map_chunks

CODE_VERSION = "1"
"""Raise it when the same object, profile and key would give another file."""

OBJECTS_PER_CHUNK = 16


@dataclass(frozen=True, slots=True)
class Releaser:
    """What a worker needs to release objects; picklable.

    Attributes:
        profile: the de-identification profile.
        keys: the project's keys.
        folder: where de-identified files go.
        batch_id: the batch.
    """

    profile: Profile
    keys: ProjectKeys
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
                result.held.append(issue_row(self.batch_id, target.version.key, refusal.issue(Stage.DEID)))
        return result

    def crashed(self, target: Target) -> Releases:
        """The result for an object whose de-identification killed its process."""
        issue = Issue(Reason.WORKER_CRASHED, Stage.DEID, message="de-identifying it killed the process")
        return Releases(held=[issue_row(self.batch_id, target.version.key, issue)])

    def _release_one(self, engine: Deidentifier, target: Target, result: Releases) -> StoredObject:
        content = read_content(target.version, keep=target.version.size)
        if content.sha256 != target.sha256:
            raise PoisonInput(Reason.CHANGED_WHILE_READ, "its bytes are not those that were catalogued")
        released = engine.deidentify(content.prefix, patient_domain=target.version.source)
        stored = self._stored(released)
        _write_atomically(uri_to_path(stored.storage_uri), released.data)
        result.crosswalk.extend(_crosswalk(released))
        result.verified.append(self._verification(released, stored))
        return stored

    def _stored(self, released: Deidentified) -> StoredObject:
        header = read_header(released.data)
        name = f"{released.sop_instance_uid}.dcm"
        path = self.folder / released.patient_id / released.study_instance_uid / released.series_instance_uid / name
        instance_key = key_of(released.sop_instance_uid)
        return StoredObject(
            object_key=key_of("deid", released.sop_instance_uid),
            storage_uri=path_to_uri(path),
            source_name=self.keys.project,
            sha256=hashlib.sha256(released.data).hexdigest(),
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


@dataclass(frozen=True, slots=True)
class Target:
    """An identified instance to release, and the digest its bytes must still have."""

    version: ObjectVersion
    sha256: str


@dataclass(slots=True)
class Releases:
    """What releasing some objects gave."""

    stored: list[StoredObject] = field(default_factory=list)
    verified: list[dict[str, object]] = field(default_factory=list)
    crosswalk: list[CrosswalkEntry] = field(default_factory=list)
    held: list[dict[str, object]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ReleaseCounts:
    """Instances of a batch: all that are current, released ones, and held ones (each with an issue)."""

    instances: int
    released: int
    held: int

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

    The crosswalk is written first, the files next, the rows last: no row ever names a file that is not there,
    and no file exists that the key holder could not trace.

    Raises:
        ReleaseRefused: the rows hold an identifier.
        TransientError: a lake is locked.
    """
    targets = _targets(identified, releaser.batch_id)
    total = Releases()
    for part in map_chunks(
        releaser.release, targets, workers=workers, chunk_size=OBJECTS_PER_CHUNK, on_crash=releaser.crashed
    ):
        vault.record(part.crosswalk)
        total.stored += part.stored
        total.verified += part.verified
        total.held += part.held
        if progress:
            progress(len(part.stored) + len(part.held), len(targets))
    _write(identified, research, releaser.batch_id, total)
    return ReleaseCounts(len(targets), len(total.stored), len(total.held))


def release_counts(identified: Lake, research: Lake, batch_id: str) -> ReleaseCounts:
    """The counts of a batch as the two lakes hold them."""
    released = research.rows("SELECT count(*) FROM deid.deid_verification WHERE arrival_batch = ?", [batch_id])
    held = identified.rows(
        "SELECT count(DISTINCT object_key) FROM bronze.ingest_issue WHERE arrival_batch = ? AND stage = 'DEID'",
        [batch_id],
    )
    return ReleaseCounts(len(_targets(identified, batch_id)), int(str(released[0][0])), int(str(held[0][0])))


def _targets(identified: Lake, batch_id: str) -> list[Target]:
    rows = identified.rows(
        """SELECT storage_uri, object_version, length, modification_time, source_name, content_sha256
        FROM silver.dicom_instance JOIN bronze.object_catalog USING (object_key)
        WHERE dicom_instance.arrival_batch = ? ORDER BY instance_key""",
        [batch_id],
    )
    return [Target(ObjectVersion(*row[:5]), str(row[5])) for row in rows]  # type: ignore[arg-type]


def _write(identified: Lake, research: Lake, batch_id: str, total: Releases) -> None:
    rows = entity_rows(batch_id, total.stored)
    if rows.refused:
        raise AssertionError(f"{rows.refused} de-identified headers have no legal UIDs: the engine is broken")
    before = _released_uris(research, batch_id)
    if leaks := count_leaks(identified, rows.tables, batch_id):
        _remove({stored.storage_uri for stored in total.stored} - before)
        raise ReleaseRefused(leaks)
    with research.transaction():
        write_entities(research, "deid", rows, batch_id)
        verified = registry.table("deid_verification").rows(total.verified)
        research.merge_batch("deid", "deid_verification", verified, batch_id)
    issues = registry.table("ingest_issue").rows(total.held)
    with identified.transaction():
        identified.replace_batch("bronze", "ingest_issue", issues, batch_id, where=stage_filter([Stage.DEID]))
    _remove(before - {stored.storage_uri for stored in total.stored})  # released before, refused now


def _remove(uris: set[str]) -> None:
    for uri in uris:
        uri_to_path(uri).unlink(missing_ok=True)


def _released_uris(research: Lake, batch_id: str) -> set[str]:
    rows = research.rows("SELECT storage_uri FROM deid.dicom_file_location WHERE arrival_batch = ?", [batch_id])
    return {str(uri) for (uri,) in rows}


def _crosswalk(released: Deidentified) -> list[CrosswalkEntry]:
    patient = f"{released.patient_domain}\x1f{released.original_patient_id}"
    entries = [CrosswalkEntry("PATIENT", released.patient_id, patient)]
    return entries + [CrosswalkEntry("UID", new, original) for original, new in released.uid_map.items()]


def _write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial_path.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial_path.replace(path)
    finally:
        partial_path.unlink(missing_ok=True)
