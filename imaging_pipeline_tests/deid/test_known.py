from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from imaging_pipeline.deid.known import HeaderFacts, Patients, facts_of
from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline.deid.screen import Kind
from imaging_pipeline.dicom.header import read_header
from imaging_pipeline_tests.deid.corpus import NAME, PATIENT_ID, ROOT, chest_film, encode


def facts(**attributes: object) -> HeaderFacts:
    return facts_of(read_header(encode(chest_film(**attributes))).json, "north")


def texts(*headers: HeaderFacts) -> dict[tuple[str, str], set[str]]:
    patients = Patients()
    for each in headers:
        patients.add(each)
    return {patient: {found.text for found in known} for patient, known in patients.identifiers(load_profile()).items()}


def test_identifiers_of_one_header_are_known_for_all_objects_of_the_patient() -> None:
    item = Dataset()
    item.PatientID = "OTHER-553311"
    married = facts(PatientName="Grimmelshaus^Oda", OtherPatientIDsSequence=Sequence([item]), StudyInstanceUID="1.2.3")
    known = texts(facts(), married)[("north", PATIENT_ID)]
    assert {"Zwyntharquist", "Grimmelshaus", "OTHER-553311", "Krautschnabel", PATIENT_ID} <= known


def test_headers_of_one_study_are_one_persons_even_without_a_patient_id() -> None:
    known = texts(facts(), facts(PatientID=None, PatientName="Z^O"), facts(PatientID="X-99", StudyInstanceUID="1.9"))
    assert known[("north", f"NO_PID:{ROOT}.1")] == known[("north", PATIENT_ID)]
    assert "X-99" not in known[("north", PATIENT_ID)]


def test_two_patients_know_nothing_of_each_other() -> None:
    first, second = facts(), facts(PatientID="B-222222", PatientName="Abendroth^Max", StudyInstanceUID="1.2.9")
    known = texts(first, second)
    assert not {"Abendroth", "B-222222"} & known[("north", PATIENT_ID)]
    assert "Zwyntharquist" not in known[("north", "B-222222")]


def test_one_patient_id_of_two_issuers_is_two_patients() -> None:
    known = texts(facts(), facts(IssuerOfPatientID="south", StudyInstanceUID="1.2.9"))
    assert set(known) == {("north", PATIENT_ID), ("south", PATIENT_ID)}


def test_uids_and_dates_of_other_objects_are_not_looked_for() -> None:
    patients = Patients()
    patients.add(facts())
    (known,) = patients.identifiers(load_profile()).values()
    assert {found.kind for found in known} == {Kind.PERSON, Kind.NUMBER, Kind.TEXT}


def test_names_in_other_scripts_and_several_values_come_whole() -> None:
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    known = texts(facts(PatientName=name, SpecificCharacterSet="ISO_IR 192", OtherPatientNames=["Meyer^A", "Roe^B"]))
    assert {"Yamada", "山田", "やまだ", "Meyer", "Roe"} <= known[("north", PATIENT_ID)]


def test_what_is_collected_is_not_shown() -> None:
    assert NAME not in repr(facts())
    assert PATIENT_ID not in repr(facts())
