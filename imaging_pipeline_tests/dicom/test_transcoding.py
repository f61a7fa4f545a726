from __future__ import annotations

import io
import logging
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from imaging_pipeline.dicom import transcoding
from imaging_pipeline.dicom.pixels import guarded, open_image
from imaging_pipeline.dicom.transcoding import WRITABLE, sample_bytes, transcoded
from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline_tests.dicom.images import image

SYNTAXES = sorted(WRITABLE)
IMPLICIT, EXPLICIT, JPEG_LS, JPEG_2000, RLE = SYNTAXES[0], *SYNTAXES[1:]


def stored(name: str) -> bytes:
    return Path(str(get_testdata_file(name))).read_bytes()


def refused(data: bytes, syntax: str) -> Reason:
    with pytest.raises(PoisonInput) as refusal:
        transcoded(data, syntax)
    return refusal.value.reason


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    "name",
    ["CT_small.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "JPEG-lossy.dcm",
     "SC_rgb_rle_16bit_2frame.dcm", "examples_palette.dcm", "image_dfl.dcm", "ExplVR_BigEnd.dcm"],
)  # fmt: skip
def test_uids_and_samples_stay_in_every_transfer_syntax(name: str, syntax: str) -> None:
    data = stored(name)
    made, before = open_image(transcoded(data, syntax)), open_image(data)
    assert made.ds.file_meta.TransferSyntaxUID == syntax
    assert (made.ds.SOPInstanceUID, made.number_of_frames) == (before.ds.SOPInstanceUID, before.number_of_frames)
    for index in range(before.number_of_frames):
        assert np.array_equal(made.frame(index).stored, before.frame(index).stored)


def test_frames_of_single_bits_stay_as_they_are() -> None:
    made = dcmread(io.BytesIO(transcoded(stored("liver_expb_1frame.dcm"), EXPLICIT)))
    assert np.array_equal(made.pixel_array, dcmread(str(get_testdata_file("liver_expb_1frame.dcm"))).pixel_array)
    assert refused(stored("liver_1frame.dcm"), RLE) is Reason.TRANSFER_SYNTAX_UNSUPPORTED


def test_colour_stored_as_ybr_comes_out_as_rgb() -> None:
    made = dcmread(io.BytesIO(transcoded(stored("SC_rgb_dcmtk_+eb+cy+np.dcm"), EXPLICIT)))
    assert (made.PhotometricInterpretation, made.PlanarConfiguration) == ("RGB", 0)


def test_the_same_bytes_come_out_each_time_and_its_own_syntax_changes_nothing() -> None:
    data = stored("CT_small.dcm")
    assert transcoded(data, EXPLICIT) is data
    assert transcoded(data, JPEG_2000) == transcoded(data, JPEG_2000)


def test_an_object_without_pixels_is_written_anew() -> None:
    made = dcmread(io.BytesIO(transcoded(stored("test-SR.dcm"), IMPLICIT)))
    assert made.file_meta.TransferSyntaxUID == IMPLICIT
    assert made.SOPInstanceUID == dcmread(str(get_testdata_file("test-SR.dcm"))).SOPInstanceUID


def test_what_cannot_be_done_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = stored("CT_small.dcm")
    assert refused(data, "1.2.840.10008.1.2.4.50") is Reason.TRANSFER_SYNTAX_UNSUPPORTED
    assert refused(image(np.zeros((4, 4), "f4")), JPEG_LS) is Reason.TRANSFER_SYNTAX_UNSUPPORTED
    assert refused(stored("MR_small_RLE.dcm")[:-3000], EXPLICIT) is Reason.PIXEL_UNDECODABLE
    monkeypatch.setattr(transcoding, "MAX_DECODED_BYTES", 1_000)
    assert refused(data, RLE) is Reason.TOO_LARGE


def test_a_frame_alone_is_what_the_object_has() -> None:
    opened = open_image(stored("SC_rgb_rle_16bit_2frame.dcm"))
    frame = np.frombuffer(sample_bytes(opened, 1, EXPLICIT), "<u2").reshape(100, 100, 3)
    assert np.array_equal(frame, opened.frame(1).stored)


def test_a_thread_stays_silent_when_another_one_has_finished(caplog: pytest.LogCaptureFixture) -> None:
    entered, finished = threading.Event(), threading.Event()

    def remark() -> None:
        entered.set()
        assert finished.wait(30)
        warnings.warn("Doe^Jane", stacklevel=1)
        logging.getLogger("pydicom").warning("Doe^Jane")

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with_first = threading.Event()

        def first() -> None:
            with_first.set()
            assert entered.wait(30)

        threads = [threading.Thread(target=guarded, args=(action,)) for action in (first, remark)]
        threads[0].start()
        assert with_first.wait(30)
        threads[1].start()
        threads[0].join()
        finished.set()
        threads[1].join()
        warnings.warn("heard again", stacklevel=1)
    assert [str(each.message) for each in told] == ["heard again"]
    assert "Doe" not in caplog.text
