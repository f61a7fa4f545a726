"""Members that are volumes, and members whose shards lie in a bucket: frozen, proved, streamed and exported alike."""

from __future__ import annotations

import warnings
from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch

from imaging_pipeline.lake.store import Lake, attach
from imaging_pipeline.settings import Settings
from imaging_pipeline.tensors.candidates import groups_of
from imaging_pipeline.tensors.dataset import ImageDataset
from imaging_pipeline.tensors.export import ExportFormat, export_version
from imaging_pipeline.tensors.frozen import VersionLost, find_version, load_version, rebuild_version
from imaging_pipeline.tensors.recipe import VolumeGrid
from imaging_pipeline.tensors.shards import Compression
from imaging_pipeline.tensors.splits import split_of
from imaging_pipeline.tensors.storage import ShardStore
from imaging_pipeline.tensors.streaming import ImageStream, StreamLoader
from imaging_pipeline.tensors.withdrawal import withdraw_tensors
from imaging_pipeline_tests.servers.fixtures import Bucket, bucket, gateway
from imaging_pipeline_tests.tensors.labelled import PLAN, Labelled, members, picture
from imaging_pipeline_tests.tensors.rows import small_recipe

__all__ = ["bucket", "gateway"]

SHAPE = (4, 6, 5)


def volumes(lake: Lake, folder: Path, count: int = 6) -> Labelled:
    """Series of two slices; their tensors as images of one recipe, and each as a volume of another."""
    labelled = Labelled(lake, folder)
    for number in range(count):
        for name in (f"{number}a", f"{number}b"):
            labelled.add(name, f"s{number}", images=2, label=float(number % 2), sex="F")
    labelled.recipe = small_recipe(volume=VolumeGrid((2.0, 1.0, 1.0), SHAPE), size=SHAPE[1:])
    for number in range(count):
        labelled.put_tensor(f"volume-{number}", f"s{number}", picture(f"volume-{number}", labelled.recipe))
    return labelled


def test_volumes_are_members_by_their_series_and_are_labelled_by_their_slices(research: Lake, tmp_path: Path) -> None:
    labelled = volumes(research, tmp_path)
    labelled.put_label("3a", 0.0)  # its other slice says otherwise
    frozen = labelled.freeze()
    assert members(frozen) == ["volume-0", "volume-1", "volume-2", "volume-4", "volume-5"]
    assert frozen.left_out == {"its labels disagree": 1}
    for member in frozen.members:
        number = member.tensor_key[-1]
        assert (member.instance_key, member.subject_key, member.label) == ("", f"s{number}", float(int(number) % 2))
        assert member.split is split_of(f"s{number}", seed=PLAN.seed, fractions=PLAN.fractions)
    assert groups_of(research, ["s0"]) == {"s0": {"sex": "F", "age": "40-49", "modality": "DX"}}
    assert rebuild_version(research, frozen.version, labelled.store.open).members == frozen.members


def test_volumes_are_streamed_and_exported_whole(research: Lake, tmp_path: Path) -> None:
    labelled = volumes(research, tmp_path / "shards")
    frozen = labelled.freeze()
    (images, labels), *rest = StreamLoader(ImageStream(frozen.members, 6, shuffle=False, scale=False))
    assert (images.shape, images.dtype, rest) == ((6, 1, *SHAPE), torch.uint8, [])
    assert labels.tolist() == [member.label for member in frozen.members]
    record = find_version(research, "small")
    assert export_version(frozen, record, {}, tmp_path / "out", ExportFormat.FOLDER, labelled.store.open)
    for number, member in enumerate(frozen.members):
        tensor = np.load(tmp_path / "out" / member.split / f"{member.tensor_key}.npy")
        assert np.array_equal(tensor, images[number].numpy())
        assert np.array_equal(tensor, picture(member.tensor_key, labelled.recipe))


def test_a_volume_of_which_a_slice_is_taken_back_makes_its_version_lost(research: Lake, tmp_path: Path) -> None:
    labelled = volumes(research, tmp_path)
    frozen = labelled.freeze()
    withdraw_tensors(research, {"4b"}, labelled.store)
    with pytest.raises(VersionLost, match="1 of the 6 images"):
        load_version(research, frozen.version)


@pytest.mark.parametrize("compression", list(Compression))
def test_versions_of_shards_in_a_bucket_are_proved_streamed_exported_and_lost(
    bucket: Bucket, settings: Settings, tmp_path: Path, compression: Compression
) -> None:
    store = ShardStore(f"{bucket.uri}/tensors", tmp_path / "cache", bucket.access, compression=compression)
    with duckdb.connect() as connection:
        lake = attach(connection, settings.research)
        labelled = Labelled(lake, store)
        for number in range(6):
            labelled.add(f"i{number}", label=float(number % 2))
        frozen = labelled.freeze()
        assert all(member.shard.startswith(f"{bucket.uri}/tensors/") for member in frozen.members)

        elsewhere = ShardStore("", tmp_path / "fresh", bucket.access)
        version = rebuild_version(lake, frozen.version, elsewhere.open)
        assert version.members == load_version(lake, frozen.version).members == frozen.members
        assert len(list((tmp_path / "fresh").rglob("*.arrow"))) == len(frozen.members)

        images = ImageDataset(version.members, scale=False, open_shard=elsewhere.open)
        for (image, label), member in zip(images, version.members, strict=True):
            assert np.array_equal(image.numpy(), picture(member.tensor_key, labelled.recipe))
            assert label == member.label
        record = find_version(lake, "small")
        assert export_version(version, record, {}, tmp_path / "out", ExportFormat.FOLDER, elsewhere.open)
        assert len(list((tmp_path / "out").rglob("*.png"))) == len(frozen.members)

        withdraw_tensors(lake, {"i3"}, store)
        with pytest.raises(VersionLost, match="1 of the 6 images"):
            rebuild_version(lake, frozen.version, elsewhere.open)
    assert not any("i3" in path.name for path in (tmp_path / "cache").rglob("*.arrow"))


def test_workers_fetch_shards_from_a_bucket_by_themselves(bucket: Bucket, research: Lake, tmp_path: Path) -> None:
    store = ShardStore(f"{bucket.uri}/tensors", tmp_path / "cache", bucket.access)
    labelled = Labelled(research, store)
    for number in range(6):
        labelled.add(f"i{number}")
    stream = ImageStream(
        labelled.freeze().members, 2, open_shard=ShardStore("", tmp_path / "fresh", bucket.access).open
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forks in a process with threads
        batches = list(StreamLoader(stream, 2, multiprocessing_context="fork"))
    assert sum(len(labels) for _, labels in batches) == 6
    assert len(list((tmp_path / "fresh").rglob("*.arrow"))) == 6
