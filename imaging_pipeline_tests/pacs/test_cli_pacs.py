"""The command and the Dagster side, on a PACS that is an Orthanc."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from pydicom.data import get_testdata_file

from imaging_pipeline.cli import main
from imaging_pipeline.definitions import build_defs
from imaging_pipeline.defs.pacs import RETRIEVAL_TAG, retrieval_sensor, retrieve_studies
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.pacs.config import load_pacs
from imaging_pipeline.settings import Settings
from imaging_pipeline_tests.conftest import environment
from imaging_pipeline_tests.servers.pacs import Orthanc, running_orthanc

CT = Path(str(get_testdata_file("CT_small.dcm")))
CT_STUDY = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        server.store(CT)
        yield server


@pytest.fixture
def settings(orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / "cohort.csv").write_text(f"StudyInstanceUID\n{CT_STUDY}\n")
    (tmp_path / "pacs.yaml").write_text(
        "ae: {free_bytes: 0}\n"
        "peers:\n"
        f"  - {{name: archive, kind: dimse, ae_title: ORTHANC, host: 127.0.0.1, port: {orthanc.dicom_port},"
        " source: landing}\n"
        f"  - {{name: web, kind: dicomweb, url: '{orthanc.dicomweb_url}', source: landing}}\n"
        f"  - {{name: log, kind: orthanc, url: '{orthanc.url}', source: landing}}\n"
        "retrievals:\n"
        "  - {name: trial, peer: web, cohort: cohort.csv}\n"
        "  - {name: follow, peer: log}\n"
        "  - {name: never, peer: web, cohort: cohort.csv, hours: '00:00-00:00'}\n"
    )
    variables = environment(tmp_path / "home", PACS=str(tmp_path / "pacs.yaml"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    made = Settings.from_environment(variables)
    made.landing.mkdir(parents=True)
    return made


def landed(settings: Settings) -> int:
    return len(list(settings.landing.rglob("*.dcm")))


@pytest.mark.parametrize("peer", ["archive", "web", "log"])
def test_echo_says_that_a_peer_answers(settings: Settings, capsys: pytest.CaptureFixture[str], peer: str) -> None:
    assert main(["pacs", "echo", peer]) == 0
    assert capsys.readouterr().out == f"{peer} answers\n"


@pytest.mark.parametrize("peer", ["archive", "web"])
def test_find_lists_studies(settings: Settings, capsys: pytest.CaptureFixture[str], peer: str) -> None:
    assert main(["pacs", "find", peer, "--date", "2004-01-19"]) == 0
    assert capsys.readouterr().out == f"{CT_STUDY}       1 instances  CT\n"
    assert main(["pacs", "find", peer]) == 2


def test_retrieve_and_status(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pacs", "retrieve", "trial"]) == 0
    assert landed(settings) == 1
    assert main(["pacs", "status"]) == 0
    said = capsys.readouterr().out
    assert "1 studies offered; 1 came whole" in said
    assert "trial                      1 studies came whole, 0 wait, 0 failed" in said
    assert CT_STUDY not in said


def test_hours_hold_for_the_command_as_well_unless_it_is_told_otherwise(settings: Settings) -> None:
    assert main(["pacs", "retrieve", "never"]) == 1
    assert landed(settings) == 0
    assert main(["pacs", "retrieve", "never", "--now"]) == 0
    assert landed(settings) == 1


def test_pull_fetches_a_cohort_by_c_get_without_a_listener(settings: Settings, tmp_path: Path) -> None:
    assert main(["pacs", "pull", "archive", "--get", "--cohort", str(tmp_path / "cohort.csv")]) == 0
    assert landed(settings) == 1
    assert main(["pacs", "pull", "log", "--cohort", str(tmp_path / "cohort.csv")]) == 2


def test_without_a_file_the_command_says_where_it_is_described(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IMAGING_PIPELINE_PACS")
    assert main(["pacs", "status"]) == 2
    assert "docs/how-to/pacs.md" in capsys.readouterr().err


def test_a_retrievals_sensor_asks_for_one_run_at_a_time_whose_objects_become_a_batch(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    workspace = Workspace(settings)
    definitions = build_defs(workspace)
    sensors = {each.name: each for each in definitions.sensors or []}
    assert {"trial_retrieval", "follow_retrieval", "never_retrieval"} <= set(sensors)
    trial = load_pacs(settings.pacs).retrieval("trial")
    asked = retrieval_sensor(trial)(dg.build_sensor_context(instance=instance))
    assert isinstance(asked, dg.RunRequest)
    assert asked.tags[RETRIEVAL_TAG] == "trial"
    job = definitions.resolve_job_def(retrieve_studies.name)
    under_way = instance.create_run_for_job(
        job, run_config=asked.run_config, status=dg.DagsterRunStatus.STARTED, tags=asked.tags
    )
    assert isinstance(retrieval_sensor(trial)(dg.build_sensor_context(instance=instance)), dg.SkipReason)
    instance.delete_run(under_way.run_id)
    done = job.execute_in_process(run_config=asked.run_config, instance=instance)
    assert done.success
    assert landed(settings) == 1
    found = sensors["landing_sensor"](dg.build_sensor_context(instance=instance, resources={"workspace": workspace}))
    assert isinstance(found, dg.SensorResult)
    assert [request.tags["imaging/objects"] for request in found.run_requests or []] == ["1"]


def test_a_retrievals_sensor_keeps_its_hours(settings: Settings, instance: dg.DagsterInstance) -> None:
    never = load_pacs(settings.pacs).retrieval("never")
    skipped = retrieval_sensor(never)(dg.build_sensor_context(instance=instance))
    assert isinstance(skipped, dg.SkipReason)
    assert "hours" in str(skipped.skip_message)
