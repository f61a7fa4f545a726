"""Identifiers planted where tools forget to look: nothing survives there either."""

from __future__ import annotations

import pytest

from imaging_pipeline_tests.deid.planted.collection import place_objects
from imaging_pipeline_tests.deid.planted.outcome import PROFILES, outcome, what_is_left
from imaging_pipeline_tests.deid.planted.search import Output, quietly, value_at

OBJECTS = {planted.name: planted for planted in place_objects()}
REPORTS = frozenset({"structured-names"})


@pytest.mark.parametrize("name", OBJECTS)
def test_the_search_finds_every_plant_in_the_source(name: str) -> None:
    planted = OBJECTS[name]
    found = Output(planted.data).left(planted.plants)
    assert [plant.place for plant in planted.plants if plant not in found] == []


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", OBJECTS)
def test_nothing_planted_in_a_forgotten_place_is_left(name: str, profile: str) -> None:
    made = outcome(OBJECTS[name], profile)
    if profile == "basic" and name in REPORTS:
        assert made.reason == "sop_class_not_released"
        return
    assert made.verdict is not None, made.message
    assert what_is_left(made.verdict) == []
    assert not made.verdict.touched


@pytest.mark.parametrize("name", sorted(OBJECTS.keys() - REPORTS))
def test_what_is_technical_stays_in_objects_with_odd_plants(name: str) -> None:
    made = outcome(OBJECTS[name], "research")
    assert made.verdict is not None, made.message
    assert made.verdict.missing + made.verdict.emptied == []
    assert made.verdict.changed == []


def test_an_age_over_eighty_nine_is_capped_and_the_sex_stays() -> None:
    ds = quietly(outcome(OBJECTS["aged"], "research").data)
    assert ds.PatientAge == "090Y"
    assert ds.PatientSex == "F"
    assert "94" not in str(value_at(ds, "00204000"))
