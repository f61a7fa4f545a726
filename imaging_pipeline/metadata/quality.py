"""Rules that silver must satisfy, as SQL that counts the rows breaking them. Reads, never writes."""

from __future__ import annotations

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake

_PARENTS = (
    ("dicom_study", "patient_key", "dicom_patient"),
    ("dicom_series", "study_key", "dicom_study"),
    ("dicom_instance", "series_key", "dicom_series"),
    ("dicom_image_pixel", "instance_key", "dicom_instance"),
    ("dicom_xray_acquisition", "instance_key", "dicom_instance"),
    ("dicom_file_location", "instance_key", "dicom_instance"),
    ("series_equipment", "series_key", "dicom_series"),
    ("series_equipment", "equipment_key", "dicom_equipment"),
)


def count_violations(lake: Lake, schema: str, batch_id: str | None = None) -> dict[str, int]:
    """Rows breaking a rule, by broken rule: keys occur once, every child has its parent. Empty is good.

    Args:
        lake: the lake.
        schema: ``silver`` or ``deid``.
        batch_id: look at the rows of this batch only, so that one bad batch does not hold the others; None: at all.
    """
    own, parameters = ("WHERE arrival_batch = ?", [batch_id]) if batch_id else ("", [])
    found: dict[str, int] = {}
    for table in registry.tables_of(schema):
        key = ", ".join(table.key)
        source = f"{schema}.{table.name}"
        of_batch = own if any(column.name == "arrival_batch" for column in table.columns) else ""
        sql = f"""SELECT count(*) FROM (SELECT {key} FROM {source}
            WHERE ({key}) IN (SELECT ({key}) FROM {source} {of_batch}) GROUP BY ALL HAVING count(*) > 1)"""
        found[f"{table.name}: {key} is unique"] = _count(lake, sql, *(parameters if of_batch else []))
    for child, key, parent in _PARENTS:
        sql = f"""SELECT count(*) FROM (FROM {schema}.{child} {own}) AS child
            WHERE NOT EXISTS (SELECT 1 FROM {schema}.{parent} AS parent WHERE parent.{key} = child.{key})"""
        found[f"{child}: {key} is in {parent}"] = _count(lake, sql, *parameters)
    return {rule: rows for rule, rows in found.items() if rows}


def count_placed(lake: Lake, batch_id: str) -> tuple[int, int, int]:
    """Parsed objects of a batch, those placed as instances (also vanished ones), and those refused with an issue."""
    parsed = _count(lake, "SELECT count(*) FROM bronze.dicom_header WHERE arrival_batch = ?", batch_id)
    placed = _count(lake, "SELECT count(*) FROM silver.dicom_file_location WHERE arrival_batch = ?", batch_id)
    refused = _count(
        lake,
        """SELECT count(DISTINCT object_key) FROM bronze.ingest_issue
        WHERE arrival_batch = ? AND stage = 'MAP' AND severity = 'ERROR'""",
        batch_id,
    )
    return parsed, placed, refused


def _count(lake: Lake, sql: str, *parameters: object) -> int:
    ((count,),) = lake.rows(sql, list(parameters))
    return int(str(count))
