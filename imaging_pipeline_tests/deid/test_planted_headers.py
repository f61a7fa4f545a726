"""Identifiers planted in attributes, private blocks and odd places of files: only what is technical survives."""

from __future__ import annotations

import pytest

from imaging_pipeline_tests.deid.planted.collection import header_objects
from imaging_pipeline_tests.deid.planted.judge import Verdict
from imaging_pipeline_tests.deid.planted.objects import STORAGE
from imaging_pipeline_tests.deid.planted.outcome import PROFILES, Outcome, outcome, what_is_left
from imaging_pipeline_tests.deid.planted.plants import Planted
from imaging_pipeline_tests.deid.planted.search import Output

OBJECTS = {planted.name: planted for planted in header_objects()}
CLEANED_TEXTS = ("00081030", "0008103E", "00181030", "00204000", "001021B0", "00321060")


@pytest.mark.parametrize("name", OBJECTS)
def test_the_search_finds_every_plant_in_the_source(name: str) -> None:
    planted = OBJECTS[name]
    found = Output(planted.data).left(planted.plants)
    assert [plant.place for plant in planted.plants if plant not in found] == []


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", OBJECTS)
def test_nothing_planted_in_a_header_is_left(name: str, profile: str) -> None:
    made = outcome(OBJECTS[name], profile)
    assert made.verdict is not None, made.reason
    assert what_is_left(made.verdict) == []


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", OBJECTS)
def test_technical_attributes_dates_and_references_of_a_header_stay(name: str, profile: str) -> None:
    planted = OBJECTS[name]
    verdict = _released(outcome(planted, profile))
    kept_texts = CLEANED_TEXTS if profile == "basic" else ()
    lost = [path for path in (*verdict.missing, *verdict.emptied) if not path.endswith(kept_texts)]
    assert lost == []
    assert [keep for keep in verdict.changed if not keep.path.endswith(kept_texts)] == []
    assert not verdict.touched
    _dates_moved_together(planted, verdict)
    _uids_replaced(verdict)


def test_shared_uids_have_the_same_replacement_in_all_objects() -> None:
    mapped: dict[str, set[str]] = {}
    for planted in OBJECTS.values():
        for old, new in _released(outcome(planted, "research")).mapped.values():
            if new is not None:
                mapped.setdefault(old, set()).add(new)
    assert len(mapped) > 10
    assert all(len(news) == 1 for news in mapped.values())
    assert len({new for news in mapped.values() for new in news}) == len(mapped)


def test_the_corpus_plants_thousands_of_values_in_headers() -> None:
    assert sum(len(planted.plants) for planted in OBJECTS.values()) > 6000
    assert all(f"{STORAGE}".encode() in planted.data or "Deflated" in planted.name for planted in OBJECTS.values())


def _released(made: Outcome) -> Verdict:
    assert made.verdict is not None, made.reason
    return made.verdict


def _dates_moved_together(planted: Planted, verdict: Verdict) -> None:
    top = {path: days for path, days in verdict.moved.items() if "." not in path}
    assert all(days is not None and days < 0 for days in top.values()), planted.name
    moves = [days for days in verdict.moved.values() if days is not None]
    assert max(moves) - min(moves) <= 1


def _uids_replaced(verdict: Verdict) -> None:
    for path, (old, new) in verdict.mapped.items():
        assert new is None or (new.startswith("2.25.") and new != old), path
        assert new is not None or "." in path, path
