"""Drift: a shifted batch raises, an unshifted one does not, and rarely by chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from imaging_pipeline.pneumonia.drift import QUANTITIES, SMALLEST, Drift, Sample, Verdict, drifts, values_of
from imaging_pipeline.pneumonia.plots import drift_figure

WIDTH = 24


def sample(patients: int, seed: int, *, shift: float = 0.0, refused: float = 0.02, images: int = 2) -> Sample:
    """Images that are alike within a patient, as films of one patient are."""
    rng = np.random.default_rng(seed)
    of_image = np.repeat(np.arange(patients), images)
    count = len(of_image)
    person = rng.normal(size=(patients, WIDTH))[of_image]
    own = rng.normal(size=(count, WIDTH))
    features = person + 0.3 * own + shift
    scores = 1 / (1 + np.exp(-features[:, 0]))
    scores[rng.random(count) < refused] = np.nan
    return Sample(
        patients=[f"{seed} {number}" for number in of_image],
        scores=scores,
        brightness=0.5 + 0.1 * features[:, 1],
        contrast=0.2 + 0.02 * features[:, 2],
        embeddings=features.astype(np.float32),
    )


LEARNT = sample(100, 1).embeddings


def found(reference: Sample, batch: Sample, seed: int = 0) -> dict[str, Drift]:
    return {each.quantity: each for each in drifts(reference, batch, LEARNT, seed)}


def alarms(reference: Sample, batch: Sample, seed: int = 0) -> set[str]:
    return {name for name, each in found(reference, batch, seed).items() if each.verdict is Verdict.DRIFT}


def test_an_unshifted_batch_raises_nothing_and_a_shifted_one_does() -> None:
    reference = sample(60, 2)
    stable = found(reference, sample(30, 3))
    assert {each.verdict for each in stable.values()} == {Verdict.STABLE}
    shifted = found(reference, sample(30, 4, shift=1.5))
    drifted = {name for name, each in shifted.items() if each.verdict is Verdict.DRIFT}
    assert drifted == {"score", "brightness", "contrast", "embedding_distance", "embedding"}
    for name, each in shifted.items():
        assert each.value is not None
        assert each.p_value is not None
        assert name == "refused" or each.p_value < 0.002
    assert shifted["score"].ks is not None
    assert shifted["score"].ks > 0.3
    assert shifted["score"].images == (np.isfinite(reference.scores).sum(), np.isfinite(sample(30, 4).scores).sum())


def test_small_batches_rarely_raise_an_alarm_by_chance_where_the_usual_limit_nearly_always_does() -> None:
    reference = sample(60, 2)
    batches = [found(reference, sample(SMALLEST + 1, seed, refused=0.0), seed) for seed in range(100, 120)]
    raised = sum(any(each.verdict is Verdict.DRIFT for each in batch.values()) for batch in batches)
    above = sum((batch["score"].value or 0) > batch["score"].limit for batch in batches)
    assert raised <= 2, "one of a hundred is what is promised"
    assert above > 10, "the stability index alone would raise an alarm for more than half of them"


def test_images_of_one_patient_do_not_count_as_many() -> None:
    reference, batch = sample(40, 5, images=12), sample(SMALLEST, 6, images=12, refused=0.0)
    assert alarms(reference, batch) == set()
    apart = replace(batch, patients=[str(number) for number in range(len(batch))])
    loose = replace(reference, patients=[f"r{number}" for number in range(len(reference))])
    assert found(loose, apart)["embedding"].p_value < found(reference, batch)["embedding"].p_value  # type: ignore[operator]


def test_a_batch_of_what_the_model_refuses_raises() -> None:
    reference = sample(60, 2)
    assert alarms(reference, sample(60, 7, refused=0.3)) == {"refused"}
    everything = found(reference, sample(30, 8, refused=1.0))
    assert everything["refused"].verdict is Verdict.DRIFT
    assert everything["score"].verdict is Verdict.NOT_JUDGED


@pytest.mark.parametrize(("reference", "batch"), [(60, SMALLEST - 1), (SMALLEST - 1, 60), (60, 0), (0, 60), (0, 0)])
def test_of_few_patients_nothing_is_said(reference: int, batch: int) -> None:
    judged = found(sample(reference, 2), sample(batch, 3, shift=3.0))
    assert list(judged) == list(QUANTITIES)
    assert {each.verdict for each in judged.values()} == {Verdict.NOT_JUDGED}
    assert {each.value for each in judged.values()} == {None}


def test_the_same_images_give_the_same_figures() -> None:
    assert found(sample(40, 2), sample(30, 3)) == found(sample(40, 2), sample(30, 3))


def test_a_constant_quantity_is_no_drift_and_can_be_drawn() -> None:
    flat = {"scores": np.full(120, 0.5), "brightness": np.full(120, 0.2), "contrast": np.zeros(120),
            "embeddings": np.ones((120, WIDTH), np.float32)}  # fmt: skip
    reference, batch = replace(sample(60, 2), **flat), replace(sample(60, 3), **flat)
    assert alarms(reference, batch) == set()
    for pair in ((reference, batch), (sample(0, 1), sample(0, 1)), (sample(40, 1), sample(30, 2, shift=2.0))):
        picture = drift_figure(values_of(*pair, LEARNT), ["score"])
        assert picture.startswith(b"\x89PNG")
        assert len(picture) <= 100_000
