"""Drift and results of batches in a lake, as Dagster runs them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from imaging_pipeline.definitions import build_defs
from imaging_pipeline.defs.assets.results import drift, gold_result_object, silver_result_object
from imaging_pipeline.defs.checks.drift import batch_looks_like_validation
from imaging_pipeline.defs.reporting import asset_key
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.folder import path_to_uri
from imaging_pipeline.pneumonia.drift import Verdict
from imaging_pipeline.pneumonia.drift_batch import drifted, load_drift
from imaging_pipeline.pneumonia.prediction import load_champion
from imaging_pipeline.pneumonia.scoring import score_batch
from imaging_pipeline.settings import Settings
from imaging_pipeline.tensors.build import TensorSource, build_tensor
from imaging_pipeline.tensors.shards import TensorRow, write_shard
from imaging_pipeline_tests.conftest import environment
from imaging_pipeline_tests.dicom.images import image
from imaging_pipeline_tests.pneumonia.images import BrightSpots
from imaging_pipeline_tests.pneumonia.learned import LearnedModel

DATASET = "2026-01-31.00001"
LIKE, BRIGHTER = "2026-02-01.00001", "2026-02-02.00001"


def put(lake: Lake, folder: Path, model: LearnedModel, batch: str, count: int, *, brighter: int = 0) -> list[TensorRow]:
    """Tensors of a batch, one of each patient, in the index."""
    spots = BrightSpots(count, seed=int(batch[9]) * 10 + count)
    made = []
    for number, pixels in enumerate(spots.images[:, 0]):
        stored = np.clip(np.round(pixels * 255) + brighter, 0, 255).astype(np.uint8)
        source = TensorSource(f"{batch} {number}", f"2.25.{number}", f"{batch} patient {number}")
        row = build_tensor(source, image(stored, WindowCenter=127.5, WindowWidth=255), model.recipe)
        assert isinstance(row, TensorRow)
        made.append(row)
    shard = write_shard(folder / f"{batch}.arrow", made, model.recipe)
    rows: list[dict[str, object]] = [
        {
            "tensor_key": row.tensor_key, "instance_key": row.instance_key, "sop_instance_uid": row.sop_instance_uid,
            "patient_pseudonym": row.patient_id, "recipe_id": model.recipe.digest, "mean_value": row.mean,
            "std_value": row.standard_deviation, "tensor_uri": path_to_uri(shard.path), "shard_row": number,
            "arrival_batch": batch,
        }
        for number, row in enumerate(made)
    ]  # fmt: skip
    with lake.transaction():
        lake.replace_batch("gold", "image_tensor", registry.table("image_tensor").rows(rows), batch)
    return made


def put_members(lake: Lake, model: LearnedModel, made: list[TensorRow]) -> None:
    """The dataset version of the champion, half of it held out."""
    dataset = model.dataset
    rows: list[dict[str, object]] = [
        {
            "dataset_id": dataset.dataset_id, "dataset_version": dataset.version, "tensor_key": row.tensor_key,
            "patient_pseudonym": row.patient_id, "split": ("train", "val", "train", "test")[number % 4],
        }
        for number, row in enumerate(made)
    ]  # fmt: skip
    with lake.transaction():
        staged = registry.table("dataset_member").rows(rows)
        lake.replace_all("gold", "dataset_member", staged, where="true", parameters=[])


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, learned_model: LearnedModel) -> Workspace:
    """A research lake with two predicted batches beside the champion's dataset, and an empty identified one."""
    folder = tmp_path_factory.mktemp("drift")
    settings = Settings.from_environment(environment(folder / "home", TENSOR_FILES=str(folder)))
    made = Workspace(replace(settings, mlflow_tracking_uri=learned_model.tracker.tracking_uri))
    with made.identified(), made.research() as lake:
        put_members(lake, learned_model, put(lake, folder, learned_model, DATASET, 60))
        for batch, brighter in ((LIKE, 0), (BRIGHTER, 60)):
            put(lake, folder, learned_model, batch, 30, brighter=brighter)
            score_batch(lake, batch, learned_model.recipe.digest, learned_model.tracker)
    return made


def test_a_brighter_batch_warns_in_dagster_and_its_results_are_made_in_both_zones(workspace: Workspace) -> None:
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("arrival_batch", [BRIGHTER])
        result = dg.materialize(
            [drift, gold_result_object, silver_result_object, batch_looks_like_validation],
            selection=dg.AssetSelection.all() | dg.AssetSelection.all_asset_checks(),
            instance=instance,
            partition_key=BRIGHTER,
            resources={"workspace": workspace},
        )
    (check,) = result.get_asset_check_evaluations()
    assert (check.passed, check.severity, check.blocking) == (False, dg.AssetCheckSeverity.WARN, False)
    assert "brightness" in str(check.metadata["drifted"].value)
    (made,) = result.asset_materializations_for_node("drift")
    assert "data:image/png;base64" in str(made.metadata["distributions"].value)
    for name in ("gold_result_object", "silver_result_object"):
        (made,) = result.asset_materializations_for_node(name)
        assert made.metadata["predictions"].value == 0, "nothing of these tensors was released"


def test_a_batch_like_the_dataset_is_stable_and_the_dataset_is_not_compared_with_itself(
    workspace: Workspace, learned_model: LearnedModel
) -> None:
    champion = load_champion(learned_model.tracker)
    assert champion is not None
    with workspace.research() as lake:
        for _ in range(2):
            like = load_drift(lake, LIKE, champion, workspace.shards().open)
        assert {each.verdict for each in like.drifts} == {Verdict.STABLE}
        assert {each.images for each in like.drifts} == {(30, 30)}, "the held-out half of the dataset"
        rows = {str(row["quantity"]): row["value"] for row in drifted(lake, LIKE)}
        assert rows == {each.quantity: each.value for each in like.drifts}
        score_batch(lake, DATASET, learned_model.recipe.digest, learned_model.tracker)
        itself = load_drift(lake, DATASET, champion, workspace.shards().open)
    assert {each.images[1] for each in itself.drifts} == {0}
    assert {each.verdict for each in itself.drifts} == {Verdict.NOT_JUDGED}


def test_results_and_drift_follow_predictions_by_themselves_and_hold_nothing(workspace: Workspace) -> None:
    definitions = build_defs(workspace)
    graph = definitions.resolve_asset_graph()
    for key in (asset_key("gold", "result_object"), asset_key("silver", "result_object"), asset_key("gold", "drift")):
        node = graph.get(key)
        assert node.automation_condition is not None
        assert node.partitions_def is not None
        assert node.parent_keys == {asset_key("gold", "model_prediction")}
    assert not any(graph.get_check_spec(key).blocking for key in graph.get(asset_key("gold", "drift")).check_keys)
    ingested = definitions.resolve_job_def("ingest_batch").asset_layer.executable_asset_keys
    assert asset_key("silver", "result_object") not in ingested, "a batch does not wait for its results"
