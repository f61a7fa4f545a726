"""From sources to runs: a sensor for each source, one-off loads, the nightly reconcile and the nightly repair.

All of them cut batches through the ledger; what was seen is decided there, never by a cursor or a run key.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg
from pydantic import Field

from imaging_pipeline.catalog import intake
from imaging_pipeline.catalog.ledger import Announcement, Batch, Ledger, Scan, is_batch_id
from imaging_pipeline.defs import reporting
from imaging_pipeline.defs.jobs import ingest_batch
from imaging_pipeline.defs.partitions import arrival_batches
from imaging_pipeline.defs.reporting import asset_key
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.errors import ImagingError, TransientError
from imaging_pipeline.objects.source import Source
from imaging_pipeline.sources import SourceConfig, one_time_source

SENSOR_INTERVAL_SECONDS = 30

REPAIRS_PER_NIGHT = 50

ATTEMPTS_PER_BATCH = 3
"""A batch that failed this often waits for a person; it is named in the schedule's tick."""

LAST_ASSET = asset_key("gold", "image_tensor")
"""The end of a batch's chain: a batch without it is not done."""


def source_sensor(config: SourceConfig) -> dg.SensorDefinition:
    """The sensor of one source; its cursor is the number of the last announcement it made."""

    @dg.sensor(
        name=f"{config.name}_sensor",
        job=ingest_batch,
        minimum_interval_seconds=SENSOR_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Finds new, changed and vanished objects of the {config.kind} {config.name!r} and requests a run "
        "for each batch of them.",
    )
    def watch(
        context: dg.SensorEvaluationContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.SensorResult | dg.SkipReason:
        with workspace.ledger() as ledger:
            try:
                told = look(ledger, config, workspace)
                error = None
            except ImagingError as caught:  # what was noted before is announced all the same
                told, error = "", caught
            intake.cut(ledger, datetime.now(UTC), workspace.limits(), source=config.name, is_announced=True)
            limit = workspace.settings.batches_per_tick
            pending = ledger.announcements(int(context.cursor or 0), limit, source=config.name)
            waiting = ledger.waiting(config.name)
        if error is not None:
            if not pending:
                raise error
            context.log.error(f"{error}; what was found before is announced")
        if not pending:
            return dg.SkipReason(told or "nothing new")
        context.log.info(f"{told}; {len(pending)} batches announced, {waiting} objects wait for the next tick")
        return announce(pending)

    return watch


def look(ledger: Ledger, config: SourceConfig, workspace: Workspace) -> str:
    """Bring the ledger up to date with a source within the tick's budget; says what was found, in words."""
    source, now, budget = workspace.source(config), datetime.now(UTC), workspace.settings.tick_seconds
    queue = workspace.queue(config)
    if queue is not None:
        heard = intake.listen(
            ledger, source, queue, workspace.reader(), now=now, budget_seconds=budget, clock=time.monotonic
        )
        odd = f"; {heard.not_understood} messages make no sense and stay in the queue" if heard.not_understood else ""
        return (
            f"{heard.notices} events: {heard.found.new} objects are new or changed, {heard.found.gone} are gone{odd}"
            if heard.notices
            else "nothing new: no events wait"
        )
    if not ledger.is_listing_due(source, now):
        return "nothing new: the last listing was a short while ago"
    return in_words(ledger.scan(source, workspace.reader(), now=now, budget_seconds=budget), config)


def in_words(found: Scan, config: SourceConfig) -> str:
    """What a listing found, for the tick and the run log."""
    said = [f"{found.listed} objects listed" if found.new or found.gone else f"nothing new in {found.listed} objects"]
    if found.new:
        said.append(f"{found.new} are new or changed, members of archives counted")
    if found.gone:
        said.append(f"{found.gone} are gone, and taken back when their batches run again")
    if found.held:
        said.append(
            f"{found.held} have vanished, too many to believe: look whether the source is whole, then say so with "
            f"'imaging-pipeline reconcile --believe-deletions {config.name}'"
        )
    if config.minimum_age_seconds:
        said.append(f"what is younger than {config.minimum_age_seconds:g} s waits for the next look")
    if not found.is_complete:
        said.append("the time for one tick was used up; the next goes on from there")
    return "; ".join(said)


def announce(pending: Sequence[Announcement]) -> dg.SensorResult:
    """Partitions and runs of batches. Batches are in the ledger before they are announced; the cursor moves last."""
    return dg.SensorResult(
        run_requests=[run_request(each) for each in pending],
        dynamic_partitions_requests=[arrival_batches.build_add_request([each.batch.batch_id for each in pending])],
        cursor=str(pending[-1].seq),
    )


def run_request(announcement: Announcement) -> dg.RunRequest:
    """The run of a batch. The run key makes announcing it twice harmless."""
    batch = announcement.batch
    tags = {"imaging/objects": str(batch.objects), "imaging/revision": str(announcement.revision)}
    return dg.RunRequest(run_key=announcement.run_key, partition_key=batch.batch_id, tags=tags)


@dg.sensor(
    job=ingest_batch,
    minimum_interval_seconds=SENSOR_INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Requests runs for the batches of one-off loads: sources that no other sensor watches.",
)
def one_time_loads(
    context: dg.SensorEvaluationContext, workspace: dg.ResourceParam[Workspace]
) -> dg.SensorResult | dg.SkipReason:
    """Announces what is no watched source's."""
    watched = [config.name for config in workspace.settings.sources]
    with workspace.ledger() as ledger:
        limits, now = workspace.limits(), datetime.now(UTC)
        for name in ledger.sources_waiting():
            if name not in watched:
                intake.cut(ledger, now, limits, source=name, is_announced=True)
        pending = ledger.announcements(int(context.cursor or 0), limits.batches, other_than=watched)
    return announce(pending) if pending else dg.SkipReason("no one-off load waits for its runs")


class LocationToLoad(dg.Config):
    """A folder, zip archive, file, manifest, DICOMDIR or ``s3://bucket/prefix`` to take in once."""

    location: str
    source: str = ""


@dg.op(description="Lists a location; its batches are announced by the sensors.")
def register_location(
    context: dg.OpExecutionContext, config: LocationToLoad, workspace: dg.ResourceParam[Workspace]
) -> None:
    """Take in a location that is not watched."""
    source = workspace.source(one_time_source(config.location, config.source or workspace.settings.source_name))
    with workspace.ledger() as ledger:
        found = _list_in_full(ledger, source, workspace)
    context.log.info(f"{in_words(found, source.config)}; a sensor cuts them into batches and requests their runs")


@dg.job(description="Take in a location once; runs for its batches follow from the sensors.")
def load_source() -> None:
    """One op: listing is quick, the work is in the batches."""
    register_location()


class Reconcile(dg.Config):
    """Sources whose vanished objects a person has looked at and believes to be gone, however many."""

    believe_deletions: list[str] = Field(default_factory=list)


@dg.op(description="Lists every source in full and compares manifests with the catalog.")
def compare_with_catalog(
    context: dg.OpExecutionContext, config: Reconcile, workspace: dg.ResourceParam[Workspace]
) -> None:
    """What events and ticks have missed is found, and what the catalog lacks is announced again."""
    for line in reconcile(workspace, context.instance, config.believe_deletions):
        context.log.info(line)


@dg.job(description="Full listing of every source against the ledger, and the ledger against the catalog.")
def reconcile_sources() -> None:
    """One op; runs for what was found follow from the sensors."""
    compare_with_catalog()


@dg.schedule(
    job=reconcile_sources,
    cron_schedule="0 1 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night: a full listing of each source, and the anti-join of manifests and catalog.",
)
def reconcile_nightly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """One run a night."""
    return dg.RunRequest(run_key=f"reconcile/{context.scheduled_execution_time:%Y-%m-%d}")


def reconcile(workspace: Workspace, instance: dg.DagsterInstance, believe_deletions: Sequence[str] = ()) -> list[str]:
    """List every source in full, then have batches run again whose objects the catalog lacks; says what was found.

    Those that have not run yet, or are due anyway, are left to their own runs.

    Raises:
        TransientError: a source cannot be listed; the others were, and the message says all that was found.
    """
    said: list[str] = []
    failed: list[str] = []
    with workspace.ledger() as ledger:
        for config in workspace.settings.sources:
            try:
                is_believed = config.name in believe_deletions
                found = _list_in_full(ledger, workspace.source(config), workspace, is_believed=is_believed)
                said.append(f"{config.name}: {in_words(found, config)}")
            except ImagingError as error:
                failed.append(f"{config.name}: {error}")
        with workspace.identified() as lake:
            lacking = intake.forgotten_batches(ledger, lake)
        forgotten = [name for name in lacking if _is_thought_done(instance, ledger.batch(name), workspace)]
        ledger.announce_again(forgotten)
        waiting = f"{len(lacking) - len(forgotten)} batches wait for their runs"
        said.append(f"catalog: it has lost objects of {len(forgotten)} batches, which run again; {waiting}")
    if failed:
        raise TransientError("\n".join([*said, *failed]))
    return said


def _is_thought_done(instance: dg.DagsterInstance, batch: Batch, workspace: Workspace) -> bool:
    """Dagster has no reason to run it: it did, and none of its runs is under way."""
    runs = _runs(instance, batch.batch_id)
    is_running = bool(runs) and not runs[0].is_finished
    return not is_running and not needs_run(instance, batch, workspace.chain_version())


def _list_in_full(ledger: Ledger, source: Source, workspace: Workspace, *, is_believed: bool = False) -> Scan:
    """From the start: a pass that is under way has not seen what came before the point it has reached."""
    ledger.restart_listing(source)
    return ledger.scan(source, workspace.reader(), now=datetime.now(UTC), believe_deletions=is_believed)


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
    due = [batch for batch in batches if needs_run(instance, batch, version)]
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


def needs_run(instance: dg.DagsterInstance, batch: Batch, version: str) -> bool:
    """The batch's chain did not go through, or by another version of code, profile or recipe, or missed something.

    A batch some of whose objects have vanished or come back since is run again. One some of whose objects could not be
    fetched is run again up to :data:`ATTEMPTS_PER_BATCH` times in all. One that is running now is not due.
    """
    runs = _runs(instance, batch.batch_id)
    if runs and not runs[0].is_finished:
        return False
    made = _last_made(instance, LAST_ASSET, batch.batch_id)
    if made is None or (runs and not runs[0].is_success):
        return True
    done = made.metadata.get(reporting.CHAIN_VERSION)
    if done is None or done.value != version:
        return True
    catalog = _last_made(instance, asset_key("bronze", "object_catalog"), batch.batch_id)
    if _value(catalog, reporting.LEDGER_REVISION) != batch.revision:
        return True
    released = _last_made(instance, asset_key("deid", "deid_verification"), batch.batch_id)
    is_lacking = _value(catalog, reporting.UNREAD_OBJECTS) or _value(released, reporting.UNREAD_OBJECTS)
    return bool(is_lacking) and len(runs) < ATTEMPTS_PER_BATCH


def _value(made: dg.AssetMaterialization | None, name: str) -> object:
    found = made.metadata.get(name) if made else None
    return found.value if found else None


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
