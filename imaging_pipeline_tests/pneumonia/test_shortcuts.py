"""Tests of the shortcut alarms: data made so that a shortcut is, or is not, in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from imaging_pipeline.pneumonia.alarms import Alarm, Verdict
from imaging_pipeline.pneumonia.config import PromotionRules
from imaging_pipeline.pneumonia.facts import ImageFacts
from imaging_pipeline.pneumonia.pixel_statistics import pixel_statistics
from imaging_pipeline.pneumonia.shortcuts import Side, lung_alarm, matched_pairs, shortcut_alarms

RULES = PromotionRules()
NAMES = {"metadata_only", "file_statistics_only", "pixel_statistics_only", "source_from_pixels", "matched_subset"}


def side(count: int, seed: int) -> Side:
    """Images of which nothing but their scores tells the label."""
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.5
    facts = [
        ImageFacts(
            metadata={"view": "AP" if rng.random() < 0.5 else "PA", "age_years": float(rng.integers(20, 80))},
            file={"file_bytes": float(rng.integers(10_000, 50_000))},
            sources={"source": "ab"[int(rng.random() < 0.5)]},
        )
        for _ in range(count)
    ]
    return Side(
        labels=labels,
        patients=[str(number) for number in range(count)],
        facts=facts,
        statistics=rng.normal(size=(count, 5)),
        embeddings=rng.normal(size=(count, 8)).astype(np.float32),
        scores=np.clip(rng.normal(0.4 + 0.2 * labels, 0.12), 0, 1),
    )


TRAIN, TEST = side(400, 1), side(300, 2)


def alarms(train: Side, test: Side) -> dict[str, Alarm]:
    return {alarm.name: alarm for alarm in shortcut_alarms(train, test, RULES, seed=0)}


def with_facts(original: Side, name: str, of: str) -> Side:
    """The same where one fact follows the label in nine of ten images."""
    rng = np.random.default_rng(7)
    follows = np.where(rng.random(len(original.labels)) < 0.9, original.labels, ~original.labels)
    facts = [
        replace(each, **{of: {**getattr(each, of), name: float(value)}})
        for each, value in zip(original.facts, follows, strict=True)
    ]
    return replace(original, facts=facts)


@pytest.fixture(scope="module")
def clean() -> dict[str, Alarm]:
    return alarms(TRAIN, TEST)


def test_where_there_is_no_shortcut_no_alarm_is_raised(clean: dict[str, Alarm]) -> None:
    assert set(clean) == NAMES
    assert {alarm.verdict for alarm in clean.values()} == {Verdict.QUIET}
    for name in NAMES - {"matched_subset"}:
        assert clean[name].figure == pytest.approx(0.5, abs=0.1)
    assert "pairs" in clean["matched_subset"].note


@pytest.mark.parametrize(
    ("of", "name", "alarm"), [("metadata", "kvp", "metadata_only"), ("file", "file_bytes", "file_statistics_only")]
)
def test_a_fact_that_follows_the_label_raises_its_alarm_and_no_other_baseline(of: str, name: str, alarm: str) -> None:
    found = alarms(with_facts(TRAIN, name, of), with_facts(TEST, name, of))
    assert found[alarm].verdict is Verdict.RAISED
    assert found[alarm].figure == pytest.approx(0.9, abs=0.05)
    assert found[alarm].interval is not None
    assert [each for each in NAMES if "only" in each and found[each].verdict is Verdict.RAISED] == [alarm]


def test_brightness_that_follows_the_label_raises_the_pixel_alarm() -> None:
    brighter = [replace(each, statistics=each.statistics + 2 * each.labels[:, np.newaxis]) for each in (TRAIN, TEST)]
    assert alarms(*brighter)["pixel_statistics_only"].verdict is Verdict.RAISED


def of_sources(original: Side, *, seen: bool, follows: bool) -> Side:
    """Two sources, which the embedding may show and the label may follow."""
    rng = np.random.default_rng(8)
    chance = np.where(original.labels, 0.85, 0.15) if follows else np.full(len(original.labels), 0.5)
    is_first = rng.random(len(original.labels)) < chance
    facts = [
        replace(each, sources={"institution": "ab"[int(value)]})
        for each, value in zip(original.facts, is_first, strict=True)
    ]
    embeddings = original.embeddings + (3 * is_first[:, np.newaxis] * seen).astype(np.float32)
    return replace(original, facts=facts, embeddings=embeddings)


@pytest.mark.parametrize(("seen", "follows"), [(True, True), (True, False), (False, True)])
def test_a_source_the_network_sees_and_the_label_follows_raises_the_alarm_and_either_alone_does_not(
    seen: bool, follows: bool
) -> None:
    made = [of_sources(each, seen=seen, follows=follows) for each in (TRAIN, TEST)]
    alarm = alarms(*made)["source_from_pixels"]
    assert (alarm.verdict is Verdict.RAISED) == (seen and follows)
    assert alarm.figure is not None
    assert (alarm.figure > 0.9) == seen
    assert "institution: 2 values" in alarm.note


def test_a_model_that_only_knows_the_view_is_found_out_by_matching() -> None:
    train, test = (with_facts(each, "view_code", "metadata") for each in (TRAIN, TEST))
    view = np.array([float(facts.metadata["view_code"]) for facts in test.facts])
    rng = np.random.default_rng(3)
    taken_in = replace(test, scores=np.clip(0.3 + 0.4 * view + rng.normal(0, 0.05, view.size), 0, 1))
    alarm = alarms(train, taken_in)["matched_subset"]
    assert alarm.verdict is Verdict.RAISED
    assert alarm.figure == pytest.approx(0.4, abs=0.12)
    honest = replace(test, scores=np.clip(0.3 + 0.4 * test.labels + rng.normal(0, 0.05, view.size), 0, 1))
    assert alarms(train, honest)["matched_subset"].verdict is Verdict.QUIET


def test_pairs_are_one_to_one_alike_and_of_both_classes() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(500) < 0.4
    guesses = np.clip(rng.normal(0.4 + 0.2 * labels, 0.15), 0.02, 0.98)
    pairs = matched_pairs(guesses, labels)
    assert len(np.unique(pairs)) == pairs.size > 200
    assert labels[pairs[:, 0]].all()
    assert not labels[pairs[:, 1]].any()
    assert np.abs(guesses[pairs[:, 0]] - guesses[pairs[:, 1]]).max() < 0.06
    assert matched_pairs(guesses, np.ones(500, np.bool_)).shape == (0, 2)


def test_what_is_not_known_is_not_computed_and_says_why() -> None:
    unknown = [replace(each, facts=[ImageFacts()] * len(each.labels)) for each in (TRAIN, TEST)]
    found = alarms(*unknown)
    for name in NAMES - {"pixel_statistics_only"}:
        assert found[name].verdict is Verdict.NOT_COMPUTED
        assert found[name].note
    one_class = replace(TEST, labels=np.ones(300, np.bool_))
    assert {each.verdict for each in shortcut_alarms(TRAIN, one_class, RULES, 0)} <= {
        Verdict.NOT_COMPUTED,
        Verdict.QUIET,
    }


def test_heat_in_the_lungs_is_quiet_and_heat_by_chance_is_not() -> None:
    rng = np.random.default_rng(0)
    patients = [str(number) for number in range(80)]
    lungs = rng.normal(0.34, 0.02, 80)
    assert lung_alarm(lungs * 2, lungs, patients, 0).verdict is Verdict.QUIET
    by_chance = lung_alarm(rng.normal(0.32, 0.05, 80), lungs, patients, 0)
    assert by_chance.verdict is Verdict.RAISED
    assert by_chance.figure == pytest.approx(0.94, abs=0.05)
    assert lung_alarm(np.full(80, np.nan), lungs, patients, 0).verdict is Verdict.NOT_COMPUTED


def test_pixel_statistics_see_borders_corners_and_brightness() -> None:
    dark = np.full((1, 40, 50), 0.2, np.float32)
    corner, bright = dark.copy(), dark + np.float32(0.3)
    corner[0, :4, -6:] = 1.0
    statistics = pixel_statistics([dark, corner, bright])
    assert statistics.shape[0] == 3
    assert np.isfinite(statistics).all()
    changed = statistics[0] != statistics[1]
    assert 2 < changed.sum() < statistics.shape[1] / 2 + 2
    assert (statistics[0] == pixel_statistics([dark])[0]).all()


def test_few_patients_raise_no_alarm_however_clear_the_figure() -> None:
    train, test = (with_facts(each, "kvp", "metadata") for each in (TRAIN, TEST))
    few = replace(test, patients=[str(number % 19) for number in range(300)])
    alarm = alarms(train, few)["metadata_only"]
    assert alarm.figure == pytest.approx(0.9, abs=0.05)
    assert alarm.verdict is Verdict.UNCLEAR


def test_what_gives_the_label_away_in_one_collection_is_found_in_a_mixture() -> None:
    def mixed(original: Side, seed: int) -> Side:
        """A quarter of the images are of a collection in which the size of the file tells the label."""
        rng = np.random.default_rng(seed)
        small = rng.random(len(original.labels)) < 0.25
        sizes = np.where(small, 30_000.0 + 9_000.0 * original.labels, rng.integers(10_000, 50_000, len(small)))
        facts = [
            replace(each, file={"file_bytes": float(size)}, sources={"collection": "small" if is_small else "large"})
            for each, size, is_small in zip(original.facts, sizes, small, strict=True)
        ]
        return replace(original, facts=facts)

    found = alarms(mixed(TRAIN, 3), mixed(TEST, 4))
    assert found["file_statistics_only"].verdict is Verdict.RAISED
    assert found["file_statistics_only"].note.startswith("within small: ")
    assert "over all images 0." in found["file_statistics_only"].note
    assert found["metadata_only"].verdict is Verdict.QUIET
