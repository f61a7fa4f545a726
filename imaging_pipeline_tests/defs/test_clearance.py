"""Tests of the marks by which a batch may leave the house."""

from __future__ import annotations

from pathlib import Path

from imaging_pipeline.defs.checks import zones
from imaging_pipeline.deid.clearance import CHECKS, Clearance

BATCH, OTHER = "2026-01-01.00001", "2026-01-01.00002"


def test_a_batch_is_cleared_once_every_check_has_passed_since_its_last_release(tmp_path: Path) -> None:
    clearance = Clearance(tmp_path / "cleared")

    def judge(batch: str, *checks: str, passed: bool = True) -> None:
        for check in checks:
            clearance.judge(batch, check, passed=passed, release=clearance.release(batch))

    assert clearance.batches() == frozenset()
    clearance.withhold(BATCH)
    judge(BATCH, CHECKS[0])
    assert clearance.batches() == frozenset()
    judge(BATCH, *CHECKS)
    judge(OTHER, *CHECKS)  # it was never released under this record
    assert clearance.batches() == {BATCH, OTHER}
    judge(BATCH, CHECKS[1], passed=False)
    clearance.withhold(OTHER)
    assert clearance.batches() == frozenset()


def test_a_check_that_has_read_an_earlier_release_clears_nothing(tmp_path: Path) -> None:
    clearance = Clearance(tmp_path / "cleared")
    clearance.withhold(BATCH)
    read = clearance.release(BATCH)
    clearance.withhold(BATCH)
    for check in CHECKS:
        clearance.judge(BATCH, check, passed=True, release=read)
    assert clearance.batches() == frozenset()
    for check in CHECKS:
        clearance.judge(BATCH, check, passed=True, release=clearance.release(BATCH))
    assert clearance.batches() == {BATCH}


def test_the_checks_that_clear_a_batch_are_those_of_dagster() -> None:
    names = {
        key.name
        for check in (zones.release_is_complete, zones.no_identifier_on_research_side)
        for key in check.check_keys
    }
    assert names == set(CHECKS)
