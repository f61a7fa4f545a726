"""The settings of one training run, complete enough to rebuild its network anywhere, as data in a YAML file.

Owns their names, defaults and limits, their JSON form that is stored beside the weights, and the rules by which a
trained model may become champion. Contains no torch and no paths of a deployment.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.shipped import load_yaml


class Device(enum.StrEnum):
    """Where the network runs; AUTO takes CUDA when there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Balance(enum.StrEnum):
    """What is done about unequal classes.

    WEIGHT weighs the loss; SAMPLER draws both classes equally often; NONE leaves them as they are. Scores stay
    probabilities at the prevalence of the training set in all three.
    """

    WEIGHT = "weight"
    SAMPLER = "sampler"
    NONE = "none"


class Schedule(enum.StrEnum):
    """How the learning rate goes after its warm-up: ONE_CYCLE and COSINE fall to almost nothing, CONSTANT stays.

    ONE_CYCLE rises along a cosine and lowers the momentum meanwhile (Smith and Topin 2018); the others rise linearly.
    """

    ONE_CYCLE = "one_cycle"
    COSINE = "cosine"
    CONSTANT = "constant"


class GreyScaling(enum.StrEnum):
    """How grey values are brought to what networks expect.

    Attributes:
        FIXED: the same for all films; how bright and how flat a film is stays visible to the network.
        FILM: each film's own mean and standard deviation become 0 and 1; what a source exposes or windows otherwise
            is no sign then.
    """

    FIXED = "fixed"
    FILM = "film"


class OperatingPoint(enum.StrEnum):
    """How the threshold is chosen on the validation set.

    SENSITIVITY: the highest that finds `target_sensitivity` of the positives. YOUDEN: where sensitivity + specificity
    is greatest.
    """

    SENSITIVITY = "sensitivity"
    YOUDEN = "youden"


class AlarmName(enum.StrEnum):
    """What is asked of a model to find shortcuts; see `shortcuts`."""

    METADATA = "metadata_only"
    FILE = "file_statistics_only"
    PIXELS = "pixel_statistics_only"
    SOURCE = "source_from_pixels"
    MATCHED = "matched_subset"
    LUNGS = "heat_outside_lungs"


COLLECTION = "collection"

SOURCES = ("source", COLLECTION, "institution", "manufacturer", "station")
"""What tells where an image comes from."""


