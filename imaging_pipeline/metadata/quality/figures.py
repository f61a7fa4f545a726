"""The figures of the quality page: what came from where, what is wrong, how complete headers are. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.lake.table import Column, Table
from imaging_pipeline.metadata.quality.evaluation import Finding, Scope, evaluate
from imaging_pipeline.metadata.quality.rules import all_rules

CODE_VERSION = "quality-1"
"""Raise it when the same tables would give another page."""

Cells = list[tuple[object, ...]]

_JUDGED = ("1", "1C", "2", "2C")
_UNSTATED = "not stated"


@dataclass(frozen=True, slots=True)
class Completeness:
    """How often an attribute has a value.

    Attributes:
        table: table of the column.
        column: the column of the attribute.
        filled: by modality, rows with a value and rows in all.
    """

    table: str
    column: Column
    filled: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Quality:
    """All that the page tells of a batch, or of everything.

    Attributes:
        batch_id: the batch; None: all.
        made_at: when it was looked at (UTC).
        by_source: source, objects, read, failed, no DICOM, vanished, patients, studies, series, instances.
        released: patients, studies, series and instances on the research side, tensors; None: not looked at.
        findings: of every rule.
        issues: stage, severity, code, objects, what one of them says.
        completeness: of the attributes of type 1 and 2, conditional ones too.
        invalid: manufacturer, elements that were looked at, those that are not legal.
        uids: UIDs of the series, studies and instances that findings name, by key. The identified side only.
    """

    batch_id: str | None
    made_at: datetime
    by_source: Cells
    released: tuple[object, ...] | None
    findings: list[Finding]
    issues: Cells
    completeness: list[Completeness]
    invalid: Cells
    uids: Mapping[str, str]


def look_at_quality(identified: Lake, research: Lake | None = None, batch_id: str | None = None) -> Quality:
    """Look at every rule and count everything, of one batch or of all.

    Args:
        identified: the identified lake.
        research: the research lake, where what was released is to be counted too.
        batch_id: the batch; None: all.
    """
    scope = Scope(identified, "silver", batch_id)
    findings = evaluate(scope, all_rules("silver"))
    return Quality(
        batch_id=batch_id,
        made_at=datetime.now(UTC).replace(microsecond=0),
        by_source=identified.rows(scope.sql(_BY_SOURCE)),
        released=research.rows(Scope(research, "deid", batch_id).sql(_RELEASED))[0] if research else None,
        findings=findings,
        issues=identified.rows(scope.sql(_ISSUES)),
        completeness=_completeness(scope),
        invalid=identified.rows(scope.sql(_INVALID)),
        uids=_uids(identified, findings),
    )


def _completeness(scope: Scope) -> list[Completeness]:
    tables = [table for table in registry.tables_of("silver") if table.made_from and not table.is_view]
    return [found for table in tables for found in _of_table(scope, table)]


def _of_table(scope: Scope, table: Table) -> Iterable[Completeness]:
    columns = [c for c in table.columns if c.attribute_type in _JUDGED and not c.is_required]
    if not columns or table.key[0] not in _TO_MODALITY:
        return ()
    filled = ", ".join(f"count(entity.{column.name})" for column in columns)
    rows = scope.lake.rows(
        scope.sql(
            f"""SELECT coalesce(series.modality, '{_UNSTATED}') AS used_for, count(*), {filled}
            FROM {{own.{table.name}}} AS entity {_TO_MODALITY[table.key[0]]} GROUP BY ALL ORDER BY ALL"""
        )
    )
    return [
        Completeness(table.name, column, {str(row[0]): (int(str(row[number])), int(str(row[1]))) for row in rows})
        for number, column in enumerate(columns, 2)
        if rows
    ]


def _uids(lake: Lake, findings: Iterable[Finding]) -> dict[str, str]:
    """The UIDs of what is named by key."""
    named: dict[str, set[str]] = {}
    for finding in findings:
        for offender in finding.offenders:
            for name, value in offender.items():
                if name.endswith("_key") and isinstance(value, str):
                    named.setdefault(name.removeprefix("other_"), set()).add(value)
    found: dict[str, str] = {}
    for key, table, uid in _NAMES:
        if key in named:
            sql = f"SELECT {key}, {uid} FROM silver.{table} WHERE {key} IN (SELECT unnest(?))"
            found |= {str(k): str(v) for k, v in lake.rows(sql, [sorted(named[key])])}
    return found


_NAMES = (
    ("instance_key", "dicom_instance", "sop_instance_uid"),
    ("series_key", "dicom_series", "series_instance_uid"),
    ("study_key", "dicom_study", "study_instance_uid"),
)

_TO_MODALITY: Mapping[str, str] = {
    "instance_key": """JOIN {own.dicom_instance} AS instance ON instance.instance_key = entity.instance_key
        JOIN {all.dicom_series} AS series ON series.series_key = instance.series_key""",
    "series_key": "JOIN {all.dicom_series} AS series ON series.series_key = entity.series_key",
    "study_key": """JOIN (SELECT DISTINCT study_key, modality FROM {all.dicom_series}) AS series
        ON series.study_key = entity.study_key""",
    "patient_key": """JOIN (
        SELECT DISTINCT patient_key, modality FROM {all.dicom_study} JOIN {all.dicom_series} USING (study_key)
        ) AS series ON series.patient_key = entity.patient_key""",
    "equipment_key": """JOIN (
        SELECT DISTINCT equipment_key, modality FROM {all.series_equipment} JOIN {all.dicom_series} USING (series_key)
        ) AS series ON series.equipment_key = entity.equipment_key""",
}
"""From the first column of a table's key to the modality. A patient with images of two counts with both."""

