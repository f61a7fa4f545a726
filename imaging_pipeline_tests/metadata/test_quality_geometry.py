"""The rules that name two images of a series."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.quality import Finding, Scope, evaluate
from imaging_pipeline.metadata.quality.rules import shipped_rules
from imaging_pipeline_tests.metadata.headers import memory_lake
from imaging_pipeline_tests.metadata.scans import SLICES, STEP, Change, Header, key, scan, setting


@pytest.fixture
def lake() -> Iterator[Lake]:
    with memory_lake("identified") as made:
        yield made


def broken(lake: Lake, batch: str) -> dict[str, Finding]:
    found = evaluate(Scope(lake, "silver", batch), shipped_rules())
    return {finding.rule.name: finding for finding in found if not finding.is_passed}


def shifted(numbers: dict[int, float]) -> Change:
    """Puts some slices at other heights (mm)."""

    def change(content: Header, number: int) -> None:
        content["00200032"]["Value"] = [-100, -100, numbers.get(number, STEP * number)]

    return change


def pair(finding: Finding) -> tuple[object, object]:
    (offender,) = finding.offenders
    return offender["instance_key"], offender["other_instance_key"]


def test_a_missing_slice_is_named_by_the_two_around_it(lake: Lake) -> None:
    def stated(content: Header, number: int) -> None:
        content["00201002"]["Value"] = content["00201208"]["Value"] = [SLICES - 1]

    scan(lake, "b1", change=stated, leave_out=[3])
    found = broken(lake, "b1")
    assert set(found) == {"volume_has_no_missing_slices", "instance_numbers_have_no_gaps"}
    for finding in found.values():
        assert pair(finding) == (key(1, 2), key(1, 4))
    missing = found["volume_has_no_missing_slices"]
    assert (missing.offenders[0]["mm"], missing.offenders[0]["slices_missing"]) == (2 * STEP, 1)
    assert (missing.checked, missing.failed, missing.rows) == (1, 1, 1)


def test_two_slices_at_one_place_are_named(lake: Lake) -> None:
    scan(lake, "b1", change=shifted({5: STEP * 4}))
    found = broken(lake, "b1")
    assert set(found) == {"slices_have_distinct_positions"}
    assert set(pair(found["slices_have_distinct_positions"])) == {key(1, 4), key(1, 5)}


def test_the_slices_with_the_most_uneven_distance_are_named(lake: Lake) -> None:
    scan(lake, "b1", change=shifted({5: STEP * 5 + 0.4}))
    found = broken(lake, "b1")
    assert set(found) == {"slices_are_evenly_spaced"}
    assert pair(found["slices_are_evenly_spaced"]) == (key(1, 4), key(1, 5))
    assert found["slices_are_evenly_spaced"].offenders[0]["mm"] == pytest.approx(STEP + 0.4)


def test_a_tilted_gantry_is_told_by_two_neighbours_and_its_angle(lake: Lake) -> None:
    angle = math.radians(12)
    scan(lake, "b1", change=setting("00200037", 1, 0, 0, 0, math.cos(angle), math.sin(angle)))
    found = broken(lake, "b1")
    assert set(found) == {"gantry_is_not_tilted"}
    (offender,) = found["gantry_is_not_tilted"].offenders
    keys = [key(1, number) for number in range(SLICES)]
    places = [keys.index(str(each)) for each in pair(found["gantry_is_not_tilted"])]
    assert abs(places[0] - places[1]) == 1
    assert offender["degrees"] == pytest.approx(12, abs=0.01)
    assert offender["mm"] == pytest.approx(STEP * math.sin(angle), abs=0.001)


def test_a_series_that_came_in_two_batches_is_judged_as_one(lake: Lake) -> None:
    scan(lake, "b1", leave_out=[3, 4, 5])
    assert {"study_has_the_stated_images", "acquisition_has_the_stated_images"} == set(broken(lake, "b1"))
    scan(lake, "b2", leave_out=[0, 1, 2])
    assert not broken(lake, "b1")
    assert not broken(lake, "b2")
    scan(lake, "b3", study=1, leave_out=[0, 1, 2, 4, 5])  # another object of slice 3
    assert not broken(lake, "b3")
