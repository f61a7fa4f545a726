"""The serving index: it follows the lake, and is what one made anew would be."""

from __future__ import annotations

import json
import sqlite3
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from imaging_pipeline.errors import PoisonInput, Reason, TransientError
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.folder import path_to_uri
from imaging_pipeline.web.index import Index, Level, Search
from imaging_pipeline.web.index import index as index_module
from imaging_pipeline.web.zone import ZoneName
from imaging_pipeline_tests.web.clinic import BATCH, CT, Clinic, image

SECOND = "2026-02-01.00001"


def slices(*numbers: int, study: int = 1, **attributes: object) -> dict[str, bytes]:
    """CT slices by file name."""
    more = {"PatientName": "Zimt^A", "PatientID": "P1", "SOPClassUID": CT, "Modality": "CT"} | attributes
    return {f"s{study}n{number}": image(study, 1, number, **more) for number in numbers}


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    return Clinic(tmp_path / "home")


def rows(index: Index) -> dict[str, list[tuple[object, ...]]]:
    """All that an index says, without the numbers it gives its own rows."""
    path = index._zone.index_path
    queries = {
        "study": "SELECT * FROM study",
        "series": "SELECT study.uid, series.* FROM series JOIN study ON study.id = series.study",
        "instance": """SELECT series.uid, instance.*
            FROM instance JOIN series ON series.id = instance.series""",
        "name_word": "SELECT study.uid, tag, word, sound FROM name_word JOIN study ON study.id = name_word.study",
    }
    own = {"id", "study", "series"}
    found: dict[str, list[tuple[object, ...]]] = {}
    with sqlite3.connect(path) as connection:
        for name, sql in queries.items():
            cursor = connection.execute(sql)
            kept = [place for place, column in enumerate(cursor.description) if column[0] not in own]
            found[name] = sorted((tuple(row[place] for place in kept) for row in cursor), key=repr)
    connection.close()
    return found


def studies(index: Index) -> list[str]:
    return [match.uids[0] for match in index.search(Search(Level.STUDY)).matches]


def test_an_index_that_has_followed_the_lake_is_what_one_made_anew_is(clinic: Clinic) -> None:
    clinic.take_in(**slices(1, 2), **slices(1, study=2, PatientID="P2", PatientName="Anis^B"))
    index = clinic.index()
    assert studies(index) == ["2.25.1", "2.25.2"]
    clinic.take_in(SECOND, **slices(3, StudyDescription="more"), **slices(1, study=3, PatientName="Zimt^Corrected"))
    assert index.refresh()
    assert not index.refresh()
    clinic.vanish("s2n1")
    index.refresh()
    assert studies(index) == ["2.25.1", "2.25.3"]
    assert [one.sop_instance_uid for one in index.instances("2.25.1")] == [f"2.25.1.1.{n}" for n in (1, 2, 3)]
    # The patient's newest object corrects the name of the study that nobody touched.
    names = {
        match.document["00100010"]["Value"][0]["Alphabetic"] for match in index.search(Search(Level.STUDY)).matches
    }
    assert names == {"Zimt^Corrected"}
    followed = rows(index)
    index.close()
    for path in clinic.workspace.zone(ZoneName.CLINICAL).cache.glob("index.sqlite*"):
        path.unlink()
    anew = clinic.index()
    assert rows(anew) == followed
    anew.close()


def test_an_instance_says_where_its_bytes_are_as_they_were_read(clinic: Clinic) -> None:
    clinic.take_in(**slices(1))
    index = clinic.index()
    (one,) = index.instances("2.25.1")
    path = clinic.landing / BATCH / "s1n1.dcm"
    assert (one.uri, one.size) == (path_to_uri(path), path.stat().st_size)
    assert clinic.workspace.zone(ZoneName.CLINICAL).reader.read_all(one.target) == path.read_bytes()
    assert (one.rows, one.columns, one.bits_allocated, one.samples_per_pixel) == (4, 4, 16, 1)
    assert (one.number_of_frames, one.photometric, one.patient_id) == (1, "MONOCHROME2", "P1")
    assert index.instance("2.25.1", "2.25.1.1", "2.25.1.1.1") == one
    assert index.instance("2.25.2", "2.25.1.1", "2.25.1.1.1") is None
    assert index.knows("2.25.1", "2.25.1.1")
    assert not index.knows("2.25.1", "2.25.2.1")
    index.close()


