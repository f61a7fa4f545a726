"""Thumbnail assets: small pictures of a batch's images, of the originals and of what was released of them.

Pictures of originals stay in the identified lake; only those of released files are shown here.
"""

from collections.abc import Iterator

import dagster as dg

from imaging_pipeline.defs import reporting
from imaging_pipeline.defs.partitions import arrival_batches
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.tensors.thumbnail_batch import (
    CODE_VERSION,
    ThumbnailCounts,
    load_original_thumbnails,
    load_released_thumbnails,
    thumbnails_to_show,
)
from imaging_pipeline.tensors.thumbnails import MIME_TYPE, SHEET_PICTURES, contact_sheet

_VERSION = f"thumbnail-{CODE_VERSION}"


@dg.multi_asset(
    name="silver_thumbnail",
    specs=[
        reporting.table_spec(
            "silver",
            "thumbnail",
            code_version=_VERSION,
            deps=[
                reporting.asset_key("bronze", "object_catalog"),
                reporting.asset_key("silver", "dicom_instance"),
                reporting.asset_key("silver", "dicom_file_location"),
            ],
        )
    ],
    partitions_def=arrival_batches,
)
def silver_thumbnail(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> Iterator[dg.MaterializeResult[None]]:
    """Make thumbnails of the batch's original images; none is shown outside the identified lake."""
    batch_id, settings = context.partition_key, workspace.settings
    with workspace.identified() as lake:
        counts = load_original_thumbnails(
            lake,
            batch_id,
            workspace.reader(),
            workers=settings.workers,
            progress=workspace.progress_of("make thumbnails"),
        )
        metadata = {"thumbnail": _shown(counts)}
        yield from reporting.table_results(lake, "silver", ["thumbnail"], batch_id=batch_id, metadata=metadata)


@dg.multi_asset(
    name="gold_thumbnail",
    specs=[
        reporting.table_spec(
            "gold",
            "thumbnail",
            code_version=_VERSION,
            deps=[
                reporting.asset_key("deid", table)
                for table in ("dicom_patient", "dicom_instance", "dicom_file_location", "deid_verification")
            ],
        )
    ],
    partitions_def=arrival_batches,
)
def gold_thumbnail(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> Iterator[dg.MaterializeResult[None]]:
    """Make thumbnails of the batch's released images, and show some of them."""
    batch_id, settings = context.partition_key, workspace.settings
    with workspace.research() as lake:
        counts = load_released_thumbnails(
            lake, batch_id, workers=settings.workers, progress=workspace.progress_of("make thumbnails")
        )
        shown = _shown(counts)
        if pictures := thumbnails_to_show(lake, batch_id, SHEET_PICTURES):
            shown["some_of_them"] = reporting.picture("released images", contact_sheet(pictures), MIME_TYPE)
        yield from reporting.table_results(
            lake, "gold", ["thumbnail"], batch_id=batch_id, metadata={"thumbnail": shown}
        )


def _shown(counts: ThumbnailCounts) -> reporting.Shown:
    return {"images": counts.images, "made": counts.made, "kept": counts.kept, "failed": counts.failed}
