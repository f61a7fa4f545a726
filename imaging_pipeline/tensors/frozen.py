"""Frozen dataset versions: found, loaded, and made again bit by bit from the snapshot they were read from.

A version can be had again for as long as none of its images has been taken back: what is withdrawn is gone from every
version, and the version says so instead of shrinking.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from imaging_pipeline.errors import ConfigurationError, ImagingError
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.tensors.candidates import Candidate, find_candidates
from imaging_pipeline.tensors.definition import DatasetDefinition, stored_definition
from imaging_pipeline.tensors.snapshots import at_snapshot
from imaging_pipeline.tensors.splits import Split
from imaging_pipeline.tensors.versions import (
    DatasetVersion,
    OpenShard,
    assign_candidates,
    divide,
    manifest_digest,
    member_of,
    read_tensors,
)


class VersionLost(ImagingError):
    """A dataset version cannot be had again as it was; the message says why."""


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """The row of a version.

    Attributes:
        dataset_id: name of its definition and of its recipe.
        version: its first digits.
        manifest_sha256: digest over its members.
        recipe_digest: of the recipe of its tensors.
        recipe_json: the recipe.
        snapshot_id: research lake snapshot it was read from.
        definition: what it is made of.
        left_out: images that could have been members, by reason.
        profile: de-identification profile and its version.
        key_id: stands for the keys of its pseudonyms.
        project: research project of its pseudonyms; empty when it was not told.
    """

    dataset_id: str
    version: str
    manifest_sha256: str
    recipe_digest: str
    recipe_json: str
    snapshot_id: int
    definition: DatasetDefinition
    left_out: Mapping[str, int]
    profile: str
    key_id: str
    project: str


def find_version(lake: Lake, name: str) -> VersionRecord:
    """The record of a version.

    Args:
        lake: the research lake.
        name: first digits of the version, also as ``ID/DIGITS``, since two datasets with the same members have the same
            digits; or the name or id of a dataset, for its newest version.

    Raises:
        ConfigurationError: there is no such version, or several begin with these digits.
    """
    rows = lake.rows(
        """SELECT dataset_id, dataset_version, manifest_sha256, recipe_id, recipe_json, snapshot_id, definition,
            left_out, concat_ws(' ', deid_profile_id, deid_profile_version), coalesce(deid_key_id, ''),
            coalesce(project, '')
        FROM gold.dataset_version
        WHERE starts_with(dataset_version, $name) OR dataset_id = $name OR (definition->>'name') = $name
            OR (contains($name, '/') AND starts_with(concat(dataset_id, '/', dataset_version), $name))
        ORDER BY created_at DESC, dataset_id, dataset_version""",
        {"name": name},
    )
    is_version = [row for row in rows if (f"{row[0]}/{row[1]}" if "/" in name else str(row[1])).startswith(name)]
    if len(is_version) > 1:
        raise ConfigurationError(
            f"{len(is_version)} dataset versions begin with these digits: give more of them, or ID/DIGITS with the id "
            "that 'imaging-pipeline dataset list' shows"
        )
    if not rows:
        raise ConfigurationError("there is no such dataset version: 'imaging-pipeline dataset list' shows all")
    *texts, snapshot, definition, left_out, profile, key_id, project = (is_version or rows)[0]
    named, version, manifest, recipe_digest, recipe_json = map(str, texts)
    return VersionRecord(
        named,
        version,
        manifest,
        recipe_digest,
        recipe_json,
        int(str(snapshot)),
        stored_definition(str(definition)),
        json.loads(str(left_out)),
        str(profile),
        str(key_id),
        str(project),
    )


def load_version(lake: Lake, name: str) -> DatasetVersion:
    """A frozen version: its members and labels as they were, its tensors where they are now.

    Args:
        lake: the research lake.
        name: as in `find_version`.

    Raises:
        ConfigurationError: there is no such version, or its snapshot was expired.
        VersionLost: images of it were taken back.
    """
    record = find_version(lake, name)
    sides = {
        str(key): Split(str(side))
        for key, side in lake.rows(
            """SELECT tensor_key, split FROM gold.dataset_member WHERE dataset_id = ? AND dataset_version = ?
            ORDER BY tensor_key""",
            [record.dataset_id, record.version],
        )
    }
    with at_snapshot(lake, record.snapshot_id) as earlier:
        found, _ = find_candidates(earlier, record.recipe_digest, record.definition)
    candidates = _where_now(lake, record, [each for each in found if each.tensor_key in sides])
    members = tuple(member_of(each, sides[each.tensor_key]) for each in candidates)
    if manifest_digest(members) != record.manifest_sha256:
        raise VersionLost(f"the members of dataset version {record.version} are not those of its manifest any more")
    return DatasetVersion(
        record.dataset_id,
        record.version,
        record.manifest_sha256,
        record.snapshot_id,
        members,
        is_new=False,
        left_out=record.left_out,
    )


def rebuild_version(lake: Lake, name: str, open_shard: OpenShard) -> DatasetVersion:
    """Make a version again from its snapshot and definition, and prove that members and tensors are the same.

    Args:
        lake: the research lake.
        name: as in `find_version`.
        open_shard: opens a shard by its URI.

    Raises:
        ConfigurationError: there is no such version, or its snapshot was expired.
        VersionLost: images of it, or images they were compared with, were taken back; or the result differs.
        ShardError: a shard is missing or damaged.
    """
    record = find_version(lake, name)
    with at_snapshot(lake, record.snapshot_id) as earlier:
        assigned = assign_candidates(earlier, record.recipe_digest, record.definition, record.dataset_id)
    again = divide(replace(assigned, candidates=_where_now(lake, record, assigned.candidates)), open_shard)
    if again.manifest_sha256 != record.manifest_sha256:
        raise VersionLost(
            f"dataset version {record.version}, made again, is {again.version}: it was frozen by another version of "
            "this software, or its rows were changed"
        )
    for member, tensor in read_tensors(again.members, open_shard):
        if hashlib.sha256(tensor.tobytes()).hexdigest() != member.tensor_sha256:
            raise VersionLost(f"tensor {member.tensor_key} has other bytes than it had: run its batch again")
    return replace(again, snapshot_id=record.snapshot_id)


def known_versions(lake: Lake) -> list[tuple[object, ...]]:
    """Id, version, images, patients and snapshot of all versions, the newest first."""
    return lake.rows(
        """SELECT dataset_id, dataset_version, member_count, patient_count, snapshot_id
        FROM gold.dataset_version ORDER BY created_at DESC, dataset_id, dataset_version"""
    )


def _where_now(lake: Lake, record: VersionRecord, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The same where their tensors are now.

    Raises:
        VersionLost: some were taken back, or released anew from other content.
    """
    rows = lake.rows(
        """SELECT tensor_key, tensor_sha256, tensor_uri, shard_row FROM gold.image_tensor
        WHERE tensor_key IN (SELECT unnest(?))""",
        [[each.tensor_key for each in candidates]],
    )
    places = {(str(key), str(sha256)): (str(uri), int(str(row))) for key, sha256, uri, row in rows}
    kept = [each for each in candidates if (each.tensor_key, each.tensor_sha256) in places]
    if lost := len(candidates) - len(kept):
        raise VersionLost(
            f"dataset version {record.version} cannot be had again: {lost} of the {len(candidates)} images it was made "
            "from were taken back or replaced since, and what is withdrawn stays withdrawn; freeze the dataset anew"
        )
    moved = (places[each.tensor_key, each.tensor_sha256] for each in kept)
    return [replace(each, tensor_uri=uri, row=row) for each, (uri, row) in zip(kept, moved, strict=True)]
