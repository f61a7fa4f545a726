"""Reduced frames: the same picture at a fraction of its size, and the whole one wherever there is none."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit

from imaging_pipeline.dicom.pixels import Frame, open_image, render_color
from imaging_pipeline.errors import PoisonInput
from imaging_pipeline_tests.dicom.images import image

WINDOW = {"WindowCenter": 500, "WindowWidth": 1000}


def smooth(dtype: str, shift: int = 0, shape: tuple[int, int] = (304, 200)) -> npt.NDArray[Any]:
    """Pixels from 0 to 1000, without edges, which each way of shrinking shows a little otherwise."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    return (500 + 500 * np.sin(rows / 150) * np.cos(columns / 120) - shift).astype(dtype)


def jpeg_2000(stored: npt.NDArray[Any], **elements: Any) -> bytes:
    ds = dcmread(BytesIO(image(stored, **elements)))
    ds.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg")
    ds.save_as(target := BytesIO())
    return target.getvalue()


def jpeg(gray: npt.NDArray[np.uint8], **elements: Any) -> bytes:
    ds = dcmread(BytesIO(image(gray, **elements)))
    Image.fromarray(gray).save(target := BytesIO(), format="JPEG", quality=95)
    ds.PixelData = encapsulate([target.getvalue()])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.save_as(target := BytesIO())
    return target.getvalue()


def averaged(frame: Frame, like: Frame) -> npt.NDArray[Any]:
    whole = Image.fromarray(np.ascontiguousarray(render_color(frame)))
    return np.asarray(whole.resize(like.stored.shape[1::-1], Image.Resampling.BOX)).astype(int)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(jpeg_2000(smooth("u2"), bits_stored=12, **WINDOW), id="JPEG 2000, 12 bits"),
        pytest.param(jpeg_2000(smooth("i2", 700), bits_stored=12, RescaleIntercept=700, **WINDOW), id="signed"),
        pytest.param(jpeg_2000((smooth("u2") // 4).astype("u1"), WindowCenter=128, WindowWidth=256), id="8 bits"),
        pytest.param(jpeg((smooth("u2") // 4).astype("u1"), WindowCenter=128, WindowWidth=256), id="JPEG"),
    ],
)
@pytest.mark.parametrize(("least_edge", "shape"), [(150, (152, 100)), (75, (76, 50)), (9, (38, 25))])
def test_a_reduced_frame_is_the_same_picture(data: bytes, least_edge: int, shape: tuple[int, int]) -> None:
    whole = open_image(data)

    reduced = whole.reduced_frame(0, least_edge)

    assert reduced.stored.shape == shape
    assert (whole.rows, whole.columns) == (304, 200)
    assert np.abs(render_color(reduced) - averaged(whole.frame(0), reduced)).mean() < 4


def test_a_size_that_is_not_halved_evenly_is_halved_less_often() -> None:
    data = jpeg_2000(smooth("u2", shape=(301, 203)), bits_stored=12, **WINDOW)

    assert open_image(data).reduced_frame(0, 9).stored.shape == (151, 102)
    assert open_image(data).reduced_frame(0, 302).stored.shape == (301, 203)


@pytest.mark.parametrize(
    ("name", "is_reduced"),
    [
        ("examples_jpeg2k.dcm", True),  # reversible colour transform
        ("SC_rgb_rle.dcm", False),
        ("SC_rgb_jpeg_dcmtk.dcm", True),  # YBR
        ("SC_jpeg_no_color_transform.dcm", True),  # RGB without a transform
        ("GDCMJ2K_TextGBR.dcm", False),  # more inside than the codestream should have
    ],
)
def test_colour_is_the_same_colour(name: str, is_reduced: bool) -> None:
    whole = open_image(Path(str(get_testdata_file(name))).read_bytes())

    reduced = whole.reduced_frame(0, max(whole.rows, whole.columns) // 2)

    assert (reduced.stored.shape[0] < whole.rows) == is_reduced
    assert reduced.photometric == "RGB"
    assert np.abs(render_color(reduced).mean((0, 1)) - render_color(whole.frame(0)).mean((0, 1))).max() < 2


@pytest.mark.parametrize(
    "elements",
    [
        pytest.param({}, id="no window: its range would be another"),
        pytest.param({"PixelPaddingValue": 0, **WINDOW}, id="padding"),
    ],
)
def test_what_depends_on_single_values_is_decoded_whole(elements: dict[str, Any]) -> None:
    frame = open_image(jpeg_2000(smooth("u2"), bits_stored=12, **elements)).reduced_frame(0, 10)

    assert np.array_equal(frame.stored, smooth("u2"))


def test_fewer_resolutions_than_asked_for_give_the_whole_frame() -> None:
    ds = dcmread(BytesIO(image(smooth("u2"), bits_stored=12, **WINDOW)))
    source = BytesIO()
    Image.fromarray(smooth("u2")).save(source, format="JPEG2000", num_resolutions=2, irreversible=False, no_jp2=True)
    ds.PixelData = encapsulate([source.getvalue()])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID, ds.BitsStored, ds.HighBit = JPEG2000Lossless, 16, 15
    ds.save_as(target := BytesIO())

    assert open_image(target.getvalue()).reduced_frame(0, 10).stored.shape == (304, 200)
    assert open_image(target.getvalue()).reduced_frame(0, 150).stored.shape == (152, 100)


@pytest.mark.parametrize("transfer_syntax", [JPEGBaseline8Bit, JPEG2000Lossless])
def test_what_is_damaged_is_refused(transfer_syntax: UID) -> None:
    data = image(np.zeros((64, 64), "u1"), transfer_syntax=transfer_syntax, **WINDOW)

    with pytest.raises(PoisonInput, match="refused"):
        open_image(data).reduced_frame(0, 8)
