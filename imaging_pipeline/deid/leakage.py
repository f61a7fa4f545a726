"""Does an identifier of the identified lake stand anywhere in the research lake's tables?

A second look after the engine's own screen, from the other end: original values as silver knows them against
every text column of the research rows of the same batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake

SHORTEST_IDENTIFIER = 4
"""Shorter texts ("A", "12") are met by chance in any table."""

_IDENTIFIED_CLASSES = frozenset({"direct", "uid"})


def count_leaks(identified: Lake, research: Lake, batch_id: str) -> dict[str, int]:
    """Research cells that equal an identifier of the batch's patients, by table and column; empty is clean."""
    originals = _originals(identified, batch_id)
    found: dict[str, int] = {}
    for table in (*registry.tables_of("deid"), *registry.tables_of("gold")):
        if not any(column.name == "arrival_batch" for column in table.columns):
            continue
        schema = "deid" if "deid" in table.schemas else "gold"
        rows = research.query(f"SELECT * FROM {schema}.{table.name} WHERE arrival_batch = ?", [batch_id])
        for name, values in _texts(rows):
            if hits := sum(value.strip().upper() in originals for value in values):
                found[f"{table.name}.{name}"] = hits
    return found


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


def _texts(rows: pa.Table) -> Iterator[tuple[str, list[str]]]:
    for name in rows.column_names:
        column = rows[name].combine_chunks()
        if pa.types.is_list(column.type):
            column = column.flatten()
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            yield name, [value for value in column.to_pylist() if value]
