"""The PyTorch dataset over shards."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from imaging_pipeline.objects.folder import path_to_uri, uri_to_path
from imaging_pipeline.tensors.dataset import ImageDataset, Sample
from imaging_pipeline.tensors.recipe import TensorType
from imaging_pipeline.tensors.shards import TensorRow, write_shard
from imaging_pipeline_tests.tensors.rows import rows, small_recipe


def two_shards(folder: Path, dtype: TensorType = TensorType.UINT8) -> tuple[list[Sample], list[TensorRow]]:
    """Samples in reverse order over two shards, and the rows they stand for."""
    recipe = small_recipe(dtype=dtype)
    written = rows(6, recipe)
    paths = [write_shard(folder / name, part, recipe).path for name, part in (("a", written[:4]), ("b", written[4:]))]
    samples = [Sample(path_to_uri(paths[number // 4]), number % 4, float(number)) for number in range(6)]
    return samples[::-1], written[::-1]


@pytest.mark.parametrize(("dtype", "white"), [("uint8", 255), ("uint16", 65535), ("float32", 1)])
def test_samples_are_images_from_0_to_1_and_labels(dtype: str, white: int, tmp_path: Path) -> None:
    samples, written = two_shards(tmp_path, TensorType(dtype))
    dataset = ImageDataset(samples)

    assert len(dataset) == 6
    for number, row in enumerate(written):
        picture, label = dataset[number]
        assert (picture.dtype, label.dtype) == (torch.float32, torch.float32)
        assert picture.shape == (1, 8, 8)
        assert np.allclose(picture.numpy(), row.array.astype(np.float64) / white, atol=1e-7)
        assert label.item() == 5 - number


def test_a_transform_changes_the_image_and_the_shard_stays(tmp_path: Path) -> None:
    samples, written = two_shards(tmp_path)
    before = uri_to_path(samples[0].shard).read_bytes()

    picture, _ = ImageDataset(samples, transform=lambda image: image.zero_() + 0.5)[0]

    assert torch.all(picture == 0.5)
    assert uri_to_path(samples[0].shard).read_bytes() == before
    assert np.allclose(ImageDataset(samples)[0][0].numpy() * 255, written[0].array)


def test_a_pickled_dataset_carries_no_mapped_file(tmp_path: Path) -> None:
    samples, _ = two_shards(tmp_path)
    dataset = ImageDataset(samples)
    fresh = len(pickle.dumps(dataset))
    expected = dataset[0][0]

    assert len(pickle.dumps(dataset)) == fresh
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[0][0], expected)


def test_workers_load_the_same_samples(tmp_path: Path) -> None:
    samples, _ = two_shards(tmp_path)
    dataset = ImageDataset(samples)
    expected = torch.stack([dataset[number][0] for number in range(6)])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batches = list(DataLoader(dataset, batch_size=4, num_workers=1, multiprocessing_context="fork"))

    assert torch.equal(torch.cat([pictures for pictures, _ in batches]), expected)
    assert torch.cat([labels for _, labels in batches]).tolist() == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_without_scaling_images_have_the_type_of_the_shard(dtype: str, tmp_path: Path) -> None:
    samples, written = two_shards(tmp_path, TensorType(dtype))

    images, labels = ImageDataset(samples, scale=False).batch([0, 5])

    assert images.numpy().dtype == dtype
    assert np.array_equal(images.numpy(), np.stack([written[0].array, written[5].array]))
    assert labels.tolist() == [5, 0]


def test_a_loader_gets_its_batches_at_once(tmp_path: Path) -> None:
    samples, _ = two_shards(tmp_path)
    dataset = ImageDataset(samples)

    images, labels = next(iter(DataLoader(dataset, batch_size=6)))

    assert torch.equal(images, dataset.batch(range(6))[0])
    assert labels.tolist() == [5, 4, 3, 2, 1, 0]
    assert all(torch.equal(image, dataset[number][0]) for number, image in enumerate(images))
