"""Views over rows that are put in directly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import duckdb

from imaging_pipeline.lake import registry

SCHEMA = "silver"


def with_view(view: str, tables: Sequence[str]) -> duckdb.DuckDBPyConnection:
    """A database in memory with some tables and one view over them."""
    connection = duckdb.connect()
    connection.execute(f"CREATE SCHEMA {SCHEMA}")
    for name in (*tables, view):
        connection.execute(registry.table(name).ddl(SCHEMA))
    return connection


def put(connection: duckdb.DuckDBPyConnection, name: str, rows: Iterable[dict[str, Any]]) -> None:
    """Rows of a table; required columns that are not given get some value."""
    table = registry.table(name)
    some = {"VARCHAR": "x", "INTEGER": 1, "BOOLEAN": False}
    required = {
        column.name: some[column.type] for column in table.columns if column.is_required and column.type in some
    }
    connection.register("new_rows", table.rows([required | row for row in rows]))
    connection.execute(f"INSERT INTO {SCHEMA}.{name} BY NAME SELECT * FROM new_rows")
    connection.unregister("new_rows")


def read(connection: duckdb.DuckDBPyConnection, view: str, order: str) -> list[dict[str, Any]]:
    """All rows of a view, which has the columns and types of the registry."""
    declared = [(column.name, column.arrow_type) for column in registry.table(view).columns]
    table = connection.execute(f"SELECT * FROM {SCHEMA}.{view} ORDER BY {order}").to_arrow_table()
    assert [(field.name, field.type) for field in table.schema] == declared
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
