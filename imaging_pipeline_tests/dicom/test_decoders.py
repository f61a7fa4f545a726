"""Decoders: every compressed form is really decoded, by the plugin meant for it, and in silence."""

from __future__ import annotations

import json
import struct
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import Any

import jpeg_ls
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from imaging_pipeline.dicom import decoder_samples
from imaging_pipeline.dicom.decoder_samples import sample_pixels, try_decoders
from imaging_pipeline.dicom.decoders import decoder_for
from imaging_pipeline.dicom.pixels import decode_frame, decode_frames, open_image
from imaging_pipeline.errors import PoisonInput
from imaging_pipeline_tests.dicom.images import image


def real_file(name: str) -> bytes:
    return Path(str(get_testdata_file(name))).read_bytes()


def test_this_installation_decodes_every_form() -> None:
    assert [trial.form for trial in try_decoders() if not trial.is_decoded] == []
    assert len({trial.form for trial in try_decoders()}) == 14


def test_a_form_that_is_not_decoded_or_decoded_wrongly_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging_pipeline.dicom.pixels.decoder_for", lambda uid, is_12_bit: None)
    assert not any(trial.is_decoded for trial in try_decoders())
    monkeypatch.undo()
    monkeypatch.setattr(decoder_samples, "sample_pixels", lambda bits: sample_pixels(bits)[::-1])
    assert not any(trial.is_decoded for trial in try_decoders())


def test_jpeg_with_12_bits_is_decoded_without_a_word_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    stored = decode_frame(real_file("JPEG-lossy.dcm")).stored

    assert (stored.shape, stored.dtype, int(stored.min()), int(stored.max())) == ((1024, 256), np.uint16, 0, 264)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "SC_rgb_rle.dcm",
        "SC_rgb_rle_16bit.dcm",
        "SC_rgb_rle_32bit.dcm",
        "SC_rgb_rle_2frame.dcm",
        "rtdose_rle.dcm",
        "rtdose_rle_1frame.dcm",
    ],
)
def test_rle_gives_what_pydicoms_own_decoder_gives(name: str) -> None:
    ds = dcmread(Path(str(get_testdata_file(name))))
    decoder = decoder_for(RLELossless)
    assert decoder is not None

    found, _ = decoder.as_array(ds, decoding_plugin="packbits")

    assert np.array_equal(found, get_decoder(RLELossless).as_array(ds, decoding_plugin="pydicom")[0])


def test_rle_of_one_bit_is_the_picture_that_was_packed() -> None:
    mask = np.random.default_rng(5).integers(0, 2, (5, 7)).astype("u1")
    packed = np.packbits(mask, bitorder="little").tobytes()
    frame = struct.pack("<16L", 1, 64, *[0] * 14) + bytes([len(packed) - 1]) + packed
    data = image(mask, BitsAllocated=1, BitsStored=1, HighBit=0, transfer_syntax=RLELossless)
    ds = dcmread(BytesIO(data))
    ds.PixelData = encapsulate([frame])
    ds.save_as(buffer := BytesIO())

    assert np.array_equal(decode_frame(buffer.getvalue()).stored, mask)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda frame: frame[:64], id="no segments"),
        pytest.param(lambda frame: frame[:40], id="half a header"),
        pytest.param(lambda frame: b"\x0f" + frame[1:], id="too many segments"),
        pytest.param(lambda frame: frame[: len(frame) // 2], id="half of it"),
    ],
)
def test_damaged_rle_is_refused(damage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = decoder_for(RLELossless)
    assert decoder is not None
    ds = dcmread(Path(str(get_testdata_file("MR_small_RLE.dcm"))))
    broken = open_image(real_file("MR_small_RLE.dcm"))
    monkeypatch.setattr("pydicom.pixels.decoders.base.get_frame", lambda *_, **__: damage(bytes(ds.PixelData[16:])))

    with pytest.raises(PoisonInput):
        broken.frame(0)


@pytest.mark.parametrize(
    ("uid", "first"),
    [
        (RLELossless, "packbits"),
        (JPEGBaseline8Bit, "pillow"),
        (JPEGLSLossless, "pyjpegls"),
        (JPEG2000Lossless, "pylibjpeg"),
    ],
)
def test_the_fastest_plugin_is_the_first_and_another_one_stands_by(uid: Any, first: str) -> None:
    decoder = decoder_for(uid)

    assert decoder is not None
    assert next(iter(decoder._available)) == first
    assert len(decoder._available) > 1


@pytest.mark.parametrize("name", ["SC_rgb_rle_2frame.dcm", "examples_ybr_color.dcm", "rtdose.dcm"])
def test_frames_decoded_together_are_those_decoded_one_by_one(name: str) -> None:
    data = real_file(name)
    number = open_image(data).number_of_frames

    together = list(decode_frames(data))

    assert [frame.index for frame in together] == list(range(number))
    assert len(together) > 1
    for index in (0, number - 1):
        assert np.array_equal(together[index].stored, decode_frame(data, index).stored)
    assert [frame.index for frame in decode_frames(data, [number - 1, 0])] == [number - 1, 0]


def test_frames_without_an_offset_table_are_found_by_one_walk_over_their_fragments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ds = dcmread(BytesIO(image(np.zeros((3, 40, 40), "u1"))))
    stored = [np.full((40, 40), value, "u1") for value in (10, 20, 30)]
    frames = [bytes(jpeg_ls.encode_array(each)) for each in stored]
    ds.PixelData = encapsulate(frames, has_bot=False)
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = JPEGLSLossless
    ds.save_as(target := BytesIO())
    opened = open_image(target.getvalue())

    monkeypatch.setattr("pydicom.encaps.parse_fragments", None)

    assert [opened.frame(index).stored.tolist() for index in (2, 0, 1)] == [
        stored[index].tolist() for index in (2, 0, 1)
    ]


def test_the_first_frame_that_is_not_there_ends_the_frames() -> None:
    frames = decode_frames(image(np.zeros((2, 2, 2), "u1"), transfer_syntax=ExplicitVRLittleEndian), [1, 2])

    assert next(frames).index == 1
    with pytest.raises(PoisonInput):
        next(frames)


def test_samples_are_of_forms_that_differ() -> None:
    text = (resources.files("imaging_pipeline.dicom") / "data" / "decoder_samples.json").read_text("utf-8")
    frames = [sample["frame"] for sample in json.loads(text)]

    assert len(set(frames)) >= len(frames) - 1  # lossless HTJ2K is in RPCL order anyway