@dataclass(frozen=True, slots=True)
class PromotionRules:
    """When a challenger becomes champion.

    Attributes:
        margin: how much greater its AUROC must be than the champion's, on the same test images.
        confidence: in this part of the paired resamples of patients it must be greater at all.
        subgroup_tolerance: how much AUROC or sensitivity may fall in a subgroup.
        subgroup_patients: subgroups of fewer patients are shown and not judged.
        shortcut_auroc: from here on, what does not look at the lungs tells the classes apart too well.
        most_unanswered: part of the test images that may get no answer.
        waived: alarms that do not block, each with the reason a person gave.
    """

    margin: float = 0.005
    confidence: float = 0.95
    subgroup_tolerance: float = 0.05
    subgroup_patients: int = 20
    shortcut_auroc: float = 0.65
    most_unanswered: float = 0.05
    waived: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_limits("promotion.", self, _PROMOTION_LIMITS)
        if not isinstance(self.waived, Mapping) or not all(
            isinstance(text, str) and text.strip() for pair in self.waived.items() for text in pair
        ):
            raise ConfigurationError("training setting promotion.waived must give a reason for each alarm it names")
        if unknown := sorted(self.waived.keys() - set(AlarmName)):
            raise ConfigurationError(
                f"training setting promotion.waived names no alarm: {', '.join(unknown)}; "
                f"there are {', '.join(AlarmName)}"
            )


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a network is built and trained.

    The defaults train in minutes on a small CPU machine. With a GPU and tens of thousands of studies, raise
    ``image_size`` to 224-512, take ``densenet121`` and start from pretrained weights.

    Attributes:
        architecture: name of a torchvision classification network, such as ``densenet121`` or ``vit_b_16``, or
            ``timm/NAME`` for a convolutional one of timm, such as ``timm/tf_efficientnet_lite0``.
        channels: of the network's first layer; with 3, as pretrained networks have it, a grey image is repeated.
        image_size: side in pixels to which the network resizes its input.
        grey_scaling: how grey values are brought to what the network expects.
        epochs: most passes over the training set.
        batch_size: images per optimiser step, over all processes.
        learning_rate: peak of the schedule.
        schedule: how the learning rate goes.
        warm_up: part of the schedule in which the learning rate rises.
        weight_decay: of AdamW.
        balance: what is done about unequal classes.
        equal_sources: with the sampler, what is drawn equally often, and with both classes: each ``collection``,
            ``manufacturer`` or other value of a source of images; None: each image.
        seed: of weights, order and augmentation; on CPU, the same seed and thread count give the same weights.
        patience: epochs without a better validation AUROC after which training stops.
        operating_point: how the threshold is chosen.
        target_sensitivity: see `OperatingPoint`.
        calibrate: fit a temperature on the validation set (Guo et al. 2017), so that scores are less certain.
        rotation_degrees: augmentation, largest rotation either way.
        translation: augmentation, largest shift as a part of the side.
        scaling: augmentation, largest change of scale as a part.
        aspect: augmentation, largest change of width over height as a part: films of different shape that a recipe
            makes square are stretched differently, and their shape may tell the classes apart.
        brightness: augmentation, largest offset on the 0-1 scale.
        contrast: augmentation, largest change of contrast as a part.
        gamma: augmentation, largest change of the exponent of the grey values as a part.
        horizontal_flip: augmentation; off because a flipped chest has its heart on the wrong side.
        weights_path: local file with pretrained weights (a torch state dict), or None to start from scratch.
        device: where to train.
        processes: that train together, each on its share of every batch; 0: one for each GPU, else one.
        mixed_precision: compute in bfloat16 on GPUs.
        cache_bytes: the resized images stay in memory up to this size; beyond it they are read anew each epoch.
        external: dataset versions, or datasets for their newest version, on which the model is evaluated besides.
        promotion: when the model becomes champion; changes nothing of the model.
    """

    architecture: str = "resnet18"
    channels: int = 1
    image_size: int = 128
    grey_scaling: GreyScaling = GreyScaling.FIXED
    epochs: int = 12
    batch_size: int = 16
    learning_rate: float = 1e-3
    schedule: Schedule = Schedule.ONE_CYCLE
    warm_up: float = 0.2
    weight_decay: float = 1e-2
    balance: Balance = Balance.WEIGHT
    equal_sources: str | None = None
    seed: int = 0
    patience: int = 8
    operating_point: OperatingPoint = OperatingPoint.SENSITIVITY
    target_sensitivity: float = 0.9
    calibrate: bool = True
    rotation_degrees: float = 7.0
    translation: float = 0.05
    scaling: float = 0.1
    aspect: float = 0.0
    brightness: float = 0.1
    contrast: float = 0.2
    gamma: float = 0.0
    horizontal_flip: bool = False
    weights_path: str | None = None
    device: Device = Device.AUTO
    processes: int = 0
    mixed_precision: bool = True
    cache_bytes: int = 2 * 1024**3
    external: tuple[str, ...] = ()
    promotion: PromotionRules = field(default_factory=PromotionRules)

    def __post_init__(self) -> None:
        for name, codes in _CODES.items():
            object.__setattr__(self, name, _member(codes, name, getattr(self, name)))
        _check_limits("", self, _LIMITS)
        if self.channels not in {1, 3}:
            raise ConfigurationError("training setting channels must be 1 or 3")
        for name in ("calibrate", "horizontal_flip", "mixed_precision"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"training setting {name} must be true or false")
        if not isinstance(self.architecture, str) or not isinstance(self.weights_path, str | None):
            raise ConfigurationError("training settings architecture and weights_path must be texts")
        if self.equal_sources is not None and self.balance is not Balance.SAMPLER:
            raise ConfigurationError("training setting equal_sources needs balance: sampler")
        if self.equal_sources not in (None, *SOURCES):
            raise ConfigurationError(f"training setting equal_sources must be one of: {', '.join(SOURCES)}")
        if isinstance(self.external, str) or not all(isinstance(name, str) for name in self.external):
            raise ConfigurationError("training setting external must be a list of names")
        object.__setattr__(self, "external", tuple(self.external))

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values, in the order of declaration."""
        plain = {name: getattr(self, name) for name in _names(type(self))}
        plain |= {name: str(plain[name]) for name in _CODES}
        rules = {name: getattr(self.promotion, name) for name in _names(PromotionRules)}
        return plain | {"external": list(self.external), "promotion": rules | {"waived": dict(self.promotion.waived)}}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> TrainingConfig:
        """The config that ``to_dict`` described; settings left out take their default.

        Raises:
            ConfigurationError: a setting is unknown or out of its limits.
        """
        _refuse_unknown(settings, _names(cls))
        rules = settings.get("promotion", {})
        if not isinstance(rules, Mapping):
            raise ConfigurationError("training setting promotion must be a mapping")
        _refuse_unknown(rules, _names(PromotionRules))
        return cls(**dict(settings) | {"promotion": PromotionRules(**rules)})


