"""Counts over all zones, for the end of a run and for ``status``. Numbers and codes only, no identifiers."""

from __future__ import annotations

from dataclasses import dataclass

from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.lake.store import Lake

_ZONES: tuple[tuple[str, str, str], ...] = (
    ("bronze", "objects seen", "SELECT count(*) FROM bronze.object_catalog"),
    ("bronze", "vanished objects", "SELECT count(*) FROM bronze.object_catalog WHERE deleted_at IS NOT NULL"),
    ("bronze", "headers", "SELECT count(*) FROM bronze.dicom_header"),
    ("silver", "patients", "SELECT count(*) FROM silver.dicom_patient"),
    ("silver", "studies", "SELECT count(*) FROM silver.dicom_study"),
    ("silver", "series", "SELECT count(*) FROM silver.dicom_series"),
    ("silver", "instances", "SELECT count(*) FROM silver.dicom_instance WHERE version_state <> 'DELETED'"),
    ("silver", "open studies", "SELECT count(*) FROM silver.study_state WHERE state = 'OPEN'"),
    ("deid", "patients", "SELECT count(*) FROM deid.dicom_patient"),
    ("deid", "released instances", "SELECT count(*) FROM deid.dicom_instance"),
    ("gold", "tensors", "SELECT count(*) FROM gold.image_tensor"),
    ("gold", "labels", "SELECT count(*) FROM gold.label WHERE subject_level = 'INSTANCE'"),
    ("gold", "dataset versions", "SELECT count(*) FROM gold.dataset_version"),
    ("gold", "predictions", "SELECT count(*) FROM gold.model_prediction"),
    ("gold", "embeddings", "SELECT count(*) FROM gold.image_embedding"),
)

_ISSUES = """
SELECT stage, severity, issue_code, count(DISTINCT object_key) AS objects, mode(message) AS example
FROM {schema}.ingest_issue GROUP BY ALL ORDER BY severity, stage, objects DESC, issue_code
"""


@dataclass(frozen=True, slots=True)
class IssueCount:
    """How many objects have an issue."""

    stage: str
    severity: str
    code: str
    objects: int
    example: str


@dataclass(frozen=True, slots=True)
class Overview:
    """What is in the zones.

    Attributes:
        zones: (zone, thing, how many).
        issues: by stage, severity and code.
    """

    zones: tuple[tuple[str, str, int], ...]
    issues: tuple[IssueCount, ...]


def overview(workspace: Workspace) -> Overview:
    """Counts of all zones and issues.

    Raises:
        ConfigurationError: there is no lake yet.
    """
    with workspace.identified(read_only=True) as identified, workspace.research(read_only=True) as research:
        lakes = {"bronze": identified, "silver": identified, "deid": research, "gold": research}
        zones = tuple((zone, thing, _count(lakes[zone], sql)) for zone, thing, sql in _ZONES)
        issues = _issues(identified, "bronze") + _issues(research, "gold")
    return Overview(zones, issues)


def _issues(lake: Lake, schema: str) -> tuple[IssueCount, ...]:
    rows = lake.rows(_ISSUES.format(schema=schema))
    return tuple(IssueCount(str(s), str(v), str(c), int(str(n)), str(e or "")) for s, v, c, n, e in rows)


def _count(lake: Lake, sql: str) -> int:
    ((count,),) = lake.rows(sql)
    return int(str(count))
