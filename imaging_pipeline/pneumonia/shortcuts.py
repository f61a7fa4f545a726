"""Measures whether the classes can be told apart by anything but the lungs, and whether the model does so.

Baselines are fitted on the training side and judged on the test side, as the model is, with intervals from resampling
patients. Contains no network and no lake. scikit-learn is imported when needed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from imaging_pipeline.pneumonia.alarms import Alarm, Verdict, judge
from imaging_pipeline.pneumonia.config import SOURCES, AlarmName
from imaging_pipeline.pneumonia.evaluation import Figures
from imaging_pipeline.pneumonia.facts import Fact, ImageFacts
from imaging_pipeline.pneumonia.resampling import Interval, interval, resample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imaging_pipeline.pneumonia.config import PromotionRules

    Floats: TypeAlias = NDArray[np.float64]
    Truth: TypeAlias = NDArray[np.bool_]

TREES = 200
SMALLEST_LEAF = 3
"""Of the baselines' random forests (Breiman 2001)."""

SOURCE_AUROC = 0.75
"""From here on, the source of an image can be told from what the network makes of its pixels."""

SMALLEST_SOURCE = 10
"""Sources of fewer training images are not told apart."""

MATCHED_DROP = 0.05
"""By how much less a model may achieve where the baseline's guess is the same for both classes."""

CALIPER = 0.2
"""Images match when their guesses differ by less than this part of the standard deviation of their logits
(Austin 2011)."""

SMALLEST_TEST = 20
"""Patients below which no alarm is raised: of few, even a perfect figure has an interval of no width."""

SMALLEST_MATCH = 20
"""Pairs below which a matched subset says nothing."""

LUNG_RATIO = 1.1
"""Mass of the heat maps in the lungs over the lungs' part of the image; 1 is what a blind guess gives."""

_SEVERITY = (Verdict.NOT_COMPUTED, Verdict.QUIET, Verdict.UNCLEAR, Verdict.RAISED)


@dataclass(frozen=True, slots=True)
class Side:
    """The images of one side of a dataset, in one order.

    Attributes:
        labels: bool (N,).
        patients: whose image each is.
        facts: what is known of each.
        statistics: of the pixels of each, float64 (N, F), from `pixel_statistics.pixel_statistics`.
        embeddings: what the network makes of each, float32 (N, width).
        scores: of the model, float64 (N,).
    """

    labels: Truth
    patients: Sequence[str]
    facts: Sequence[ImageFacts]
    statistics: Floats
    embeddings: NDArray[np.float32]
    scores: Floats

    def within(self, collection: str) -> Side:
        """The images of one collection."""
        chosen = [position for position, facts in enumerate(self.facts) if _collection(facts) == collection]
        return Side(
            self.labels[chosen],
            [self.patients[position] for position in chosen],
            [self.facts[position] for position in chosen],
            self.statistics[chosen],
            self.embeddings[chosen],
            self.scores[chosen],
        )


def shortcut_alarms(train: Side, test: Side, rules: PromotionRules, seed: int) -> list[Alarm]:
    """All alarms that need no lung masks.

    What a baseline achieves is asked over all images and within each collection, for a mixture of collections can hide
    what each of them gives away; the most alarming answer counts.
    """
    metadata, file, pixels = (
        _everywhere(partial(_baseline_alarm, name, question, features, rules=rules, seed=seed), train, test)
        for name, question, features in _BASELINES
    )
    matched = _everywhere(partial(_matched_alarm, seed=seed), train, test)
    return [metadata, file, pixels, _source_alarm(train, test, rules, seed), matched]


def _everywhere(ask: Callable[[Side, Side], Alarm], train: Side, test: Side) -> Alarm:
    """The most alarming answer of all images together and of each collection by itself."""
    pooled = ask(train, test)
    answers = [pooled]
    for name in _collections(train, test):
        alarm = ask(train.within(name), test.within(name))
        over_all = "" if pooled.figure is None else f"; over all images {pooled.figure:.3f}"
        answers.append(replace(alarm, note=f"within {name}: {alarm.note}{over_all}"))
    return max(answers, key=lambda alarm: (_SEVERITY.index(alarm.verdict), alarm.figure or 0.0))


