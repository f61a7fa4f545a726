from __future__ import annotations

from datetime import date, time
from pathlib import Path

import pytest

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pacs.cohort import read_cohort
from imaging_pipeline.pacs.config import (
    Delivery,
    Hours,
    Method,
    NewStudies,
    OwnAe,
    PacsConfig,
    PeerKind,
    What,
    ZoneName,
    load_pacs,
)
from imaging_pipeline.settings import Settings
from imaging_pipeline_tests.conftest import environment

WHOLE = """
ae:
  title: PIPELINE
  host: 0.0.0.0
  port: 11113
  tls: {certificate: own.pem, key: own.key, authorities: /etc/ca.pem}
  associations: 4
  free_bytes: 1000
  unknown_sop_classes: false
peers:
  - {name: hospital, kind: dimse, ae_title: PACS, host: pacs.example, port: 104, source: hospital, tls: true}
  - {name: cloud, kind: dicomweb, url: "https://cloud.example/dicom-web/", token_variable: CLOUD_TOKEN, source: cloud}
  - {name: gateway, kind: orthanc, url: "http://gateway.example:8042", user_variable: GATEWAY_USER, source: gateway}
retrievals:
  - name: night
    peer: hospital
    new_studies: {since: 2026-01-01, overlap_days: 5, modalities: [CT, DX]}
    method: get
    hours: "20:00-06:00"
    studies_per_hour: 60
    every_seconds: 600
  - {name: trial, peer: cloud, cohort: trial.csv}
  - {name: follow, peer: gateway}
deliveries:
  - {name: back, peer: hospital, what: results, zone: clinical, objects_per_second: 2.5}
  - {name: share, peer: cloud, what: cohort, cohort: "SELECT study_key FROM deid.dicom_study"}
"""


def load(tmp_path: Path, text: str) -> PacsConfig:
    path = tmp_path / "pacs.yaml"
    path.write_text(text, encoding="utf-8")
    return load_pacs(path)


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    config = load(tmp_path, WHOLE)
    assert config.ae.tls is not None
    assert config.ae.tls.key == tmp_path / "own.key"
    assert config.ae.tls.authorities == Path("/etc/ca.pem")
    assert (config.ae.host, config.ae.port, config.ae.associations) == ("0.0.0.0", 11113, 4)
    assert not config.ae.unknown_sop_classes
    assert config.peer("cloud").url == "https://cloud.example/dicom-web"
    assert config.peer("gateway").kind is PeerKind.ORTHANC
    night = config.retrieval("night")
    assert night.new_studies == NewStudies(date(2026, 1, 1), 5, ("CT", "DX"))
    assert (night.method, night.studies_per_hour) == (Method.GET, 60)
    assert night.hours == Hours(time(20), time(6))
    assert config.retrieval("trial").cohort == tmp_path / "trial.csv"
    assert config.delivery("back") == Delivery(
        "back", "hospital", What.RESULTS, ZoneName.CLINICAL, objects_per_second=2.5
    )


def test_without_a_file_nobody_is_known(tmp_path: Path) -> None:
    settings = Settings.from_environment(environment(tmp_path))
    assert load_pacs(settings.pacs) == PacsConfig()
    assert OwnAe().host == "127.0.0.1"


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    settings = Settings.from_environment(environment(tmp_path, PACS=str(tmp_path / "pacs.yaml")))
    assert settings.pacs == tmp_path / "pacs.yaml"


PEER = "peers: [{name: p, kind: dimse, ae_title: P, host: h, port: 104, source: s}]\n"
WEB = "peers: [{name: w, kind: dicomweb, url: 'http://h', source: s}]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("peers: 1", "peers must be a list"),
        ("nonsense: {}", "unknown key 'nonsense'"),
        ("peers: [{name: p, kind: fax}]", "kind must be dimse or dicomweb or orthanc"),
        ("peers: [{name: p, kind: dimse, host: h, ae_title: A, token: t}]", "no secret stands in this file"),
        ("peers: [{name: p, kind: dicomweb, url: 'http://u:p@h'}]", "without user and password"),
        ("peers: [{name: p, kind: dicomweb, url: 'http://h', token_variable: 'abc.def'}]", "name of an environment"),
        ("peers: [{name: p, kind: dicomweb, url: 'http://h', port: 1}]", "unknown key 'port'"),
        ("ae: {title: 'THIS TITLE IS TOO LONG'}", "ae: title must be an AE title"),
        ("ae: {port: 0}", "port must be a whole number from 1 to 65535"),
        (PEER + "retrievals: [{name: r, peer: q, cohort: c}]", "has no peer 'q'; it has p"),
        (PEER + "retrievals: [{name: r, peer: p}]", "give either cohort or new_studies"),
        (PEER + "retrievals: [{name: r, peer: p, cohort: c, hours: '20-6'}]", "as '20:00-06:00'"),
        (PEER + "retrievals: [{name: r, peer: p, new_studies: {since: soon}}]", "since must be a date"),
        (PEER + "retrievals: [{name: r, peer: p, cohort: c}, {name: r, peer: p, cohort: c}]", "'r' is there twice"),
        (PEER.replace(", source: s", "") + "retrievals: [{name: r, peer: p, cohort: c}]", "needs a source"),
        (PEER.replace("port: 104, ", "") + "retrievals: [{name: r, peer: p, cohort: c}]", "needs a port"),
        (WEB.replace("dicomweb", "orthanc") + "retrievals: [{name: r, peer: w, cohort: c}]", "log of changes"),
        (WEB + "deliveries: [{name: d, peer: w, what: cohort}]", "cohort must be one SELECT"),
        (WEB + "deliveries: [{name: d, peer: w, what: released, zone: clinical}]", "in the clinical zone"),
        (WEB + "deliveries: [{name: d, peer: w, what: results, objects_per_second: 0}]", "a number from"),
    ],
)
def test_what_is_wrong_is_said_by_entry_and_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load(tmp_path, text)


def test_a_secret_that_was_written_down_is_not_repeated_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, "peers: [{name: p, kind: dicomweb, url: 'http://h', token_variable: 'hunter2!'}]")
    assert "hunter2" not in str(caught.value)


def test_a_cohort_takes_the_most_precise_identifier_of_each_row_once(tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    path.write_text("PatientID,AccessionNumber,StudyInstanceUID\nA,,\nB,7,\nC,8,1.2.3\nA,,\n,,\n", encoding="utf-8-sig")
    assert read_cohort(path) == {"StudyInstanceUID": ("1.2.3",), "AccessionNumber": ("7",), "PatientID": ("A",)}


@pytest.mark.parametrize(("text", "said"), [("Name\nX\n", "one of the columns"), ("PatientID\nA*\n", "wildcard")])
def test_a_cohort_that_would_fetch_something_else_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "cohort.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=said):
        read_cohort(path)
