"""Does an identifier of the identified lake stand anywhere in research tables?

A second look after the engine's own screen, from the other end: original values as silver knows them against
every text column of the research rows of the same batch, before they are written and again as a check.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property

import pyarrow as pa

from imaging_pipeline.deid.engine import IMPLEMENTATION_CLASS_UID, METHOD_CODES, OWN_TEXTS
from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.pseudonyms import is_standard_uid
from imaging_pipeline.deid.rules import Rules
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
        "topic", "subject", "detail", "key_id", "claimed_options", "warnings", "flag", "no_answer_reason",
        "annotation_source", "element_path", "geometric_types", "ingestion_source", "item_path", "keyword",
        "kind", "manufacturer_normalized", "modalities_in_study", "node_path", "orientation_plane", "parent_item_path",
        "parent_node_path", "private_creator", "quality", "sequence_path", "sop_class_name", "tag_hex", "vr",
    }
)  # fmt: skip
"""Derived columns of the research side that hold words of this software or of the standard.

A column that mirrors an attribute is never one of them, whatever its name: it holds what the object says.
"""

_TEXT_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UR", "UT"})
"""Representations that can hold an identifier. A shifted date looks like somebody's number by chance."""


_UIDS = "SELECT uid_key FROM silver.dicom_file_location WHERE arrival_batch = $1"

_KEYS_OF_BATCH: Mapping[str, str] = {
    "instance_key": f"SELECT instance_key FROM silver.dicom_file_location WHERE uid_key IN ({_UIDS})",
    "series_key": "SELECT series_key FROM silver.dicom_instance WHERE instance_key IN (FROM temp.leak_instance_key)",
    "study_key": "SELECT study_key FROM silver.dicom_series WHERE series_key IN (FROM temp.leak_series_key)",
    "patient_key": "SELECT patient_key FROM silver.dicom_study WHERE study_key IN (FROM temp.leak_study_key)",
    "equipment_key": """SELECT equipment_key FROM silver.series_equipment
        WHERE series_key IN (FROM temp.leak_series_key)""",
}
"""What a batch is about, by key, each from those before it; a shared row may be marked with a later batch."""


def count_leaks(
    identified: Lake, tables: Mapping[str, pa.Table], batch_id: str, profile: Profile | None = None
) -> dict[str, int]:
    """Cells that equal an identifier of the batch's patients, by table and column; empty is clean.

    A column that the profile keeps may hold what the same column of silver holds, even when it is somebody's name
    (a station called like a model, a patient called UNKNOWN); anything else there is a leak. The words this software
    writes itself are none: a patient called DEIDENTIFIED must not hold a batch.

    Args:
        identified: where the originals are.
        tables: research rows of the batch, by table name.
        batch_id: the batch.
        profile: the profile the rows were released under; None: the Basic Profile without any option.
    """
    with identified.one_snapshot():
        return _leaks(_Originals(identified, batch_id), tables, Rules(profile) if profile else None)


def leaks_by_object(
    identified: Lake, rows: Iterable[tuple[str, Mapping[str, pa.Table]]], batch_id: str, profile: Profile
) -> dict[str, dict[str, int]]:
    """What `count_leaks` counts, for each object by itself; those that are clean are left out.

    Args:
        identified: where the originals are.
        rows: research rows of single objects, each with the key to name it by.
        batch_id: the batch.
        profile: the profile the rows were released under.
    """
    rules = Rules(profile)
    with identified.one_snapshot():
        known = _Originals(identified, batch_id)
        found = ((key, _leaks(known, tables, rules)) for key, tables in rows)
        return {key: leaks for key, leaks in found if leaks}


def _leaks(known: _Originals, tables: Mapping[str, pa.Table], rules: Rules | None) -> dict[str, int]:
    originals = known.identifiers
    found: dict[str, int] = {}
    for table_name, rows in tables.items():
        table = registry.table(table_name)
        mirrored = {column.name for column in table.columns if column.tag}
        for column, values in _texts(rows):
            is_own = column in _OWN_COLUMNS and column not in mirrored
            if is_own or (table_name, column) == _ELEMENT_VALUES:
                continue
            suspects = [value for value in values if _folded(value) in originals]
            if suspects and column in _kept_columns(table, rules):
                kept = known.values(table, column)
                suspects = [value for value in suspects if _folded(value) not in kept]
            if suspects:
                place = f"{table_name}.{column}"
                found[place] = found.get(place, 0) + len(suspects)
    if elements := _leaking_elements(known, tables, originals, rules):
        found[".".join(_ELEMENT_VALUES)] = elements
    return found


