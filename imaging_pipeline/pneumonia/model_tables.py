"""The model registry as tables: ``gold.embedding_model`` and ``gold.embedding_evaluation``. Opens the research lake.

The registry is the truth. Rows are made from it anew whenever a model is registered or promoted, so a run that was
killed between the two is mended by the next.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.pneumonia.recording import SNAPSHOT_TAG
from imaging_pipeline.pneumonia.tracking import CHALLENGER, CHAMPION, ModelTracker, RegisteredModel, RegisteredVersion

PRODUCTION, CANDIDATE, RETIRED = "production", "candidate", "retired"
"""Stages: predictions are made with it; newer than that one; older than that one, or no longer registered."""


_COLUMNS = {column.name for column in registry.table("embedding_model").columns}


@dataclass(frozen=True, slots=True)
class RecordedModels:
    """Rows written: models, and figures of their evaluations."""

    models: int
    evaluations: int


def model_key(name: str, version: str) -> str:
    """Key of a registered version in ``gold.embedding_model``."""
    return key_of(name, version)


def record_models(lake: Lake, tracker: ModelTracker) -> RecordedModels:
    """Write the rows of all registered versions; run again, it leaves the same rows.

    A version that is no longer registered stays as a retired one, since predictions and embeddings name it; the
    evaluation of one whose run was removed stays too.

    Raises:
        TransientError: the lake or the model store is busy.
    """
    versions = tracker.versions()
    champion = next((int(each.model.version) for each in versions if CHAMPION in each.aliases), None)
    models = [_model_row(version, champion) for version in versions]
    evaluations = [row for version in versions for row in _evaluation_rows(version)]
    keys = [row["model_key"] for row in models]
    with lake.transaction():
        _replace(lake, "embedding_model", models)
        lake.connection.execute(
            "UPDATE gold.embedding_model SET stage = ? WHERE model_name = ? AND model_key NOT IN (SELECT unnest(?))",
            [RETIRED, tracker.model_name, keys],
        )
        _replace(lake, "embedding_evaluation", evaluations)
    return RecordedModels(len(models), len(evaluations))


def is_recorded_as_champion(lake: Lake, champion: RegisteredModel) -> bool:
    """Whether the tables know this version as the one predictions are made with."""
    found = lake.rows(
        "SELECT 1 FROM gold.embedding_model WHERE model_key = ? AND stage = ?",
        [model_key(champion.name, champion.version), PRODUCTION],
    )
    return bool(found)


def _replace(lake: Lake, table: str, rows: list[dict[str, object]]) -> None:
    """Put the rows of some models in the place of those they had."""
    staged = registry.table(table).rows(rows)
    lake.replace_all("gold", table, staged, where="model_key IN (SELECT model_key FROM staged_rows)", parameters=[])


def _model_row(version: RegisteredVersion, champion: int | None) -> dict[str, object]:
    card = {name: value for name, value in version.card.items() if name in _COLUMNS}
    if "preprocessing_spec" in card:
        card["preprocessing_spec"] = _json(card["preprocessing_spec"])
    return card | {
        "model_key": model_key(version.model.name, version.model.version),
        "model_name": version.model.name,
        "model_version": version.model.version,
        "mlflow_run_id": version.model.run_id,
        "mlflow_model_uri": version.model.uri,
        "stage": _stage(version, champion),
        "weights_sha256": version.weights_sha256,
        "dagster_run_id": version.tags.get("dagster/run_id"),
        "snapshot_id": _number(version.tags.get(SNAPSHOT_TAG)),
    }


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _stage(version: RegisteredVersion, champion: int | None) -> str:
    if CHAMPION in version.aliases:
        return PRODUCTION
    is_newer = champion is None or int(version.model.version) > champion
    return CANDIDATE if is_newer or CHALLENGER in version.aliases else RETIRED


def _evaluation_rows(version: RegisteredVersion) -> Iterator[dict[str, object]]:
    card, key = version.card, model_key(version.model.name, version.model.version)
    for entry in card.get("evaluations", ()):
        subgroup = _json(entry["subgroup"])
        of_dataset = {
            "dataset_name": card["dataset_id"],
            "dataset_version": card["dataset_version"],
            "dataset_description": card["training_data_summary"],
        }
        row = of_dataset | entry  # an external set says which dataset it is
        yield row | {
            "evaluation_key": key_of(key, row["dataset_version"], row["split"], subgroup, row["metric_name"]),
            "model_key": key,
            "subgroup": subgroup,
            "metric_details": _json(entry["metric_details"]),
            "evaluated_at": version.registered_at,
        }


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)
