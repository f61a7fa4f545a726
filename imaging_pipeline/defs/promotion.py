"""The site's own columns, filled in rows that are there already: as a job in the UI and for the command line."""

from collections.abc import Iterator

import dagster as dg

from imaging_pipeline.defs import reporting
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.own_files import stored_files
from imaging_pipeline.metadata.placing import StoredObject
from imaging_pipeline.metadata.promotion import Filled, fill_columns, site_columns
from imaging_pipeline.metadata.silver import stored_headers
from imaging_pipeline.settings import SITE_COLUMNS


def fill_site_columns(workspace: Workspace) -> Iterator[tuple[str, str, list[Filled]]]:
    """Fill the site's columns, batch by batch: of silver from stored headers, of deid from those of released files.

    Yields:
        The schema, the batch and what was filled.

    Raises:
        ConfigurationError: the site has declared no columns.
        TransientError: a lake is locked, or a released file is gone.
    """
    if not site_columns():
        raise ConfigurationError(f"no columns to fill: name a file of columns in {SITE_COLUMNS}")
    with workspace.identified() as lake:
        for (batch,) in lake.rows("SELECT DISTINCT arrival_batch FROM bronze.dicom_header ORDER BY 1"):
            batch_id = str(batch)
            yield "silver", batch_id, fill_columns(lake, "silver", batch_id, stored_headers(lake, batch_id))
        for (batch,) in lake.rows("SELECT DISTINCT arrival_batch FROM silver.made_object ORDER BY 1"):
            batch_id = str(batch)
            yield "silver", batch_id, fill_columns(lake, "silver", batch_id, _files(lake, "silver", batch_id))
    with workspace.research() as lake:
        for (batch,) in lake.rows("SELECT DISTINCT arrival_batch FROM deid.dicom_file_location ORDER BY 1"):
            batch_id = str(batch)
            yield "deid", batch_id, fill_columns(lake, "deid", batch_id, _files(lake, "deid", batch_id))


def _files(lake: Lake, schema: str, batch_id: str) -> Iterator[StoredObject]:
    return stored_files(lake, schema, "arrival_batch = ?", [batch_id])


@dg.op
def fill_columns_of_site(context: dg.OpExecutionContext, workspace: dg.ResourceParam[Workspace]) -> None:
    """Fill the site's columns in all rows; no object is read again."""
    rows = [
        (schema, batch_id, f"{filled.table}: {', '.join(filled.columns)}", filled.rows, filled.values)
        for schema, batch_id, done in fill_site_columns(workspace)
        for filled in done
    ]
    context.add_output_metadata(
        {"filled": reporting.markdown_table(("schema", "batch", "columns", "rows", "values"), rows)}
    )


@dg.job(description="Fill the columns the site has added to the registry, from stored headers.")
def promote_columns() -> None:
    """One op."""
    fill_columns_of_site()
