"""``predict_pneumonia`` in SQL says what the rows of the lake say, and is confined to the research lake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake.console import QueryRefused, run_query
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.pneumonia.film import films_of
from imaging_pipeline.pneumonia.prediction import Predictor, load_champion
from imaging_pipeline.pneumonia.scoring import score_batch
from imaging_pipeline.pneumonia.sql_function import register_functions
from imaging_pipeline.settings import Settings
from imaging_pipeline_tests.metadata.headers import memory_lake
from imaging_pipeline_tests.pneumonia.learned import COUNT, LearnedModel
from imaging_pipeline_tests.pneumonia.test_scoring import BATCH, put_index
from imaging_pipeline_tests.tensors.rows import radiograph


class Loader:
    """The champion, and how often it was asked for."""

    def __init__(self, learned_model: LearnedModel) -> None:
        self.learned_model, self.calls = learned_model, 0

    def __call__(self) -> Predictor:
        self.calls += 1
        found = load_champion(self.learned_model.tracker)
        assert found is not None
        return found


@pytest.fixture
def scored(learned_model: LearnedModel) -> Iterator[Lake]:
    with memory_lake("research") as lake:
        put_index(lake, learned_model)
        score_batch(lake, BATCH, learned_model.recipe.digest, learned_model.tracker)
        yield lake


def test_the_function_gives_the_probabilities_that_are_in_the_lake(scored: Lake, learned_model: LearnedModel) -> None:
    loader = Loader(learned_model)
    register_functions(scored.connection, loader)
    assert loader.calls == 0, "nothing is loaded before a row is asked for"
    rows = scored.rows(
        """SELECT probability, predict_pneumonia(instance_key), predict_pneumonia('nobody'), predict_pneumonia(NULL)
        FROM gold.model_prediction"""
    )
    assert len(rows) == COUNT + 1
    for stored, said, nobody, nothing in rows:
        assert said == pytest.approx(stored, abs=1e-6)
        assert nobody is None
        assert nothing is None
    scored.rows("SELECT sum(predict_pneumonia(instance_key)) FROM gold.image_tensor GROUP BY patient_pseudonym")
    assert loader.calls == 1


def test_an_image_without_an_answer_is_null(
    scored: Lake, learned_model: LearnedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    monkeypatch.setattr(
        "imaging_pipeline.pneumonia.network.implausibility", lambda _, images, __: np.full(len(images), 1.5)
    )
    register_functions(scored.connection, Loader(learned_model))
    assert scored.rows("SELECT DISTINCT predict_pneumonia(instance_key) FROM gold.image_tensor") == [(None,)]
    counts = score_batch(scored, BATCH, learned_model.recipe.digest, learned_model.tracker)
    assert (counts.unanswered, counts.flagged) == (COUNT + 1, 0)
    rows = scored.rows(
        """SELECT DISTINCT flag, probability, predicted_label, uncertainty, implausibility, no_answer_reason
        FROM gold.model_prediction"""
    )
    assert rows == [("NO_ANSWER", None, None, None, 1.5, "unlike_training_films")]


def test_many_threads_and_many_rows_load_one_model(scored: Lake, learned_model: LearnedModel) -> None:
    loader = Loader(learned_model)
    scored.connection.execute("SET threads = 4")
    register_functions(scored.connection, loader)
    ((count, least, greatest),) = scored.rows(
        """SELECT count(score), min(score), max(score) FROM (
            SELECT predict_pneumonia(instance_key) AS score FROM gold.image_tensor, range(2000))"""
    )
    assert count == 2000 * (COUNT + 1)
    assert 0 <= least <= greatest <= 1  # type: ignore[operator]
    assert loader.calls == 1


def test_it_works_in_the_console_which_has_no_function_of_files(
    research: Lake, learned_model: LearnedModel, settings: Settings
) -> None:
    put_index(research, learned_model)
    score_batch(research, BATCH, learned_model.recipe.digest, learned_model.tracker)

    def add(connection: duckdb.DuckDBPyConnection) -> None:
        register_functions(connection, Loader(learned_model))

    question = "SELECT instance_key, predict_pneumonia(instance_key) AS score FROM gold.image_tensor"
    found = run_query(question, [settings.research], add_functions=add).to_pylist()
    stored = dict(research.rows("SELECT instance_key, probability FROM gold.model_prediction"))
    assert {row["instance_key"]: row["score"] for row in found} == {
        key: pytest.approx(probability, abs=1e-6) for key, probability in stored.items()
    }
    with pytest.raises(QueryRefused, match="predict_pneumonia_file"):
        run_query("SELECT predict_pneumonia_file('/film.dcm')", [settings.research], add_functions=add)


def test_without_a_champion_the_query_says_what_to_do(scored: Lake) -> None:
    def none() -> Predictor:
        raise ConfigurationError("there is no model models:/pneumonia@champion")

    register_functions(scored.connection, none)
    with pytest.raises(duckdb.Error, match="there is no model"):
        scored.rows("SELECT predict_pneumonia(instance_key) FROM gold.image_tensor")


def test_files_are_scored_in_ones_own_connection(tmp_path: Path, learned_model: LearnedModel) -> None:
    (tmp_path / "film.dcm").write_bytes(radiograph(1))
    (tmp_path / "notes.txt").write_text("no film")
    loader = Loader(learned_model)
    with duckdb.connect() as connection:
        register_functions(connection, loader, with_files=True)
        rows = connection.execute(
            "SELECT path, predict_pneumonia_file(path) FROM (SELECT unnest(?) AS path)",
            [[str(tmp_path / name) for name in ("film.dcm", "notes.txt", "none.dcm")]],
        ).fetchall()
    (film,) = films_of(radiograph(1), learned_model.recipe)
    expected = float(loader().predict(film.image[None]).probabilities[0])  # type: ignore[union-attr]
    assert [score for _, score in rows] == [pytest.approx(expected, abs=1e-6), None, None]
