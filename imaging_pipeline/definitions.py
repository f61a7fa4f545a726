"""The code location: everything Dagster shows and runs."""

import dagster as dg

from imaging_pipeline.defs import completion, delivery, intake, jobs, pacs, promotion
from imaging_pipeline.defs.assets import (
    annotations,
    bronze,
    deid,
    model,
    quality,
    results,
    segmentation,
    silver,
    studies,
    tensors,
    thumbnails,
    views,
)
from imaging_pipeline.defs.checks import datasets, drift, zones
from imaging_pipeline.defs.checks import quality as quality_checks
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.settings import Settings


def build_defs(workspace: Workspace | None = None) -> dg.Definitions:
    """All definitions, on a workspace or on the one the environment describes."""
    workspace = workspace or Workspace(Settings.from_environment())
    return dg.Definitions(
        assets=[
            *dg.load_assets_from_modules(
                [bronze, silver, quality, deid, thumbnails, tensors, annotations, segmentation, model, results, studies]
            ),
            *views.specs,
            *delivery.ASSETS,
        ],
        asset_checks=dg.load_asset_checks_from_modules([zones, quality_checks, datasets, drift]),
        jobs=[
            jobs.ingest_batch,
            jobs.settle_studies,
            jobs.train_model,
            jobs.predict_batch,
            annotations.label_annotations,
            segmentation.segment_lungs,
            results.report_batch,
            intake.load_source,
            intake.reconcile_sources,
            promotion.promote_columns,
            pacs.retrieve_studies,
            *delivery.JOBS.values(),
        ],
        schedules=[intake.reconcile_nightly, intake.repair_batches, annotations.label_annotations_nightly],
        sensors=[
            *(intake.source_sensor(config) for config in workspace.settings.sources),
            intake.one_time_loads,
            completion.study_sensor,
            *pacs.retrieval_sensors(workspace),
            *delivery.delivery_sensors(workspace),
            dg.AutomationConditionSensorDefinition(
                "automation", target=dg.AssetSelection.all(), default_status=dg.DefaultSensorStatus.RUNNING
            ),
        ],
        resources={"workspace": workspace, "s3": workspace.s3()},
    )


defs = build_defs()
