"""The commands below ``dataset``, as a person types them, and the lines that train on what they froze."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imaging_pipeline.cli import main
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.settings import Settings
from imaging_pipeline.tensors.storage import ShardStore
from imaging_pipeline.tensors.withdrawal import withdraw_tensors
from imaging_pipeline_tests.conftest import environment
from imaging_pipeline_tests.tensors.labelled import Labelled, picture

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "datasets.md"

IMAGES = 16

WOMEN = """
name: women
task: pneumonia
cohort: patient_sex = 'F'
split: {by: patient, seed: 1, fractions: {train: 0.5, val: 0.25, test: 0.25}}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation whose research lake has labelled tensors of the shipped recipe, of two images a patient."""
    for name, value in environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    workspace = Workspace(Settings.from_environment())
    with workspace.research() as lake:
        labelled = Labelled(lake, workspace.shards())
        labelled.recipe = workspace.recipe()
        for number in range(IMAGES):
            label, sex = float(number % 3 == 0), "FM"[number // 2 % 2]
            labelled.add(f"i{number:02}", f"p{number // 2}", images=2, label=label, sex=sex, task="pneumonia")
        labelled.flush()
    return tmp_path / "home"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["dataset", *map(str, arguments)])
    told = capsys.readouterr()
    return status, told.out, told.err


def freeze(capsys: pytest.CaptureFixture[str], name: object = "pneumonia") -> str:
    """Freeze a dataset; the digits of its version."""
    status, told, _ = run(capsys, "freeze", name)
    assert status == 0
    return told.split()[1]


def test_a_dataset_is_frozen_listed_shown_and_made_again(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "list") == (0, "", "")
    version = freeze(capsys)
    status, told, _ = run(capsys, "freeze", "pneumonia")
    assert (status, "frozen before, unchanged" in told) == (0, True)
    _, told, _ = run(capsys, "list")
    assert re.fullmatch(rf"{version}  pneumonia-chest-xray-224  {IMAGES} images  8 patients  snapshot \d+\n", told)
    _, shown, _ = run(capsys, "show", "pneumonia")
    sheet = home / "research" / "datasets" / "pneumonia-chest-xray-224" / version / "datasheet.md"
    assert shown == sheet.read_text("utf-8")
    assert "| project | research |" in shown
    assert "| label sources | s: all, where they agree |" in shown
    status, told, _ = run(capsys, "rebuild", version[:6])
    assert (status, "the same, bit by bit" in told) == (0, True)


def test_a_definition_in_a_file_is_frozen_beside_the_shipped_one(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "women.yaml").write_text(WOMEN)
    versions = freeze(capsys), freeze(capsys, tmp_path / "women.yaml")
    _, told, _ = run(capsys, "list")
    assert [line.split()[:3] for line in told.splitlines()] == [
        [versions[1], "women-chest-xray-224", str(IMAGES // 2)],
        [versions[0], "pneumonia-chest-xray-224", str(IMAGES)],
    ]
    assert len(list(home.rglob("datasheet.md"))) == 2

    (tmp_path / "same.yaml").write_text(WOMEN.replace("name: women", "name: same"))
    assert freeze(capsys, tmp_path / "same.yaml") == versions[1], "the same members are the same version"
    status, _, err = run(capsys, "show", versions[1])
    assert (status, "ID/DIGITS" in err) == (2, True)
    for name in ("women", "same"):
        _, told, _ = run(capsys, "show", f"{name}-chest-xray-224/{versions[1][:5]}")
        assert told.startswith(f"# {name}-chest-xray-224, version {versions[1]}\n")


@pytest.mark.usefixtures("home")
def test_an_export_holds_the_images_and_is_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    freeze(capsys)
    status, told, _ = run(capsys, "export", "pneumonia", tmp_path / "out")
    assert (status, "written:" in told) == (0, True)
    with (tmp_path / "out" / "metadata.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == IMAGES
    recipe = Workspace(Settings.from_environment()).recipe()
    for row in rows:
        with Image.open(tmp_path / "out" / row["file_name"]) as image:
            assert np.array_equal(np.asarray(image), picture(row["tensor_key"], recipe)[0])
    assert "there already" in run(capsys, "export", "pneumonia", tmp_path / "out")[1]
    for form in ("webdataset", "huggingface"):
        assert run(capsys, "export", "pneumonia", tmp_path / form, "--format", form)[0] == 0
        assert (tmp_path / form / "dataset.json").is_file()


@pytest.mark.usefixtures("home")
def test_misuse_and_what_was_withdrawn_are_told_without_a_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = freeze(capsys)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with Workspace(Settings.from_environment()).research() as lake:
        withdraw_tensors(lake, {"i03"}, ShardStore(""))
    for arguments, told in (
        (("show", "0000000"), "dataset list"),
        (("show", "pneumon"), "dataset list"),
        (("freeze", tmp_path / "nothing.yaml"), "shipped dataset"),
        (("export", version, tmp_path / "full"), "taken back"),
        (("rebuild", version), "taken back"),
    ):
        status, _, err = run(capsys, *arguments)
        assert status != 0
        assert told in err
        assert "Traceback" not in err
        assert "i03" not in err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]


@pytest.mark.usefixtures("home")
def test_the_lines_of_the_guide_train_on_a_frozen_version(capsys: pytest.CaptureFixture[str]) -> None:
    freeze(capsys)
    (block,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert block.count("    ...") == 1
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    exec(block.replace("    ...", "    seen.append((images, labels))"), {"seen": seen})
    assert sum(len(labels) for _, labels in seen) > 0
    for images, labels in seen:
        assert (images.dtype, images.shape[1:], labels.dtype) == (torch.float32, (1, 224, 224), torch.float32)
        assert 0 <= float(images.min()) < float(images.max()) <= 1


def test_the_datasets_of_an_installation_are_named_by_a_setting(tmp_path: Path) -> None:
    for name, text in (
        ("women", WOMEN),
        ("films", WOMEN.replace("name: women", "name: films\nrecipe: chest-xray-512")),
    ):
        (tmp_path / f"{name}.yaml").write_text(text)

    def names(setting: str) -> list[str]:
        settings = Settings.from_environment(environment(tmp_path / "home", DATASETS=setting))
        return [dataset.name for dataset in Workspace(settings).datasets()]

    women, films = tmp_path / "women.yaml", tmp_path / "films.yaml"
    assert names(f"pneumonia, {women},{films}") == ["pneumonia", "women", "films"]
    for setting, told in ((f"{women},{women}", "same name"), (str(films), "first dataset"), ("nothing", "shipped")):
        with pytest.raises(ConfigurationError, match=told):
            names(setting)
