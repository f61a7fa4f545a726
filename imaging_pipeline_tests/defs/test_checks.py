"""The checks of the data's quality in Dagster, over real lakes."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from imaging_pipeline.definitions import build_defs
from imaging_pipeline.defs.assets.quality import quality_page
from imaging_pipeline.defs.checks.quality import deid_quality, silver_quality
from imaging_pipeline.defs.quality import page_path, quality_command
from imaging_pipeline.defs.reporting import asset_key
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.settings import Settings
from imaging_pipeline_tests.conftest import environment
from imaging_pipeline_tests.metadata.scans import key, scan, uid

Evaluations = dict[str, dict[str, dg.AssetCheckEvaluation]]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Lakes with a scan that lacks a slice, in batch b1, and one without a fault, in b2."""
    home: Path = tmp_path_factory.mktemp("installation") / "home"
    made = Workspace(Settings.from_environment(environment(home)))
    with made.identified() as lake:
        scan(lake, "b1", study=1, leave_out=[3])
        scan(lake, "b2", study=2)
    with made.research():
        pass
    return made


@pytest.fixture(scope="module")
def evaluations(workspace: Workspace) -> Evaluations:
    """The checks and the page of a batch, run as Dagster runs them: evaluations by zone."""
    found: Evaluations = {}
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("arrival_batch", ["b1"])
        result = dg.materialize(
            [quality_page, silver_quality, deid_quality],
            selection=dg.AssetSelection.all() | dg.AssetSelection.all_asset_checks(),
            instance=instance,
            partition_key="b1",
            resources={"workspace": workspace},
        )
    assert result.success, "a broken rule about the data holds nothing"
    for evaluation in result.get_asset_check_evaluations():
        zone = "deid" if evaluation.asset_key.path[0] == "deid" else "silver"
        found.setdefault(zone, {})[evaluation.check_name] = evaluation
    return found


def test_each_rule_is_a_check_of_its_table_that_warns(evaluations: Evaluations) -> None:
    broken = {name: each for name, each in evaluations["silver"].items() if not each.passed}
    assert set(broken) == {
        "volume_has_no_missing_slices", "instance_numbers_have_no_gaps", "study_has_the_stated_images",
        "acquisition_has_the_stated_images",
    }  # fmt: skip
    assert all(each.severity is dg.AssetCheckSeverity.WARN and not each.blocking for each in broken.values())
    assert broken["volume_has_no_missing_slices"].asset_key == asset_key("silver", "dicom_series")
    assert len(evaluations["silver"]) > 40
    assert {"uids_are_legal", "uids_are_distinct"} <= set(evaluations["deid"])


def test_a_check_names_offenders_by_key_and_tells_what_to_do(evaluations: Evaluations) -> None:
    shown = evaluations["silver"]["volume_has_no_missing_slices"].metadata
    assert (shown["checked"].value, shown["failed"].value) == (1, 1)
    assert key(1, 2) in shown["offenders"].value
    assert key(1, 4) in shown["offenders"].value
    assert "ask the archive" in shown["what_to_do"].value
    assert uid(1, 2) not in str(shown), "UIDs stay in the identified zone"


def test_the_page_of_a_batch_is_written_after_silver(workspace: Workspace, evaluations: Evaluations) -> None:
    page = page_path(workspace, "b1").read_text(encoding="utf-8")
    assert page_path(workspace, "b1").parent == workspace.settings.home / "identified" / "quality"
    assert uid(1, 2) in page
    assert uid(2, 2) not in page, "another batch has its own page"


def test_the_page_follows_each_batch_by_itself_even_when_the_batch_is_held(workspace: Workspace) -> None:
    definitions = build_defs(workspace)
    graph = definitions.resolve_asset_graph()
    page, overview = asset_key("silver", "quality_page"), asset_key("silver", "quality_overview")
    job = definitions.resolve_job_def("ingest_batch")
    assert not {page, overview} & job.asset_layer.executable_asset_keys, "pages do not slow batches down"
    assert graph.get(page).automation_condition is not None
    guarded = {each.asset_key for each in graph.asset_check_keys if graph.get_check_spec(each).blocking}
    assert not guarded & graph.get(page).parent_keys
    assert graph.get(page).partitions_def is not None
    assert graph.get(overview).automation_condition is not None


def test_the_command_says_what_is_broken_and_where_the_page_is(workspace: Workspace, tmp_path: Path) -> None:
    lines = list(quality_command(workspace.settings, None, str(tmp_path / "page.html")))
    assert "WARNING volume_has_no_missing_slices: 1 of 2" in lines
    assert lines[-1].endswith(str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Quality of all batches" in page
    assert uid(1, 2) in page
    assert uid(1, 2) not in "".join(lines)
    with pytest.raises(ConfigurationError, match="no such batch"):
        list(quality_command(workspace.settings, "../b1", None))
