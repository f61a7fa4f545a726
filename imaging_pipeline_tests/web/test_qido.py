"""Searches over HTTP, as PS3.18 10.6 describes them."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree as ET

import pytest

from imaging_pipeline.web import qido
from imaging_pipeline.web.native_xml import NAMESPACE
from imaging_pipeline_tests.web.clinic import ROOT, Asked, Clinic, objects, served

MUELLER, MEYER, NOBODY = "2.25.1", "2.25.3", "2.25.4"
EVERYBODY = [MEYER, MUELLER, NOBODY]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    clinic = Clinic(tmp_path_factory.mktemp("clinic"))
    clinic.take_in(**{name.removesuffix(".dcm"): data for name, data in objects().items()})
    with served(clinic) as found:
        yield found


def test_studies_come_newest_first_with_all_required_attributes(asked: Asked) -> None:
    found = asked.search("/studies")
    assert [match["0020000D"]["Value"][0] for match in found] == EVERYBODY
    mueller = found[1]
    assert mueller["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Müller^Jörg"}]}
    assert mueller["00080061"] == {"vr": "CS", "Value": ["CT", "MR"]}
    assert mueller["00080020"] == {"vr": "DA", "Value": ["20210105"]}
    assert mueller["00080030"] == {"vr": "TM", "Value": ["101530"]}
    assert mueller["00201206"]["Value"] == [2]
    assert mueller["00201208"]["Value"] == [4]
    assert mueller["00080056"]["Value"] == ["ONLINE"]
    assert mueller["00081190"] == {"vr": "UR", "Value": [f"http://testserver{ROOT}/studies/{MUELLER}"]}
    assert list(mueller) == sorted(mueller)  # PS3.18 F.2.2


def test_what_a_study_does_not_say_is_answered_empty_and_nothing_made_up(asked: Asked) -> None:
    nobody = asked.search("/studies", StudyInstanceUID=NOBODY)[0]
    assert nobody["00100020"] == {"vr": "LO"}
    assert nobody["00080020"] == {"vr": "DA"}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("PatientID", "P1", [MUELLER]),
        ("00100020", "P1", [MUELLER]),
        ("PatientID", "P?", [MEYER, MUELLER]),
        ("PatientID", "p1", []),  # only names are compared without case
        ("PatientID", "", EVERYBODY),
        ("PatientName", "müller^jörg", [MUELLER]),
        ("PatientName", "MULLER*", [MUELLER]),
        ("PatientName", "Müller", []),
        ("PatientName", "*", EVERYBODY),
        ("PatientName", "me?er^*", [MEYER]),
        ("StudyDate", "20210105", [MUELLER]),
        ("StudyDate", "20210105-20220309", [MUELLER]),
        ("StudyDate", "20210106-", [MEYER]),
        ("StudyDate", "-20220310", [MEYER, MUELLER]),
        ("StudyDate", "2021.01.05", [MUELLER]),
        ("StudyTime", "08", [MEYER]),
        ("StudyTime", "0800-101530", [MEYER, MUELLER]),
        ("StudyTime", "101531-", []),
        ("StudyInstanceUID", f"{MUELLER},{NOBODY}", [MUELLER, NOBODY]),
        ("StudyInstanceUID", f"{MUELLER}\\{NOBODY}", [MUELLER, NOBODY]),
        ("ModalitiesInStudy", "MR", [MUELLER]),
        ("ModalitiesInStudy", "MR,DX", EVERYBODY),
        ("ModalitiesInStudy", "C?", [MUELLER]),
        ("00080061", "PT", []),
        ("AccessionNumber", "A*", [MEYER, MUELLER]),
        ("StudyDescription", "CT thorax [native]", [MUELLER]),
        ("StudyDescription", "*[nat*", [MUELLER]),
        ("NumberOfStudyRelatedInstances", "2", [MEYER]),
        ("Modality", "CT", [MUELLER]),  # some series of the study
        ("SOPInstanceUID", "2.25.3.1.10", [MEYER]),  # some instance of it
        ("RequestAttributesSequence.RequestedProcedureID", "RP8", [MEYER]),
        ("00400275.00401001", "RP*", [MEYER]),
        ("00400275.00401001", "RP9", []),
    ],
)
def test_values_match_as_their_representation_says(asked: Asked, key: str, value: str, expected: list[str]) -> None:
    assert asked.uids("/studies", **{key: value}) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Maier", [MEYER]), ("anna meyer", [MEYER]), ("jorg", [MUELLER]), ("Miller Jörg", [MUELLER]), ("Meyer Jörg", [])],
)
def test_fuzzy_names_match_by_sound_in_any_order(asked: Asked, name: str, expected: list[str]) -> None:
    assert asked.uids("/studies", PatientName=name, fuzzymatching="true") == expected


def test_empty_and_multiple_values_match_when_they_are_asked_for(asked: Asked) -> None:
    assert asked.uids("/studies", StudyDate='""', emptyvaluematching="true") == [NOBODY]
    assert asked.uids("/studies", StudyDescription='""', emptyvaluematching="true") == [MEYER, NOBODY]
    assert asked.uids("/studies", PatientID="P1,P3", multiplevaluematching="true") == [MEYER, MUELLER]
    assert asked.uids("/studies", PatientID="P1,P3") == []


def test_conditions_are_joined_over_levels(asked: Asked) -> None:
    assert asked.uids("/studies", PatientSex="M", ModalitiesInStudy="CT") == [MUELLER]
    assert asked.uids("/series", "0020000E", PatientSex="M", Modality="MR") == [f"{MUELLER}.2"]
    assert asked.uids("/instances", "00080018", PatientSex="M", InstanceNumber="2") == [f"{MUELLER}.1.2"]
    assert asked.uids("/instances", "00080018", PatientSex="F", Modality="CT") == []


def test_series_and_instances_come_by_their_numbers_within_their_parent(asked: Asked) -> None:
    assert asked.uids(f"/studies/{MUELLER}/series", "0020000E") == [f"{MUELLER}.1", f"{MUELLER}.2"]
    assert asked.uids(f"/studies/{MEYER}/series/{MEYER}.1/instances", "00080018") == [f"{MEYER}.1.1", f"{MEYER}.1.10"]
    series = asked.search(f"/studies/{MUELLER}/series", Modality="MR")[0]
    assert series["00400244"]["Value"] == ["20210105"]
    assert series["00201209"]["Value"] == [1]
    assert "00100010" not in series  # the study is in the path


def test_what_lies_above_is_answered_where_the_path_does_not_say_it(asked: Asked) -> None:
    instance = asked.search("/instances", SOPInstanceUID=f"{MUELLER}.1.2")[0]
    assert instance["00100010"]["Value"] == [{"Alphabetic": "Müller^Jörg"}]
    assert instance["00080060"]["Value"] == ["CT"]
    assert instance["00280010"] == {"vr": "US", "Value": [4]}
    below_study = asked.search(f"/studies/{MUELLER}/instances", SOPInstanceUID=f"{MUELLER}.1.2")[0]
    assert "00100010" not in below_study
    assert below_study["00080060"]["Value"] == ["CT"]


def test_fields_are_included_by_keyword_and_tag_and_all(asked: Asked) -> None:
    plain, named, every = (
        asked.search("/series", SeriesInstanceUID=f"{MUELLER}.1", **more)[0]
        for more in ({}, {"includefield": "Manufacturer,00180015"}, {"includefield": "all"})
    )
    assert "00080070" not in plain
    assert named["00080070"]["Value"] == ["Acme Imaging"]
    assert named["00180015"]["Value"] == ["CHEST"]
    assert {"00080070", "00180015", "0008103E"} <= set(every)


def test_within_one_study_attributes_that_only_headers_hold_match_and_are_answered(asked: Asked) -> None:
    path = f"/studies/{MUELLER}/instances"
    assert asked.uids(path, "00080018", BitsStored="12") == [f"{MUELLER}.1.2", f"{MUELLER}.2.1"]
    assert asked.uids(path, "00080018", ImageType="PRIM*", BitsStored="11") == [f"{MUELLER}.1.1"]
    every = asked.search(path, SOPInstanceUID=f"{MUELLER}.1.1", includefield="all")[0]
    assert every["00280101"]["Value"] == [11]
    assert not [tag for tag, element in every.items() if tag.startswith("0002") or "BulkDataURI" in element]


def test_over_everything_such_an_attribute_is_ignored_with_a_warning(asked: Asked) -> None:
    answer = asked.client.get(f"{ROOT}/instances", params={"BitsStored": "11"})
    assert len(answer.json()) == 7
    assert answer.headers["warning"].startswith(f"299 http://testserver{ROOT}: ")
    assert "00280101" in answer.headers["warning"]


def test_pages_join_without_gap_and_overlap(asked: Asked) -> None:
    pages = [asked.uids("/instances", "00080018", limit="3", offset=str(offset)) for offset in (0, 3, 6, 9)]
    assert [len(page) for page in pages] == [3, 3, 1, 0]
    assert len({uid for page in pages for uid in page}) == 7


def test_more_matches_than_one_answer_holds_are_told_of(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qido, "MOST_RESULTS", 5)
    answer = asked.client.get(f"{ROOT}/instances", params={"limit": "100"})
    assert len(answer.json()) == 5
    assert "There are 2 additional results" in answer.headers["warning"]
    assert "warning" not in asked.client.get(f"{ROOT}/instances", params={"limit": "4"}).headers


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1", "limit=x", "offset=1e3", "fuzzymatching=yes", "StudyDate=soon", "StudyInstanceUID=1.2%27--",
        "SeriesNumber=one", "PatientNam=x", "PatientID=1&00100020=2", "includefield=Nothing", "StudyTime=1-2-3",
        "StudyDate=-", "limit=99999999999999999999",
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_a_bad_request_that_repeats_no_value(asked: Asked, query: str) -> None:
    answer = asked.client.get(f"{ROOT}/studies?{query}")
    assert answer.status_code == 400
    value = query.rpartition("=")[2]
    assert value not in answer.json()["detail"] or value in ("1", "2", "-")


@pytest.mark.parametrize("value", ["'; DROP TABLE study; --", "%", "_", '" OR 1=1', "x') OR ('1'='1"])
def test_a_value_is_never_part_of_the_query(asked: Asked, value: str) -> None:
    for key in ("PatientID", "StudyDescription", "PatientName"):
        assert asked.uids("/studies", **{key: value}) == []
    assert asked.uids("/studies") == EVERYBODY


def test_no_match_is_no_content_and_no_parent_is_not_found(asked: Asked) -> None:
    assert asked.client.get(f"{ROOT}/studies", params={"PatientID": "nobody"}).status_code == 204
    assert asked.client.get(f"{ROOT}/studies/2.25.99/series").status_code == 404
    assert asked.client.get(f"{ROOT}/studies/{MUELLER}/series/{MEYER}.1/instances").status_code == 404
    assert asked.client.get(f"{ROOT}/studies/x*/series").status_code == 400


def test_answers_are_json_or_xml_as_the_client_accepts(asked: Asked) -> None:
    plain = asked.client.get(f"{ROOT}/studies", headers={"Accept": "application/json"})
    assert plain.headers["content-type"] == "application/json"
    xml = asked.client.get(f"{ROOT}/studies", headers={"Accept": 'multipart/related; type="application/dicom+xml"'})
    assert xml.headers["content-type"].startswith('multipart/related; type="application/dicom+xml"; boundary=')
    boundary = xml.headers["content-type"].partition("boundary=")[2]
    parts = [part.partition(b"\r\n\r\n")[2] for part in xml.content.split(f"--{boundary}\r\n".encode())[1:]]
    parts[-1] = parts[-1].removesuffix(f"--{boundary}--\r\n".encode())
    trees = [ET.fromstring(part) for part in parts]
    patients = [tree.find("{*}DicomAttribute[@keyword='PatientName']") for tree in trees]
    assert [each is not None and each.findtext(".//{*}FamilyName") for each in patients] == ["MEYER", "Müller", None]
    assert trees[0].tag == f"{{{NAMESPACE}}}NativeDicomModel"
    assert asked.client.get(f"{ROOT}/studies", headers={"Accept": "image/png"}).status_code == 406


def test_nobody_unknown_searches(asked: Asked) -> None:
    assert asked.client.get(f"{ROOT}/studies", headers={"Authorization": "Bearer x"}).status_code == 401
