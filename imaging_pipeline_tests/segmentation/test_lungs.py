"""The network of the package on phantoms it has not seen, on real films, and on what is no film."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from imaging_pipeline.dicom.pixels import open_image, render_levels
from imaging_pipeline.samples.anatomy import Phantom, chest_phantom
from imaging_pipeline.samples.body import View
from imaging_pipeline.segmentation.lungs import Lungs, Quality, Segmenter, find_lungs, plausible_masks
from imaging_pipeline.segmentation.models import load_lung_model

REAL_FILMS = Path(__file__).resolve().parents[3] / "shared" / "data" / "cxr"


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return load_lung_model().segmenter


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    rng = np.random.default_rng(2026)
    return [
        chest_phantom(rng, 192, pneumonia=number % 2 == 1, view=(View.PA, View.AP)[number % 3 == 0])
        for number in range(12)
    ]


@pytest.fixture(scope="module")
def found(segmenter: Segmenter, phantoms: list[Phantom]) -> list[Lungs]:
    return find_lungs(segmenter, [phantom.image for phantom in phantoms])


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_each_lung_of_a_phantom_is_found_on_its_side(phantoms: list[Phantom], found: list[Lungs]) -> None:
    agreement = [
        [dice(mask, truth) for mask, truth in zip(lungs.masks, phantom.lungs, strict=True)]
        for phantom, lungs in zip(phantoms, found, strict=True)
    ]
    assert np.mean(agreement) > 0.9
    assert np.min(agreement) > 0.7
    assert {lungs.quality for lungs in found} == {Quality.PLAUSIBLE}


def test_masks_are_one_piece_each_without_holes_and_share_no_pixel(found: list[Lungs]) -> None:
    import cv2

    for lungs in found:
        assert not np.logical_and(*lungs.masks).any()
        for mask in lungs.masks:
            pieces, _ = cv2.connectedComponents(mask.astype(np.uint8))
            around, _ = cv2.connectedComponents(np.pad(~mask, 1, constant_values=True).astype(np.uint8))
            assert (pieces, around) == (2, 2)


def test_neither_the_tone_curve_nor_the_size_of_a_film_matters(
    segmenter: Segmenter, phantoms: list[Phantom], found: list[Lungs]
) -> None:
    darker = find_lungs(segmenter, [0.1 + 0.6 * phantom.image**2.2 for phantom in phantoms])
    assert np.mean([dice(one.both, two.both) for one, two in zip(found, darker, strict=True)]) > 0.98
    larger = find_lungs(segmenter, [phantom.image for phantom in phantoms[:2]], sizes=[(500, 400), (300, 310)])
    assert [lungs.masks.shape for lungs in larger] == [(2, 500, 400), (2, 300, 310)]
    for lungs, as_seen in zip(larger, found, strict=False):
        assert lungs.shares == pytest.approx(as_seen.shares, abs=0.01)


def no_films() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    rows, columns = np.indices((160, 160)) / 160
    page = np.ones((160, 160))
    page[10::12, 15:140] = 0
    return {
        "black": np.zeros((160, 160)),
        "noise": rng.random((160, 160)),
        "ramp": rows,
        "page": page,
        "disc": ((rows - 0.5) ** 2 + (columns - 0.5) ** 2 < 0.16) * 0.7,
    }


@pytest.mark.parametrize("name", no_films())
def test_what_is_no_frontal_film_has_no_plausible_lungs(segmenter: Segmenter, name: str) -> None:
    (lungs,) = find_lungs(segmenter, [np.ascontiguousarray(no_films()[name], np.float32)])
    assert lungs.quality is not Quality.PLAUSIBLE
    assert plausible_masks(segmenter, [(name, no_films()[name].astype(np.float32))]) == {}


def test_masks_are_kept_by_key(segmenter: Segmenter, phantoms: list[Phantom], found: list[Lungs]) -> None:
    masks = plausible_masks(segmenter, ((str(number), phantom.image) for number, phantom in enumerate(phantoms)))
    assert list(masks) == [str(number) for number in range(len(phantoms))]
    assert all(np.array_equal(masks[str(number)], lungs.both) for number, lungs in enumerate(found))


def test_a_real_angiogram_is_looked_at_without_harm(segmenter: Segmenter) -> None:
    frame = open_image(Path(get_testdata_file("examples_palette.dcm")).read_bytes()).frame(0)
    film = render_levels(frame) if not frame.is_color else np.zeros((10, 10), np.uint8)
    assert find_lungs(segmenter, [film.astype(np.float32) / 255])[0].masks.any() in (True, False)


@pytest.mark.skipif(not REAL_FILMS.is_dir(), reason="the films of adults and children are not on this machine")
@pytest.mark.parametrize("source", ["nih", "kermany"])
def test_most_real_films_show_two_lungs_of_plausible_size(segmenter: Segmenter, source: str) -> None:
    with (REAL_FILMS / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == source]
    chosen = rows[:: len(rows) // 60][:60]
    films = [np.asarray(Image.open(REAL_FILMS / row["file"]).convert("L"), np.float32) / 255 for row in chosen]
    lungs = find_lungs(segmenter, films)
    assert np.mean([each.quality is Quality.PLAUSIBLE for each in lungs]) > 0.8
    assert 0.15 < np.median([sum(each.shares) for each in lungs]) < 0.35
