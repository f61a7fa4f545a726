"""A batch of released images to shards and index rows, and the way back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake, attach
from imaging_pipeline.objects.folder import path_to_uri, uri_to_path
from imaging_pipeline.settings import Settings
from imaging_pipeline.tensors import batch
from imaging_pipeline.tensors.batch import load_tensors
from imaging_pipeline.tensors.recipe import FrameChoice, Recipe, TensorType, Values, VolumeGrid, load_recipe
from imaging_pipeline.tensors.selection import Selection
from imaging_pipeline.tensors.shards import ShardReader
from imaging_pipeline.tensors.storage import ShardStore
from imaging_pipeline.tensors.withdrawal import count_proved, withdraw_tensors
from imaging_pipeline_tests.dicom.images import image
from imaging_pipeline_tests.metadata.headers import memory_lake
from imaging_pipeline_tests.servers.fixtures import Bucket, bucket, gateway

__all__ = ["bucket", "gateway"]

BATCH, LATER = "2026-01-31.00001", "2026-01-31.00002"
PROOF = dict.fromkeys(("profile_id", "profile_version", "profile_digest", "engine_version", "source_token"), "x")
PROOF |= {"actions": "{}", "residual_hits": 0}
HOUNSFIELD: dict[str, Any] = {"values": Values.MODALITY, "range": (0.0, 1000.0), "dtype": TensorType.FLOAT32}


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("chest-xray-224")


@pytest.fixture
def store(tmp_path: Path) -> ShardStore:
    return ShardStore(str(tmp_path / "tensors"))


def release(lake: Lake, batch_id: str, entries: dict[str, dict[str, object]]) -> None:
    """Rows and files of released instances by their names, as the de-identification leaves them."""
    rows: dict[str, list[dict[str, object]]] = {}
    for name, entry in entries.items():
        path = Path(str(entry["path"]))
        common: dict[str, object] = {"arrival_batch": batch_id, "row_version": batch_id, "instance_key": name}
        common |= dict.fromkeys(("patient_key", "study_key", "series_key"), entry.get("series", name))
        common |= {"sop_instance_uid": f"2.25.{name}", "patient_domain": "p", "patient_id": f"P{common['patient_key']}"}
        common |= {"study_instance_uid": f"2.25.{name}", "series_instance_uid": f"2.25.{common['series_key']}"}
        common |= {"modality": entry.get("modality", "CR"), "body_part_examined": "CHEST", "has_pixel": True}
        common |= {"object_key": name, "location_key": name, "storage_uri": path_to_uri(path), "frame_number": 1}
        common |= PROOF | {"content_sha256": hashlib.sha256(path.read_bytes()).hexdigest()} | entry
        for table in TABLES:
            columns = {column.name for column in registry.table(table).columns}
            rows.setdefault(table, []).append({key: value for key, value in common.items() if key in columns})
    with lake.transaction():
        for table, candidates in rows.items():
            key = registry.table(table).key[0]
            once = {str(row[key]): row for row in candidates}
            where = f"{key} IN (SELECT {key} FROM staged_rows)"
            lake.replace_all("deid", table, registry.table(table).rows(list(once.values())), where=where, parameters=[])


TABLES = (
    "dicom_patient", "dicom_study", "dicom_series", "dicom_instance", "dicom_file_location", "dicom_image_pixel",
    "dicom_image_plane", "deid_verification",
)  # fmt: skip


@pytest.fixture
def research() -> Iterator[Lake]:
    """A database with the tables of the research lake: faster than a lake, and the same to this step."""
    with memory_lake("research") as lake:
        yield lake


@pytest.fixture
def released(research: Lake, tmp_path: Path) -> Lake:
    release_films(research, tmp_path)
    return research


@pytest.fixture(autouse=True)
def no_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects are worked on in this process, but for one test."""
    if request.node.name != test_in_a_lake_rows_are_written_and_taken_back_too.__name__:
        monkeypatch.setattr(batch, "map_chunks", lambda function, items, **_: map(function, [items] if items else []))


