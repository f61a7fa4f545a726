"""Filling a column of rows that are there already, from stored headers: no object is read again.

New rows get the site's columns as they get all others; this is for those written before the column was declared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.lake.table import Table
from imaging_pipeline.metadata.entities import candidate_rows
from imaging_pipeline.metadata.placing import StoredObject, place

_ROWS = "promoted_rows"


@dataclass(frozen=True, slots=True)
class Filled:
    """What filling the columns of a table did.

    Attributes:
        table: the table.
        columns: the columns.
        rows: rows that were looked at.
        values: of these, values that are there now.
    """

    table: str
    columns: tuple[str, ...]
    rows: int
    values: int


def site_columns() -> Mapping[str, tuple[str, ...]]:
    """Names of the columns this site has added, by table."""
    shipped = registry.shipped_tables()
    found = {
        name: tuple(c.name for c in table.columns if c.name not in {known.name for known in shipped[name].columns})
        for name, table in registry.tables().items()
    }
    return {name: columns for name, columns in found.items() if columns}


def fill_columns(lake: Lake, schema: str, batch_id: str, stored_objects: Iterable[StoredObject]) -> list[Filled]:
    """Write the site's columns into the rows that come from some objects, in one transaction.

    Rows are found by the version of the object they are made from; run again, it changes nothing.

    Args:
        lake: the lake.
        schema: ``silver`` or ``deid``.
        batch_id: the batch of the objects.
        stored_objects: their headers.
    """
    wanted = site_columns()
    rows: dict[str, list[dict[str, object]]] = {name: [] for name in wanted}
    for stored in stored_objects:
        try:
            placed = place(stored)
            made = {name: candidate_rows(placed, registry.table(name))[0] for name in wanted}
        except Exception:  # noqa: BLE001, S112 - it has no rows: loading has refused it with an issue
            continue
        for name, found in made.items():
            rows[name] += found
    filled = []
    with lake.transaction():
        for name, columns in wanted.items():
            narrow = _narrowed(registry.table(name), columns)
            kept = [{column: row.get(column) for column in narrow.arrow_schema.names} for row in rows[name]]
            _update(lake, schema, batch_id, narrow, columns, narrow.rows(kept))
            values = sum(row[column] is not None for row in kept for column in columns)
            filled.append(Filled(name, columns, len(kept), values))
    return filled


def _narrowed(table: Table, columns: Sequence[str]) -> Table:
    """The table with no more than what finds a row, and what is filled."""
    kept = {*table.key, *columns, "row_version"}
    return replace(table, columns=tuple(column for column in table.columns if column.name in kept))


def _update(lake: Lake, schema: str, batch_id: str, table: Table, columns: Sequence[str], rows: pa.Table) -> None:
    # An instance kept beside another content of its UID has another key than its object says; the version tells.
    key = [name for name in table.key if name != "instance_key"]
    same = " AND ".join(f"entity.{name} = {_ROWS}.{name}" for name in (*key, "row_version"))
    changes = ", ".join(f'"{name}" = {_ROWS}."{name}"' for name in columns)
    differs = " OR ".join(f'entity."{name}" IS DISTINCT FROM {_ROWS}."{name}"' for name in columns)
    lake.connection.register(_ROWS, rows)
    try:
        lake.connection.execute(
            f"""UPDATE {schema}.{table.name} AS entity SET {changes} FROM {_ROWS}
            WHERE {same} AND entity.arrival_batch = ? AND ({differs})""",
            [batch_id],
        )
    finally:
        lake.connection.unregister(_ROWS)
