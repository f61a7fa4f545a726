"""Identifiers planted in pixels: burned-in text, bits nobody shows, bytes inside compressed streams."""

from __future__ import annotations

import pytest
from pydicom.uid import JPEGBaseline8Bit

from imaging_pipeline_tests.deid.planted.collection import pixel_objects
from imaging_pipeline_tests.deid.planted.outcome import outcome, what_is_left
from imaging_pipeline_tests.deid.planted.search import Output, quietly

OBJECTS = {planted.name: planted for planted in pixel_objects()}
CLEAN = sorted(name for name, planted in OBJECTS.items() if planted.is_clean and not name.startswith(("jpeg", "rle")))
BURNED = sorted(name for name, planted in OBJECTS.items() if any(mark.is_hidden for mark in planted.marks))
BASIC = ("compressed-80-name", "hidden-bits-undeclared", "rle-tail", "jpeg-exif")
"""Judged under the basic profile too; all are under the research profile."""


@pytest.mark.parametrize("name", OBJECTS)
def test_the_search_finds_every_plant_in_the_source(name: str) -> None:
    planted = OBJECTS[name]
    found = Output(planted.data).left(planted.plants)
    assert [plant.place for plant in planted.plants if plant not in found] == []


@pytest.mark.parametrize(
    ("name", "profile"), [*((name, "research") for name in OBJECTS), *((name, "basic") for name in BASIC)]
)
def test_no_burned_in_or_hidden_identifier_is_left(name: str, profile: str) -> None:
    made = outcome(OBJECTS[name], profile)
    if made.verdict is None:
        assert made.reason
        return
    assert what_is_left(made.verdict) == []


@pytest.mark.parametrize("name", CLEAN)
def test_clean_pixels_come_out_untouched(name: str) -> None:
    planted = OBJECTS[name]
    made = outcome(planted, "research")
    assert made.verdict is not None, made.message
    assert made.verdict.blanked == []
    assert quietly(made.data).PixelData == quietly(planted.data).PixelData


@pytest.mark.parametrize("name", BURNED)
def test_burned_in_text_is_blanked_and_the_rest_of_the_image_stays(name: str) -> None:
    planted = OBJECTS[name]
    made = outcome(planted, "research")
    assert made.verdict is not None, made.message
    assert made.verdict.seen == []
    assert made.verdict.blanked == []
    assert not made.verdict.touched
    before, after = quietly(planted.data), quietly(made.data)
    for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel", "PhotometricInterpretation"):
        assert after[keyword].value == before[keyword].value
    if before.file_meta.TransferSyntaxUID != JPEGBaseline8Bit:
        assert after.file_meta.TransferSyntaxUID == before.file_meta.TransferSyntaxUID
