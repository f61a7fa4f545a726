from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.folder import uri_to_path
from imaging_pipeline.tensors.batch import load_tensors, withdraw_tensors
from imaging_pipeline.tensors.recipe import Recipe, load_recipe
from imaging_pipeline.tensors.shards import ShardReader
from imaging_pipeline_tests.dicom.images import image

BATCH = "2026-01-31.00001"
PROOF = dict.fromkeys(("profile_id", "profile_version", "profile_digest", "engine_version", "source_token"), "x")
PROOF |= {"actions": "{}", "residual_hits": 0}


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("chest-xray-224")


@pytest.fixture
def released(research: Lake, tmp_path: Path) -> Lake:
    """Three released chest images of different brightness, as the de-identification leaves them."""
    rows: dict[str, list[dict[str, object]]] = {}
    for number, name in enumerate("abc"):
        path = tmp_path / f"{name}.dcm"
        path.write_bytes(image(np.full((8, 8), 60 * number, np.uint8), WindowCenter=127.5, WindowWidth=255))
        common = {"arrival_batch": BATCH, "row_version": BATCH}
        keys = {"patient_key": name, "study_key": name, "series_key": name, "instance_key": name}
        for table, values in {
            "dicom_patient": {"patient_domain": "p", "patient_id": f"P{name}"},
            "dicom_study": {"study_instance_uid": f"2.25.{number}1"},
            "dicom_series": {"series_instance_uid": f"2.25.{number}2", "modality": "CR", "body_part_examined": "CHEST"},
            "dicom_instance": {"sop_instance_uid": f"2.25.{number}3", "has_pixel": True, "object_key": name},
            "dicom_file_location": {"location_key": name, "object_key": name, "storage_uri": f"file://{path}"},
            "deid_verification": PROOF | {"content_sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        }.items():
            columns = {column.name for column in registry.table(table).columns}
            row = common | values | {key: value for key, value in keys.items() if key in columns}
            rows.setdefault(table, []).append(row)
    with research.transaction():
        for table, candidates in rows.items():
            research.replace_batch("deid", table, registry.table(table).rows(candidates), BATCH)
    return research


def indexed(lake: Lake) -> dict[str, float]:
    """Mean of the stored tensor of each instance, reached through the index."""
    found = {}
    for key, tensor_key, uri, row, mean in lake.rows(
        "SELECT instance_key, tensor_key, tensor_uri, shard_row, mean_value FROM gold.image_tensor"
    ):
        reader = ShardReader(uri_to_path(str(uri)))
        assert reader.column("tensor_key")[int(str(row))] == tensor_key
        found[str(key)] = float(reader.tensor(int(str(row))).mean())
        assert found[str(key)] == pytest.approx(float(str(mean)))
    return found


def shards(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def take_back(lake: Lake, recipe: Recipe, *names: str) -> None:
    """What a release does with withdrawn instances, and then with their tensors."""
    with lake.transaction():
        lake.connection.execute("DELETE FROM deid.deid_verification WHERE instance_key IN (SELECT unnest(?))", [names])
    withdraw_tensors(lake, {"a", "b", "c"}, recipe)


def predict(lake: Lake) -> None:
    """A prediction and an embedding for every tensor."""
    with lake.transaction():
        lake.connection.execute(
            """INSERT INTO gold.model_prediction BY NAME
            SELECT instance_key AS prediction_key, instance_key, tensor_key, 'm' AS model_name, '1' AS model_version,
                arrival_batch FROM gold.image_tensor"""
        )
        lake.connection.execute(
            """INSERT INTO gold.image_embedding BY NAME
            SELECT instance_key AS embedding_key, instance_key, tensor_key, 'm 1' AS model_key, arrival_batch
            FROM gold.image_tensor"""
        )


def said_of(lake: Lake) -> dict[str, list[object]]:
    """Instances of which the model has said something."""
    tables = ("model_prediction", "image_embedding")
    return {t: [key for (key,) in lake.rows(f"SELECT instance_key FROM gold.{t} ORDER BY 1")] for t in tables}


def test_each_index_row_points_at_its_own_tensor_and_a_rerun_changes_nothing(
    released: Lake, recipe: Recipe, tmp_path: Path
) -> None:
    counts = load_tensors(released, BATCH, recipe, tmp_path / "tensors", workers=1)
    assert (counts.selected, counts.built, counts.failed) == (3, 3, 0)
    before, files = indexed(released), shards(tmp_path / "tensors")
    assert before["a"] < before["b"] < before["c"]
    load_tensors(released, BATCH, recipe, tmp_path / "tensors", workers=1)
    assert indexed(released) == before
    assert shards(tmp_path / "tensors") == files
    assert len(files) == 1


def test_a_withdrawn_image_leaves_shard_index_predictions_and_labels(
    released: Lake, recipe: Recipe, tmp_path: Path
) -> None:
    load_tensors(released, BATCH, recipe, tmp_path / "tensors", workers=1)
    before = indexed(released)
    predict(released)
    for _ in range(2):
        take_back(released, recipe, "b")
        assert said_of(released) == {"model_prediction": ["a", "c"], "image_embedding": ["a", "c"]}
        assert indexed(released) == {"a": before["a"], "c": before["c"]}
        (path,) = shards(tmp_path / "tensors")
        assert sorted(ShardReader(path).column("instance_key")) == ["a", "c"]
    take_back(released, recipe, "a", "c")
    assert said_of(released) == {"model_prediction": [], "image_embedding": []}
    assert shards(tmp_path / "tensors") == []


def test_an_image_that_cannot_be_decoded_is_an_issue_and_the_others_go_on(
    released: Lake, recipe: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "b.dcm").write_bytes(b"no image at all")
    counts = load_tensors(released, BATCH, recipe, tmp_path / "tensors", workers=1)
    assert (counts.selected, counts.built, counts.failed) == (3, 2, 1)
    assert set(indexed(released)) == {"a", "c"}
    assert released.rows("SELECT object_key, stage FROM gold.ingest_issue") == [("b", "PIXEL")]


def test_a_kill_before_the_rows_are_written_leaves_rows_and_shard_as_they_were(
    released: Lake, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_tensors(released, BATCH, recipe, tmp_path / "tensors", workers=1)
    before = indexed(released)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "replace_all", killed)
        with pytest.raises(KeyboardInterrupt):
            take_back(released, recipe, "b")
    assert indexed(released) == before
    take_back(released, recipe, "b")
    assert set(indexed(released)) == {"a", "c"}
    assert len(shards(tmp_path / "tensors")) == 1


def test_a_prediction_goes_with_its_tensor(released: Lake, recipe: Recipe, tmp_path: Path) -> None:
    load_tensors(released, BATCH, recipe, tmp_path / "tensors", workers=1)
    predict(released)
    with released.transaction():
        released.connection.execute("DELETE FROM deid.dicom_instance WHERE instance_key = 'b'")
    load_tensors(released, BATCH, recipe, tmp_path / "tensors", workers=1)
    assert said_of(released) == {"model_prediction": ["a", "c"], "image_embedding": ["a", "c"]}
