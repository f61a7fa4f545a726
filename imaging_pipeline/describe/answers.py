"""The answers, as data: what a name, tag, keyword or some words mean, where it is, how to ask for it.

Works from the registry and the standard's dictionaries alone; opens no lake.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from imaging_pipeline.deid.table import load_table
from imaging_pipeline.describe import queries
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.dictionary import joins, search
from imaging_pipeline.lake.dictionary.attributes import (
    Attribute,
    attribute,
    attribute_by_keyword,
    is_private,
    item_tag,
    meaning,
    path_of,
    private_names,
    read_tag,
    spell,
    spell_path,
    tags_of,
    without_block,
)
from imaging_pipeline.lake.registry import Column, Table


@dataclass(frozen=True, slots=True)
class Place:
    """A column in one table (and its twin in the other schema)."""

    table: str
    column: str
    schemas: tuple[str, ...]
    type: str
    unit: str
    is_key: bool
    is_required: bool
    keyword: str
    tag: str
    attribute_type: str
    phi: str
    ps3_15: str
    means: str


@dataclass(frozen=True, slots=True)
class AttributeFacts:
    """What the standard says of an attribute (PS3.6, PS3.15 Table E.1-1)."""

    tag: str
    keyword: str
    name: str
    vr: str
    vm: str
    is_retired: bool
    ps3_15: str


@dataclass(frozen=True, slots=True)
class TableAnswer:
    """A table."""

    name: str
    schemas: tuple[str, ...]
    grain: str
    key: tuple[str, ...]
    means: str
    columns: tuple[Place, ...]
    relations: tuple[str, ...]
    join: tuple[str, ...]
    sql: tuple[str, ...]
    command: str
    kind: str = "table"


@dataclass(frozen=True, slots=True)
class ColumnAnswer:
    """A column or attribute, with every place where it is; no place: how to get at it all the same."""

    name: str
    places: tuple[Place, ...]
    attributes: tuple[AttributeFacts, ...]
    sql: tuple[str, ...]
    command: str
    join: tuple[str, ...] = ()
    creators: tuple[tuple[str, str], ...] = ()
    promotion: str = ""
    kind: str = "column"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing found by words."""

    kind: str
    name: str
    tables: tuple[str, ...]
    phi: str
    means: str


@dataclass(frozen=True, slots=True)
class WordsAnswer:
    """What was found by words, best first; nothing: names that are spelt similarly."""

    words: tuple[str, ...]
    lines: tuple[Line, ...]
    corrected: dict[str, str] = field(default_factory=dict)
    nearest: tuple[str, ...] = ()
    kind: str = "words"


Answer = TableAnswer | ColumnAnswer | WordsAnswer


def answer(text: str) -> Answer:
    """What a table, ``table.column``, column, tag, keyword or some words mean; without any text all tables."""
    text = text.strip()
    if not text or text.lower() in (*registry.SCHEMA_LAKES, *registry.SCHEMA_LAKES.values()):
        return WordsAnswer((), tuple(_line("table", table.name) for table in _tables_in(text.lower())))
    return _by_tag(text) or _by_name(text) or _by_keyword(text) or _by_words(text)


def is_found(found: Answer) -> bool:
    """Whether anything is known by that name or those words."""
    return not isinstance(found, WordsAnswer) or bool(found.lines)


def as_json(found: Answer) -> str:
    """An answer for machines."""
    return json.dumps(asdict(found), indent=2, ensure_ascii=False)


def _tables_in(name: str) -> list[Table]:
    """The tables of a schema or lake, or all."""
    schemas = {schema for schema, lake in registry.SCHEMA_LAKES.items() if name in {"", schema, lake}}
    return [table for table in registry.tables().values() if schemas.intersection(table.schemas)]


def _by_tag(text: str) -> TableAnswer | ColumnAnswer | None:
    tag = read_tag(text)
    return None if tag is None else _attribute_answer(tag, attribute(tag))


def _by_keyword(text: str) -> TableAnswer | ColumnAnswer | None:
    found = attribute_by_keyword(text.rpartition(".")[2].strip())
    return None if found is None else _attribute_answer(found.tag, found)


def _by_name(text: str) -> TableAnswer | ColumnAnswer | None:
    """A table or column, with or without lake, schema and table before it; words may stand for underscores."""
    parts = [part for part in "_".join(text.lower().split()).split(".") if part]
    while parts and parts[0] in (*registry.SCHEMA_LAKES, *registry.SCHEMA_LAKES.values()):
        parts = parts[1:]
    if len(parts) == 1:
        table = _table(parts[0])
        name = next((name for name in search.columns_by_name() if name.lower() == parts[0]), None)
        columns = search.columns_by_name()[name] if name else []
        if columns and columns[0][0].is_view and attribute_by_keyword(text) is not None:
            return None  # a view that names its columns as DICOM does; the attribute says more
        if name is not None and table is None:
            return _column_answer(name, columns)
        return None if table is None else _table_answer(table)
    if len(parts) == 2 and (table := _table(parts[0])) is not None:
        columns = [(table, column) for column in table.columns if column.name.lower() == parts[1]]
        return _column_answer(columns[0][1].name, columns) if columns else None
    return None


