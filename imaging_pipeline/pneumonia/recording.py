"""What of a finished training goes into its MLflow run: parameters, metrics, dataset, pictures, card and model.

Owns their form. Which store, which run, and the registry are the tracker's. Contains no training.
"""

from __future__ import annotations

import contextlib
import json
import platform
import tempfile
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from imaging_pipeline.pneumonia.model_files import write_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mlflow import MlflowClient
    from mlflow.entities import Metric

    from imaging_pipeline.pneumonia.evaluation import Evaluation
    from imaging_pipeline.pneumonia.tracking import DatasetInfo
    from imaging_pipeline.pneumonia.training import EpochReport, TrainedNetwork

FIGURES = "figures"
CARD = "model_card.json"
DATASET_DIGEST_LENGTH = 36
"""MLflow stores no longer digest with a dataset; the whole one is kept as the tag ``dataset_digest``."""
METRICS_AT_ONCE = 1000

SNAPSHOT_TAG = "lake_snapshot"

ENVIRONMENT = "environment.txt"
"""Kept with the run: Python, the system, and every installed distribution with its version."""

SAMPLING_SECONDS = 5.0
"""How often the machine's load is looked at."""


@contextlib.contextmanager
def machine_load(tracking_uri: str, run_id: str) -> Iterator[None]:
    """Meanwhile, the load of processors, memory, disk, network and GPUs goes into a run, as ``system/...``."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor  # noqa: PLC0415

    monitor: Any = SystemMetricsMonitor(  # type: ignore[no-untyped-call]
        run_id, sampling_interval=SAMPLING_SECONDS, resume_logging=True, tracking_uri=tracking_uri
    )
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


def tags_of(dataset: DatasetInfo, tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of a run and of the version it registers: what it was given, and the data it saw."""
    seen = {"dataset_digest": dataset.digest, "dataset_version": dataset.version, SNAPSHOT_TAG: dataset.snapshot}
    return dict(tags) | seen


def run_tags_of(dataset: DatasetInfo, tags: Mapping[str, str]) -> dict[str, str]:
    """Those of the run: MLflow's own, too, which its pages show as what made the run."""
    return tags_of(dataset, tags) | {"mlflow.source.name": "imaging-pipeline", "mlflow.source.type": "JOB"}


def log_course(
    client: MlflowClient,
    run_id: str,
    trained: TrainedNetwork,
    figures: Mapping[str, bytes],
    dataset: DatasetInfo,
    card: Mapping[str, object],
) -> None:
    """Parameters, the metrics of epochs that are not there yet, the dataset, the pictures and the card."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param  # noqa: PLC0415

    settings = trained.config.to_dict() | {"weights_path": trained.config.weights_path and "given"}
    client.log_batch(run_id, params=[Param(name, str(value)) for name, value in settings.items()])
    log_epochs(client, run_id, trained.history)
    source = {"mlflow.source.name": dataset.source_uri, "snapshot": dataset.snapshot, "version": dataset.version}
    entity = Dataset(
        name=dataset.name,
        digest=dataset.digest[:DATASET_DIGEST_LENGTH],
        source_type="code",
        source=json.dumps({"tags": source}),
        profile=json.dumps(dict(dataset.members)),
    )
    client.log_inputs(run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])])
    with tempfile.TemporaryDirectory() as folder:
        for name, png in figures.items():
            Path(folder, name).write_bytes(png)
        client.log_artifacts(run_id, folder, FIGURES)
    client.log_dict(run_id, dict(card), CARD)
    client.log_text(run_id, _environment(), ENVIRONMENT)


def log_model(
    client: MlflowClient,
    experiment_id: str,
    run_id: str,
    name: str,
    trained: TrainedNetwork,
    recipe: Mapping[str, Any] | None,
) -> tuple[str, str]:
    """Stores the model, with the recipe of its images, as a logged model of the run; its id and its weights' digest."""
    from mlflow.entities import LoggedModelOutput  # noqa: PLC0415

    model = client.create_logged_model(experiment_id, name, run_id, model_type="classifier")
    status: Literal["READY", "FAILED"] = "FAILED"
    try:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=trained.best_epoch)])
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent, "model")
            digest = write_model(trained, folder, run_id, model.model_id, model.artifact_location, recipe)
            client.log_model_artifacts(model.model_id, str(folder))
        status = "READY"
    finally:
        client.finalize_logged_model(model.model_id, status)
    return model.model_id, digest


def log_epochs(client: MlflowClient, run_id: str, reports: Sequence[EpochReport]) -> None:
    """A row of metrics (step = epoch) for each report of an epoch the run has none of."""
    from mlflow.entities import Metric  # noqa: PLC0415

    now = _milliseconds()
    known = {metric.step for metric in client.get_metric_history(run_id, "train_loss")}
    new = [report for report in reports if report.epoch not in known]
    rows = (Metric(name, value, now, report.epoch) for report in new for name, value in report.metrics().items())
    log_metrics(client, run_id, rows)


def final_metrics(
    trained: TrainedNetwork, evaluation: Evaluation, model_id: str, dataset: DatasetInfo, card: Mapping[str, Any]
) -> Iterator[Metric]:
    """The test figures and those of alarms and answers, tied to the model and the dataset they are about."""
    from mlflow.entities import Metric  # noqa: PLC0415

    now = _milliseconds()
    figures = {f"test_{name}": value for name, value in evaluation.metrics().items()}
    figures |= {"best_epoch": float(trained.best_epoch), "temperature": trained.temperature}
    figures |= {
        f"alarm_{each['name']}": each["figure"] for each in card.get("alarms", ()) if each["figure"] is not None
    }
    figures |= {f"test_{name}": value for name, value in card.get("answers", {}).items()}
    for name, value in figures.items():
        digest = dataset.digest[:DATASET_DIGEST_LENGTH]
        yield Metric(name, value, now, trained.best_epoch, model_id, dataset.name, digest)


def log_metrics(client: MlflowClient, run_id: str, metrics: Iterable[Metric]) -> None:
    """Stores take a limited number of metrics per call."""
    remaining = list(metrics)
    while remaining:
        client.log_batch(run_id, metrics=remaining[:METRICS_AT_ONCE])
        remaining = remaining[METRICS_AT_ONCE:]


def _environment() -> str:
    installed = sorted({f"{each.name}=={each.version}" for each in distributions()}, key=str.lower)
    return "\n".join([f"# Python {platform.python_version()} on {platform.system()} {platform.machine()}", *installed])


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