def _collections(train: Side, test: Side) -> list[str]:
    """Collections that are large enough to be asked by themselves; none where there is but one."""
    images = Counter(map(_collection, train.facts))
    patients = Counter(
        name
        for name, _ in {(_collection(facts), patient) for facts, patient in zip(test.facts, test.patients, strict=True)}
    )
    names = sorted(name for name in images if name and images[name] >= SMALLEST_SOURCE)
    return [name for name in names if patients[name] >= SMALLEST_TEST] if len(names) > 1 else []


def _collection(facts: ImageFacts) -> str:
    return facts.sources.get("collection", "")


def lung_alarm(inside: Floats, lungs: Floats, patients: Sequence[str], seed: int) -> Alarm:
    """Whether the heat maps lie in the lungs more than a blind guess would.

    Args:
        inside: part of each map's mass inside the lung mask (N,); NaN for an empty map.
        lungs: part of each image that the mask covers (N,).
        patients: whose image each is.
        seed: of the resampling.
    """
    used = np.isfinite(inside)
    inside, lungs = inside[used], lungs[used]
    patients = [patient for patient, is_used in zip(patients, used, strict=True) if is_used]

    def ratio(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weights @ inside) / (weights @ lungs))

    figure = float(ratio(np.ones((1, len(inside))))[0]) if len(inside) else None
    found = interval(resample(ratio, patients, seed=seed), patients) if len(inside) else None
    return Alarm(
        AlarmName.LUNGS,
        "Do the heat maps lie in the lungs more than chance would have it?",
        figure,
        found,
        LUNG_RATIO,
        _judged(figure, found, LUNG_RATIO, patients, is_low_bad=True),
        f"mass {inside.mean():.2f} in lungs that cover {lungs.mean():.2f} of {len(inside)} images"
        if len(inside)
        else "no image with a heat map has a lung mask",
    )


def _metadata(train: Side, test: Side) -> tuple[Floats, Floats]:
    return _vectors(*([each.metadata for each in side.facts] for side in (train, test)))


def _file(train: Side, test: Side) -> tuple[Floats, Floats]:
    return _vectors(*([each.file for each in side.facts] for side in (train, test)))


_BASELINES: tuple[tuple[str, str, Callable[[Side, Side], tuple[Floats, Floats]]], ...] = (
    (
        AlarmName.METADATA,
        "Can the label be told from what the header says of patient, device and exposure?",
        _metadata,
    ),
    (
        AlarmName.FILE,
        "Can the label be told from size, matrix and compression of the file?",
        _file,
    ),
    (
        AlarmName.PIXELS,
        "Can the label be told from brightness, histogram, borders and corners of the image?",
        lambda train, test: (train.statistics, test.statistics),
    ),
)
"""Name, question and features of each baseline."""


def _baseline_alarm(
    name: str,
    question: str,
    features_of: Callable[[Side, Side], tuple[Floats, Floats]],
    train: Side,
    test: Side,
    *,
    rules: PromotionRules,
    seed: int,
) -> Alarm:
    """How well a random forest of some features does what the model does."""
    features = features_of(train, test)
    if not features[0].shape[1]:
        return _unanswered(name, question, rules.shortcut_auroc, "nothing of the kind is known of these images")
    if any(len(set(side.labels.tolist())) < 2 for side in (train, test)):
        return _unanswered(name, question, rules.shortcut_auroc, "one side has one class only")
    guesses = _forest(features, train.labels, seed)
    figure, found = _auroc(guesses, test.labels, test.patients, seed)
    note = f"a random forest of {features[0].shape[1]} features, fitted on {len(train.labels)} images"
    verdict = _judged(figure, found, rules.shortcut_auroc, test.patients)
    return Alarm(name, question, figure, found, rules.shortcut_auroc, verdict, note)


