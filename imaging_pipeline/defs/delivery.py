"""Deliveries in Dagster: for each zone the table of what went where, and a sensor for each delivery.

A pass is the same from a sensor, from the UI and from the command line.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import dagster as dg
from pydantic import Field

from imaging_pipeline.defs import reporting
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.deid.clearance import Clearance
from imaging_pipeline.delivery.items import SCHEMAS, Item, items_of
from imaging_pipeline.delivery.log import DeliveryLog, State
from imaging_pipeline.delivery.record import RECORD_SCHEMAS, TABLE, record
from imaging_pipeline.delivery.sending import Passed, send_due
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake.console import run_query
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.pacs.config import Delivery, ZoneName, load_pacs

CODE_VERSION = "delivery-1"

DELIVERY_TAG = "imaging/delivery"

WITHDRAWN_CHECK, REFUSED_CHECK = "no_peer_holds_what_was_withdrawn", "no_object_waits_for_a_person"

TABLES_READ = ("dicom_patient", "dicom_instance", "dicom_file_location")

_FOLDERS = {ZoneName.RESEARCH: "research", ZoneName.CLINICAL: "identified"}


class WhichDeliveries(dg.Config):
    """Which deliveries are made; none named: all of the zone."""

    names: list[str] = Field(default_factory=list)


def log_path(workspace: Workspace, zone: ZoneName) -> Path:
    """The delivery log of a zone."""
    return workspace.settings.home / _FOLDERS[zone] / "deliveries.sqlite"


def deliver(workspace: Workspace, delivery: Delivery, *, again: bool = False) -> tuple[Passed, int]:
    """Make one pass of a delivery, and bring the table up to date.

    Args:
        workspace: the installation.
        delivery: what is sent to whom.
        again: what the peer has refused is tried again, and at once.

    Returns:
        What the pass did, and how many objects the peer has that were withdrawn since.

    Raises:
        ConfigurationError: the delivery or its peer cannot be used.
        TransientError: another process is sending to this peer, or the lake is busy.
    """
    from imaging_pipeline.delivery.peers import sender_to  # noqa: PLC0415 - pynetdicom and httpx are not light

    config, zone = load_pacs(workspace.settings.pacs), delivery.zone
    peer = config.peer(delivery.peer)
    is_research = zone is ZoneName.RESEARCH
    open_lake = workspace.research if is_research else workspace.identified
    location = workspace.settings.research if is_research else workspace.settings.identified
    clearance = Clearance(workspace.settings.clearance_files)

    def still(items: Sequence[Item]) -> Sequence[Item]:
        """Marks are asked for after rows were read, and as long as the pass lasts: they may be taken away."""
        cleared = clearance.batches() if is_research else None
        return [item for item in items if cleared is None or item.batch_id in cleared]

    with open_lake() as lake, DeliveryLog(log_path(workspace, zone)) as log:
        if again:
            log.try_again(peer.name)
        found = items_of(lake, delivery, partial(run_query, locations=[location]))
        passed = send_due(
            delivery,
            still(found),
            log,
            lambda: sender_to(config.ae, peer),
            progress=workspace.progress_of("send"),
            still=still,
        )
        return passed, record(lake, zone, log, peer.name)


def _delivery_asset(zone: ZoneName) -> dg.AssetsDefinition:
    schema, _ = RECORD_SCHEMAS[zone]
    key = reporting.asset_key(schema, TABLE)

    @dg.multi_asset(
        name=f"{schema}_delivery",
        specs=[
            reporting.table_spec(
                schema,
                TABLE,
                code_version=CODE_VERSION,
                deps=[reporting.asset_key(SCHEMAS[zone], name) for name in TABLES_READ],
                is_partitioned=False,
            ).replace_attributes(group_name="delivery")
        ],
        check_specs=[
            dg.AssetCheckSpec(WITHDRAWN_CHECK, asset=key, description="Else tell the peers: they must delete it."),
            dg.AssetCheckSpec(REFUSED_CHECK, asset=key, description="Else look at state and answer of its rows."),
        ],
    )
    def delivery(
        context: dg.AssetExecutionContext, config: WhichDeliveries, workspace: dg.ResourceParam[Workspace]
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        """Send what is due."""
        passes: list[tuple[str, Passed]] = []
        withdrawn: dict[str, int] = {}
        for one in _deliveries(workspace, zone, config.names):
            passed, withdrawn[one.peer] = deliver(workspace, one)
            passes.append((one.name, passed))
            if passed.failure:
                context.log.warning(passed.failure)
        rows = [(name, p.chosen, p.accepted, p.refused, p.waiting, p.failure) for name, p in passes]
        header = ("delivery", "objects", "accepted now", "refused now", "not accepted yet", "ended early")
        shown: reporting.Shown = {"deliveries": reporting.markdown_table(header, rows)}
        with (workspace.research if zone is ZoneName.RESEARCH else workspace.identified)(read_only=True) as lake:
            ((refused,),) = lake.rows(f"SELECT count(*) FROM {schema}.{TABLE} WHERE state = ?", [State.REFUSED])
            yield from reporting.table_results(lake, schema, [TABLE], metadata={TABLE: shown})
        for check, count in ((WITHDRAWN_CHECK, sum(withdrawn.values())), (REFUSED_CHECK, int(str(refused)))):
            yield dg.AssetCheckResult(
                passed=not count,
                asset_key=key,
                check_name=check,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"objects": count},
            )

    return delivery


def _deliveries(workspace: Workspace, zone: ZoneName, names: Sequence[str]) -> list[Delivery]:
    config = load_pacs(workspace.settings.pacs)
    chosen = [config.delivery(name) for name in names] or [each for each in config.deliveries if each.zone is zone]
    if strange := [each.name for each in chosen if each.zone is not zone]:
        raise ConfigurationError(f"delivery {strange[0]!r} is of the other zone")
    return chosen


gold_delivery = _delivery_asset(ZoneName.RESEARCH)
silver_delivery = _delivery_asset(ZoneName.CLINICAL)

ASSETS = (gold_delivery, silver_delivery)

JOBS = {
    zone: dg.define_asset_job(
        f"send_{zone}",
        selection=dg.AssetSelection.assets(reporting.asset_key(RECORD_SCHEMAS[zone][0], TABLE)),
        executor_def=dg.in_process_executor,
        description=f"Send what is due of the {zone} zone to its peers.",
    )
    for zone in ZoneName
}


def delivery_sensors(workspace: Workspace) -> list[dg.SensorDefinition]:
    """A sensor for each delivery of the PACS file."""
    return [_sensor(delivery) for delivery in load_pacs(workspace.settings.pacs).deliveries]


def _sensor(delivery: Delivery) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"send_{delivery.name}",
        job=JOBS[delivery.zone],
        minimum_interval_seconds=delivery.every_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Sends {delivery.what} to the peer {delivery.peer!r} when there is something to send.",
    )
    def watch(
        context: dg.SensorEvaluationContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.SensorResult | dg.SkipReason:
        """The cursor: the lake's snapshot and the cleared batches at the last request. Since then only waits ended."""
        if delivery.hours is not None and not delivery.hours.hold(datetime.now().astimezone().time()):
            return dg.SkipReason("outside its hours")
        running = dg.RunsFilter(
            tags={DELIVERY_TAG: delivery.name},
            statuses=[dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED],
        )
        if context.instance.get_runs_count(running):
            return dg.SkipReason("it is under way")
        try:
            with (workspace.research if delivery.zone is ZoneName.RESEARCH else workspace.identified)(
                read_only=True
            ) as lake:
                cleared = Clearance(workspace.settings.clearance_files).batches()
                snapshot = f"{lake.snapshot_id()} {key_of(*sorted(cleared))}"
        except ConfigurationError as error:
            return dg.SkipReason(str(error))  # there is no lake yet
        with DeliveryLog(log_path(workspace, delivery.zone)) as log:
            rests_until = log.rests_until(delivery.peer, datetime.now(UTC))
            is_due = log.has_due(delivery.peer, datetime.now(UTC))
        if rests_until is not None:
            return dg.SkipReason(f"its peer failed and is left alone until {rests_until:%H:%M} UTC")
        if snapshot == context.cursor and not is_due:
            return dg.SkipReason("nothing has come since, and no wait is over")
        request = dg.RunRequest(
            run_config={
                "ops": {f"{RECORD_SCHEMAS[delivery.zone][0]}_delivery": {"config": {"names": [delivery.name]}}}
            },
            tags={DELIVERY_TAG: delivery.name},
        )
        return dg.SensorResult(run_requests=[request], cursor=snapshot)

    return watch
