"""Running the jobs from the command line, in this process, on the same instance the UI shows."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import dagster as dg

from imaging_pipeline.catalog.bronze import BatchCounts, batch_counts
from imaging_pipeline.catalog.intake import NO_LIMIT, cut
from imaging_pipeline.catalog.ledger import Batch, Ledger
from imaging_pipeline.defs import intake
from imaging_pipeline.defs.assets.model import MODEL_KEY, PROMOTION_CHECK, TRAINING_POOL
from imaging_pipeline.defs.partitions import arrival_batches
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.errors import TransientError
from imaging_pipeline.settings import Settings
from imaging_pipeline.sources import SourceConfig

HOST_TAG, PROCESS_TAG = "imaging/host", "imaging/process"

_TELLING_ERRORS = frozenset({"ConfigurationError", "TransientError", "ReleaseRefused"})

_PLACE_SECONDS = 2.0
"""Between two looks at whether a pool has a place."""

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""The command line says what it does itself; the events are all in the instance."""


@dataclass(frozen=True, slots=True)
class BatchRun:
    """A batch that was run, and whether its whole chain succeeded."""

    batch: Batch
    succeeded: bool
    run_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A run of the training job.

    Attributes:
        is_new: it has trained; else the model of the same dataset was found.
        reason: why it failed.
        refusal: why the model does not become champion, Markdown; empty where it does.
    """

    succeeded: bool
    is_new: bool
    run_id: str
    reason: str = ""
    refusal: str = ""


class Runner:
    """Runs jobs of the code location in this process."""

    def __init__(self, definitions: dg.Definitions, workspace: Workspace, instance: dg.DagsterInstance) -> None:
        self._definitions = definitions
        self._workspace = workspace
        self._instance = instance

    def look(self, config: SourceConfig) -> tuple[int, str]:
        """List a source in full: how many objects it holds, and what was found, in words."""
        workspace = self._workspace
        with workspace.ledger() as ledger:
            source = workspace.source(config)
            ledger.restart_listing(source)
            found = ledger.scan(source, workspace.reader(), now=datetime.now(UTC))
        return found.listed, intake.in_words(found, config)

    def due_batches(self, config: SourceConfig) -> list[Batch]:
        """Batches cut from what was found in a source, behind those of earlier loads that were never finished."""
        workspace = self._workspace
        with workspace.ledger() as ledger:
            self._cut(ledger, config)
            return self.unfinished(ledger.batches())

    def found_since(self, config: SourceConfig) -> list[Batch]:
        """Batches of objects that turned up while others were read: members of archives known by content only."""
        with self._workspace.ledger() as ledger:
            return self._cut(ledger, config)

    def settle(self) -> None:
        """A load is over: its studies are complete, none waits for more images."""
        config = {"ops": {"study_state": {"config": {"everything": True}}}}
        result = self._run("settle_studies", run_config=config)
        if not result.success:
            raise TransientError(_reason(result) or "the studies could not be settled; see the run in the Dagster UI")

    def unfinished(self, batches: Sequence[Batch]) -> list[Batch]:
        """Those that never went through, or by another version of code, profile or recipe."""
        version = self._workspace.chain_version()
        return [batch for batch in batches if intake.needs_run(self._instance, batch, version)]

    def run_batch(self, batch: Batch) -> BatchRun:
        """One batch from objects to tensors."""
        self._instance.add_dynamic_partitions(str(arrival_batches.name), [batch.batch_id])
        result = self._run("ingest_batch", batch.batch_id)
        return BatchRun(batch, result.success, result.run_id, "" if result.success else _reason(result))

    def train(self, waits: Callable[[], None] = lambda: None) -> TrainingRun:
        """Labels, dataset and model; an unchanged dataset is not trained on again.

        Args:
            waits: called once, when another training of this installation must end first.
        """
        self._wait_for(TRAINING_POOL, waits)
        result = self._run("train_model")
        if not result.success:
            return TrainingRun(succeeded=False, is_new=False, run_id=result.run_id, reason=_reason(result))
        made = [event.materialization for event in result.get_asset_materialization_events()]
        is_new = any(each.metadata["is_new"].value for each in made if each.asset_key == MODEL_KEY)
        verdicts = [
            each
            for each in result.get_asset_check_evaluations()
            if each.check_name == PROMOTION_CHECK and not each.passed
        ]
        refusals = [str(each.metadata["reasons"].value) for each in verdicts]
        return TrainingRun(succeeded=True, is_new=is_new, run_id=result.run_id, refusal="\n".join(refusals))

    def unpredicted(self, batches: Sequence[Batch]) -> list[Batch]:
        """Batches with tensors and without predictions of the champion."""
        champion = self._workspace.tracker().champion()
        with self._workspace.research(read_only=True) as lake:
            rows = lake.rows(
                """SELECT DISTINCT tensor.arrival_batch FROM gold.image_tensor AS tensor
                WHERE recipe_id = ? AND NOT EXISTS (
                    SELECT 1 FROM gold.model_prediction AS prediction
                    WHERE prediction.tensor_key = tensor.tensor_key AND model_version = ?
                        AND prediction._loaded_at >= tensor._loaded_at)""",
                [self._workspace.recipe().digest, champion.version if champion else ""],
            )
        due = {str(batch_id) for (batch_id,) in rows}
        return [batch for batch in batches if batch.batch_id in due]

    def predict(self, batch: Batch) -> BatchRun:
        """Predictions for one batch."""
        result = self._run("predict_batch", batch.batch_id)
        return BatchRun(batch, result.success, result.run_id)

    def counts(self, batches: Sequence[Batch]) -> BatchCounts:
        """The closing count over some batches."""
        if not batches:
            return BatchCounts(seen=0, parsed=0, failed=0, skipped=0)
        with self._workspace.identified(read_only=True) as lake:
            found = [batch_counts(lake, batch.batch_id) for batch in batches]
        return BatchCounts(
            seen=sum(batch.objects for batch in batches),
            parsed=sum(counts.parsed for counts in found),
            failed=sum(counts.failed for counts in found),
            skipped=sum(counts.skipped for counts in found),
            bytes=sum(counts.bytes for counts in found),
        )

    def failed_checks(self, run: BatchRun) -> list[str]:
        """Names of the checks that hold a batch."""
        records = self._instance.get_records_for_run(
            run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
        ).records
        events = [record.event_log_entry.dagster_event for record in records]
        evaluations = [event.asset_check_evaluation_data for event in events if event is not None]
        return [each.check_name for each in evaluations if not each.passed and each.blocking]

    def _wait_for(self, pool: str, waits: Callable[[], None]) -> None:
        """Sleep until a pool has a place: in this process Dagster would wait for it without a pause or a word."""
        if not self._has_place(pool):
            waits()
        while not self._has_place(pool):
            time.sleep(_PLACE_SECONDS)
            _bury_dead_runs(self._instance)

    def _has_place(self, pool: str) -> bool:
        """Whether a pool has a place; those that runs held which have ended are given back first."""
        storage = self._instance.event_log_storage
        for run_id in storage.get_concurrency_info(pool).active_run_ids:
            run = self._instance.get_run_by_id(run_id)
            if run is None or run.is_finished:
                storage.free_concurrency_slots_for_run(run_id)
        taken = storage.get_concurrency_info(pool)
        return taken.limit is None or taken.active_slot_count < taken.limit

    def _cut(self, ledger: Ledger, config: SourceConfig) -> list[Batch]:
        limits = replace(self._workspace.limits(), batches=NO_LIMIT)
        return cut(ledger, datetime.now(UTC), limits, source=config.name, is_announced=False)

    def _run(
        self, job: str, partition_key: str | None = None, run_config: Mapping[str, object] | None = None
    ) -> dg.ExecuteInProcessResult:
        return self._definitions.resolve_job_def(job).execute_in_process(
            instance=self._instance,
            partition_key=partition_key,
            run_config={**_QUIET, **(run_config or {})},
            raise_on_error=False,
            tags={HOST_TAG: socket.gethostname(), PROCESS_TAG: str(os.getpid())},
        )


@contextmanager
def open_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance under the pipeline's home, made on first use."""
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(settings))) as instance:
        _bury_dead_runs(instance)
        yield instance


