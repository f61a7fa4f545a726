"""Tests of the MLflow record, the registry and prediction, on a real SQLite store."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import mlflow
import numpy as np
import pytest
from mlflow.data.code_dataset_source import CodeDatasetSource

from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.pneumonia.config import Device, TrainingConfig
from imaging_pipeline.pneumonia.evaluation import Evaluation, evaluate
from imaging_pipeline.pneumonia.examination import knowing_films
from imaging_pipeline.pneumonia.model_files import weights_digest
from imaging_pipeline.pneumonia.plausibility import FEWEST_TRAINING, FEWEST_VALIDATION
from imaging_pipeline.pneumonia.plots import roc_figure
from imaging_pipeline.pneumonia.prediction import load_champion
from imaging_pipeline.pneumonia.tracking import DatasetInfo, ModelTracker, RegisteredModel
from imaging_pipeline.pneumonia.training import TrainedNetwork, train
from imaging_pipeline_tests.pneumonia.images import BrightSpots

DATASET = DatasetInfo("chest", "v1", "ab" * 32, "17", {"train": 16, "val": 8, "test": 12}, "ducklake:research")
CARD: dict[str, object] = {"dimensionality": 512, "evaluations": [{"metric_name": "auroc", "metric_value": None}]}
TEST_SET = BrightSpots(12, seed=3)


def recorded_run(
    tracker: ModelTracker,
    trained: TrainedNetwork,
    evaluation: Evaluation,
    figures: Mapping[str, bytes],
    tags: Mapping[str, str],
    card: Mapping[str, Any],
) -> RegisteredModel:
    with tracker.training_run(DATASET, tags) as run_id:
        return tracker.record(run_id, trained, evaluation, figures, DATASET, tags, card)


@dataclass(frozen=True)
class Recorded:
    """One training recorded twice in a new store, the first version promoted."""

    tracker: ModelTracker
    trained: TrainedNetwork
    evaluation: Evaluation
    first: RegisteredModel
    second: RegisteredModel
    cwd: Path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    root, cwd = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("cwd")
    before = Path.cwd()
    os.chdir(cwd)
    try:
        tracker = ModelTracker(f"sqlite:///{root}/new/mlflow.db", root / "artifacts", "chest x-ray", "pneumonia")
        config = TrainingConfig(image_size=32, epochs=2, batch_size=8, device=Device.CPU)
        sets = BrightSpots(FEWEST_TRAINING, seed=1), BrightSpots(2 * FEWEST_VALIDATION, seed=2)
        trained = knowing_films(train(*sets, config), *sets)
        scores = trained.score(TEST_SET)
        evaluation = evaluate(scores, TEST_SET.labels, [str(index) for index in range(12)], trained.threshold)
        figures = {"roc.png": roc_figure(scores, TEST_SET.labels, evaluation)}
        first, second = (
            recorded_run(tracker, trained, evaluation, figures, {"code_version": "1.2", "digest": digest}, CARD)
            for digest in ("one", "two")
        )
        tracker.promote(first.version)
        yield Recorded(tracker, trained, evaluation, first, second, cwd)
    finally:
        os.chdir(before)


@pytest.fixture
def run(recorded: Recorded) -> mlflow.entities.Run:
    client = mlflow.MlflowClient(recorded.tracker.tracking_uri, recorded.tracker.tracking_uri)
    return client.get_run(recorded.first.run_id)


def test_the_run_is_finished_with_parameters_and_tags(recorded: Recorded, run: mlflow.entities.Run) -> None:
    assert run.info.status == "FINISHED"
    assert run.data.params["architecture"] == "resnet18"
    assert set(run.data.params) == set(recorded.trained.config.to_dict())
    assert run.data.tags["code_version"] == "1.2"
    assert run.data.tags["dataset_digest"] == DATASET.digest
    assert run.data.tags["lake_snapshot"] == DATASET.snapshot


def test_the_run_holds_a_metric_per_epoch_and_the_test_figures_with_intervals(
    recorded: Recorded, run: mlflow.entities.Run
) -> None:
    client = mlflow.MlflowClient(recorded.tracker.tracking_uri)
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(each.step, each.value) for each in history] == [
        (report.epoch, report.train_loss) for report in recorded.trained.history
    ]
    for name, value in recorded.evaluation.metrics().items():
        assert run.data.metrics[f"test_{name}"] == pytest.approx(value)
    assert recorded.tracker.metrics(recorded.first) == run.data.metrics


def test_the_run_says_in_which_environment_it_was_made(recorded: Recorded) -> None:
    client = mlflow.MlflowClient(recorded.tracker.tracking_uri)
    text = Path(client.download_artifacts(recorded.first.run_id, "environment.txt")).read_text()
    assert f"torch=={version('torch')}" in text.splitlines()
    assert text.startswith("# Python 3.")


def test_a_run_lasts_as_long_as_its_training_and_tells_of_the_machine(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imaging_pipeline.pneumonia.recording.SAMPLING_SECONDS", 0.05)
    client = mlflow.MlflowClient(recorded.tracker.tracking_uri)
    with recorded.tracker.training_run(DATASET, {}) as run_id:
        assert client.get_run(run_id).info.status == "RUNNING"
        deadline = time.monotonic() + 60
        while not (seen := client.get_run(run_id).data.metrics) and time.monotonic() < deadline:
            time.sleep(0.1)
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= set(seen)
    assert client.get_run(run_id).info.status == "FINISHED"
    assert "SystemMetricsMonitor" not in {thread.name for thread in threading.enumerate()}


def test_epochs_are_seen_while_the_training_lasts_and_once_each(recorded: Recorded, tmp_path: Path) -> None:
    tracker, history = ModelTracker(recorded.tracker.tracking_uri, tmp_path, "live", "live"), recorded.trained.history
    client = mlflow.MlflowClient(tracker.tracking_uri)

    def steps() -> list[int]:
        return [each.step for each in client.get_metric_history(run_id, "train_loss")]

    with tracker.training_run(DATASET, {}) as run_id:
        tracker.note_epochs(run_id, history[:1])
        assert steps() == [1]
        for report in history:  # a training that was killed tells all it has done once more
            tracker.note_epochs(run_id, [report])
        assert steps() == [1, 2]
        tracker.record(run_id, recorded.trained, recorded.evaluation, {}, DATASET, {}, CARD)
        assert steps() == [1, 2]


def test_a_run_whose_training_fails_is_failed_and_one_that_was_killed_is_gone_on_with(recorded: Recorded) -> None:
    client = mlflow.MlflowClient(recorded.tracker.tracking_uri)
    tags = {"digest": "killed"}
    with pytest.raises(ZeroDivisionError), recorded.tracker.training_run(DATASET, tags, "digest") as failed:
        raise ZeroDivisionError
    assert client.get_run(failed).info.status == "FAILED"
    with recorded.tracker.training_run(DATASET, tags, "digest") as killed:
        pass
    assert killed != failed
    client.update_run(killed, status="RUNNING")  # as a kill leaves it
    with recorded.tracker.training_run(DATASET, {"digest": "another"}, "digest") as other:
        pass
    with recorded.tracker.training_run(DATASET, tags, "digest") as again:
        pass
    assert (again == killed, other == killed) == (True, False)
    assert client.get_run(again).info.status == "FINISHED"


def test_the_run_names_its_dataset_so_that_it_can_be_read_again(run: mlflow.entities.Run) -> None:
    assert run.inputs is not None
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("chest", DATASET.digest[:36])
    source = mlflow.data.get_source(used)
    assert isinstance(source, CodeDatasetSource)
    assert source.to_dict()["tags"] == {
        "mlflow.source.name": "ducklake:research",
        "snapshot": "17",
        "version": "v1",
    }


def test_the_test_figures_belong_to_the_logged_model_and_the_dataset(recorded: Recorded) -> None:
    client = mlflow.MlflowClient(recorded.tracker.tracking_uri)
    model = client.get_logged_model(recorded.first.model_id)
    assert model.status == "READY"
    figures = {metric.key: metric for metric in model.metrics or []}
    assert figures["test_auroc"].value == pytest.approx(recorded.evaluation.auroc)
    assert figures["test_auroc"].dataset_name == "chest"


def test_figures_and_model_lie_under_the_artifact_root_and_nothing_in_the_working_folder(
    recorded: Recorded, run: mlflow.entities.Run
) -> None:
    artifacts = Path(unquote(urlparse(run.info.artifact_uri).path))
    assert artifacts.is_relative_to(recorded.tracker.artifact_root)
    assert (artifacts / "figures" / "roc.png").read_bytes().startswith(b"\x89PNG")
    assert list(recorded.tracker.artifact_root.rglob("state_dict.pt"))
    assert not list(recorded.cwd.iterdir())


@pytest.mark.slow
def test_mlflows_process_wide_store_is_not_touched(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from imaging_pipeline.pneumonia.config import TrainingConfig
from imaging_pipeline.pneumonia.evaluation import evaluate
from imaging_pipeline.pneumonia.prediction import load_champion
from imaging_pipeline.pneumonia.tracking import DatasetInfo, ModelTracker
from imaging_pipeline.pneumonia.training import train
from imaging_pipeline_tests.pneumonia.images import BrightSpots
store = Path(sys.argv[1])
tracker = ModelTracker(f"sqlite:///{store}/mlflow.db", store / "artifacts", "experiment", "model")
trained = train(BrightSpots(8, 1), BrightSpots(4, 2), TrainingConfig(image_size=32, epochs=1))
evaluation = evaluate([0.1, 0.9], [0, 1], ["a", "b"], 0.5)
dataset = DatasetInfo("chest", "v1", "ab", "17", {}, "ducklake:research")
with tracker.training_run(dataset, {}) as run_id:
    model = tracker.record(run_id, trained, evaluation, {}, dataset, {}, {})
tracker.promote(model.version)
assert load_champion(tracker) is not None
import mlflow
assert mlflow.telemetry.get_telemetry_client() is None
"""
    cwd, store = tmp_path / "cwd", tmp_path / "store"
    cwd.mkdir()
    package_root = Path(__file__).parents[2]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(package_root)}
    command = [sys.executable, "-W", "ignore", "-c", script, str(store)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(cwd.iterdir())
    assert (done.stdout, done.stderr) == ("", "")


def test_the_champion_moves_by_promotion_only(recorded: Recorded) -> None:
    assert (recorded.first.version, recorded.second.version) == ("1", "2")
    assert recorded.tracker.champion() == recorded.first
    assert recorded.tracker.promote("2") == recorded.second
    assert recorded.tracker.champion() == recorded.second
    recorded.tracker.promote("1")
    assert recorded.tracker.champion() == recorded.first


def test_a_training_is_found_again_by_its_tag(recorded: Recorded) -> None:
    assert recorded.tracker.find("digest", "one") == recorded.first
    assert recorded.tracker.find("code_version", "1.2") == recorded.second
    assert recorded.tracker.find("digest", "three") is None


def test_the_store_describes_its_versions_with_aliases_digests_and_cards(recorded: Recorded) -> None:
    first, second = recorded.tracker.versions()
    assert (first.model, second.model) == (recorded.first, recorded.second)
    assert (first.aliases, second.aliases) == ({"champion"}, set())
    assert first.card == second.card == CARD
    client = mlflow.MlflowClient(recorded.tracker.tracking_uri, recorded.tracker.tracking_uri)
    location = client.get_logged_model(recorded.first.model_id).artifact_location
    assert first.weights_sha256 == weights_digest(Path(unquote(urlparse(location).path)) / "weights")
    assert first.registered_at <= second.registered_at <= datetime.now(UTC).replace(tzinfo=None)


def test_the_reloaded_champion_gives_the_scores_of_the_trained_network(recorded: Recorded) -> None:
    predictor = load_champion(recorded.tracker)
    assert predictor is not None
    assert predictor.model == recorded.first
    assert predictor.threshold == recorded.trained.threshold
    expected = recorded.trained.score(TEST_SET)
    said = predictor.predict(TEST_SET.images)
    answered = np.isfinite(said.probabilities)
    assert answered.mean() > 0.8
    assert said.probabilities[answered] == pytest.approx(expected[answered], abs=1e-5)
    assert said.probabilities.dtype == np.float64
    assert said.embeddings.dtype == np.float32
    assert said.embeddings.shape == (12, predictor.width)


def test_prediction_does_not_depend_on_the_number_of_images_or_their_integer_type(recorded: Recorded) -> None:
    predictor = load_champion(recorded.tracker)
    assert predictor is not None
    bytes_ = np.round(np.tile(TEST_SET.images, (6, 1, 1, 1)) * 255).astype(np.uint8)
    together = predictor.predict(bytes_)
    assert together.probabilities.shape == (72,)
    one = predictor.predict(bytes_[:1])
    assert one.probabilities[0] == pytest.approx(together.probabilities[0], abs=1e-5, nan_ok=True)
    assert one.embeddings[0] == pytest.approx(together.embeddings[0], abs=1e-4)
    for same in (bytes_.astype(np.uint16) * 257, (bytes_ / 255).astype(np.float32)):
        again = predictor.predict(same)
        assert again.probabilities == pytest.approx(together.probabilities, abs=1e-5, nan_ok=True)
        assert again.embeddings == pytest.approx(together.embeddings, abs=1e-4)
    none = predictor.predict(bytes_[:0])
    assert none.probabilities.shape == (0,)
    assert none.embeddings.shape == (0, predictor.width)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((32, 32), np.float32),
        np.zeros((1, 3, 32, 32), np.float32),
        np.zeros((1, 1, 32, 32), np.float64),
        np.full((1, 1, 32, 32), 255, np.float32),
        np.full((1, 1, 32, 32), np.nan, np.float32),
    ],
)
def test_images_that_do_not_fit_are_refused(recorded: Recorded, images: np.ndarray) -> None:
    predictor = load_champion(recorded.tracker)
    assert predictor is not None
    with pytest.raises(ValueError, match="expected"):
        predictor.predict(images)


