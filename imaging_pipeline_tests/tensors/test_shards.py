"""Shards: bytes that repeat, views that do not copy, damage that is told."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from imaging_pipeline.tensors import shards
from imaging_pipeline.tensors.recipe import TensorType
from imaging_pipeline.tensors.shards import (
    KEY_COLUMNS,
    ROWS_PER_RECORD_BATCH,
    Compression,
    ShardError,
    ShardReader,
    file_sha256,
    write_shard,
)
from imaging_pipeline_tests.tensors.rows import rows, small_recipe

COUNT = ROWS_PER_RECORD_BATCH + 5


@pytest.mark.parametrize("dtype", TensorType)
def test_every_row_comes_back(dtype: TensorType, tmp_path: Path) -> None:
    recipe = small_recipe(dtype=dtype)
    written = rows(COUNT, recipe)

    info = write_shard(tmp_path / "a.arrow", written, recipe)
    reader = ShardReader(info.path)

    assert info.rows == len(reader) == COUNT
    assert reader.recipe_digest == recipe.digest
    for number, row in enumerate(written):
        assert np.array_equal(reader.tensor(number), row.array)
    for name in KEY_COLUMNS:
        assert reader.column(name) == [getattr(row, name) for row in written]


def test_the_same_rows_make_the_same_bytes(tmp_path: Path) -> None:
    recipe = small_recipe()
    first, second = (write_shard(tmp_path / name, rows(COUNT, recipe), recipe) for name in ("a", "b"))

    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.sha256 == second.sha256 == file_sha256(first.path)
    assert first.bytes == first.path.stat().st_size


def test_a_compressed_shard_holds_the_same_tensors_in_fewer_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "BATCHES_KEPT", 1)
    recipe = small_recipe(size=64)
    written = rows(2 * ROWS_PER_RECORD_BATCH + 5, recipe)
    plain, packed, again = (
        write_shard(tmp_path / name, written, recipe, compression)
        for name, compression in (("a", Compression.NONE), ("b", Compression.LZ4), ("c", Compression.LZ4))
    )
    reader = ShardReader(packed.path)

    assert packed.bytes < plain.bytes
    assert packed.sha256 == again.sha256
    for number in (0, ROWS_PER_RECORD_BATCH, 1, len(written) - 1, 2):  # back and forth between record batches
        assert np.array_equal(reader.tensor(number), written[number].array)
        assert not reader.tensor(number).flags.writeable
    assert reader.column("frame_number") == [1] * len(written)


def test_large_tensors_are_few_to_a_record_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BYTES_PER_RECORD_BATCH", 150)
    recipe = small_recipe()
    path = write_shard(tmp_path / "a", rows(5, recipe), recipe).path

    file = pa.ipc.open_file(pa.memory_map(str(path)))
    assert [file.get_batch(position).num_rows for position in range(file.num_record_batches)] == [2, 2, 1]
    assert len(ShardReader(path)) == 5


def test_a_tensor_is_a_read_only_view_into_the_mapped_file(tmp_path: Path) -> None:
    recipe = small_recipe()
    info = write_shard(tmp_path / "a", rows(COUNT, recipe), recipe)
    reader = ShardReader(info.path)
    before = pa.total_allocated_bytes()

    views = [reader.tensor(number) for number in range(COUNT)]

    assert pa.total_allocated_bytes() == before
    assert not any(view.flags.owndata or view.flags.writeable for view in views)
    assert np.shares_memory(reader.tensor(3), views[3])
    # Rows of one record batch lie one behind the other, as in the file.
    addresses = [view.__array_interface__["data"][0] for view in views]
    assert np.diff(addresses[:ROWS_PER_RECORD_BATCH]).tolist() == [64] * (ROWS_PER_RECORD_BATCH - 1)
    offset = info.path.read_bytes().index(views[0].tobytes())
    base = addresses[0] - offset
    assert info.path.read_bytes()[addresses[-1] - base :].startswith(views[-1].tobytes())
    assert addresses[-1] - base < info.bytes


def test_a_plain_shard_is_opened_and_read_without_taking_memory(tmp_path: Path) -> None:
    recipe = small_recipe(size=64)
    info = write_shard(tmp_path / "a.arrow", rows(COUNT, recipe), recipe)
    before = pa.total_allocated_bytes()
    reader = ShardReader(info.path)
    assert all(reader.tensor(number).any() for number in range(COUNT))
    assert pa.total_allocated_bytes() - before < info.bytes / 100


def test_views_outlive_the_reader_and_a_replaced_file(tmp_path: Path) -> None:
    recipe = small_recipe()
    written = rows(3, recipe)
    path = write_shard(tmp_path / "a", written, recipe).path
    view = ShardReader(path).tensor(2)

    write_shard(path, written[:1], recipe)

    assert np.array_equal(view, written[2].array)
    assert len(ShardReader(path)) == 1


def test_plain_pyarrow_reads_tensors_and_recipe(tmp_path: Path) -> None:
    recipe = small_recipe()
    path = write_shard(tmp_path / "a", rows(2, recipe), recipe).path

    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()

    assert table.schema.field("tensor").type == pa.fixed_shape_tensor(pa.uint8(), (1, 8, 8))
    assert table.schema.metadata[b"recipe_digest"].decode() == recipe.digest
    assert json.loads(table.schema.metadata[b"recipe"])["size"] == [8, 8]


def test_a_shard_may_be_empty(tmp_path: Path) -> None:
    reader = ShardReader(write_shard(tmp_path / "a", [], small_recipe()).path)

    assert len(reader) == 0
    assert reader.column("tensor_key") == []
    with pytest.raises(IndexError):
        reader.tensor(0)


@pytest.mark.parametrize("row", [-1, 3])
def test_a_row_that_is_not_there_is_an_error(row: int, tmp_path: Path) -> None:
    recipe = small_recipe()

    with pytest.raises(IndexError):
        ShardReader(write_shard(tmp_path / "a", rows(3, recipe), recipe).path).tensor(row)


def test_a_reader_can_be_sent_to_another_process(tmp_path: Path) -> None:
    recipe = small_recipe()
    written = rows(2, recipe)
    reader = ShardReader(write_shard(tmp_path / "a", written, recipe).path)

    assert np.array_equal(pickle.loads(pickle.dumps(reader)).tensor(1), written[1].array)


def test_a_row_of_another_recipe_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected"):
        write_shard(tmp_path / "a", rows(1, small_recipe(size=16)), small_recipe())

    assert list(tmp_path.iterdir()) == []


def test_a_failed_rewrite_keeps_the_old_shard(tmp_path: Path) -> None:
    recipe = small_recipe()
    path = write_shard(tmp_path / "a", rows(2, recipe), recipe).path

    with pytest.raises(ValueError, match="expected"):
        write_shard(path, rows(1, small_recipe(size=16)), recipe)

    assert len(ShardReader(path)) == 2
    assert list(tmp_path.iterdir()) == [path]


def test_missing_truncated_and_foreign_files_are_told(tmp_path: Path) -> None:
    recipe = small_recipe()
    content = write_shard(tmp_path / "a", rows(COUNT, recipe), recipe).path.read_bytes()
    (tmp_path / "short").write_bytes(content[: len(content) // 2])
    (tmp_path / "text").write_bytes(b"hello")
    (tmp_path / "none").write_bytes(b"")
    with pa.ipc.new_file(str(tmp_path / "foreign"), pa.schema([("a", pa.int8())])) as writer:
        writer.write_batch(pa.record_batch([pa.array([1], pa.int8())], ["a"]))

    for name in ("missing", "short", "text", "none", "foreign"):
        with pytest.raises(ShardError, match=name):
            ShardReader(tmp_path / name)


def test_damage_anywhere_is_an_error_or_shows_in_the_digest(tmp_path: Path) -> None:
    recipe = small_recipe()
    info = write_shard(tmp_path / "a", rows(3, recipe), recipe)
    content = info.path.read_bytes()
    damaged = tmp_path / "damaged"

    for position in range(0, len(content), 7):
        damaged.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        assert file_sha256(damaged) != info.sha256
        try:
            reader = ShardReader(damaged)
        except ShardError:
            continue
        assert all(reader.tensor(row).shape == (1, 8, 8) for row in range(len(reader)))
