"""Rendering against numbers worked out by hand from the standard."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    XRayAngiographicImageStorage,
)

from imaging_pipeline.dicom.frame import Frame, LookupTable, Window, WindowFunction
from imaging_pipeline.dicom.pixels import decode_frame, modality_values, render, render_color, render_levels
from imaging_pipeline.errors import Reason
from imaging_pipeline_tests.dicom.images import image, lookup_table, refused, row, sequence, shown

WINDOW_100_50: dict[str, Any] = {"WindowCenter": 100, "WindowWidth": 50}


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


# --- choice of view ----------------------------------------------------------------------------------------------


def windows_with_names() -> Frame:
    data = image(
        row(0, 50, 100),
        WindowCenter=["50.5", "25.5"],
        WindowWidth=["101", "51"],
        WindowCenterWidthExplanation=["WIDE", "Narrow"],
    )
    return decode_frame(data)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (0, [0, 0.5, 1]),
        (1, [0, 1, 1]),
        ("wide", [0, 0.5, 1]),
        (" NARROW ", [0, 1, 1]),
        (Window(75.5, 51), [0, 0, 1]),
        (LookupTable(0, np.array([9, 0], np.uint16), 4), [0.6, 0, 0]),
        (None, [0, 0.5, 1]),
    ],
)
def test_a_view_is_chosen_by_index_explanation_or_of_ones_own(choice: Any, expected: list[float]) -> None:
    shown_values = [round(float(value), 4) for value in render(windows_with_names(), window=choice).ravel()]

    assert shown_values == expected


def test_a_view_that_the_frame_does_not_have_is_refused() -> None:
    for choice in (2, -1, "bone"):
        with pytest.raises(ValueError, match="view"):
            render(windows_with_names(), window=choice)


def test_the_full_range_leaves_the_frames_windows_aside() -> None:
    frame = decode_frame(image(row(0, 400, 1000), **WINDOW_100_50))

    assert render(frame, window=None).ravel().tolist() == pytest.approx([0, 0.4, 1])


def test_lut_explanations_name_views_too() -> None:
    table = lookup_table(0, [0, 255], 8)
    table[0].LUTExplanation = "Soft tissue"

    frame = decode_frame(image(row(0, 1), VOILUTSequence=table))

    assert render(frame, window="soft TISSUE").ravel().tolist() == [0, 1]


def test_a_presentation_lut_maps_what_the_window_gives_and_is_shown_as_it_is() -> None:
    # Four entries: brightness 0, 1/3, 2/3 and 1 take them in order; MONOCHROME1 does not turn the result.
    data = image(
        row(0, 1, 2, 3),
        photometric="MONOCHROME1",
        PresentationLUTSequence=lookup_table(0, [0, 51, 204, 255], 8),
    )

    assert shown(data) == [0, 0.2, 0.8, 1]


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "u4"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_single_precision_is_as_good_as_double(dtype: str, photometric: str) -> None:
    stored = np.random.default_rng(1).integers(0, 120 if dtype == "u1" else 4000, (50, 60)).astype(dtype)
    for slope, intercept, center, width in [(1, 0, 60, 80), (2.5, -1024, 40, 400), (-0.37, 11, -300.25, 777.5)]:
        elements = {"RescaleSlope": slope, "RescaleIntercept": intercept, "WindowCenter": center, "WindowWidth": width}
        ramp = np.clip((slope * stored.astype(float) + intercept - center + 0.5) / (width - 1) + 0.5, 0, 1)
        expected = 1 - ramp if photometric == "MONOCHROME1" else ramp

        found = render(decode_frame(image(stored, photometric=photometric, **elements)))

        assert np.abs(found - expected).max() < 1e-5


# --- colour ------------------------------------------------------------------------------------------------------


def test_a_grayscale_frame_in_colour_has_three_equal_samples() -> None:
    frame = decode_frame(image(row(0, 51, 255), WindowCenter=128, WindowWidth=256))

    picture = render_color(frame)

    assert (picture.shape, picture.dtype) == ((1, 3, 3), np.uint8)
    assert picture[0].tolist() == [[0] * 3, [51] * 3, [255] * 3]


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "u4", "f4"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("elements", [{}, WINDOW_100_50, {**WINDOW_100_50, "VOILUTFunction": "SIGMOID"}])
def test_levels_are_what_is_rendered_rounded(dtype: str, photometric: str, elements: dict[str, Any]) -> None:
    stored = np.arange(144).reshape(12, 12).astype(dtype)
    frame = decode_frame(image(stored, photometric=photometric, **elements))

    levels = render_levels(frame)

    assert levels.dtype == np.uint8
    assert np.abs(levels - 255 * render(frame)).max() <= 0.5001


def test_levels_of_colour_are_its_luminance() -> None:
    stored = np.random.default_rng(5).integers(0, 256, (9, 7, 3)).astype("u1")
    frame = decode_frame(image(stored, photometric="RGB"))

    assert np.abs(render_levels(frame) - 255 * render(frame)).max() <= 0.51


@pytest.mark.parametrize(("dtype", "white"), [("u1", 255), ("u2", 65535), ("u4", 2**32 - 1)])
def test_the_whole_range_of_a_sample_becomes_a_byte(dtype: str, white: int) -> None:
    stored = np.array([[[white, 0, white // 5]]], dtype=dtype)

    assert render_color(decode_frame(image(stored, photometric="RGB"))).tolist() == [[[255, 0, 51]]]


def test_ybr_is_shown_in_colour() -> None:
    data = image(np.array([[[76, 85, 255], [128, 128, 128]]], dtype="u1"), photometric="YBR_FULL")

    assert np.abs(render_color(decode_frame(data)).astype(int) - [[[254, 0, 0], [128, 128, 128]]]).max() <= 1


def test_three_samples_that_are_said_to_be_gray_are_refused() -> None:
    data = image(np.zeros((1, 2, 3), "u1"), photometric="RGB").replace(b"CS\x04\x00RGB ", b"CS\x04\x00MONO")

    assert refused(data).reason in (Reason.PIXEL_UNSUPPORTED, Reason.PIXEL_UNDECODABLE)


# --- modality values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["i2", "u2", "i4", "f4"])
def test_modality_values_are_rescaled_values_whatever_the_window(dtype: str) -> None:
    elements = {} if dtype == "f4" else {"RescaleSlope": 2, "RescaleIntercept": -1024}
    factor, offset = (1, 0) if dtype == "f4" else (2, -1024)
    data = image(row(0, 500, 1512, dtype=dtype), **elements, **WINDOW_100_50)

    values = modality_values(decode_frame(data))

    assert values.dtype == np.float32
    assert values.tolist() == [[offset, 500 * factor + offset, 1512 * factor + offset]]


def test_modality_values_follow_the_modality_lut() -> None:
    data = image(row(0, 1, 2), ModalityLUTSequence=lookup_table(0, [900, 100, 300], 12))

    assert modality_values(decode_frame(data)).tolist() == [[900, 100, 300]]


def test_padding_takes_the_lowest_value_of_the_image() -> None:
    data = image(row(-2000, 24, 1024, dtype="i2"), PixelPaddingValue=-2000, RescaleSlope=1, RescaleIntercept=-1024)

    assert modality_values(decode_frame(data)).tolist() == [[-1000, -1000, 0]]


def test_nothing_but_padding_has_the_value_zero() -> None:
    assert modality_values(decode_frame(image(row(7, 7), PixelPaddingValue=7))).tolist() == [[0, 0]]
    assert modality_values(decode_frame(image(row(np.nan, 2.5, dtype="f4")))).tolist() == [[2.5, 2.5]]


def test_colour_has_no_modality_values() -> None:
    frame = decode_frame(image(np.zeros((1, 1, 3), "u1"), photometric="RGB"))

    with pytest.raises(ValueError, match="grayscale"):
        modality_values(frame)
