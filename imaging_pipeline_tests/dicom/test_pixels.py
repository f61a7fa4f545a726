"""Decoding and rendering, against numbers worked out by hand and against DCMTK."""

from __future__ import annotations

import logging
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file, get_testdata_files
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    XRayAngiographicImageStorage,
)

from imaging_pipeline.dicom.grayscale import Window, WindowFunction
from imaging_pipeline.dicom.pixels import decodable_transfer_syntaxes, decode_frame, render
from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline_tests.dicom.images import image, lookup_table, sequence

REAL_FILES = sorted(Path(name) for name in get_testdata_files() if Path(name).is_file())

WINDOW_100_50: dict[str, Any] = {"WindowCenter": 100, "WindowWidth": 50}


def row(*values: float, dtype: str = "u2") -> np.ndarray[Any, Any]:
    return np.array([values]).astype(dtype)


def shown(data: bytes, **options: int) -> list[float]:
    return [round(float(value), 4) for value in render(decode_frame(data), **options).ravel()]


def refused(data: bytes, frame: int = 0) -> PoisonInput:
    with pytest.raises(PoisonInput) as caught:
        decode_frame(data, frame)
    return caught.value


# --- stored values -----------------------------------------------------------------------------------------------


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


# --- rendering ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("photometric", "shape", "expected"),
    [
        ("MONOCHROME2", None, [0.0, 0.5, 1.0]),
        ("MONOCHROME1", None, [1.0, 0.5, 0.0]),
        ("MONOCHROME2", "IDENTITY", [0.0, 0.5, 1.0]),
        ("MONOCHROME2", "INVERSE", [1.0, 0.5, 0.0]),
        ("MONOCHROME1", "INVERSE", [1.0, 0.5, 0.0]),
        ("MONOCHROME1", "IDENTITY", [0.0, 0.5, 1.0]),
    ],
)
@pytest.mark.parametrize(
    ("dtype", "bits_stored"), [("u1", 8), ("u2", 12), ("i2", 12), ("u4", 32), ("i4", 32), ("u8", 64)]
)
def test_photometric_and_presentation_shape_decide_what_is_black(
    photometric: str, shape: str | None, expected: list[float], dtype: str, bits_stored: int
) -> None:
    elements: dict[str, Any] = {"PresentationLUTShape": shape} if shape else {}
    data = image(row(10, 30, 50, dtype=dtype), photometric=photometric, bits_stored=bits_stored, **elements)

    assert shown(data) == expected


@pytest.mark.parametrize(
    ("function", "center", "width", "values", "expected"),
    [
        # PS3.3 C.11.2.1.2.1: ((x - 99.5) / 49 + 0.5), black up to 75, white above 124.
        ("LINEAR", 100, 50, [75, 76, 99, 100, 124, 125], [0, 0.0204, 0.4898, 0.5102, 1, 1]),
        # Width 1 is a threshold: black up to 99.5, white above.
        ("LINEAR", 100, 1, [98, 99, 100, 101], [0, 0, 1, 1]),
        # The standard's example of LINEAR_EXACT: (x - 100) / 50 + 0.5.
        ("LINEAR_EXACT", 100, 50, [74, 75, 76, 100, 125, 126], [0, 0, 0.02, 0.5, 1, 1]),
        ("LINEAR_EXACT", 100, 0.5, [99, 100, 101], [0, 0.5, 1]),
        # 1 / (1 + exp(-4 (x - 100) / 50)): at 125 the exponent is -2.
        ("SIGMOID", 100, 50, [0, 75, 100, 125, 60000], [0.0003, 0.1192, 0.5, 0.8808, 1]),
        # An unknown function is the default one.
        ("LOGARITHMIC", 100, 50, [75, 100, 125], [0, 0.5102, 1]),
    ],
)
def test_a_window_follows_its_function(
    function: str, center: float, width: float, values: list[int], expected: list[float]
) -> None:
    data = image(row(*values), WindowCenter=center, WindowWidth=width, VOILUTFunction=function)

    assert shown(data) == expected


