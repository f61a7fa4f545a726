"""Queries that run as they are: values of a column, rows of a table, an attribute that has no column."""

from __future__ import annotations

import re
from dataclasses import dataclass

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.dictionary.attributes import Attribute, is_private, without_block
from imaging_pipeline.lake.dictionary.joins import join_path, join_sql
from imaging_pipeline.lake.dictionary.rows import category
from imaging_pipeline.lake.registry import Column, Table

_STUDY = "dicom_study"

_LINE = 80
"""Width of a line of SQL (characters)."""

_COLUMN_TYPES = {
    "DA": "DATE", "TM": "TIME", "DT": "TIMESTAMP", "DS": "DOUBLE", "FD": "DOUBLE", "FL": "FLOAT", "IS": "INTEGER",
    "US": "INTEGER", "SS": "INTEGER", "SL": "INTEGER", "UL": "BIGINT", "SV": "BIGINT", "UV": "BIGINT", "SQ": "JSON",
}  # fmt: skip
"""Column type for a value representation; the others are texts, bulk values stay in the object."""

_PHI_OF_VR = {"DA": "date", "TM": "date", "DT": "date", "PN": "direct", "UI": "uid", "SQ": "quasi"}

_LONGEST_NAME = 63

_BULK = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})

_NUMBERS = frozenset({"DS", "FD", "FL", "IS", "US", "SS", "SL", "UL", "SV", "UV"})


@dataclass(frozen=True, slots=True)
class Example:
    """A query and the lake that answers it (``identified`` or ``research``)."""

    sql: tuple[str, ...]
    lake: str

    @property
    def command(self) -> str:
        """The command line that asks it."""
        option = "--lake identified " if self.lake == "identified" else ""
        return f'imaging-pipeline sql {option}"' + "".join(f"\n  {line}" for line in self.sql) + '"'


def schema_for(table: Table, *, has_phi: bool) -> str:
    """The schema to ask: the research side, unless what is asked for is not the same there or is not there at all."""
    return "deid" if "deid" in table.schemas and not has_phi else table.schemas[0]


def values_of(table: Table, column: Column) -> Example:
    """The values of a column, how often, and in how many studies."""
    schema = schema_for(table, has_phi=column.phi != "none")
    tables, lines = _from(schema, table.name)
    studies = [f"count(DISTINCT {_STUDY}.study_key) AS studies"] if _STUDY in tables else []
    select = _select([_named(table.name, column.name, tables), "count(*) AS n", *studies])
    return _example(schema, [*select, *lines, "GROUP BY ALL ORDER BY n DESC LIMIT 20"])


def rows_of(table: Table) -> Example:
    """Some rows of a table with a few of its columns, and the study they are of."""
    schema = schema_for(table, has_phi=False)
    own = [c for c in table.columns if category(table, c) in {"attribute", "derived"} and not c.type.startswith("JSON")]
    shown = ([c.name for c in own if c.phi == "none"] or [c.name for c in own] or list(table.key))[:4]
    tables, lines = _from(schema, table.name)
    names = [_named(table.name, name, tables) for name in shown]
    if len(tables) > 1:
        names.append(_named(_STUDY, "study_date", tables))
    return _example(schema, [*_select(names), *lines, "LIMIT 10"])


def elements_of(tag: str, vr: str, *, is_listed: bool) -> Example:
    """Values of an attribute in the table of all elements.

    Args:
        tag: eight hexadecimal digits, ``x`` for one that may vary.
        vr: its value representation; empty: not known.
        is_listed: the Basic Profile acts on it, so that only the identified side can be sure to have it.
    """
    schema = "silver" if is_listed or is_private(tag) else "deid"
    if vr == "SQ":
        names = ["tag_hex", "keyword", "value_string", "count(*) AS n"]
        where = f"WHERE element_path LIKE '%{tag}[%'"
    else:
        value = _value_column(vr.partition(" ")[0])
        creator = ["private_creator"] if is_private(tag) else []
        names = [*creator, value, "count(*) AS n", "count(DISTINCT instance_key) AS instances"]
        where = f"WHERE {_tag_condition(tag)}"
    lines = [*_select(names), f"FROM {schema}.dicom_element", where]
    return _example(schema, [*lines, "GROUP BY ALL ORDER BY n DESC LIMIT 20"])


def site_column(tag: str, known: Attribute | None, action: str, creator: str) -> str:
    """The entry of the file of the site's columns that makes an attribute a column of ``dicom_instance``.

    Args:
        tag: eight hexadecimal digits.
        known: what the dictionary says of it, unless it is private.
        action: of the Basic Profile.
        creator: who is known to use it, when it is private.

    Returns:
        One line of YAML; empty: bulk values, and attributes that nothing is known of.
    """
    if is_private(tag):
        name, kind, phi = f"private_{tag[:4]}_{tag[6:]}".lower(), "VARCHAR", "text"
        attribute = f'"({tag[:4]},xx{tag[6:]})[{creator or "CREATOR"}]"'
    elif known is None or known.vr.partition(" ")[0] in _BULK or "x" in tag:
        return ""
    else:
        vr = known.vr.partition(" ")[0]
        is_list = known.vm != "1" and vr != "SQ"
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", known.keyword).lower()[:_LONGEST_NAME]
        kind = _COLUMN_TYPES.get(vr, "VARCHAR") + ("[]" if is_list else "")
        phi = _PHI_OF_VR.get(vr, "text") if action else "none"
        attribute = known.keyword
    return f'- {{table: dicom_instance, name: {name}, attribute: {attribute}, type: "{kind}", phi: {phi}}}'


def _tag_condition(tag: str) -> str:
    if is_private(tag):
        return f"tag_hex = '{without_block(tag)}'"
    return f"tag_hex LIKE '{tag.replace('x', '_')}'" if "x" in tag else f"tag_hex = '{tag}'"


def _value_column(vr: str) -> str:
    if vr in _BULK:
        return "value_binary_ref"
    if vr in {"DA", "DT"}:
        return "value_datetime"
    return "value_number" if vr in _NUMBERS else "value_string"


def _from(schema: str, name: str) -> tuple[list[str], list[str]]:
    """The tables as far as the study, where there is a way to it, and ``FROM`` and ``JOIN`` lines of them."""
    tables = [name]
    for step in join_path(schema, name):
        if _STUDY in tables:
            break
        tables.append(step.to_table[1])
    if _STUDY not in tables:
        tables = [name]
    return tables, join_sql(schema, name, up_to=tables[-1])


def _named(table: str, column: str, tables: list[str]) -> str:
    """A column, with its table where another one has a column of that name."""
    folded = column.lower()  # SQL does not tell Modality from modality
    holders = [each for each in tables if any(folded == known.name.lower() for known in registry.table(each).columns)]
    is_shared = len(holders) > 1 or folded == "rowid"  # every table of DuckDB has one
    return f"{table}.{column}" if is_shared else column


def _select(names: list[str]) -> list[str]:
    lines = ["SELECT"]
    for number, name in enumerate(names):
        part = f" {name}," if number < len(names) - 1 else f" {name}"
        if len(lines[-1]) + len(part) > _LINE:
            lines.append(" ")
        lines[-1] += part
    return lines


def _example(schema: str, lines: list[str]) -> Example:
    return Example(tuple(lines), registry.SCHEMA_LAKES[schema])
