"""Dataset versions: which tensors, labels and sides make a training set, frozen under a digest.

A version is a list of members. The same tensors, labels and split give the same version, whenever and wherever
it is frozen; a changed one gives a new version beside the old.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.folder import uri_to_path
from imaging_pipeline.tensors.recipe import Recipe
from imaging_pipeline.tensors.splits import Split, SplitFractions, split_of

SPLIT_SEED = 20_260_101
"""Changing it reshuffles patients between sides, which leaks the old test set into training: don't."""

VERSION_HEX_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Member:
    """One labelled tensor of a dataset version.

    Attributes:
        tensor_key: the tensor.
        instance_key: its instance in the research lake.
        patient: pseudonym, the unit of the split.
        split: its side.
        label_key: the label's row.
        label: 1.0 for the finding, 0.0 for none.
        tensor_sha256: digest of the tensor's bytes.
        shard: the shard's file.
        row: row in the shard.
    """

    tensor_key: str
    instance_key: str
    patient: str
    split: Split
    label_key: str
    label: float
    tensor_sha256: str
    shard: Path
    row: int


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """A frozen dataset.

    Attributes:
        dataset_id: task and recipe name.
        version: first digits of the manifest's digest.
        manifest_sha256: digest over all members.
        snapshot_id: research lake snapshot it was read from.
        members: in the order of their tensor keys.
        is_new: it was frozen by this call.
    """

    dataset_id: str
    version: str
    manifest_sha256: str
    snapshot_id: int
    members: tuple[Member, ...]
    is_new: bool

    def side(self, split: Split) -> list[Member]:
        """Members of one side."""
        return [member for member in self.members if member.split is split]

    def counts(self) -> list[tuple[str, int, int, int]]:
        """Per side: name, patients, images, images with the finding."""
        return [
            (side.value, len({m.patient for m in members}), len(members), sum(m.label > 0 for m in members))
            for side in Split
            for members in [self.side(side)]
        ]


def freeze_dataset(lake: Lake, recipe: Recipe, *, task: str, fractions: SplitFractions) -> DatasetVersion:
    """Freeze the labelled tensors of a task as a dataset version; an unchanged one is returned as it is.

    Only images of complete studies are taken: a late image takes its study out until it settles again, and then the
    next version holds all of it. What was withdrawn is in no later version; earlier ones keep their members.

    Raises:
        ConfigurationError: no tensor of a complete study has a label.
        TransientError: the lake is locked.
    """
    snapshot = lake.snapshot_id()
    members = _members(lake, recipe, task, fractions)
    if not members:
        raise ConfigurationError(
            f"no image of a complete study has a {task} label: put a labels CSV into the landing folder and load it "
            "with its images; a study is complete when no image has come for a while"
        )
    digest = _digest(members)
    dataset_id, version = f"{task}-{recipe.name}", digest[:VERSION_HEX_DIGITS]
    known = lake.rows(
        "SELECT snapshot_id FROM gold.dataset_version WHERE dataset_id = ? AND dataset_version = ?",
        [dataset_id, version],
    )
    dataset = DatasetVersion(dataset_id, version, digest, snapshot, members, is_new=not known)
    if known:
        return DatasetVersion(dataset_id, version, digest, int(str(known[0][0])), members, is_new=False)
    _write(lake, dataset, recipe, task)
    return dataset


def _members(lake: Lake, recipe: Recipe, task: str, fractions: SplitFractions) -> tuple[Member, ...]:
    rows = lake.rows(
        """SELECT tensor_key, instance_key, patient_pseudonym, label_key, label_numeric, tensor_sha256,
            tensor_uri, shard_row
        FROM gold.image_tensor JOIN gold.label ON subject_key = instance_key
        WHERE recipe_id = ? AND task = ? AND subject_level = 'INSTANCE' AND label_numeric IS NOT NULL
            AND instance_key IN (
                SELECT instance_key FROM deid.dicom_instance
                JOIN deid.dicom_series USING (series_key)
                JOIN deid.dicom_study AS study USING (study_key)
                JOIN deid.study_state USING (study_key)
                WHERE state = 'COMPLETE' AND study.number_of_study_related_instances <= instances)
        ORDER BY tensor_key""",
        [recipe.digest, task],
    )
    return tuple(
        Member(
            tensor_key=str(tensor_key),
            instance_key=str(instance_key),
            patient=str(patient),
            split=split_of(str(patient), seed=SPLIT_SEED, fractions=fractions),
            label_key=str(label_key),
            label=float(str(label)),
            tensor_sha256=str(tensor_sha256),
            shard=uri_to_path(str(uri)),
            row=int(str(row)),
        )
        for tensor_key, instance_key, patient, label_key, label, tensor_sha256, uri, row in rows
    )


def _digest(members: Sequence[Member]) -> str:
    lines = (f"{m.tensor_key} {m.tensor_sha256} {m.patient} {m.split} {m.label:g}" for m in members)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _write(lake: Lake, dataset: DatasetVersion, recipe: Recipe, task: str) -> None:
    key: dict[str, object] = {"dataset_id": dataset.dataset_id, "dataset_version": dataset.version}
    profile = lake.rows("SELECT profile_id, profile_version FROM deid.deid_verification LIMIT 1")
    version: dict[str, object] = key | {
        "recipe_id": recipe.digest,
        "label_task": task,
        "deid_profile_id": profile[0][0] if profile else None,
        "deid_profile_version": profile[0][1] if profile else None,
        "split_seed": SPLIT_SEED,
        "split_unit": "PATIENT",
        "member_count": len(dataset.members),
        "patient_count": len({member.patient for member in dataset.members}),
        "manifest_sha256": dataset.manifest_sha256,
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
