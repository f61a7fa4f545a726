"""What people have drawn and written on released images: the labels in it, on the research side alone."""

from collections.abc import Iterator

import dagster as dg

from imaging_pipeline.defs import reporting
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pneumonia.annotation_labels import CODE_VERSION, annotation_state, import_annotations

TABLE = "annotation"

KEY = reporting.asset_key("gold", TABLE)

STATE = "annotations_read"
"""Metadata key: stands for the annotations whose labels were taken."""


@dg.multi_asset(
    name=TABLE,
    specs=[
        reporting.table_spec(
            "gold",
            TABLE,
            code_version=f"annotation-{CODE_VERSION}",
            deps=[reporting.asset_key("deid", name) for name in ("dicom_patient", "dicom_instance")],
            is_partitioned=False,
        )
    ],
)
def annotation(workspace: dg.ResourceParam[Workspace]) -> Iterator[dg.MaterializeResult[None]]:
    """Take the labels out of the reports and segmentations that people have sent to the research service."""
    with workspace.research() as lake:
        state = annotation_state(lake)
        counts = import_annotations(lake)
        shown: reporting.Shown = {
            STATE: state,
            "telling": counts.telling,
            "unreadable": counts.unreadable,
            "contradictions": counts.refused,
            "labels": counts.labels,
            "positive_images": counts.positive,
            "regions": counts.regions,
        }
        yield from reporting.table_results(lake, "gold", [TABLE], metadata={TABLE: shown})


label_annotations = dg.define_asset_job(
    "label_annotations",
    selection=dg.AssetSelection.assets(KEY),
    executor_def=dg.in_process_executor,
    description="Labels of what people have drawn and written on released images.",
)


@dg.schedule(
    job=label_annotations,
    cron_schedule="30 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night, if an annotation came or went: its labels, then a new dataset version and a challenger.",
)
def label_annotations_nightly(
    context: dg.ScheduleEvaluationContext, workspace: dg.ResourceParam[Workspace]
) -> dg.RunRequest | dg.SkipReason:
    """By night, so that a day of labelling is one training."""
    try:
        with workspace.research(read_only=True) as lake:
            state = annotation_state(lake)
    except ConfigurationError as error:
        return dg.SkipReason(str(error))  # there is no lake yet
    last = context.instance.get_latest_materialization_event(KEY)
    read = last.asset_materialization.metadata.get(STATE) if last and last.asset_materialization else None
    if read is not None and read.value == state:
        return dg.SkipReason("no annotation has come or gone since their labels were taken")
    return dg.RunRequest(run_key=f"annotations/{context.scheduled_execution_time:%Y-%m-%d}")
