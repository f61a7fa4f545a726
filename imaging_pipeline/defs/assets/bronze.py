"""Bronze assets: the catalog of a batch's objects, their headers and issues."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from imaging_pipeline.catalog.bronze import load_bronze, readable_archives
from imaging_pipeline.catalog.inspection import PARSER_VERSION
from imaging_pipeline.defs import reporting
from imaging_pipeline.defs.partitions import arrival_batches
from imaging_pipeline.defs.workspace import Workspace

CODE_VERSION = f"bronze-{PARSER_VERSION}"

TABLES = ("object_catalog", "dicom_header", "ingest_issue", "ingest_run")


@dg.multi_asset(
    name="bronze",
    specs=[reporting.table_spec("bronze", t, code_version=CODE_VERSION, kinds=("dicom", "duckdb")) for t in TABLES],
    partitions_def=arrival_batches,
)
def bronze(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> Iterator[dg.MaterializeResult[None]]:
    """Read every object of the batch once: identity, digest, header, and what is wrong with it."""
    batch_id = context.partition_key
    reader = workspace.reader()
    with workspace.ledger() as ledger:
        revision = ledger.batch(batch_id).revision  # first: what changes after it asks for another run
        manifest = ledger.manifest(batch_id)
    with workspace.identified() as lake:
        counts = load_bronze(
            lake,
            batch_id,
            manifest,
            reader,
            run_id=context.run_id,
            workers=workspace.settings.workers,
            progress=workspace.progress_of("read objects"),
        )
        with workspace.ledger() as ledger:
            for archive in readable_archives(lake, batch_id, manifest):
                deletions = workspace.deletions_of(archive.source)
                ledger.add_members(archive, reader, now=datetime.now(UTC), deletions=deletions)
        issues = lake.rows(
            """SELECT severity, issue_code, count(DISTINCT object_key) FROM bronze.ingest_issue
            WHERE arrival_batch = ? GROUP BY ALL ORDER BY severity, count(*) DESC""",
            [batch_id],
        )
        shown: dict[str, reporting.Shown] = {
            "object_catalog": {
                "counts": str(counts),
                "bytes": counts.bytes,
                "vanished": sum(target.deleted_at is not None for target in manifest),
                reporting.UNREAD_OBJECTS: counts.unread,
                reporting.LEDGER_REVISION: revision,
            },
            "ingest_issue": {"issues": reporting.markdown_table(("severity", "issue", "objects"), issues)},
        }
        yield from reporting.table_results(lake, "bronze", TABLES, batch_id=batch_id, metadata=shown)
