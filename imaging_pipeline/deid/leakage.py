"""Does an identifier of the identified lake stand anywhere in research tables?

A second look after the engine's own screen, from the other end: original values as silver knows them against
every text column of the research rows of the same batch, before they are written and again as a check.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa

from imaging_pipeline.deid.engine import IMPLEMENTATION_CLASS_UID, OWN_TEXTS
from imaging_pipeline.deid.pseudonyms import is_standard_uid
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.registry import Table
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.silver import ENTITY_TABLES

SHORTEST_IDENTIFIER = 4
"""Shorter texts ("A", "12") are met by chance in any table."""

_IDENTIFIED_CLASSES = frozenset({"direct", "uid"})

_OWN_COLUMNS = frozenset(
    {
        "patient_domain", "source_system", "role", "storage_provider", "version_state", "purpose_of_reference",
        "profile_id", "profile_version", "stage", "severity", "issue_code", "message", "subject_level", "task",
        "label_value", "source", "dtype", "predicted_label", "model_name", "model_version", "action", "state",
    }
)  # fmt: skip
"""Columns of the research side that hold words of this software, never a value of an object."""


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
        for column, values in _texts(rows):
            if column in _OWN_COLUMNS:
                continue
            suspects = [value for value in values if _folded(value) in originals]
            if suspects and column in _kept_columns(table):
                kept = _values(identified, table, column, batch_id)
                suspects = [value for value in suspects if _folded(value) not in kept]
            if suspects:
                found[f"{table_name}.{column}"] = len(suspects)
    return found


def research_rows(research: Lake, batch_id: str) -> dict[str, pa.Table]:
    """All research rows of a batch, by table name."""
    return {
        table.name: research.query(f"SELECT * FROM {schema}.{table.name} WHERE arrival_batch = ?", [batch_id])
        for schema in ("deid", "gold")
        for table in registry.tables_of(schema)
        if any(column.name == "arrival_batch" for column in table.columns)
    }


def _originals(identified: Lake, batch_id: str) -> frozenset[str]:
    """Upper-cased identifiers of the batch, well-known UIDs (SOP classes, transfer syntaxes) left out."""
    values: set[str] = set()
    for table in map(registry.table, ENTITY_TABLES):
        columns = [c.name for c in table.columns if c.phi in _IDENTIFIED_CLASSES and c.type in ("VARCHAR", "VARCHAR[]")]
        if not columns:
            continue
        rows = identified.query(
            f"SELECT {', '.join(columns)} FROM silver.{table.name} WHERE {_OF_BATCH[table.key[0]]}", [batch_id]
        )
        for _, texts in _texts(rows):
            values.update(_folded(text) for text in texts)
    values -= {_folded(text) for text in (*OWN_TEXTS, IMPLEMENTATION_CLASS_UID)}
    return frozenset(v for v in values if len(v) >= SHORTEST_IDENTIFIER and not is_standard_uid(v))


def _kept_columns(table: Table) -> frozenset[str]:
    """Columns mirroring an attribute on which the Basic Profile does not act."""
    return frozenset(column.name for column in table.columns if column.tag and column.phi == "none")


def _values(lake: Lake, table: Table, column: str, batch_id: str) -> frozenset[str]:
    rows = lake.query(f"SELECT {column} FROM silver.{table.name} WHERE {_OF_BATCH[table.key[0]]}", [batch_id])
    return frozenset(_folded(value) for _, values in _texts(rows) for value in values)


def _folded(text: str) -> str:
    return text.strip().upper()


def _texts(rows: pa.Table) -> Iterator[tuple[str, list[str]]]:
    for name in rows.column_names:
        column = rows[name].combine_chunks()
        if pa.types.is_list(column.type):
            column = column.flatten()
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            yield name, [value for value in column.to_pylist() if value]
