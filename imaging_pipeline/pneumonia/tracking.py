"""Records training runs in MLflow, registers their models and names the champion.

Owns what is written to and read from the MLflow store, through a client bound to one address: MLflow's
process-wide state (active run, default store, ``./mlruns``) is never touched. Contains no training and no rule for
promotion. Nothing recorded here may identify a patient: counts, digests and pictures without identifiers only.
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.pneumonia.model_files import WEIGHTS_FOLDER, StoredModel, read_model, weights_digest, write_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.entities.model_registry import ModelVersion

    from imaging_pipeline.pneumonia.evaluation import Evaluation
    from imaging_pipeline.pneumonia.training import TrainedNetwork

T = TypeVar("T")

CHAMPION = "champion"
FIGURES = "figures"
DIGEST_TAG = "weights_sha256"
MODEL_TAG = "logged_model_id"
"""A database registry keeps a version's model id only when it may look it up in MLflow's process-wide store."""
DATASET_DIGEST_LENGTH = 36
"""MLflow stores no longer digest with a dataset; the whole one is kept as the tag ``dataset_digest``."""
METRICS_AT_ONCE = 1000
RERUN_HELPS = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"}
"""Error codes of MLflow for a locked database or a busy server."""


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """Which frozen data a model saw.

    Attributes:
        name: of the dataset.
        version: of the dataset: snapshot, recipe and split.
        digest: over its members, hexadecimal.
        snapshot: of the lake, to read it again.
        members: images per split.
        source_uri: where it can be read.
    """

    name: str
    version: str
    digest: str
    snapshot: str
    members: Mapping[str, int]
    source_uri: str


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A version in the model registry and the run it came from; ``uri`` is ``models:/<name>/<version>``."""

    run_id: str
    model_id: str
    name: str
    version: str
    uri: str