def load_training(name_or_path: str | Path) -> TrainingConfig:
    """Load a training that comes with the package, by name, or one from a YAML file.

    Raises:
        ConfigurationError: there is no such training, or a setting is unknown or out of its limits.
    """
    content = load_yaml(name_or_path, kind="training", package="imaging_pipeline.pneumonia", folder="training")
    return TrainingConfig.from_dict(content)


_CODES: Mapping[str, type[enum.StrEnum]] = {
    "grey_scaling": GreyScaling,
    "schedule": Schedule,
    "balance": Balance,
    "operating_point": OperatingPoint,
    "device": Device,
}

_LIMITS: Mapping[str, tuple[float, float]] = {
    "image_size": (32, 2048),
    "epochs": (1, 10_000),
    "batch_size": (2, 4096),
    "learning_rate": (1e-7, 1.0),
    "warm_up": (0.0, 0.9),
    "weight_decay": (0.0, 1.0),
    "seed": (0, 2**63 - 1),
    "patience": (1, 10_000),
    "target_sensitivity": (0.01, 1.0),
    "rotation_degrees": (0.0, 45.0),
    "translation": (0.0, 0.5),
    "scaling": (0.0, 0.5),
    "aspect": (0.0, 2.0),
    "brightness": (0.0, 0.5),
    "contrast": (0.0, 0.9),
    "gamma": (0.0, 2.0),
    "processes": (0, 64),
    "cache_bytes": (0, math.inf),
}
_PROMOTION_LIMITS: Mapping[str, tuple[float, float]] = {
    "margin": (0.0, 0.5),
    "confidence": (0.5, 1.0),
    "subgroup_tolerance": (0.0, 1.0),
    "subgroup_patients": (2, 1_000_000),
    "shortcut_auroc": (0.5, 1.0),
    "most_unanswered": (0.0, 1.0),
}
_WHOLE = {"image_size", "epochs", "batch_size", "seed", "patience", "processes", "cache_bytes", "subgroup_patients"}


def _names(described: type[TrainingConfig | PromotionRules]) -> list[str]:
    return [each.name for each in dataclasses.fields(described)]


def _refuse_unknown(settings: Mapping[str, Any], known: list[str]) -> None:
    if unknown := settings.keys() - set(known):
        raise ConfigurationError(f"unknown training settings: {', '.join(sorted(map(str, unknown)))}")


def _check_limits(prefix: str, config: object, limits: Mapping[str, tuple[float, float]]) -> None:
    for name, (low, high) in limits.items():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ConfigurationError(f"training setting {prefix}{name} must lie between {low:g} and {high:g}")
        if name in _WHOLE and not isinstance(value, int):
            raise ConfigurationError(f"training setting {prefix}{name} must be a whole number")


def _member(codes: type[enum.StrEnum], name: str, value: str) -> enum.StrEnum:
    try:
        return codes(value)
    except ValueError:
        raise ConfigurationError(f"training setting {name} must be one of: {', '.join(codes)}") from None
