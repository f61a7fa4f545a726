"""The registry as a table of the lake: ``data_dictionary``, one row for each column of each table."""

from __future__ import annotations

import pyarrow as pa

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.dictionary.attributes import meaning, path_of, spell_path
from imaging_pipeline.lake.dictionary.data import kept
from imaging_pipeline.lake.dictionary.joins import relations
from imaging_pipeline.lake.dictionary.search import search_text
from imaging_pipeline.lake.registry import LOADED_AT, Column, Table
from imaging_pipeline.lake.store import Lake

TABLE = "data_dictionary"

_BOOKKEEPING = frozenset({"arrival_batch", "row_version", LOADED_AT})


@kept
def dictionary_rows(lake_name: str) -> list[dict[str, object]]:
    """Rows of the dictionary of one lake (``identified`` or ``research``), in the registry's order."""
    return [
        _row(schema, table, column)
        for schema, owner in registry.SCHEMA_LAKES.items()
        if owner == lake_name
        for table in registry.tables_of(schema)
        for column in table.columns
    ]


def write_dictionary(lake: Lake) -> bool:
    """Bring the dictionary of a lake in line with the registry; writes, and makes a snapshot, only when it differs.

    Returns:
        Whether it was written.
    """
    wanted = _wanted(lake.name)
    if _stored(lake) == wanted:
        return False
    with lake.transaction():
        if _stored(lake) == wanted:  # another process has written it meanwhile
            return False
        lake.replace_all(_schema(lake.name), TABLE, wanted, where="true", parameters=[])
    return True


def category(table: Table, column: Column) -> str:
    """What kind of column it is: ``key``, ``attribute`` (of DICOM), ``bookkeeping`` or ``derived``."""
    if column.name in _BOOKKEEPING:
        return "bookkeeping"
    refers = any(column.name in each.columns for schema in table.schemas for each in relations(schema, table.name))
    if column.is_key or (refers and not column.keyword):
        return "key"
    return "attribute" if column.keyword else "derived"


def _row(schema: str, table: Table, column: Column) -> dict[str, object]:
    references = [str(each) for each in relations(schema, table.name) if column.name in each.columns]
    return {
        "schema_name": schema,
        "table_name": table.name,
        "column_name": column.name,
        "data_type": column.type,
        "keyword": column.keyword or None,
        "dicom_tag": spell_path(path_of(table, column)) or None,
        "vr": column.vr or None,
        "vm": column.vm or None,
        "category": category(table, column),
        "description": meaning(table, column) or None,
        "constraints": _constraints(table, column),
        "relationships": "; ".join(references) or None,
        "ps3_15_basic_action": column.ps3_15 or None,
        "phi_class": column.phi,
        "search_text": search_text(table, column),
        "unit": column.unit or None,
    }


def _constraints(table: Table, column: Column) -> str | None:
    parts = [
        f"PRIMARY KEY ({', '.join(table.key)})" if column.is_key else "",
        "NOT NULL" if column.is_required else "",
        f"DICOM type {column.attribute_type}" if column.attribute_type else "",
    ]
    return "; ".join(filter(None, parts)) or None


@kept
def _wanted(lake_name: str) -> pa.Table:
    table = registry.table(TABLE).rows(dictionary_rows(lake_name))
    return table.sort_by([(name, "ascending") for name in registry.table(TABLE).key])


def _stored(lake: Lake) -> pa.Table:
    names = ", ".join(registry.table(TABLE).arrow_schema.names)
    key = ", ".join(registry.table(TABLE).key)
    stored = lake.query(f"SELECT {names} FROM {_schema(lake.name)}.{TABLE} ORDER BY {key}")
    return stored.cast(registry.table(TABLE).arrow_schema.remove_metadata())


def _schema(lake_name: str) -> str:
    """The schema of a lake that holds its dictionary."""
    return next(each for each in registry.table(TABLE).schemas if registry.SCHEMA_LAKES[each] == lake_name)
