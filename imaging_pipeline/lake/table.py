"""A table and its columns as the registry describes them, and what follows from it (DDL, Arrow schemas)."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

import pyarrow as pa

LOADED_AT = "_loaded_at"
"""Column stamped with the transaction's time (UTC); the only one that differs when a batch is run again."""

CODE_TYPE = (
    "STRUCT(code_value VARCHAR, coding_scheme_designator VARCHAR, coding_scheme_version VARCHAR, code_meaning VARCHAR)"
)
"""A coded concept (PS3.3 Table 8.8-1), written ``CODE`` in the registry."""

_ARROW_TYPES: Mapping[str, pa.DataType] = MappingProxyType(
    {
        "VARCHAR": pa.string(),
        "BLOB": pa.binary(),
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
        type: DuckDB type, with ``CODE`` for :data:`CODE_TYPE`.
        is_key: part of the primary key.
        is_required: never NULL.
        keyword: DICOM keyword or dotted path of keywords, or empty for a derived column.
        tag: where it is found (see :class:`Table`): its tag or dotted path of tags, eight hexadecimal digits each; of a
            list of structures ``SEQUENCE{TAG TAG}``; with a leading ``/`` from the top level; ``.`` the row's own item;
            ``TAG|TAG`` the first that is there.
        vr: value representation of the attribute.
        vm: value multiplicity of the attribute (PS3.6): ``1``, ``2``, ``1-n``, …
        attribute_type: type of the attribute in its module (PS3.5 7.4): ``1``, ``1C``, ``2``, ``2C``, or empty.
        unit: unit of its values (UCUM), or empty.
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
    vm: str
    attribute_type: str
    unit: str
    ps3_15: str
    phi: str
    description: str

    @property
    def sql_type(self) -> str:
        """The DuckDB type of its values."""
        return self.type.replace("CODE", CODE_TYPE)

    @property
    def arrow_type(self) -> pa.DataType:
        """The Arrow type of its values."""
        return arrow_type(self.sql_type)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One table of the registry, which may exist in several schemas (silver and its de-identified twin).

    Attributes:
        name: table name.
        schemas: the schemas it is in.
        grain: what one row is.
        made_from: how rows come from a header: ``object`` (one), ``frames`` (one for each), ``frames or object`` (one
            for each when there are functional groups), ``items TAG`` (one for each item of a sequence),
            ``items TAG over object`` (the same, an attribute missing in the item is taken from the top level, and one
            row when there is no item), ``code`` (by a function), ``view`` (a view, its SQL is in ``data/views``);
            empty: not at all.
        when: the objects that have rows: ``has TAG TAG`` (any of these attributes), ``modality XX YY``, ``any`` (any
            attribute of the table has a value); empty: all.
        description: in words.
        columns: its columns, in order.
    """

    name: str
    schemas: tuple[str, ...]
    grain: str
    made_from: str
    when: str
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

    @property
    def is_view(self) -> bool:
        """It holds no rows of its own."""
        return self.made_from == "view"

    def ddl(self, schema: str) -> str:
        """``CREATE`` for this table or view. DuckLake knows NOT NULL; keys are kept by merges and proved by checks."""
        if self.is_view:
            columns = ", ".join(f'"{c.name}"' for c in self.columns)
            return f"CREATE OR REPLACE VIEW {schema}.{self.name} ({columns}) AS\n{view_sql(self.name, schema)}"
        columns = ",\n  ".join(f'"{c.name}" {c.sql_type}{" NOT NULL" if c.is_required else ""}' for c in self.columns)
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


def text_of(*path: str) -> str:
    """A file of the registry's data."""
    return resources.files("imaging_pipeline.lake").joinpath("data", *path).read_text(encoding="utf-8")


def view_sql(name: str, schema: str) -> str:
    """The query of a view, over the tables of ``schema`` and of those below it."""
    return text_of("views", f"{name}.sql").replace("{schema}", schema).strip()


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
