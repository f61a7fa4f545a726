"""A dataset version becomes a model that is examined, reported and judged, in a real MLflow store."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pneumonia.alarms import Verdict
from imaging_pipeline.pneumonia.config import Device, PromotionRules, TrainingConfig, load_training
from imaging_pipeline.pneumonia.facts import ImageFacts
from imaging_pipeline.pneumonia.learning import Learned, Material, learn, training_digest
from imaging_pipeline.pneumonia.network import build_network
from imaging_pipeline.pneumonia.tracking import ModelTracker
from imaging_pipeline.pneumonia.training import EpochReport
from imaging_pipeline.tensors.splits import Split
from imaging_pipeline_tests.pneumonia.learned import SUBGROUPS, LearnedModel

CONFIG = TrainingConfig(architecture="shufflenet_v2_x0_5", image_size=32, epochs=1, batch_size=8, device=Device.CPU)


def material(learned_model: LearnedModel, **changes: Any) -> Material:
    facts = {
        member.instance_key: ImageFacts(
            groups=SUBGROUPS[member.instance_key], file={"file_bytes": 1000 + 500 * member.label}
        )
        for member in learned_model.dataset.members
    }
    other = replace(learned_model.dataset, dataset_id="elsewhere", version="123456")
    masks = {key: np.tri(64, dtype=np.bool_) for key in facts}
    made = Material(learned_model.dataset, learned_model.recipe, facts, [other], masks)
    return replace(made, **changes)


@pytest.fixture(scope="module")
def tracker(learned_model: LearnedModel, tmp_path_factory: pytest.TempPathFactory) -> ModelTracker:
    artifacts = tmp_path_factory.mktemp("artifacts")
    return ModelTracker(learned_model.tracker.tracking_uri, artifacts, "learning", "learning")


@pytest.fixture(scope="module")
def first(learned_model: LearnedModel, tracker: ModelTracker, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    folder = tmp_path_factory.mktemp("checkpoints")
    seen: list[int] = []

    def look(report: EpochReport) -> None:
        client = client_of(tracker)
        experiments = [each.experiment_id for each in client.search_experiments()]
        (run,) = client.search_runs(experiments, "attributes.status = 'RUNNING'")
        seen.append(len(client.get_metric_history(run.info.run_id, "train_loss")))

    learned = learn(material(learned_model), tracker, CONFIG, tags={}, checkpoints=folder, progress=look)
    assert not list(folder.iterdir())
    assert seen == list(range(1, len(seen) + 1)), "an epoch is in MLflow when it has ended"
    assert seen
    return learned


def client_of(tracker: ModelTracker) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(tracker.tracking_uri, tracker.tracking_uri)


def test_a_first_model_is_champion_and_comes_with_pictures_alarms_and_a_report(first: Learned) -> None:
    assert first.is_new
    assert first.is_champion
    assert {"worst.png", "heat.png", "confusion.png", "subgroups.png"} < set(first.figures)
    found = {alarm.name: alarm for alarm in first.alarms}
    assert found["file_statistics_only"].figure == 1.0
    assert found["file_statistics_only"].verdict is Verdict.UNCLEAR, "there are four patients"
    assert found["metadata_only"].verdict is Verdict.NOT_COMPUTED
    assert first.metrics["alarm_file_statistics_only"] == 1.0
    for text in ("file_statistics_only", "there was no champion", "temperature", "elsewhere (external)"):
        assert text in first.report, text


def test_subgroups_of_few_patients_are_not_in_the_report(first: Learned) -> None:
    assert "| sex F |" not in first.report
    assert "fewer than 5 patients" in first.report


def test_the_external_set_is_without_patients_the_model_has_seen(tracker: ModelTracker, first: Learned) -> None:
    entries = [entry for entry in tracker.card(first.model)["evaluations"] if entry["split"] == "external"]
    whole = [entry for entry in entries if not entry["subgroup"]]
    assert {entry["dataset_name"] for entry in entries} == {"elsewhere"}
    assert {entry["metric_details"]["images"] for entry in whole} == {8}
    own = [entry for entry in tracker.card(first.model)["evaluations"] if entry["split"] == "test"]
    areas = {entry["metric_value"] for entry in (*own, *whole) if entry["metric_name"] == "auroc"}
    assert areas >= {first.metrics["test_auroc"]}


def test_the_same_training_is_found_again_and_another_is_refused_with_its_reasons(
    learned_model: LearnedModel, tracker: ModelTracker, first: Learned
) -> None:
    again = learn(material(learned_model), tracker, CONFIG, tags={})
    assert (again.is_new, again.is_champion, again.model) == (False, True, first.model)
    other = learn(material(learned_model), tracker, replace(CONFIG, seed=1), tags={})
    assert (other.is_new, other.is_champion) == (True, False)
    assert tracker.champion() == first.model
    store = client_of(tracker)
    assert store.get_registered_model("learning").aliases == {"champion": 1, "challenger": 2}
    version = store.get_model_version("learning", other.model.version)
    assert version.tags["promotion"] == "refused"
    assert "AUROC" in str(version.description)
    decision = json.loads(Path(store.download_artifacts(other.model.run_id, "promotion.json")).read_text())
    assert decision["reasons"] == list(other.decision.reasons)
    assert Path(store.download_artifacts(other.model.run_id, "model_card.md")).read_text() == other.report
    easy = PromotionRules(margin=0.0, confidence=0.5, subgroup_tolerance=1.0)
    lenient = learn(material(learned_model), tracker, replace(CONFIG, seed=1, promotion=easy), tags={})
    assert lenient.model == other.model, "rules change nothing of the model"
    tracker.promote(first.model.version)


def test_a_model_is_refused_for_an_alarm_and_let_through_when_it_is_waived(
    learned_model: LearnedModel, tracker: ModelTracker, first: Learned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imaging_pipeline.pneumonia.shortcuts.SMALLEST_TEST", 2)
    alone = replace(tracker, model_name="alone")
    learned = learn(material(learned_model), alone, CONFIG, tags={})
    assert not learned.is_champion
    assert alone.champion() is None
    raised = {alarm.name for alarm in learned.alarms if alarm.verdict is Verdict.RAISED}
    assert "file_statistics_only" in raised
    rules = PromotionRules(waived=dict.fromkeys(raised, "made images"))
    waived = learn(material(learned_model), alone, replace(CONFIG, promotion=rules), tags={})
    assert waived.is_champion
    assert waived.model == learned.model == alone.champion()
    assert "made images" in waived.report


def test_a_training_depends_on_the_content_of_its_weights_and_not_on_their_place(
    learned_model: LearnedModel, tmp_path: Path
) -> None:
    for name in ("a", "c"):
        torch.save(build_network(CONFIG).state_dict(), tmp_path / name)
    (tmp_path / "b").write_bytes((tmp_path / "a").read_bytes())
    digests = [
        training_digest(learned_model.dataset, replace(CONFIG, weights_path=str(tmp_path / name)))
        for name in ("a", "b", "c")
    ]
    assert digests[0] == digests[1] != digests[2]
    with pytest.raises(ConfigurationError, match="weights_path"):
        training_digest(learned_model.dataset, replace(CONFIG, weights_path=str(tmp_path / "none")))


def test_the_side_of_a_split_that_is_empty_is_named(learned_model: LearnedModel, tracker: ModelTracker) -> None:
    members = tuple(member for member in learned_model.dataset.members if member.split != Split.VAL)
    dataset = replace(learned_model.dataset, members=members, manifest_sha256="cd" * 32)
    with pytest.raises(ConfigurationError, match="val side"):
        learn(material(learned_model, dataset=dataset), tracker, CONFIG, tags={})


@pytest.mark.parametrize("name", ["resnet18-128", "densenet121-224"])
def test_shipped_trainings_load(name: str) -> None:
    config = load_training(name)
    assert TrainingConfig.from_dict(config.to_dict()) == config
    assert name.startswith(config.architecture)


def test_the_default_is_the_shipped_training_for_small_machines() -> None:
    assert load_training("resnet18-128") == TrainingConfig()
