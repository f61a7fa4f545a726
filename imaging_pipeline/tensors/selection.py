"""Selection: which images of the research lake a recipe is meant for.

A recipe is data from somebody, not trusted code: its SQL condition is parsed, and only what can do no more than look
at the research tables, and gives the same answer every time, is let through. Must not contain decoding or storage.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any, Final

import duckdb

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake import registry

READABLE: Final = ("deid",)
"""The schema whose tables a recipe's condition may read; those of gold are made from tensors."""

_EXPRESSIONS: Final = frozenset(
    {
        "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION",
        "LAMBDA", "OPERATOR", "STAR", "SUBQUERY",
    }
)  # fmt: skip
"""Expression classes of DuckDB's parser; parameters and window functions are not among them."""

_SETTINGS: Final = frozenset({"current_setting", "getenv", "getvariable", "version"})
"""Functions that give the same value all the time on one machine only."""

_PURE: Final = frozenset({"count_star", "date_part", "list_value", "nullif", "split_part", "unnest"})
"""Functions that are not in DuckDB's list, or not as what they are."""

_CATALOG_QUERIES: Final = ("SHOW_REF", "TABLE_FUNCTION")

_CLOCKS: Final = ("current_", "local", "session_user", "today", "user")
"""Beginnings of the names that SQL lets stand for a function without parentheses."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which images are taken; all conditions must hold, an empty one always does.

    Attributes:
        modalities: Modality (0008,0060) values taken.
        body_parts: Body Part Examined (0018,0015) values taken.
        allow_missing_body_part: an empty body part is taken too.
        view_positions: View Position (0018,5101) values taken.
        where: SQL condition over the research tables of an image, or None; see `check_condition`.
    """

    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    allow_missing_body_part: bool = False
    view_positions: tuple[str, ...] = ()
    where: str | None = None

    def takes(self, modality: str | None, body_part: str | None, view_position: str | None = None) -> bool:
        """Whether the codes of an image are among those taken; case and outer spaces do not matter."""
        part = _code(body_part)
        is_part = not self.body_parts or (part in self.body_parts if part else self.allow_missing_body_part)
        return is_part and _is_in(modality, self.modalities) and _is_in(view_position, self.view_positions)


def _code(value: str | None) -> str:
    return (value or "").strip().upper()


def _is_in(value: str | None, allowed: tuple[str, ...]) -> bool:
    return not allowed or _code(value) in allowed


@functools.cache
def check_condition(condition: str, *, key: str = "recipe: select.where", schemas: tuple[str, ...] = READABLE) -> None:
    """Refuse an SQL condition that is not one expression over the research tables.

    Columns of the subject's own rows, functions that always give the same result, and subqueries over tables of
    ``schemas`` are allowed; files, other schemas, earlier snapshots, settings, the clock and chance are not.

    Args:
        condition: as behind WHERE.
        key: where it stands, for the message.
        schemas: whose tables subqueries may read.

    Raises:
        ConfigurationError: saying what in it is refused.
    """
    with duckdb.connect() as connection:
        wanted, plain = (_parsed(connection, f"SELECT (\n{text}\n)", key) for text in (condition, "true"))
        is_one = [each["class"] != "STAR" for each in wanted.get("select_list", ())] == [True]
        if not is_one or _without_list(wanted) != _without_list(plain):
            raise ConfigurationError(f"{key}: expected one condition, as behind WHERE")
        known = {(schema, table.name) for schema in schemas for table in registry.tables_of(schema)}
        refused = sorted(set(_refused(wanted["select_list"], _stable_functions(connection), known)))
    if refused:
        names = " or ".join(f"{schema}.NAME" for schema in schemas)
        raise ConfigurationError(
            f"{key}: {', '.join(refused)} cannot be used; allowed are columns, functions that depend on nothing else, "
            f"and tables as {names}"
        )


def _parsed(connection: duckdb.DuckDBPyConnection, sql: str, key: str) -> dict[str, Any]:
    ((text,),) = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    tree = json.loads(text)
    if tree.get("error") or len(tree["statements"]) != 1:
        raise ConfigurationError(f"{key}: {tree.get('error_message', 'expected one condition')}")
    node: dict[str, Any] = tree["statements"][0]["node"]
    return node


def _without_list(node: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in {"select_list", "query_location"}} | {
        "from_table": node["from_table"]["type"] if "from_table" in node else None
    }


def _stable_functions(connection: duckdb.DuckDBPyConnection) -> frozenset[str]:
    rows = connection.execute(
        """SELECT function_name FROM duckdb_functions() GROUP BY function_name
        HAVING bool_and(function_type IN ('scalar', 'aggregate') AND stability = 'CONSISTENT')"""
    ).fetchall()
    return (frozenset(name for (name,) in rows) | _PURE) - _SETTINGS


def _refused(tree: object, functions: frozenset[str], tables: Set[tuple[str, str]]) -> Iterator[str]:
    """What a parsed expression holds that it must not, at any depth."""
    if isinstance(tree, list):
        for entry in tree:
            yield from _refused(entry, functions, tables)
    if not isinstance(tree, dict):
        return
    kind = tree.get("type")
    if kind in _CATALOG_QUERIES:
        yield f"{tree.get('function', {}).get('function_name', 'show')}()"
    elif kind == "BASE_TABLE":
        yield from _refused_table(tree, tables)
    elif "class" in tree:
        yield from _refused_expression(tree, functions)
    for entry in tree.values():
        yield from _refused(entry, functions, tables)


def _refused_table(tree: dict[str, Any], tables: Set[tuple[str, str]]) -> Iterator[str]:
    catalog, schema, name = tree["catalog_name"], tree["schema_name"], tree["table_name"]
    if catalog or (schema, name) not in tables:
        yield f"the table {'.'.join(part for part in (catalog, schema, name) if part)}"
    if tree.get("at_clause"):
        yield "AT (earlier snapshots hold what was withdrawn)"


def _refused_expression(tree: dict[str, Any], functions: frozenset[str]) -> Iterator[str]:
    if tree["class"] not in _EXPRESSIONS or tree.get("columns"):
        yield str(tree["class"]).lower()
    elif tree["class"] == "FUNCTION" and (
        not _is_builtin(tree["schema"]) or tree["function_name"].lower() not in functions
    ):
        yield f"{tree['function_name']}()"
    elif tree["class"] == "COLUMN_REF" and tree["column_names"][0].lower().startswith(_CLOCKS):
        yield tree["column_names"][0]


def _is_builtin(schema: str) -> bool:
    return schema in {"", "main", "pg_catalog"}
