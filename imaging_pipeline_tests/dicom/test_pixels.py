"""Decoding: stored values of every form, and refusals."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file, get_testdata_files
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from imaging_pipeline.dicom.pixels import decode_frame, render
from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline_tests.dicom.images import image, refused, row

REAL_FILES = sorted(Path(name) for name in get_testdata_files() if Path(name).is_file())


@pytest.mark.parametrize(
    ("cells", "dtype", "bits_stored", "high_bit", "expected"),
    [
        pytest.param([0, 200, 255], "u1", 8, 7, [0, 200, 255], id="8 bits"),
        pytest.param([-128, 0, 127], "i1", 8, 7, [-128, 0, 127], id="8 bits signed"),
        pytest.param([0xF001, 0xAFFF], "u2", 12, 11, [1, 4095], id="12 bits under an overlay"),
        pytest.param([0x0801, 0x57FF], "i2", 12, 11, [-2047, 2047], id="12 bits signed, sign not extended"),
        pytest.param([0x1230, 0xFFF0], "u2", 12, 15, [0x123, 0xFFF], id="12 bits at the top of the cell"),
        pytest.param([0x9237, 0x7FFC], "u2", 12, 13, [0x48D, 0xFFF], id="12 bits amid garbage on both sides"),
        pytest.param([-16, 16], "i2", 12, 15, [-1, 1], id="12 bits signed at the top of the cell"),
        pytest.param([0, 65535], "u2", 16, 15, [0, 65535], id="16 bits"),
        pytest.param([-32768, 32767], "i2", 16, 15, [-32768, 32767], id="16 bits signed"),
        pytest.param([0, 2**32 - 1], "u4", 32, 31, [0, 2**32 - 1], id="32 bits"),
        pytest.param([-(2**31), 2**31 - 1], "i4", 32, 31, [-(2**31), 2**31 - 1], id="32 bits signed"),
        pytest.param([0, 2**63], "u8", 64, 63, [0, 2**63], id="64 bits"),
        pytest.param([0.5, -3.25], "f4", None, None, [0.5, -3.25], id="float"),
        pytest.param([0.5, -3.25], "f8", None, None, [0.5, -3.25], id="double"),
    ],
)
@pytest.mark.parametrize("transfer_syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_stored_values_are_those_of_the_stored_bits(
    *, cells: list[float], dtype: str, bits_stored: int, high_bit: int, expected: list[float], transfer_syntax: Any
) -> None:
    unsigned = {"i1": "u1", "i2": "u2"}.get(dtype, dtype) if min(cells) >= 0 else dtype
    stored = np.array([cells]).astype(unsigned).view(dtype)
    data = image(stored, bits_stored=bits_stored, high_bit=high_bit, transfer_syntax=transfer_syntax)

    frame = decode_frame(data)

    assert frame.stored.ravel().tolist() == expected
    assert bits_stored is None or frame.bits_stored == bits_stored


def test_a_deflated_object_decodes() -> None:
    assert decode_frame(image(row(3, 4), transfer_syntax=DeflatedExplicitVRLittleEndian)).stored.tolist() == [[3, 4]]


def test_only_the_asked_frame_is_decoded() -> None:
    stored = np.arange(12, dtype="u2").reshape(3, 2, 2)

    frame = decode_frame(image(stored), 2)

    assert frame.stored.tolist() == stored[2].tolist()
    assert frame.number_of_frames == 3


def test_a_frame_that_is_not_there_is_refused() -> None:
    assert refused(image(row(1, 2)), 1).reason is Reason.PIXEL_UNDECODABLE


def test_an_object_without_preamble_and_file_meta_decodes() -> None:
    data = image(row(7, 8), transfer_syntax=ImplicitVRLittleEndian)
    bare = data[data.index(b"\x08\x00\x16\x00") :]

    assert decode_frame(bare).stored.tolist() == [[7, 8]]


def test_an_object_without_pixels_is_unsupported() -> None:
    data = image(row(1, 2))
    ds = dcmread(Path(str(get_testdata_file("reportsi.dcm"))))

    assert refused(Path(str(ds.filename)).read_bytes()).reason is Reason.PIXEL_UNSUPPORTED
    assert refused(data[:200]).reason is Reason.PIXEL_UNSUPPORTED


@pytest.mark.parametrize("junk", [b"", b"\0" * 300, b"DICM" * 100, bytes(range(256)) * 4])
def test_bytes_that_are_no_dicom_are_refused(junk: bytes) -> None:
    assert refused(junk).reason in (Reason.PIXEL_UNSUPPORTED, Reason.PIXEL_UNDECODABLE)


def test_a_transfer_syntax_without_decoder_is_told_from_damage() -> None:
    refusal = refused(image(row(1, 2), transfer_syntax=MPEG2MPML))
    assert (refusal.reason, refusal.dicom_path) == (Reason.TRANSFER_SYNTAX_UNSUPPORTED, "00020010")
    assert refused(image(row(1, 2, dtype="u1"), transfer_syntax=JPEGBaseline8Bit)).reason is Reason.PIXEL_UNDECODABLE


def test_a_frame_beyond_the_limit_is_refused_before_memory_is_taken() -> None:
    refusal = refused(image(row(1, 2), Rows=65535, Columns=65535))

    assert refusal.reason is Reason.PIXEL_UNSUPPORTED


def test_a_refusal_keeps_nothing_of_what_the_decoder_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    data = image(row(1, 2), BitsAllocated=12, PatientName="SECRET^NAME")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refusal = refused(data)

    assert refusal.__context__ is None
    assert refusal.__cause__ is None
    assert caplog.records == []


@pytest.mark.parametrize("path", REAL_FILES, ids=lambda path: path.name)
def test_every_real_file_gives_a_picture_or_a_refusal(path: Path) -> None:
    try:
        frame = decode_frame(path.read_bytes())
    except PoisonInput:
        return
    picture = render(frame)
    assert picture.dtype == np.float32
    assert picture.shape == frame.stored.shape[:2]
    assert 0 <= picture.min() <= picture.max() <= 1
