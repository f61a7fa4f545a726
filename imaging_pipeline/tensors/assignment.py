"""Which side each image of a dataset is on, and which images are on none.

Owns the rules of a split beyond the hash of one patient: strata, held-out sites, sides that came with a collection.
A patient is on one side only, whatever the rules: what would put them on a second one is left out and counted.
"""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imaging_pipeline.tensors.splits import STRICTEST_FIRST, Split, SplitFractions, position_of, split_of


class SplitBy(enum.StrEnum):
    """PATIENT: by hash or strata; OFFICIAL: the sides that came with the labels."""

    PATIENT = "patient"
    OFFICIAL = "official"


class LeftOut(enum.StrEnum):
    """Why an image that could be a member is none."""

    NO_OFFICIAL_SIDE = "no official side"
    SECOND_SIDE = "its patient is on another side"
    LABELS_DISAGREE = "its labels disagree"
    SAME_PIXELS = "the same pixels are on another side"


@dataclass(frozen=True, slots=True)
class HoldOut:
    """Sites whose images are all on the test side.

    Attributes:
        by: the group that is a site, such as ``institution`` or ``manufacturer``.
        values: the sites held out.
        fraction: share of all sites held out besides, chosen by hash of their names.
    """

    by: str
    values: tuple[str, ...] = ()
    fraction: float = 0.0

    def holds(self, site: str | None, seed: int) -> bool:
        """Whether a site is held out; images of an unknown site are not."""
        if site is None:
            return False
        return site in self.values or position_of(f"site|{site}", seed=seed) < self.fraction


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """How a dataset is split.

    Attributes:
        by: where sides come from.
        seed: another seed, another split.
        fractions: expected shares of patients; for OFFICIAL: of the patients on the official training side.
        stratify: groups that shall have the same shares on every side.
        hold_out: sites kept for the test side, or None.
        others: for OFFICIAL: expected shares of the patients without an official side; None: they are left out.
    """

    by: SplitBy
    seed: int
    fractions: SplitFractions
    stratify: tuple[str, ...] = ()
    hold_out: HoldOut | None = None
    others: SplitFractions | None = None

    @property
    def looks_back(self) -> bool:
        """Whether sides of earlier versions count: a patient's strata and sites can change as data grow."""
        return bool(self.stratify) or self.hold_out is not None


@dataclass(frozen=True, slots=True)
class Subject:
    """What decides the side of one image.

    Attributes:
        key: the image.
        patient: pseudonym.
        groups: its values of the groups that the plan names; what is unknown is missing.
        official: the side that came with its label.
    """

    key: str
    patient: str
    groups: Mapping[str, str]
    official: Split | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """Sides by key, and the keys that are on none with the reason."""

    sides: Mapping[str, Split]
    left_out: Mapping[str, LeftOut]


def assign(subjects: Sequence[Subject], plan: SplitPlan, before: Mapping[str, Split]) -> Assignment:
    """Put each image on a side.

    Args:
        subjects: the images, in any order; the result does not depend on it.
        plan: the rules.
        before: sides of patients in earlier versions of the same dataset and plan; used when the plan looks back.
    """
    if not plan.looks_back:
        before = {}
    asked = _official(subjects, plan) if plan.by is SplitBy.OFFICIAL else _by_patient(subjects, plan, before)
    of_patient: dict[str, Split] = {}
    for subject in subjects:
        side, other = asked[subject.key], of_patient.get(subject.patient)
        if side is not None and (other is None or _is_stricter(side, other)):
            of_patient[subject.patient] = side
    # A patient whom a model may have learned from is not moved to the test side by a new image.
    of_patient |= {patient: before[patient] for patient in of_patient.keys() & before.keys()}
    sides: dict[str, Split] = {}
    left_out: dict[str, LeftOut] = {}
    for subject in subjects:
        side = asked[subject.key]
        if side is None:
            left_out[subject.key] = LeftOut.NO_OFFICIAL_SIDE
        elif side is not of_patient[subject.patient]:
            left_out[subject.key] = LeftOut.SECOND_SIDE
        else:
            sides[subject.key] = side
    return Assignment(sides, left_out)


def _is_stricter(side: Split, other: Split) -> bool:
    return STRICTEST_FIRST.index(side) < STRICTEST_FIRST.index(other)


def _official(subjects: Sequence[Subject], plan: SplitPlan) -> Mapping[str, Split | None]:
    """The sides that came with the labels; of the training side, a share of the patients goes to validation."""
    return {subject.key: _official_side(subject, plan) for subject in subjects}


def _official_side(subject: Subject, plan: SplitPlan) -> Split | None:
    fractions = {None: plan.others, Split.TRAIN: plan.fractions}.get(subject.official)
    return split_of(subject.patient, seed=plan.seed, fractions=fractions) if fractions else subject.official


def _by_patient(
    subjects: Sequence[Subject], plan: SplitPlan, before: Mapping[str, Split]
) -> Mapping[str, Split | None]:
    hold_out = plan.hold_out
    held = [each for each in subjects if hold_out and hold_out.holds(each.groups.get(hold_out.by), plan.seed)]
    patients = {each.patient for each in held}
    rest = [each for each in subjects if each.patient not in patients]
    if plan.stratify:
        of_patient = _stratified(rest, plan, before)
    else:
        of_patient = {each.patient: split_of(each.patient, seed=plan.seed, fractions=plan.fractions) for each in rest}
    # What a patient of a held-out site has elsewhere is no test of that site.
    elsewhere = {each.key: before.get(each.patient, Split.TRAIN) for each in subjects if each.patient in patients}
    return elsewhere | {each.key: Split.TEST for each in held} | {each.key: of_patient[each.patient] for each in rest}


def _stratified(subjects: Sequence[Subject], plan: SplitPlan, before: Mapping[str, Split]) -> dict[str, Split]:
    """Patients by strata: who was on a side before stays; each new one goes where most are missing.

    Missing is what a side lacks of its share within the patient's stratum and over all patients, so that many small
    strata do not all begin with the training side. New patients come in the order of their hashes.
    """
    shares = {side: float(getattr(plan.fractions, side)) for side in Split}
    strata = _strata(subjects, plan.stratify)
    known = {patient: before[patient] for patient in strata.keys() & before.keys()}
    counts: defaultdict[tuple[str, ...], Counter[Split]] = defaultdict(Counter)
    for patient, side in known.items():
        counts[strata[patient]][side] += 1
    overall = Counter(known.values())
    new = sorted(strata.keys() - known.keys(), key=lambda patient: (position_of(patient, seed=plan.seed), patient))
    for patient in new:
        here = counts[strata[patient]]
        missing = {
            side: sum(share * (each.total() + 1) - each[side] for each in (here, overall))
            for side, share in shares.items()
            if share > 0
        }
        side = max(missing, key=lambda side: round(missing[side], 9))
        known[patient] = side
        here[side] += 1
        overall[side] += 1
    return known


def _strata(subjects: Sequence[Subject], names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Of each patient the greatest value of each group: a patient with one positive image is a positive patient."""
    values: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for subject in subjects:
        of_patient = values[subject.patient]
        for name in names:
            of_patient[name] = max(of_patient.get(name, ""), subject.groups.get(name, ""))
    return {patient: tuple(found[name] for name in names) for patient, found in values.items()}
