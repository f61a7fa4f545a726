"""Predictions and embeddings of a batch, with a champion from a real MLflow store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.console import run_query
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.folder import path_to_uri
from imaging_pipeline.pneumonia.network import PneumoniaNetwork
from imaging_pipeline.pneumonia.scoring import ScoreCounts, score_batch
from imaging_pipeline.pneumonia.tracking import ModelTracker
from imaging_pipeline.pneumonia.uncertainty import CHANGES
from imaging_pipeline.settings import Settings
from imaging_pipeline_tests.metadata.headers import memory_lake
from imaging_pipeline_tests.pneumonia.learned import COPY, COUNT, LearnedModel

BATCH = "2026-01-31.00001"
TABLES = ("model_prediction", "image_embedding")


def put_index(lake: Lake, learned_model: LearnedModel) -> Lake:
    """The index rows of the batch's tensors, as the tensor step leaves them."""
    rows: list[dict[str, object]] = [
        {
            "tensor_key": row.tensor_key,
            "instance_key": row.instance_key,
            "sop_instance_uid": row.sop_instance_uid,
            "patient_pseudonym": row.patient_id,
            "recipe_id": learned_model.recipe.digest,
            "tensor_uri": path_to_uri(learned_model.shard.path),
            "shard_row": number,
            "arrival_batch": BATCH,
        }
        for number, row in enumerate(learned_model.rows)
    ]
    with lake.transaction():
        lake.replace_batch("gold", "image_tensor", registry.table("image_tensor").rows(rows), BATCH)
    return lake


@pytest.fixture
def indexed(learned_model: LearnedModel) -> Iterator[Lake]:
    with memory_lake("research") as lake:
        yield put_index(lake, learned_model)


def score(lake: Lake, learned_model: LearnedModel, **options: Any) -> ScoreCounts:
    return score_batch(lake, BATCH, learned_model.recipe.digest, learned_model.tracker, **options)


def contents(lake: Lake) -> dict[str, list[tuple[object, ...]]]:
    return {
        table: lake.rows(f"SELECT * EXCLUDE (created_at, {registry.LOADED_AT}) FROM gold.{table} ORDER BY 1")
        for table in TABLES
    }


