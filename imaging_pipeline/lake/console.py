"""Read-only SQL for people: one SELECT over the lakes a person may open, and nothing else.

The connection cannot write, read other files, or change its own limits. Which lakes are attached decides what
can be seen; the crosswalk is attached only for the key holder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from imaging_pipeline.errors import ImagingError
from imaging_pipeline.lake.store import attach, quoted
from imaging_pipeline.settings import LakeLocation

READING_STATEMENTS = frozenset({"SELECT"})

TABLE_FUNCTIONS = frozenset({"unnest", "range", "generate_series", "duckdb_tables", "duckdb_columns"})
"""Functions a query may read rows from. Others open files: sqlite_scan would read the ledger beside the lake."""

_DESCRIPTION = re.compile(r"(SHOW (ALL )?TABLES|DESCRIBE [\w.]+)\s*;?", re.IGNORECASE)


class QueryRefused(ImagingError):
    """The statement is wrong, or would do more than read; the message says which."""


def run_query(
    sql: str,
    locations: Sequence[LakeLocation],
    *,
    crosswalk: Iterable[tuple[str, str]] | None = None,
    add_functions: Callable[[duckdb.DuckDBPyConnection], None] | None = None,
) -> pa.Table:
    """The result of one SELECT.

    Args:
        sql: one statement; names without a catalog are of the first lake.
        locations: the lakes to attach, each under its own name.
        crosswalk: pairs of research and original UID, seen as ``vault.uid_map``; for the key holder only.
        add_functions: adds functions of this package to the connection; what they read is theirs to confine.

    Raises:
        QueryRefused: it is not one reading statement, or it fails.
        ConfigurationError: a lake cannot be opened.
    """
    with duckdb.connect() as connection:
        for location in locations:
            attach(connection, location, read_only=True)
        if crosswalk is not None:
            _attach_crosswalk(connection, crosswalk)
        if add_functions is not None:
            add_functions(connection)
        _confine(connection, locations)
        connection.execute(f"USE {locations[0].name}")
        _require_reading(connection, sql)
        try:
            return connection.execute(sql).to_arrow_table()
        except duckdb.Error as error:
            raise QueryRefused(str(error)) from None


def _attach_crosswalk(connection: duckdb.DuckDBPyConnection, crosswalk: Iterable[tuple[str, str]]) -> None:
    pairs = list(crosswalk)
    rows = pa.table(
        {"research_uid": [new for new, _ in pairs], "original_uid": [original for _, original in pairs]},
        schema=pa.schema([("research_uid", pa.string()), ("original_uid", pa.string())]),
    )
    connection.execute("ATTACH ':memory:' AS vault")
    connection.register("crosswalk_rows", rows)
    connection.execute("CREATE TABLE vault.uid_map AS SELECT * FROM crosswalk_rows")
    connection.unregister("crosswalk_rows")


def _confine(connection: duckdb.DuckDBPyConnection, locations: Sequence[LakeLocation]) -> None:
    folders = [location.data_path for location in locations]
    folders += [str(path.parent) for location in locations if (path := location.sqlite_path)]
    allowed = ", ".join(quoted(f"{Path(folder)}/") for folder in folders)
    connection.execute(f"SET allowed_directories = [{allowed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _require_reading(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryRefused(str(error)) from None
    kinds = [statement.type.name.removesuffix("_STATEMENT") for statement in statements]
    if len(kinds) != 1 or kinds[0] not in READING_STATEMENTS:
        raise QueryRefused(f"one SELECT is expected, found: {', '.join(kinds) or 'nothing'}")
    if _DESCRIPTION.fullmatch(sql.strip()):
        return
    ((text,),) = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    tree = json.loads(text)
    refused = sorted(_table_functions(tree) - TABLE_FUNCTIONS)
    if refused or tree.get("error"):
        raise QueryRefused(f"only tables can be read, not {', '.join(refused) or 'what this statement names'}")


def _table_functions(tree: object) -> set[str]:
    """Names of the functions a parsed query reads rows from, at any depth."""
    if isinstance(tree, list):
        return set().union(*map(_table_functions, tree))
    if not isinstance(tree, dict):
        return set()
    found = set().union(*map(_table_functions, tree.values()))
    if tree.get("type") == "TABLE_FUNCTION":
        found.add(str(tree.get("function", {}).get("function_name", "unknown")).lower())
    return found
