"""Names burned into radiographs: blanked in every size, place and contrast; markers and clean images stay."""

from __future__ import annotations

import pytest

from imaging_pipeline_tests.deid.planted.collection import film_objects
from imaging_pipeline_tests.deid.planted.outcome import outcome, what_is_left
from imaging_pipeline_tests.deid.planted.search import Output, quietly

OBJECTS = {planted.name: planted for planted in film_objects()}
MARKERS = ("film-marker", "film-position", "film-marker-and-name")
CLEAN = sorted(name for name, planted in OBJECTS.items() if planted.is_clean)
BURNED = sorted(name for name, planted in OBJECTS.items() if any(mark.is_hidden for mark in planted.marks))
DECIDED_BY_PEOPLE = frozenset({"film-initials-and-date", "film-faint"})
"""Too little text to be sure: these may wait for a look."""


@pytest.mark.parametrize("name", OBJECTS)
def test_the_search_finds_every_plant_in_the_source(name: str) -> None:
    planted = OBJECTS[name]
    found = Output(planted.data).left(planted.plants)
    assert [plant.place for plant in planted.plants if plant not in found] == []


@pytest.mark.parametrize(
    ("name", "profile"),
    [*((name, "research") for name in OBJECTS), ("film-marker-and-name", "basic"), ("film-small", "basic")],
)
def test_no_burned_in_name_is_left(name: str, profile: str) -> None:
    made = outcome(OBJECTS[name], profile)
    if made.verdict is None:
        assert made.reason
        return
    assert what_is_left(made.verdict) == []


@pytest.mark.parametrize("name", CLEAN)
def test_clean_pixels_and_markers_come_out_untouched(name: str) -> None:
    planted = OBJECTS[name]
    made = outcome(planted, "research")
    assert made.verdict is not None, made.message
    assert made.verdict.blanked == []
    assert quietly(made.data).PixelData == quietly(planted.data).PixelData


@pytest.mark.parametrize("name", sorted(set(BURNED) - DECIDED_BY_PEOPLE))
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
    assert after.file_meta.TransferSyntaxUID == before.file_meta.TransferSyntaxUID


@pytest.mark.parametrize("name", MARKERS)
def test_markers_of_side_and_position_are_still_seen(name: str) -> None:
    made = outcome(OBJECTS[name], "research")
    assert made.verdict is not None, made.message
    assert made.verdict.blanked == []