@dataclass(frozen=True, slots=True)
class ModelTracker:
    """One experiment and one registered model in an MLflow store.

    A new SQLite store is created at first use, which takes some seconds.

    Attributes:
        tracking_uri: ``sqlite:////absolute/mlflow.db``, another database or ``http(s)://`` of a server.
        artifact_root: folder for artifacts of a database store; a server decides on its own.
        experiment: name of the experiment.
        model_name: name in the registry.

    Raises:
        ConfigurationError: ``tracking_uri`` is a folder, which MLflow no longer supports.
    """

    tracking_uri: str = field(repr=False)
    artifact_root: Path
    experiment: str
    model_name: str

    def __post_init__(self) -> None:
        if "://" not in self.tracking_uri or self.tracking_uri.startswith("file:"):
            raise ConfigurationError("tracking_uri must name a database (sqlite:///...) or a server (http://...)")

    def log_training_run(
        self,
        trained: TrainedNetwork,
        evaluation: Evaluation,
        figures: Mapping[str, bytes],
        dataset: DatasetInfo,
        tags: Mapping[str, str],
    ) -> RegisteredModel:
        """Records a finished training as one run and registers its model; no alias moves.

        Args:
            trained: gives parameters, metrics per epoch (step = epoch) and weights.
            evaluation: on the test set; recorded with the prefix ``test_``, intervals included.
            figures: PNG bytes by file name, kept under ``figures/``.
            dataset: what the model was trained on.
            tags: code version, Dagster run and the like; kept with the run and with the registered version.

        Raises:
            TransientError: the store is busy or unreachable.
        """
        with _mlflow_store():
            client = self._client()
            experiment_id = self._experiment_id(client)
            run_tags = dict(tags) | {"dataset_digest": dataset.digest, "dataset_version": dataset.version}
            run_id = client.create_run(experiment_id, tags=run_tags, run_name=dataset.version).info.run_id
            status = "FAILED"
            try:
                _log_course(client, run_id, trained, figures, dataset)
                model_id, digest = _log_model(client, experiment_id, run_id, self.model_name, trained)
                _log_metrics(client, run_id, _final_metrics(trained, evaluation, model_id, dataset))
                version = self._register(client, run_id, model_id, dict(tags) | {DIGEST_TAG: digest})
                status = "FINISHED"
            finally:
                client.set_terminated(run_id, status)
            return self._registered(version)

    def promote(self, version: str) -> RegisteredModel:
        """Makes a version the champion; whether it deserves it is the caller's decision.

        Raises:
            TransientError: the store is busy or unreachable.
        """
        with _mlflow_store():
            client = self._client()
            client.set_registered_model_alias(self.model_name, CHAMPION, version)
            return self._registered(client.get_model_version(self.model_name, version))

    def champion(self) -> RegisteredModel | None:
        """The version to predict with, or None when there is none yet. Creates no store.

        Raises:
            ConfigurationError: the champion was registered by other software.
            TransientError: the store is busy or unreachable.
        """
        if self._is_unborn():
            return None
        with _mlflow_store():
            client = self._client()
            known = _unless("RESOURCE_DOES_NOT_EXIST", lambda: client.get_registered_model(self.model_name))
            version = known.aliases.get(CHAMPION) if known else None
            return self._registered(client.get_model_version(self.model_name, version)) if version else None

    def find(self, tag: str, value: str) -> RegisteredModel | None:
        """The newest registered version whose training was given this tag. Creates no store.

        Raises:
            TransientError: the store is busy or unreachable.
        """
        if self._is_unborn():
            return None
        with _mlflow_store():
            versions = self._client().search_model_versions(
                f"name = '{self.model_name}'", order_by=["version_number DESC"]
            )
            return next((self._registered(each) for each in versions if each.tags.get(tag) == value), None)

    def metrics(self, model: RegisteredModel) -> dict[str, float]:
        """The last value of every metric of the model's run, such as ``test_auroc``.

        Raises:
            TransientError: the store is busy or unreachable.
        """
        with _mlflow_store():
            return dict(self._client().get_run(model.run_id).data.metrics)

    def figures(self, model: RegisteredModel) -> dict[str, bytes]:
        """The pictures of the model's run, PNG by file name.

        Raises:
            TransientError: the store is busy or unreachable.
        """
        with _mlflow_store(), tempfile.TemporaryDirectory() as folder:
            client = self._client()
            names = [entry.path for entry in client.list_artifacts(model.run_id, FIGURES)]
            return {Path(n).name: Path(client.download_artifacts(model.run_id, n, folder)).read_bytes() for n in names}

    def load(self, model: RegisteredModel) -> StoredModel:
        """Weights and settings of a registered model, checked against the digest in the registry.

        Raises:
            ConfigurationError: the files are not those that were registered.
            TransientError: the store is busy or unreachable.
        """
        with _mlflow_store(), tempfile.TemporaryDirectory() as folder:
            from mlflow.artifacts import download_artifacts  # noqa: PLC0415

            client = self._client()
            location = client.get_logged_model(model.model_id).artifact_location
            expected = client.get_model_version(model.name, model.version).tags.get(DIGEST_TAG)
            uri = f"{location}/{WEIGHTS_FOLDER}"
            download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=self.tracking_uri)
            weights = Path(folder, WEIGHTS_FOLDER)
            if weights_digest(weights) != expected:
                raise ConfigurationError(f"the files of {model.uri} are not those registered; restore or retrain it")
            return read_model(weights)

    def _is_unborn(self) -> bool:
        """Whether the store is an SQLite file that does not exist yet."""
        address = self.tracking_uri.partition("?")[0]
        return address.startswith("sqlite:///") and not Path(address.removeprefix("sqlite:///")).exists()

    def _client(self) -> MlflowClient:
        from mlflow import MlflowClient  # noqa: PLC0415

        return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)

    def _experiment_id(self, client: MlflowClient) -> str:
        """The experiment, made when new with artifacts under ``artifact_root`` (a server places its own)."""
        is_server = self.tracking_uri.startswith(("http://", "https://"))
        location = None if is_server else (self.artifact_root.absolute() / self.experiment).as_uri()
        _unless("RESOURCE_ALREADY_EXISTS", lambda: client.create_experiment(self.experiment, location))
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is None or experiment.lifecycle_stage != "active":
            raise ConfigurationError("the MLflow experiment was deleted; restore it or configure another name")
        return str(experiment.experiment_id)

    def _register(self, client: MlflowClient, run_id: str, model_id: str, tags: dict[str, str]) -> ModelVersion:
        _unless("RESOURCE_ALREADY_EXISTS", lambda: client.create_registered_model(self.model_name))
        source = client.get_logged_model(model_id).artifact_location
        tags = tags | {MODEL_TAG: model_id}
        version = client.create_model_version(self.model_name, source, run_id, tags, model_id=model_id)
        link = [{"name": self.model_name, "version": version.version}]
        client.set_logged_model_tags(model_id, {"mlflow.modelVersions": json.dumps(link)})
        return version

    def _registered(self, version: ModelVersion) -> RegisteredModel:
        number = str(version.version)
        uri = f"models:/{version.name}/{number}"
        if MODEL_TAG not in version.tags:
            raise ConfigurationError(f"{uri} was registered by other software; promote a version trained here")
        return RegisteredModel(str(version.run_id), version.tags[MODEL_TAG], version.name, number, uri)


