"""Identifiers planted in reports, presentation states, waveforms, radiotherapy and documents."""

from __future__ import annotations

import pytest

from imaging_pipeline_tests.deid.planted.collection import report_objects
from imaging_pipeline_tests.deid.planted.outcome import PROFILES, outcome, what_is_left
from imaging_pipeline_tests.deid.planted.search import Output

OBJECTS = {planted.name: planted for planted in report_objects()}
HELD = frozenset({"raw-data", "document-pdf", "document-cda"})
"""Nobody can look into these: they are held, or come out without their content."""


@pytest.mark.parametrize("name", OBJECTS)
def test_the_search_finds_every_plant_in_the_source(name: str) -> None:
    planted = OBJECTS[name]
    found = Output(planted.data).left(planted.plants)
    assert [plant.place for plant in planted.plants if plant not in found] == []


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", OBJECTS)
def test_nothing_planted_in_an_object_of_any_class_is_left(name: str, profile: str) -> None:
    made = outcome(OBJECTS[name], profile)
    if made.verdict is None:
        assert made.reason
        return
    assert what_is_left(made.verdict) == []


@pytest.mark.parametrize("name", sorted(OBJECTS.keys() - HELD))
def test_objects_of_any_class_are_released_for_research_with_what_they_are_for(name: str) -> None:
    made = outcome(OBJECTS[name], "research")
    assert made.verdict is not None, made.message
    assert made.verdict.missing + made.verdict.emptied == []
    assert made.verdict.changed == []
    assert not made.verdict.touched
    assert {days for days in made.verdict.moved.values() if days is None or days >= 0} == set()
    assert [path for path, (old, new) in made.verdict.mapped.items() if new is None or new == old] == []


def test_references_between_objects_of_different_classes_still_agree() -> None:
    mapped: dict[str, set[str]] = {}
    for name in sorted(OBJECTS.keys() - HELD):
        verdict = outcome(OBJECTS[name], "research").verdict
        assert verdict is not None
        for old, new in verdict.mapped.values():
            mapped.setdefault(old, set()).add(str(new))
    assert len(mapped) > 5
    assert all(len(news) == 1 for news in mapped.values())
