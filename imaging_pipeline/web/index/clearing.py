"""Which studies of the research side are shown: those of which every row comes of a batch that passed its checks.

A batch's rows stand in the lake before its checks have run, and stay there when one fails (`deid.clearance`). A study
is shown whole or not at all: what its patient, its series or one of its objects says may be what a check objects to.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence

import pyarrow as pa

from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.made_objects import source_batch

_MADE_OF = """
SELECT study_key, arrival_batch FROM {schema}.dicom_study
UNION ALL
SELECT study.study_key, patient.arrival_batch
FROM {schema}.dicom_study AS study JOIN {schema}.dicom_patient AS patient USING (patient_key)
UNION ALL
SELECT study_key, arrival_batch FROM {schema}.dicom_series
UNION ALL
SELECT series.study_key, place.arrival_batch
FROM {schema}.dicom_file_location AS place JOIN {schema}.dicom_series AS series USING (series_key)
"""
"""Studies, and the batches that their rows are of."""

_BASE = source_batch("arrival_batch")

SHOWN_DEVICES = f"{source_batch('dicom_equipment.arrival_batch')} IN (SELECT batch FROM cleared_batches)"
"""A condition: what is said of a device may come of another patient's batch."""


_SHOWS_OF = """
UNION ALL
SELECT series.study_key, equipment.arrival_batch
FROM {schema}.dicom_series AS series JOIN {schema}.series_equipment AS used USING (series_key)
JOIN {schema}.dicom_equipment AS equipment ON equipment.equipment_key = used.equipment_key
"""
"""And the batches that what is said of their devices is of: left out until these have passed, and hides no study."""


def cleared_batches(connection: sqlite3.Connection) -> frozenset[str]:
    """The batches that had passed when the index was last brought up to date."""
    return frozenset(batch for (batch,) in connection.execute("SELECT batch FROM cleared"))


def keep_cleared(connection: sqlite3.Connection, batches: Collection[str]) -> None:
    """Remember them."""
    connection.execute("DELETE FROM cleared")
    connection.executemany("INSERT INTO cleared VALUES (?)", [(batch,) for batch in sorted(batches)])


def studies_of(lake: Lake, schema: str, batches: Collection[str]) -> set[str]:
    """Keys of the studies that have a row of these batches, or show one of a device."""
    sql = f"""SELECT DISTINCT study_key FROM ({(_MADE_OF + _SHOWS_OF).format(schema=schema)})
        WHERE {_BASE} IN (SELECT unnest(?::VARCHAR[]))"""
    return {str(key) for (key,) in lake.rows(sql, [sorted(batches)])} if batches else set()


def held_studies(
    lake: Lake, schema: str, batches: Collection[str], where: str, parameters: Sequence[object] = ()
) -> pa.Table:
    """Those of the studies under a condition that have a row of any other batch: ``study_key``."""
    sql = f"""SELECT DISTINCT study_key FROM ({_MADE_OF.format(schema=schema)})
        WHERE {where} AND {_BASE} NOT IN (SELECT unnest(?::VARCHAR[]))"""
    return lake.query(sql, [*parameters, sorted(batches)])


def batches_of(lake: Lake, schema: str, where: str) -> pa.Table:
    """The batches that the studies under a condition have rows of: ``study_key``, ``batch``."""
    return lake.query(
        f"SELECT DISTINCT study_key, {_BASE} AS batch FROM ({_MADE_OF.format(schema=schema)}) WHERE {where}"
    )
