"""Labelled tensors of released images in a research lake, as the steps before a dataset leave them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.tensors.assignment import SplitBy, SplitPlan
from imaging_pipeline.tensors.definition import DatasetDefinition
from imaging_pipeline.tensors.recipe import Recipe
from imaging_pipeline.tensors.shards import TensorRow, shard_schema
from imaging_pipeline.tensors.splits import SplitFractions
from imaging_pipeline.tensors.storage import ShardStore
from imaging_pipeline.tensors.versions import DatasetVersion, freeze_dataset
from imaging_pipeline_tests.tensors.rows import small_recipe

BATCH = "2026-01-31.00001"

PLAN = SplitPlan(SplitBy.PATIENT, 7, SplitFractions(0.6, 0.2, 0.2))
DEFINITION = DatasetDefinition("small", "t", PLAN)


def picture(name: str, recipe: Recipe) -> np.ndarray:
    """Another image for every name."""
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
    return np.random.default_rng(seed).integers(0, 256, recipe.shape).astype(np.uint8)


class Labelled:
    """A lake that is filled image by image; each has a study of its own unless told otherwise."""

    def __init__(self, lake: Lake, shards: Path | ShardStore) -> None:
        self.lake, self.recipe = lake, small_recipe()
        self.store = ShardStore(str(shards)) if isinstance(shards, Path) else shards
        self.waiting: dict[str, dict[object, dict[str, object]]] = {}

    def put(self, table: str, **values: object) -> None:
        """One row, in the place of the one with its key; written with all others by `flush`."""
        entry = registry.table(table)
        row = {column.name: values[column.name] for column in entry.columns if column.name in values}
        self.waiting.setdefault(table, {})[row[entry.key[0]]] = row

    def flush(self) -> None:
        with self.lake.transaction():
            for table, rows in self.waiting.items():
                entry = registry.table(table)
                where = f"{entry.key[0]} IN (SELECT {entry.key[0]} FROM staged_rows)"
                staged = entry.rows(list(rows.values()))
                self.lake.replace_all(entry.schemas[-1], table, staged, where=where, parameters=[])
        self.waiting = {}

    def add(
        self,
        name: str,
        study: str = "",
        *,
        images: int = 1,
        label: float = 0.0,
        source: str = "s",
        array: np.ndarray | None = None,
        settled: bool = True,
        sex: str | None = None,
        maker: str | None = None,
        official: str | None = None,
        task: str = "t",
    ) -> None:
        """One more image of a patient with one study, which has ``images`` now."""
        study = study or f"study-{name}"
        common = {"arrival_batch": BATCH, "row_version": BATCH, "instance_key": name, "series_key": study}
        common |= {"sop_instance_uid": f"2.25.{name}", "study_key": study, "patient_key": study}
        self.put("dicom_instance", **common)
        self.put("dicom_series", **common, series_instance_uid=study, modality="DX")
        counted = {"number_of_study_related_instances": images}
        self.put("dicom_study", **common, **counted, study_instance_uid=study, patient_age_years=45.0)
        self.put("dicom_patient", **common, patient_id=study, patient_domain="d", patient_sex=sex)
        if maker:
            self.put("dicom_equipment", **common, equipment_key=maker, manufacturer_normalized=maker)
            self.put("dicom_file_location", **common, file_location_key=name, location_key=name, equipment_key=maker,
                     storage_uri=f"file:///{name}", object_key=name, role="PRIMARY")  # fmt: skip
        self.put_tensor(name, study, picture(name, self.recipe) if array is None else array)
        self.put_label(name, label, source, official, task)
        if settled:
            self.settle(study, images)

    def put_tensor(self, name: str, study: str, array: np.ndarray) -> None:
        """The tensor of an image; or that of a volume, which is of a series and of no instance."""
        is_image = array.ndim == 3
        sha256 = hashlib.sha256(array.tobytes()).hexdigest()
        row = TensorRow(
            tensor_key=name,
            series_key=study,
            instance_key=name if is_image else None,
            sop_instance_uid=f"2.25.{name}" if is_image else None,
            frame_number=1 if is_image else None,
            patient_id=study,
            array=array,
            minimum=0.0,
            maximum=255.0,
            mean=128.0,
            standard_deviation=50.0,
            tensor_sha256=sha256,
            source_content_sha256=sha256,
        )
        with self.store.write("recipe", name, shard_schema(self.recipe, self.store.compression)) as writer:
            writer.add(row)
        self.put(
            "image_tensor",
            arrival_batch=BATCH,
            tensor_key=name,
            instance_key=row.instance_key,
            series_key=study,
            sop_instance_uid=row.sop_instance_uid,
            patient_pseudonym=study,
            recipe_id=self.recipe.digest,
            tensor_uri=writer.shards[0].uri,
            shard_row=0,
            shape=list(array.shape),
            dtype=str(array.dtype),
            tensor_sha256=sha256,
            source_content_sha256=sha256,
            is_deidentified=True,
            frame_number=row.frame_number,
        )

    def put_label(
        self, name: str, label: float | None, source: str = "s", official: str | None = None, task: str = "t"
    ) -> None:
        row = {"label_key": f"{name} {source}", "subject_level": "INSTANCE", "subject_key": name, "task": task}
        self.put("label", **row, source=source, label_value="", label_numeric=label, official_split=official)

    def settle(self, study: str, instances: int, state: str = "COMPLETE") -> None:
        row = {"study_key": study, "study_instance_uid": study, "state": state, "instances": instances}
        self.put("study_state", **row, is_forced=False, revision=0)

    def freeze(self, definition: DatasetDefinition = DEFINITION) -> DatasetVersion:
        self.flush()
        return freeze_dataset(self.lake, self.recipe, definition, self.store.open, project="chest")


def members(dataset: DatasetVersion) -> list[str]:
    return [member.tensor_key for member in dataset.members]


def sides(dataset: DatasetVersion) -> dict[str, str]:
    return {member.tensor_key: str(member.split) for member in dataset.members}
