"""Silver assets: patients, studies, series, instances and their attributes, projected from stored headers."""

from collections.abc import Iterator

import dagster as dg

from imaging_pipeline.defs import reporting
from imaging_pipeline.defs.partitions import arrival_batches
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.metadata.silver import CODE_VERSION as PROJECTION_VERSION
from imaging_pipeline.metadata.silver import ENTITY_TABLES, load_silver

CODE_VERSION = f"silver-{PROJECTION_VERSION}"

_DEPS = (reporting.asset_key("bronze", "object_catalog"), reporting.asset_key("bronze", "dicom_header"))


TABLES = (*ENTITY_TABLES, "change_feed", "made_object")


@dg.multi_asset(
    name="silver",
    specs=[reporting.table_spec("silver", t, code_version=CODE_VERSION, deps=_DEPS) for t in TABLES],
    partitions_def=arrival_batches,
)
def silver(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> Iterator[dg.MaterializeResult[None]]:
    """Project the batch's headers into the entity tables; no object is read again."""
    batch_id = context.partition_key
    with workspace.identified() as lake:
        rows = load_silver(lake, batch_id, workspace.version_policy(), workspace.element_mode)
        shown = {"dicom_instance": {"objects_placed": rows.placed, "objects_without_legal_uids": rows.refused}}
        yield from reporting.table_results(lake, "silver", TABLES, batch_id=batch_id, metadata=shown)
