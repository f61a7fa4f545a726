"""Objects this software has made: rows like those of any object, and gone with what they were made from."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline.errors import Reason, TransientError
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.completeness import publish_study_state, settle_studies
from imaging_pipeline.metadata.made_objects import MadeObject, add_objects, write_object
from imaging_pipeline.metadata.quality import count_violations
from imaging_pipeline.metadata.silver import ENTITY_TABLES, load_silver
from imaging_pipeline_tests.deid.corpus import ROOT, keys
from imaging_pipeline_tests.deid.test_release import FIRST, SECOND, Zones
from imaging_pipeline_tests.metadata.headers import memory_lake

GROUP = f"{FIRST}+marks"
LOCATED = "SELECT storage_uri, object_key FROM deid.dicom_file_location WHERE arrival_batch LIKE '%+%' ORDER BY ALL"
COPIED = ("PatientID", "PatientName", "PatientSex", "StudyInstanceUID", "StudyDate", "AccessionNumber")


def instances(lake: Lake, schema: str = "deid") -> dict[str, str]:
    """Files of all instances that no one here has made, by key."""
    rows = lake.rows(
        f"""SELECT instance_key, storage_uri FROM {schema}.dicom_instance AS instance
        JOIN {schema}.dicom_file_location USING (instance_key, object_key)
        WHERE instance.row_version[1] <> '1' ORDER BY 1"""
    )
    return {str(key): str(uri).removeprefix("file://") for key, uri in rows}


def mark(source: Path | str, number: int = 1, **attributes: object) -> Dataset:
    """A made-up object in the study of another."""
    image = pydicom.dcmread(source)
    ds = Dataset()
    for keyword in COPIED:
        if keyword in image:
            setattr(ds, keyword, image[keyword].value)
    ds.SOPClassUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.88.33", "SR"
    ds.SOPInstanceUID, ds.SeriesInstanceUID = f"2.25.77{number}", f"2.25.88{number}"
    ds.Manufacturer = "imaging-pipeline"
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def marks(zones: Zones, schema: str = "deid", **attributes: object) -> list[MadeObject]:
    """One such object of each instance."""
    lake = zones.research if schema == "deid" else zones.identified
    return [
        write_object(zones.folder / "marks", mark(path, number, **attributes), [key])
        for number, (key, path) in enumerate(instances(lake, schema).items(), 1)
    ]


def content(lake: Lake, schema: str = "deid") -> dict[str, list[tuple[object, ...]]]:
    """All rows, but for when they were written."""
    return {
        name: lake.rows(f"SELECT * EXCLUDE (_loaded_at) FROM {schema}.{name} ORDER BY ALL")
        for name in (*ENTITY_TABLES, "made_object")
    }


def other(number: int) -> dict[str, object]:
    return {
        "PatientID": f"MRN-{str(number) * 7}",
        "StudyInstanceUID": f"{ROOT}.{number}.4",
        "SeriesInstanceUID": f"{ROOT}.{number}.5",
        "SOPInstanceUID": f"{ROOT}.{number}.6",
    }


@pytest.fixture
def zones(tmp_path: Path) -> Iterator[Zones]:
    with memory_lake("identified") as identified, memory_lake("research") as research:
        yield Zones(tmp_path, identified, research)


@pytest.mark.parametrize("schema", ["deid", "silver"])
def test_what_was_made_becomes_rows_in_the_study_it_was_made_from_and_comes_and_goes_whole(
    zones: Zones, schema: str
) -> None:
    zones.take_in(FIRST, one=other(1), two=other(2))
    lake = zones.research if schema == "deid" else zones.identified
    before = content(lake, schema)
    added = add_objects(lake, schema, FIRST, "marks", marks(zones, schema))
    assert len(added.instance_keys) == 2
    assert not added.refused
    assert not count_violations(lake, schema)
    assert lake.rows(
        f"""SELECT DISTINCT number_of_study_related_instances, modalities_in_study, number_of_study_related_series
        FROM {schema}.dicom_study"""
    ) == [(2, ["DX", "SR"], 2)]
    assert len(before["dicom_patient"]) == len(content(lake, schema)["dicom_patient"])
    once = content(lake, schema)
    add_objects(lake, schema, FIRST, "marks", marks(zones, schema))
    assert content(lake, schema) == once
    add_objects(lake, schema, FIRST, "marks", [])
    assert content(lake, schema) == before
    assert not list((zones.folder / "marks").iterdir())


def test_another_run_of_the_batch_leaves_what_was_made_from_the_same_release(zones: Zones) -> None:
    zones.take_in(FIRST, one=other(1), two=other(2))
    add_objects(zones.research, "deid", FIRST, "marks", marks(zones))
    before = content(zones.research)
    load_silver(zones.identified, FIRST)
    zones.release(FIRST)
    assert zones.closes(FIRST)
    after = content(zones.research)
    assert {name: rows for name, rows in after.items() if rows != before[name]} == {}


def test_what_was_made_goes_with_its_source_and_the_rest_stays(zones: Zones) -> None:
    zones.take_in(FIRST, one=other(1), two=other(2))
    add_objects(zones.research, "deid", FIRST, "marks", marks(zones))
    zones.vanish(FIRST, "one")
    assert len(zones.research.rows(LOCATED)) == len(list((zones.folder / "marks").iterdir())) == 1
    assert not count_violations(zones.research, "deid")
    assert (zones.rows("dicom_instance"), zones.rows("dicom_series"), zones.rows("dicom_patient")) == (2, 2, 1)
    zones.vanish(FIRST)
    assert not zones.research.rows(LOCATED)
    assert zones.rows("dicom_study") == zones.rows("made_object") == 0


def test_what_was_made_from_a_looser_release_goes_when_a_stricter_one_comes(zones: Zones) -> None:
    zones.profile = load_profile("research")
    zones.take_in(FIRST, one=other(1))
    add_objects(zones.research, "deid", FIRST, "marks", marks(zones))
    zones.profile = load_profile()
    zones.release(FIRST)
    assert not zones.research.rows(LOCATED)
    assert not list((zones.folder / "marks").iterdir())
    assert zones.rows("dicom_instance") == 1


def test_what_was_made_of_what_was_made_goes_too(zones: Zones) -> None:
    zones.take_in(FIRST, one=other(1))
    (first,) = marks(zones)
    added = add_objects(zones.research, "deid", FIRST, "marks", [first])
    (path,) = instances(zones.research).values()
    second = write_object(zones.folder / "more", mark(path, 9), added.instance_keys)
    assert add_objects(zones.research, "deid", FIRST, "more", [second]).instance_keys
    zones.vanish(FIRST)
    assert not zones.research.rows(LOCATED)
    assert not second.path.exists()


def test_a_withdrawal_that_was_killed_after_the_file_was_gone_is_mended_by_the_next_run(zones: Zones) -> None:
    zones.take_in(FIRST, one=other(1))
    (made,) = marks(zones)
    add_objects(zones.research, "deid", FIRST, "marks", [made])
    made.path.unlink()
    zones.vanish(FIRST)
    assert not zones.research.rows(LOCATED)
    assert zones.rows("dicom_series") == 0


def test_what_was_made_of_an_original_goes_when_the_original_does(zones: Zones) -> None:
    zones.take_in(FIRST, one=other(1), two=other(2))
    add_objects(zones.identified, "silver", FIRST, "marks", marks(zones, "silver"))
    before = content(zones.identified, "silver")
    load_silver(zones.identified, FIRST)
    assert content(zones.identified, "silver") == before
    zones.vanish(FIRST, "two")
    assert zones.identified.rows("SELECT count(*) FROM silver.made_object") == [(1,)]
    assert not count_violations(zones.identified, "silver")
    assert len(list((zones.folder / "marks").iterdir())) == 1


def test_an_object_that_comes_back_from_an_archive_takes_the_place_of_the_one_made(zones: Zones) -> None:
    zones.take_in(FIRST, one=other(1))
    (made,) = marks(zones, "silver")
    add_objects(zones.identified, "silver", FIRST, "marks", [made])
    ds = pydicom.dcmread(made.path)
    zones.take_in(SECOND, back={each.keyword: each.value for each in ds} | {"PixelData": b""})
    found = "SELECT arrival_batch FROM silver.dicom_instance WHERE sop_instance_uid = '2.25.771'"
    assert zones.identified.rows(found) == [(SECOND,)]
    zones.vanish(FIRST)
    assert zones.identified.rows(found) == [(SECOND,)]
    assert not count_violations(zones.identified, "silver")


def test_what_was_made_opens_no_study_that_is_complete(zones: Zones) -> None:
    zones.take_in(FIRST, one=other(1))
    now = datetime.now(UTC) + timedelta(hours=1)
    settle_studies(zones.identified, now, everything=True)
    add_objects(zones.identified, "silver", FIRST, "marks", marks(zones, "silver"))
    assert settle_studies(zones.identified, now, everything=True).reopened == 0
    publish_study_state(zones.identified, zones.research, keys())
    assert zones.research.rows("SELECT state FROM deid.study_state") == [("COMPLETE",)]


def test_what_does_not_belong_there_is_refused_and_the_rest_is_added(zones: Zones) -> None:
    zones.take_in(FIRST, one=other(1), two=other(2))
    (one, path), (two, _) = instances(zones.research).items()
    released = str(pydicom.dcmread(path).SOPInstanceUID)
    folder = zones.folder / "marks"
    wrong = {
        Reason.PATIENT_CONFLICT: write_object(folder, mark(path, 1, PatientID="SOMEBODY"), [one]),
        Reason.GONE: write_object(folder, mark(path, 2), [one, "0" * 32]),
        Reason.CONFLICT_CONTENT: write_object(folder, mark(path, 3, SOPInstanceUID=released), [one]),
        Reason.UID_INVALID: write_object(folder, mark(path, 4, SeriesInstanceUID="2.25.x"), [one]),
        Reason.MISSING_UID: write_object(folder, mark(path, 5, SeriesInstanceUID=""), [one]),
    }
    stranger = write_object(folder, mark(path, 6), [two])
    good = write_object(folder, mark(path, 7), [one])
    added = add_objects(zones.research, "deid", FIRST, "marks", [*wrong.values(), stranger, good])
    assert {issue.reason: path for path, issue in added.refused.items() if path != stranger.path} == {
        reason: made.path for reason, made in wrong.items()
    }
    assert added.refused[stranger.path].reason is Reason.PATIENT_CONFLICT
    assert len(added.instance_keys) == 1
    assert list(folder.iterdir()) == [good.path]
    assert not count_violations(zones.research, "deid")


def test_a_source_that_changes_meanwhile_stops_the_adding(zones: Zones, monkeypatch: pytest.MonkeyPatch) -> None:
    zones.take_in(FIRST, one=other(1))
    made = marks(zones)
    transaction = zones.research.transaction

    def after_a_withdrawal() -> object:
        monkeypatch.undo()
        zones.vanish(FIRST)
        return transaction()

    monkeypatch.setattr(zones.research, "transaction", after_a_withdrawal, raising=False)
    with pytest.raises(TransientError, match="make them again"):
        add_objects(zones.research, "deid", FIRST, "marks", made)
    assert not zones.research.rows(LOCATED)


@pytest.mark.slow
def test_a_lake_as_installed_tells_its_changes(stored_zones: Zones) -> None:
    stored_zones.take_in(FIRST, one=other(1))
    add_objects(stored_zones.research, "deid", FIRST, "marks", marks(stored_zones))
    assert stored_zones.told() == [("create", "current"), ("create", "current")]
    stored_zones.vanish(FIRST)
    assert stored_zones.told()[2:] == [("delete", "deleted"), ("delete", "deleted")]
    assert not count_violations(stored_zones.research, "deid")


@pytest.fixture
def stored_zones(tmp_path: Path, identified: Lake, research: Lake) -> Zones:
    return Zones(tmp_path, identified, research)