def test_every_tensor_is_scored_and_embedded_in_one_forward_pass_and_its_changes_in_some_more(
    indexed: Lake, learned_model: LearnedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    forward = PneumoniaNetwork.forward

    def counted(network: PneumoniaNetwork, images: Any) -> Any:
        seen.append(len(images))
        return forward(network, images)

    monkeypatch.setattr(PneumoniaNetwork, "forward", counted)
    counts = score(indexed, learned_model)
    assert counts.images == COUNT + 1
    assert sum(seen) == counts.images * (1 + len(CHANGES))
    rows = indexed.rows(
        """SELECT tensor_key, prediction.instance_key = embedding.instance_key, len(embedding_vector),
            dimensionality, stage, representation_scope, probability BETWEEN 0 AND 1
        FROM gold.image_tensor JOIN gold.model_prediction AS prediction USING (tensor_key)
        JOIN gold.image_embedding AS embedding USING (tensor_key) JOIN gold.embedding_model USING (model_key)"""
    )
    assert {row[0] for row in rows} == {row.tensor_key for row in learned_model.rows}
    assert {row[1:] for row in rows} == {(True, 512, 512, "production", "FULL_IMAGE", True)}
    assert counts.width == 512


def test_every_prediction_says_how_sure_it_is_and_what_it_means(indexed: Lake, learned_model: LearnedModel) -> None:
    score(indexed, learned_model)
    rows = indexed.rows(
        """SELECT flag, predicted_label, probability >= threshold, uncertainty BETWEEN 0 AND 0.5, implausibility,
            no_answer_reason FROM gold.model_prediction"""
    )
    assert set(rows) <= {
        ("POSITIVE", "pneumonia", True, True, None, None),
        ("NEGATIVE", "no pneumonia", False, True, None, None),
    }, "the model has seen too few films to know one"


def test_images_of_another_recipe_than_the_models_are_refused(indexed: Lake, learned_model: LearnedModel) -> None:
    with pytest.raises(ConfigurationError, match="another recipe"):
        score_batch(indexed, BATCH, "ab" * 32, learned_model.tracker)
    assert contents(indexed) == {"model_prediction": [], "image_embedding": []}


def test_an_image_is_found_by_its_likeness_in_sql(
    research: Lake, learned_model: LearnedModel, settings: Settings
) -> None:
    score(put_index(research, learned_model), learned_model)
    before = contents(research)
    score(research, learned_model)
    assert contents(research) == before
    likeness = """SELECT this.instance_key AS image, other.instance_key AS neighbour,
            array_cosine_similarity(this.embedding_vector::FLOAT[512], other.embedding_vector::FLOAT[512]) AS likeness
        FROM gold.image_embedding AS this JOIN gold.image_embedding AS other USING (model_key)"""
    nearest = run_query(
        f"SELECT image, arg_max(neighbour, likeness) AS neighbour FROM ({likeness}) GROUP BY image", [settings.research]
    ).to_pylist()
    copies = {"instance-0", f"instance-{COPY}"}
    assert len(nearest) == COUNT + 1
    assert all(row["image"] == row["neighbour"] for row in nearest if row["image"] not in copies)
    ranked = run_query(
        f"SELECT neighbour, likeness FROM ({likeness}) WHERE image = 'instance-0' ORDER BY likeness DESC",
        [settings.research],
    ).to_pylist()
    assert {row["neighbour"] for row in ranked[:2]} == copies
    assert [row["likeness"] for row in ranked[:2]] == pytest.approx([1, 1], abs=1e-5)
    assert ranked[2]["likeness"] < 1 - 1e-5


def test_a_batch_that_is_scored_again_leaves_the_same_rows(indexed: Lake, learned_model: LearnedModel) -> None:
    first = score(indexed, learned_model)
    before = contents(indexed)
    assert score(indexed, learned_model) == first
    assert contents(indexed) == before


def test_a_tensor_that_moved_to_another_batch_is_scored_once(indexed: Lake, learned_model: LearnedModel) -> None:
    score(indexed, learned_model)
    with indexed.transaction():
        indexed.connection.execute("UPDATE gold.image_tensor SET arrival_batch = 'later' WHERE shard_row < 3")
    score_batch(indexed, "later", learned_model.recipe.digest, learned_model.tracker)
    for table in TABLES:
        rows = indexed.rows(f"SELECT arrival_batch, count(*) FROM gold.{table} GROUP BY 1 ORDER BY 1")
        assert rows == [(BATCH, COUNT - 2), ("later", 3)]


def test_an_image_withdrawn_while_the_batch_is_scored_has_neither_score_nor_embedding(
    indexed: Lake, learned_model: LearnedModel
) -> None:
    def withdraw(done: int, of: int) -> None:
        with indexed.transaction():
            indexed.connection.execute("DELETE FROM gold.image_tensor WHERE instance_key = 'instance-4'")

    score(indexed, learned_model, progress=withdraw)
    for table in TABLES:
        left = {key for (key,) in indexed.rows(f"SELECT instance_key FROM gold.{table}")}
        assert left == {row.instance_key for row in learned_model.rows} - {"instance-4"}


def test_scores_are_not_written_without_their_embeddings(
    indexed: Lake, learned_model: LearnedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_all = Lake.replace_all

    def killed(lake: Lake, schema: str, name: str, *rest: Any, **named: Any) -> None:
        if name == "image_embedding":
            raise KeyboardInterrupt
        replace_all(lake, schema, name, *rest, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "replace_all", killed)
        with pytest.raises(KeyboardInterrupt):
            score(indexed, learned_model)
    assert contents(indexed) == {"model_prediction": [], "image_embedding": []}
    score(indexed, learned_model)
    assert {table: len(rows) for table, rows in contents(indexed).items()} == dict.fromkeys(TABLES, COUNT + 1)


def test_a_champion_that_a_person_promoted_is_recorded_with_the_first_batch_it_scores(
    indexed: Lake, learned_model: LearnedModel
) -> None:
    score(indexed, learned_model)
    with indexed.transaction():
        indexed.connection.execute("UPDATE gold.embedding_model SET stage = 'candidate'")
    score(indexed, learned_model)
    assert indexed.rows("SELECT model_version, stage FROM gold.embedding_model") == [("1", "production")]


def test_without_a_champion_nothing_is_scored(indexed: Lake, learned_model: LearnedModel) -> None:
    store = learned_model.tracker
    unborn = ModelTracker(f"{store.tracking_uri}.none", store.artifact_root, "none", "none")
    with pytest.raises(ConfigurationError, match="no champion"):
        score_batch(indexed, BATCH, learned_model.recipe.digest, unborn)
    assert contents(indexed) == {"model_prediction": [], "image_embedding": []}
