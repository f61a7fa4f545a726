"""Tests of the training settings."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pneumonia.config import Balance, TrainingConfig, load_training
from imaging_pipeline.tensors.definition import load_definition


def test_settings_survive_json() -> None:
    config = TrainingConfig(architecture="densenet121", image_size=224, horizontal_flip=True)
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_names_become_codes() -> None:
    assert TrainingConfig.from_dict({"balance": "sampler"}).balance is Balance.SAMPLER
    with pytest.raises(ConfigurationError, match="sampler"):
        TrainingConfig.from_dict({"equal_sources": "collection"})
    with pytest.raises(ConfigurationError, match="manufacturer"):
        TrainingConfig.from_dict({"balance": "sampler", "equal_sources": "shoe size"})


@pytest.mark.parametrize(
    "settings",
    [
        {"device": "tpu"},
        {"epochs": 0},
        {"epochs": 1.5},
        {"epochs": True},
        {"batch_size": 1},
        {"image_size": 8},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"target_sensitivity": 1.1},
        {"contrast": "high"},
        {"epoch": 3},
        {"channels": 2},
        {"schedule": "linear"},
        {"external": "nih"},
        {"calibrate": 1},
        {"promotion": {"margin": -1}},
        {"promotion": {"margins": 1}},
        {"promotion": {"waived": {"metadata_only": ""}}},
        {"promotion": {"waived": ["metadata_only"]}},
        {"promotion": {"waived": {"metadata": "an alarm that there is not"}}},
    ],
)
def test_wrong_settings_are_refused_by_name(settings: dict[str, Any]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(ConfigurationError, match=next(iter(value)) if name == "promotion" else name):
        TrainingConfig.from_dict(settings)


def test_a_file_of_settings_is_loaded_and_one_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.yaml"
    path.write_text("epochs: 3\npromotion:\n  waived:\n    matched_subset: few pairs\n")
    config = load_training(path)
    assert config.epochs == 3
    assert config.promotion.waived == {"matched_subset": "few pairs"}
    for text in ("- epochs", "epochs: [", ""):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match="training"):
            load_training(path)
    with pytest.raises(ConfigurationError, match="resnet18-128"):
        load_training("resnet18-129")


def test_the_example_of_two_sources_can_be_used() -> None:
    folder = Path(__file__).parents[2] / "examples" / "pneumonia_two_sources"
    definition, training = load_definition(folder / "dataset.yaml"), load_training(folder / "training.yaml")
    assert definition.label_sources == ("CSV:kermany", "CSV:nih")
    assert (training.architecture, training.equal_sources) == ("timm/tf_efficientnet_lite0", "collection")
