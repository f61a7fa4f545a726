"""The labelling loop: what somebody draws in the viewer becomes a label, a new dataset version and a challenger."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pydicom
import pytest
from fastapi.testclient import TestClient

from imaging_pipeline.definitions import build_defs
from imaging_pipeline.defs.assets.annotations import label_annotations_nightly
from imaging_pipeline.defs.assets.model import MODEL_KEY, PROMOTION_CHECK, RECORD_TABLES
from imaging_pipeline.defs.reporting import asset_key
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.objects.folder import uri_to_path
from imaging_pipeline.pneumonia.tracking import CHALLENGER, CHAMPION
from imaging_pipeline.settings import Settings
from imaging_pipeline.web.access.gate import open_access
from imaging_pipeline.web.access.roles import Role
from imaging_pipeline.web.app import create_app
from imaging_pipeline.web.zone import ZoneName
from imaging_pipeline_tests.conftest import environment
from imaging_pipeline_tests.deid.corpus import encode
from imaging_pipeline_tests.integration import chain
from imaging_pipeline_tests.pneumonia.test_labels import GROUP, code, image, item
from imaging_pipeline_tests.web.stow.service import MULTIPART, body_of
from imaging_pipeline_tests.web.stow.test_annotations import report_on

pytestmark = pytest.mark.slow

LABELS = "stage_2_train_labels.csv"
UNLABELLED = 3

LOOP = [
    *(asset_key("gold", name) for name in ("annotation", "dataset_version", "dataset_member", *RECORD_TABLES)),
    MODEL_KEY,
]
"""The assets that run by themselves at night, one after the other; none of them needs the identified side."""


def nightly(workspace: Workspace, instance: dg.DagsterInstance) -> object:
    night = datetime(2026, 3, 1, 2, 30, tzinfo=UTC)
    with dg.build_schedule_context(
        instance=instance, resources={"workspace": workspace}, scheduled_execution_time=night
    ) as context:
        return label_annotations_nightly(context)


def test_the_schedule_waits_for_a_lake(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    said = nightly(Workspace(Settings.from_environment(environment(tmp_path / "home"))), instance)
    assert isinstance(said, dg.SkipReason)
    assert "no research lake yet" in str(said.skip_message)


def test_labels_drawn_on_unlabelled_films_make_a_new_dataset_version_and_a_challenger(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    home, landing = tmp_path / "home", chain.small_landing(tmp_path / "landing", patients=26)
    training = tmp_path / "training.yaml"
    training.write_text("{image_size: 32, epochs: 1, batch_size: 8, architecture: resnet18}\n")
    _forget_labels(landing / LABELS)
    settings = {"TRAINING": str(training), "STUDY_QUIET_SECONDS": "0"}
    workspace = Workspace(Settings.from_environment(environment(home, LANDING=str(landing), **settings)))
    for arguments in (("ingest", str(landing)), ("learn",)):
        status, said = chain.run(home, landing, *arguments, **settings)
        assert status == 0, said
    assert _versions(workspace) == [1]

    annotated = annotate(workspace)
    assert annotated >= 2
    for folder in ("identified", "vault"):
        (home / folder).rename(tmp_path / folder)
    assert isinstance(nightly(workspace, instance), dg.RunRequest)
    job = build_defs(workspace).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, asset_selection=LOOP)
    assert result.success
    assert not (home / "identified").exists()
    assert not (home / "vault").exists()
    (judged,) = (check for check in result.get_asset_check_evaluations() if check.check_name == PROMOTION_CHECK)
    assert judged.metadata["reasons"].value

    before, after = _rows(
        workspace, "SELECT dataset_version, member_count FROM gold.dataset_version ORDER BY created_at"
    )
    assert int(str(after[1])) == int(str(before[1])) + annotated
    assert _versions(workspace) == [1, 2]
    assert _rows(workspace, "SELECT dataset_version FROM gold.embedding_model ORDER BY model_version") == [
        before[:1],
        after[:1],
    ]
    *_, newest = workspace.tracker().versions()
    assert (newest.model.version, set(newest.aliases) <= {CHALLENGER, CHAMPION}) == ("2", True)
    assert newest.aliases
    assert isinstance(nightly(workspace, instance), dg.SkipReason)


def annotate(workspace: Workspace) -> int:
    """Send a label of each unlabelled film, as OHIF writes it; how many there are."""
    films = _unlabelled(workspace)
    access = open_access(workspace.settings, "research")
    access.accounts.add_user("reader", {Role.RESEARCH, Role.ANNOTATOR}, {workspace.settings.project})
    token = access.accounts.create_token("reader").text
    app = create_app(workspace.zone(ZoneName.RESEARCH), access)
    with TestClient(app, headers={"Authorization": f"Bearer {token}", "Content-Type": MULTIPART}) as client:
        for number, uri in enumerate(films):
            film = pydicom.dcmread(uri_to_path(uri), stop_before_pixels=True)
            said = item("TEXT", code("121106", "DCM"), TextValue="pneumonia" if number else "no pneumonia")
            group = item("CONTAINER", GROUP, said, image(str(film.SOPInstanceUID)))
            report = report_on(
                film, ContentSequence=[group], SOPInstanceUID=f"2.25.9{number}", SeriesInstanceUID=f"2.25.8{number}"
            )
            answer = client.post("/dicom-web/studies", content=body_of(encode(report)))
            assert answer.status_code == 202, answer.text
    return len(films)


def _forget_labels(labels: Path) -> None:
    """Take the last images of the list out of it."""
    header, *rows = labels.read_text().splitlines()
    gone = list(dict.fromkeys(row.partition(",")[0] for row in rows))[-UNLABELLED:]
    labels.write_text("\n".join([header, *(row for row in rows if row.partition(",")[0] not in gone)]) + "\n")


def _rows(workspace: Workspace, sql: str) -> list[tuple[object, ...]]:
    with workspace.research(read_only=True) as lake:
        return lake.rows(sql)


def _unlabelled(workspace: Workspace) -> list[str]:
    rows = _rows(
        workspace,
        """SELECT storage_uri FROM gold.image_tensor JOIN deid.dicom_file_location USING (instance_key)
        WHERE instance_key NOT IN (SELECT subject_key FROM gold.label) ORDER BY 1""",
    )
    return [str(uri) for (uri,) in rows]


def _versions(workspace: Workspace) -> list[int]:
    rows = _rows(workspace, "SELECT DISTINCT CAST(model_version AS INTEGER) FROM gold.embedding_model ORDER BY 1")
    return [int(str(version)) for (version,) in rows]
