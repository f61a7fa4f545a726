"""Rules of a split beyond the hash of a patient: nobody is on two sides, whatever the rules."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imaging_pipeline.tensors.assignment import HoldOut, LeftOut, SplitBy, SplitPlan, Subject, assign
from imaging_pipeline.tensors.splits import Split, SplitFractions

HASHED = SplitPlan(SplitBy.PATIENT, 7, SplitFractions(0.6, 0.2, 0.2))
PLANS = [
    HASHED,
    replace(HASHED, stratify=("label", "sex")),
    replace(HASHED, hold_out=HoldOut("site", ("s1",))),
    replace(HASHED, stratify=("label",), hold_out=HoldOut("site", (), 0.4)),
    replace(HASHED, by=SplitBy.OFFICIAL, fractions=SplitFractions(0.8, 0.2, 0.0)),
]

SUBJECTS = st.lists(
    st.builds(
        lambda patient, label, sex, site, official: (f"p{patient}", label, sex, site, official),
        st.integers(0, 8),
        st.sampled_from("01"),
        st.sampled_from("FM"),
        st.sampled_from(["s1", "s2", "s3"]),
        st.sampled_from([*Split, None]),
    ),
    max_size=40,
).map(
    lambda made: [
        Subject(f"i{n}", patient, {"label": label, "sex": sex, "site": site}, official)
        for n, (patient, label, sex, site, official) in enumerate(made)
    ]
)


@pytest.mark.parametrize("plan", PLANS, ids=str)
@settings(max_examples=60, deadline=None)
@given(
    subjects=SUBJECTS,
    before=st.dictionaries(st.sampled_from([f"p{n}" for n in range(9)]), st.sampled_from(list(Split))),
)
def test_every_image_is_on_one_side_or_left_out_and_no_patient_on_two(
    plan: SplitPlan, subjects: list[Subject], before: dict[str, Split]
) -> None:
    made = assign(subjects, plan, before)
    assert made.sides.keys() | made.left_out.keys() == {subject.key for subject in subjects}
    assert not made.sides.keys() & made.left_out.keys()
    of_patient = defaultdict(set)
    for subject in subjects:
        if subject.key in made.sides:
            of_patient[subject.patient].add(made.sides[subject.key])
    assert all(len(found) == 1 for found in of_patient.values())
    if plan.looks_back:
        assert all(found == {before[patient]} for patient, found in of_patient.items() if patient in before)
    assert assign(subjects[::-1], plan, before) == made, "the order of the images does not matter"


def test_strata_have_the_asked_shares_where_hashes_alone_would_not() -> None:
    plan = replace(HASHED, stratify=("label",))
    subjects = [Subject(f"i{n}", f"p{n}", {"label": str(int(n % 10 == 0))}) for n in range(100)]
    made = assign(subjects, plan, {})
    positive = [made.sides[f"i{n}"] for n in range(0, 100, 10)]
    assert {side: positive.count(side) for side in Split} == {Split.TRAIN: 6, Split.VAL: 2, Split.TEST: 2}
    every = list(made.sides.values())
    assert {side: every.count(side) for side in Split} == {Split.TRAIN: 60, Split.VAL: 20, Split.TEST: 20}


def test_many_strata_of_one_patient_do_not_all_train() -> None:
    plan = replace(HASHED, stratify=("site",))
    made = assign([Subject(f"i{n}", f"p{n}", {"site": str(n)}) for n in range(20)], plan, {})
    assert sorted(made.sides.values()).count(Split.TEST) == 4


def test_a_patient_on_two_official_sides_is_tested_and_not_learned_from() -> None:
    plan = replace(HASHED, by=SplitBy.OFFICIAL, fractions=SplitFractions(1.0, 0.0, 0.0))
    subjects = [Subject("a", "p", {}, Split.TRAIN), Subject("b", "p", {}, Split.TEST)]
    made = assign(subjects, plan, {})
    assert (made.sides, made.left_out) == ({"b": Split.TEST}, {"a": LeftOut.SECOND_SIDE})


def test_images_without_an_official_side_are_split_by_patient_where_shares_are_given() -> None:
    plan = replace(HASHED, by=SplitBy.OFFICIAL, fractions=SplitFractions(1.0, 0.0, 0.0))
    subjects = [Subject("a", "p", {}, Split.TEST), *(Subject(f"i{n}", f"q{n}", {}) for n in range(40))]
    assert assign(subjects, plan, {}).sides == {"a": Split.TEST}
    made = assign(subjects, replace(plan, others=HASHED.fractions), {})
    by_hash = assign(subjects[1:], HASHED, {})
    assert made.sides == by_hash.sides | {"a": Split.TEST}
    assert set(by_hash.sides.values()) == set(Split)


def test_a_patient_seen_at_a_held_out_site_too_is_not_learned_from() -> None:
    plan = replace(HASHED, hold_out=HoldOut("site", ("s1",)))
    subjects = [Subject("a", "p", {"site": "s1"}), Subject("b", "p", {"site": "s2"}), Subject("c", "q", {})]
    made = assign(subjects, plan, {})
    assert made.sides["a"] is Split.TEST
    assert made.left_out == {"b": LeftOut.SECOND_SIDE}
    later = assign(subjects, plan, {"p": Split.TRAIN})
    assert later.sides["b"] is Split.TRAIN, "a model may have learned from this patient before"
    assert later.left_out == {"a": LeftOut.SECOND_SIDE}
