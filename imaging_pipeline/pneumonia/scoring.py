"""What the champion says of the tensors of a batch: rows of ``gold.model_prediction`` and ``gold.image_embedding``."""

from __future__ import annotations

from collections import Counter
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
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.pneumonia.label_import import TASK
from imaging_pipeline.pneumonia.model_tables import is_recorded_as_champion, model_key, record_models
from imaging_pipeline.pneumonia.prediction import UNLIKE_TRAINING, Flag, Prediction, Predictor, load_champion
from imaging_pipeline.pneumonia.tracking import ModelTracker, RegisteredModel
from imaging_pipeline.tensors.shards import ShardReader
from imaging_pipeline.tensors.storage import open_shard

IMAGES_PER_CALL = 64

REPRESENTATION_VERSION = "1"
"""Raise it when the same network would give other vectors: now the input of its last layer, as it is."""

LABELS = {Flag.POSITIVE: "pneumonia", Flag.NEGATIVE: "no pneumonia"}

TABLES = ("model_prediction", "image_embedding")

_Target = tuple[str, str, str, int]
"""Shard URI, tensor key, instance key, row in the shard."""


@dataclass(frozen=True, slots=True)
class ScoreCounts:
    """What a batch's images were called.

    Attributes:
        images: tensors scored and embedded.
        flagged: at or above the operating point.
        unanswered: without an answer: they are unlike the films of the training.
        model: name and version.
        threshold: the operating point, a probability.
        width: length of an embedding.
    """

    images: int
    flagged: int
    unanswered: int
    model: str
    threshold: float
    width: int


def score_batch(
    lake: Lake,
    batch_id: str,
    recipe_digest: str,
    tracker: ModelTracker,
    *,
    open_shard: Callable[[str], ShardReader] = open_shard,
    progress: Callable[[int, int], None] | None = None,
) -> ScoreCounts:
    """Score and embed the tensors of a batch with the champion; run again, it leaves the same rows.

    Args:
        lake: the research lake.
        batch_id: the batch.
        recipe_digest: of the tensors, and of those the champion was trained on.
        tracker: the model store.
        open_shard: opens a shard by its URI.
        progress: is told how many images were scored, and of how many.

    Raises:
        ConfigurationError: there is no champion yet, or it was trained on tensors of another recipe.
        TransientError: the lake or the model store is busy.
    """
    predictor = load_champion(tracker)
    if predictor is None:
        raise ConfigurationError(
            "no champion model yet: materialize gold/pneumonia_model; where there is one that was refused, its check "
            "says why"
        )
    champion, threshold = predictor.model, predictor.threshold
    assert champion is not None
    _refuse_other_recipe(predictor, recipe_digest)
    if not is_recorded_as_champion(lake, champion):
        record_models(lake, tracker)
    predictions: list[dict[str, object]] = []
    embeddings: list[dict[str, object]] = []
    common: dict[str, object] = {"created_at": datetime.now(UTC).replace(tzinfo=None), "arrival_batch": batch_id}
    selected = _targets(lake, batch_id, recipe_digest)
    for targets, images in _image_batches(selected, open_shard):
        said = predictor.predict(images)
        flags = said.flags(threshold)
        for position, target in enumerate(targets):
            answer = {"threshold": threshold} | _answer(said, position, flags[position])
            predictions.append(common | _prediction_row(champion, target) | answer)
            embeddings.append(common | _embedding_row(champion, target, said.embeddings[position]))
        if progress:
            progress(len(targets), len(selected))
    _write(lake, batch_id, champion, predictions, embeddings)
    counts = Counter(row["flag"] for row in predictions)
    return ScoreCounts(
        images=len(predictions),
        flagged=counts[Flag.POSITIVE],
        unanswered=counts[Flag.NO_ANSWER],
        model=f"{champion.name} {champion.version}",
        threshold=threshold,
        width=predictor.width,
    )