def _source_alarm(train: Side, test: Side, rules: PromotionRules, seed: int) -> Alarm:
    """Whether the network sees where an image comes from, where that gives the label away."""
    name = AlarmName.SOURCE
    question = "Can the source be told from the network's embedding, and the label from the source?"
    answers = [
        answer for attribute in SOURCES if (answer := _source_answer(attribute, train, test, rules, seed)) is not None
    ]
    if not answers:
        return _unanswered(name, question, SOURCE_AUROC, "the images are of one source, or it is not known")
    verdict, figure, found, note = max(answers, key=lambda answer: (_SEVERITY.index(answer[0]), answer[1]))
    return Alarm(name, question, figure, found, SOURCE_AUROC, verdict, note)


def _source_answer(
    attribute: str, train: Side, test: Side, rules: PromotionRules, seed: int
) -> tuple[Verdict, float, Interval | None, str] | None:
    """Verdict, AUROC of the source with its interval, and a note; None where there are no two sources."""
    seen = [facts.sources.get(attribute, "") for facts in train.facts]
    counts = Counter(seen)
    names = sorted(name for name, count in counts.items() if name and count >= SMALLEST_SOURCE)
    asked = np.array([facts.sources.get(attribute, "") for facts in test.facts])
    is_asked = np.isin(asked, names)
    if len(set(asked[is_asked].tolist())) < 2:
        return None
    learnt = np.isin(seen, names)
    chances = _source_chances(train.embeddings[learnt], np.array(seen)[learnt], test.embeddings[is_asked], names)
    patients = [patient for patient, is_used in zip(test.patients, is_asked, strict=True) if is_used]
    present = [index for index, source in enumerate(names) if (asked[is_asked] == source).any()]
    areas = [Figures(chances[:, index], asked[is_asked] == names[index], 0.5) for index in present]

    def macro(weights: Floats) -> Floats:
        values = np.array([area.weighted(weights)[0] for area in areas])
        is_there = np.isfinite(values)  # a resample may be without a source
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(is_there, values, 0).sum(axis=0) / is_there.sum(axis=0))

    figure = float(macro(np.ones((1, len(patients))))[0])
    found = interval(resample(macro, patients, seed=seed), patients)
    share = {source: train.labels[np.array(seen) == source].mean() for source in names}
    guesses = np.array([share[source] for source in asked[is_asked]])
    of_label, of_label_ci = _auroc(guesses, test.labels[is_asked], patients, seed)
    verdicts = (
        _judged(figure, found, SOURCE_AUROC, patients),
        _judged(of_label, of_label_ci, rules.shortcut_auroc, patients),
    )
    note = f"{attribute}: {len(present)} values"
    if of_label is not None:
        note += f"; it alone tells the label with AUROC {of_label:.3f}"
    return _both(*verdicts), figure, found, note


def _both(first: Verdict, second: Verdict) -> Verdict:
    """The weaker of two verdicts: a shortcut needs both."""
    if Verdict.QUIET in {first, second} or Verdict.NOT_COMPUTED in {first, second}:
        return Verdict.QUIET
    return Verdict.UNCLEAR if Verdict.UNCLEAR in {first, second} else Verdict.RAISED


def _matched_alarm(train: Side, test: Side, *, seed: int) -> Alarm:
    """Whether the model still knows the classes apart among images that the header and the file do not."""
    name = AlarmName.MATCHED
    question = "How much AUROC is lost among cases and controls that metadata and file tell nothing about?"
    features = _vectors(*([{**each.metadata, **each.file} for each in side.facts] for side in (train, test)))
    if not features[0].shape[1]:
        return _unanswered(name, question, MATCHED_DROP, "nothing is known of these images to match them by")
    if any(len(set(side.labels.tolist())) < 2 for side in (train, test)):
        return _unanswered(name, question, MATCHED_DROP, "one side has one class only")
    guesses = _forest(features, train.labels, seed)
    pairs = matched_pairs(guesses, test.labels)
    if len(pairs) < SMALLEST_MATCH:
        return _unanswered(name, question, MATCHED_DROP, f"only {len(pairs)} cases have a control like them")
    chosen = pairs.ravel()
    all_images = Figures(test.scores, test.labels, 0.5)
    matched = Figures(test.scores[chosen], test.labels[chosen], 0.5)

    def lost(weights: Floats) -> Floats:
        return np.asarray(all_images.weighted(weights)[0] - matched.weighted(weights[:, chosen])[0])

    figure = float(lost(np.ones((1, len(test.labels))))[0])
    found = interval(resample(lost, test.patients, seed=seed), test.patients)
    left, baseline = (
        float(Figures(values[chosen], test.labels[chosen], 0.5).all()[0]) for values in (test.scores, guesses)
    )
    note = f"AUROC {left:.3f} on {len(pairs)} pairs, where metadata and file give {baseline:.3f}"
    verdict = _judged(figure, found, MATCHED_DROP, test.patients)
    return Alarm(name, question, figure, found, MATCHED_DROP, verdict, note)


