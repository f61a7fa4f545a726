"""Registry → what the Dagster UI shows of a table: specs, column schema, column lineage, counts, plots.

The one place where metadata is made. Nothing here may carry a value of a patient.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from imaging_pipeline.defs.partitions import arrival_batches
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.registry import Table
from imaging_pipeline.lake.store import Lake

OWNERS = ("team:imaging",)

Shown = dict[str, Any]
"""Metadata of one materialization or check: whatever Dagster takes, by name."""

CHAIN_VERSION = "chain_version"
"""Metadata key: versions of code, profile and recipe a batch was carried through the chain with."""

UNREAD_OBJECTS = "unread_objects"
"""Metadata key: objects of the batch whose bytes could not be fetched; the batch is tried again."""

LEDGER_REVISION = "ledger_revision"
"""Metadata key: the revision of the batch that was run; a later one tells of vanished objects."""

MAX_INLINE_BYTES = 100_000
"""Larger pictures are not put into metadata: the row is read whenever its page is opened."""


def asset_key(schema: str, table: str) -> dg.AssetKey:
    """Asset key = schema and table name."""
    return dg.AssetKey([schema, table])


def table_spec(
    schema: str,
    table: str,
    *,
    code_version: str,
    deps: Iterable[dg.AssetKey] = (),
    kinds: Iterable[str] = ("duckdb", "parquet"),
    is_partitioned: bool = True,
    automation_condition: dg.AutomationCondition[dg.AssetKey] | None = None,
) -> dg.AssetSpec:
    """The asset of a registry table."""
    entry = registry.table(table)
    return dg.AssetSpec(
        key=asset_key(schema, table),
        deps=list(deps),
        description=f"{entry.description}\n\n**Grain:** {entry.grain}.",
        group_name=schema,
        kinds=set(kinds),
        owners=list(OWNERS),
        code_version=code_version,
        partitions_def=arrival_batches if is_partitioned else None,
        automation_condition=automation_condition,
        tags={"lake": registry.SCHEMA_LAKES[schema]},
        metadata={"dagster/column_schema": column_schema(entry), "dagster/table_name": f"{schema}.{table}"},
    )


def column_schema(table: Table) -> dg.TableSchema:
    """Columns with type, description, constraints and whether they hold PHI on the identified side."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=column.type,
                description=_describe(column),
                constraints=dg.TableColumnConstraints(
                    nullable=not column.is_required, unique=(column.name,) == table.key
                ),
                tags={"phi": column.phi} if column.phi != "none" else {},
            )
            for column in table.columns
        ]
    )


def column_lineage(schema: str, table: Table) -> dg.TableColumnLineage:
    """Where each column comes from: silver from the stored headers, de-identified from silver."""
    deps: dict[str, list[dg.TableColumnDep]] = {}
    for column in table.columns:
        if schema == "silver" and column.tag:
            source = dg.TableColumnDep(asset_key("bronze", "dicom_header"), "header_json")
        elif schema == "deid" and "silver" in table.schemas and column.tag:
            source = dg.TableColumnDep(asset_key("silver", table.name), column.name)
        elif schema == "silver" and column.name in _CATALOG_COLUMNS:
            source = dg.TableColumnDep(asset_key("bronze", "object_catalog"), _CATALOG_COLUMNS[column.name])
        else:
            continue
        deps[column.name] = [source]
    return dg.TableColumnLineage(deps_by_column=deps)


_CATALOG_COLUMNS: Mapping[str, str] = {
    "object_key": "object_key",
    "storage_uri": "storage_uri",
    "checksum_sha256": "sha256",
    "content_sha256": "sha256",
    "file_size_bytes": "length",
    "source_system": "source_name",
}


def table_results(
    lake: Lake,
    schema: str,
    tables: Iterable[str],
    *,
    batch_id: str | None = None,
    metadata: Mapping[str, Shown] | None = None,
) -> Iterator[dg.MaterializeResult[None]]:
    """The results of writing some tables: row counts, lineage and where they are.

    Args:
        lake: the lake they are in.
        schema: their schema.
        tables: their names.
        batch_id: count the rows of this batch, too.
        metadata: by table, what the stage adds.
    """
    with lake.one_snapshot():
        written, snapshot = lake.written_tables(), lake.snapshot_id()
        counts = {
            table: [
                _count(lake, f"{schema}.{table}", of) if f"{schema}.{table}" in written else 0
                for of in (None, batch_id)[: 2 if batch_id else 1]
            ]
            for table in tables
        }
    for table, (rows, *of_batch) in counts.items():
        shown: Shown = {
            "dagster/row_count": rows,
            "dagster/column_lineage": column_lineage(schema, registry.table(table)),
            "snapshot_id": snapshot,
            **(metadata or {}).get(table, {}),
        }
        if of_batch:
            shown["dagster/partition_row_count"] = of_batch[0]
        yield dg.MaterializeResult(asset_key=asset_key(schema, table), metadata=shown)


def _count(lake: Lake, place: str, batch_id: str | None) -> int:
    where, parameters = ("WHERE arrival_batch = ?", [batch_id]) if batch_id else ("", [])
    ((count,),) = lake.rows(f"SELECT count(*) FROM {place} {where}", list(parameters))
    return int(str(count))


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> dg.MarkdownMetadataValue:
    """A small table of counts."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(str(value) for value in row) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))


def picture(title: str, image: bytes, mime_type: str = "image/png") -> dg.MarkdownMetadataValue:
    """A picture shown inline; one that is too large is named only."""
    if len(image) > MAX_INLINE_BYTES:
        return dg.MetadataValue.md(f"{title}: {len(image):,} bytes, too large to show here")
    return dg.MetadataValue.md(f"![{title}](data:{mime_type};base64,{base64.b64encode(image).decode()})")


def _describe(column: registry.Column) -> str:
    origin = f"{column.keyword} ({column.tag[:4]},{column.tag[4:8]})" if column.tag else ""
    return "; ".join(part for part in (column.description, origin) if part)
