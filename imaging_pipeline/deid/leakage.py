"""Does an identifier of the identified lake stand anywhere in research tables?

A second look after the engine's own screen, from the other end: original values as silver knows them against
every text column of the research rows of the same batch, before they are written and again as a check.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.registry import Table
from imaging_pipeline.lake.store import Lake

SHORTEST_IDENTIFIER = 4
"""Shorter texts ("A", "12") are met by chance in any table."""

_IDENTIFIED_CLASSES = frozenset({"direct", "uid"})


def count_leaks(identified: Lake, tables: Mapping[str, pa.Table], batch_id: str) -> dict[str, int]:
    """Cells that equal an identifier of the batch's patients, by table and column; empty is clean.

    A column that the profile keeps may hold what the same column of silver holds, even when it is somebody's name
    (a station called like a model, a patient called UNKNOWN); anything else there is a leak.

    Args:
        identified: where the originals are.
        tables: research rows of the batch, by table name.
        batch_id: the batch.
    """
    originals = _originals(identified, batch_id)
    found: dict[str, int] = {}
    for table_name, rows in tables.items():
        table = registry.table(table_name)
        for column, values in _texts(rows):
            suspects = [value for value in values if value.strip().upper() in originals]
            if suspects and column in _kept_columns(table):
                kept = _values(identified, table, column, batch_id)
                suspects = [value for value in suspects if value not in kept]
            if suspects:
                found[f"{table_name}.{column}"] = len(suspects)
    return found


def research_rows(research: Lake, batch_id: str) -> dict[str, pa.Table]:
    """All research rows of a batch, by table name."""
    return {
        table.name: research.query(f"SELECT * FROM {schema}.{table.name} WHERE arrival_batch = ?", [batch_id])
        for schema in ("deid", "gold")
        for table in registry.tables_of(schema)
        if any(column.name == "arrival_batch" for column in table.columns)
    }


def _originals(identified: Lake, batch_id: str) -> frozenset[str]:
    """Upper-cased identifiers of the batch, well-known UIDs (SOP classes, transfer syntaxes) left out."""
    values: set[str] = set()
    for table in registry.tables_of("silver"):
        columns = [c.name for c in table.columns if c.phi in _IDENTIFIED_CLASSES and c.type in ("VARCHAR", "VARCHAR[]")]
        if not columns:
            continue
        rows = identified.query(
            f"SELECT {', '.join(columns)} FROM silver.{table.name} WHERE arrival_batch = ?", [batch_id]
        )
        for _, texts in _texts(rows):
            values.update(text.strip().upper() for text in texts)
    return frozenset(v for v in values if len(v) >= SHORTEST_IDENTIFIER and not v.startswith("1.2.840.10008."))


def _kept_columns(table: Table) -> frozenset[str]:
    """Columns mirroring an attribute on which the Basic Profile does not act."""
    return frozenset(column.name for column in table.columns if column.tag and column.phi == "none")


def _values(lake: Lake, table: Table, column: str, batch_id: str) -> frozenset[str]:
    rows = lake.query(f"SELECT {column} FROM silver.{table.name} WHERE arrival_batch = ?", [batch_id])
    return frozenset(value for _, values in _texts(rows) for value in values)


def _texts(rows: pa.Table) -> Iterator[tuple[str, list[str]]]:
    for name in rows.column_names:
        column = rows[name].combine_chunks()
        if pa.types.is_list(column.type):
            column = column.flatten()
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            yield name, [value for value in column.to_pylist() if value]