def research_rows(research: Lake, batch_id: str) -> dict[str, pa.Table]:
    """All research rows of a batch and of what was made of it, by table name; tables never written are left out.

    Objects made of others have the batch of their sources, and a kind behind it: ``B+KIND``.
    """
    with research.one_snapshot():
        written = research.written_tables()
        return {
            table.name: research.query(
                f"SELECT * FROM {schema}.{table.name} WHERE arrival_batch = $1 "
                "OR (arrival_batch >= $1 || '+' AND arrival_batch < $1 || ',')",  # a range, to skip files by
                [batch_id],
            )
            for schema in ("deid", "gold")
            for table in registry.tables_of(schema)
            if f"{schema}.{table.name}" in written and any(column.name == "arrival_batch" for column in table.columns)
        }


def _leaking_elements(
    known: _Originals, tables: Mapping[str, pa.Table], originals: frozenset[str], rules: Rules | None
) -> int:
    """Values of ``dicom_element`` that are an identifier; an attribute the profile keeps may say what it said."""
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
    kept_tags = {tag for tag, _ in suspects if "x" not in tag and _is_kept_tag(tag, rules)}
    kept = known.header_values(kept_tags) if kept_tags else frozenset()
    return sum(suspect not in kept for suspect in suspects)


class _Originals:
    """What silver knows of a batch and of all it belongs to; inside one snapshot."""

    def __init__(self, lake: Lake, batch_id: str) -> None:
        self._lake = lake
        self._batch_id = batch_id
        self._written = lake.written_tables()
        for key, sql in _KEYS_OF_BATCH.items():
            parameters = [batch_id] if "$1" in sql else []
            lake.connection.execute(f"CREATE OR REPLACE TEMP TABLE leak_{key} AS {sql}", parameters)

    @cached_property
    def identifiers(self) -> frozenset[str]:
        """Upper-cased identifiers of the batch, well-known UIDs (SOP classes, transfer syntaxes) left out."""
        values: set[str] = set()
        for table in map(registry.table, ENTITY_TABLES):
            columns = [c.name for c in table.columns if c.phi in _IDENTIFIED_CLASSES and "VARCHAR" in c.type]
            for _, texts in _texts(self._rows(table, columns)) if columns else ():
                values.update(_folded(text) for text in texts)
        values -= {
            _folded(text) for text in (*OWN_TEXTS, *METHOD_CODES, *METHOD_CODES.values(), IMPLEMENTATION_CLASS_UID)
        }
        return frozenset(v for v in values if len(v) >= SHORTEST_IDENTIFIER and not is_standard_uid(v))

    def values(self, table: Table, column: str) -> frozenset[str]:
        """What a column of silver says."""
        return frozenset(_folded(value) for _, values in _texts(self._rows(table, [column])) for value in values)

    def header_values(self, tags: Collection[str]) -> frozenset[tuple[str, str]]:
        """What the original headers say under some tags, at any depth."""
        rows = self._lake.query(
            f"""SELECT header_json::VARCHAR AS header_json FROM bronze.dicom_header WHERE object_key IN (
                SELECT object_key FROM silver.dicom_file_location WHERE arrival_batch = $1 OR uid_key IN ({_UIDS}))""",
            [self._batch_id],
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

    def _rows(self, table: Table, columns: list[str]) -> pa.Table:
        if f"silver.{table.name}" not in self._written:
            return pa.table({})
        key = table.key[0]
        also = f" OR {key} IN (FROM temp.leak_{key})" if key in _KEYS_OF_BATCH else ""
        names = ", ".join(f'"{column}"' for column in columns)
        return self._lake.query(
            f"SELECT {names} FROM silver.{table.name} WHERE arrival_batch = $1{also}", [self._batch_id]
        )


def _kept_columns(table: Table, rules: Rules | None) -> frozenset[str]:
    """Columns mirroring an attribute that the profile keeps, and codes taken from such ones."""
    return frozenset(column.name for column in table.columns if _is_kept(column, rules))


def _is_kept(column: Column, rules: Rules | None) -> bool:
    """By the standard's own table and the profile: a site may have declared its column to hold nothing."""
    if "xx" in column.tag:
        return False
    tags = re.findall(r"[0-9A-F]{8}", column.tag)
    if tags and rules is not None and rules.keeps(int(tags[-1], 16)):
        return True
    is_plain = column.phi == "none" and bool(tags or column.type.startswith("CODE"))
    return is_plain and all(ps315_table().row(int(tag, 16)) is None for tag in tags[-1:])


def _is_kept_tag(tag: str, rules: Rules | None) -> bool:
    number = int(tag, 16)
    return ps315_table().row(number) is None or (rules is not None and rules.keeps(number))


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