def matched_pairs(guesses: Floats, labels: Truth) -> NDArray[np.intp]:
    """Positions (P, 2) of positives and negatives whose guesses are alike, as many pairs as there can be."""
    inner = np.clip(guesses, 0.01, 0.99)
    logits = np.log(inner / (1 - inner))
    caliper = CALIPER * float(logits.std())
    order = np.argsort(logits, kind="stable")
    positives, negatives = (deque(order[labels[order] == is_positive].tolist()) for is_positive in (True, False))
    pairs = []
    while positives and negatives:
        gap = logits[positives[0]] - logits[negatives[0]]
        if abs(gap) <= caliper:
            pairs.append((positives.popleft(), negatives.popleft()))
        else:
            (positives if gap < 0 else negatives).popleft()
    return np.array(pairs, np.intp).reshape(-1, 2)


def _judged(
    figure: float | None, found: Interval | None, limit: float, patients: Sequence[str], *, is_low_bad: bool = False
) -> Verdict:
    return judge(figure, found if len(set(patients)) >= SMALLEST_TEST else None, limit, is_low_bad=is_low_bad)


def _unanswered(name: str, question: str, limit: float, note: str) -> Alarm:
    return Alarm(name, question, None, None, limit, Verdict.NOT_COMPUTED, note)


def _auroc(guesses: Floats, labels: Truth, patients: Sequence[str], seed: int) -> tuple[float | None, Interval | None]:
    figures = Figures(guesses, labels, 0.5)
    value = float(figures.all()[0])
    if not np.isfinite(value):
        return None, None
    return value, interval(resample(lambda weights: figures.weighted(weights)[0], patients, seed=seed), patients)


def _vectors(train: Sequence[Mapping[str, Fact]], test: Sequence[Mapping[str, Fact]]) -> tuple[Floats, Floats]:
    """Facts as numbers (N, F), one for each text that occurs; what is missing is 0 and marked as missing."""
    from sklearn.feature_extraction import DictVectorizer  # noqa: PLC0415 - slow to load

    names = sorted({name for facts in train for name in facts})
    if not names:
        return np.empty((len(train), 0)), np.empty((len(test), 0))
    vectors = DictVectorizer(sparse=False)

    def marked(facts: Mapping[str, Fact]) -> dict[str, Any]:
        return {name: facts.get(name, "missing") for name in names}

    return vectors.fit_transform([marked(each) for each in train]), vectors.transform([marked(each) for each in test])


def _forest(features: tuple[Floats, Floats], labels: Truth, seed: int) -> Floats:
    """The guesses (M,) of a random forest for the second features, fitted on the first."""
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415

    forest = RandomForestClassifier(TREES, min_samples_leaf=SMALLEST_LEAF, random_state=seed % 2**32, n_jobs=1)
    forest.fit(features[0], labels)
    guesses: Floats = forest.predict_proba(features[1])[:, list(forest.classes_).index(True)]
    return guesses


def _source_chances(
    embeddings: NDArray[np.float32], sources: NDArray[np.str_], asked: NDArray[np.float32], names: Sequence[str]
) -> Floats:
    """Of each asked image, how likely it is of each source (M, S), by logistic regression of its embedding."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    model.fit(embeddings, sources)
    chances = model.predict_proba(asked)
    found: Floats = chances[:, [list(model.classes_).index(name) for name in names]].astype(np.float64)
    return found
