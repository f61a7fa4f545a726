"""The sensor that has studies settled once they have been quiet for long enough."""

from datetime import UTC, datetime

import dagster as dg

from imaging_pipeline.defs.jobs import settle_studies
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.metadata.completeness import are_unsettled

SENSOR_INTERVAL_SECONDS = 60


@dg.sensor(
    name="study_completeness",  # no name of a source's sensor
    job=settle_studies,
    minimum_interval_seconds=SENSOR_INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Requests a run when a study has become complete, or a late image has come to one that was.",
)
def study_sensor(
    context: dg.SensorEvaluationContext, workspace: dg.ResourceParam[Workspace]
) -> dg.SensorResult | dg.SkipReason:
    """The cursor is the snapshot at which every study was settled: until the next one there is nothing to look at."""
    settings = workspace.settings
    try:
        with workspace.identified(read_only=True) as lake:
            snapshot = str(lake.snapshot_id())
            if context.cursor == snapshot:
                return dg.SkipReason("nothing has come since all studies were complete")
            is_due, is_open = are_unsettled(
                lake,
                datetime.now(UTC),
                quiet_seconds=settings.study_quiet_seconds,
                limit_seconds=settings.study_limit_seconds,
            )
    except ConfigurationError as error:
        return dg.SkipReason(str(error))  # there is no lake yet
    if not is_due:
        if not is_open:
            context.update_cursor(snapshot)
        return dg.SkipReason("no study has become complete or been opened again")
    is_running = context.instance.get_runs_count(
        dg.RunsFilter(job_name=settle_studies.name, statuses=[dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED])
    )
    if is_running:
        return dg.SkipReason("a run that settles studies is under way")
    return dg.SensorResult(run_requests=[dg.RunRequest()])
