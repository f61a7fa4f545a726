"""Tensor assets: the shard of a batch, and the frozen dataset over all batches."""

from collections.abc import Iterator

import dagster as dg

from imaging_pipeline.defs import reporting
from imaging_pipeline.defs.automation import nightly_if_new, when_labels_changed
from imaging_pipeline.defs.partitions import arrival_batches
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.pneumonia.label_import import CODE_VERSION as LABEL_VERSION
from imaging_pipeline.pneumonia.label_import import import_labels
from imaging_pipeline.tensors.batch import load_tensors
from imaging_pipeline.tensors.datasheet import side_counts, write_datasheet
from imaging_pipeline.tensors.recipe import CODE_VERSION as RECIPE_VERSION
from imaging_pipeline.tensors.versions import CODE_VERSION as DATASET_VERSION

CODE_VERSION = f"tensors-{RECIPE_VERSION}"

TABLES_READ = (
    "dicom_patient",
    "dicom_study",
    "dicom_series",
    "dicom_instance",
    "dicom_file_location",
    "dicom_image_pixel",
    "dicom_image_plane",
    "dicom_xray_acquisition",
)
"""What tensors are made from. A blocking check holds only what depends on its own asset: all are named."""


@dg.multi_asset(
    name="image_tensor",
    specs=[
        reporting.table_spec(
            "gold",
            "image_tensor",
            code_version=CODE_VERSION,
            deps=[reporting.asset_key("deid", table) for table in TABLES_READ],
            kinds=("arrow", "duckdb"),
        )
    ],
    partitions_def=arrival_batches,
)
def image_tensor(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> Iterator[dg.MaterializeResult[None]]:
    """Decode the batch's de-identified images into Arrow shards of tensors, by all recipes at once."""
    batch_id = context.partition_key
    with workspace.research() as lake:
        counts = load_tensors(
            lake,
            batch_id,
            workspace.recipes(),
            workspace.shards(),
            workers=workspace.settings.workers,
            progress=workspace.progress_of("make tensors"),
        )
        shown: reporting.Shown = {
            "selected": counts.selected,
            "built": counts.built,
            "failed": counts.failed,
            "shard_bytes": counts.shard_bytes,
            "recipes": reporting.markdown_table(
                ("recipe", "digest", "selected", "tensors", "failed", "bytes"),
                [
                    (one.recipe.name, one.recipe.digest[:12], one.selected, one.built, one.failed, one.shard_bytes)
                    for one in counts.by_recipe
                ],
            ),
            reporting.CHAIN_VERSION: workspace.chain_version(),
        }
        metadata = {"image_tensor": shown}
        yield from reporting.table_results(lake, "gold", ["image_tensor"], batch_id=batch_id, metadata=metadata)


@dg.multi_asset(
    name="label",
    specs=[
        reporting.table_spec(
            "gold",
            "label",
            code_version=f"label-{LABEL_VERSION}",
            deps=[
                reporting.asset_key("bronze", "object_catalog"),
                reporting.asset_key("silver", "dicom_sr_content_item"),
                reporting.asset_key("deid", "dicom_instance"),
            ],
            is_partitioned=False,
            automation_condition=nightly_if_new,
        )
    ],
)
def label(workspace: dg.ResourceParam[Workspace]) -> Iterator[dg.MaterializeResult[None]]:
    """Join label files, structured reports and views of all batches to released images, under research keys."""
    with workspace.identified() as identified, workspace.research() as research:
        counts = import_labels(
            identified,
            research,
            workspace.keys(),
            workspace.reader(),
            workspace.profile(),
            views=workspace.settings.research,
        )
        shown: reporting.Shown = {
            "files": counts.files,
            "reports": counts.reports,
            "views": counts.views,
            "refused_rows": counts.refused,
            "named_images": counts.images,
            "matched_images": counts.matched,
            "ambiguous_images": counts.ambiguous,
            "labels": counts.labels,
            "positive_images": counts.positive,
        }
        yield from reporting.table_results(research, "gold", ["label"], metadata={"label": shown})


@dg.multi_asset(
    name="dataset",
    specs=[
        reporting.table_spec(
            "gold",
            table,
            code_version=f"dataset-{DATASET_VERSION}",
            deps=[
                reporting.asset_key("gold", "image_tensor"),
                reporting.asset_key("gold", "label"),
                reporting.asset_key("gold", "annotation"),
                reporting.asset_key("deid", "study_state"),
            ],
            is_partitioned=False,
            automation_condition=when_labels_changed,
        )
        for table in ("dataset_version", "dataset_member")
    ],
)
def dataset(workspace: dg.ResourceParam[Workspace]) -> Iterator[dg.MaterializeResult[None]]:
    """Freeze the labelled tensors as dataset versions, split by patient; the first is what the model learns from."""
    definitions = workspace.datasets()
    with workspace.research() as lake:
        versions = [workspace.freeze(lake, definition) for definition in definitions]
        sheets = [write_datasheet(lake, version, workspace.settings) for version in versions]
        sides = [(each.dataset_id, each.version, *row) for each in versions for row in side_counts(each)]
        left_out = [(each.dataset_id, *row) for each in versions for row in each.left_out.items()]
        shown: reporting.Shown = {
            "version": versions[0].version,
            "manifest_sha256": versions[0].manifest_sha256,
            "snapshot_read": versions[0].snapshot_id,
            "is_new": versions[0].is_new,
            "sides": reporting.markdown_table(("dataset", "version", "side", "patients", "images"), sides),
            "left_out": reporting.markdown_table(("dataset", "reason", "images"), left_out),
            "datasheet": dg.MetadataValue.md("\n".join(sheet.read_text("utf-8") for sheet in sheets)),
            "datasheet_file": str(sheets[0].relative_to(workspace.settings.home)),
        }
        tables = ("dataset_version", "dataset_member")
        yield from reporting.table_results(lake, "gold", tables, metadata=dict.fromkeys(tables, shown))
