"""The checks of frozen datasets in Dagster, and the asset that freezes them."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import dagster as dg
import pytest

from imaging_pipeline.defs.assets.tensors import dataset
from imaging_pipeline.defs.checks.datasets import both_classes_on_every_side, no_image_on_two_sides
from imaging_pipeline.defs.checks.zones import no_patient_on_two_sides
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.settings import Settings
from imaging_pipeline.tensors.definition import load_definition
from imaging_pipeline.tensors.splits import Split, split_of
from imaging_pipeline_tests.conftest import environment
from imaging_pipeline_tests.tensors.labelled import Labelled, picture

DATASET = load_definition("pneumonia")


def patients_on(side: Split, count: int) -> list[str]:
    plan = DATASET.split
    found = (f"p{n}" for n in range(1000) if split_of(f"p{n}", seed=plan.seed, fractions=plan.fractions) is side)
    return [next(found) for _ in range(count)]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Two datasets of a lake with two patients on each side; one image is of a test and of a training patient."""
    shipped = resources.files("imaging_pipeline.tensors") / "data" / "datasets" / "pneumonia.yaml"
    own = tmp_path / "own.yaml"
    own.write_text(shipped.read_text("utf-8").replace("name: pneumonia", "name: own"))
    made = Workspace(Settings.from_environment(environment(tmp_path / "home", DATASETS=f"pneumonia,{own}")))
    with made.research() as lake:
        labelled = Labelled(lake, tmp_path / "shards")
        labelled.recipe = made.recipe()
        for side in Split:
            for number, patient in enumerate(patients_on(side, 2)):
                labelled.add(f"{side}-{number}", patient, label=float(number), task=DATASET.task)
        labelled.add(
            "twin", patients_on(Split.TRAIN, 3)[2], array=picture("test-0", labelled.recipe), task=DATASET.task
        )
        labelled.flush()
    return made


def run(workspace: Workspace) -> tuple[dg.ExecuteInProcessResult, dict[str, bool]]:
    result = dg.materialize(
        [dataset, no_image_on_two_sides, both_classes_on_every_side, no_patient_on_two_sides],
        selection=dg.AssetSelection.all() | dg.AssetSelection.all_asset_checks(),
        resources={"workspace": workspace},
        raise_on_error=False,
    )
    return result, {each.check_name: each.passed for each in result.get_asset_check_evaluations()}


def test_sound_datasets_pass_and_show_their_datasheets_without_small_cells(workspace: Workspace) -> None:
    result, passed = run(workspace)
    assert result.success
    assert passed == {
        "no_image_on_two_sides": True, "both_classes_on_every_side": True, "no_patient_on_two_sides": True
    }  # fmt: skip
    shown = result.asset_materializations_for_node("dataset")[0].metadata
    assert "the same pixels are on another side" in str(shown["left_out"].value)
    version = shown["version"].value
    assert [line.split(" | ")[1:] for line in str(shown["sides"].value).splitlines()[2:]] == [
        [version, side, "<5", "<5 |"] for _ in range(2) for side in Split
    ]
    sheets = sorted(workspace.settings.home.rglob("datasheet.md"), reverse=True)
    assert [sheet.parents[1].name for sheet in sheets] == ["pneumonia-chest-xray-224", "own-chest-xray-224"]
    assert str(sheets[0].relative_to(workspace.settings.home)) == shown["datasheet_file"].value
    assert "\n".join(sheet.read_text("utf-8") for sheet in sheets) == shown["datasheet"].value
    assert "| project | research |" in sheets[0].read_text("utf-8")
    assert str(workspace.settings.home) not in str({name: value.value for name, value in shown.items()})


def test_a_version_with_a_twin_on_two_sides_is_blocked(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("imaging_pipeline.tensors.versions.twins_of", lambda *_: set())
        result, passed = run(workspace)
    assert result.success is False
    assert passed["no_image_on_two_sides"] is False
