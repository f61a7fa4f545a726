"""Images that are nearly the same are found; films that only look alike are not."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imaging_pipeline.samples.phantoms import make_image, plan_patient
from imaging_pipeline.tensors.build import TensorSource, build_tensor
from imaging_pipeline.tensors.duplicates import MOST_BITS, fingerprint, twins_on_stricter_sides
from imaging_pipeline.tensors.recipe import load_recipe
from imaging_pipeline.tensors.shards import TensorRow
from imaging_pipeline.tensors.splits import Split

FILMS = Path(__file__).parents[3] / "shared" / "data" / "cxr" / "images"


def distance(one: np.ndarray, other: np.ndarray) -> int:
    first, second = fingerprint(one), fingerprint(other)
    assert first is not None
    assert second is not None
    return int(np.bitwise_count(first ^ second).sum())


def jpeg(tensor: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(tensor[0]).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))[None]


def film(seed: int) -> np.ndarray:
    """Smooth shapes, as a radiograph has them."""
    rows, columns = np.mgrid[0:224, 0:224] / 224
    a, b, c, d = np.random.default_rng(seed).uniform(2, 9, 4)
    return (127 + 60 * np.sin(a * rows + b * columns) + 60 * np.cos(c * columns - d * rows)).astype(np.uint8)[None]


@pytest.mark.parametrize("seed", range(5))
def test_compression_brightness_noise_and_depth_change_few_bits(seed: int) -> None:
    image = film(seed)
    noise = np.random.default_rng(seed).normal(0, 1, image.shape)
    for changed in (
        jpeg(image, 85),
        np.clip(image * 0.9 + 10, 0, 255).astype(np.uint8),
        np.clip(image + noise, 0, 255).astype(np.uint8),
        image.astype(np.uint16) * 257,
        image.astype(np.float32) / 255,
        np.repeat(image, 3, axis=0),
    ):
        assert distance(image, changed) <= MOST_BITS
    assert distance(image, film(seed + 100)) > MOST_BITS


def test_an_image_of_one_brightness_has_no_hash() -> None:
    assert fingerprint(np.zeros((1, 8, 8), np.uint8)) is None


def test_a_volume_is_known_by_its_middle_slice() -> None:
    volume = np.stack([film(1)[0], film(2)[0], film(3)[0]])[None]
    assert np.array_equal(fingerprint(volume), fingerprint(film(2)))


def test_the_strictest_side_keeps_an_image_that_is_on_three() -> None:
    names = {"a": Split.TRAIN, "b": Split.VAL, "c": Split.TEST, "d": Split.TRAIN, "e": Split.VAL, "f": Split.TRAIN}
    films = {"a": film(1), "b": film(1), "c": jpeg(film(1), 90), "d": film(2), "e": film(2), "f": film(3)}
    prints = {name: fingerprint(image) for name, image in films.items()}
    assert twins_on_stricter_sides(names, dict.fromkeys(names, "") | {n: n for n in names}, prints) == {"a", "b", "d"}


def test_the_search_finds_what_comparing_all_pairs_finds() -> None:
    chance = np.random.default_rng(4)
    prints = {str(number): chance.integers(0, 2**32, 18, dtype=np.uint32) for number in range(60)}
    for number in range(30):  # twins at every distance around the limit
        bits = np.unpackbits(prints[str(number)].view(np.uint8))
        bits[chance.choice(576, number, replace=False)] ^= 1
        prints[f"twin {number}"] = np.packbits(bits).view(np.uint32)
    sides = {name: Split.TRAIN if name.startswith("twin") else Split.TEST for name in prints}
    expected = {f"twin {number}" for number in range(MOST_BITS + 1)}
    assert twins_on_stricter_sides(sides, {name: name for name in prints}, dict(prints)) == expected


def test_phantoms_of_different_patients_are_not_the_same() -> None:
    recipe = load_recipe("chest-xray-224")
    made = [
        build_tensor(
            TensorSource(str(number), "2.25.1", "p"), make_image(next(plan_patient(7, number, 224))).content, recipe
        )
        for number in range(12)
    ]
    films = [row.array for row in made if isinstance(row, TensorRow)]
    assert len(films) == 12
    assert all(distance(one, other) > MOST_BITS for one, other in itertools.combinations(films, 2))


@pytest.mark.skipif(not FILMS.is_dir(), reason="no films here")
def test_films_of_different_patients_are_not_the_same() -> None:
    paths = sorted(FILMS.rglob("*.jp*g"))[::40]
    films = [np.asarray(Image.open(path).convert("L").resize((224, 224)))[None] for path in paths]
    prints = np.stack([fingerprint(image) for image in films])
    nearest = min(np.bitwise_count(prints[n + 1 :] ^ prints[n]).sum(axis=1).min() for n in range(len(prints) - 1))
    assert nearest > 2 * MOST_BITS
