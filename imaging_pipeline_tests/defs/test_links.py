"""Links from pages of Dagster to released studies."""

from __future__ import annotations

from pathlib import Path

import pytest

from imaging_pipeline.defs.links import MOST_STUDIES, study_links
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.settings import Settings
from imaging_pipeline_tests.conftest import environment

SERVICE = "https://images.example"


def release(lake: Lake, batch_id: str, studies: dict[str, list[str]]) -> None:
    """Rows of released studies by UID, with one object of each of their modalities; those of "XX" are replaced."""
    rows: dict[str, list[dict[str, object]]] = {"dicom_study": [], "dicom_series": [], "dicom_instance": []}
    for study, modalities in studies.items():
        of_study: dict[str, object] = {"study_key": study, "arrival_batch": batch_id, "row_version": "1"}
        rows["dicom_study"].append(of_study | {"patient_key": "p", "study_instance_uid": study})
        for modality in modalities:
            uid = f"{study}.{modality}"
            series = of_study | {"series_key": uid, "series_instance_uid": uid, "modality": modality}
            rows["dicom_series"].append(series)
            instance: dict[str, object] = {
                "instance_key": uid,
                "series_key": uid,
                "sop_instance_uid": uid,
                "row_version": "1",
            }
            state = "SUPERSEDED" if modality == "XX" else "CURRENT"
            rows["dicom_instance"].append(instance | {"arrival_batch": batch_id, "version_state": state})
    with lake.transaction():
        for table, candidates in rows.items():
            lake.replace_batch("deid", table, registry.table(table).rows(candidates), batch_id)


def test_a_batch_links_to_the_studies_of_the_service_that_is_named(research: Lake) -> None:
    release(research, "b1", {"2.25.1": ["DX", "CT", "XX"], "2.25.2": ["MR"]})
    release(research, "b2", {f"2.25.9{number}": ["DX"] for number in range(MOST_STUDIES + 5)})
    page, viewer = f"[page]({SERVICE}/studies/2.25.1)", f"[viewer]({SERVICE}/viewer/viewer?StudyInstanceUIDs=2.25.1)"
    lines = study_links(research, "b1", SERVICE)["studies"].value.splitlines()
    assert lines[2] == f"| {page} | {viewer} | CT DX | 2 |"
    assert len(lines) == 4
    assert len(study_links(research, "b2", SERVICE)["studies"].value.splitlines()) == 2 + MOST_STUDIES


def test_nothing_is_linked_without_a_service_or_without_a_study(research: Lake) -> None:
    release(research, "b1", {"2.25.1": ["DX"]})
    assert study_links(research, "b1", None) == {}
    assert study_links(research, "b2", SERVICE) == {}


def test_the_address_of_the_service_is_checked_and_holds_no_password(tmp_path: Path) -> None:
    settings = Settings.from_environment(environment(tmp_path, SERVE_URL="https://images.example/"))
    assert settings.serve_url == SERVICE
    for url in ("images.example", "https://ann:secret@images.example", "https://images.example/path", "ftp://x"):
        with pytest.raises(ConfigurationError, match="SERVE_URL") as refused:
            Settings.from_environment(environment(tmp_path, SERVE_URL=url))
        assert "secret" not in str(refused.value)
