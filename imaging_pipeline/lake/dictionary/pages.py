"""The registry as pages: an index of all tables and one page for each schema, deterministic (``make docs``)."""

from __future__ import annotations

from pathlib import Path

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.dictionary.attributes import attribute, item_tag, meaning, spell, spell_attribute
from imaging_pipeline.lake.dictionary.joins import Relation, relations
from imaging_pipeline.lake.registry import CODE_TYPE, Column, Table

INDEX = "tables.md"
"""Name of the index page."""

_MADE = "Made from the registry (`imaging_pipeline/lake/data`) by `make docs`; do not edit."

_INTRODUCTION = f"""# Tables

{_MADE}

`bronze` and `silver` are in the identified lake, `deid` and `gold` in the research lake. A table that is in both
`silver` and `deid` has the same columns on both sides: the research rows are read from the released files.

`imaging-pipeline describe WORDS` searches all this: a table, a column, a tag in any spelling, a keyword or plain words
(`describe slice distance`). In SQL it is `silver.data_dictionary` and `deid.data_dictionary`.

How to read the pages:

- **Key** names one row. DuckLake does not enforce keys; merges keep them and checks prove them. A key column is
  marked ●, a column that is never empty ○.
- **Attribute** is the DICOM attribute a column shows, `A > B` for B within items of A, and *type* its type in its
  module (PS3.5 7.4: 1 must have a value, 2 may be empty, C: under a condition).
- **PHI** is what a column may hold on the identified side: `direct` identifiers, `quasi` identifiers, a `date`, a
  `uid`, free `text`. *Action* is what the PS3.15 Basic Profile does with the attribute: X removed, Z emptied, D
  replaced by a dummy, U replaced by another UID, C cleaned, K kept; nothing: not listed there.
- Units are written in UCUM. `CODE` is a coded concept (PS3.3 Table 8.8-1):
  `{CODE_TYPE}`.
"""

_SCHEMAS = {
    "bronze": "What was found: every object, its header as it was read, and what is wrong with it.",
    "silver": "The identified tables, made from the stored headers. `deid` has the same tables without identifiers.",
    "deid": "Made from the headers of released files, with the columns of [silver](silver.md).",
    "gold": "For learning: labels, tensors, datasets, models, predictions.",
}


def pages() -> dict[str, str]:
    """Markdown of all pages by file name."""
    return {INDEX: _index()} | {f"{schema}.md": _page(schema) for schema in registry.SCHEMA_LAKES}


def write_pages(folder: Path) -> None:
    """Write :func:`pages` to a folder."""
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def _index() -> str:
    parts = [_INTRODUCTION]
    for schema, lake in registry.SCHEMA_LAKES.items():
        parts.append(f"## {schema}\n\n{_SCHEMAS[schema]} In the {lake} lake.\n")
        if schema == "deid":
            own = [table for table in _tables_of(schema) if _home(table) == schema]
            shared = len(_tables_of(schema)) - len(own)
            parts.append(f"{shared} shared tables, and:\n")
            parts.append(_list(own))
        else:
            parts.append(_list(_tables_of(schema)))
    return "\n".join(parts)


def _tables_of(schema: str) -> list[Table]:
    """The tables this package ships, whatever a site has added."""
    return [table for table in registry.shipped_tables().values() if schema in table.schemas]


def _list(tables: list[Table]) -> str:
    rows = [f"| [{t.name}]({_home(t)}.md#{t.name}) | {_cell(t.grain)} | {_cell(t.description)} |" for t in tables]
    return "\n".join(["| table | grain | |", "|---|---|---|", *rows, ""])


def _page(schema: str) -> str:
    own = [table for table in _tables_of(schema) if _home(table) == schema]
    others = [table for table in _tables_of(schema) if _home(table) != schema]
    parts = [f"# Tables of {schema}\n\n{_MADE} How to read it: [all tables]({INDEX}).\n\n{_SCHEMAS[schema]}\n"]
    if others and schema != "deid":
        links = ", ".join(f"[{table.name}]({_home(table)}.md#{table.name})" for table in others)
        parts.append(f"Described elsewhere: {links}.\n")
    return "\n".join([*parts, *(_section(schema, table) for table in own)])


def _home(table: Table) -> str:
    """The schema on whose page a table is described."""
    return table.schemas[0]


def _section(schema: str, table: Table) -> str:
    names = ", ".join(f"`{each}.{table.name}`" for each in table.schemas)
    lines = [f"## {table.name}", "", f"{names}. {table.description}", "", f"- **Grain:** {table.grain}"]
    lines.append(f"- **Key:** {', '.join(f'`{name}`' for name in table.key)}")
    if made := _made_from(table):
        lines.append(f"- **Rows:** {made}")
    lines += [f"- **Joins:** {_join(relation)}" for relation in relations(schema, table.name)]
    header = ["", "| column | type | unit | attribute | type | PHI | action | |", "|---|---|---|---|---|---|---|---|"]
    return "\n".join([*lines, *header, *(_row(table, column) for column in table.columns), ""])


def _join(relation: Relation) -> str:
    columns, _, target = str(relation).partition(" → ")
    name = ".".join(relation.to_table)
    link = f"[{name}]({_home(registry.table(relation.to_table[1]))}.md#{relation.to_table[1]})"
    return f"`{columns}` → {target.replace(name, link, 1)}"


def _made_from(table: Table) -> str:
    found = attribute(item_tag(table)) if item_tag(table) else None
    if found is not None:
        one = f"one for each item of {found.keyword} {spell(found.tag)}"
        return f"{one}; without one, one for the object" if table.made_from.endswith("over object") else one
    return "a view" if table.made_from == "view" else ""


def _row(table: Table, column: Column) -> str:
    mark = " ●" if column.is_key else " ○" if column.is_required else ""
    shown = spell_attribute(column)
    phi = "" if column.phi == "none" else column.phi
    cells = (f"`{column.name}`{mark}", column.type, column.unit, shown, column.attribute_type, phi, column.ps3_15)
    return "| " + " | ".join(map(_cell, (*cells, meaning(table, column)))) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
