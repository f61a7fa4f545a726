"""What an operator looks at: batches, what was held, issues, models, drift, deliveries. No patient, no UID."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from imaging_pipeline.deid.clearance import CHECKS
from imaging_pipeline.metadata.made_objects import source_batch
from imaging_pipeline.web.zone import Zone, ZoneName


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the page.

    Attributes:
        title: what it shows.
        note: how to read it.
        sql: its rows, whose column names are its headings; ``$cleared`` are the batches whose checks have passed.
        order: of the rows, by these columns.
    """

    title: str
    note: str
    sql: str
    order: str


MOST_ROWS: Final = 40

_DELIVERIES: Final = """SELECT peer, delivery_name AS delivery, state, answer, count(*) AS objects,
    count_if(is_withdrawn) AS withdrawn_here, max(tried_at) AS last_tried
FROM {schema}.delivery GROUP BY ALL"""
_WAITING_FIRST: Final = "state = 'ACCEPTED', last_tried DESC"

_ISSUES: Final = """SELECT severity, stage, issue_code AS code, count(DISTINCT object_key) AS objects,
    max(arrival_batch) AS newest_batch
FROM {schema}.ingest_issue GROUP BY ALL"""
_WORST_FIRST: Final = "list_position(['ERROR', 'WARNING', 'INFO'], severity), objects DESC, code"

_CLINICAL: Final = (
    Table(
        "Batches",
        "The newest first.",
        """SELECT partition_key AS batch, source_name AS source, status, objects_seen AS seen, objects_parsed AS parsed,
            objects_failed AS failed, objects_skipped AS no_dicom, finished_at AS finished,
            orchestrator_run_id AS dagster_run
        FROM bronze.ingest_run""",
        "finished DESC",
    ),
    Table(
        "Objects by state",
        "FAILED: not read, lost to the next zone. SKIPPED: no DICOM.",
        """SELECT source_name AS source, parse_status AS state, count(*) AS objects, max(first_seen_at) AS newest
        FROM bronze.object_catalog WHERE deleted_at IS NULL GROUP BY ALL""",
        "list_position(['FAILED', 'PARSED_WITH_ISSUES', 'PARSED', 'SKIPPED'], state), source",
    ),
    Table(
        "Held before release",
        "Objects that were not de-identified, by reason; the newest by key. What to do: docs/how-to/review.md.",
        """SELECT issue_code AS reason, severity, count(DISTINCT object_key) AS objects,
            max_by(object_key, _loaded_at) AS newest_object
        FROM bronze.ingest_issue WHERE stage IN ('DEID', 'PIXEL') GROUP BY ALL""",
        "objects DESC, reason",
    ),
    Table("Issues", "By code; messages never hold values.", _ISSUES, _WORST_FIRST),
    Table("Deliveries", "What waits or was refused first.", _DELIVERIES, _WAITING_FIRST),
)

_RESEARCH: Final = (
    Table(
        "Batches not shown",
        f"Nothing of them is served or sent until {' and '.join(CHECKS)} have passed since their last release. "
        "In Dagster: assets deid/dicom_instance and deid/dicom_patient, this partition, Checks.",
        f"""SELECT {source_batch("arrival_batch")} AS batch, count(*) AS objects, max(_loaded_at) AS released
        FROM deid.dicom_file_location WHERE batch NOT IN (SELECT unnest($cleared::VARCHAR[])) GROUP BY ALL""",
        "batch DESC",
    ),
    Table(
        "Batches released",
        "The newest first.",
        """SELECT arrival_batch AS batch, profile_id AS profile, profile_version AS version,
            engine_version AS engine, count(*) AS objects, max(_loaded_at) AS released
        FROM deid.deid_verification GROUP BY ALL""",
        "batch DESC",
    ),
    Table(
        "Held before release",
        "Counts only: which objects these are is known on the clinical side.",
        """SELECT arrival_batch AS batch, subject AS reason, detail AS verdict, number AS objects
        FROM deid.deid_evidence WHERE topic = 'reasons'""",
        "batch DESC, objects DESC, reason",
    ),
    Table("Issues", "By code; messages never hold values.", _ISSUES, _WORST_FIRST),
    Table(
        "Models",
        "As the registry had them.",
        """SELECT model_name AS model, model_version AS version, stage, dataset_id AS dataset,
            left(dataset_version, 12) AS dataset_version, mlflow_run_id AS mlflow_run, _loaded_at AS registered
        FROM gold.embedding_model""",
        "stage = 'production' DESC, try_cast(version AS BIGINT) DESC",
    ),
    Table(
        "Drift",
        "DRIFT: the films of the batch do not look like those the model was judged on. See docs/how-to/results.md.",
        """SELECT arrival_batch AS batch, model_version AS model, quantity, verdict, value, limit_value AS "limit",
            p_value AS p, batch_images AS images
        FROM gold.drift""",
        "verdict = 'DRIFT' DESC, batch DESC, quantity",
    ),
    Table("Deliveries", "What waits or was refused first.", _DELIVERIES, _WAITING_FIRST),
)

_TABLES: Final = MappingProxyType({ZoneName.CLINICAL: _CLINICAL, ZoneName.RESEARCH: _RESEARCH})
_ISSUE_SCHEMAS: Final = MappingProxyType({ZoneName.RESEARCH: "gold", ZoneName.CLINICAL: "bronze"})
_DELIVERY_SCHEMAS: Final = MappingProxyType({ZoneName.RESEARCH: "gold", ZoneName.CLINICAL: "silver"})


def tables(zone: Zone) -> list[Mapping[str, Any]]:
    """The tables of a zone with their rows, at most :data:`MOST_ROWS` each, from one state of its lake."""
    found: list[Mapping[str, Any]] = []
    cleared = sorted(zone.clearance.batches()) if zone.clearance else []
    with zone.open_lake() as lake, lake.one_snapshot():
        for table in _TABLES[zone.name]:
            schemas = _ISSUE_SCHEMAS if "ingest_issue" in table.sql else _DELIVERY_SCHEMAS
            sql = table.sql.format(schema=schemas[zone.name])
            answer = lake.query(
                f"SELECT * FROM ({sql}) ORDER BY {table.order} LIMIT {MOST_ROWS + 1}",
                {"cleared": cleared} if "$cleared" in sql else None,
            )
            rows = [list(row.values()) for row in answer.to_pylist()]
            found.append(
                {
                    "title": table.title,
                    "note": table.note,
                    "columns": [name.replace("_", " ") for name in answer.column_names],
                    "rows": rows[:MOST_ROWS],
                    "is_cut": len(rows) > MOST_ROWS,
                }
            )
    return found
