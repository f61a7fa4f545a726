"""What the lake knows of some instances: issues, predictions, labels, results, deliveries, and where they come from.

Queries only; each names the batches of the instances, so that a lake of a million instances reads a few files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.made_objects import IS_SHOWN
from imaging_pipeline.web.index import Instance
from imaging_pipeline.web.zone import Zone, ZoneName

Rows = list[dict[str, Any]]

MOST_ROWS: Final = 500
"""Of one list."""


@dataclass(frozen=True, slots=True)
class Question:
    """One list of facts.

    Attributes:
        sql: with ``{keys}``, ``{objects}``, ``{uids}`` and ``{batches}``, lists of those of the instances.
        order: of the rows.
    """

    sql: str
    order: str


_RESULTS: Final = """SELECT instance_key, source_instance_key, kind, model_name, model_version, prediction_key,
        study_instance_uid, series_instance_uid, sop_instance_uid, sha256, size_bytes
    FROM {schema}.result_object
    WHERE arrival_batch IN ({batches}) AND (source_instance_key IN ({keys}) OR instance_key IN ({keys}))"""
_DELIVERIES: Final = """SELECT instance_key, sop_instance_uid, delivery_name, peer, state, answer, attempts, tried_at,
        accepted_at, is_withdrawn
    FROM {schema}.delivery WHERE sop_instance_uid IN ({uids}) OR instance_key IN (
        SELECT instance_key FROM {schema}.result_object
        WHERE arrival_batch IN ({batches}) AND source_instance_key IN ({keys}))"""
_MADE_FROM: Final = """SELECT made.instance_key, made.source_instance_key, made.kind, made.source_sha256
    FROM {zone}.made_object AS made WHERE made.instance_key IN ({keys}) OR made.source_instance_key IN ({keys})"""
_REPORTS: Final = """SELECT instance_key, node_path, depth, relationship_type, value_type,
        concept_name.code_meaning AS name, coalesce(text_value, concept_value.code_meaning, person_name_value,
        uid_value, numeric_value::VARCHAR, datetime_value::VARCHAR, date_value::VARCHAR, time_value::VARCHAR,
        referenced_sop_instance_uid) AS value, measurement_units.code_value AS unit
    FROM {zone}.dicom_sr_content_item WHERE arrival_batch IN ({batches}) AND instance_key IN ({keys})"""
_SEGMENTS: Final = """SELECT instance_key, segment_number, segment_label, segment_algorithm_type,
        array_to_string(segment_algorithm_name, ', ') AS algorithm, frame_count
    FROM {zone}.dicom_segmentation_metadata WHERE arrival_batch IN ({batches}) AND instance_key IN ({keys})"""
_ISSUES: Final = """SELECT object_key, stage, severity, issue_code, dicom_path, message
    FROM {schema}.ingest_issue WHERE arrival_batch IN ({batches}) AND object_key IN ({objects})"""
_WORST_FIRST: Final = "list_position(['ERROR', 'WARNING', 'INFO'], severity), stage, issue_code, dicom_path, message"

_OF_BOTH: Final = {
    "results": Question(_RESULTS, "source_instance_key, kind DESC, model_name, model_version, instance_key"),
    "deliveries": Question(_DELIVERIES, "tried_at DESC, peer, sop_instance_uid"),
    "made_from": Question(_MADE_FROM, "instance_key, source_instance_key"),
    "report": Question(_REPORTS, "instance_key, node_path"),
    "segments": Question(_SEGMENTS, "instance_key, segment_number"),
    "issues": Question(_ISSUES, _WORST_FIRST),
}

_OF_RESEARCH: Final = {
    "predictions": Question(
        """SELECT prediction_key, instance_key, tensor_key, task, probability, threshold, flag, uncertainty,
            implausibility, no_answer_reason, created_at, model_name, model_version, stage, mlflow_run_id,
            dagster_run_id, mlflow_model_uri, dataset_id, dataset_version, weights_sha256
        FROM gold.model_prediction LEFT JOIN gold.embedding_model USING (model_name, model_version)
        WHERE arrival_batch IN ({batches}) AND instance_key IN ({keys})""",
        "instance_key, stage = 'production' DESC, try_cast(model_version AS BIGINT) DESC",
    ),
    "lungs": Question(
        """SELECT instance_key, segmentation_key, quality, certainty, right_share, left_share, right_area, left_area,
            model_version
        FROM gold.lung_segmentation WHERE arrival_batch IN ({batches}) AND instance_key IN ({keys})""",
        "instance_key",
    ),
    "labels": Question(
        """SELECT subject_key AS instance_key, subject_level, task, label_value, source, method, annotator, confidence,
            official_split, bbox
        FROM gold.label WHERE subject_key IN ({keys})""",
        "instance_key, task, source, annotator, label_value",
    ),
    "annotations": Question(
        "SELECT annotation_key AS instance_key, sop_instance_uid, kind, user_name, received_at, source_instance_keys "
        f"FROM gold.annotation WHERE study_instance_uid IN ({{studies}}) AND {IS_SHOWN}",
        "received_at, sop_instance_uid",
    ),
    "tensors": Question(
        """SELECT instance_key, tensor_key, frame_number, recipe_id, recipe_json->>'name' AS recipe, shape, dtype,
            tensor_sha256, source_content_sha256
        FROM gold.image_tensor WHERE arrival_batch IN ({batches}) AND instance_key IN ({keys})""",
        "instance_key, recipe, frame_number, tensor_key",
    ),
    "members": Question(
        """SELECT tensor.instance_key, member.dataset_id, member.dataset_version, split, label_value,
            version.created_at, version.snapshot_id
        FROM gold.image_tensor AS tensor JOIN gold.dataset_member AS member USING (tensor_key)
        LEFT JOIN gold.dataset_version AS version USING (dataset_id, dataset_version)
        LEFT JOIN gold.label USING (label_key)
        WHERE tensor.arrival_batch IN ({batches}) AND tensor.instance_key IN ({keys})""",
        "dataset_id, created_at",
    ),
    "releases": Question(
        """SELECT instance_key, profile_id, profile_version, engine_version, source_token, key_id, residual_hits,
            warnings, content_sha256
        FROM deid.deid_verification WHERE arrival_batch IN ({batches}) AND instance_key IN ({keys})""",
        "instance_key",
    ),
}

_OF_CLINIC: Final = {
    "objects": Question(
        """SELECT object_key, storage_uri, object_version, source_name, sha256, length, parse_status, parser_version,
            modification_time, first_seen_at, arrival_batch
        FROM bronze.object_catalog WHERE arrival_batch IN ({batches}) AND object_key IN ({objects})""",
        "object_key",
    ),
    "findings": Question(
        """SELECT instance_key, concept_name.code_meaning AS name, measurement_units.code_value AS unit,
            coalesce(concept_value.code_meaning, numeric_value::VARCHAR) AS value
        FROM silver.dicom_sr_content_item
        WHERE arrival_batch IN ({batches}) AND instance_key IN ({keys})
            AND concept_name.code_value IN ('121052', '111012', '371884006')
            AND instance_key IN (SELECT instance_key FROM silver.result_object)""",
        "instance_key, node_path",
    ),
    "runs": Question(
        """SELECT arrival_batch, code_version, dicom_dictionary_version, started_at, finished_at, status,
            orchestrator_run_id
        FROM bronze.ingest_run WHERE arrival_batch IN ({batches})""",
        "started_at",
    ),
    "copies": Question(
        """SELECT instance_key, object_key, storage_uri, role, version_no, file_size_bytes, arrival_batch
        FROM silver.dicom_file_location WHERE instance_key IN ({keys})""",
        "version_no, role, object_key",
    ),
}

_QUESTIONS: Final[Mapping[ZoneName, Mapping[str, Question]]] = MappingProxyType(
    {ZoneName.RESEARCH: _OF_BOTH | _OF_RESEARCH, ZoneName.CLINICAL: _OF_BOTH | _OF_CLINIC}
)

ISSUE_SCHEMAS: Final = MappingProxyType({ZoneName.RESEARCH: "gold", ZoneName.CLINICAL: "bronze"})
RESULT_SCHEMAS: Final = MappingProxyType({ZoneName.RESEARCH: "gold", ZoneName.CLINICAL: "silver"})


def facts(zone: Zone, instances: Sequence[Instance], names: Sequence[str] | None = None) -> dict[str, Rows]:
    """Rows by the name of their list; lists that this zone does not have are empty.

    Args:
        zone: whose lake is asked.
        instances: what is asked about.
        names: of the lists; None: all.
    """
    questions = _QUESTIONS[zone.name]
    known: dict[str, Rows] = {name: [] for name in (*_OF_BOTH, *_OF_RESEARCH, *_OF_CLINIC)}
    if not instances:
        return known
    with zone.open_lake() as lake, lake.one_snapshot():
        written = lake.written_tables()
        asked = [name for name in questions if names is None or name in names]
        return known | {name: _answer(lake, zone, name, instances, written) for name in asked}


def _answer(lake: Lake, zone: Zone, name: str, instances: Sequence[Instance], written: frozenset[str]) -> Rows:
    question = _QUESTIONS[zone.name][name]
    schema = (ISSUE_SCHEMAS if name == "issues" else RESULT_SCHEMAS)[zone.name]
    lists = {
        "keys": [one.instance_key for one in instances],
        "objects": [key for one in instances for key in (one.object_key, one.instance_key)],
        "uids": [one.sop_instance_uid for one in instances],
        "studies": [one.study_instance_uid for one in instances],
        # objects made of others have the batch of their sources, and a kind behind it
        "batches": [batch for one in instances for batch in (one.arrival_batch, one.arrival_batch.partition("+")[0])],
    }
    given = {key: f"SELECT unnest(${key})" for key in lists}
    sql = question.sql.format(schema=schema, zone=zone.schema, **given)
    if not _is_written(sql, written):
        return []
    parameters = {key: sorted(set(values)) for key, values in lists.items() if f"${key}" in sql}
    lake.connection.execute(f"{sql} ORDER BY {question.order} LIMIT {MOST_ROWS}", parameters)
    rows: Rows = lake.connection.to_arrow_table().to_pylist()
    return rows


def _is_written(sql: str, written: frozenset[str]) -> bool:
    """Whether the table a query is about has rows: most lists of most lakes are empty."""
    table = sql.partition("FROM ")[2].split()[0]
    return table in written
