"""De-identifying the objects of a batch in worker processes: files into the staging folder, refusals into issues.

Writes files of one batch's staging folder and nothing else; lakes and vault are written by `release`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imaging_pipeline.catalog.inspection import OUT_OF_REACH, issue_row
from imaging_pipeline.deid.engine import Deidentified, Deidentifier
from imaging_pipeline.deid.outcomes import Outcome, outcome_of
from imaging_pipeline.deid.pixels import Decisions
from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.deid.targets import Target
from imaging_pipeline.deid.vault import CrosswalkEntry, crosswalk_of
from imaging_pipeline.dicom.header import Header
from imaging_pipeline.errors import Issue, PoisonInput, Reason, Stage
from imaging_pipeline.metadata.placing import StoredObject
from imaging_pipeline.objects.folder import path_to_uri, uri_to_path
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.objects.writing import write_atomically
from imaging_pipeline.sources import ElementMode

CODE_VERSION = "8"
"""Raise it when the same object, profile and key would give another file."""

OBJECTS_PER_CHUNK = 16


@dataclass(slots=True)
class Releases:
    """What releasing some objects gave, by research key.

    Attributes:
        stored: the files made; they wait in the staging folder.
        verified: their proofs.
        outcomes: the same as evidence counts them.
        crosswalk: pseudonyms and what they stand for.
        held: issues of those refused, or that could not be read.
        unreached: those of them whose bytes could not be fetched now and may be later.
    """

    stored: dict[str, StoredObject] = field(default_factory=dict)
    verified: dict[str, dict[str, object]] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    crosswalk: list[CrosswalkEntry] = field(default_factory=list)
    held: dict[str, dict[str, object]] = field(default_factory=dict)
    unreached: set[str] = field(default_factory=set)

    def add(self, other: Releases) -> None:
        """Take in another result, but for its crosswalk, which the vault has."""
        self.stored |= other.stored
        self.verified |= other.verified
        self.outcomes |= other.outcomes
        self.held |= other.held
        self.unreached |= other.unreached


@dataclass(frozen=True, slots=True)
class Releaser:
    """What a worker needs to release objects; picklable.

    Attributes:
        profile: the de-identification profile.
        keys: the project's keys.
        reader: reads the originals.
        folder: where de-identified files go.
        batch_id: the batch.
        element_mode: which elements of the released headers become rows of ``dicom_element``.
        decisions: what people decided about pixels.
    """

    profile: Profile
    keys: ProjectKeys
    reader: ObjectReader
    folder: Path
    batch_id: str
    element_mode: ElementMode = ElementMode.ALL
    decisions: Decisions = field(default_factory=Decisions)

    @property
    def staging(self) -> Path:
        """Where files of this batch wait until their rows are written."""
        return self.folder / ".staging" / self.batch_id

    def release(self, targets: Sequence[Target]) -> Releases:
        """De-identify some objects into the staging folder; a refused one becomes an issue."""
        engine = Deidentifier(self.profile, self.keys, self.decisions)
        result = Releases()
        for target in targets:
            try:
                self._release_one(engine, target, result)
            except PoisonInput as refusal:
                issue = issue_row(target.arrival_batch, target.version.key, refusal.issue(Stage.DEID))
                result.held[target.research_key] = issue
                if refusal.reason in OUT_OF_REACH:
                    result.unreached.add(target.research_key)
        return result

    def crashed(self, target: Target) -> Releases:
        """The result for an object whose de-identification killed its process."""
        issue = Issue(Reason.WORKER_CRASHED, Stage.DEID, message="de-identifying it killed the process")
        return Releases(held={target.research_key: issue_row(target.arrival_batch, target.version.key, issue)})

    def staged(self, stored: StoredObject) -> Path:
        """Where a file waits."""
        return self.staging / uri_to_path(stored.storage_uri).name

    def _release_one(self, engine: Deidentifier, target: Target, result: Releases) -> None:
        content = self.reader.read_content(target.version, keep=target.version.size)
        if content.sha256 != target.sha256:
            raise PoisonInput(Reason.CHANGED_WHILE_READ, "its bytes are not those that were catalogued")
        released = engine.deidentify(content.prefix, patient_domain=target.version.source, known=target.known)
        header = released.header
        outcome = outcome_of(target.source_token, released)
        stored = self._stored(released, outcome, header)
        write_atomically(self.staged(stored), released.data)
        result.crosswalk.extend(crosswalk_of(released))
        result.outcomes[target.research_key] = outcome
        result.verified[target.research_key] = self._verification(target, stored, released, outcome)
        result.stored[target.research_key] = stored

    def _stored(self, released: Deidentified, outcome: Outcome, header: Header) -> StoredObject:
        # With the digest in its name a file is never overwritten: two runs at once cannot mix rows and files.
        path = self.folder / f"{outcome.file.removesuffix('.dcm')}-{outcome.sha256[:8]}.dcm"
        instance_key = key_of(released.sop_instance_uid)
        return StoredObject(
            object_key=key_of("deid", released.sop_instance_uid),
            storage_uri=path_to_uri(path),
            source_name=self.keys.project,
            sha256=outcome.sha256,
            size=len(released.data),
            pixel_data_offset=header.pixel_offset,
            header_json=header.json,
            has_pixel=header.has_pixel,
            transfer_syntax_uid=header.transfer_syntax_uid,
            arrival_batch=self.batch_id,
            row_version=f"{self.batch_id}/{instance_key}",
            role="DEIDENTIFIED",
            element_mode=self.element_mode,
        )

    def _verification(
        self, target: Target, stored: StoredObject, released: Deidentified, outcome: Outcome
    ) -> dict[str, object]:
        return {
            "instance_key": target.research_key,
            "profile_id": self.profile.profile_id,
            "profile_version": self.profile.version,
            "profile_digest": self.profile.digest,
            "engine_version": CODE_VERSION,
            "source_token": target.source_token,
            "actions": json.dumps(dict(released.actions), sort_keys=True),
            "attribute_actions": json.dumps(dict(outcome.actions), sort_keys=True),
            "pixels": json.dumps(dict(outcome.pixels), sort_keys=True),
            "warnings": list(outcome.warnings),
            "claimed_options": list(outcome.options),
            "key_id": self.keys.key_id,
            "residual_hits": 0,
            "content_sha256": stored.sha256,
            "arrival_batch": self.batch_id,
            "row_version": stored.row_version,
        }