@pytest.mark.parametrize("dtype", ["u2", "i2", "u4", "i4"])
def test_the_window_sees_rescaled_values(dtype: str) -> None:
    # 2 x - 1000: 500 -> 0, 524 -> 48, 550 -> 100; window 50/101 is x / 100.
    data = image(
        row(400, 500, 524, 550, dtype=dtype), RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=50.5, WindowWidth=101
    )

    assert shown(data) == [0, 0, 0.48, 1]


def test_a_negative_slope_turns_the_order_of_values() -> None:
    assert shown(image(row(0, 25, 100), RescaleSlope=-1, RescaleIntercept=100)) == [1, 0.75, 0]


@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleSlope": 0, "RescaleIntercept": 1000},
        {"RescaleIntercept": 1000},
        {"RescaleSlope": 3},
        {"SOPClassUID": XRayAngiographicImageStorage, "RescaleSlope": 3, "RescaleIntercept": 5},
    ],
    ids=["slope 0", "no slope", "no intercept", "angiography"],
)
def test_a_rescale_that_is_none_changes_nothing(elements: dict[str, Any]) -> None:
    assert shown(image(row(75, 100, 125), **WINDOW_100_50, **elements)) == [0, 0.5102, 1]


def test_a_modality_lut_maps_before_the_window_and_ends_hold() -> None:
    # Inputs 10, 11, 12 -> 75, 100, 125; smaller and larger inputs take the first and the last entry.
    data = image(row(0, 10, 11, 12, 999), ModalityLUTSequence=lookup_table(10, [75, 100, 125], 16), **WINDOW_100_50)

    assert shown(data) == [0, 0, 0.5102, 1, 1]


def test_without_a_window_the_range_after_a_falling_modality_lut_is_used() -> None:
    data = image(row(0, 1, 2), ModalityLUTSequence=lookup_table(0, [900, 100, 300], 12))

    assert shown(data) == [1, 0, 0.25]


def test_a_voi_lut_maps_rescaled_values_to_its_own_output_range() -> None:
    # x - 1000 with first input -2: 998, 999, 1000, 1001 -> 0, 1, 2, 3.
    data = image(
        row(0, 998, 999, 1000, 1001, 2000),
        RescaleSlope=1,
        RescaleIntercept=-1000,
        VOILUTSequence=lookup_table(-2, [0, 255, 511, 1023], 10),
    )

    assert shown(data) == [0, 0, 0.2493, 0.4995, 1, 1]


