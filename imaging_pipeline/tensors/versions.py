"""Dataset versions: which tensors, labels and sides make a training set, frozen under a digest.

A version is a list of members. The same tensors, labels and sides give the same version, whenever and wherever it is
frozen; a changed one gives a new version beside the old. How one is had again is in `frozen`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy.typing as npt

from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.tensors.assignment import Assignment, LeftOut, Subject, assign
from imaging_pipeline.tensors.candidates import Candidate, find_candidates, groups_of
from imaging_pipeline.tensors.definition import LABEL, DatasetDefinition, stored_definition
from imaging_pipeline.tensors.duplicates import fingerprint, twins_on_stricter_sides
from imaging_pipeline.tensors.recipe import Recipe
from imaging_pipeline.tensors.shards import ShardError, ShardReader
from imaging_pipeline.tensors.splits import Split

CODE_VERSION = "3"
"""Raised whenever the same rows and definition would make another version."""

VERSION_HEX_DIGITS = 12

ATTEMPTS = 3
"""How often tensors that other runs move meanwhile are looked for again."""

OpenShard = Callable[[str], ShardReader]
"""Opens the shard at a URI."""


@dataclass(frozen=True, slots=True)
class Member:
    """One labelled tensor of a dataset version.

    Attributes:
        tensor_key: the tensor.
        instance_key: its instance in the research lake; empty for a volume.
        patient: pseudonym, the unit of the split.
        split: its side.
        label_key: the label's row.
        label: 1.0 for the finding, 0.0 for none.
        tensor_sha256: digest of the tensor's bytes.
        shard: URI of the shard's file.
        row: row in the shard.
        series_key: its series, by which a volume is known.
        label_source: where the label comes from.
    """

    tensor_key: str
    instance_key: str
    patient: str
    split: Split
    label_key: str
    label: float
    tensor_sha256: str
    shard: str
    row: int
    series_key: str = ""
    label_source: str = ""

    @property
    def subject_key(self) -> str:
        """The instance, or the series of a volume."""
        return self.instance_key or self.series_key


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """A frozen dataset.

    Attributes:
        dataset_id: name of the definition and of the recipe.
        version: first digits of the manifest's digest.
        manifest_sha256: digest over all members.
        snapshot_id: research lake snapshot it was read from.
        members: in the order of their tensor keys.
        is_new: it was frozen by this call.
        left_out: images that could have been members, by reason.
    """

    dataset_id: str
    version: str
    manifest_sha256: str
    snapshot_id: int
    members: tuple[Member, ...]
    is_new: bool
    left_out: Mapping[str, int] = field(default_factory=dict)

    def side(self, split: str) -> list[Member]:
        """Members of one side: ``train``, ``val`` or ``test``."""
        return [member for member in self.members if member.split == split]

    def counts(self) -> list[tuple[str, int, int, int]]:
        """Per side: name, patients, images, images with the finding."""
        return [
            (side.value, len({m.patient for m in members}), len(members), sum(m.label > 0 for m in members))
            for side in Split
            for members in [self.side(side)]
        ]


@dataclass(frozen=True, slots=True)
class Assigned:
    """What a dataset may be made of, and where each of it belongs; pixels have not been looked at yet."""

    dataset_id: str
    candidates: Sequence[Candidate]
    assignment: Assignment
    left_out: Counter[LeftOut]


def freeze_dataset(
    lake: Lake, recipe: Recipe, definition: DatasetDefinition, open_shard: OpenShard, *, project: str | None = None
) -> DatasetVersion:
    """Freeze a dataset as it is now as a version; an unchanged one is returned as it is.

    Only images of complete studies are taken: a late image takes its study out until it settles again, and then the
    next version holds all of it. What was withdrawn is in no later version; earlier ones keep their members' keys.

    Args:
        lake: the research lake.
        recipe: how the tensors were made.
        definition: what is taken, and how it is split.
        open_shard: opens a shard by its URI, to look for the same pixels on two sides.
        project: research project of the pseudonyms, for the version's row.

    Raises:
        ConfigurationError: no tensor of a complete study has a label, or the cohort cannot be used.
        ShardError: a shard is missing or damaged.
        TransientError: the lake is locked, or tensors keep changing.
    """
    name = f"{definition.name}-{recipe.name}"
    version, snapshot = _divided_now(lake, recipe.digest, definition, name, open_shard)
    if not version.members:
        raise ConfigurationError(
            f"no image of a complete study has a {definition.task} label: put a labels CSV into the landing folder and "
            "load it with its images; a study is complete when no image has come for a while"
        )
    known = lake.rows(
        "SELECT snapshot_id FROM gold.dataset_version WHERE dataset_id = ? AND dataset_version = ?",
        [name, version.version],
    )
    if known:
        return replace(version, snapshot_id=int(str(known[0][0])), is_new=False)
    version = replace(version, snapshot_id=snapshot, is_new=True)
    _write(lake, version, recipe, definition, project)
    return version


def _divided_now(
    lake: Lake, recipe_digest: str, definition: DatasetDefinition, name: str, open_shard: OpenShard
) -> tuple[DatasetVersion, int]:
    """The dataset as it is now, and the snapshot that says so."""
    failed: Sequence[Candidate] | None = None
    for _ in range(ATTEMPTS):
        with lake.one_snapshot():
            snapshot = lake.snapshot_id()
            assigned = assign_candidates(lake, recipe_digest, definition, name)
        try:
            return divide(assigned, open_shard), snapshot
        except ShardError:
            if assigned.candidates == failed:
                raise
            failed = assigned.candidates  # another run may have moved its tensors to a new shard since
    raise TransientError("tensors keep changing: freeze the dataset again")


def assign_candidates(lake: Lake, recipe_digest: str, definition: DatasetDefinition, dataset_id: str) -> Assigned:
    """Find the labelled tensors of a dataset in a lake, now or at a snapshot, and put each on a side."""
    candidates, left_out = find_candidates(lake, recipe_digest, definition)
    plan = definition.split
    names = {*plan.stratify, *([plan.hold_out.by] if plan.hold_out else [])}
    groups = groups_of(lake, [each.subject_key for each in candidates]) if names - {LABEL} else {}
    subjects = [
        Subject(
            key=each.tensor_key,
            patient=each.patient,
            groups={LABEL: f"{each.label:g}"} | groups.get(each.subject_key, {}),
            official=each.official,
        )
        for each in candidates
    ]
    before = _sides_before(lake, dataset_id, definition) if plan.looks_back else {}
    assignment = assign(subjects, plan, before)
    return Assigned(dataset_id, candidates, assignment, left_out + Counter(assignment.left_out.values()))


def _sides_before(lake: Lake, dataset_id: str, definition: DatasetDefinition) -> dict[str, Split]:
    """Sides of all patients who were in an earlier version of the dataset that was split in the same way."""
    versions = lake.rows(
        "SELECT dataset_version, definition FROM gold.dataset_version WHERE dataset_id = ?", [dataset_id]
    )
    same = [version for version, text in versions if stored_definition(str(text)).split == definition.split]
    rows = lake.rows(
        """SELECT DISTINCT patient_pseudonym, split FROM gold.dataset_member
        WHERE dataset_id = ? AND dataset_version IN (SELECT unnest(?))""",
        [dataset_id, same],
    )
    return {str(patient): Split(str(side)) for patient, side in rows}


def divide(assigned: Assigned, open_shard: OpenShard) -> DatasetVersion:
    """Look at the pixels, leave out what is on two sides, and make the version of the rest; its snapshot is 0.

    Raises:
        ShardError: a shard is missing or damaged.
    """
    sides = assigned.assignment.sides
    on_a_side = [member_of(each, sides[each.tensor_key]) for each in assigned.candidates if each.tensor_key in sides]
    twins = twins_of(on_a_side, open_shard)
    members = tuple(member for member in on_a_side if member.tensor_key not in twins)
    left_out = assigned.left_out + Counter({LeftOut.SAME_PIXELS: len(twins)})
    digest = manifest_digest(members)
    return DatasetVersion(
        dataset_id=assigned.dataset_id,
        version=digest[:VERSION_HEX_DIGITS],
        manifest_sha256=digest,
        snapshot_id=0,
        members=members,
        is_new=False,
        left_out={str(reason): left_out[reason] for reason in LeftOut if left_out[reason]},
    )


def member_of(candidate: Candidate, side: Split) -> Member:
    """The member that a candidate becomes on a side."""
    return Member(
        tensor_key=candidate.tensor_key,
        instance_key=candidate.instance_key,
        patient=candidate.patient,
        split=side,
        label_key=candidate.label_key,
        label=candidate.label,
        tensor_sha256=candidate.tensor_sha256,
        shard=candidate.tensor_uri,
        row=candidate.row,
        series_key=candidate.series_key,
        label_source=candidate.label_source,
    )


def twins_of(members: Sequence[Member], open_shard: OpenShard) -> set[str]:
    """Tensor keys of the members whose pixels, or nearly the same, are on a stricter side too.

    Raises:
        ShardError: a shard is missing or damaged.
    """
    prints = {member.tensor_key: fingerprint(tensor) for member, tensor in read_tensors(members, open_shard)}
    sides = {member.tensor_key: member.split for member in members}
    return twins_on_stricter_sides(sides, {member.tensor_key: member.tensor_sha256 for member in members}, prints)


def read_tensors(members: Iterable[Member], open_shard: OpenShard) -> Iterator[tuple[Member, npt.NDArray[Any]]]:
    """Each member with its tensor, in the order of the shards: each shard is opened once.

    Raises:
        ShardError: a shard is missing or damaged, or has no such row.
    """
    for uri, group in groupby(sorted(members, key=attrgetter("shard", "row")), key=attrgetter("shard")):
        reader = open_shard(uri)
        for member in group:
            if member.row >= len(reader):
                raise ShardError(f"expected a shard of more than {member.row} rows, found {len(reader)}")
            yield member, reader.tensor(member.row)


def manifest_digest(members: Sequence[Member]) -> str:
    """SHA-256 over all members, hex."""
    lines = (f"{m.tensor_key} {m.tensor_sha256} {m.patient} {m.split} {m.label:g}" for m in members)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _write(
    lake: Lake, dataset: DatasetVersion, recipe: Recipe, definition: DatasetDefinition, project: str | None
) -> None:
    key: dict[str, object] = {"dataset_id": dataset.dataset_id, "dataset_version": dataset.version}
    profiles = lake.rows(
        """SELECT DISTINCT profile_id, profile_version, key_id FROM deid.deid_verification
        WHERE instance_key IN (SELECT unnest(?)) ORDER BY ALL""",
        [[member.instance_key for member in dataset.members]],
    )
    profile_id, profile_version, key_id = (
        (", ".join(sorted({str(value) for value in column})) or None for column in zip(*profiles, strict=True))
        if profiles
        else (None, None, None)
    )
    version: dict[str, object] = key | {
        "cohort_sql": definition.cohort,
        "recipe_id": recipe.digest,
        "recipe_json": recipe.to_json(),
        "label_task": definition.task,
        "deid_profile_id": profile_id,
        "deid_profile_version": profile_version,
        "deid_key_id": key_id,
        "project": project,
        "split_seed": definition.split.seed,
        "split_unit": "PATIENT",
        "member_count": len(dataset.members),
        "patient_count": len({member.patient for member in dataset.members}),
        "manifest_sha256": dataset.manifest_sha256,
        "license": definition.licence,
        "definition": definition.to_json(),
        "left_out": json.dumps(dict(dataset.left_out)),
        "snapshot_id": dataset.snapshot_id,
        "created_at": datetime.now(UTC).replace(tzinfo=None),
    }
    members: list[dict[str, object]] = [
        key
        | {
            "tensor_key": member.tensor_key,
            "patient_pseudonym": member.patient,
            "split": member.split,
            "label_key": member.label_key,
        }
        for member in dataset.members
    ]
    where, parameters = "dataset_id = ? AND dataset_version = ?", list(key.values())
    with lake.transaction():
        for table, rows in (("dataset_version", [version]), ("dataset_member", members)):
            lake.replace_all("gold", table, registry.table(table).rows(rows), where=where, parameters=list(parameters))
