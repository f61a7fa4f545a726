"""What of a finished training goes into its MLflow run: parameters, metrics, dataset, pictures, card and model.

Owns their form. Which store, which run, and the registry are the tracker's. Contains no training.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from imaging_pipeline.pneumonia.model_files import write_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mlflow import MlflowClient
    from mlflow.entities import Metric

    from imaging_pipeline.pneumonia.evaluation import Evaluation
    from imaging_pipeline.pneumonia.tracking import DatasetInfo
    from imaging_pipeline.pneumonia.training import TrainedNetwork

FIGURES = "figures"
CARD = "model_card.json"
DATASET_DIGEST_LENGTH = 36
"""MLflow stores no longer digest with a dataset; the whole one is kept as the tag ``dataset_digest``."""
METRICS_AT_ONCE = 1000


def log_course(
    client: MlflowClient,
    run_id: str,
    trained: TrainedNetwork,
    figures: Mapping[str, bytes],
    dataset: DatasetInfo,
    card: Mapping[str, object],
) -> None:
    """Parameters, one metric row per epoch, the dataset, the pictures and the card."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param  # noqa: PLC0415

    settings = trained.config.to_dict() | {"weights_path": trained.config.weights_path and "given"}
    client.log_batch(run_id, params=[Param(name, str(value)) for name, value in settings.items()])
    log_metrics(client, run_id, _epoch_metrics(trained))
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


def log_model(
    client: MlflowClient, experiment_id: str, run_id: str, name: str, trained: TrainedNetwork
) -> tuple[str, str]:
    """Stores the model as a logged model of the run; its id and the digest of its weights."""
    from mlflow.entities import LoggedModelOutput  # noqa: PLC0415

    model = client.create_logged_model(experiment_id, name, run_id, model_type="classifier")
    status: Literal["READY", "FAILED"] = "FAILED"
    try:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=trained.best_epoch)])
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent, "model")
            digest = write_model(trained, folder, run_id, model.model_id, model.artifact_location)
            client.log_model_artifacts(model.model_id, str(folder))
        status = "READY"
    finally:
        client.finalize_logged_model(model.model_id, status)
    return model.model_id, digest


def _epoch_metrics(trained: TrainedNetwork) -> Iterator[Metric]:
    from mlflow.entities import Metric  # noqa: PLC0415

    now = _milliseconds()
    for report in trained.history:
        for name, value in report.metrics().items():
            yield Metric(name, value, now, step=report.epoch)


def final_metrics(
    trained: TrainedNetwork,
    evaluation: Evaluation,
    model_id: str,
    dataset: DatasetInfo,
    alarms: Iterable[Mapping[str, Any]],
) -> Iterator[Metric]:
    """The test figures and those of the alarms, tied to the model and the dataset they are about."""
    from mlflow.entities import Metric  # noqa: PLC0415

    now = _milliseconds()
    figures = {f"test_{name}": value for name, value in evaluation.metrics().items()}
    figures |= {"best_epoch": float(trained.best_epoch), "temperature": trained.temperature}
    figures |= {f"alarm_{each['name']}": each["figure"] for each in alarms if each["figure"] is not None}
    for name, value in figures.items():
        digest = dataset.digest[:DATASET_DIGEST_LENGTH]
        yield Metric(name, value, now, trained.best_epoch, model_id, dataset.name, digest)


def log_metrics(client: MlflowClient, run_id: str, metrics: Iterable[Metric]) -> None:
    """Stores take a limited number of metrics per call."""
    remaining = list(metrics)
    while remaining:
        client.log_batch(run_id, metrics=remaining[:METRICS_AT_ONCE])
        remaining = remaining[METRICS_AT_ONCE:]


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
