"""A batch's images against those the champion was validated on: rows of ``gold.drift``. Opens the research lake."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.pneumonia.drift import MOST_IMAGES, Drift, Sample, drifts, values_of
from imaging_pipeline.pneumonia.model_tables import model_key
from imaging_pipeline.pneumonia.prediction import Predictor
from imaging_pipeline.tensors.shards import ShardReader
from imaging_pipeline.tensors.splits import Split

CODE_VERSION = "1"
"""Raise it when the same images would give other rows."""

TABLE = "drift"


@dataclass(frozen=True, slots=True)
class BatchDrift:
    """How a batch differs from what the model was validated on.

    Attributes:
        drifts: one for each quantity.
        values: numbers to be drawn, of the reference and of the batch, by quantity.
    """

    drifts: Sequence[Drift]
    values: Mapping[str, tuple[Any, Any]]


def load_drift(lake: Lake, batch_id: str, predictor: Predictor, open_shard: Callable[[str], ShardReader]) -> BatchDrift:
    """Compare the new images of a batch with the held-out sides of the champion's dataset, and keep the figures.

    Not with those it learned from: of them it is surer than of any other. Images of the batch that are of the dataset
    are left out. Run again, it leaves the same rows.

    Args:
        lake: the research lake, with the batch's predictions.
        batch_id: the batch.
        predictor: the champion.
        open_shard: opens a shard by its URI.

    Raises:
        TransientError: the lake is locked.
    """
    model = predictor.model
    assert model is not None, "predictions are of registered models"
    dataset = _dataset_of(lake, model_key(model.name, model.version))
    reference, learnt = (
        _reference(lake, dataset, sides, predictor, open_shard) for sides in ((Split.VAL, Split.TEST), (Split.TRAIN,))
    )
    batch = _batch(lake, batch_id, predictor, dataset)
    found = drifts(reference, batch, learnt.embeddings)
    rows = [_row(batch_id, model.name, model.version, dataset[1], each) for each in found]
    with lake.transaction():
        lake.replace_all(
            "gold",
            TABLE,
            registry.table(TABLE).rows(rows),
            where="arrival_batch = ? AND model_name = ? AND model_version = ?",
            parameters=[batch_id, model.name, model.version],
        )
    return BatchDrift(found, values_of(reference, batch, learnt.embeddings))


def drifted(lake: Lake, batch_id: str) -> list[dict[str, Any]]:
    """The rows of a batch under the model that judged it last, in the order of their quantities."""
    rows: list[dict[str, Any]] = lake.query(
        f"""SELECT * EXCLUDE ({registry.LOADED_AT}) FROM gold.drift WHERE arrival_batch = ?
        AND (model_name, model_version) IN (
            SELECT arg_max((model_name, model_version), {registry.LOADED_AT}) FROM gold.drift WHERE arrival_batch = ?)
        ORDER BY quantity""",
        [batch_id, batch_id],
    ).to_pylist()
    return rows


def _dataset_of(lake: Lake, key: str) -> tuple[str, str]:
    """Name and version of the dataset a model was trained on; empty where it is not recorded."""
    rows = lake.rows("SELECT dataset_id, dataset_version FROM gold.embedding_model WHERE model_key = ?", [key])
    return (str(rows[0][0] or ""), str(rows[0][1] or "")) if rows else ("", "")


def _reference(
    lake: Lake,
    dataset: tuple[str, str],
    sides: Sequence[Split],
    predictor: Predictor,
    open_shard: Callable[[str], ShardReader],
) -> Sample:
    """Images of some sides of the champion's dataset as it sees them; keys are digests, so the first are any."""
    rows = lake.query(
        """SELECT patient_pseudonym AS patient, mean_value, std_value, tensor_uri, shard_row
        FROM gold.dataset_member JOIN gold.image_tensor USING (tensor_key, patient_pseudonym)
        WHERE dataset_id = ? AND dataset_version = ? AND split IN (SELECT unnest(?)) ORDER BY tensor_key LIMIT ?""",
        [*dataset, list(sides), MOST_IMAGES],
    ).to_pylist()
    if not rows:
        return _sample([], np.empty(0), np.empty((0, predictor.width), np.float32))
    shards = {uri: open_shard(uri) for uri in {row["tensor_uri"] for row in rows}}
    images = np.stack([shards[row["tensor_uri"]].tensor(row["shard_row"]) for row in rows])
    said = predictor.predict(images, with_uncertainty=False)
    return _sample(rows, said.probabilities, said.embeddings)


def _batch(lake: Lake, batch_id: str, predictor: Predictor, dataset: tuple[str, str]) -> Sample:
    """What the champion has said of images of the batch that are not of its dataset."""
    model = predictor.model
    assert model is not None
    rows = lake.query(
        """SELECT patient_pseudonym AS patient, mean_value, std_value, probability, embedding_vector
        FROM gold.model_prediction AS prediction
        JOIN gold.image_tensor USING (tensor_key)
        JOIN gold.image_embedding AS embedding ON embedding.tensor_key = prediction.tensor_key AND model_key = ?
        WHERE prediction.arrival_batch = ? AND model_name = ? AND model_version = ?
            AND prediction.tensor_key NOT IN (
                SELECT tensor_key FROM gold.dataset_member WHERE dataset_id = ? AND dataset_version = ?)
        ORDER BY prediction.tensor_key LIMIT ?""",
        [model_key(model.name, model.version), batch_id, model.name, model.version, *dataset, MOST_IMAGES],
    ).to_pylist()
    scores = np.array([np.nan if row["probability"] is None else row["probability"] for row in rows], np.float64)
    vectors = np.array([row["embedding_vector"] for row in rows], np.float32).reshape(len(rows), predictor.width)
    return _sample(rows, scores, vectors)


def _sample(rows: Sequence[Mapping[str, Any]], scores: Any, embeddings: Any) -> Sample:
    return Sample(
        patients=[row["patient"] for row in rows],
        scores=scores,
        brightness=np.array([row["mean_value"] for row in rows], np.float64),
        contrast=np.array([row["std_value"] for row in rows], np.float64),
        embeddings=embeddings,
    )


def _row(batch_id: str, name: str, version: str, dataset_version: str, each: Drift) -> dict[str, object]:
    return {
        "drift_key": key_of(batch_id, name, version, each.quantity),
        "model_name": name,
        "model_version": version,
        "quantity": each.quantity,
        "verdict": each.verdict.value,
        "measure": each.measure.value,
        "value": each.value,
        "limit_value": each.limit,
        "ks": each.ks,
        "p_value": each.p_value,
        "reference_images": each.images[0],
        "batch_images": each.images[1],
        "reference_patients": each.patients[0],
        "batch_patients": each.patients[1],
        "reference_median": each.medians[0],
        "batch_median": each.medians[1],
        "dataset_version": dataset_version or None,
        "arrival_batch": batch_id,
    }
