"""Datasets as data: a YAML file says which labelled images belong together and how they are split.

Owns the file and its validation. Contains no lake and no image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.shipped import load_yaml
from imaging_pipeline.tensors.assignment import HoldOut, SplitBy, SplitPlan
from imaging_pipeline.tensors.splits import SplitFractions

GROUPS: Final = ("sex", "age", "view", "modality", "manufacturer", "model", "institution", "station")
"""What is known of an image besides its label, where the profile keeps it: strata, sites, rows of the datasheet."""

LABEL: Final = "label"
"""Name of the label among the strata."""

_KEYS: Final = {"name", "task", "recipe", "cohort", "label_sources", "licence", "split"}
_SPLIT_KEYS: Final = {
    SplitBy.PATIENT: {"by", "seed", "fractions", "stratify", "hold_out"},
    SplitBy.OFFICIAL: {"by", "seed", "validation", "others"},
}


@dataclass(frozen=True, slots=True)
class DatasetDefinition:
    """What a dataset is made of.

    Attributes:
        name: what people call it; with the recipe's name, the id of its versions.
        task: what the labels are about.
        split: how it is split.
        recipe: how its tensors are made, by shipped name or path; None: the installation's first recipe.
        cohort: SQL condition that its images satisfy, or None for all.
        label_sources: sources of labels, the one believed first first; empty: all, which must agree.
        licence: under which the data may be used; None: not stated.
    """

    name: str
    task: str
    split: SplitPlan
    recipe: str | None = None
    cohort: str | None = None
    label_sources: tuple[str, ...] = ()
    licence: str | None = None

    def to_json(self) -> str:
        """Canonical JSON, as kept with each version."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


def load_definition(name_or_path: str | Path) -> DatasetDefinition:
    """Load a definition that comes with the package, by name, or one from a YAML file.

    Raises:
        ConfigurationError: no such dataset, or a key is missing, unknown or has a value that is not allowed.
    """
    return _definition(load_yaml(name_or_path, kind="dataset", package="imaging_pipeline.tensors", folder="datasets"))


def stored_definition(text: str) -> DatasetDefinition:
    """The definition that `DatasetDefinition.to_json` wrote."""
    content = json.loads(text)
    split = content["split"]
    hold_out = split["hold_out"]
    plan = SplitPlan(
        by=SplitBy(split["by"]),
        seed=split["seed"],
        fractions=SplitFractions(**split["fractions"]),
        stratify=tuple(split["stratify"]),
        hold_out=hold_out and HoldOut(hold_out["by"], tuple(hold_out["values"]), hold_out["fraction"]),
        others=SplitFractions(**others) if (others := split.get("others")) else None,
    )
    return DatasetDefinition(**content | {"split": plan, "label_sources": tuple(content["label_sources"])})


def _definition(content: Mapping[str, Any]) -> DatasetDefinition:
    _refuse_unknown("dataset", content, _KEYS)
    if missing := sorted({"name", "task", "split"} - content.keys()):
        raise ConfigurationError(f"dataset: the keys {missing} are missing")
    return DatasetDefinition(
        name=_name(content["name"]),
        task=_text("task", content["task"]),
        split=_split(_mapping("split", content["split"])),
        recipe=_optional_text("recipe", content.get("recipe")),
        cohort=_optional_text("cohort", content.get("cohort")),
        label_sources=_texts("label_sources", content.get("label_sources", [])),
        licence=_optional_text("licence", content.get("licence")),
    )


def _split(content: Mapping[str, Any]) -> SplitPlan:
    by = content.get("by", SplitBy.PATIENT)
    if by not in list(SplitBy):
        raise _refused("split.by", by, " or ".join(SplitBy))
    by = SplitBy(by)
    _refuse_unknown(f"split (by {by})", content, _SPLIT_KEYS[by])
    seed = content.get("seed")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31:
        raise _refused("split.seed", seed, "a whole number from 0 to 2147483647")
    if by is SplitBy.OFFICIAL:
        validation = _share("split.validation", content.get("validation", 0.0))
        others = _fractions("split.others", content["others"]) if "others" in content else None
        return SplitPlan(by, seed, SplitFractions(1 - validation, validation, 0.0), others=others)
    fractions = _fractions("split.fractions", content.get("fractions"))
    stratify = _texts("split.stratify", content.get("stratify", []))
    for name in stratify:
        _group("split.stratify", name, (LABEL, *GROUPS))
    hold_out = content.get("hold_out")
    return SplitPlan(by, seed, fractions, stratify, _hold_out(hold_out) if hold_out is not None else None)


def _fractions(key: str, found: object) -> SplitFractions:
    content = _mapping(key, found)
    _refuse_unknown(key, content, {"train", "val", "test"})
    return SplitFractions(
        **{side: _share(f"{key}.{side}", content.get(side, 0.0)) for side in ("train", "val", "test")}
    )


def _hold_out(found: object) -> HoldOut:
    content = _mapping("split.hold_out", found)
    _refuse_unknown("split.hold_out", content, {"by", "values", "fraction"})
    values = _texts("split.hold_out.values", content.get("values", []))
    fraction = _share("split.hold_out.fraction", content.get("fraction", 0.0))
    if not values and not fraction:
        raise ConfigurationError("dataset: split.hold_out: name the sites (values) or a share of them (fraction)")
    return HoldOut(_group("split.hold_out.by", content.get("by"), GROUPS), values, fraction)


def _mapping(key: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"dataset: {key}: expected a mapping of keys, found {type(value).__name__}")
    return value


def _refuse_unknown(key: str, content: Mapping[str, Any], allowed: set[str]) -> None:
    if unknown := sorted(map(str, content.keys() - allowed)):
        raise ConfigurationError(f"{key}: found the unknown keys {unknown}, allowed are {sorted(allowed)}")


def _refused(key: str, value: object, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"dataset: key {key!r}: found {value!r}, allowed is {allowed}")


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _refused(key, value, "text")
    return value.strip()


def _name(value: object) -> str:
    text = _text("name", value)
    if not text.replace("-", "").replace("_", "").isalnum() or not text.isascii():
        raise _refused("name", value, "letters, digits, '-' and '_': it names a folder")
    return text


def _optional_text(key: str, value: object) -> str | None:
    return None if value is None else _text(key, value)


def _texts(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        raise _refused(key, value, "a list of text")
    return tuple(item.strip() for item in value)


def _group(key: str, value: object, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise _refused(key, value, ", ".join(allowed))
    return str(value)


def _share(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise _refused(key, value, "a number from 0 to 1")
    return float(value)
