"""Streams of batches: everything once, shared out without loss, and resumed where they were."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.objects.folder import path_to_uri
from imaging_pipeline.tensors.dataset import Sample
from imaging_pipeline.tensors.shards import write_shard
from imaging_pipeline.tensors.streaming import Batch, ImageStream, StreamLoader
from imaging_pipeline_tests.tensors.rows import rows, small_recipe

COUNT = 23


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Samples of three shards, each with its number as its label."""
    folder, recipe = tmp_path_factory.mktemp("shards"), small_recipe()
    made = rows(COUNT, recipe)
    places: list[Sample] = []
    for number, part in enumerate((made[:9], made[9:10], made[10:])):
        uri = path_to_uri(write_shard(Path(folder) / f"{number}.arrow", part, recipe).path)
        places += [Sample(uri, row, float(len(places) + row)) for row in range(len(part))]
    return places


def stream(samples: list[Sample], **options: object) -> ImageStream:
    return ImageStream(samples, 4, scale=False, **options)  # type: ignore[arg-type]


def numbers(batches: Iterable[Batch]) -> list[int]:
    return [int(label) for _, labels in batches for label in labels]


def test_an_epoch_gives_every_sample_once_in_an_order_of_its_own(samples: list[Sample]) -> None:
    loader = StreamLoader(stream(samples, seed=3))
    first, second = numbers(loader), numbers(loader)
    assert sorted(first) == sorted(second) == list(range(COUNT))
    assert first != second != list(range(COUNT))
    assert numbers(StreamLoader(stream(samples, seed=3))) == first
    assert numbers(StreamLoader(stream(samples, shuffle=False))) == list(range(COUNT))


def test_the_order_of_a_seed_and_epoch_is_pinned() -> None:
    places = [Sample("file:///x", row, 0.0) for row in range(8)]
    assert ImageStream(places, 4, seed=1).order().tolist() == PINNED


PINNED = [2, 4, 7, 5, 0, 6, 3, 1]


def test_images_go_with_their_labels(samples: list[Sample]) -> None:
    made = rows(COUNT, small_recipe())
    for images, labels in StreamLoader(stream(samples)):
        assert images.dtype == torch.uint8
        for image, label in zip(images, labels, strict=True):
            assert np.array_equal(image.numpy(), made[int(label)].array)


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_ranks_share_the_samples_without_loss_or_repetition(samples: list[Sample], ranks: int) -> None:
    shares = [numbers(StreamLoader(stream(samples, seed=5, rank=rank, ranks=ranks))) for rank in range(ranks)]
    assert sorted(chain(*shares)) == list(range(COUNT))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_ranks_get_equally_many_full_batches_where_the_rest_is_dropped(samples: list[Sample]) -> None:
    streams = [stream(samples, rank=rank, ranks=2, drop_last=True) for rank in range(2)]
    sizes = [[len(labels) for _, labels in StreamLoader(each)] for each in streams]
    assert sizes == [[4, 4], [4, 4]]
    assert [len(each) for each in streams] == [2, 2]


def test_workers_change_neither_batches_nor_order(samples: list[Sample]) -> None:
    alone = [labels.tolist() for _, labels in StreamLoader(stream(samples, seed=2))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = StreamLoader(stream(samples, seed=2), 3, multiprocessing_context="fork")
        assert [labels.tolist() for _, labels in loader] == alone
        assert numbers(loader) != list(chain(*alone)), "the next epoch has another order with workers too"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stopped_loader_goes_on_behind_its_last_batch(samples: list[Sample], workers: int) -> None:
    whole = StreamLoader(stream(samples, seed=9))
    expected = numbers(whole) + numbers(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"multiprocessing_context": "fork"} if workers else {}
        loader = StreamLoader(stream(samples, seed=9), workers, **options)
        seen = numbers(loader)
        for number, (_, labels) in enumerate(loader):
            seen += [int(label) for label in labels]
            if number == 2:
                break
        state = loader.state_dict()
        again = StreamLoader(stream(samples, seed=9), workers, **options)
        again.load_state_dict(state)
        assert seen + numbers(again) == expected


def test_a_position_in_another_stream_is_refused(samples: list[Sample]) -> None:
    state = StreamLoader(stream(samples, seed=1)).state_dict()
    with pytest.raises(ConfigurationError, match="seed"):
        stream(samples, seed=2).load_state_dict(state)
    with pytest.raises(ConfigurationError, match="samples"):
        stream(samples[:5], seed=1).load_state_dict(state)


def test_transforms_of_torchvision_are_applied_to_each_image(samples: list[Sample]) -> None:
    from torchvision.transforms import v2

    turned = v2.Compose([v2.RandomHorizontalFlip(1.0), v2.ToDtype(torch.float32, scale=True)])
    plain = next(iter(StreamLoader(stream(samples, shuffle=False))))[0]
    flipped = next(iter(StreamLoader(ImageStream(samples, 4, turned, shuffle=False, scale=False))))[0]
    assert torch.allclose(flipped, plain.flip(-1) / 255)


def test_a_plain_loader_takes_a_stream_too(samples: list[Sample]) -> None:
    each = stream(samples, seed=4)
    first = numbers(DataLoader(each, batch_size=None))
    each.set_epoch(1)
    assert sorted(numbers(DataLoader(each, batch_size=None))) == sorted(first)


@pytest.mark.parametrize("options", [{"rank": 2, "ranks": 2}, {"rank": 0}, {"ranks": 2}, {"rank": -1, "ranks": 2}])
def test_a_turn_that_cannot_be_is_refused(samples: list[Sample], options: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="rank"):
        stream(samples, **options)
    with pytest.raises(ConfigurationError, match="persistent_workers"):
        StreamLoader(stream(samples), 1, persistent_workers=True)
