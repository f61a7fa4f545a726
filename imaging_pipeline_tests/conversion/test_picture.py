"""Tests of reading picture files: pixels stay as they are, and what cannot stay so is refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imaging_pipeline.conversion.picture import Picture, read_picture
from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline_tests.conversion.pictures import COLUMNS, ROWS, colour, encoded, grey


def pixels(picture: Picture) -> np.ndarray[Any, Any]:
    """What is stored, of a picture that is not compressed."""
    stored = np.frombuffer(picture.data, f"<u{picture.bits // 8}")
    shape = (picture.rows, picture.columns) + ((3,) if picture.samples == 3 else ())
    return stored.reshape(shape)


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_png_keeps_every_value(bits: int) -> None:
    image = grey(bits)
    picture = read_picture(encoded(image))
    assert (picture.photometric, picture.bits, picture.is_jpeg) == ("MONOCHROME2", bits, False)
    np.testing.assert_array_equal(pixels(picture), image)
    assert picture.limits == (image.min(), image.max())
    assert picture.lossy_ratio is None


def test_colour_png_keeps_every_value() -> None:
    picture = read_picture(encoded(colour()))
    assert (picture.photometric, picture.samples) == ("RGB", 3)
    np.testing.assert_array_equal(pixels(picture), colour())


def opaque(image: np.ndarray[Any, Any]) -> Image.Image:
    made = Image.fromarray(image).convert("RGBA")
    made.putalpha(255)
    return made


@pytest.mark.parametrize(
    "data",
    [
        encoded(np.stack([grey()] * 3, axis=-1)),
        encoded(opaque(grey())),
        encoded(Image.fromarray(grey()).convert("LA")),
    ],
    ids=["three equal samples", "opaque RGBA", "opaque LA"],
)
def test_a_picture_that_is_grey_in_every_pixel_becomes_grey(data: bytes) -> None:
    picture = read_picture(data)
    assert picture.photometric == "MONOCHROME2"
    np.testing.assert_array_equal(pixels(picture), grey())


def test_a_palette_and_a_bitmap_become_what_they_show() -> None:
    palette = Image.fromarray(colour()).quantize(16)
    np.testing.assert_array_equal(pixels(read_picture(encoded(palette))), np.asarray(palette.convert("RGB")))
    bitmap = Image.fromarray(grey()).convert("1")
    assert read_picture(encoded(bitmap)).limits == (0, 255)


def test_a_grey_baseline_jpeg_is_kept_byte_for_byte_without_what_is_no_picture() -> None:
    exif = Image.Exif()
    exif[0x010E] = "Zwyntharquist, Oberon"
    data = encoded(grey(), "JPEG", quality=80, exif=exif, comment="MRN-7731945")
    picture = read_picture(data)
    assert picture.is_jpeg
    assert (picture.photometric, picture.rows, picture.columns) == ("MONOCHROME2", ROWS, COLUMNS)
    assert b"Zwyn" in data
    assert b"Zwyn" not in picture.data
    assert b"MRN" not in picture.data
    scan = data[data.index(b"\xff\xda") :]
    assert picture.data.endswith(scan)
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(picture.data))), np.asarray(Image.open(io.BytesIO(data)))
    )
    assert picture.lossy_ratio == pytest.approx(ROWS * COLUMNS / len(data))


@pytest.mark.parametrize(
    ("subsampling", "photometric", "is_kept"), [(0, "RGB", False), (1, "YBR_FULL_422", True), (2, "RGB", False)]
)
def test_a_colour_jpeg_is_kept_where_dicom_has_its_sampling(subsampling: int, photometric: str, is_kept: bool) -> None:
    data = encoded(colour(), "JPEG", quality=90, subsampling=subsampling)
    picture = read_picture(data)
    assert (picture.photometric, picture.is_jpeg) == (photometric, is_kept)
    if not is_kept:
        np.testing.assert_array_equal(pixels(picture), np.asarray(Image.open(io.BytesIO(data))))
        assert picture.lossy_ratio is not None


def test_a_film_in_a_colour_jpeg_keeps_its_brightness() -> None:
    data = encoded(np.stack([grey()] * 3, axis=-1), "JPEG", quality=90)
    picture = read_picture(data)
    assert (picture.photometric, picture.is_jpeg) == ("MONOCHROME2", False)
    np.testing.assert_array_equal(pixels(picture), np.asarray(Image.open(io.BytesIO(data)))[..., 0])
    assert picture.steps


def test_a_progressive_jpeg_is_decoded() -> None:
    data = encoded(grey(), "JPEG", progressive=True)
    picture = read_picture(data)
    assert not picture.is_jpeg
    np.testing.assert_array_equal(pixels(picture), np.asarray(Image.open(io.BytesIO(data))))


def test_a_picture_is_turned_as_its_orientation_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = read_picture(encoded(grey(), "JPEG", exif=exif))
    assert (picture.rows, picture.columns) == (COLUMNS, ROWS)
    assert picture.steps == ("turned as its orientation says",)


def test_a_second_picture_behind_the_first_is_left_out() -> None:
    first, second = encoded(grey(), "JPEG"), encoded(grey(seed=1), "JPEG")
    assert read_picture(first + second).data == read_picture(first).data


def see_through() -> bytes:
    image = Image.fromarray(colour()).convert("RGBA")
    image.putalpha(Image.fromarray(grey()))
    return encoded(image)


def colour_of_16_bits() -> bytes:
    data = bytearray(encoded(colour()))
    data[24] = 16  # bit depth, in IHDR
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.PIXEL_UNSUPPORTED),
        (b"secret text", Reason.PIXEL_UNSUPPORTED),
        (encoded(grey(), "BMP"), Reason.PIXEL_UNSUPPORTED),
        (encoded(grey())[:200], Reason.PIXEL_UNDECODABLE),
        (encoded(grey(), "JPEG")[:400], Reason.TRUNCATED),
        (b"\xff\xd8\xff\xe0\x00\x10secret", Reason.TRUNCATED),
        (see_through(), Reason.PIXEL_UNSUPPORTED),
        (colour_of_16_bits(), Reason.PIXEL_UNSUPPORTED),
    ],
    ids=["empty", "text", "bmp", "half png", "half jpeg", "header", "transparent", "16 bits"],
)
def test_what_cannot_be_kept_as_it_is_is_refused(data: bytes, reason: Reason) -> None:
    with pytest.raises(PoisonInput) as caught:
        read_picture(data)
    assert caught.value.reason is reason
    assert "secret" not in str(caught.value)
