"""Which studies are complete: what depends on whole studies waits for it."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from imaging_pipeline.defs import reporting
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.metadata.completeness import publish_study_state, settle_studies

CODE_VERSION = "studies-1"


class Settle(dg.Config):
    """Whether a load is over, so that no study of it waits for more images."""

    everything: bool = False


@dg.multi_asset(
    name="study_state",
    specs=[
        reporting.table_spec(
            schema,
            "study_state",
            code_version=CODE_VERSION,
            deps=[reporting.asset_key(schema, "dicom_instance")],
            is_partitioned=False,
        )
        for schema in ("silver", "deid")
    ],
)
def study_state(config: Settle, workspace: dg.ResourceParam[Workspace]) -> Iterator[dg.MaterializeResult[None]]:
    """Complete the studies that have been quiet for long enough; open again those with a late image."""
    settings = workspace.settings
    with workspace.identified() as identified, workspace.research() as research:
        counts = settle_studies(
            identified,
            datetime.now(UTC),
            quiet_seconds=settings.study_quiet_seconds,
            limit_seconds=settings.study_limit_seconds,
            everything=config.everything,
        )
        publish_study_state(identified, research, workspace.keys())
        shown: reporting.Shown = {
            "open": counts.open,
            "completed": counts.completed,
            "reopened": counts.reopened,
            "forced": counts.forced,
        }
        yield from reporting.table_results(identified, "silver", ["study_state"], metadata={"study_state": shown})
        yield from reporting.table_results(research, "deid", ["study_state"])
