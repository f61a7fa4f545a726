"""Evidence of batches in the research lake, and identifiers known from other objects of the patient."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imaging_pipeline.deid.evidence_page import render_page
from imaging_pipeline.deid.lake_evidence import evidence_problems, read_evidence
from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline.deid.targets import plan_of, with_known
from imaging_pipeline_tests.deid.corpus import PATIENT_ID, ROOT, keys
from imaging_pipeline_tests.deid.test_release import FIRST, SECOND, Zones
from imaging_pipeline_tests.metadata.headers import memory_lake


@pytest.fixture
def zones(tmp_path: Path) -> Iterator[Zones]:
    with memory_lake("identified") as identified, memory_lake("research") as research:
        yield Zones(tmp_path, identified, research)


def film(number: int, **more: object) -> dict[str, object]:
    return {"SOPInstanceUID": f"{ROOT}.3.{number}", **more}


def test_each_batch_has_evidence_that_closes(zones: Zones) -> None:
    zones.take_in(FIRST, one=film(1), two=film(2), burned=film(3, BurnedInAnnotation="YES"))
    found = read_evidence(zones.research, FIRST)
    assert found is not None
    assert evidence_problems(zones.research, FIRST) == []
    assert [found.count(name) for name in ("in", "released", "held", "failed")] == [3, 2, 1, 0]
    assert found.count("files") == zones.rows("deid_verification")
    assert [(row["reason"], row["verdict"]) for row in found.tables["reasons"]] == [("pixel_review_required", "HELD")]
    actions = {(row["path"], row["action"]): row["elements"] for row in found.tables["actions"]}
    assert actions["00100010", "D"] == found.count("files")
    assert found.run["key_id"] == keys().key_id
    assert sum(int(str(row["patients"])) for row in found.tables["anonymity"]) == 1
    assert f"{found.count('released')} released" in render_page(found)


def test_evidence_follows_what_becomes_of_a_batch(zones: Zones) -> None:
    zones.take_in(FIRST, one=film(1), two=film(2))
    zones.vanish(FIRST, "one")
    found = read_evidence(zones.research, FIRST)
    assert found is not None
    assert (found.count("in"), found.count("released")) == (1, 1)
    zones.vanish(FIRST, "two")
    empty = read_evidence(zones.research, FIRST)
    assert empty is not None
    assert (empty.count("in"), empty.is_closed) == (0, True)


def test_evidence_that_is_missing_or_does_not_fit_is_told(zones: Zones) -> None:
    zones.take_in(FIRST, one=film(1))
    for change, told in (
        ("UPDATE research.deid.deid_verification SET key_id = 'x'", "another profile or key"),
        ("UPDATE research.deid.deid_evidence SET number = 5 WHERE subject = 'in'", "do not close"),
        ("UPDATE research.deid.deid_evidence SET number = 0 WHERE subject = 'files'", "more files"),
        ("DELETE FROM research.deid.deid_evidence", "no evidence"),
    ):
        zones.research.connection.execute(change)
        assert any(told in problem for problem in evidence_problems(zones.research, FIRST)), told


def test_a_name_from_another_batch_of_the_patient_does_not_come_out(zones: Zones) -> None:
    zones.take_in(FIRST, married=film(1, PatientName="Grimmelshaus^Oda", StudyInstanceUID="1.2.9"))
    zones.take_in(SECOND, earlier=film(2, Manufacturer="Grimmelshaus Imaging"))
    plan = plan_of(zones.identified, zones.research, keys(), SECOND)
    (target,) = with_known(zones.identified, plan.due, load_profile()).values()
    assert {"Grimmelshaus", "Zwyntharquist", PATIENT_ID} <= {found.text for found in target.known}
    assert zones.rows("deid_verification") == 2
    for path in zones.files():
        assert b"grimmelshaus" not in path.read_bytes().lower()
