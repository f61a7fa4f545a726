"""The registered models and their evaluations as tables, from a real MLflow store into a real lake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.pneumonia.facts import facts_of
from imaging_pipeline.pneumonia.model_card import METRICS, parts_of
from imaging_pipeline.pneumonia.model_files import weights_digest
from imaging_pipeline.pneumonia.model_tables import model_key, record_models
from imaging_pipeline.pneumonia.tracking import MODEL_TAG, ModelTracker
from imaging_pipeline.tensors.splits import Split
from imaging_pipeline_tests.metadata.headers import memory_lake
from imaging_pipeline_tests.pneumonia.learned import SUBGROUPS, LearnedModel

BATCH = "2026-01-31.00001"
TABLES = ("embedding_model", "embedding_evaluation")
SOURCE = {"ingestion_source": "north"}


@pytest.fixture
def lake() -> Iterator[Lake]:
    with memory_lake("research") as made:
        yield made


def rows_of(lake: Lake, table: str) -> list[dict[str, object]]:
    rows = lake.query(f"SELECT * EXCLUDE ({registry.LOADED_AT}) FROM gold.{table} ORDER BY ALL")
    found: list[dict[str, object]] = rows.to_pylist()
    return found


def stages(lake: Lake, name: str) -> dict[str, str]:
    rows = lake.rows("SELECT model_version, stage FROM gold.embedding_model WHERE model_name = ?", [name])
    return {str(version): str(stage) for version, stage in rows}


def test_a_registered_model_is_a_row_with_dataset_recipe_and_weights(lake: Lake, learned_model: LearnedModel) -> None:
    record_models(lake, learned_model.tracker)
    (row,) = rows_of(lake, "embedding_model")
    model = learned_model.learned.model
    assert (row["model_name"], row["model_version"]) == (model.name, model.version)
    assert (row["mlflow_run_id"], row["mlflow_model_uri"]) == (model.run_id, "models:/pneumonia/1")
    assert row["model_type"] == "CLASSIFIER"
    assert row["dimensionality"] == 512
    assert (row["dataset_id"], row["dataset_version"]) == ("pneumonia-chest", "abcdef")
    assert row["training_data_summary"] == "; ".join(
        f"{side}: {images} images of {patients} patients, {positive} positive"
        for side, patients, images, positive in learned_model.dataset.counts()
    )
    assert json.loads(str(row["preprocessing_spec"])) == json.loads(learned_model.recipe.to_json())
    assert row["modality_scope"] == list(learned_model.recipe.modalities)
    assert row["stage"] == "production"
    (weights,) = learned_model.tracker.artifact_root.rglob("state_dict.pt")
    assert row["weights_sha256"] == weights_digest(weights.parent)
    assert (row["dagster_run_id"], row["snapshot_id"]) == ("a-run", learned_model.dataset.snapshot_id)
    assert None not in row.values()


def test_each_figure_of_the_evaluation_is_a_row_for_all_images_and_for_each_subgroup(
    lake: Lake, learned_model: LearnedModel
) -> None:
    record_models(lake, learned_model.tracker)
    rows = rows_of(lake, "embedding_evaluation")
    subgroups = {str(row["subgroup"]) for row in rows}
    assert subgroups == {"{}", '{"sex": "F"}', '{"sex": "M"}', '{"view": "AP"}'}
    assert len({(row["subgroup"], row["metric_name"]) for row in rows}) == len(rows) == len(subgroups) * len(METRICS)
    assert {row["split"] for row in rows} == {"test"}
    recorded = learned_model.learned.metrics
    for row in (row for row in rows if row["subgroup"] == "{}"):
        name = row["metric_name"]
        assert row["metric_value"] == pytest.approx(recorded.get(f"test_{name}"))
        assert row["ci_low"] == pytest.approx(recorded.get(f"test_{name}_ci_low"))
        assert row["ci_high"] == pytest.approx(recorded.get(f"test_{name}_ci_high"))
    test = learned_model.dataset.side(Split.TEST)
    women = sum(SUBGROUPS[member.instance_key]["sex"] == "F" for member in test)
    images = {str(row["subgroup"]): json.loads(str(row["metric_details"]))["images"] for row in rows}
    assert (images["{}"], images['{"sex": "F"}']) == (len(test), women)
    (orphans,) = lake.rows(
        "SELECT count(*) FROM gold.embedding_evaluation WHERE model_key NOT IN "
        "(SELECT model_key FROM gold.embedding_model)"
    )
    assert orphans == (0,)


def test_a_subgroup_is_evaluated_on_its_own_images_and_says_what_it_cannot_answer(learned_model: LearnedModel) -> None:
    members = learned_model.dataset.side(Split.TEST)
    labels = np.array([member.label for member in members])
    positives = {member.instance_key: {"view": "PA"} for member in members if member.label}
    scores = np.linspace(0.1, 0.9, len(members))
    entries = {
        (str(entry["subgroup"]), entry["metric_name"]): entry
        for part in parts_of(members, scores, 0.5, positives, seed=0)
        for entry in part.entries()
    }
    area = entries["{'view': 'PA'}", "auroc"]
    assert (area["metric_value"], area["ci_low"]) == (None, None)
    assert area["metric_details"]["undefined"]["auroc"] == "no negative image"  # type: ignore[index]
    found = entries["{'view': 'PA'}", "sensitivity"]["metric_value"]
    assert found == pytest.approx((scores[labels > 0] >= 0.5).mean())
    assert entries["{'view': 'PA'}", "prevalence"]["metric_value"] == 1.0


def test_recording_again_and_learning_again_leave_the_same_rows(research: Lake, learned_model: LearnedModel) -> None:
    counts = record_models(research, learned_model.tracker)
    before = {table: rows_of(research, table) for table in TABLES}
    assert (counts.models, counts.evaluations) == tuple(len(rows) for rows in before.values())
    assert counts.evaluations
    again = learned_model.learn_again()
    assert (again.is_new, again.model) == (False, learned_model.learned.model)
    assert record_models(research, learned_model.tracker) == counts
    assert {table: rows_of(research, table) for table in TABLES} == before


@pytest.fixture
def client(learned_model: LearnedModel) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(learned_model.tracker.tracking_uri, learned_model.tracker.tracking_uri)


def register(client: mlflow.MlflowClient, name: str, run_id: str) -> None:
    """Another version, as an earlier version of this software registered it: without a card."""
    client.create_model_version(name, "none", run_id, {MODEL_TAG: "none", "weights_sha256": "ab"})


def test_the_stage_follows_the_champion(lake: Lake, learned_model: LearnedModel, client: mlflow.MlflowClient) -> None:
    name, store = "staged", learned_model.tracker
    client.create_registered_model(name)
    experiment = client.create_experiment("staged", learned_model.tracker.artifact_root.as_uri())
    run_id = client.create_run(experiment).info.run_id
    tracker = ModelTracker(store.tracking_uri, store.artifact_root, "staged", name)
    for _ in range(3):
        register(client, name, run_id)
    record_models(lake, tracker)
    assert stages(lake, name) == {"1": "candidate", "2": "candidate", "3": "candidate"}
    tracker.promote("2")
    record_models(lake, tracker)
    assert stages(lake, name) == {"1": "retired", "2": "production", "3": "candidate"}
    tracker.promote("3")
    client.set_registered_model_alias(name, "challenger", "1")
    record_models(lake, tracker)
    assert stages(lake, name) == {"1": "candidate", "2": "retired", "3": "production"}
    client.delete_model_version(name, "1")
    record_models(lake, tracker)
    assert stages(lake, name) == {"1": "retired", "2": "retired", "3": "production"}
    assert {row["dimensionality"] for row in rows_of(lake, "embedding_model")} == {None}
    record_models(lake, store)
    assert stages(lake, "staged")["3"] == "production", "another model's versions are not touched"


def test_without_a_store_nothing_is_recorded_and_none_is_made(lake: Lake, tmp_path: Path) -> None:
    tracker = ModelTracker(f"sqlite:///{tmp_path}/none.db", tmp_path / "artifacts", "experiment", "model")
    counts = record_models(lake, tracker)
    assert (counts.models, counts.evaluations) == (0, 0)
    assert not list(tmp_path.iterdir())


def put(lake: Lake, table: str, *rows: dict[str, object]) -> None:
    known = {column.name for column in registry.table(table).columns}
    made: list[dict[str, object]] = [
        {name: value for name, value in row.items() if name in known}
        | ({"arrival_batch": BATCH} if "arrival_batch" in known else {})
        | ({"row_version": BATCH} if "row_version" in known else {})
        for row in rows
    ]
    with lake.transaction():
        lake.replace_all("deid", table, registry.table(table).rows(made), where="false", parameters=[])


def put_labels(lake: Lake, *rows: dict[str, object]) -> None:
    with lake.transaction():
        lake.replace_all("gold", "label", registry.table("label").rows(rows), where="false", parameters=[])


def test_facts_of_an_image_are_those_of_its_released_header_and_file(lake: Lake) -> None:
    for number, (sex, view) in enumerate([("F", "PA"), ("M", None), (None, "AP")]):
        keys: dict[str, object] = {f"{level}_key": f"{level}{number}" for level in ("patient", "study", "series")}
        keys |= {"instance_key": f"instance{number}"}
        put(lake, "dicom_patient", keys | {"patient_domain": "p", "patient_id": f"P{number}", "patient_sex": sex})
        put(lake, "dicom_study", keys | {"study_instance_uid": f"2.25.{number}1", "patient_age_years": 40.0 + number})
        put(lake, "dicom_series", keys | {"series_instance_uid": f"2.25.{number}2", "modality": "DX"})
        put(lake, "dicom_instance", keys | {"sop_instance_uid": f"2.25.{number}3"})
        if view:
            put(lake, "dicom_xray_acquisition", keys | {"view_position": view, "kvp": 110})
        put(lake, "dicom_image_pixel", keys | {"image_rows": 100, "image_columns": 200, "bits_stored": 12})
        file: dict[str, object] = {"location_key": f"location{number}", "object_key": "o", "file_size_bytes": 5000}
        put(lake, "dicom_file_location", keys | file | {"storage_uri": "file:///x", "role": "PRIMARY"} | SOURCE)
    label = {"subject_level": "INSTANCE", "task": "pneumonia", "label_numeric": 1.0}
    of = {**label, "source": "CSV:RSNA"}
    subset = "subset matched by age"
    put_labels(
        lake,
        {**of, "label_key": "a", "subject_key": "instance0", "label_value": "pneumonia"},
        {**of, "label_key": "b", "subject_key": "instance0", "task": subset, "label_value": subset},
        {**of, "label_key": "c", "subject_key": "instance1", "task": subset, "label_value": f"no {subset}"},
    )
    facts = facts_of(lake, ["instance0", "instance1", "instance2", "unknown"], "pneumonia")
    assert {key: each.groups for key, each in facts.items()} == {
        "instance0": {
            "sex": "F",
            "age": "40-49",
            "view": "PA",
            "source": "north",
            "collection": "CSV:RSNA",
            subset: "yes",
        },
        "instance1": {"sex": "M", "age": "40-49", "source": "north"},
        "instance2": {"age": "40-49", "view": "AP", "source": "north"},
    }
    assert facts["instance0"].sources == {"source": "north", "collection": "CSV:RSNA"}
    metadata = facts["instance0"].metadata
    assert (metadata["age_years"], metadata["kvp"], metadata["sex"], metadata["view"]) == (40.0, 110.0, "F", "PA")
    assert "kvp" not in facts["instance1"].metadata
    of_file = facts["instance0"].file
    assert [of_file[name] for name in ("file_bytes", "rows", "bytes_per_pixel", "aspect")] == [5000.0, 100.0, 0.25, 2.0]
    assert model_key("a", "1") != model_key("a", "2")
