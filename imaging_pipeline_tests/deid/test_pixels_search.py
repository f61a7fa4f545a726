"""Burned-in text at any angle, in noise, beside markers and in loops: found, and little else taken."""

from __future__ import annotations

import base64
import json
from importlib import resources

import cv2
import numpy as np
import pytest
from PIL import Image
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate

from imaging_pipeline.deid.pixels import Box, Decision, Decisions, Verdict
from imaging_pipeline.deid.pixels.views import plane_of
from imaging_pipeline.errors import PoisonInput
from imaging_pipeline_tests.deid.pixel_objects import (
    CAPTURE,
    CT,
    NAME,
    ULTRASOUND,
    anatomy,
    array,
    clean,
    described,
    image,
    ink,
    mask_of,
    native,
)  # fmt: skip

SHAPE = (224, 256)
NARROW_AND_WIDE = {"*": "010010100", "7": "000100101", "3": "101100000", "1": "100100001", "9": "001100100"}
CODE_39 = "0".join(NARROW_AND_WIDE[sign] for sign in "*7731937*")
"""Bars and spaces of Code 39, 1 for a wide one (ISO/IEC 16388)."""


def turned(written: np.ndarray, degrees: float) -> np.ndarray:
    return np.asarray(Image.fromarray((written * 255).astype(np.uint8)).rotate(degrees)) / 255.0


def bounds(written: np.ndarray) -> Box:
    (top, left), (bottom, right) = np.argwhere(written > 0.3).min(axis=0), np.argwhere(written > 0.3).max(axis=0) + 1
    return Box(int(left), int(top), int(right), int(bottom))


@pytest.mark.parametrize("degrees", [35, -35, 60])
def test_slanted_text_is_covered_and_little_beside_it(degrees: int) -> None:
    written = turned(ink("ZWYNTHARQUIST", *SHAPE, at=(50, 100), size=18), degrees)
    mask = mask_of(clean(native(image(np.maximum(anatomy(*SHAPE), written), 12), 12)), *SHAPE)
    assert mask[written > 0.5].all()
    assert mask.sum() < 0.8 * bounds(written).area


@pytest.mark.parametrize(("size", "degrees"), [(9, 0), (10, 90), (16, 35), (24, 0)])
def test_text_in_the_noise_of_a_slice_is_found_by_the_stroke_filter(size: int, degrees: int) -> None:
    noise = np.random.RandomState(3).normal(0.3, 0.03, SHAPE)
    written = turned(ink("MRN-7731945", *SHAPE, at=(70, 100), size=size), degrees)
    ds = native(image(noise * (1 - written) + 0.7 * written, 12), 12, sop_class=CT)
    assert mask_of(clean(ds), *SHAPE)[written > 0.6].all()


def test_a_slice_without_strokes_is_not_read() -> None:
    smooth = native(image(np.add.outer(np.linspace(0, 0.4, 224), np.linspace(0, 0.4, 256)), 12), 12, sop_class=CT)
    assert clean(smooth).frames_read == 0


@pytest.mark.parametrize(("marker", "initials"), [("R", "JS"), ("L", "AB")])
def test_the_initials_beside_a_marker_go_and_the_marker_stays(marker: str, initials: str) -> None:
    side = ink(marker, *SHAPE, at=(160, 20), size=32)
    names = ink(initials, *SHAPE, at=(bounds(side).right + 10, 28), size=15)
    mask = mask_of(clean(native(image(np.maximum(anatomy(*SHAPE), side + names), 12), 12)), *SHAPE)
    assert mask[names > 0.5].all()
    assert not mask[side > 0.3].any()


@pytest.mark.parametrize("text", ["L SMITH", "JONES R"])
def test_an_initial_before_or_behind_a_name_goes_with_it(text: str) -> None:
    written = ink(text, *SHAPE, at=(40, 60), size=20)
    mask = mask_of(clean(native(image(np.maximum(anatomy(*SHAPE), written), 12), 12)), *SHAPE)
    assert mask[written > 0.5].all()


@pytest.mark.parametrize("is_inverted", [False, True])
def test_a_qr_code_is_blanked(is_inverted: bool) -> None:
    code = np.kron(np.asarray(cv2.QRCodeEncoder.create().encode("7731945")), np.ones((3, 3), np.uint8))
    frame = image(0.3 + anatomy(*SHAPE))
    rows, columns = code.shape
    frame[80 : 80 + rows, 90 : 90 + columns] = 255 - code if is_inverted else code
    mask = mask_of(clean(native(frame)), *SHAPE)
    assert mask[92 : 68 + rows, 102 : 78 + columns].all()
    assert mask.mean() < 0.3


def test_a_bar_code_is_blanked_from_end_to_end() -> None:
    widths = [1 + (digit == "1") for digit in CODE_39]
    bars = np.concatenate([np.full(2 * width, 255 * (place % 2), np.uint8) for place, width in enumerate(widths)])
    frame = image(0.5 + anatomy(160, 400))
    frame[50:100, 20 : 40 + len(bars)] = 255
    frame[50:100, 30 : 30 + len(bars)] = bars
    mask = mask_of(clean(native(frame)), 160, 400)
    assert mask[50:100, 30 : 30 + len(bars)].mean() > 0.95


def test_text_written_in_values_that_are_no_numbers_is_found() -> None:
    written = ink(NAME, *SHAPE, at=(30, 100), size=18) > 0.5
    values = np.where(written, np.nan, anatomy(*SHAPE)).astype(np.float32)
    seen = plane_of(values, "MONOCHROME2")
    assert np.isfinite(seen).all()
    assert seen[written].min() > seen[~written].max()


def test_in_a_moving_loop_a_name_in_one_frame_is_blanked_there_and_nowhere_else() -> None:
    rng = np.random.RandomState(5)
    frames = [image(0.2 + 0.2 * np.kron(rng.uniform(size=(28, 32)), np.ones((8, 8)))) for _ in range(3)]
    written = ink(NAME, *SHAPE, at=(30, 100), size=16)
    frames[1] = np.maximum(frames[1], image(written))
    ds = native(np.stack(frames), sop_class=ULTRASOUND)
    mask = mask_of(clean(ds), *SHAPE)
    after = array(ds)
    assert mask[written > 0.5].all()
    assert np.array_equal(after[[0, 2]], np.stack(frames)[[0, 2]])
    assert (after[1][written > 0.9] < 60).all()


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("HTJ2K lossless", "High-Throughput JPEG 2000"),
        ("HTJ2K", "High-Throughput JPEG 2000"),
        ("JPEG progressive, 12 bits", "JPEG Full Progression"),
    ],
)
def test_what_cannot_be_written_again_holds_the_object_with_the_reason(form: str, reason: str) -> None:
    samples = json.loads((resources.files("imaging_pipeline.dicom") / "data" / "decoder_samples.json").read_text())
    sample = next(one for one in samples if one["form"] == form)
    pixels = np.zeros((1, 8, 8), np.uint16)
    ds = described(pixels, sample["bits_stored"], "MONOCHROME2", sample["transfer_syntax_uid"], CAPTURE)
    ds.add(DataElement(0x7FE00010, "OB", encapsulate([base64.b64decode(sample["frame"])])))
    decisions = Decisions().with_object("0" * 64, Decision(Verdict.BLANK, (Box(0, 0, 4, 4),)))
    with pytest.raises(PoisonInput, match=f"text was found.*{reason}"):
        clean(ds, decisions=decisions, digest="0" * 64)
