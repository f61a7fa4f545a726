"""The one resource: settings, and the lakes, vault and ledger they name.

A plain object and no configurable resource, so that no connection string shows in the Dagster UI.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dagster_aws.s3 import S3Resource
from dagster_duckdb import DuckDBResource

from imaging_pipeline.catalog.inspection import PARSER_VERSION
from imaging_pipeline.catalog.intake import BatchLimits
from imaging_pipeline.catalog.ledger import Ledger
from imaging_pipeline.deid.clearance import Clearance
from imaging_pipeline.deid.evidence import decisions_digest
from imaging_pipeline.deid.pixels import Decisions
from imaging_pipeline.deid.profile import Profile, load_profile
from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.deid.release import CODE_VERSION as ENGINE_VERSION
from imaging_pipeline.deid.vault import Vault
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake.dictionary.rows import write_dictionary
from imaging_pipeline.lake.instances import open_lake
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.silver import CODE_VERSION as PROJECTION_VERSION
from imaging_pipeline.metadata.silver import VersionPolicy
from imaging_pipeline.objects.events import EventQueue
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.objects.opening import access_of, open_source
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.objects.s3 import S3Access
from imaging_pipeline.objects.source import Source
from imaging_pipeline.pneumonia.config import TrainingConfig, load_training
from imaging_pipeline.pneumonia.tracking import ModelTracker
from imaging_pipeline.settings import LakeLocation, Settings
from imaging_pipeline.sources import Deletions, ElementMode, SourceConfig
from imaging_pipeline.tensors.definition import DatasetDefinition, load_definition
from imaging_pipeline.tensors.recipe import Recipe, load_recipe
from imaging_pipeline.tensors.shards import Compression
from imaging_pipeline.tensors.storage import ShardStore
from imaging_pipeline.tensors.thumbnails import CODE_VERSION as THUMBNAIL_VERSION
from imaging_pipeline.tensors.versions import DatasetVersion, freeze_dataset
from imaging_pipeline.web.zone import Zone, ZoneName

Progress = Callable[[int, int], None]
"""Takes the things done since the last call, and all there are."""

MODEL_NAME = "pneumonia"
"""Name of the MLflow experiment and of the registered model."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """What assets, sensors and the command line work on.

    Attributes:
        settings: paths, limits and names.
        progress: makes the progress callback of a named stage; None: no progress is shown.
    """

    settings: Settings
    progress: Callable[[str], Progress] | None = None

    def progress_of(self, stage: str) -> Progress | None:
        """The callback of a stage, or None."""
        return self.progress(stage) if self.progress else None

    @contextmanager
    def identified(self, *, read_only: bool = False, threads: int | None = 1) -> Iterator[Lake]:
        """The identified lake.

        Args:
            read_only: nothing is written.
            threads: of one query. A batch's queries are many and small: more threads cost more than they give. None,
                one for each core, is for queries over everything.
        """
        _make_private(self.settings.home / "identified")
        with _open(self.settings.identified, read_only=read_only, threads=threads) as lake:
            yield lake

    @contextmanager
    def research(self, *, read_only: bool = False, threads: int | None = 1) -> Iterator[Lake]:
        """The research lake, in the same way; opens nothing of the identified side."""
        with _open(self.settings.research, read_only=read_only, threads=threads) as lake:
            yield lake

    def ledger(self) -> Ledger:
        """The ledger of seen objects; a context manager."""
        _make_private(self.settings.home / "identified")
        return Ledger(self.settings.ledger_path)

    def source(self, config: SourceConfig) -> Source:
        """A source; nothing is made here, so that a mount that is gone is noticed."""
        return open_source(config, self.access(config))

    def deletions_of(self, source_name: str) -> Deletions:
        """What a vanished object of a source means; one-time loads take nothing back."""
        configured = (config.deletions for config in self.settings.sources if config.name == source_name)
        return next(configured, Deletions.IGNORE)

    def queue(self, config: SourceConfig) -> EventQueue | None:
        """The queue of a bucket's notifications, when it has one."""
        return EventQueue(self.access(config), config.queue_url) if config.queue_url else None

    def s3(self) -> S3Resource:
        """How object stores are reached; credentials come from the environment, a profile or the machine's role."""
        return S3Resource(endpoint_url=self.settings.s3_endpoint_url, region_name=self.settings.s3_region)

    def access(self, config: SourceConfig | None = None) -> S3Access:
        """How a source's store is reached, or that of the installation."""
        resource = self.s3()
        default = S3Access(resource.endpoint_url, resource.region_name, resource.profile_name)
        return access_of(config, default) if config else default

    def reader(self) -> ObjectReader:
        """Reads objects of all sources."""
        return ObjectReader(self.access(), {config.name: self.access(config) for config in self.settings.sources})

    def zone(self, name: ZoneName) -> Zone:
        """What a service of one zone works on; of the research zone nothing leads to the identified side."""
        settings = self.settings
        if name is ZoneName.RESEARCH:
            folder, schema, lake, reader = "research", "deid", self.research, ObjectReader(self.access())
            landing = settings.annotation_files
        else:
            folder, schema, lake, reader = "identified", "silver", self.identified, self.reader()
            landing = settings.landing
        return Zone(
            name=name,
            schema=schema,
            open_lake=partial(lake, read_only=True),
            write_lake=lake,
            reader=reader,
            folder=settings.home / folder,
            landing=landing,
            project=settings.project,
            clearance=Clearance(settings.clearance_files) if name is ZoneName.RESEARCH else None,
        )

    def limits(self) -> BatchLimits:
        """How large a batch may be, and how many one tick may cut."""
        settings = self.settings
        return BatchLimits(settings.batch_objects, settings.batch_bytes, settings.batches_per_tick)

    def version_policy(self) -> VersionPolicy:
        """What becomes current when a SOP Instance UID comes again with other bytes."""
        return VersionPolicy(self.settings.version_policy)

    def element_mode(self, source_name: str = "") -> ElementMode:
        """Which elements of a source's headers become rows; without a name: on the research side."""
        own = (config.elements for config in self.settings.sources if config.name == source_name)
        return next(own, None) or ElementMode(self.settings.elements)

    def keys(self) -> ProjectKeys:
        """The research project's keys, from the master key."""
        return ProjectKeys.derive(self.settings.master_key(), self.settings.project, self.settings.key_epoch)

    def vault(self) -> Vault:
        """The encrypted crosswalk."""
        return Vault(self.settings.vault_path, self.keys())

    def profile(self) -> Profile:
        """The de-identification profile."""
        return load_profile(self.settings.profile)

    def decisions(self) -> Decisions:
        """What people decided about pixels that were held."""
        return Decisions.load(self.settings.decisions_path)

    def recipes(self) -> list[Recipe]:
        """The tensor recipes, of which the first is the model's.

        Raises:
            ConfigurationError: one is not there or wrong, two have one name, or the first makes volumes.
        """
        recipes = [load_recipe(name.strip()) for name in self.settings.recipe.split(",")]
        if len({recipe.name for recipe in recipes}) < len(recipes):
            raise ConfigurationError("IMAGING_PIPELINE_RECIPE: two recipes have the same name")
        if recipes[0].volume is not None:
            raise ConfigurationError("IMAGING_PIPELINE_RECIPE: the first recipe is the model's and must make images")
        return recipes

    def recipe(self) -> Recipe:
        """The recipe of the model's images."""
        return self.recipes()[0]

    def datasets(self) -> list[DatasetDefinition]:
        """The datasets that are frozen, of which the first is the model's.

        Raises:
            ConfigurationError: one is not there or wrong, two have one name, or the first has a recipe of its own.
        """
        datasets = [load_definition(name.strip()) for name in self.settings.datasets.split(",")]
        if len({dataset.name for dataset in datasets}) < len(datasets):
            raise ConfigurationError("IMAGING_PIPELINE_DATASETS: two datasets have the same name")
        if datasets[0].recipe is not None:
            raise ConfigurationError(
                "IMAGING_PIPELINE_DATASETS: the first dataset is the model's and takes the first recipe: remove its "
                "key 'recipe'"
            )
        return datasets

    def freeze(self, lake: Lake, definition: DatasetDefinition) -> DatasetVersion:
        """Freeze a dataset as it is now; see `freeze_dataset`."""
        recipe = load_recipe(definition.recipe) if definition.recipe else self.recipe()
        return freeze_dataset(lake, recipe, definition, self.shards().open, project=self.settings.project)

    def shards(self) -> ShardStore:
        """Where tensor shards are."""
        settings = self.settings
        compression = Compression(settings.shard_compression)
        return ShardStore(
            settings.tensor_files, settings.tensor_cache, self.access(), settings.shard_bytes, compression
        )

    def chain_version(self) -> str:
        """Changes when a batch carried through the chain would give other rows, files or tensors."""
        return key_of(
            PARSER_VERSION,
            PROJECTION_VERSION,
            self.settings.version_policy,
            *(self.element_mode(name) for name in ("", *sorted(config.name for config in self.settings.sources))),
            ENGINE_VERSION,
            self.profile().digest,
            self.keys().key_id,
            decisions_digest(self.decisions()),
            THUMBNAIL_VERSION,
            *(recipe.digest for recipe in self.recipes()),
        )

    def tracker(self) -> ModelTracker:
        """The MLflow experiment and registered model."""
        self.settings.mlflow_artifacts.mkdir(parents=True, exist_ok=True)
        return ModelTracker(self.settings.mlflow_tracking_uri, self.settings.mlflow_artifacts, MODEL_NAME, MODEL_NAME)

    def training(self) -> TrainingConfig:
        """How the network is trained."""
        config, epochs = load_training(self.settings.training), self.settings.epochs
        return replace(config, epochs=epochs) if epochs else config


def _make_private(folder: Path) -> None:
    """A folder for its owner alone; one that exists keeps its mode, which ``doctor`` looks at."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def _open(location: LakeLocation, *, read_only: bool, threads: int | None) -> AbstractContextManager[Lake]:
    connect = DuckDBResource(database=":memory:").get_connection
    return open_lake(location, connect, read_only=read_only, threads=threads, on_open=write_dictionary)
