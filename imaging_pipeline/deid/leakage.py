"""Does an identifier of the identified lake stand anywhere in research tables?

A second look after the engine's own screen, from the other end: original values as silver knows them against
every text column of the research rows of the same batch, before they are written and again as a check.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping

import pyarrow as pa

from imaging_pipeline.deid.engine import IMPLEMENTATION_CLASS_UID, METHOD_CODES, OWN_TEXTS
from imaging_pipeline.deid.pseudonyms import is_standard_uid
from imaging_pipeline.deid.table import load_table as ps315_table
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.registry import Column, Table
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.silver import ENTITY_TABLES

_ELEMENT_VALUES = ("dicom_element", "value_string")
"""The column that holds values of every attribute: looked at attribute by attribute."""

SHORTEST_IDENTIFIER = 4
"""Shorter texts ("A", "12") are met by chance in any table."""

_IDENTIFIED_CLASSES = frozenset({"direct", "uid"})

_OWN_COLUMNS = frozenset(
    {
        "patient_domain", "source_system", "role", "storage_provider", "version_state", "purpose_of_reference",
        "profile_id", "profile_version", "stage", "severity", "issue_code", "message", "subject_level", "task",
        "label_value", "source", "dtype", "predicted_label", "model_name", "model_version", "action", "state",
        "annotation_source", "element_path", "geometric_types", "ingestion_source", "item_path", "keyword",
        "manufacturer_normalized", "modalities_in_study", "node_path", "orientation_plane", "parent_item_path",
        "parent_node_path", "private_creator", "sequence_path", "sop_class_name", "tag_hex", "vr",
    }
)  # fmt: skip
"""Derived columns of the research side that hold words of this software or of the standard.

A column that mirrors an attribute is never one of them, whatever its name: it holds what the object says.
"""

_TEXT_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UR", "UT"})
"""Representations that can hold an identifier. A shifted date looks like somebody's number by chance."""


_UIDS = "SELECT uid_key FROM silver.dicom_file_location WHERE arrival_batch = $1"
_LOCATIONS = f"SELECT instance_key FROM silver.dicom_file_location WHERE uid_key IN ({_UIDS})"
_SERIES = f"SELECT series_key FROM silver.dicom_instance WHERE instance_key IN ({_LOCATIONS})"
_STUDIES = f"SELECT study_key FROM silver.dicom_series WHERE series_key IN ({_SERIES})"
_PATIENTS = f"SELECT patient_key FROM silver.dicom_study WHERE study_key IN ({_STUDIES})"
_EQUIPMENT = f"SELECT equipment_key FROM silver.series_equipment WHERE series_key IN ({_SERIES})"

_OF_BATCH: Mapping[str, str] = {
    "patient_key": f"arrival_batch = $1 OR patient_key IN ({_PATIENTS})",
    "study_key": f"arrival_batch = $1 OR study_key IN ({_STUDIES})",
    "series_key": f"arrival_batch = $1 OR series_key IN ({_SERIES})",
    "instance_key": f"arrival_batch = $1 OR instance_key IN ({_LOCATIONS})",
    "equipment_key": f"arrival_batch = $1 OR equipment_key IN ({_EQUIPMENT})",
    "location_key": "arrival_batch = $1",
}
"""Rows of silver a batch is about, by key; a shared row may be marked with a later batch."""


def count_leaks(identified: Lake, tables: Mapping[str, pa.Table], batch_id: str) -> dict[str, int]:
    """Cells that equal an identifier of the batch's patients, by table and column; empty is clean.

    A column that the profile keeps may hold what the same column of silver holds, even when it is somebody's name
    (a station called like a model, a patient called UNKNOWN); anything else there is a leak. The words this software
    writes itself are none: a patient called DEIDENTIFIED must not hold a batch.

    Args:
        identified: where the originals are.
        tables: research rows of the batch, by table name.
        batch_id: the batch.
    """
    originals = _originals(identified, batch_id)
    found: dict[str, int] = {}
    for table_name, rows in tables.items():
        table = registry.table(table_name)
        mirrored = {column.name for column in table.columns if column.tag}
        for column, values in _texts(rows):
            is_own = column in _OWN_COLUMNS and column not in mirrored
            if is_own or (table_name, column) == _ELEMENT_VALUES:
                continue
            suspects = [value for value in values if _folded(value) in originals]
            if suspects and column in _kept_columns(table):
                kept = _values(identified, table, column, batch_id)
                suspects = [value for value in suspects if _folded(value) not in kept]
            if suspects:
                place = f"{table_name}.{column}"
                found[place] = found.get(place, 0) + len(suspects)
    if elements := _leaking_elements(identified, tables, batch_id, originals):
        found[".".join(_ELEMENT_VALUES)] = elements
    return found


def research_rows(research: Lake, batch_id: str) -> dict[str, pa.Table]:
    """All research rows of a batch, by table name."""
    return {
        table.name: research.query(f"SELECT * FROM {schema}.{table.name} WHERE arrival_batch = ?", [batch_id])
        for schema in ("deid", "gold")
        for table in registry.tables_of(schema)
        if any(column.name == "arrival_batch" for column in table.columns)
    }