def _table(name: str) -> Table | None:
    """A table by its name, also without ``dicom_`` when no table has a column named so."""
    if name in registry.tables():
        return registry.table(name)
    columns = search.columns_by_name().get(name, [])
    return registry.tables().get(f"dicom_{name}") if all(table.is_view for table, _ in columns) else None


def _by_words(text: str) -> WordsAnswer:
    found = search.find(text)
    lines = tuple(_line(hit.kind, hit.name) for hit in found.hits)
    near = () if lines else tuple(search.nearest(text))
    return WordsAnswer(found.words, lines, found.corrected, near)


def _line(kind: str, name: str) -> Line:
    if kind == "attribute":
        found = attribute(name)
        assert found is not None
        return Line(kind, found.keyword, (), "", f"{found.name} {spell(name)}: no column, ask dicom_element")
    if kind == "table":
        table = registry.table(name)
        return Line(kind, name, tuple(f"{schema}.{name}" for schema in table.schemas), "", table.description)
    places = search.columns_by_name()[name]
    phi = next((column.phi for _, column in places if column.phi != "none"), "none")
    means = next((text for table, column in places if (text := meaning(table, column))), "")
    return Line(kind, name, tuple(table.name for table, _ in places), phi, means)


def _table_answer(table: Table) -> TableAnswer:
    example = queries.rows_of(table)
    schema = queries.schema_for(table, has_phi=False)
    return TableAnswer(
        name=table.name,
        schemas=table.schemas,
        grain=table.grain,
        key=table.key,
        means=table.description,
        columns=tuple(_place(table, column) for column in table.columns),
        relations=tuple(str(relation) for relation in joins.relations(schema, table.name)),
        join=tuple(joins.join_sql(schema, table.name)),
        sql=example.sql,
        command=example.command,
    )


def _column_answer(name: str, columns: list[tuple[Table, Column]]) -> ColumnAnswer:
    tags = dict.fromkeys(tag for table, column in columns for tag in tags_of(table, column))
    known = [found for tag in tags if (found := attribute(tag)) is not None]
    return _answer_of(name, columns, known)


def _attribute_answer(tag: str, known: Attribute | None) -> TableAnswer | ColumnAnswer:
    table_of_items = next((table for table in registry.tables().values() if item_tag(table) == tag), None)
    if table_of_items is not None:
        return _table_answer(table_of_items)
    columns = [
        (table, column)
        for table in registry.tables().values()
        for column in table.columns
        if without_block(tag) in tags_of(table, column)
    ]
    columns.sort(key=lambda place: place[1].tag != tag)  # those that show it alone and at the top level come first
    name = spell(tag) if known is None else f"{spell(tag)} {known.keyword}".strip()
    if columns:
        return _answer_of(name, columns, [known] if known is not None else [])
    facts = _facts(known or Attribute(tag, "", "", "", "", is_retired=False))
    creators = tuple(private_names(tag)) if is_private(tag) else ()
    example = queries.elements_of(tag, facts.vr, is_listed=bool(facts.ps3_15))
    return ColumnAnswer(
        name=name,
        places=(),
        attributes=(facts,),
        sql=example.sql,
        command=example.command,
        creators=creators,
        promotion=queries.site_column(tag, known, facts.ps3_15, next((name for name, _ in creators), "")),
        kind="attribute",
    )


def _answer_of(name: str, columns: list[tuple[Table, Column]], known: Iterable[Attribute]) -> ColumnAnswer:
    table, column = columns[0]
    example = queries.values_of(table, column)
    schema = queries.schema_for(table, has_phi=column.phi != "none")
    return ColumnAnswer(
        name=name,
        places=tuple(_place(table, column) for table, column in columns),
        attributes=tuple(_facts(found) for found in known),
        sql=example.sql,
        command=example.command,
        join=tuple(joins.join_sql(schema, table.name)),
    )


def _place(table: Table, column: Column) -> Place:
    return Place(
        table=table.name,
        column=column.name,
        schemas=table.schemas,
        type=column.type,
        unit=column.unit,
        is_key=column.is_key,
        is_required=column.is_required,
        keyword=column.keyword,
        tag=spell_path(path_of(table, column)),
        attribute_type=column.attribute_type,
        phi=column.phi,
        ps3_15=column.ps3_15,
        means=meaning(table, column),
    )


def _facts(found: Attribute) -> AttributeFacts:
    row = load_table().row(int(found.tag.replace("x", "0"), 16))
    action = "" if row is None else row.basic_profile
    return AttributeFacts(found.tag, found.keyword, found.name, found.vr, found.vm, found.is_retired, action)
