"""Tests of the training settings."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pneumonia.config import Architecture, TrainingConfig


def test_settings_survive_json() -> None:
    config = TrainingConfig(architecture=Architecture.DENSENET121, image_size=224, horizontal_flip=True)
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_names_become_codes() -> None:
    assert TrainingConfig.from_dict({"architecture": "convnext_tiny"}).architecture is Architecture.CONVNEXT_TINY


@pytest.mark.parametrize(
    "settings",
    [
        {"architecture": "resnet19"},
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
    ],
)
def test_wrong_settings_are_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        TrainingConfig.from_dict(settings)
