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


def count_violations(lake: Lake, schema: str) -> dict[str, int]:
    """Rows breaking each rule, by rule: keys occur once, every child has its parent, counts are the children's."""
    found: dict[str, int] = {}
    for table in registry.tables_of(schema):
        key = ", ".join(table.key)
        sql = f"SELECT count(*) FROM (SELECT {key} FROM {schema}.{table.name} GROUP BY ALL HAVING count(*) > 1)"
        found[f"{table.name}: {key} is unique"] = _count(lake, sql)
    for child, key, parent in _PARENTS:
        sql = f"""SELECT count(*) FROM {schema}.{child} AS child
            WHERE NOT EXISTS (SELECT 1 FROM {schema}.{parent} AS parent WHERE parent.{key} = child.{key})"""
        found[f"{child}: {key} is in {parent}"] = _count(lake, sql)
    return found


def count_placed(lake: Lake, batch_id: str) -> tuple[int, int, int]:
    """Parsed objects of a batch, those placed as instances, and those refused with an ERROR issue."""
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
