"""The settings of one training run, complete enough to rebuild its network anywhere.

Owns their names, defaults and limits, and their JSON form that is stored beside the weights. Contains no torch
and no paths of a deployment.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imaging_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Architecture(enum.StrEnum):
    """Backbones offered, by their torchvision names."""

    RESNET18 = "resnet18"
    DENSENET121 = "densenet121"
    EFFICIENTNET_B0 = "efficientnet_b0"
    CONVNEXT_TINY = "convnext_tiny"


class Device(enum.StrEnum):
    """Where the network runs; AUTO takes CUDA when there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a network is built and trained.

    The defaults train in minutes on a small CPU machine. With a GPU and tens of thousands of studies, raise
    ``image_size`` to 224-512, take ``densenet121`` and start from pretrained weights.

    Attributes:
        architecture: the torchvision backbone.
        image_size: side in pixels to which the network resizes its input.
        epochs: most passes over the training set.
        batch_size: images per optimiser step.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: of AdamW.
        seed: of weights, order and augmentation; on CPU, the same seed and thread count give the same weights.
        patience: epochs without a better validation AUROC after which training stops.
        target_sensitivity: the operating point: the highest threshold that finds this part of the positives of
            the validation set.
        rotation_degrees: augmentation, largest rotation either way.
        translation: augmentation, largest shift as a part of the side.
        scaling: augmentation, largest change of scale as a part.
        brightness: augmentation, largest offset on the 0-1 scale.
        contrast: augmentation, largest change of contrast as a part.
        horizontal_flip: augmentation; off because a flipped chest has its heart on the wrong side.
        weights_path: local file with pretrained weights (a torch state dict), or None to start from scratch.
        device: where to train.
        cache_bytes: the resized images stay in memory up to this size; beyond it they are read anew each epoch.
    """

    architecture: Architecture = Architecture.RESNET18
    image_size: int = 128
    epochs: int = 12
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    seed: int = 0
    patience: int = 8
    target_sensitivity: float = 0.9
    rotation_degrees: float = 7.0
    translation: float = 0.05
    scaling: float = 0.1
    brightness: float = 0.1
    contrast: float = 0.2
    horizontal_flip: bool = False
    weights_path: str | None = None
    device: Device = Device.AUTO
    cache_bytes: int = 2 * 1024**3

    def __post_init__(self) -> None:
        object.__setattr__(self, "architecture", _member(Architecture, "architecture", self.architecture))
        object.__setattr__(self, "device", _member(Device, "device", self.device))
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise ConfigurationError(f"training setting {name} must lie between {low:g} and {high:g}")
            if name in _WHOLE and not isinstance(value, int):
                raise ConfigurationError(f"training setting {name} must be a whole number")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values, in the order of declaration."""
        return {name: str(value) if isinstance(value, enum.StrEnum) else value for name, value in self._items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> TrainingConfig:
        """The config that ``to_dict`` described; settings left out take their default.

        Raises:
            ConfigurationError: a setting is unknown or out of its limits.
        """
        if unknown := set(settings) - {field.name for field in dataclasses.fields(cls)}:
            raise ConfigurationError(f"unknown training settings: {', '.join(sorted(unknown))}")
        return cls(**settings)

    def _items(self) -> list[tuple[str, Any]]:
        return [(field.name, getattr(self, field.name)) for field in dataclasses.fields(self)]


_LIMITS: dict[str, tuple[float, float]] = {
    "image_size": (32, 2048),
    "epochs": (1, 10_000),
    "batch_size": (2, 4096),
    "learning_rate": (1e-7, 1.0),
    "weight_decay": (0.0, 1.0),
    "seed": (0, 2**63 - 1),
    "patience": (1, 10_000),
    "target_sensitivity": (0.01, 1.0),
    "rotation_degrees": (0.0, 45.0),
    "translation": (0.0, 0.5),
    "scaling": (0.0, 0.5),
    "brightness": (0.0, 0.5),
    "contrast": (0.0, 0.9),
    "cache_bytes": (0, math.inf),
}
_WHOLE = {"image_size", "epochs", "batch_size", "seed", "patience", "cache_bytes"}


def _member(codes: type[enum.StrEnum], name: str, value: str) -> enum.StrEnum:
    try:
        return codes(value)
    except ValueError:
        raise ConfigurationError(f"training setting {name} must be one of: {', '.join(codes)}") from None
