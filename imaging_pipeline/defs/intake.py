"""From the landing folder to runs: the sensor, the one-off load of a folder, and the nightly repair.

All three cut batches through the ledger; what was seen is decided there, never by a cursor or a run key.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from imaging_pipeline.catalog.ledger import Batch, Ledger, is_batch_id
from imaging_pipeline.defs import reporting
from imaging_pipeline.defs.jobs import ingest_batch
from imaging_pipeline.defs.partitions import arrival_batches
from imaging_pipeline.defs.reporting import asset_key
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.objects.folder import Folder

SENSOR_INTERVAL_SECONDS = 30

REPAIRS_PER_NIGHT = 50

ATTEMPTS_PER_BATCH = 3
"""A batch that failed this often waits for a person; it is named in the schedule's tick."""

LAST_ASSET = asset_key("gold", "image_tensor")
"""The end of a batch's chain: a batch without it is not done."""


def take_in(ledger: Ledger, source: Folder, workspace: Workspace, *, is_announced: bool) -> list[Batch]:
    """List a source and cut what is new into batches."""
    now, settings = datetime.now(UTC), workspace.settings
    ledger.record(source.list(now), workspace.reader())
    return ledger.cut(
        day=now.date(),
        max_objects=settings.batch_objects,
        max_bytes=settings.batch_bytes,
        max_batches=settings.batches_per_tick if not is_announced else 1_000_000,
        is_announced=is_announced,
    )


def run_request(batch: Batch) -> dg.RunRequest:
    """The run of a batch. The run key makes announcing it twice harmless."""
    return dg.RunRequest(
        run_key=batch.batch_id, partition_key=batch.batch_id, tags={"imaging/objects": str(batch.objects)}
    )


@dg.sensor(
    job=ingest_batch,
    minimum_interval_seconds=SENSOR_INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Finds new or changed objects in the landing folder and requests a run for each batch of them.",
)
def landing_sensor(
    context: dg.SensorEvaluationContext, workspace: dg.ResourceParam[Workspace]
) -> dg.SensorResult | dg.SkipReason:
    """Batches are committed to the ledger before they are announced; the cursor is the last one announced."""
    settings = workspace.settings
    with workspace.ledger() as ledger:
        take_in(ledger, workspace.landing(), workspace, is_announced=False)
        pending = ledger.batches_to_announce(int(context.cursor or 0), settings.batches_per_tick)
        waiting = ledger.waiting()
    if not pending:
        young = f"; files younger than {settings.minimum_age_seconds:g} s wait for the next look"
        return dg.SkipReason(f"nothing new in the landing folder{young}")
    context.log.info(f"{len(pending)} batches announced, {waiting} objects wait for the next tick")
    return dg.SensorResult(
        run_requests=[run_request(batch) for batch in pending],
        dynamic_partitions_requests=[arrival_batches.build_add_request([batch.batch_id for batch in pending])],
        cursor=str(pending[-1].seq),
    )


class FolderToLoad(dg.Config):
    """A folder, zip archive or single file on this machine to take in once."""

    path: str
    source: str = ""


@dg.op(description="Lists a folder and cuts its new objects into batches; the landing sensor announces them.")
def register_folder(
    context: dg.OpExecutionContext, config: FolderToLoad, workspace: dg.ResourceParam[Workspace]
) -> None:
    """Take in a folder that is not watched."""
    source = Folder(Path(config.path).expanduser(), config.source or workspace.settings.source_name)
    with workspace.ledger() as ledger:
        scan = ledger.record(source.list(datetime.now(UTC)), workspace.reader())
    context.log.info(f"{scan.listed} objects listed, {scan.new} of them new; the landing sensor cuts them into batches")


@dg.job(description="Take in a folder once; runs for its batches follow from the landing sensor.")
def load_folder() -> None:
    """One op: listing is quick, the work is in the batches."""
    register_folder()


@dg.schedule(
    job=ingest_batch,
    cron_schedule="0 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Runs again the batches that are missing, failed or out of date, oldest first, a bounded number.",
)
def repair_batches(
    context: dg.ScheduleEvaluationContext, workspace: dg.ResourceParam[Workspace]
) -> list[dg.RunRequest] | dg.SkipReason:
    """One run per batch: a run over a range would close the partitioned checks' gate for good."""
    with workspace.ledger() as ledger:
        batches = ledger.batches()
    instance, version = context.instance, workspace.chain_version()
    instance.add_dynamic_partitions("arrival_batch", [b.batch_id for b in batches if is_batch_id(b.batch_id)])
    due = [batch for batch in batches if needs_run(instance, batch.batch_id, version)]
    tired = [batch.batch_id for batch in due if _has_failed_too_often(instance, batch.batch_id)]
    requests = [
        dg.RunRequest(
            run_key=f"repair/{context.scheduled_execution_time:%Y-%m-%d}/{batch.batch_id}",
            partition_key=batch.batch_id,
            tags={"imaging/repair": "true"},
        )
        for batch in due
        if batch.batch_id not in tired
    ]
    if requests:
        return requests[:REPAIRS_PER_NIGHT]
    held = f"; {len(tired)} failed {ATTEMPTS_PER_BATCH} times and wait for a person: {', '.join(tired[:5])}"
    return dg.SkipReason(f"all {len(batches)} batches are up to date or held{held if tired else ''}")


def needs_run(instance: dg.DagsterInstance, batch_id: str, version: str) -> bool:
    """The batch's chain did not go through, or by another version of code, profile or recipe, or missed objects.

    A batch some of whose objects could not be fetched is run again up to :data:`ATTEMPTS_PER_BATCH` times in all; one
    that is running now is not due.
    """
    runs = _runs(instance, batch_id)
    if runs and not runs[0].is_finished:
        return False
    made = _last_made(instance, LAST_ASSET, batch_id)
    if made is None or (runs and not runs[0].is_success):
        return True
    done = made.metadata.get(reporting.CHAIN_VERSION)
    if done is None or done.value != version:
        return True
    catalog = _last_made(instance, asset_key("bronze", "object_catalog"), batch_id)
    unread = catalog.metadata.get(reporting.UNREAD_OBJECTS) if catalog else None
    return bool(unread and unread.value) and len(runs) < ATTEMPTS_PER_BATCH


def _last_made(instance: dg.DagsterInstance, key: dg.AssetKey, batch_id: str) -> dg.AssetMaterialization | None:
    """The last materialization of an asset for a batch."""
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[batch_id])
    records = instance.fetch_materializations(wanted, limit=1).records
    return records[0].asset_materialization if records else None


def _has_failed_too_often(instance: dg.DagsterInstance, batch_id: str) -> bool:
    """Its last runs all failed; one success starts the count anew."""
    runs = _runs(instance, batch_id)
    return len(runs) == ATTEMPTS_PER_BATCH and all(run.status is dg.DagsterRunStatus.FAILURE for run in runs)


def _runs(instance: dg.DagsterInstance, batch_id: str) -> Sequence[dg.DagsterRun]:
    """The last runs of a batch's chain, the newest first."""
    filters = dg.RunsFilter(job_name=ingest_batch.name, tags={"dagster/partition": batch_id})
    return instance.get_runs(filters, limit=ATTEMPTS_PER_BATCH)