def test_mlflows_own_tools_can_serve_the_champion_at_any_image_size(recorded: Recorded) -> None:
    mlflow.set_tracking_uri(recorded.tracker.tracking_uri)
    try:
        served = mlflow.pyfunc.load_model("models:/pneumonia@champion")
    finally:
        mlflow.set_tracking_uri("")
    champion = load_champion(recorded.tracker)
    assert champion is not None
    expected = champion.predict(TEST_SET.images).probabilities
    assert served.predict(TEST_SET.images) == pytest.approx(expected, abs=1e-5, nan_ok=True)
    assert np.isnan(served.predict(np.zeros((3, 1, 50, 40), np.float32))).tolist() == [True] * 3, "no films"
    with pytest.raises(mlflow.MlflowException):
        served.predict(TEST_SET.images.astype(np.float64))


def test_files_that_are_not_those_registered_are_refused(recorded: Recorded) -> None:
    client = mlflow.MlflowClient(recorded.tracker.tracking_uri)
    location = client.get_logged_model(recorded.second.model_id).artifact_location
    settings = Path(unquote(urlparse(location).path)) / "weights" / "settings.json"
    settings.write_text(settings.read_text().replace('"threshold": ', '"threshold": 0'))
    with pytest.raises(ConfigurationError, match="models:/pneumonia/2"):
        recorded.tracker.load(recorded.second)
    assert recorded.tracker.load(recorded.first).threshold == recorded.trained.threshold


