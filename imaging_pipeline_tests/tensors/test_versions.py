"""Frozen datasets: only complete studies, and nothing that was withdrawn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.tensors.batch import withdraw_tensors
from imaging_pipeline.tensors.recipe import Recipe, load_recipe
from imaging_pipeline.tensors.splits import SplitFractions
from imaging_pipeline.tensors.versions import DatasetVersion, freeze_dataset
from imaging_pipeline_tests.metadata.headers import memory_lake

BATCH = "2026-01-31.00001"


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("chest-xray-224")


class Labelled:
    """Labelled tensors of released images, as the steps before leave their rows."""

    def __init__(self, lake: Lake, recipe: Recipe) -> None:
        self.lake = lake
        self.recipe = recipe

    def put(self, table: str, **values: object) -> None:
        schema = registry.table(table).schemas[-1]
        row = {c.name: values[c.name] for c in registry.table(table).columns if c.name in values}
        with self.lake.transaction():
            rows = registry.table(table).rows([row])
            key = registry.table(table).key[0]
            self.lake.replace_all(schema, table, rows, where=f"{key} = ?", parameters=[row[key]])

    def add(self, name: str, study: str, images: int) -> None:
        """One more image of a study that has ``images`` now."""
        common = {"arrival_batch": BATCH, "row_version": BATCH, "instance_key": name, "series_key": study}
        common["sop_instance_uid"] = f"2.25.{name}"
        self.put("dicom_instance", **common)
        self.put("dicom_series", **common, study_key=study, series_instance_uid=study)
        counted = {"number_of_study_related_instances": images}
        self.put("dicom_study", **common, **counted, study_key=study, patient_key=study, study_instance_uid=study)
        tensor = {"tensor_key": name, "patient_pseudonym": study, "recipe_id": self.recipe.digest}
        where = {"tensor_uri": f"file:///nowhere/{name}", "shard_row": 0, "shape": [1], "dtype": "float16"}
        stats = {"min_value": 0.0, "max_value": 1.0, "mean_value": 0.5, "std_value": 0.1}
        proof = {"tensor_sha256": name, "source_content_sha256": name, "is_deidentified": True}
        self.put("image_tensor", **common, **tensor, **where, **stats, **proof)
        label = {"label_key": name, "subject_level": "INSTANCE", "subject_key": name, "task": "t", "source": "s"}
        self.put("label", **label, label_value="no", label_numeric=0.0)

    def settle(self, study: str, instances: int, state: str = "COMPLETE") -> None:
        row = {"study_key": study, "study_instance_uid": study, "state": state, "instances": instances}
        self.put("study_state", **row, is_forced=False, revision=0)

    def freeze(self) -> DatasetVersion:
        return freeze_dataset(self.lake, self.recipe, task="t", fractions=SplitFractions())


@pytest.fixture
def labelled(recipe: Recipe) -> Iterator[Labelled]:
    with memory_lake("research") as lake:
        lake.snapshot_id = lambda: 1  # type: ignore[method-assign] - a plain database has no snapshots
        yield Labelled(lake, recipe)


def members(dataset: DatasetVersion) -> list[str]:
    return [member.tensor_key for member in dataset.members]


def test_images_of_open_studies_wait(labelled: Labelled) -> None:
    labelled.add("a", "s1", 1)
    labelled.add("b", "s2", 1)
    labelled.add("c", "s3", 1)
    with pytest.raises(ConfigurationError, match="complete study"):
        labelled.freeze()
    labelled.settle("s1", 1)
    labelled.settle("s2", 1, "OPEN")
    assert members(labelled.freeze()) == ["a"]


def test_a_late_image_takes_its_study_out_until_it_settles_again(labelled: Labelled) -> None:
    labelled.add("a", "s1", 1)
    labelled.add("b", "s2", 1)
    labelled.settle("s1", 1)
    labelled.settle("s2", 1)
    first = labelled.freeze()
    labelled.add("late", "s2", 2)
    assert members(labelled.freeze()) == ["a"]
    labelled.settle("s2", 2)
    last = labelled.freeze()
    assert members(last) == ["a", "b", "late"]
    assert last.version != first.version


def test_a_withdrawn_image_is_in_no_later_version_and_stays_in_the_earlier(labelled: Labelled) -> None:
    labelled.add("a", "s1", 1)
    labelled.add("b", "s2", 1)
    labelled.settle("s1", 1)
    labelled.settle("s2", 1)
    first = labelled.freeze()
    withdraw_tensors(labelled.lake, {"b"}, labelled.recipe)
    assert members(labelled.freeze()) == ["a"]
    kept = labelled.lake.rows(
        "SELECT tensor_key FROM gold.dataset_member WHERE dataset_version = ? ORDER BY 1", [first.version]
    )
    assert kept == [("a",), ("b",)]
