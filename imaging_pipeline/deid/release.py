"""A batch of identified instances → de-identified files and rows in the research lake.

Each current instance of the batch is either released or held with an issue; nothing in between. The rows come
from the headers of the files written, so tables and files cannot differ. Reads the identified lake, writes the
research lake, the vault and the de-identified files.
"""

from __future__ import annotations

import hashlib
import json
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
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.objects.writing import write_atomically
from imaging_pipeline.workers import map_chunks

CODE_VERSION = "2"
"""Raise it when the same object, profile and key would give another file."""

OBJECTS_PER_CHUNK = 16

_INSTANCE_TABLES = (
    "dicom_instance",
    "dicom_image_pixel",
    "dicom_xray_acquisition",
    "dicom_file_location",
    "deid_verification",
)
"""Tables of the research side with one row for each released instance."""


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
                result.held.append(issue_row(self.batch_id, target.version.key, refusal.issue(Stage.DEID)))
        return result

    def research_key(self, target: Target) -> str:
        """Key the instance has, or would have, on the research side."""
        return key_of(self.keys.uid(target.sop_instance_uid))

    def crashed(self, target: Target) -> Releases:
        """The result for an object whose de-identification killed its process."""
        issue = Issue(Reason.WORKER_CRASHED, Stage.DEID, message="de-identifying it killed the process")
        return Releases(held=[issue_row(self.batch_id, target.version.key, issue)])

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


@dataclass(frozen=True, slots=True)
class Target:
    """An identified instance to release, its original UID, and the digest its bytes must still have."""

    version: ObjectVersion
    sha256: str
    sop_instance_uid: str = field(repr=False)


@dataclass(slots=True)
class Releases:
    """What releasing some objects gave."""

    stored: list[StoredObject] = field(default_factory=list)
    verified: list[dict[str, object]] = field(default_factory=list)
    crosswalk: list[CrosswalkEntry] = field(default_factory=list)
    held: list[dict[str, object]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ReleaseCounts:
    """Instances of a batch: all that are current, released ones, and held ones (each with an issue).

    ``held_keys`` are the research keys of the held ones: nothing of them may stay on the research side.
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
    taken in the order of their research keys: neither rows nor file times keep an order of the source.

    Raises:
        ReleaseRefused: the rows hold an identifier.
        TransientError: a lake is locked.
    """
    targets = sorted(_targets(identified, releaser.batch_id), key=releaser.research_key)
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
    keys = {releaser.research_key(target) for target in targets}
    _write(identified, research, releaser.batch_id, total, keys)
    held = frozenset(keys - {str(row["instance_key"]) for row in total.verified})
    return ReleaseCounts(len(targets), len(total.stored), len(total.held), held)


def release_counts(identified: Lake, research: Lake, keys: ProjectKeys, batch_id: str) -> ReleaseCounts:
    """The counts of a batch as the two lakes hold them, each instance followed by its key."""
    targets = _targets(identified, batch_id)
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


def _targets(identified: Lake, batch_id: str) -> list[Target]:
    rows = identified.rows(
        """SELECT storage_uri, object_version, length, modification_time, source_name, content_sha256, sop_instance_uid
        FROM silver.dicom_instance JOIN bronze.object_catalog USING (object_key)
        WHERE dicom_instance.arrival_batch = ?""",
        [batch_id],
    )
    return [Target(ObjectVersion(*row[:5]), str(row[5]), str(row[6])) for row in rows]  # type: ignore[arg-type]


def _write(identified: Lake, research: Lake, batch_id: str, total: Releases, instance_keys: set[str]) -> None:
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
    with research.transaction():
        _withdraw(research, instance_keys - released_keys)
        write_entities(research, "deid", rows, batch_id)
        verified = registry.table("deid_verification").rows(total.verified)
        research.merge_batch("deid", "deid_verification", verified, batch_id)
    issues = registry.table("ingest_issue").rows(total.held)
    with identified.transaction():
        identified.replace_batch("bronze", "ingest_issue", issues, batch_id, where=stage_filter([Stage.DEID]))
    _remove((before.keys() | now) - _released_files(research, batch_id, instance_keys).keys())  # replaced ones


def _withdraw(research: Lake, held_keys: set[str]) -> None:
    """Take back instances whose current version is held, whichever batch released an earlier one."""
    for table in _INSTANCE_TABLES:
        research.connection.execute(
            f"DELETE FROM deid.{table} WHERE instance_key IN (SELECT unnest(?))", [sorted(held_keys)]
        )


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
