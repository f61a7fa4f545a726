"""Deliveries in Dagster and on the command line: requested when there is something to send, seen when it was."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from imaging_pipeline.definitions import build_defs
from imaging_pipeline.defs.delivery import delivery_sensors
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.deid.clearance import Clearance
from imaging_pipeline.settings import Settings
from imaging_pipeline_tests.conftest import environment
from imaging_pipeline_tests.deid.corpus import ROOT, chest_film, encode
from imaging_pipeline_tests.delivery.peers import Archive, archive
from imaging_pipeline_tests.integration import chain

PACS = """
peers:
  - {{name: archive, kind: dimse, ae_title: ARCHIVE, host: 127.0.0.1, port: {port}, timeout_seconds: 5}}
deliveries:
  - {{name: released_to_archive, peer: archive, what: released}}
  - {{name: results_to_archive, peer: archive, what: results, zone: clinical, hours: '{hours}'}}
"""


def workspace_of(folder: Path, port: int = 104, hours: str = "00:00-23:59") -> Workspace:
    (folder / "pacs.yaml").write_text(PACS.format(port=port, hours=hours))
    return Workspace(Settings.from_environment(environment(folder / "home", PACS=str(folder / "pacs.yaml"))))


def look(workspace: Workspace, instance: dg.DagsterInstance, name: str, cursor: str | None = None) -> object:
    """What a delivery's sensor says."""
    (sensor,) = (each for each in delivery_sensors(workspace) if each.name == f"send_{name}")
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"workspace": workspace})
    return sensor(context)


def test_each_delivery_has_a_sensor_and_no_batch_waits_for_a_peer(tmp_path: Path) -> None:
    defs = build_defs(workspace_of(tmp_path))
    names = {sensor.name for sensor in defs.sensors or ()}
    assert {"send_released_to_archive", "send_results_to_archive"} <= names
    batch = defs.resolve_job_def("ingest_batch").asset_layer.executable_asset_keys
    sent = defs.resolve_job_def("send_research").asset_layer.executable_asset_keys
    assert dg.AssetKey(["gold", "delivery"]) in sent
    assert not {key for key in batch if key.path[-1] == "delivery"}


def test_a_sensor_waits_for_a_lake_and_for_its_hours(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    said = look(workspace_of(tmp_path), instance, "released_to_archive")
    assert isinstance(said, dg.SkipReason)
    assert "no research lake yet" in str(said.skip_message)
    said = look(workspace_of(tmp_path, hours="00:00-00:00"), instance, "results_to_archive")
    assert isinstance(said, dg.SkipReason)
    assert "hours" in str(said.skip_message)


@pytest.mark.slow
def test_what_a_batch_has_released_is_sent_once_and_shown(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    landing = tmp_path / "landing"
    landing.mkdir()
    for number in (1, 2):
        (landing / f"{number}.dcm").write_bytes(encode(chest_film(SOPInstanceUID=f"{ROOT}.3.{number}")))
    with archive() as peer:
        port = peer.peer.port or 0
        workspace = workspace_of(tmp_path, port)
        pacs = str(tmp_path / "pacs.yaml")
        status, said = chain.run(tmp_path / "home", landing, "ingest", str(landing))
        assert status == 0, said
        request = look(workspace, instance, "released_to_archive")
        assert isinstance(request, dg.SensorResult)
        (run,) = request.run_requests or ()
        result = build_defs(workspace).resolve_job_def("send_research").execute_in_process(
            instance=instance, run_config=run.run_config, tags=run.tags
        )  # fmt: skip
        assert result.success
        assert all(check.passed for check in result.get_asset_check_evaluations())
        _check_all_arrived(workspace, peer)
        came = peer.came
        status, said = chain.run(tmp_path / "home", landing, "send", PACS=pacs)
        assert (status, peer.came) == (0, came), said
        assert "released_to_archive" in said
        asked = look(workspace, instance, "released_to_archive")
        assert isinstance(asked, dg.SensorResult)
        assert isinstance(look(workspace, instance, "released_to_archive", cursor=asked.cursor), dg.SkipReason)
        clearance = Clearance(workspace.settings.clearance_files)
        (batch,) = clearance.batches()
        clearance.withhold(batch)  # marks come and go without a write to the lake
        assert isinstance(look(workspace, instance, "released_to_archive", cursor=asked.cursor), dg.SensorResult)
    assert chain.run(tmp_path / "home", landing, "send", "nobody", PACS=pacs)[0] == 2


def _check_all_arrived(workspace: Workspace, peer: Archive) -> None:
    with workspace.research(read_only=True) as lake:
        released = {str(uid) for (uid,) in lake.rows("SELECT sop_instance_uid FROM deid.dicom_instance")}
        accepted = lake.rows("SELECT sop_instance_uid FROM gold.delivery WHERE state = 'ACCEPTED'")
    assert released
    assert set(peer.uids) == {str(uid) for (uid,) in accepted} == released
    assert len(peer.uids) == len(released)
