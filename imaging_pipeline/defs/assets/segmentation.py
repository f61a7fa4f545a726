"""Segmentation assets: the lungs of a batch's frontal chest films, as DICOM objects in their studies and as rows."""

from collections.abc import Iterator

import dagster as dg

from imaging_pipeline.defs import reporting
from imaging_pipeline.defs.automation import when_batch_is_ready
from imaging_pipeline.defs.links import study_links
from imaging_pipeline.defs.partitions import arrival_batches
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.segmentation.batch import CODE_VERSION, TABLE, LungWriter, segment_batch

_LUNGS = reporting.asset_key("gold", TABLE)


@dg.multi_asset(
    name="lung_segmentation",
    specs=[
        reporting.table_spec(
            "gold",
            TABLE,
            code_version=CODE_VERSION,
            deps=[
                reporting.asset_key("deid", table)
                for table in ("dicom_patient", "dicom_instance", "dicom_file_location", "deid_verification")
            ],
            automation_condition=when_batch_is_ready,
            kinds=("pytorch", "dicom", "duckdb"),
        )
    ],
    partitions_def=arrival_batches,
)
def lung_segmentation(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> Iterator[dg.MaterializeResult[None]]:
    """Find the lungs on the batch's released frontal films and write them as segmentations in the same studies."""
    batch_id, settings = context.partition_key, workspace.settings
    writer = LungWriter(settings.segmentation_files, settings.lung_model, settings.viewer_compat)
    with workspace.research() as lake:
        counts = segment_batch(
            lake,
            batch_id,
            workspace.recipe(),
            writer,
            workers=settings.workers,
            element_mode=workspace.element_mode(),
            progress=workspace.progress_of("find lungs"),
        )
        shown: reporting.Shown = {
            "films": counts.films,
            "segmentations": counts.objects,
            "failed": counts.failed,
            "by_quality": reporting.markdown_table(("quality", "films"), list(counts.by_quality.items())),
            **study_links(lake, batch_id, settings.serve_url),
        }
        yield from reporting.table_results(lake, "gold", [TABLE], batch_id=batch_id, metadata={TABLE: shown})


segment_lungs = dg.define_asset_job(
    "segment_lungs",
    selection=dg.AssetSelection.assets(_LUNGS),
    executor_def=dg.in_process_executor,
    description="Lungs of the frontal chest films of one batch, as segmentations in their studies.",
)