def test_a_voi_lut_with_more_entries_than_output_values_does_not_wrap() -> None:
    data = image(row(0, 255, 256, 4095), VOILUTSequence=lookup_table(0, [value // 16 for value in range(4096)], 8))

    assert shown(data) == [0, round(15 / 255, 4), round(16 / 255, 4), 1]


@pytest.mark.parametrize("transfer_syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_lut_of_packed_bytes_is_read(transfer_syntax: Any) -> None:
    table = lookup_table(0, [0, 0, 0, 0], 8)
    entries = b"\x00\x33\x66\xff"
    swapped = entries if transfer_syntax.is_little_endian else b"\x33\x00\xff\x66"
    table[0].add_new("LUTData", "OW", swapped)

    assert shown(image(row(0, 1, 2, 3), transfer_syntax=transfer_syntax, VOILUTSequence=table)) == [0, 0.2, 0.4, 1]


def test_a_negative_first_input_written_as_unsigned_is_understood() -> None:
    table = lookup_table(65534, [0, 255], 8)

    assert shown(image(row(-3, -2, -1, 0, dtype="i2"), VOILUTSequence=table)) == [0, 0, 1, 1]


def test_a_lut_shorter_than_its_descriptor_is_refused() -> None:
    table = lookup_table(0, [1, 2, 3], 8)
    table[0].LUTDescriptor = [4000, 0, 8]

    refusal = refused(image(row(0, 1), VOILUTSequence=table))

    assert (refusal.reason, refusal.dicom_path) == (Reason.PIXEL_UNDECODABLE, "00283010[0].00283006")


def test_views_are_luts_first_then_windows_with_a_legal_width() -> None:
    data = image(
        row(0, 100, 200),
        VOILUTSequence=lookup_table(0, [5], 8),
        WindowCenter=["100", "", "50", "7"],
        WindowWidth=["201", "3", "0", "15"],
    )

    frame = decode_frame(data)

    assert [getattr(view, "center", "lut") for view in frame.views] == ["lut", 100, 7]
    assert shown(data, window=1) == [0.0025, 0.5025, 1]
    with pytest.raises(ValueError, match="below 3"):
        render(frame, window=3)


def test_an_illegal_or_unreadable_window_is_no_window() -> None:
    assert decode_frame(image(row(0, 50, 100), WindowCenter=1, WindowWidth=0)).views == ()
    assert decode_frame(image(row(0, 50), WindowCenter=float("nan"), WindowWidth=9)).views == ()
    unreadable = image(row(0, 50, 100), WindowCenter="11", WindowWidth="20").replace(b"DS\x02\x0011", b"DS\x02\x00x1")
    assert shown(unreadable) == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("stored", "padding", "expected"),
    [
        ([0, 1, 2, 3], {"PixelPaddingValue": 0}, [0, 0, 0.5, 1]),
        ([1, 2, 3, 4000], {"PixelPaddingValue": 4000}, [0, 0.5, 1, 0]),
        ([1, 2, 3, 3999], {"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 3000}, [0, 0.5, 1, 0]),
        ([1, 2, 3, 4], {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 1}, [0, 0, 0.5, 1]),
        ([0, 1], {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 1}, [0, 0]),
    ],
)
def test_padding_is_black_and_out_of_the_range(
    stored: list[int], padding: dict[str, Any], expected: list[float]
) -> None:
    assert shown(image(row(*stored), **padding)) == expected


def test_a_negative_padding_value_written_as_unsigned_is_understood() -> None:
    data = image(row(-2000, 0, 10, dtype="i2"), PixelPaddingValue=-2000)

    assert shown(data.replace(b"\x28\x00\x20\x01SS", b"\x28\x00\x20\x01US")) == [0, 0, 1]


def test_padding_of_an_inverted_image_is_black_too() -> None:
    data = image(row(-2000, 0, 10, dtype="i2"), photometric="MONOCHROME1", PixelPaddingValue=-2000)

    assert shown(data) == [0, 1, 0]


def test_float_pixels_that_are_no_numbers_are_black_and_out_of_the_range() -> None:
    assert shown(image(row(np.nan, 1.0, 2.0, 3.0, dtype="f4"))) == [0, 0, 0.5, 1]


def test_a_rescale_that_overflows_is_a_picture_without_warning() -> None:
    data = image(row(0, 1, 2, dtype="f8"), RescaleSlope=1e308, RescaleIntercept=-1e308)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(0 <= value <= 1 for value in shown(data))


def test_no_bits_stored_is_refused() -> None:
    assert refused(image(row(1, 2), BitsStored=0, HighBit=15)).reason is Reason.PIXEL_UNDECODABLE


def test_a_uniform_image_is_black_and_one_bit_is_black_or_white() -> None:
    assert shown(image(row(7, 7))) == [0, 0]
    mask = render(decode_frame(Path(str(get_testdata_file("liver_1frame.dcm"))).read_bytes()))
    assert np.unique(mask).tolist() == [0, 1]


def test_color_becomes_luminance() -> None:
    primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], dtype="u1")

    assert shown(image(primaries, photometric="RGB")) == [0.299, 0.587, 0.114, 1]


def test_ybr_is_converted_before_luminance() -> None:
    # Y, Cb, Cr of pure red.
    assert shown(image(np.array([[[76, 85, 255], [128, 128, 128]]], dtype="u1"), photometric="YBR_FULL")) == [
        pytest.approx(0.299, abs=0.003),
        pytest.approx(128 / 255, abs=0.001),
    ]


def test_attributes_of_a_frame_win_over_shared_ones() -> None:
    data = image(
        np.array([[[0, 100]], [[0, 100]]], dtype="u2"),
        SharedFunctionalGroupsSequence=sequence(
            PixelMeasuresSequence=sequence(PixelSpacing=[0.5, 0.25]),
            PixelValueTransformationSequence=sequence(RescaleSlope=2, RescaleIntercept=1),
        ),
        PerFrameFunctionalGroupsSequence=[
            *sequence(FrameVOILUTSequence=sequence(WindowCenter=10, WindowWidth=20)),
            *sequence(FrameVOILUTSequence=sequence(WindowCenter=101, WindowWidth=401)),
        ],
    )

    frame = decode_frame(data, 1)

    assert frame.views == (Window(101, 401, WindowFunction.LINEAR),)
    assert (frame.spacing_mm, frame.pixel_aspect) == ((0.5, 0.25), 2.0)
    assert render(frame).ravel().tolist() == pytest.approx([(1 - 100.5) / 400 + 0.5, (201 - 100.5) / 400 + 0.5])


@pytest.mark.parametrize(
    ("elements", "aspect"),
    [
        ({}, 1.0),
        ({"PixelAspectRatio": [2, 1]}, 2.0),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, 0.5),
        ({"PixelSpacing": [0.3, 0.3], "PixelAspectRatio": [2, 1]}, 1.0),
        ({"PixelAspectRatio": [0, 1]}, 1.0),
        ({"PixelSpacing": [30, 1]}, 1.0),
    ],
)
def test_pixel_aspect_is_height_over_width(elements: dict[str, Any], aspect: float) -> None:
    assert decode_frame(image(row(1, 2), **elements)).pixel_aspect == pytest.approx(aspect)


# --- refusals ----------------------------------------------------------------------------------------------------


def test_an_object_without_pixels_is_unsupported() -> None:
    data = image(row(1, 2))
    ds = dcmread(Path(str(get_testdata_file("reportsi.dcm"))))

    assert refused(Path(str(ds.filename)).read_bytes()).reason is Reason.PIXEL_UNSUPPORTED
    assert refused(data[:200]).reason is Reason.PIXEL_UNSUPPORTED


@pytest.mark.parametrize("junk", [b"", b"\0" * 300, b"DICM" * 100, bytes(range(256)) * 4])
def test_bytes_that_are_no_dicom_are_refused(junk: bytes) -> None:
    assert refused(junk).reason in (Reason.PIXEL_UNSUPPORTED, Reason.PIXEL_UNDECODABLE)


def test_a_transfer_syntax_without_decoder_is_told_from_damage() -> None:
    refusal = refused(image(row(1, 2), transfer_syntax=HTJ2KLossless))
    if HTJ2KLossless not in decodable_transfer_syntaxes():
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


def test_native_and_installed_transfer_syntaxes_are_listed_with_their_plugins() -> None:
    found = decodable_transfer_syntaxes()

    assert found[ImplicitVRLittleEndian] == ("Implicit VR Little Endian", ())
    assert "pillow" in found[JPEGBaseline8Bit][1]


# --- against DCMTK -----------------------------------------------------------------------------------------------

DCM2PNM = shutil.which("dcmj2pnm") or shutil.which("dcm2pnm")

needs_dcmtk = pytest.mark.skipif(DCM2PNM is None, reason="DCMTK's dcmj2pnm is not installed")

GRAY_LEVELS = 1.1
"""DCMTK cuts to 8 bits where we round later, and computes some windows in integers."""

COMPARED = [
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "SC_rgb_dcmtk_+eb+cy+np.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_rle_16bit.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "examples_overlay.dcm",
    "examples_palette.dcm",
    "examples_ybr_color.dcm",
    "image_dfl.dcm",
    "liver_1frame.dcm",
    "rtdose_1frame.dcm",
    "6154",
    "6924",
    "17106",
    "4950",
]


def dcmtk_picture(path: Path, folder: Path, *options: str) -> np.ndarray[Any, Any]:
    """Grey levels, 0 to 255, without overlays."""
    target = folder / "picture.ppm"
    subprocess.run([str(DCM2PNM), "-q", "-O", *options, str(path), str(target)], check=True)
    picture = np.asarray(Image.open(target)).astype(float)
    return picture @ [0.299, 0.587, 0.114] if picture.ndim == 3 else picture


@needs_dcmtk
@pytest.mark.parametrize("name", COMPARED)
def test_real_files_look_as_in_dcmtk(name: str, tmp_path: Path) -> None:
    path = next(path for path in REAL_FILES if path.name == name)
    frame = decode_frame(path.read_bytes())
    options = () if frame.is_color else ("+Wi", "1") if frame.views else ("+Wm",)

    difference = np.abs(dcmtk_picture(path, tmp_path, *options) - 255 * render(frame))

    assert difference.max() <= GRAY_LEVELS


LADDER = np.arange(4096, dtype="u2").reshape(64, 64)
SIGNED_LADDER = np.arange(-2048, 2048, dtype="i2").reshape(64, 64)
WIDE_WINDOW = {"WindowCenter": 1000, "WindowWidth": 1500}


@needs_dcmtk
@pytest.mark.parametrize(
    ("stored", "elements", "option"),
    [
        pytest.param(LADDER | 0xB000, {"bits_stored": 12, **WIDE_WINDOW}, "+Wi", id="garbage above"),
        pytest.param(SIGNED_LADDER << 4, {"bits_stored": 12, "high_bit": 15, **WIDE_WINDOW}, "+Wi", id="high bit 15"),
        pytest.param(LADDER, {"photometric": "MONOCHROME1", **WIDE_WINDOW}, "+Wi", id="monochrome 1"),
        pytest.param(LADDER, {"VOILUTFunction": "SIGMOID", **WIDE_WINDOW}, "+Wi", id="sigmoid"),
        pytest.param(
            LADDER, {"RescaleSlope": -1.5, "RescaleIntercept": 3000, **WIDE_WINDOW}, "+Wi", id="falling slope"
        ),
        pytest.param(
            LADDER,
            {"ModalityLUTSequence": lookup_table(100, list(range(3000, 1000, -2)), 12)},
            "+Wm",
            id="modality lut",
        ),
        pytest.param(
            SIGNED_LADDER,
            {
                "RescaleSlope": 2,
                "RescaleIntercept": -1000,
                "VOILUTSequence": lookup_table(-3000, list(range(0, 64000, 16)), 16),
            },
            "+Wl",
            id="voi lut after rescale",
        ),
    ],
)
def test_made_images_look_as_in_dcmtk(
    stored: np.ndarray[Any, Any], elements: dict[str, Any], option: str, tmp_path: Path
) -> None:
    path = tmp_path / "image.dcm"
    path.write_bytes(image(stored, **elements))
    options = (option,) if option == "+Wm" else (option, "1")

    difference = np.abs(dcmtk_picture(path, tmp_path, *options) - 255 * render(decode_frame(path.read_bytes())))

    assert difference.max() <= GRAY_LEVELS


def test_32_bit_big_endian_is_the_same_picture_as_little_endian() -> None:
    little, big = (
        render(decode_frame(Path(str(get_testdata_file(name))).read_bytes()))
        for name in ("rtdose_1frame.dcm", "rtdose_expb_1frame.dcm")
    )

    assert np.array_equal(little, big)
