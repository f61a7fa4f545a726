"""Datasets as YAML: what is wrong is refused with the key that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.tensors.assignment import HoldOut, SplitBy
from imaging_pipeline.tensors.definition import load_definition, stored_definition
from imaging_pipeline.tensors.splits import SplitFractions

WHOLE = {
    "name": "mine",
    "task": "pneumonia",
    "recipe": "chest-xray-224",
    "cohort": "patient_sex = 'F'",
    "label_sources": ["CSV:RSNA"],
    "licence": "CC0",
    "split": {
        "by": "patient",
        "seed": 1,
        "fractions": {"train": 0.8, "test": 0.2},
        "stratify": ["label", "sex"],
        "hold_out": {"by": "manufacturer", "values": ["ACME"]},
    },
}


def written(folder: Path, content: object) -> Path:
    path = folder / "dataset.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_definition_is_read_and_kept_whole(tmp_path: Path) -> None:
    definition = load_definition(written(tmp_path, WHOLE))
    assert definition.split.hold_out == HoldOut("manufacturer", ("ACME",))
    assert definition.split.fractions.val == 0
    assert stored_definition(definition.to_json()) == definition


def test_official_sides_need_no_fractions(tmp_path: Path) -> None:
    split = {"by": "official", "seed": 1, "validation": 0.25}
    plan = load_definition(written(tmp_path, WHOLE | {"split": split})).split
    assert (plan.by, plan.fractions.train, plan.fractions.val) == (SplitBy.OFFICIAL, 0.75, 0.25)
    assert plan.others is None


def test_images_without_official_sides_have_shares_of_their_own(tmp_path: Path) -> None:
    split = {"by": "official", "seed": 1, "others": {"train": 0.5, "test": 0.5}}
    definition = load_definition(written(tmp_path, WHOLE | {"split": split}))
    assert definition.split.others == SplitFractions(0.5, 0.0, 0.5)
    assert stored_definition(definition.to_json()) == definition


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": "../up"}, "name"),
        ({"surprise": 1}, "surprise"),
        ({"task": ""}, "task"),
        ({"label_sources": "CSV"}, "label_sources"),
        ({"split": []}, "split"),
        ({"split": {"seed": 1, "fractions": {"train": 0.5}}}, "fractions"),
        ({"split": {"seed": -1, "fractions": {"train": 1}}}, "seed"),
        ({"split": {"seed": 1, "fractions": {"train": 2}}}, "train"),
        ({"split": {"seed": 1, "by": "chance"}}, "by"),
        ({"split": {"seed": 1, "by": "official", "fractions": {}}}, "fractions"),
        ({"split": {"seed": 1, "by": "official", "others": {"train": 1, "dev": 1}}}, "split.others"),
        ({"split": {"seed": 1, "fractions": {"train": 1}, "stratify": ["shoe size"]}}, "stratify"),
        ({"split": {"seed": 1, "fractions": {"train": 1}, "hold_out": {"by": "view"}}}, "hold_out"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], named: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=named):
        load_definition(written(tmp_path, WHOLE | change))


def test_a_file_that_is_no_definition_is_refused(tmp_path: Path) -> None:
    for content in (["a"], {"name": "x"}):
        with pytest.raises(ConfigurationError, match="dataset"):
            load_definition(written(tmp_path, content))
    with pytest.raises(ConfigurationError, match="pneumonia"):
        load_definition(tmp_path / "nothing.yaml")
