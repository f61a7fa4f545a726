"""Where shards are: folders and buckets, sizes, names, local copies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.objects.folder import uri_to_path
from imaging_pipeline.tensors.shards import Compression, ShardError, TensorRow, shard_schema
from imaging_pipeline.tensors.storage import ShardStore, StoredShard, open_shard
from imaging_pipeline_tests.servers.faults import Fault, of_key
from imaging_pipeline_tests.servers.fixtures import Bucket, bucket, gateway
from imaging_pipeline_tests.tensors.rows import rows, small_recipe

__all__ = ["bucket", "gateway"]

BYTES = 64
"""Of one tensor of the small recipe."""


def local(folder: Path, **options: object) -> ShardStore:
    return replace(ShardStore(str(folder)), **options)  # type: ignore[arg-type]


def write(store: ShardStore, written: list[TensorRow]) -> tuple[list[StoredShard], list[dict[str, object]]]:
    with store.write("recipe", "batch", shard_schema(small_recipe(), store.compression)) as writer:
        for row in written:
            writer.add(row)
    return writer.shards, list(writer.places())


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_tensors_fill_shards_of_the_wanted_size_and_each_is_found_at_its_place(tmp_path: Path) -> None:
    store, written = local(tmp_path, shard_bytes=2 * BYTES + 1), rows(5, small_recipe())

    made, places = write(store, written)

    assert [shard.rows for shard in made] == [2, 2, 1]
    for row, place in zip(written, places, strict=True):
        tensor = store.open(str(place["tensor_uri"])).tensor(int(str(place["shard_row"])))
        assert np.array_equal(tensor, row.array)
    assert store.shards("recipe", "batch") == {shard.uri: shard.bytes for shard in made}
    assert sorted(files(tmp_path)) == sorted(uri_to_path(s.uri) for s in made)


def test_the_same_tensors_make_the_same_names_and_others_make_others(tmp_path: Path) -> None:
    store, written = local(tmp_path), rows(3, small_recipe())
    (first,), _ = write(store, written)
    (again,), _ = write(store, written)
    (other,), _ = write(store, written[:2])

    assert first == again != other
    assert store.shards("recipe", "batch").keys() == {first.uri, other.uri}
    assert store.shards("recipe", "bat") == store.shards("other", "batch") == {}


def test_a_tensor_larger_than_a_shard_has_one_of_its_own_and_nothing_makes_none(tmp_path: Path) -> None:
    store = local(tmp_path, shard_bytes=1)
    assert [shard.rows for shard in write(store, rows(2, small_recipe()))[0]] == [1, 1]
    assert write(store, []) == ([], [])


def test_an_error_leaves_no_part_of_the_shard_that_was_being_written(tmp_path: Path) -> None:
    written, store = rows(3, small_recipe()), local(tmp_path, shard_bytes=3 * BYTES)
    schema = shard_schema(small_recipe())
    writer = store.write("recipe", "batch", schema)
    for row in written:
        writer.add(row)
    with pytest.raises(ValueError, match="expected"), writer:
        writer.add(rows(1, small_recipe(size=16))[0])

    assert [shard.rows for shard in writer.shards] == [3]
    assert len(files(tmp_path)) == 1


def test_removing_what_is_gone_is_fine_and_opening_it_is_told(tmp_path: Path) -> None:
    store = local(tmp_path)
    (shard,), _ = write(store, rows(1, small_recipe()))
    for _ in range(2):
        store.remove([shard.uri])
    with pytest.raises(ShardError):
        store.open(shard.uri)


def test_a_store_knows_the_place_of_any_shard(tmp_path: Path) -> None:
    (shard,), _ = write(local(tmp_path / "here"), rows(1, small_recipe()))
    beside, folder = local(tmp_path / "there").beside(shard.uri)

    assert (beside.location, folder) == (str(tmp_path / "here"), "recipe")
    assert local(tmp_path).beside("s3://bucket/a/b/recipe/x.arrow")[0].location == "s3://bucket/a/b"


def in_bucket(bucket: Bucket, cache: Path, **options: object) -> ShardStore:
    store = ShardStore(f"{bucket.uri}/some/tensors", cache, bucket.access)
    return replace(store, **options)  # type: ignore[arg-type]


def test_shards_in_a_bucket_are_fetched_once_and_mapped(bucket: Bucket, tmp_path: Path) -> None:
    written = rows(5, small_recipe())
    store = in_bucket(bucket, tmp_path / "cache", shard_bytes=3 * BYTES, compression=Compression.LZ4)
    made, places = write(store, written)

    assert files(tmp_path) == []
    assert all(shard.uri.startswith(f"{bucket.uri}/some/tensors/recipe/batch-") for shard in made)
    assert store.shards("recipe", "batch") == {shard.uri: shard.bytes for shard in made}
    for row, place in zip(written, places, strict=True):
        assert np.array_equal(store.open(str(place["tensor_uri"])).tensor(int(str(place["shard_row"]))), row.array)
    for shard in made:  # what lies in the cache is enough
        bucket.delete(shard.uri.removeprefix(f"{bucket.uri}/"))
    assert len(open_shard(made[0].uri, tmp_path / "cache")) == 3


def test_removing_a_shard_from_a_bucket_removes_its_copy(bucket: Bucket, tmp_path: Path) -> None:
    store = in_bucket(bucket, tmp_path)
    (shard,), _ = write(store, rows(2, small_recipe()))
    store.open(shard.uri)
    for _ in range(2):
        store.remove([shard.uri])

    assert files(tmp_path) == []
    assert store.shards("recipe", "batch") == {}
    with pytest.raises(ShardError, match="found none"):
        store.open(shard.uri)


def test_other_bytes_under_the_name_of_a_shard_are_told_and_not_kept(bucket: Bucket, tmp_path: Path) -> None:
    store = in_bucket(bucket, tmp_path)
    (first,), _ = write(store, rows(2, small_recipe()))
    (other,), _ = write(store, rows(3, small_recipe()))
    bucket.client.copy_object(
        Bucket=bucket.name,
        Key=first.uri.removeprefix(f"{bucket.uri}/"),
        CopySource={"Bucket": bucket.name, "Key": other.uri.removeprefix(f"{bucket.uri}/")},
    )

    with pytest.raises(ShardError, match="name"):
        store.open(first.uri)
    assert files(tmp_path) == []


def test_a_connection_that_breaks_off_costs_no_shard(bucket: Bucket, tmp_path: Path) -> None:
    store = in_bucket(bucket, tmp_path)
    (shard,), _ = write(store, rows(64, small_recipe()))
    bucket.proxy.add(Fault(of_key(shard.uri.removeprefix("s3://")), times=2, body_bytes=500))

    assert len(store.open(shard.uri)) == 64


def test_a_bucket_needs_a_folder_for_copies_and_has_to_be_there(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cache"):
        open_shard(f"{bucket.uri}/recipe/batch-0.arrow", access=bucket.access)
    missing = ShardStore("s3://no-such-bucket-of-ours/tensors", tmp_path, bucket.access)
    with pytest.raises(ConfigurationError, match="bucket"):
        missing.shards("recipe", "batch")