def test_headers_are_read_once_and_go_with_their_instance(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    clinic.take_in(**slices(1, 2))
    index = clinic.index()
    instances = index.instances("2.25.1")
    asked = []
    read = index_module.read_headers
    monkeypatch.setattr(
        index_module, "read_headers", lambda zone, missing: asked.append(len(missing)) or read(zone, missing)
    )
    for _ in range(2):
        found = [json.loads(text) for _, text in index.headers(instances[::-1])]
        assert [header["00200013"]["Value"] for header in found] == [[2], [1]]
    assert asked == [2]
    clinic.take_in(SECOND, s1n1=slices(1, StudyDescription="other bytes")["s1n1"])
    index.refresh()
    (first, _) = index.headers(index.instances("2.25.1"))
    assert json.loads(first[1])["00081030"]["Value"] == ["other bytes"]
    assert asked == [2, 2]
    index.close()


def test_the_research_index_holds_released_objects_and_no_way_to_the_others(clinic: Clinic) -> None:
    clinic.take_in(film=image(7, 1, 1, PatientName="Zwetschge^Q", PatientID="P7"))
    clinic.release()
    clinical, research = clinic.index(), clinic.index(ZoneName.RESEARCH)
    (one,) = [one for match in research.search(Search(Level.STUDY)).matches for one in research.instances(*match.uids)]
    assert one.uri.startswith(path_to_uri(clinic.workspace.settings.deid_files))
    assert not research.knows("2.25.7")
    assert clinical.knows("2.25.7")
    ((_, header),) = research.headers([one])
    assert json.loads(header)["00120062"]["Value"] == ["YES"]
    for path in (clinic.workspace.settings.home / "research" / "serving").iterdir():
        data = path.read_bytes()
        assert b"wetschge" not in data.lower()
        assert b"2.25.7." not in data
    clinic.vanish("film")
    clinic.release()
    research.refresh()
    assert studies(research) == []
    with pytest.raises(PoisonInput) as refusal:  # its file is gone, and so is the header that was kept of it
        list(research.headers([one]))
    assert refusal.value.reason is Reason.GONE
    clinical.close()
    research.close()


def test_research_rows_that_lead_out_of_the_zone_are_not_served(clinic: Clinic) -> None:
    clinic.take_in(film=image(7, 1, 1))
    clinic.release()
    with clinic.workspace.research() as lake, lake.transaction():
        lake.connection.execute(
            "UPDATE deid.dicom_file_location SET storage_uri = ?", [path_to_uri(clinic.landing / BATCH / "film.dcm")]
        )
    research = clinic.index(ZoneName.RESEARCH)
    assert research.search(Search(Level.INSTANCE)).matches == []
    research.close()


def test_a_study_is_shown_when_every_batch_it_is_in_has_passed_its_checks(clinic: Clinic) -> None:
    clinic.take_in(**{name: image(7, 1, number) for number, name in enumerate(("a", "b"))})
    clinic.release(is_checked=False)
    index = clinic.index(ZoneName.RESEARCH)
    assert (studies(index), index.held_studies()) == ([], 1)
    clinic.judge(passed=False)
    index.refresh()
    assert (studies(index), index.held_studies()) == ([], 1)
    clinic.judge()
    index.refresh()
    assert (len(studies(index)), index.held_studies()) == (1, 0)

    clinic.take_in(SECOND, c=image(7, 2, 1), other=image(8, 1, 1, PatientID="P8"))
    clinic.release(SECOND, is_checked=False)  # another series of the study, and another patient's study
    index.refresh()
    assert (studies(index), index.held_studies()) == ([], 2)
    clinic.judge(SECOND)
    index.refresh()
    assert (len(studies(index)), index.held_studies()) == (2, 0)
    assert not index.refresh()

    clinic.judge(BATCH, passed=False)  # the check was run again, and objects now
    index.refresh()
    assert (len(studies(index)), index.held_studies()) == (1, 1)
    found = rows(index)
    index.close()
    index._zone.index_path.unlink()
    again = clinic.index(ZoneName.RESEARCH)
    assert (rows(again), again.held_studies()) == (found, 1)
    again.close()


def test_a_study_comes_back_when_another_study_of_its_patient_that_held_it_is_taken_back(clinic: Clinic) -> None:
    clinic.take_in(first=image(7, 1, 1, PatientID="P7"))
    clinic.release()
    index = clinic.index(ZoneName.RESEARCH)
    clinic.take_in(SECOND, second=image(8, 1, 1, PatientID="P7", PatientSex="F"))
    clinic.release(SECOND, is_checked=False)  # the patient's row is of this batch now
    index.refresh()
    assert (studies(index), index.held_studies()) == ([], 2)
    clinic.vanish("second", SECOND)
    clinic.release(SECOND, is_checked=False)
    index.refresh()
    assert (len(studies(index)), index.held_studies()) == (1, 0)
    index.close()


def test_a_mark_that_is_taken_away_is_felt_where_the_lake_is_out_of_reach(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic.take_in(first=image(7, 1, 1))
    clinic.release()
    index = clinic.index(ZoneName.RESEARCH)
    assert len(studies(index)) == 1
    clinic.judge(passed=False)

    def busy() -> Lake:
        raise TransientError("the lake is busy")

    with monkeypatch.context() as patch:
        patch.setattr(index, "_zone", replace(index._zone, open_lake=busy))
        with pytest.raises(TransientError):
            index.refresh()
    assert (studies(index), index.held_studies()) == ([], 1)
    clinic.judge()
    index.refresh()
    assert (len(studies(index)), index.held_studies()) == (1, 0)
    index.close()


def test_what_a_batch_that_waits_says_of_a_device_is_not_shown_with_the_studies_of_others(clinic: Clinic) -> None:
    device = {"Manufacturer": "ACME", "ManufacturerModelName": "X1", "DeviceSerialNumber": "S1", "StationName": "ROOM1"}

    def shown() -> str:
        search = Search(Level.SERIES, has_all_fields=False, fields=frozenset({"00080070", "00081090"}))
        return repr([match.document for match in index.search(search).matches])

    clinic.take_in(first=image(7, 1, 1, PatientID="P7", **device))
    clinic.release()
    clinic.take_in(SECOND, other=image(8, 1, 1, PatientID="P8", **device))
    clinic.release(SECOND, is_checked=False)
    index = clinic.index(ZoneName.RESEARCH)
    assert len(studies(index)) == 1
    with clinic.workspace.research() as lake:
        rows = lake.rows("SELECT arrival_batch FROM deid.dicom_equipment")
    assert rows == [(SECOND,)], "the row is of the batch that came last"
    assert "ACME" not in shown()
    clinic.judge(SECOND)
    index.refresh()
    assert shown().count("ACME") == 2
    index.close()


@pytest.mark.slow
def test_the_file_is_for_its_owner_alone_and_made_again_for_another_version(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic.take_in(**slices(1))
    index = clinic.index()
    path = clinic.workspace.zone(ZoneName.CLINICAL).index_path
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.glob("index.sqlite*")} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    index.close()
    monkeypatch.setattr("imaging_pipeline.web.index.file.INDEX_VERSION", "another")
    again = Index(clinic.workspace.zone(ZoneName.CLINICAL))
    assert studies(again) == []
    again.refresh()
    assert studies(again) == ["2.25.1"]
    again.close()


@pytest.mark.slow
def test_a_lake_that_was_made_anew_or_forgot_its_changes_is_read_as_a_whole(clinic: Clinic) -> None:
    clinic.take_in(**slices(1))
    index = clinic.index()
    with sqlite3.connect(clinic.workspace.zone(ZoneName.CLINICAL).index_path) as connection:
        connection.execute("UPDATE meta SET value = '999999' WHERE name = 'snapshot'")
    connection.close()
    assert index.refresh()
    assert studies(index) == ["2.25.1"]
    clinic.take_in(SECOND, **slices(1, study=5))
    with clinic.workspace.identified() as lake:
        lake.connection.execute(f"CALL ducklake_expire_snapshots('{lake.name}', older_than => now())")
    assert index.refresh()
    assert studies(index) == ["2.25.1", "2.25.5"]
    index.close()


@pytest.mark.slow
def test_threads_search_while_others_refresh(clinic: Clinic) -> None:
    clinic.take_in(**slices(1, 2, 3))
    index = clinic.index()
    wrong: list[object] = []

    def look() -> None:
        for _ in range(40):
            found = [one.instance_number for one in index.instances("2.25.1")]
            if found[:3] != [1, 2, 3]:
                wrong.append(found)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    clinic.take_in(SECOND, **slices(4))
    index.refresh()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(index.instances("2.25.1")) == 4
    index.close()


@pytest.mark.slow
def test_closing_waits_for_a_refresh_that_is_under_way(clinic: Clinic) -> None:
    clinic.take_in(**slices(1, 2, 3))
    index = Index(clinic.workspace.zone(ZoneName.CLINICAL))
    results: list[object] = []
    refreshing = threading.Thread(target=lambda: results.append(index.refresh()))
    refreshing.start()
    index.close()
    refreshing.join()
    assert results == [True]
    assert studies(index) == ["2.25.1"]