_BY_SOURCE = """
WITH object AS (
    SELECT source_name, count(*) AS objects,
        count(*) FILTER (parse_status IN ('PARSED', 'PARSED_WITH_ISSUES')) AS parsed,
        count(*) FILTER (parse_status = 'FAILED') AS failed, count(*) FILTER (parse_status = 'SKIPPED') AS skipped,
        count(*) FILTER (deleted_at IS NOT NULL) AS vanished
    FROM {own.object_catalog} GROUP BY ALL
), placed AS (
    SELECT ingestion_source AS source_name, count(DISTINCT patient_key) AS patients,
        count(DISTINCT study_key) AS studies, count(DISTINCT series_key) AS series,
        count(DISTINCT instance_key) FILTER (role IN ('ORIGINAL', 'COPY')) AS instances
    FROM {own.dicom_file_location} GROUP BY ALL
)
SELECT source_name, objects, parsed, failed, skipped, vanished, coalesce(patients, 0), coalesce(studies, 0),
    coalesce(series, 0), coalesce(instances, 0)
FROM object LEFT JOIN placed USING (source_name) ORDER BY source_name
"""

_RELEASED = """
SELECT (SELECT count(DISTINCT patient_key) FROM {own.dicom_file_location}),
    (SELECT count(DISTINCT study_key) FROM {own.dicom_file_location}),
    (SELECT count(DISTINCT series_key) FROM {own.dicom_file_location}),
    (SELECT count(*) FROM {own.dicom_instance}),
    (SELECT count(*) FROM {own.image_tensor})
"""

_ISSUES = """
SELECT stage, severity, issue_code, count(DISTINCT object_key) AS objects, mode(message)
FROM {own.ingest_issue} GROUP BY ALL ORDER BY severity, objects DESC, issue_code, stage
"""

_INVALID = """
SELECT coalesce(manufacturer_normalized, 'not stated') AS maker, count(*), count(*) FILTER (NOT is_valid) AS illegal
FROM {own.dicom_element} AS element
JOIN {own.dicom_file_location} AS location ON location.instance_key = element.instance_key
    AND location.row_version = element.row_version
LEFT JOIN {all.dicom_equipment} AS equipment ON equipment.equipment_key = location.equipment_key
WHERE is_valid IS NOT NULL GROUP BY ALL ORDER BY illegal DESC, maker
"""
