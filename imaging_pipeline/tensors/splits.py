"""Splits: on which side of a training set a patient is.

By default a patient's side depends on nothing but the seed, the fractions and the pseudonym, so it holds when data grow
and on every machine. Must not contain images: a split that looks at them leaks. Whole sets are split in `assignment`.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from imaging_pipeline.errors import ConfigurationError


class Split(enum.StrEnum):
    """A side of a training set."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


STRICTEST_FIRST = (Split.TEST, Split.VAL, Split.TRAIN)
"""Of images that may not be on two sides those on the first of these stay: people compare models on the test side."""


@dataclass(frozen=True, slots=True)
class SplitFractions:
    """Expected share of patients on each side; the shares sum to 1."""

    train: float = 0.8
    val: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        shares = (self.train, self.val, self.test)
        if not all(0 <= share <= 1 for share in shares) or not math.isclose(sum(shares), 1, abs_tol=1e-9):
            raise ConfigurationError(f"split fractions: found {shares}, allowed are shares of 0 to 1 that sum to 1")


def split_of(patient_id: str, *, seed: int, fractions: SplitFractions) -> Split:
    """Side of one patient.

    Args:
        patient_id: research pseudonym.
        seed: another seed, another split.
        fractions: expected shares.
    """
    position = position_of(patient_id, seed=seed)
    if position < fractions.train:
        return Split.TRAIN
    return Split.VAL if position < fractions.train + fractions.val else Split.TEST


def position_of(name: str, *, seed: int) -> float:
    """Where the hash of a name falls in [0, 1)."""
    digest = hashlib.sha256(f"{seed}|{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def count_patients_on_two_sides(assignments: Iterable[tuple[str, Split]]) -> int:
    """How many patients are on more than one side; a training set with any must be refused.

    Args:
        assignments: pseudonym and side of every sample.
    """
    sides: defaultdict[str, set[Split]] = defaultdict(set)
    for patient_id, split in assignments:
        sides[patient_id].add(split)
    return sum(len(found) > 1 for found in sides.values())
