"""Planted in free text: staff, institutions, numbers, dates and the patient in many forms; all go, words stay."""

from __future__ import annotations

import pytest

from imaging_pipeline.deid.screen import DUMMY_TEXT
from imaging_pipeline_tests.deid.planted.collection import clean_text_objects, text_objects
from imaging_pipeline_tests.deid.planted.outcome import PROFILES, outcome, what_is_left
from imaging_pipeline_tests.deid.planted.plants import Keep
from imaging_pipeline_tests.deid.planted.search import Output, quietly, value_at

OBJECTS = {planted.name: planted for planted in text_objects()}
CLEAN = {planted.name: planted for planted in clean_text_objects()}
MAY_BE_HELD = frozenset({"encoded-binary"})
"""The name in bytes of a kind that is kept (palettes, colour profiles): nobody can clean those."""
DESCRIPTORS = frozenset(keep.path for planted in OBJECTS.values() for keep in planted.keeps if not keep.is_whole)
"""What people write: the basic profile removes it whole, the research profile cleans it."""


@pytest.mark.parametrize("name", OBJECTS)
def test_the_search_finds_every_plant_in_the_source(name: str) -> None:
    planted = OBJECTS[name]
    found = Output(planted.data).left(planted.plants)
    assert [plant.place for plant in planted.plants if plant not in found] == []


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", OBJECTS)
def test_nothing_planted_in_free_text_is_left(name: str, profile: str) -> None:
    made = outcome(OBJECTS[name], profile)
    if name in MAY_BE_HELD and made.verdict is None:
        assert made.reason
        return
    assert made.verdict is not None, made.reason
    assert what_is_left(made.verdict) == []


@pytest.mark.parametrize("name", sorted(OBJECTS.keys() - MAY_BE_HELD))
def test_words_around_an_identifier_stay(name: str) -> None:
    made = outcome(OBJECTS[name], "research")
    assert made.verdict is not None, made.reason
    assert made.verdict.missing + made.verdict.emptied == []
    assert [_both(keep, made.data) for keep in made.verdict.changed] == []


@pytest.mark.parametrize("name", CLEAN)
def test_a_text_that_names_nobody_stays_word_by_word(name: str) -> None:
    made = outcome(CLEAN[name], "research")
    assert made.verdict is not None, made.reason
    assert made.verdict.missing + made.verdict.emptied == []
    assert [_both(keep, made.data) for keep in made.verdict.changed] == []


@pytest.mark.parametrize("name", [*OBJECTS, *CLEAN])
def test_the_basic_profile_leaves_no_free_text(name: str) -> None:
    planted = (OBJECTS | CLEAN)[name]
    made = outcome(planted, "basic")
    ds = quietly(made.data)
    for path in DESCRIPTORS:
        assert value_at(ds, path) in (None, "", DUMMY_TEXT), path


def _both(keep: Keep, data: bytes) -> str:
    return f"{keep.path}: wanted {keep.words}, found {value_at(quietly(data), keep.path)!r}"
