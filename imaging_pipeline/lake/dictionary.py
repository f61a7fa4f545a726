"""The registry in words: the reference page of all tables and columns."""

from __future__ import annotations

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.registry import CODE_TYPE, Column, Table

_INTRODUCTION = """# Tables

Made from the registry (`imaging_pipeline/lake/data`) by `make docs`; do not edit.

Schemas `bronze` and `silver` are in the identified lake, `deid` and `gold` in the research lake. A table that is in
both `silver` and `deid` has the same columns on both sides. **PHI** says what a column may hold on the identified
side; *action* is that of the PS3.15 Basic Profile. `CODE` is a coded concept (PS3.3 Table 8.8-1).
"""


def reference_page() -> str:
    """Markdown of all tables, deterministic."""
    return "\n".join([_INTRODUCTION, *(_section(table) for table in registry.tables().values())])


def _section(table: Table) -> str:
    names = ", ".join(f"`{schema}.{table.name}`" for schema in table.schemas)
    key = "`, `".join(table.key)
    head = f"## {table.name}\n\n{names}. {table.description} **Grain:** {table.grain}. **Key:** `{key}`.\n"
    rows = [_row(column) for column in table.columns]
    return "\n".join([head, "| column | type | attribute | PHI | action | |", "|---|---|---|---|---|---|", *rows, ""])


def _row(column: Column) -> str:
    attribute = f"{column.keyword} {_tags(column.tag)}" if column.tag else ""
    required = "required; " if column.is_required else ""
    phi = "" if column.phi == "none" else column.phi
    kind = column.type.replace(CODE_TYPE, "CODE")
    cells = (f"`{column.name}`", kind, attribute, phi, column.ps3_15, required + column.description)
    return "| " + " | ".join(cells).rstrip("; ") + " |"


def _tags(path: str) -> str:
    return " ".join(f"({tag[:4]},{tag[4:]})" for tag in path.split("."))
