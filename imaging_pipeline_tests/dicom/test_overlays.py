"""Overlay planes, against bitmaps drawn by hand and against pydicom on real files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from imaging_pipeline.dicom.overlays import Overlay, overlays_of
from imaging_pipeline.dicom.pixels import decode_frame, open_image
from imaging_pipeline.errors import PoisonInput
from imaging_pipeline_tests.dicom.images import image

CROSS = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], dtype=bool)


def with_plane(bitmap: np.ndarray[Any, Any], group: int = 0x6000, *, frames: int = 1, **elements: Any) -> bytes:
    """An image of 4 x 5 pixels and ``frames`` frames with an overlay; elements by number as ``e0050=...``."""
    stored = np.zeros((frames, 4, 5), "u1") if frames > 1 else np.zeros((4, 5), "u1")
    ds = dcmread(BytesIO(image(stored)))
    rows, columns = bitmap.shape[-2:]
    packed = np.packbits(bitmap, axis=None, bitorder="little").tobytes()
    ds.add_new((group, 0x0010), "US", rows)
    ds.add_new((group, 0x0011), "US", columns)
    ds.add_new((group, 0x0040), "CS", elements.pop("kind", "G"))
    ds.add_new((group, 0x0050), "SS", elements.pop("origin", [1, 1]))
    ds.add_new((group, 0x0100), "US", 1)
    ds.add_new((group, 0x0102), "US", 0)
    for number, (vr, value) in elements.items():
        ds.add_new((group, int(number[1:], 16)), vr, value)
    ds.add_new((group, 0x3000), "OW", packed + b"\0" * (len(packed) % 2))
    ds.save_as(buffer := BytesIO())
    return buffer.getvalue()


def planes(data: bytes, frame: int = 0) -> tuple[Overlay, ...]:
    return overlays_of(open_image(data), frame)


def test_a_plane_is_the_bitmap_that_was_drawn_in_its_place() -> None:
    (plane,) = planes(with_plane(CROSS, 0x601E, origin=[2, 3], kind="R"))

    assert (plane.group, plane.row, plane.column, plane.is_region) == (0x601E, 1, 2, True)
    assert np.array_equal(plane.bitmap, CROSS)
    placed = plane.over((4, 5))
    assert np.array_equal(placed[1:, 2:], CROSS)
    assert placed.sum() == CROSS.sum()


@pytest.mark.parametrize(("origin", "seen"), [([0, 0], 2), ([-1, 1], 2), ([4, 5], 1), ([5, 9], 0), ([-9, -9], 0)])
def test_what_lies_outside_the_image_is_cut_off(origin: list[int], seen: int) -> None:
    (plane,) = planes(with_plane(CROSS, origin=origin))

    assert plane.over((4, 5)).sum() == seen


def test_each_frame_has_its_own_plane_where_there_are_several() -> None:
    both = np.stack([CROSS, ~CROSS])
    data = with_plane(both, frames=3, e0015=("IS", 2), e0051=("US", 2))

    assert planes(data, 0) == ()
    assert np.array_equal(planes(data, 1)[0].bitmap, CROSS)
    assert np.array_equal(planes(data, 2)[0].bitmap, ~CROSS)


def test_a_plane_without_frames_of_its_own_lies_over_all_frames() -> None:
    data = with_plane(CROSS, frames=3)

    assert all(np.array_equal(planes(data, frame)[0].bitmap, CROSS) for frame in range(3))


@pytest.mark.parametrize("transfer_syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_plane_in_an_unused_bit_of_the_pixels_is_found_and_is_no_part_of_their_values(transfer_syntax: Any) -> None:
    stored = np.arange(9, dtype="u2").reshape(3, 3) | (CROSS.astype("u2") << 13)
    elements = {0x0010: ("US", 3), 0x0011: ("US", 3), 0x0100: ("US", 16), 0x0102: ("US", 13), 0x0050: ("SS", [1, 1])}
    ds = dcmread(BytesIO(image(stored, bits_stored=12, transfer_syntax=transfer_syntax)))
    for element, (vr, value) in elements.items():
        ds.add_new((0x6002, element), vr, value)
    ds.save_as(buffer := BytesIO())

    (plane,) = planes(buffer.getvalue())

    assert np.array_equal(plane.bitmap, CROSS)
    assert decode_frame(buffer.getvalue()).stored.ravel().tolist() == list(range(9))


def test_a_plane_shorter_than_its_size_is_refused_and_hides_no_other_object() -> None:
    data = with_plane(CROSS).replace(b"\x00\x60\x10\x00US\x02\x00\x03\x00", b"\x00\x60\x10\x00US\x02\x00\x63\x00")

    with pytest.raises(PoisonInput, match="overlay"):
        planes(data)


def test_an_object_without_planes_has_none() -> None:
    assert planes(image(np.zeros((2, 2), "u1"))) == ()


def test_a_real_plane_is_the_one_pydicom_reads() -> None:
    data = Path(str(get_testdata_file("examples_overlay.dcm"))).read_bytes()

    (plane,) = planes(data)

    assert np.array_equal(plane.bitmap, dcmread(BytesIO(data)).overlay_array(0x6000) == 1)
    assert plane.bitmap.any()