def _refuse_other_recipe(predictor: Predictor, recipe_digest: str) -> None:
    """Refuse to score images that were made in another way than those of the training.

    Raises:
        ConfigurationError: the model's recipe is another one.
    """
    if predictor.recipe is not None and predictor.recipe.digest != recipe_digest:
        raise ConfigurationError(
            f"the model was trained on images of another recipe ({predictor.recipe.name}): set IMAGING_PIPELINE_RECIPE "
            "back, or train anew"
        )


def _prediction_row(model: RegisteredModel, target: _Target) -> dict[str, object]:
    _, tensor_key, instance_key, _ = target
    return {
        "prediction_key": key_of(model.name, model.version, tensor_key),
        "model_name": model.name,
        "model_version": model.version,
        "instance_key": instance_key,
        "tensor_key": tensor_key,
        "task": TASK,
    }


def _answer(said: Prediction, position: int, flag: Flag) -> dict[str, object]:
    return {
        "probability": _known(said.probabilities[position]),
        "predicted_label": LABELS.get(flag),
        "flag": str(flag),
        "uncertainty": _known(said.uncertainties[position]),
        "implausibility": _known(said.implausibilities[position]),
        "no_answer_reason": UNLIKE_TRAINING if flag is Flag.NO_ANSWER else None,
    }


def _known(figure: np.float64) -> float | None:
    return float(figure) if np.isfinite(figure) else None


def _embedding_row(model: RegisteredModel, target: _Target, vector: NDArray[np.float32]) -> dict[str, object]:
    _, tensor_key, instance_key, _ = target
    return {
        "embedding_key": key_of(model.name, model.version, tensor_key),
        "model_key": model_key(model.name, model.version),
        "instance_key": instance_key,
        "tensor_key": tensor_key,
        "embedding_vector": vector,
        "representation_scope": "FULL_IMAGE",
        "representation_version": REPRESENTATION_VERSION,
    }


def _targets(lake: Lake, batch_id: str, recipe_digest: str) -> list[_Target]:
    return [
        (str(uri), str(tensor), str(instance), int(str(row)))
        for uri, tensor, instance, row in lake.rows(
            """SELECT tensor_uri, tensor_key, instance_key, shard_row FROM gold.image_tensor
            WHERE arrival_batch = ? AND recipe_id = ? ORDER BY tensor_uri, shard_row""",
            [batch_id, recipe_digest],
        )
    ]


def _image_batches(
    targets: list[_Target], open_shard: Callable[[str], ShardReader]
) -> Iterator[tuple[list[_Target], NDArray[Any]]]:
    """Targets with their images, (n, channels, height, width) of the shard's dtype."""
    for uri, group in groupby(targets, key=lambda target: target[0]):
        shard, members = open_shard(uri), list(group)
        for start in range(0, len(members), IMAGES_PER_CALL):
            part = members[start : start + IMAGES_PER_CALL]
            yield part, np.stack([shard.tensor(row) for *_, row in part])


def _write(
    lake: Lake,
    batch_id: str,
    model: RegisteredModel,
    predictions: list[dict[str, object]],
    embeddings: list[dict[str, object]],
) -> None:
    staged = [registry.table(table).rows(rows) for table, rows in zip(TABLES, (predictions, embeddings), strict=True)]
    with lake.transaction():
        lake.replace_all(
            "gold",
            "model_prediction",
            staged[0],
            where="""model_name = ? AND model_version = ? AND
                (arrival_batch = ? OR prediction_key IN (SELECT prediction_key FROM staged_rows))""",
            parameters=[model.name, model.version, batch_id],
        )
        lake.replace_all(
            "gold",
            "image_embedding",
            staged[1],
            where="""model_key = ? AND
                (arrival_batch = ? OR embedding_key IN (SELECT embedding_key FROM staged_rows))""",
            parameters=[model_key(model.name, model.version), batch_id],
        )
        # An image may have been withdrawn while the others were scored.
        for table in TABLES:
            lake.connection.execute(
                f"""DELETE FROM gold.{table}
                WHERE arrival_batch = ? AND tensor_key NOT IN (SELECT tensor_key FROM gold.image_tensor)""",
                [batch_id],
            )