def _bury_dead_runs(instance: dg.DagsterInstance) -> None:
    """Report runs of a command line that was killed as failed; they would hold a place in the queue for hours."""
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED], tags={HOST_TAG: socket.gethostname()})
    for run in instance.get_runs(filters):
        if not _is_alive(int(run.tags[PROCESS_TAG])):
            instance.report_run_failed(run, "the command line that ran it was killed; run it again to go on")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)  # a daemon would, if there is one


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # alive, and somebody else's
    return True


def _reason(result: dg.ExecuteInProcessResult) -> str:
    """What the error that ended a run said, when it is one made on purpose; those hold no identifier."""
    for event in result.all_events:
        error = event.step_failure_data.error if event.is_step_failure else None
        while error is not None:
            if error.cls_name in _TELLING_ERRORS:
                return error.message.partition(": ")[2].strip()
            error = error.cause
    return ""


def prepare_dagster_home(settings: Settings) -> Path:
    """Dagster's folder with its configuration file; one that is there already is left as it is."""
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    target = settings.dagster_home / "dagster.yaml"
    if not target.exists():
        shutil.copyfile(_instance_config(), target)
    return settings.dagster_home


def _instance_config() -> Path:
    """The packaged configuration; in a checkout, the one at its top."""
    packaged = Path(str(resources.files("imaging_pipeline"))) / "dagster.yaml"
    return packaged if packaged.is_file() else packaged.parent.parent / "dagster.yaml"
