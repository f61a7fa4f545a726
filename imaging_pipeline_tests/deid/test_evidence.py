from __future__ import annotations

import csv
import json
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from imaging_pipeline.deid.anonymity import anonymity_tables
from imaging_pipeline.deid.evidence import Evidence, collect, decisions_digest, run_of, write_tables
from imaging_pipeline.deid.evidence_page import render_page, write_page
from imaging_pipeline.deid.outcomes import Outcome, Verdict, numbers_in, pixel_figures, quasi_identifiers
from imaging_pipeline.deid.pixels import Box, Decision, Decisions, PixelReport
from imaging_pipeline.deid.pixels import Verdict as Choice
from imaging_pipeline.deid.pixels.masks import Device
from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline.dicom.header import read_header
from imaging_pipeline_tests.deid.corpus import ROOT, chest_film, encode, keys

RUN = run_of(load_profile(), keys(), Decisions(), "5")


def released(number: int, **more: object) -> Outcome:
    values: dict[str, object] = {
        "actions": {"00100010 D": 1, "00081140.00081155 U": 2, "00091010 X": 1},
        "file": f"P1/{number}.dcm", "sha256": f"{number:064x}", "sop_instance_uid": f"2.25.{number}",
        "patient_id": "P1", "study_instance_uid": "2.25.9", "numbers": ("a", "b"),
        "pixels": {"frames": 2, "regions": 1}, "warnings": ("FACE_RECONSTRUCTION_POSSIBLE",), "options": ("113100",),
    }  # fmt: skip
    return Outcome(f"token{number}", Verdict.RELEASED, **values | more)  # type: ignore[arg-type]


def held(number: int, reason: str = "pixel_review_required", verdict: Verdict = Verdict.HELD) -> Outcome:
    return Outcome(f"token{number}", verdict, reason, "why <it> is & so on", "00100010")


def evidence() -> Evidence:
    outcomes = [released(1), released(2), held(3), held(4, "residual_identifier"), held(5, "empty", Verdict.FAILED)]
    copy = Outcome("token6", Verdict.RELEASED, "duplicate_content", "the same bytes")
    return collect(RUN, [*outcomes, copy], {"hidden": 2})


def rows(name: str) -> list[dict[str, object]]:
    return [dict(row) for row in evidence().tables[name]]


def test_the_counts_close() -> None:
    found = evidence()
    assert found.is_closed
    assert {name: found.count(name) for name in ("in", "released", "held", "failed", "files", "duplicates")} == {
        "in": 6, "released": 3, "held": 2, "failed": 1, "files": 2, "duplicates": 1,
    }  # fmt: skip


def test_counts_that_do_not_close_are_seen() -> None:
    found = evidence()
    broken = [{"measure": "in", "objects": 7}, *found.tables["counts"][1:]]
    assert not Evidence(found.run, {**found.tables, "counts": broken}).is_closed


def test_actions_are_summed_by_attribute_and_named() -> None:
    assert rows("actions") == [
        {"path": "00081140.00081155", "attribute": "ReferencedSOPInstanceUID", "action": "U", "elements": 4},
        {"path": "00091010", "attribute": "", "action": "X", "elements": 2},
        {"path": "00100010", "attribute": "PatientName", "action": "D", "elements": 2},
    ]


def test_what_is_held_is_told_by_object_and_by_reason() -> None:
    assert [row["object"] for row in rows("held")] == ["token3", "token4", "token5"]
    assert {row["reason"]: row["objects"] for row in rows("reasons")} == {
        "pixel_review_required": 1, "residual_identifier": 1, "empty": 1, "duplicate_content": 1,
    }  # fmt: skip
    assert [row["objects"] for row in rows("screen")] == [2, 1, 4]


def test_pixels_warnings_and_options_are_summed() -> None:
    assert rows("pixels") == [{"measure": "frames", "number": 4}, {"measure": "regions", "number": 2}]
    assert rows("warnings") == [{"warning": "FACE_RECONSTRUCTION_POSSIBLE", "number": 2}]
    assert rows("options") == [{"code": "113100", "number": 2}]


def test_the_release_digest_changes_with_any_file() -> None:
    digests = {
        str(collect(RUN, outcomes, {}).run["release_digest"])
        for outcomes in ([released(1)], [released(2)], [released(1), released(2)], [released(1, sha256="0")])
    }
    assert len(digests) == 4
    first, second = (collect(RUN, order, {}).run for order in ([released(1), released(2)], [released(2), released(1)]))
    assert first == second


@given(
    st.builds(
        Outcome,
        token=st.text(min_size=1),
        verdict=st.sampled_from(Verdict),
        reason=st.text(),
        actions=st.dictionaries(st.text(), st.integers(1, 9)),
        options=st.lists(st.text()).map(tuple),
        warnings=st.lists(st.text()).map(tuple),
        numbers=st.lists(st.text()).map(tuple),
        quasi=st.dictionaries(st.text(), st.text()),
    )
)
def test_an_outcome_comes_back_from_a_journal(outcome: Outcome) -> None:
    assert Outcome.from_json(json.loads(json.dumps(outcome.as_json()))) == outcome