def release_films(lake: Lake, folder: Path) -> None:
    """Three released chest images of different brightness."""
    for number, name in enumerate("abc"):
        stored = np.full((8, 8), 60 * number, np.uint8)
        (folder / f"{name}.dcm").write_bytes(image(stored, WindowCenter=127.5, WindowWidth=255))
    release(lake, BATCH, {name: {"path": folder / f"{name}.dcm"} for name in "abc"})


def scan(lake: Lake, folder: Path, batch_id: str, numbers: Iterable[int], **changes: object) -> list[str]:
    """Released CT slices of one series, 6 x 6 pixels of 100 times their number."""
    entries: dict[str, dict[str, object]] = {}
    for number in numbers:
        path = folder / f"ct{number}.dcm"
        path.write_bytes(image(np.full((6, 6), 100 * number, np.uint16)))
        geometry: dict[str, object] = {"pixel_spacing": [1.0, 1.0], "image_rows": 6, "image_columns": 6}
        geometry |= {"image_position_patient": [0.0, 0.0, 2.0 * number]}
        geometry |= {"image_orientation_patient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]}
        entries[f"ct{number}"] = {"path": path, "series": "ct", "modality": "CT"} | geometry | changes
    release(lake, batch_id, entries)
    return list(entries)


def ct_recipe(slices: int = 4) -> Recipe:
    grid = VolumeGrid((2.0, 1.0, 1.0), (slices, 6, 6), minimum_slices=3)
    return replace(load_recipe("chest-xray-224"), name="ct", select=Selection(("CT",)), volume=grid, **HOUNSFIELD)


def layers(lake: Lake, store: ShardStore) -> list[list[int]]:
    """Values of each volume's slices, reached through the index."""
    rows = lake.rows("SELECT tensor_uri, shard_row FROM gold.image_tensor WHERE instance_key IS NULL")
    volumes = [store.open(str(uri)).tensor(int(str(row))) for uri, row in rows]
    return [np.rint(volume[0].mean(axis=(1, 2)) * 1000).astype(int).tolist() for volume in volumes]


def indexed(lake: Lake) -> dict[str, float]:
    """Mean of the stored tensor of each instance, reached through the index."""
    found = {}
    for key, tensor_key, uri, row, mean in lake.rows(
        """SELECT instance_key, tensor_key, tensor_uri, shard_row, mean_value FROM gold.image_tensor
        WHERE instance_key IS NOT NULL"""
    ):
        reader = ShardReader(uri_to_path(str(uri)))
        assert reader.column("tensor_key")[int(str(row))] == tensor_key
        found[str(key)] = float(reader.tensor(int(str(row))).mean())
        assert found[str(key)] == pytest.approx(float(str(mean)))
    return found


def shards(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def take_back(lake: Lake, store: ShardStore, *names: str) -> None:
    """What a release does with withdrawn instances, and then with their tensors."""
    with lake.transaction():
        lake.connection.execute("DELETE FROM deid.deid_verification WHERE instance_key IN (SELECT unnest(?))", [names])
    withdraw_tensors(lake, {"a", "b", "c", *names}, store)


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
    released: Lake, recipe: Recipe, store: ShardStore, tmp_path: Path
) -> None:
    counts = load_tensors(released, BATCH, [recipe], store, workers=1)
    assert (counts.selected, counts.built, counts.failed) == (3, 3, 0)
    before, files = indexed(released), shards(tmp_path / "tensors")
    assert before["a"] < before["b"] < before["c"]
    load_tensors(released, BATCH, [recipe], store, workers=1)
    assert indexed(released) == before
    assert shards(tmp_path / "tensors") == files
    assert len(files) == 1


def test_in_a_lake_rows_are_written_and_taken_back_too(settings: Settings, store: ShardStore, tmp_path: Path) -> None:
    with duckdb.connect() as connection:
        lake = attach(connection, settings.research)
        release_films(lake, tmp_path)
        scan(lake, tmp_path, BATCH, [1, 2, 3])
        counts = load_tensors(lake, BATCH, [load_recipe("chest-xray-224"), ct_recipe(3)], store, workers=1)
        assert [one.built for one in counts.by_recipe] == [3, 1]
        assert count_proved(lake, BATCH) == (4, 4)
        lake.connection.execute(
            "UPDATE deid.deid_verification SET content_sha256 = '' WHERE instance_key IN ('a', 'ct2')"
        )
        assert count_proved(lake, BATCH) == (4, 2)
        take_back(lake, store, "b", "ct1")
        assert (set(indexed(lake)), layers(lake, store)) == ({"c"}, [])
        assert len(shards(tmp_path / "tensors")) == 1


def test_a_withdrawn_image_leaves_shard_index_predictions_and_labels(
    released: Lake, recipe: Recipe, store: ShardStore, tmp_path: Path
) -> None:
    load_tensors(released, BATCH, [recipe], store, workers=1)
    before = indexed(released)
    predict(released)
    for _ in range(2):
        take_back(released, store, "b")
        assert said_of(released) == {"model_prediction": ["a", "c"], "image_embedding": ["a", "c"]}
        assert indexed(released) == {"a": before["a"], "c": before["c"]}
        (path,) = shards(tmp_path / "tensors")
        assert sorted(ShardReader(path).column("instance_key")) == ["a", "c"]
    take_back(released, store, "a", "c")
    assert said_of(released) == {"model_prediction": [], "image_embedding": []}
    assert shards(tmp_path / "tensors") == []


def test_an_image_that_cannot_be_decoded_is_an_issue_and_the_others_go_on(
    released: Lake, recipe: Recipe, store: ShardStore, tmp_path: Path
) -> None:
    (tmp_path / "b.dcm").write_bytes(b"no image at all")
    counts = load_tensors(released, BATCH, [recipe], store, workers=1)
    assert (counts.selected, counts.built, counts.failed) == (3, 2, 1)
    assert set(indexed(released)) == {"a", "c"}
    assert released.rows("SELECT object_key, stage FROM gold.ingest_issue") == [("b", "PIXEL")]


def test_a_kill_before_the_rows_are_written_leaves_rows_and_shard_as_they_were(
    released: Lake, recipe: Recipe, store: ShardStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_tensors(released, BATCH, [recipe], store, workers=1)
    before = indexed(released)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "replace_all", killed)
        with pytest.raises(KeyboardInterrupt):
            take_back(released, store, "b")
    assert indexed(released) == before
    take_back(released, store, "b")
    assert set(indexed(released)) == {"a", "c"}
    assert len(shards(tmp_path / "tensors")) == 1


def test_a_prediction_goes_with_its_tensor(released: Lake, recipe: Recipe, store: ShardStore) -> None:
    load_tensors(released, BATCH, [recipe], store, workers=1)
    predict(released)
    with released.transaction():
        released.connection.execute("DELETE FROM deid.dicom_instance WHERE instance_key = 'b'")
    load_tensors(released, BATCH, [recipe], store, workers=1)
    assert said_of(released) == {"model_prediction": ["a", "c"], "image_embedding": ["a", "c"]}


def test_several_recipes_are_built_in_one_pass_and_apart(released: Lake, recipe: Recipe, store: ShardStore) -> None:
    small = replace(recipe, name="small", size=(4, 4))
    counts = load_tensors(released, BATCH, [recipe, small], store, workers=1)

    assert (counts.selected, counts.built, counts.failed) == (6, 6, 0)
    assert [one.recipe.name for one in counts.by_recipe] == ["chest-xray-224", "small"]
    assert counts.shard_bytes == sum(path.stat().st_size for path in shards(Path(store.location)))
    rows = released.rows("SELECT recipe_json->>'name', shape, count(*) FROM gold.image_tensor GROUP BY ALL ORDER BY 1")
    assert rows == [("chest-xray-224", [1, 224, 224], 3), ("small", [1, 4, 4], 3)]
    alone = replace(small, name="small")
    load_tensors(released, BATCH, [alone], store, workers=1)  # the other recipe's tensors are left alone
    assert released.rows("SELECT count(*) FROM gold.image_tensor") == [(6,)]


def test_a_condition_chooses_by_any_research_table(released: Lake, recipe: Recipe, store: ShardStore) -> None:
    where = "patient_id <> 'Pb' AND instance_key IN (SELECT instance_key FROM deid.dicom_image_plane) -- not b"
    some = replace(recipe, select=replace(recipe.select, where=where))

    assert load_tensors(released, BATCH, [some, recipe], store, workers=1).by_recipe[0].built == 2
    rows = released.rows("SELECT instance_key FROM gold.image_tensor WHERE recipe_id = ? ORDER BY 1", [some.digest])
    assert rows == [("a",), ("c",)]


@pytest.mark.parametrize(
    ("where", "told"), [("no_such_column > 1", "no_such_column"), ("patient_id::INTEGER > 1", "TRY_CAST")]
)
def test_a_condition_that_does_not_fit_the_tables_is_told_without_values(
    where: str, told: str, released: Lake, recipe: Recipe, store: ShardStore
) -> None:
    wrong = replace(recipe, select=replace(recipe.select, where=where))
    with pytest.raises(ConfigurationError, match=told) as refusal:
        load_tensors(released, BATCH, [wrong], store, workers=1)
    assert "Pa" not in str(refusal.value)


def test_every_frame_has_its_row(research: Lake, recipe: Recipe, store: ShardStore, tmp_path: Path) -> None:
    stored = np.repeat(np.array([10, 20, 30], np.uint8), 64).reshape(3, 8, 8)
    (tmp_path / "cine.dcm").write_bytes(image(stored, WindowCenter=127.5, WindowWidth=255))
    release(research, BATCH, {"cine": {"path": tmp_path / "cine.dcm", "number_of_frames": 3}})
    every = replace(recipe, frames=FrameChoice.ALL)

    counts = load_tensors(research, BATCH, [every], store, workers=1)

    assert (counts.selected, counts.built) == (1, 3)
    rows = research.rows("SELECT frame_number, max_value, series_key FROM gold.image_tensor ORDER BY 1")
    assert rows == [(1, 10, "cine"), (2, 20, "cine"), (3, 30, "cine")]


def test_issues_of_other_steps_stay_and_those_of_a_recipe_name_it(
    released: Lake, recipe: Recipe, store: ShardStore, tmp_path: Path
) -> None:
    with released.transaction():
        released.connection.execute(
            """INSERT INTO gold.ingest_issue (issue_key, object_key, message, arrival_batch)
            VALUES ('k', 'a', 'thumbnail: of another step', ?)""",
            [BATCH],
        )
    (tmp_path / "b.dcm").write_bytes(b"no image at all")
    for _ in range(2):
        load_tensors(released, BATCH, [recipe], store, workers=1)
        messages = [str(message) for (message,) in released.rows("SELECT message FROM gold.ingest_issue ORDER BY 1")]
        assert [message.split(":")[0] for message in messages] == ["recipe chest-xray-224", "thumbnail"]


def test_a_series_becomes_a_volume_in_the_batch_of_its_latest_slice(
    research: Lake, store: ShardStore, tmp_path: Path
) -> None:
    scan(research, tmp_path, BATCH, [3, 1, 2])
    first = load_tensors(research, BATCH, [ct_recipe(3)], store, workers=1)
    assert (first.selected, first.built) == (1, 1)
    assert layers(research, store) == [[100, 200, 300]]
    row = research.query(
        "SELECT instance_key, sop_instance_uid, frame_number, series_key, source_instance_keys FROM gold.image_tensor"
    ).to_pylist()
    expected = {"series_key": "ct", "source_instance_keys": ["ct1", "ct2", "ct3"]}
    assert row == [dict.fromkeys(("instance_key", "sop_instance_uid", "frame_number")) | expected]

    new = scan(research, tmp_path, LATER, [4])
    withdraw_tensors(research, set(new), store)
    assert (layers(research, store), shards(tmp_path / "tensors")) == ([], [])
    again = [load_tensors(research, each, [ct_recipe(4)], store, workers=1).built for each in (BATCH, LATER, BATCH)]
    assert again == [0, 1, 0]
    assert layers(research, store) == [[100, 200, 300, 400]]


def test_a_volume_goes_with_any_of_its_slices_and_is_made_anew_without_it(
    research: Lake, store: ShardStore, tmp_path: Path
) -> None:
    keys = set(scan(research, tmp_path, BATCH, [1, 2, 3, 4]))
    load_tensors(research, BATCH, [ct_recipe()], store, workers=1)
    withdraw_tensors(research, keys, store)
    assert layers(research, store) == [[100, 200, 300, 400]]  # nothing has changed

    with research.transaction():
        for table in ("deid_verification", "dicom_instance"):
            research.connection.execute(f"DELETE FROM deid.{table} WHERE instance_key = 'ct4'")
    for _ in range(2):
        withdraw_tensors(research, {"ct4"}, store)
        assert (layers(research, store), shards(tmp_path / "tensors")) == ([], [])
    load_tensors(research, BATCH, [ct_recipe(3)], store, workers=1)
    assert layers(research, store) == [[100, 200, 300]]


def test_a_slice_that_is_taken_back_while_its_volume_is_made_leaves_none(
    research: Lake, store: ShardStore, tmp_path: Path
) -> None:
    scan(research, tmp_path, BATCH, [1, 2, 3])

    def taken_back(*_: int) -> None:
        with research.transaction():
            research.connection.execute("DELETE FROM deid.deid_verification WHERE instance_key = 'ct2'")

    counts = load_tensors(research, BATCH, [ct_recipe()], store, workers=1, progress=taken_back)
    assert (counts.selected, counts.built, counts.shard_bytes) == (0, 0, 0)
    assert (layers(research, store), shards(tmp_path / "tensors")) == ([], [])


def test_a_series_that_is_no_volume_is_an_issue_under_its_key(
    research: Lake, store: ShardStore, tmp_path: Path
) -> None:
    scan(research, tmp_path, BATCH, [1, 2, 3, 5])
    counts = load_tensors(research, BATCH, [ct_recipe()], store, workers=1)

    assert (counts.selected, counts.built, counts.failed) == (1, 0, 1)
    ((key, stage, message),) = research.rows("SELECT object_key, stage, message FROM gold.ingest_issue")
    assert (key, stage) == ("ct", "PIXEL")
    assert "recipe ct: expected slices without gaps, found 1 gaps in 4" in str(message)


def test_a_slice_whose_file_is_not_the_one_that_was_proved_makes_no_volume(
    research: Lake, store: ShardStore, tmp_path: Path
) -> None:
    scan(research, tmp_path, BATCH, [1, 2, 3])
    (tmp_path / "ct2.dcm").write_bytes(image(np.full((6, 6), 9, np.uint16)))
    counts = load_tensors(research, BATCH, [ct_recipe(3)], store, workers=1)

    assert counts.failed == 1
    assert research.rows("SELECT stage, issue_code FROM gold.ingest_issue") == [("FETCH", "unreadable")]


def test_a_damaged_shard_is_taken_out_whole(released: Lake, recipe: Recipe, store: ShardStore, tmp_path: Path) -> None:
    load_tensors(released, BATCH, [recipe], store, workers=1)
    (path,) = shards(tmp_path / "tensors")
    path.write_bytes(path.read_bytes()[:1000])
    take_back(released, store, "b")

    assert (indexed(released), shards(tmp_path / "tensors")) == ({}, [])
    load_tensors(released, BATCH, [recipe], store, workers=1)
    assert "a" in indexed(released)


def test_tensors_live_in_a_bucket_as_in_a_folder(
    released: Lake, recipe: Recipe, bucket: Bucket, tmp_path: Path
) -> None:
    store = ShardStore(f"{bucket.uri}/tensors", tmp_path / "cache", bucket.access)
    load_tensors(released, BATCH, [recipe], store, workers=1)
    before = load_tensors(released, BATCH, [recipe], store, workers=1)
    take_back(released, store, "b")

    rows = released.rows("SELECT instance_key, tensor_uri, shard_row FROM gold.image_tensor ORDER BY 1")
    assert [key for key, *_ in rows] == ["a", "c"]
    means = [float(store.open(str(uri)).tensor(int(str(row))).mean()) for _, uri, row in rows]
    assert means == pytest.approx([0, 120], abs=1)
    assert store.shards(f"{recipe.name}-{recipe.digest[:12]}", BATCH).keys() == {uri for _, uri, _ in rows}
    assert before.shard_bytes > 0
