"""Palettes, against colours worked out by hand from PS3.3 C.7.6.3.1.5 and C.7.9.2."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from imaging_pipeline.dicom.pixels import decode_frame, render_color
from imaging_pipeline.errors import Reason
from imaging_pipeline_tests.dicom.images import image, refused, row

CHANNELS = ("Red", "Green", "Blue")


def words(values: list[int], order: str) -> bytes:
    return np.array(values, dtype=f"{order}u2").tobytes()


def colored(
    stored: np.ndarray[Any, Any], first: int, tables: list[list[int]], transfer_syntax: Any = ExplicitVRLittleEndian
) -> bytes:
    """A palette of 16-bit entries."""
    order = "<" if transfer_syntax.is_little_endian else ">"
    elements: dict[str, Any] = {}
    for channel, table in zip(CHANNELS, tables, strict=True):
        elements[f"{channel}PaletteColorLookupTableDescriptor"] = [len(table), first, 16]
        elements[f"{channel}PaletteColorLookupTableData"] = words(table, order)
    return image(stored, photometric="PALETTE COLOR", transfer_syntax=transfer_syntax, **elements)


@pytest.mark.parametrize("transfer_syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_values_take_their_entries_and_those_outside_the_ends(transfer_syntax: Any) -> None:
    data = colored(row(0, 10, 11, 12, 99), 10, [[0, 0x8000, 0xFFFF], [1, 2, 300], [0xFFFF, 0, 0]], transfer_syntax)

    frame = decode_frame(data)

    assert frame.stored.tolist() == [
        [[0, 1, 0xFFFF], [0, 1, 0xFFFF], [0x8000, 2, 0], [0xFFFF, 300, 0], [0xFFFF, 300, 0]]
    ]
    assert (frame.photometric, frame.bits_stored) == ("RGB", 16)
    assert render_color(frame)[0, 2].tolist() == [128, 0, 0]


def test_a_negative_first_input_is_understood() -> None:
    data = colored(row(-3, -2, -1, 0, dtype="i2"), -2, [[300, 400, 500]] * 3)

    assert decode_frame(data).stored[0, :, 0].tolist() == [300, 300, 400, 500]


def test_entries_of_one_byte_in_words_are_bytes() -> None:
    frame = decode_frame(colored(row(0, 1, 2), 0, [[0, 7, 255]] * 3))

    assert frame.stored.dtype == np.uint8
    assert frame.stored[0, :, 1].tolist() == [0, 7, 255]


def segmented(codes: list[int], count: int, bits: int, stored: np.ndarray[Any, Any]) -> bytes:
    packed = bytes(codes) + b"\0" * (len(codes) % 2) if bits == 8 else words(codes, "<")
    elements: dict[str, Any] = {}
    for channel in CHANNELS:
        elements[f"{channel}PaletteColorLookupTableDescriptor"] = [count, 0, bits]
        elements[f"Segmented{channel}PaletteColorLookupTableData"] = packed
    return image(stored, photometric="PALETTE COLOR", **elements)


@pytest.mark.parametrize(
    ("codes", "bits", "expected"),
    [
        pytest.param([0, 2, 10, 20, 1, 4, 60], 8, [10, 20, 30, 40, 50, 60], id="discrete, then linear"),
        pytest.param([0, 1, 1000, 1, 2, 2000], 16, [1000, 1500, 2000], id="words"),
        # A copy of one segment, from the start of the data: its offset counts bytes, lowest part first.
        pytest.param([0, 2, 5, 6, 2, 1, 0, 0, 0, 0], 8, [5, 6, 5, 6], id="indirect"),
        pytest.param([0, 1, 300, 0, 2, 5, 6, 2, 1, 6, 0], 16, [300, 5, 6, 5, 6], id="indirect, words"),
        # What is copied goes on from where the entries are: the ramp starts at 9, not at 0.
        pytest.param([0, 1, 0, 1, 3, 9, 0, 1, 0, 2, 1, 3, 0, 0, 0], 8, [0, 3, 6, 9, 0, 3, 6, 9], id="indirect ramp"),
    ],
)
def test_segments_become_entries(codes: list[int], bits: int, expected: list[int]) -> None:
    stored = row(*range(len(expected)), dtype="u1" if bits == 8 else "u2")

    frame = decode_frame(segmented(codes, len(expected), bits, stored))

    assert frame.stored[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    "codes",
    [[3, 1, 5, 0], [1, 2, 5, 0], [0, 2, 5, 6], [2, 1, 0, 0, 0, 0], [0, 1, 5, 2, 9, 90, 0, 0, 0, 0]],
    ids=["unknown kind", "ramp from nowhere", "too few", "copy of itself", "copy of what is not there"],
)
def test_broken_segments_are_refused(codes: list[int]) -> None:
    assert refused(segmented(codes, 40, 8, row(0, 1, dtype="u1"))).reason is Reason.PIXEL_UNDECODABLE


def test_a_palette_shorter_than_its_descriptor_is_refused() -> None:
    stated, longer = b"US\x06\x00\x04\x00", b"US\x06\x00\x40\x00"
    data = colored(row(0, 1), 0, [[1, 2, 3, 4]] * 3).replace(stated, longer)

    assert refused(data).reason is Reason.PIXEL_UNDECODABLE