def test_tables_are_written_as_csv_and_as_one_document(tmp_path: Path) -> None:
    write_tables(tmp_path, evidence())
    with (tmp_path / "held.csv").open() as stream:
        assert [row["object"] for row in csv.DictReader(stream)] == ["token3", "token4", "token5"]
    document = json.loads((tmp_path / "evidence.json").read_text())
    assert document["run"]["key_id"] == keys().key_id
    assert set(document["tables"]) == {path.stem for path in tmp_path.glob("*.csv")}


def test_evidence_has_no_key_and_no_time() -> None:
    text = json.dumps([evidence().run, evidence().tables], default=list)
    assert not re.search(r"\d\d:\d\d", text)
    assert "time" not in text
    assert len(str(evidence().run["key_id"])) == 16


def test_k_counts_the_patients_who_share_all_their_characteristics() -> None:
    patients = {"P1": "F", "P2": "F", "P3": "F", "P4": "M"}
    classes, uniqueness = anonymity_tables((patient, {"PatientSex": sex}) for patient, sex in patients.items())
    assert [dict(row) for row in classes] == [
        {"k": 1, "classes": 1, "patients": 1},
        {"k": 3, "classes": 1, "patients": 3},
    ]
    assert [dict(row) for row in uniqueness] == [{"attribute": "PatientSex", "values": 2, "patients_alone": 1}]


def test_all_values_of_a_patients_objects_count_together() -> None:
    ages = [("P1", "040Y"), ("P1", "041Y"), ("P2", "040Y"), ("P2", "041Y"), ("P3", "040Y")]
    classes, _ = anonymity_tables((patient, {"PatientAge": age}) for patient, age in ages)
    assert {row["k"]: row["patients"] for row in classes} == {1: 1, 2: 2}
    without, none = anonymity_tables([("P1", {}), ("P2", {})])
    assert ([dict(row) for row in without], none) == ([{"k": 2, "classes": 1, "patients": 2}], [])


def test_quasi_identifiers_and_numbers_come_from_the_released_header() -> None:
    header = read_header(encode(chest_film(PatientAge="061Y", SoftwareVersions=["V4.2-77", "plain"]))).json
    assert quasi_identifiers(header) == {
        "PatientAge": "061Y", "PatientSex": "F", "PatientBirthDate": "19610412",
        "InstitutionName": "St. Ottilien Hospital",
    }  # fmt: skip
    found = numbers_in(header)
    assert {f"{ROOT}.3.1", "v4.2-77", "mrn-7731945", "acc992817"} <= found
    assert not {"plain", "20210105", "1.2.840.10008.5.1.4.1.1.1.1"} & found


def test_the_page_escapes_what_it_shows_and_fetches_nothing(tmp_path: Path) -> None:
    write_page(tmp_path / "index.html", evidence())
    page = (tmp_path / "index.html").read_text()
    assert page == render_page(evidence())
    assert "why &lt;it&gt; is &amp; so on" in page
    assert "6 objects in = 3 released + 2 held + 1 failed" in page
    assert not re.search(r"<script|src=|https?://|url\(", page)


def test_the_page_of_a_run_that_released_nothing_can_be_read() -> None:
    page = render_page(collect(RUN, [held(1)], {}))
    assert "1 objects in = 0 released + 1 held" in page
    assert "Nothing was released" in page


def test_figures_of_pixels_can_be_summed() -> None:
    report = PixelReport(3, 2, (Box(0, 0, 4, 4), Box(4, 4, 5, 5)), ("text",), is_changed=True, face_risk=True)
    assert pixel_figures(report) == {
        "frames": 3, "frames read by the text detector": 2, "regions blanked": 2, "objects with changed pixels": 1,
        "objects whose face could be reconstructed": 1, "objects changed by rule text": 1,
        "words left when looked at again": 0,
    }  # fmt: skip
    assert pixel_figures(PixelReport()) == {}


def test_any_decision_changes_the_digest_of_decisions() -> None:
    kept, blanked = Decision(Choice.RELEASE), Decision(Choice.BLANK, (Box(0, 0, 4, 4),))
    made = [Decisions(), Decisions({"a": kept}), Decisions({"b": kept}), Decisions({"a": blanked})]
    made += [Decisions({}, {Device("m", "x", "1.2", 4, rows): kept}) for rows in (4, 5)]
    assert len({decisions_digest(each) for each in made}) == len(made)
    orders = (Decisions({"a": kept, "b": blanked}), Decisions({"b": blanked, "a": kept}))
    assert decisions_digest(orders[0]) == decisions_digest(orders[1])
