"""Objects this software makes (segmentations, reports, captures): their rows among those of all objects.

Such an object stands in the study of what it was made from, under the same patient. It is no object of a source: it has
no row in bronze, its header is read from its file, and it comes in a group of its own beside the batch of what it was
made from. It goes as soon as something it was made from is no longer current, since what it copied of that must go too.
Contains no making.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pyarrow as pa
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from imaging_pipeline.conversion.header import IMPLEMENTATION_NAME, IMPLEMENTATION_UID
from imaging_pipeline.dicom.header import read_header
from imaging_pipeline.dicom.part10 import to_part10
from imaging_pipeline.errors import Issue, PoisonInput, Reason, Severity, Stage, TransientError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.changes import recorded_changes
from imaging_pipeline.metadata.merging import note_touched, write_entities
from imaging_pipeline.metadata.own_files import settle_instances
from imaging_pipeline.metadata.placing import StoredObject, place
from imaging_pipeline.metadata.silver import entity_rows, read_again
from imaging_pipeline.metadata.versions import VersionPolicy
from imaging_pipeline.objects.folder import path_to_uri, uri_to_path
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.objects.writing import write_atomically
from imaging_pipeline.sources import ElementMode

TABLE: Final = "made_object"

_WORTH: Final = "1"
"""How a ``row_version`` of such an object begins: less than that of any whole object of a source."""


IS_SHOWN = "annotation_key IN (SELECT instance_key FROM deid.made_object)"
"""A condition on ``gold.annotation``: it is released. The others wait until all that they refer to is."""


def source_batch(column: str) -> str:
    """SQL of the batch of an object, or of what it was made from: made ones have ``B+KIND``; empty where it is NULL."""
    return f"split_part(coalesce({column}, ''), '+', 1)"


@dataclass(frozen=True, slots=True)
class MadeObject:
    """A file this software has made.

    Attributes:
        path: where it is; it is never changed there.
        sources: keys of the instances it was made from, in the same schema; the first one says whose it is.
    """

    path: Path
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AddedObjects:
    """What became of a group of objects.

    Attributes:
        instance_keys: of those that are rows now, in the order of the keys.
        refused: those that are not, and why; their files are removed.
    """

    instance_keys: tuple[str, ...]
    refused: Mapping[Path, Issue] = field(default_factory=lambda: MappingProxyType({}))


def group_of(batch_id: str, kind: str) -> str:
    """``arrival_batch`` of what was made, as a kind, from objects of a batch."""
    return f"{batch_id}+{kind}"


def write_object(folder: Path, dataset: Dataset, sources: Sequence[str]) -> MadeObject:
    """Write an object as a file that is there whole or not at all; the same data set gives the same name and bytes.

    Args:
        folder: where files of its kind go.
        dataset: with SOP Class and Instance UID; its file meta information is made anew, with its transfer syntax.
        sources: see :class:`MadeObject`.
    """
    meta = getattr(dataset, "file_meta", None)
    syntax = getattr(meta, "TransferSyntaxUID", None) or ExplicitVRLittleEndian
    data = to_part10(dataset, syntax, IMPLEMENTATION_UID, IMPLEMENTATION_NAME)
    name = f"{key_of(str(dataset.SOPInstanceUID))}-{hashlib.sha256(data).hexdigest()[:8]}.dcm"
    write_atomically(folder / name, data)
    return MadeObject(folder / name, tuple(sources))


def add_objects(
    lake: Lake,
    schema: str,
    batch_id: str,
    kind: str,
    made: Sequence[MadeObject],
    *,
    folder: Path | None = None,
    element_mode: ElementMode = ElementMode.ALL,
    policy: VersionPolicy = VersionPolicy.KEEP_LAST,
) -> AddedObjects:
    """Put the rows of objects that were made from a batch in the place of those of the same batch and kind.

    Run again, it leaves the same rows and files; without objects it takes back what is there. Files that are replaced
    go in the same transaction. An object is refused, and its file removed, when its UIDs are not legal, when it is not
    of the patient and study of its first source, when a source is not current, when it has the UID of another object of
    the group, and on the research side when it has that of any other object.

    Args:
        lake: the lake.
        schema: ``silver`` or ``deid``.
        batch_id: the batch of what they were made from.
        kind: what made them, in lower case.
        made: the objects.
        folder: a folder of this group alone: what a run that was killed has left there goes. None: there is none.
        element_mode: which elements of their headers become rows of ``dicom_element``.
        policy: what is current where a source has sent other bytes under the same UID.

    Raises:
        TransientError: the lake is locked, or what they were made from has changed meanwhile.
    """
    group = group_of(batch_id, kind)
    sources = _sources_of(lake, schema, made)
    found = _Found(group, element_mode)
    for each in sorted({each.path: each for each in made}.values(), key=lambda each: each.path.name):
        try:
            found.add(each, sources)
        except PoisonInput as refusal:
            found.refused[each.path] = refusal.issue(Stage.MAP)
    if schema != "silver":  # there the policy tells which of two objects with one UID is current
        found.refuse_taken(lake, schema)
    rows = found.rows()
    with lake.transaction():
        if _sources_of(lake, schema, made) != sources:
            raise TransientError(f"what the {kind} of batch {batch_id} were made from has changed: make them again")
        _write(lake, schema, group, rows, found, policy)
    kept = {path for path, _ in found.made.values()}
    for path in {*found.refused, *(folder.iterdir() if folder and folder.is_dir() else ())} - kept:
        path.unlink(missing_ok=True)
    return AddedObjects(tuple(sorted(key_of(uid) for uid in found.stored)), MappingProxyType(found.refused))


@dataclass(frozen=True, slots=True)
class _Source:
    """An instance as it is current: whose it is, from where, and the digest of its bytes."""

    patient_key: str
    study_key: str
    ingestion_source: str
    sha256: str


@dataclass(slots=True)
class _Found:
    """The objects of a group so far: headers by SOP Instance UID, what they were made from, and refusals."""

    group: str
    element_mode: ElementMode
    stored: dict[str, StoredObject] = field(default_factory=dict)
    made: dict[str, tuple[Path, Mapping[str, _Source]]] = field(default_factory=dict)
    refused: dict[Path, Issue] = field(default_factory=dict)

    def add(self, each: MadeObject, sources: Mapping[str, _Source]) -> None:
        """Take one object in.

        Raises:
            PoisonInput: it is refused.
        """
        own = {key: sources[key] for key in each.sources if key in sources}
        if not own or len(own) < len(set(each.sources)):
            raise PoisonInput(Reason.GONE, "what it was made from is not current: make it again")
        first = sources[each.sources[0]]
        stored = self._stored(each.path, first)
        placed = place(stored)
        if (placed.keys["patient_key"], placed.keys["study_key"]) != (first.patient_key, first.study_key):
            raise PoisonInput(Reason.PATIENT_CONFLICT, "it is not of the patient and study it was made from")
        uid = str(placed.elements["00080018"]["Value"][0])
        if uid in self.stored:
            raise _conflict()
        self.stored[uid] = stored
        self.made[uid] = each.path, own

    def refuse_taken(self, lake: Lake, schema: str) -> None:
        """Refuse what has the SOP Instance UID of an object outside the group."""
        keys = {key_of(uid): uid for uid in self.stored}
        rows = lake.rows(
            f"""SELECT DISTINCT uid_key FROM {schema}.dicom_file_location
            WHERE uid_key IN (SELECT unnest(?)) AND arrival_batch <> ?""",
            [sorted(keys), self.group],
        )
        for (key,) in rows:
            self._refuse(keys[str(key)], _conflict().issue(Stage.MAP))

    def rows(self) -> Mapping[str, pa.Table]:
        """Candidate rows; an object that does not fit the tables is refused instead."""
        rows = entity_rows(self.group, self.stored.values())
        errors = {str(row["object_key"]): row for row in rows.issues if row["severity"] == Severity.ERROR}
        for uid in [uid for uid, stored in self.stored.items() if stored.object_key in errors]:
            row = errors[self.stored[uid].object_key]
            self._refuse(uid, Issue(Reason(str(row["issue_code"])), Stage.MAP, message=str(row["message"])))
        return rows.tables

    def _refuse(self, uid: str, issue: Issue) -> None:
        del self.stored[uid]
        path, _ = self.made.pop(uid)
        self.refused[path] = issue

    def made_rows(self) -> pa.Table:
        """Rows of ``made_object``."""
        return registry.table(TABLE).rows(
            [
                {
                    "made_key": key_of(stored.object_key, source_key),
                    "object_key": stored.object_key,
                    "instance_key": key_of(uid),
                    "source_instance_key": source_key,
                    "source_sha256": source.sha256,
                    "kind": self.group.partition("+")[2],
                    "arrival_batch": self.group,
                    "row_version": stored.row_version,
                }
                for uid, stored in self.stored.items()
                for source_key, source in self.made[uid][1].items()
            ]
        )

    def _stored(self, path: Path, source: _Source) -> StoredObject:
        data = path.read_bytes()
        header, sha256 = read_header(data), hashlib.sha256(data).hexdigest()
        key = key_of("made", self.group, path.name, sha256)
        return StoredObject(
            object_key=key,
            storage_uri=path_to_uri(path),
            source_name=source.ingestion_source,
            sha256=sha256,
            size=len(data),
            pixel_data_offset=header.pixel_offset,
            header_json=header.json,
            has_pixel=header.has_pixel,
            transfer_syntax_uid=header.transfer_syntax_uid,
            arrival_batch=self.group,
            row_version=f"{_WORTH}/{self.group}/{key}",
            role="DERIVED",
            element_mode=self.element_mode,
        )


def _conflict() -> PoisonInput:
    return PoisonInput(Reason.CONFLICT_CONTENT, "another object has its SOP Instance UID")


def _write(
    lake: Lake, schema: str, group: str, rows: Mapping[str, pa.Table], found: _Found, policy: VersionPolicy
) -> None:
    locations = rows["dicom_file_location"]
    note_touched(lake, schema, group, locations["uid_key"])
    before = lake.rows(f"SELECT storage_uri FROM {schema}.dicom_file_location WHERE arrival_batch = ?", [group])
    lake.replace_batch(schema, "dicom_file_location", locations, group)
    lake.replace_batch(schema, TABLE, found.made_rows(), group)
    settle_instances(lake, schema, policy)
    with recorded_changes(lake, schema, group):
        again = partial(read_again, lake, schema, lambda _: found.element_mode)
        write_entities(lake, schema, group, rows, again)
    for uri in {str(uri) for (uri,) in before} - set(locations["storage_uri"].to_pylist()):
        uri_to_path(uri).unlink(missing_ok=True)


def _sources_of(lake: Lake, schema: str, made: Sequence[MadeObject]) -> dict[str, _Source]:
    """What some objects were made from, as far as it is current, by instance key."""
    rows = lake.rows(
        f"""SELECT instance_key, patient_key, study_key, ingestion_source, content_sha256
        FROM {schema}.dicom_instance AS instance
        JOIN {schema}.dicom_file_location AS location USING (instance_key, object_key)
        WHERE instance_key IN (SELECT unnest(?)) AND version_state = 'CURRENT'""",
        [sorted({key for each in made for key in each.sources})],
    )
    return {str(key): _Source(*map(str, values)) for key, *values in rows}
