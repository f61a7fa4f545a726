"""The registry: every table and column as data, and what follows from it (DDL, Arrow schemas).

The one place where a table is described. Holds no rows and opens no lake.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

import pyarrow as pa

SCHEMA_LAKES: Mapping[str, str] = MappingProxyType(
    {"bronze": "identified", "silver": "identified", "deid": "research", "gold": "research"}
)
"""Which lake each schema lives in."""

CODE_TYPE = (
    "STRUCT(code_value VARCHAR, coding_scheme_designator VARCHAR, coding_scheme_version VARCHAR, code_meaning VARCHAR)"
)
"""A coded concept (PS3.3 Table 8.8-1), written ``CODE`` in the registry."""

_ARROW_TYPES: Mapping[str, pa.DataType] = MappingProxyType(
    {
        "VARCHAR": pa.string(),
        "JSON": pa.string(),
        "BOOLEAN": pa.bool_(),
        "INTEGER": pa.int32(),
        "BIGINT": pa.int64(),
        "FLOAT": pa.float32(),
        "DOUBLE": pa.float64(),
        "DATE": pa.date32(),
        "TIME": pa.time64("us"),
        "TIMESTAMP": pa.timestamp("us"),
    }
)


@dataclass(frozen=True, slots=True, eq=False)  # the registry holds one of each: looked up by identity, fast
class Column:
    """One column of the registry.

    Attributes:
        name: column name; a DICOM keyword in snake_case where it mirrors one.
        type: DuckDB type.
        is_key: part of the primary key.
        is_required: never NULL.
        keyword: DICOM keyword or dotted path of keywords, or empty for a derived column.
        tag: its tag or dotted path of tags, eight hexadecimal digits each.
        vr: value representation of the attribute.
        ps3_15: action of the PS3.15 Basic Profile.
        phi: ``direct``, ``quasi``, ``date``, ``uid``, ``text`` or ``none``.
        description: in words.
    """

    name: str
    type: str
    is_key: bool
    is_required: bool
    keyword: str
    tag: str
    vr: str
    ps3_15: str
    phi: str
    description: str

    @property
    def arrow_type(self) -> pa.DataType:
        """The Arrow type of its values."""
        return arrow_type(self.type)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One table of the registry, which may exist in several schemas (silver and its de-identified twin)."""

    name: str
    schemas: tuple[str, ...]
    grain: str
    description: str
    columns: tuple[Column, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """Names of the primary key's columns."""
        return tuple(column.name for column in self.columns if column.is_key)

    @property
    def has_versions(self) -> bool:
        """Rows are ordered by ``row_version``; merging keeps the greatest of each key."""
        return any(column.name == "row_version" for column in self.columns)

    @property
    def arrow_schema(self) -> pa.Schema:
        """Schema of a batch of rows, without ``_loaded_at`` (stamped on writing)."""
        return pa.schema(
            [pa.field(c.name, c.arrow_type, nullable=not c.is_required) for c in self.columns if c.name != LOADED_AT]
        )

    def ddl(self, schema: str) -> str:
        """``CREATE TABLE`` for this table. DuckLake knows NOT NULL; keys are kept by merges and proved by checks."""
        columns = ",\n  ".join(f'"{c.name}" {c.type}{" NOT NULL" if c.is_required else ""}' for c in self.columns)
        return f"CREATE TABLE IF NOT EXISTS {schema}.{self.name} (\n  {columns}\n)"

    def rows(self, rows: list[dict[str, object]]) -> pa.Table:
        """Rows as an Arrow table of :attr:`arrow_schema`; names the table and column when a value does not fit.

        Raises:
            ValueError: an unknown column, a missing required value, or a value of the wrong type.
        """
        schema = self.arrow_schema
        unknown = {name for row in rows for name in row} - set(schema.names)
        if unknown:
            raise ValueError(f"{self.name} has no column {', '.join(sorted(unknown))}")
        arrays = [self._array(field, [row.get(field.name) for row in rows]) for field in schema]
        return pa.Table.from_arrays(arrays, schema=schema)

    def _array(self, field: pa.Field, values: list[object]) -> pa.Array:
        try:
            array = pa.array(values, field.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            # Arrow's own message quotes the value, which may be an identifier.
            raise ValueError(f"{self.name}.{field.name}: a value is no {field.type}") from None
        if not field.nullable and array.null_count:
            raise ValueError(f"{self.name}.{field.name}: {array.null_count} values are missing")
        return array


LOADED_AT = "_loaded_at"
"""Column stamped with the transaction's time (UTC); the only one that differs when a batch is run again."""


def table(name: str) -> Table:
    """A table by its name.

    Raises:
        KeyError: no such table.
    """
    return tables()[name]


@functools.cache
def tables() -> Mapping[str, Table]:
    """All tables by name, in the registry's order."""
    columns: dict[str, list[Column]] = {}
    for row in _read("columns.csv"):
        columns.setdefault(row["table"], []).append(
            Column(
                name=row["column"],
                type=row["type"].replace("CODE", CODE_TYPE),
                is_key=row["key"] == "1",
                is_required=row["not_null"] == "1",
                keyword=row["keyword"],
                tag=row["tag"],
                vr=row["vr"],
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
                description=row["description"],
                columns=tuple(columns[row["table"]]),
            )
            for row in _read("tables.csv")
        }
    )


def tables_of(schema: str) -> tuple[Table, ...]:
    """The tables of one schema (``bronze``, ``silver``, ``deid``, ``gold``), in the registry's order."""
    return tuple(entry for entry in tables().values() if schema in entry.schemas)


@functools.cache
def arrow_type(duckdb_type: str) -> pa.DataType:
    """The Arrow type of a DuckDB type of the registry.

    >>> arrow_type("DOUBLE[]")
    ListType(list<item: double>)
    """
    if duckdb_type.endswith("[]"):
        return pa.list_(arrow_type(duckdb_type[:-2]))
    struct = re.fullmatch(r"STRUCT\((.*)\)", duckdb_type)
    if struct:
        fields = (field.strip().split(" ") for field in struct[1].split(","))
        return pa.struct([pa.field(name, arrow_type(kind)) for name, kind in fields])
    return _ARROW_TYPES[duckdb_type]


def _read(name: str) -> list[dict[str, str]]:
    text = resources.files("imaging_pipeline.lake").joinpath("data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