def test_asking_a_store_that_does_not_exist_finds_nothing_and_creates_nothing(tmp_path: Path) -> None:
    tracker = ModelTracker(f"sqlite:///{tmp_path}/none.db", tmp_path / "artifacts", "experiment", "model")
    assert tracker.champion() is None
    assert tracker.find("digest", "one") is None
    assert tracker.versions() == []
    assert load_champion(tracker) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns"])
def test_a_folder_is_refused_as_a_store(tmp_path: Path, uri: str) -> None:
    with pytest.raises(ConfigurationError, match="tracking_uri"):
        ModelTracker(uri, tmp_path, "experiment", "model")


def test_the_password_of_a_store_is_not_shown(tmp_path: Path) -> None:
    assert "secret" not in repr(ModelTracker("postgresql://user:secret@host/db", tmp_path, "experiment", "model"))


def test_a_version_registered_by_other_software_is_no_champion(recorded: Recorded) -> None:
    client = mlflow.MlflowClient(recorded.tracker.tracking_uri, recorded.tracker.tracking_uri)
    client.create_registered_model("foreign")
    client.create_model_version("foreign", recorded.tracker.artifact_root.as_uri())
    client.set_registered_model_alias("foreign", "champion", "1")
    foreign = ModelTracker(recorded.tracker.tracking_uri, recorded.tracker.artifact_root, "chest x-ray", "foreign")
    with pytest.raises(ConfigurationError, match="models:/foreign/1"):
        foreign.champion()


def test_a_server_that_does_not_answer_is_worth_another_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TransientError):
        ModelTracker("http://127.0.0.1:9", tmp_path, "experiment", "model").champion()


def test_a_training_that_cannot_be_recorded_is_marked_failed(recorded: Recorded) -> None:
    broken = ModelTracker(recorded.tracker.tracking_uri, recorded.tracker.artifact_root, "broken", "broken")
    figures = {"no/such/folder.png": b""}
    with pytest.raises(FileNotFoundError):
        recorded_run(broken, recorded.trained, recorded.evaluation, figures, {}, {})
    client = mlflow.MlflowClient(recorded.tracker.tracking_uri)
    experiment = client.get_experiment_by_name("broken")
    assert experiment is not None
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FAILED"]
    assert broken.champion() is None
