"""The pixels of a chest phantom and their ground truth."""

from __future__ import annotations

import numpy as np
import pytest

from imaging_pipeline.samples.anatomy import Box, Phantom, chest_phantom
from imaging_pipeline.samples.body import View

SIZE = 224


def phantom(seed: int, *, pneumonia: bool, size: int = SIZE, view: View = View.PA) -> Phantom:
    return chest_phantom(np.random.default_rng(seed), size, pneumonia=pneumonia, view=view)


def mirrored(box: Box, columns: int) -> Box:
    return Box(columns - box.x - box.width, box.y, box.width, box.height)


def inside(phantom: Phantom, box: Box) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    mask = np.zeros(phantom.image.shape, bool)
    mask[box.y : box.y + box.height, box.x : box.x + box.width] = True
    return mask & phantom.lung_mask


def test_the_same_seed_gives_the_same_phantom() -> None:
    first, second = phantom(1, pneumonia=True), phantom(1, pneumonia=True)
    assert np.array_equal(first.image, second.image)
    assert first.boxes == second.boxes
    assert not np.array_equal(first.image, phantom(2, pneumonia=True).image)


@pytest.mark.parametrize("size", [96, 224, 400])
def test_image_and_mask_have_the_size_and_types_promised(size: int) -> None:
    drawn = phantom(3, pneumonia=True, size=size)
    assert drawn.image.shape == drawn.lung_mask.shape == (size, size)
    assert drawn.image.dtype == np.float32
    assert drawn.lung_mask.dtype == np.bool_
    assert 0 <= drawn.image.min() < 0.1
    assert 0.5 < drawn.image.max() <= 1


def test_a_size_too_small_for_anatomy_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 96 pixels"):
        phantom(1, pneumonia=False, size=95)


def test_boxes_lie_in_the_image_and_exist_only_with_pneumonia() -> None:
    for seed in range(12):
        assert phantom(seed, pneumonia=False).boxes == ()
        boxes = phantom(seed, pneumonia=True).boxes
        assert 1 <= len(boxes) <= 2
        for box in boxes:
            assert box.x >= 0
            assert box.y >= 0
            assert box.width > 3
            assert box.height > 3
            assert box.x + box.width <= SIZE
            assert box.y + box.height <= SIZE


def test_lungs_are_darker_than_the_rest_of_the_chest_and_plausibly_large() -> None:
    for seed in range(4):
        drawn = phantom(seed, pneumonia=False, view=View.AP if seed % 2 else View.PA)
        middle = np.zeros_like(drawn.lung_mask)
        middle[SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4] = True
        assert 0.15 < drawn.lung_mask.mean() < 0.45
        assert drawn.image[drawn.lung_mask].mean() < drawn.image[middle & ~drawn.lung_mask].mean() - 0.08


def test_the_label_changes_only_the_opacities() -> None:
    for seed in range(6):
        sick, well = phantom(seed, pneumonia=True), phantom(seed, pneumonia=False)
        change = sick.image - well.image
        boxed = np.zeros(change.shape, bool)
        for box in sick.boxes:
            boxed |= inside(sick, box)
        assert change[boxed].mean() > 0.03
        assert np.abs(change[: SIZE // 8]).max() < 0.03
        assert change[boxed].mean() > 5 * np.abs(change[~boxed]).mean()


def test_opacities_are_brighter_than_the_mirrored_lung() -> None:
    differences = []
    for seed in range(30):
        drawn = phantom(seed, pneumonia=True)
        if len(drawn.boxes) != 1:
            continue
        here, there = inside(drawn, drawn.boxes[0]), inside(drawn, mirrored(drawn.boxes[0], SIZE))
        if there.sum() > 20:
            differences.append(float(drawn.image[here].mean() - drawn.image[there].mean()))
    assert len(differences) > 10
    assert np.mean(differences) > 0.04
    assert np.mean(np.array(differences) > 0) > 0.8


def test_overall_brightness_does_not_tell_the_label() -> None:
    sick = np.array([phantom(seed, pneumonia=True, size=96).image.mean() for seed in range(60)])
    well = np.array([phantom(1000 + seed, pneumonia=False, size=96).image.mean() for seed in range(60)])
    auroc = (sick[:, None] > well[None, :]).mean()
    # 60 against 60 scatter by 0.05 around the true value of about 0.55.
    assert 0.35 < auroc < 0.72


def test_a_portrait_cut_keeps_rows_and_moves_boxes_with_the_pixels() -> None:
    drawn = phantom(5, pneumonia=True, size=430)
    cut = drawn.portrait()
    assert cut.image.shape == (430, 350)
    assert np.array_equal(cut.image, drawn.image[:, 40:390])
    assert np.array_equal(cut.lung_mask, drawn.lung_mask[:, 40:390])
    assert [box.x for box in cut.boxes] == [box.x - 40 for box in drawn.boxes]
    assert [box.width for box in cut.boxes] == [box.width for box in drawn.boxes]


def test_a_box_crossing_the_portrait_border_is_clipped_and_one_beyond_it_dropped() -> None:
    blank = np.zeros((430, 430), np.float32)
    drawn = Phantom(blank, (Box(10, 5, 20, 8), Box(20, 5, 50, 8), Box(380, 5, 40, 8)), np.stack([blank, blank]) > 0)
    assert drawn.portrait().boxes == (Box(0, 5, 30, 8), Box(340, 5, 10, 8))