def _leaking_elements(
    identified: Lake, tables: Mapping[str, pa.Table], batch_id: str, originals: frozenset[str]
) -> int:
    """Values of ``dicom_element`` that are an identifier; an attribute the Basic Profile keeps may say what it said."""
    table, column = _ELEMENT_VALUES
    if table not in tables:
        return 0
    rows = tables[table].select(["tag_hex", "vr", column]).to_pydict()
    suspects = [
        (tag, _folded(part))
        for tag, vr, value in zip(rows["tag_hex"], rows["vr"], rows[column], strict=True)
        if value and vr in _TEXT_VRS
        for part in re.split(r"[\\=]", value)
        if _folded(part) in originals
    ]
    if not suspects:
        return 0
    kept_tags = {tag for tag, _ in suspects if "x" not in tag and ps315_table().row(int(tag, 16)) is None}
    kept = _header_values(identified, kept_tags, batch_id) if kept_tags else frozenset()
    return sum(suspect not in kept for suspect in suspects)


def _header_values(identified: Lake, tags: Collection[str], batch_id: str) -> frozenset[tuple[str, str]]:
    """What the original headers of the batch say under some tags, at any depth."""
    rows = identified.query(
        f"""SELECT header_json::VARCHAR AS header_json FROM bronze.dicom_header WHERE object_key IN (
            SELECT object_key FROM silver.dicom_file_location WHERE arrival_batch = $1 OR uid_key IN ({_UIDS}))""",
        [batch_id],
    )
    found: set[tuple[str, str]] = set()
    for header in rows["header_json"].to_pylist():
        waiting = [json.loads(header)]
        while waiting:
            for tag, element in waiting.pop().items():
                for value in element.get("Value") or ():
                    if element["vr"] == "SQ" and isinstance(value, dict):
                        waiting.append(value)
                    elif tag in tags:
                        found.update((tag, _folded(part)) for part in re.split(r"[\\=]", str(value)))
    return frozenset(found)


def _originals(identified: Lake, batch_id: str) -> frozenset[str]:
    """Upper-cased identifiers of the batch, well-known UIDs (SOP classes, transfer syntaxes) left out."""
    values: set[str] = set()
    for table in map(registry.table, ENTITY_TABLES):
        columns = [c.name for c in table.columns if c.phi in _IDENTIFIED_CLASSES and "VARCHAR" in c.type]
        if not columns:
            continue
        rows = identified.query(
            f"SELECT {', '.join(map(_quoted, columns))} FROM silver.{table.name} WHERE {_OF_BATCH[table.key[0]]}",
            [batch_id],
        )
        for _, texts in _texts(rows):
            values.update(_folded(text) for text in texts)
    values -= {_folded(text) for text in (*OWN_TEXTS, *METHOD_CODES, *METHOD_CODES.values(), IMPLEMENTATION_CLASS_UID)}
    return frozenset(v for v in values if len(v) >= SHORTEST_IDENTIFIER and not is_standard_uid(v))


def _kept_columns(table: Table) -> frozenset[str]:
    """Columns mirroring an attribute on which the Basic Profile does not act, and codes taken from such ones."""
    return frozenset(column.name for column in table.columns if column.phi == "none" and _is_kept(column))


def _is_kept(column: Column) -> bool:
    """By the standard's own table: a site may have declared its column to hold nothing."""
    if "xx" in column.tag:
        return False
    tags = re.findall(r"[0-9A-F]{8}", column.tag)
    return bool(tags or column.type.startswith("CODE")) and all(
        ps315_table().row(int(tag, 16)) is None for tag in tags[-1:]
    )


def _values(lake: Lake, table: Table, column: str, batch_id: str) -> frozenset[str]:
    rows = lake.query(f"SELECT {_quoted(column)} FROM silver.{table.name} WHERE {_OF_BATCH[table.key[0]]}", [batch_id])
    return frozenset(_folded(value) for _, values in _texts(rows) for value in values)


def _quoted(column: str) -> str:
    return f'"{column}"'


def _folded(text: str) -> str:
    return text.strip().upper()


def _texts(rows: pa.Table) -> Iterator[tuple[str, list[str]]]:
    for name in rows.column_names:
        for array in _leaves(rows[name].combine_chunks()):
            if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
                yield name, [text for value in array.to_pylist() if value for text in _texts_in(value)]


def _texts_in(value: str) -> list[str]:
    """A text, or the texts in a JSON document."""
    if value[0] not in "[{":
        return [value]
    try:
        waiting = [json.loads(value)]
    except ValueError:
        return [value]
    found = [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, str):
            found.append(inner)
        elif isinstance(inner, dict | list):
            waiting += inner.values() if isinstance(inner, dict) else inner
    return found


def _leaves(array: pa.Array) -> Iterator[pa.Array]:
    """The array itself, or those of what its lists and structures hold."""
    if pa.types.is_list(array.type):
        yield from _leaves(array.flatten())
    elif pa.types.is_struct(array.type):
        for part in array.flatten():
            yield from _leaves(part)
    else:
        yield array
