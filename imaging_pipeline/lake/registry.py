"""The registry: every table and column as data.

The one place where a table is described. Holds no rows and opens no lake.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from imaging_pipeline.lake.site_columns import load_site_columns
from imaging_pipeline.lake.table import CODE_TYPE, LOADED_AT, Column, Table, arrow_type, text_of
from imaging_pipeline.settings import site_columns_file

__all__ = [
    "CODE_TYPE",
    "LOADED_AT",
    "SCHEMA_LAKES",
    "Column",
    "Table",
    "arrow_type",
    "shipped_tables",
    "table",
    "tables",
    "tables_of",
]

SCHEMA_LAKES: Mapping[str, str] = MappingProxyType(
    {"bronze": "identified", "silver": "identified", "deid": "research", "gold": "research"}
)
"""Which lake each schema lives in."""


def table(name: str) -> Table:
    """A table by its name.

    Raises:
        KeyError: no such table.
    """
    return tables()[name]


def tables() -> Mapping[str, Table]:
    """All tables by name, in the registry's order, with the columns the site has added.

    Raises:
        ConfigurationError: the file of the site's columns is wrong.
    """
    return _with_site_columns(site_columns_file())


@functools.cache
def shipped_tables() -> Mapping[str, Table]:
    """The same without the site's columns: what this package itself describes."""
    columns: dict[str, list[Column]] = {}
    for row in _read("columns.csv"):
        columns.setdefault(row["table"], []).append(
            Column(
                name=row["column"],
                type=row["type"],
                is_key=row["key"] == "1",
                is_required=row["not_null"] == "1",
                keyword=row["keyword"],
                tag=row["tag"],
                vr=row["vr"],
                vm=row["vm"],
                attribute_type=row["attribute_type"],
                unit=row["unit"],
                ps3_15=row["ps3_15"],
                phi=row["phi"],
                description=row["description"],
            )
        )
    return MappingProxyType(
        {
            row["table"]: Table(
                name=row["table"],
                schemas=tuple(row["schemas"].split()),
                grain=row["grain"],
                made_from=row["made_from"],
                when=row["when"],
                description=row["description"],
                columns=tuple(columns[row["table"]]),
            )
            for row in _read("tables.csv")
        }
    )


@functools.cache
def _with_site_columns(path: Path | None) -> Mapping[str, Table]:
    found = dict(shipped_tables())
    for table_name, column in load_site_columns(path, found) if path else ():
        entry = found[table_name]
        *own, batch, version, loaded = entry.columns  # every table with declared columns ends with these three
        found[table_name] = replace(entry, columns=(*own, column, batch, version, loaded))
    return MappingProxyType(found)


def tables_of(schema: str) -> tuple[Table, ...]:
    """The tables of one schema (``bronze``, ``silver``, ``deid``, ``gold``), in the registry's order."""
    return tuple(entry for entry in tables().values() if schema in entry.schemas)


def _read(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text_of(name).splitlines()))
