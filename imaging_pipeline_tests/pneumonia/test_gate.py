"""Tests of the promotion gate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from imaging_pipeline.pneumonia.alarms import Alarm, Verdict, judge
from imaging_pipeline.pneumonia.config import PromotionRules
from imaging_pipeline.pneumonia.gate import ALL_IMAGES, Contender, Decision, JudgedImages, decide, decide_first
from imaging_pipeline.pneumonia.resampling import Interval

COUNT = 400
RULES = PromotionRules()
RAISED = Alarm("file_statistics_only", "?", 0.92, Interval(0.9, 0.94), 0.65, Verdict.RAISED)
WAIVED = replace(RULES, waived={"file_statistics_only": "films of one scanner, looked at by a person"})


def judged() -> JudgedImages:
    """Two images of each patient, women and men in turn, one of ten patients seen from the side."""
    labels = np.arange(COUNT) % 4 < 2
    patients = [f"p{number // 2}" for number in range(COUNT)]
    views = [{"view": "LL"} if number // 2 % 10 == 0 else {} for number in range(COUNT)]
    return JudgedImages(labels, patients, [{"sex": "FM"[number // 4 % 2], **view} for number, view in enumerate(views)])


IMAGES = judged()


def model(strength: float, *, seed: int = 0, weak_for: str = "") -> Contender:
    """Scores that tell the classes apart as well as asked, and in one sex not at all."""
    noise = np.random.default_rng(seed).normal(size=COUNT)
    signal = np.where(IMAGES.labels, strength, -strength)
    signal[[weak_for in {groups["sex"], ""} and bool(weak_for) for groups in IMAGES.groups]] = 0
    return Contender(1 / (1 + np.exp(-(signal + noise))), 0.5)


def decided(champion: Contender, challenger: Contender, **options: Any) -> Decision:
    settings: dict[str, Any] = {"alarms": [], "rules": RULES} | options
    return decide(champion, challenger, IMAGES, settings["alarms"], settings["rules"])


def test_a_better_model_is_promoted_with_the_figures_that_say_so() -> None:
    decision = decided(model(0.5), model(1.5, seed=1))
    assert decision.is_promoted
    (whole,) = (each for each in decision.comparisons if (each.subgroup, each.figure) == (ALL_IMAGES, "auroc"))
    assert whole.difference == pytest.approx(whole.challenger - whole.champion)
    assert whole.interval is not None
    assert 0 < whole.interval.low < whole.difference < whole.interval.high
    assert whole.patients == COUNT // 2
    assert {each.subgroup for each in decision.comparisons} == {ALL_IMAGES, "sex F", "sex M", "view LL"}


@pytest.mark.parametrize("challenger", [model(0.5, seed=1), model(1.5)], ids=["worse", "the same"])
def test_a_model_that_is_not_better_is_refused(challenger: Contender) -> None:
    decision = decided(model(1.5), challenger)
    assert not decision.is_promoted
    assert "AUROC" in decision.reasons[0]


def test_a_model_that_is_better_by_less_than_the_margin_is_refused() -> None:
    better = model(1.5, seed=1)
    assert decided(model(1.0, seed=1), better).is_promoted
    assert not decided(model(1.0, seed=1), better, rules=replace(RULES, margin=0.3)).is_promoted


def test_a_difference_that_resampling_patients_could_bring_is_refused() -> None:
    scores = model(1.0).scores.copy()
    positive, negative = (np.flatnonzero(IMAGES.labels == kind) for kind in (True, False))
    scores[positive[:2]], scores[negative[:2]] = 0.99, 0.01
    lucky = Contender(scores, 0.5)
    rules = replace(RULES, margin=0.0, confidence=0.999)
    assert not decided(model(1.0), lucky, rules=rules).is_promoted


def test_a_model_that_is_better_but_worse_for_one_subgroup_is_refused_by_its_name() -> None:
    champion, challenger = model(0.3), model(4.0, seed=1, weak_for="F")
    decision = decided(champion, challenger)
    whole = decision.comparisons[0]
    assert whole.difference > RULES.margin
    assert whole.better_in > RULES.confidence
    assert not decision.is_promoted
    assert all("sex F" in reason for reason in decision.reasons)
    tolerant = replace(RULES, subgroup_tolerance=1.0)
    assert decided(champion, challenger, rules=tolerant).is_promoted


def silent_about(contender: Contender, positions: np.ndarray) -> Contender:
    scores = contender.scores.copy()
    scores[positions] = np.nan
    return replace(contender, scores=scores)


def test_a_model_that_keeps_silent_about_what_is_difficult_gains_nothing_by_it() -> None:
    model_ = model(1.0)
    wrong = np.flatnonzero((model_.scores >= 0.5) != IMAGES.labels)[: COUNT // 25]
    decision = decided(model_, silent_about(model_, wrong))
    assert not decision.is_promoted, "on the images both answer they are the same"
    assert decision.comparisons[0].difference == 0
    assert decision.comparisons[0].patients < COUNT // 2


def test_a_model_that_answers_too_few_images_is_refused() -> None:
    better, some = model(2.0, seed=1), np.arange(0, COUNT, 25)
    few = decided(model(0.5), silent_about(better, some))
    assert few.is_promoted
    assert "of 400 test images 16 get no answer, 0 by the champion" in few.reasons
    many = decided(model(0.5), silent_about(better, np.arange(0, COUNT, 10)))
    assert not many.is_promoted
    assert "40 of 400 test images get no answer" in many.reasons[0]
    assert decided(
        model(0.5), silent_about(better, np.arange(0, COUNT, 10)), rules=replace(RULES, most_unanswered=0.2)
    ).is_promoted
    assert not decide_first([], RULES, unanswered=21, images=400).is_promoted
    assert decide_first([], RULES, unanswered=20, images=400).is_promoted
    assert decide_first([], RULES, unanswered=1, images=3).is_promoted, "one image tells nothing"


def test_sensitivity_may_not_fall_either() -> None:
    challenger = replace(model(1.5, seed=1), threshold=0.9)
    decision = decided(model(0.5), challenger)
    assert not decision.is_promoted
    assert any(reason.startswith("sensitivity") for reason in decision.reasons)


def test_a_subgroup_of_few_patients_is_shown_and_not_judged() -> None:
    groups = [{"view": "LL"} if number < 20 else {} for number in range(COUNT)]
    images = replace(IMAGES, groups=groups)
    scores = model(2.0, seed=1).scores.copy()
    scores[:20] = 1 - IMAGES.labels[:20]
    strict, lenient = (replace(RULES, subgroup_patients=number) for number in (10, 11))
    challenger = Contender(scores, 0.5)
    assert not decide(model(0.2), challenger, images, [], strict).is_promoted
    decision = decide(model(0.2), challenger, images, [], lenient)
    assert decision.is_promoted
    assert "view LL" in {each.subgroup for each in decision.comparisons}


def test_a_raised_alarm_blocks_a_better_model_and_a_first_one_unless_a_person_waived_it() -> None:
    better = {"champion": model(0.5), "challenger": model(1.5, seed=1)}
    for decision in (decided(**better, alarms=[RAISED]), decide_first([RAISED], RULES)):
        assert not decision.is_promoted
        assert "file_statistics_only" in decision.reasons[0]
    for decision in (decided(**better, alarms=[RAISED], rules=WAIVED), decide_first([RAISED], WAIVED)):
        assert decision.is_promoted
        assert "looked at by a person" in decision.reasons[-1]
    quiet = replace(RAISED, verdict=Verdict.UNCLEAR)
    assert decide_first([quiet], RULES).is_promoted


def test_test_images_of_one_class_promote_nothing() -> None:
    images = replace(IMAGES, labels=np.ones(COUNT, np.bool_))
    decision = decide(model(0.5), model(1.5), images, [], RULES)
    assert not decision.is_promoted
    assert "one class" in decision.reasons[0]


@pytest.mark.parametrize(
    ("figure", "interval", "is_low_bad", "verdict"),
    [
        (None, None, False, Verdict.NOT_COMPUTED),
        (0.6, Interval(0.5, 0.8), False, Verdict.QUIET),
        (0.8, Interval(0.6, 0.9), False, Verdict.UNCLEAR),
        (0.8, None, False, Verdict.UNCLEAR),
        (0.8, Interval(0.7, 0.9), False, Verdict.RAISED),
        (0.5, Interval(0.4, 0.6), True, Verdict.RAISED),
        (0.5, Interval(0.4, 0.7), True, Verdict.UNCLEAR),
        (0.7, Interval(0.4, 0.9), True, Verdict.QUIET),
    ],
)
def test_an_alarm_is_raised_when_the_whole_interval_lies_beyond_the_limit(
    figure: float | None, interval: Interval | None, is_low_bad: bool, verdict: Verdict
) -> None:
    assert judge(figure, interval, 0.65, is_low_bad=is_low_bad) is verdict


def test_an_alarm_survives_being_stored() -> None:
    for alarm in (RAISED, replace(RAISED, figure=None, interval=None, verdict=Verdict.NOT_COMPUTED)):
        assert Alarm.from_dict(alarm.to_dict()) == alarm
