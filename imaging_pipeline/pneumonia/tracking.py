"""Records training runs in MLflow, registers their models and names the champion.

Owns what is written to and read from the MLflow store, through a client bound to one address: MLflow's
process-wide state (active run, default store, ``./mlruns``) is never touched. Contains no training and no rule for
promotion. Nothing recorded here may identify a patient: counts, digests and pictures without identifiers only.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pneumonia import recording
from imaging_pipeline.pneumonia.mlflow_store import card_of, mlflow_store, unfinished_run, unless
from imaging_pipeline.pneumonia.model_files import WEIGHTS_FOLDER, StoredModel, read_model, weights_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from imaging_pipeline.pneumonia.evaluation import Evaluation
    from imaging_pipeline.pneumonia.gate import Decision
    from imaging_pipeline.pneumonia.training import EpochReport, TrainedNetwork

_log = logging.getLogger(__name__)

CHAMPION, CHALLENGER = "champion", "challenger"
"""Aliases: predictions are made with it; to be compared with that one."""

PROMOTION_TAG = "promotion"
DECISION = "promotion.json"
REPORT = "model_card.md"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""MLflow's pages then open on training runs, and not on traces of language models."""
NOTE_TAG = "mlflow.note.content"
"""What MLflow's pages show as the description of a run."""
DIGEST_TAG = "weights_sha256"
MODEL_TAG = "logged_model_id"
"""A database registry keeps a version's model id only when it may look it up in MLflow's process-wide store."""


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
class RegisteredVersion:
    """What the store says of a registered version now.

    Attributes:
        model: the version.
        aliases: what it is called in the registry, such as ``champion``.
        weights_sha256: digest of its stored weights and settings.
        registered_at: when it was registered, naive UTC.
        card: what was recorded at its training; empty when its run has been removed from the store.
        tags: what its training was given, such as ``dagster/run_id`` and ``lake_snapshot``.
    """

    model: RegisteredModel
    aliases: frozenset[str]
    weights_sha256: str
    registered_at: datetime
    card: Mapping[str, Any]
    tags: Mapping[str, str] = field(default_factory=dict)


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

    @contextlib.contextmanager
    def training_run(self, dataset: DatasetInfo, tags: Mapping[str, str], resumed_by: str = "") -> Iterator[str]:
        """A run that lasts as long as its block, with the machine's load; FAILED when the block raises.

        A run that was killed is gone on with, when it was given the same value of the tag ``resumed_by``.

        Args:
            dataset: what is trained on.
            tags: code version, Dagster run and the like.
            resumed_by: name of a tag by which the run of a killed training is known.

        Yields:
            The run's id, for `record`.

        Raises:
            TransientError: the store is busy or unreachable.
        """
        with mlflow_store():
            client = self._client()
            experiment_id = self._experiment_id(client)
            run_id = unfinished_run(client, experiment_id, resumed_by, tags.get(resumed_by, ""))
            if run_id is None:
                run_tags = recording.run_tags_of(dataset, tags)
                run_id = client.create_run(experiment_id, tags=run_tags, run_name=dataset.version).info.run_id
            status = "FAILED"
            try:
                with recording.machine_load(self.tracking_uri, run_id):
                    yield run_id
                status = "FINISHED"
            finally:
                client.set_terminated(run_id, status)

    def note_epochs(self, run_id: str, reports: Sequence[EpochReport]) -> None:
        """Show epochs in an open `training_run` as they end. What fails ends no training: `record` adds them later.

        Args:
            run_id: of the run.
            reports: of epochs; those it has already change nothing.
        """
        try:
            with mlflow_store():
                recording.log_epochs(self._client(), run_id, reports)
        except Exception as error:  # noqa: BLE001 - whatever the store's client raises
            _log.warning("an epoch is not shown in MLflow yet: %s", type(error).__name__)

    def record(
        self,
        run_id: str,
        trained: TrainedNetwork,
        evaluation: Evaluation,
        figures: Mapping[str, bytes],
        dataset: DatasetInfo,
        tags: Mapping[str, str],
        card: Mapping[str, Any],
    ) -> RegisteredModel:
        """Records a finished training in its run and registers its model; no alias moves.

        Args:
            run_id: of a `training_run` that is open.
            trained: gives parameters, metrics per epoch (step = epoch) and weights.
            evaluation: on the test set; recorded with the prefix ``test_``, intervals included.
            figures: PNG bytes by file name, kept under ``figures/``.
            dataset: what the model was trained on.
            tags: code version, Dagster run and the like; kept with the registered version.
            card: what a reader of the model must know, as JSON values; kept as ``model_card.json``. Its
                ``preprocessing_spec``, the recipe of the images, is stored with the weights, too.

        Raises:
            TransientError: the store is busy or unreachable.
        """
        with mlflow_store():
            client = self._client()
            experiment_id = client.get_run(run_id).info.experiment_id
            recording.log_course(client, run_id, trained, figures, dataset, card)
            recipe = card.get("preprocessing_spec")
            model_id, digest = recording.log_model(client, experiment_id, run_id, self.model_name, trained, recipe)
            recording.log_metrics(client, run_id, recording.final_metrics(trained, evaluation, model_id, dataset, card))
            tags = recording.tags_of(dataset, tags) | {DIGEST_TAG: digest}
            return self._registered(self._register(client, run_id, model_id, tags))

    def resolve(self, uri: str) -> RegisteredModel:
        """The registered version that ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` names. Creates no store.

        Raises:
            ConfigurationError: there is none, or it was registered by other software.
            TransientError: the store is busy or unreachable.
        """
        found = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/([0-9]+))", uri)
        if found is None:
            raise ConfigurationError(f"expected models:/NAME@ALIAS or models:/NAME/VERSION, found {uri!r}")
        name, alias, number = found.groups()
        missing = ConfigurationError(f"there is no model {uri} in this installation's registry: look into MLflow")
        if self._is_unborn():
            raise missing
        with mlflow_store():
            client = self._client()

            def look() -> ModelVersion:
                return client.get_model_version(name, number or client.get_model_version_by_alias(name, alias).version)

            version = unless({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}, look)
            if version is None:
                raise missing
            return self._registered(version)

    def promote(self, version: str) -> RegisteredModel:
        """Makes a version the champion; whether it deserves it is the caller's decision.

        Raises:
            TransientError: the store is busy or unreachable.
        """
        with mlflow_store():
            client = self._client()
            client.set_registered_model_alias(self.model_name, CHAMPION, version)
            return self._registered(client.get_model_version(self.model_name, version))

    def decide(self, model: RegisteredModel, decision: Decision, report: str) -> None:
        """Make a version the champion, or the challenger that was refused, and keep why.

        Args:
            model: the version.
            decision: of the promotion gate; kept as ``promotion.json`` and, in short, as the version's description.
            report: for people, Markdown; kept as ``model_card.md``.

        Raises:
            TransientError: the store is busy or unreachable.
        """
        with mlflow_store():
            client = self._client()
            client.log_dict(model.run_id, decision.to_dict(), DECISION)
            client.log_text(model.run_id, report, REPORT)
            outcome = "promoted" if decision.is_promoted else "refused"
            reasons = "; ".join(decision.reasons)
            client.set_tag(
                model.run_id, NOTE_TAG, f"**{outcome}**: {reasons}. The whole report is artifact `{REPORT}`."
            )
            client.set_model_version_tag(model.name, model.version, PROMOTION_TAG, outcome)
            client.update_model_version(model.name, model.version, f"{outcome}: {reasons}")
            alias = CHAMPION if decision.is_promoted else CHALLENGER
            client.set_registered_model_alias(model.name, alias, model.version)
            known = client.get_registered_model(model.name).aliases
            if decision.is_promoted and str(known.get(CHALLENGER)) == model.version:
                client.delete_registered_model_alias(model.name, CHALLENGER)

    def champion(self) -> RegisteredModel | None:
        """The version to predict with, or None when there is none yet. Creates no store.

        Raises:
            ConfigurationError: the champion was registered by other software.
            TransientError: the store is busy or unreachable.
        """
        if self._is_unborn():
            return None
        with mlflow_store():
            client = self._client()
            known = unless({"RESOURCE_DOES_NOT_EXIST"}, lambda: client.get_registered_model(self.model_name))
            version = known.aliases.get(CHAMPION) if known else None
            return self._registered(client.get_model_version(self.model_name, version)) if version else None

    def find(self, tag: str, value: str) -> RegisteredModel | None:
        """The newest registered version whose training was given this tag. Creates no store.

        Raises:
            TransientError: the store is busy or unreachable.
        """
        if self._is_unborn():
            return None
        with mlflow_store():
            versions = self._client().search_model_versions(
                f"name = '{self.model_name}'", order_by=["version_number DESC"]
            )
            return next((self._registered(each) for each in versions if each.tags.get(tag) == value), None)

    def versions(self) -> list[RegisteredVersion]:
        """All versions registered by this software, oldest first. Creates no store.

        Raises:
            TransientError: the store is busy or unreachable.
        """
        if self._is_unborn():
            return []
        with mlflow_store():
            client = self._client()
            known = unless({"RESOURCE_DOES_NOT_EXIST"}, lambda: client.get_registered_model(self.model_name))
            found = client.search_model_versions(f"name = '{self.model_name}'", order_by=["version_number ASC"])
            aliases = known.aliases if known else {}
            return [self._described(client, each, aliases) for each in found if MODEL_TAG in each.tags]

    def card(self, model: RegisteredModel) -> dict[str, Any]:
        """What was recorded of a version at its training; empty when its run was removed from the store.

        Raises:
            TransientError: the store is busy or unreachable.
        """
        with mlflow_store():
            return card_of(self._client(), model.run_id)

    def metrics(self, model: RegisteredModel) -> dict[str, float]:
        """The last value of every metric of the model's run, such as ``test_auroc``.

        Raises:
            TransientError: the store is busy or unreachable.
        """
        with mlflow_store():
            return dict(self._client().get_run(model.run_id).data.metrics)

    def figures(self, model: RegisteredModel) -> dict[str, bytes]:
        """The pictures of the model's run, PNG by file name.

        Raises:
            TransientError: the store is busy or unreachable.
        """
        with mlflow_store(), tempfile.TemporaryDirectory() as folder:
            client = self._client()
            names = [entry.path for entry in client.list_artifacts(model.run_id, recording.FIGURES)]
            return {Path(n).name: Path(client.download_artifacts(model.run_id, n, folder)).read_bytes() for n in names}

    def load(self, model: RegisteredModel) -> StoredModel:
        """Weights and settings of a registered model, checked against the digest in the registry.

        Raises:
            ConfigurationError: the files are not those that were registered.
            TransientError: the store is busy or unreachable.
        """
        with mlflow_store(), tempfile.TemporaryDirectory() as folder:
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
        unless({"RESOURCE_ALREADY_EXISTS"}, lambda: client.create_experiment(self.experiment, location, KIND))
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is None or experiment.lifecycle_stage != "active":
            raise ConfigurationError("the MLflow experiment was deleted; restore it or configure another name")
        return str(experiment.experiment_id)

    def _register(self, client: MlflowClient, run_id: str, model_id: str, tags: dict[str, str]) -> ModelVersion:
        unless({"RESOURCE_ALREADY_EXISTS"}, lambda: client.create_registered_model(self.model_name))
        source = client.get_logged_model(model_id).artifact_location
        tags = tags | {MODEL_TAG: model_id}
        version = client.create_model_version(self.model_name, source, run_id, tags, model_id=model_id)
        link = [{"name": self.model_name, "version": version.version}]
        client.set_logged_model_tags(model_id, {"mlflow.modelVersions": json.dumps(link)})
        return version

    def _described(self, client: MlflowClient, version: ModelVersion, aliases: Mapping[str, str]) -> RegisteredVersion:
        model = self._registered(version)
        return RegisteredVersion(
            model=model,
            aliases=frozenset(alias for alias, number in aliases.items() if str(number) == model.version),
            weights_sha256=version.tags[DIGEST_TAG],
            registered_at=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).replace(tzinfo=None),
            card=card_of(client, model.run_id),
            tags=dict(version.tags),
        )

    def _registered(self, version: ModelVersion) -> RegisteredModel:
        number = str(version.version)
        uri = f"models:/{version.name}/{number}"
        if MODEL_TAG not in version.tags:
            raise ConfigurationError(f"{uri} was registered by other software; promote a version trained here")
        return RegisteredModel(str(version.run_id), version.tags[MODEL_TAG], version.name, number, uri)
