"""Splits by patient: stable, close to the asked shares, and checked."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.tensors.splits import Split, SplitFractions, count_patients_on_two_sides, split_of

PINNED = ["val", "train", "train", "train", "test", "val", "train", "train", "train", "val", "train", "train"]

PATIENTS = st.lists(st.text(min_size=1), unique=True, max_size=50)


def sides(patients: list[str], seed: int = 0) -> dict[str, Split]:
    return {patient: split_of(patient, seed=seed, fractions=SplitFractions()) for patient in patients}


@given(before=PATIENTS, added=PATIENTS, seed=st.integers())
def test_adding_patients_moves_nobody(before: list[str], added: list[str], seed: int) -> None:
    alone = sides(before, seed)
    together = sides(added + before, seed)

    assert {patient: together[patient] for patient in before} == alone


def test_a_patient_is_where_they_were_in_earlier_versions() -> None:
    assert [sides([f"patient-{number}"], seed=7)[f"patient-{number}"] for number in range(12)] == PINNED


def test_another_seed_makes_another_split() -> None:
    patients = [str(number) for number in range(100)]

    assert sides(patients, seed=1) != sides(patients, seed=2)


@pytest.mark.parametrize("fractions", [SplitFractions(), SplitFractions(0.6, 0.1, 0.3), SplitFractions(0.5, 0.5, 0)])
def test_shares_are_close_to_the_asked_ones(fractions: SplitFractions) -> None:
    counted = Counter(split_of(f"patient-{number}", seed=3, fractions=fractions) for number in range(20_000))

    for split in Split:
        # Three standard deviations of 20,000 draws are at most 0.011.
        assert counted[split] / 20_000 == pytest.approx(getattr(fractions, split), abs=0.011)


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (1.2, -0.2, 0), (float("nan"), 0.5, 0.5)])
def test_shares_that_make_no_split_are_refused(shares: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigurationError):
        SplitFractions(*shares)


def test_patients_on_two_sides_are_counted() -> None:
    clean = [("a", Split.TRAIN), ("a", Split.TRAIN), ("b", Split.TEST)]

    assert count_patients_on_two_sides(clean) == 0
    assert count_patients_on_two_sides([*clean, ("a", Split.VAL), ("b", Split.VAL), ("b", Split.TRAIN)]) == 2
