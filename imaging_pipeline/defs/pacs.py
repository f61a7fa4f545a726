"""Retrievals from PACS, DICOMweb services and Orthanc: one job, and a sensor for each that asks for its runs.

What comes lands in the folder of a source, whose own sensor cuts it into batches.
"""

import time
from datetime import datetime, timedelta

import dagster as dg

from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.pacs.config import Retrieval, load_pacs

RETRIEVAL_TAG = "imaging/retrieval"

ROUND_SECONDS = 1_800
"""A run begins no study after this time; the next run goes on."""


class RetrievalToRun(dg.Config):
    """A retrieval of the PACS file."""

    name: str


@dg.op(description="Looks what a peer has and fetches what did not come yet.")
def fetch_from_peer(
    context: dg.OpExecutionContext, config: RetrievalToRun, workspace: dg.ResourceParam[Workspace]
) -> None:
    """One round; what is left is fetched by the next."""
    from imaging_pipeline.pacs.fetching import Clock  # noqa: PLC0415
    from imaging_pipeline.pacs.rounds import run_retrieval  # noqa: PLC0415 - pynetdicom takes half a second to load

    pacs = load_pacs(workspace.settings.pacs)
    clock = Clock(_now, time.sleep, _now() + timedelta(seconds=ROUND_SECONDS))
    done = run_retrieval(pacs.retrieval(config.name), pacs, workspace.settings, clock)
    context.log.info(f"{config.name}: {done}")


@dg.job(description="Fetch studies from a peer; they land in the folder of its source.")
def retrieve_studies() -> None:
    """One op; runs for what landed follow from the source's sensor."""
    fetch_from_peer()


def retrieval_sensors(workspace: Workspace) -> list[dg.SensorDefinition]:
    """The sensors of the PACS file's retrievals."""
    return [retrieval_sensor(retrieval) for retrieval in load_pacs(workspace.settings.pacs).retrievals]


def retrieval_sensor(retrieval: Retrieval) -> dg.SensorDefinition:
    """The sensor of one retrieval: a run at a time, in its hours."""

    @dg.sensor(
        name=f"{retrieval.name}_retrieval",
        job=retrieve_studies,
        minimum_interval_seconds=retrieval.every_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Fetches from peer {retrieval.peer!r} what did not come yet.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if retrieval.hours is not None and not retrieval.hours.hold(_now().time()):
            return dg.SkipReason("outside its hours")
        unfinished = dg.RunsFilter(
            tags={RETRIEVAL_TAG: retrieval.name},
            statuses=[dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED],
        )
        if context.instance.get_runs(unfinished, limit=1):
            return dg.SkipReason("its last run is under way")
        return dg.RunRequest(
            run_config={"ops": {fetch_from_peer.name: {"config": {"name": retrieval.name}}}},
            tags={RETRIEVAL_TAG: retrieval.name},
        )

    return watch


def _now() -> datetime:
    """Local time: that of hours in the PACS file, and of study dates."""
    return datetime.now().astimezone()