@contextlib.contextmanager
def _mlflow_store() -> Iterator[None]:
    """Keeps MLflow silent (no telemetry, no progress bars, errors only) and tells a busy store from a wrong call."""
    from mlflow import environment_variables as switches  # noqa: PLC0415
    from mlflow.exceptions import MlflowException  # noqa: PLC0415
    from mlflow.telemetry import set_telemetry_client  # noqa: PLC0415

    switches.MLFLOW_DISABLE_TELEMETRY.set("true")  # type: ignore[no-untyped-call]
    switches.MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set("false")  # type: ignore[no-untyped-call]
    set_telemetry_client()  # type: ignore[no-untyped-call]
    loggers = {name: logging.getLogger(name) for name in ("mlflow", "alembic")}
    levels = {name: logger.level for name, logger in loggers.items()}
    try:
        for logger in loggers.values():
            logger.setLevel(logging.ERROR)
        yield
    except MlflowException as error:
        is_unreachable = isinstance(error.__cause__ or error.__context__, OSError)
        if error.error_code in RERUN_HELPS or is_unreachable:
            raise TransientError(f"the MLflow store failed with {error.error_code}; try again") from error
        raise
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])


def _unless(error_code: str, call: Callable[[], T]) -> T | None:
    """The result of ``call``, or None when MLflow answers with ``error_code``."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        return call()
    except MlflowException as error:
        if error.error_code != error_code:
            raise
        return None


def _log_course(
    client: MlflowClient, run_id: str, trained: TrainedNetwork, figures: Mapping[str, bytes], dataset: DatasetInfo
) -> None:
    """Parameters, one metric row per epoch, the dataset and the pictures."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param  # noqa: PLC0415

    client.log_batch(run_id, params=[Param(name, str(value)) for name, value in trained.config.to_dict().items()])
    _log_metrics(client, run_id, _epoch_metrics(trained))
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


def _log_model(
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


def _final_metrics(
    trained: TrainedNetwork, evaluation: Evaluation, model_id: str, dataset: DatasetInfo
) -> Iterator[Metric]:
    """The test figures, tied to the model and the dataset they are about."""
    from mlflow.entities import Metric  # noqa: PLC0415

    now = _milliseconds()
    figures = {f"test_{name}": value for name, value in evaluation.metrics().items()}
    for name, value in (figures | {"best_epoch": float(trained.best_epoch)}).items():
        digest = dataset.digest[:DATASET_DIGEST_LENGTH]
        yield Metric(name, value, now, trained.best_epoch, model_id, dataset.name, digest)


def _log_metrics(client: MlflowClient, run_id: str, metrics: Iterable[Metric]) -> None:
    """Stores take a limited number of metrics per call."""
    remaining = list(metrics)
    while remaining:
        client.log_batch(run_id, metrics=remaining[:METRICS_AT_ONCE])
        remaining = remaining[METRICS_AT_ONCE:]


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
