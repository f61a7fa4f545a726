"""The champion's predictions for the tensors of a batch, as rows of ``gold.model_prediction``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.folder import uri_to_path
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.pneumonia.label_import import TASK
from imaging_pipeline.pneumonia.tracking import ModelTracker
from imaging_pipeline.tensors.shards import ShardReader

IMAGES_PER_CALL = 64

_Target = tuple[str, str, str, int]
"""Shard URI, tensor key, instance key, row in the shard."""


@dataclass(frozen=True, slots=True)
class ScoreCounts:
    """What a batch's images were called.

    Attributes:
        images: tensors scored.
        flagged: at or above the operating point.
        model: name and version.
        threshold: the operating point, a probability.
    """

    images: int
    flagged: int
    model: str
    threshold: float


def score_batch(
    lake: Lake,
    batch_id: str,
    recipe_digest: str,
    tracker: ModelTracker,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> ScoreCounts:
    """Score the tensors of a batch with the champion; run again, it leaves the same rows.

    Raises:
        ConfigurationError: there is no champion yet.
        TransientError: the lake or the model store is busy.
    """
    from imaging_pipeline.pneumonia.prediction import load_champion  # noqa: PLC0415 - imports torch

    predictor = load_champion(tracker)
    if predictor is None:
        raise ConfigurationError("no champion model yet: materialize gold/pneumonia_model first")
    rows: list[dict[str, object]] = []
    created_at = datetime.now(UTC).replace(tzinfo=None)
    selected = _targets(lake, batch_id, recipe_digest)
    for targets, images in _image_batches(selected):
        for (_, tensor_key, instance_key, _), score in zip(targets, predictor.predict(images), strict=True):
            rows.append(
                {
                    "prediction_key": key_of(predictor.model_name, predictor.model_version, tensor_key),
                    "model_name": predictor.model_name,
                    "model_version": predictor.model_version,
                    "instance_key": instance_key,
                    "tensor_key": tensor_key,
                    "task": TASK,
                    "probability": float(score),
                    "predicted_label": "pneumonia" if score >= predictor.threshold else "no pneumonia",
                    "threshold": predictor.threshold,
                    "created_at": created_at,
                    "arrival_batch": batch_id,
                }
            )
        if progress:
            progress(len(targets), len(selected))
    _write(lake, batch_id, rows, predictor.model_name, predictor.model_version)
    flagged = sum(row["predicted_label"] == "pneumonia" for row in rows)
    return ScoreCounts(len(rows), flagged, f"{predictor.model_name} {predictor.model_version}", predictor.threshold)


def _targets(lake: Lake, batch_id: str, recipe_digest: str) -> list[_Target]:
    return [
        (str(uri), str(tensor), str(instance), int(str(row)))
        for uri, tensor, instance, row in lake.rows(
            """SELECT tensor_uri, tensor_key, instance_key, shard_row FROM gold.image_tensor
            WHERE arrival_batch = ? AND recipe_id = ? ORDER BY tensor_uri, shard_row""",
            [batch_id, recipe_digest],
        )
    ]


def _image_batches(targets: list[_Target]) -> Iterator[tuple[list[_Target], NDArray[Any]]]:
    """Targets with their images, (n, channels, height, width) of the shard's dtype."""
    for uri, group in groupby(targets, key=lambda target: target[0]):
        shard, members = ShardReader(uri_to_path(uri)), list(group)
        for start in range(0, len(members), IMAGES_PER_CALL):
            part = members[start : start + IMAGES_PER_CALL]
            yield part, np.stack([shard.tensor(row) for *_, row in part])


def _write(lake: Lake, batch_id: str, rows: list[dict[str, object]], name: str, version: str) -> None:
    table = registry.table("model_prediction").rows(rows)
    with lake.transaction():
        lake.replace_all(
            "gold",
            "model_prediction",
            table,
            where="""model_name = ? AND model_version = ? AND
                (arrival_batch = ? OR prediction_key IN (SELECT prediction_key FROM staged_rows))""",
            parameters=[name, version, batch_id],
        )
        # An image may have been withdrawn while the others were scored.
        lake.connection.execute(
            """DELETE FROM gold.model_prediction
            WHERE arrival_batch = ? AND tensor_key NOT IN (SELECT tensor_key FROM gold.image_tensor)""",
            [batch_id],
        )
