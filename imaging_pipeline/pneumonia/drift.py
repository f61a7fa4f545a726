"""Do new images, and what the model makes of them, look like those it was validated on?

Owns the measures and when a difference is one. Small batches differ from anything by chance: a difference counts when
it is large enough to matter and larger than what exchanging patients at random gives. Contains no lake and no network.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

BINS: Final = 10
"""Of the population stability index: tenths of the reference."""

PSI_LIMIT: Final = 0.2
"""From here on a shift is called major (Siddiqi 2006, Credit Risk Scorecards)."""

MMD_LIMIT: Final = 0.02
"""Of the squared maximum mean discrepancy, which lies between 0 and 2."""

REFUSED_LIMIT: Final = 0.05
"""By how much more of a batch may be refused than of the images the model was validated on."""

ALPHA: Final = 0.01
"""Part of the unchanged batches of which any quantity may raise an alarm."""

EXCHANGES: Final = 1999
"""Random exchanges of patients; enough to tell `ALPHA` over all quantities."""

SMALLEST: Final = 20
"""Patients on either side below which nothing is judged."""

MOST_IMAGES: Final = 1000
"""Of either side that are compared; more tell no more."""

COMPONENTS: Final = 16
"""Principal components of the embeddings, of the reference, that are compared."""

ROUNDING: Final = 1e-12
"""Two values that differ by less are the same."""

SHRINKAGE: Final = 0.1
"""Share of the mean variance in each component's, so that directions without any do not decide the distance."""


class Measure(enum.StrEnum):
    """Population stability index, squared maximum mean discrepancy, difference of shares."""

    PSI = "PSI"
    MMD = "MMD"
    DIFFERENCE = "DIFFERENCE"


class Verdict(enum.StrEnum):
    """What is said of a quantity."""

    DRIFT = "DRIFT"
    STABLE = "STABLE"
    NOT_JUDGED = "NOT_JUDGED"


QUANTITIES: Final[Mapping[str, tuple[Measure, float]]] = {
    "score": (Measure.PSI, PSI_LIMIT),
    "brightness": (Measure.PSI, PSI_LIMIT),
    "contrast": (Measure.PSI, PSI_LIMIT),
    "embedding_distance": (Measure.PSI, PSI_LIMIT),
    "embedding": (Measure.MMD, MMD_LIMIT),
    "refused": (Measure.DIFFERENCE, REFUSED_LIMIT),
}
"""What is compared, how, and from where on a difference matters."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Some images as the model sees them, in one order.

    Attributes:
        patients: whose image each is.
        scores: probabilities (N,), NaN where there is no answer.
        brightness: mean of each tensor (N,).
        contrast: standard deviation of each tensor (N,).
        embeddings: what the network makes of each, (N, width).
    """

    patients: Sequence[str]
    scores: Floats
    brightness: Floats
    contrast: Floats
    embeddings: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.patients)


@dataclass(frozen=True, slots=True)
class Drift:
    """One quantity of a batch against the reference.

    Attributes:
        quantity: one of `QUANTITIES`.
        verdict: whether it has drifted.
        measure: how it was compared.
        limit: from where on a difference matters.
        value: of the measure; None where nothing was judged.
        ks: Kolmogorov-Smirnov distance, where the quantity is one number for each image.
        p_value: part of the exchanges that give as large a value.
        medians: of the reference and of the batch; of ``refused`` the shares.
        images: numbers of the reference and of the batch.
        patients: the same.
    """

    quantity: str
    verdict: Verdict
    measure: Measure
    limit: float
    value: float | None
    ks: float | None
    p_value: float | None
    medians: tuple[float | None, float | None]
    images: tuple[int, int]
    patients: tuple[int, int]


def drifts(reference: Sample, batch: Sample, learnt: NDArray[np.float32], seed: int = 0) -> list[Drift]:
    """Compare a batch with a reference.

    Patients, not images, are exchanged, since images of one patient are alike; the level is shared by the quantities
    (Bonferroni).

    Args:
        reference: images the model did not learn from.
        batch: new images.
        learnt: embeddings (M, width) of images the model learned from: they say in which directions, and how far from
            which centre, embeddings are compared. Those of the reference itself would lie closer to it by chance.
        seed: of the exchanges.

    Returns:
        One entry for each of `QUANTITIES`, in their order.
    """
    values = _values(reference, batch, learnt)
    return [_drift(quantity, values[quantity], reference, batch, seed) for quantity in QUANTITIES]


def values_of(reference: Sample, batch: Sample, learnt: NDArray[np.float32]) -> dict[str, tuple[Floats, Floats]]:
    """What can be drawn: of the reference and of the batch one number for each answered image, by quantity."""
    values = _values(reference, batch, learnt)
    drawn = {name: pair for name, pair in values.items() if QUANTITIES[name][0] is Measure.PSI}
    return {name: (old[~np.isnan(old)], new[~np.isnan(new)]) for name, (old, new) in drawn.items()}


def _values(reference: Sample, batch: Sample, learnt: NDArray[np.float32]) -> dict[str, tuple[Floats, Floats]]:
    """By quantity a number, or a vector, for each image of the reference and of the batch."""
    old, new = _components(learnt, reference.embeddings), _components(learnt, batch.embeddings)
    return {
        "score": (reference.scores, batch.scores),
        "brightness": (reference.brightness, batch.brightness),
        "contrast": (reference.contrast, batch.contrast),
        "embedding_distance": (np.linalg.norm(old, axis=1), np.linalg.norm(new, axis=1)),
        "embedding": (old, new),
        "refused": (np.isnan(reference.scores).astype(float), np.isnan(batch.scores).astype(float)),
    }


def _components(learnt: NDArray[np.float32], embeddings: NDArray[np.float32]) -> Floats:
    """Embeddings (N, C) by the principal components of those learnt, equally spread: distances are Mahalanobis'."""
    if not len(learnt):
        return embeddings.astype(np.float64)
    known = learnt.astype(np.float64)
    mean = known.mean(axis=0)
    _, spread, axes = np.linalg.svd(known - mean, full_matrices=False)
    variance = spread[:COMPONENTS] ** 2 / len(known)
    scale = np.sqrt(variance + SHRINKAGE * variance.mean() + np.finfo(float).tiny)
    components: Floats = ((embeddings - mean) @ axes[:COMPONENTS].T) / scale
    return components


def _drift(quantity: str, values: tuple[Floats, Floats], reference: Sample, batch: Sample, seed: int) -> Drift:
    measure, limit = QUANTITIES[quantity]
    known = [~np.isnan(each) if each.ndim == 1 else np.ones(len(each), bool) for each in values]
    old, new = (each[which] for each, which in zip(values, known, strict=True))
    people = [np.asarray(side.patients, object)[which] for side, which in zip((reference, batch), known, strict=True)]
    unjudged = Drift(
        quantity,
        Verdict.NOT_JUDGED,
        measure,
        limit,
        value=None,
        ks=None,
        p_value=None,
        medians=(_middle(quantity, old), _middle(quantity, new)),
        images=(len(old), len(new)),
        patients=(len(set(people[0])), len(set(people[1]))),
    )
    if min(unjudged.patients) < SMALLEST:
        return unjudged
    groups = _groups(*people)
    of_exchange = _STATISTICS[measure](old, new, groups)
    (found,) = of_exchange(_observed(groups))
    drawn = of_exchange(_exchanges(groups, seed))
    p_value = (1 + int(np.sum(drawn >= found - ROUNDING))) / (1 + len(drawn))
    is_drift = found > limit and p_value <= ALPHA / len(QUANTITIES)
    return replace(
        unjudged,
        verdict=Verdict.DRIFT if is_drift else Verdict.STABLE,
        value=float(found),
        ks=_ks(old, new) if measure is Measure.PSI else None,
        p_value=p_value,
    )


def _middle(quantity: str, values: Floats) -> float | None:
    if not len(values) or values.ndim > 1:
        return None
    return float(values.mean() if quantity == "refused" else np.median(values))


@dataclass(frozen=True, slots=True)
class _Groups:
    """Patients of both sides as groups of images; a patient on both sides is two groups.

    Attributes:
        of_image: index (N,) of the group of each image, those of the reference first.
        is_new: (G,) whether a group is of the batch.
    """

    of_image: NDArray[np.intp]
    is_new: NDArray[np.bool_]

    def sums(self, rows: Floats) -> Floats:
        """Sums (G, K) of rows (N, K) by group."""
        total = np.zeros((len(self.is_new), rows.shape[1]))
        np.add.at(total, self.of_image, rows)
        return total


def _groups(old: NDArray[np.object_], new: NDArray[np.object_]) -> _Groups:
    _, first = np.unique(old, return_inverse=True)
    _, second = np.unique(new, return_inverse=True)
    of_image = np.concatenate([first, second + first.max() + 1]).astype(np.intp)
    is_new = np.arange(of_image.max() + 1) > first.max()
    return _Groups(of_image, is_new)


def _observed(groups: _Groups) -> Floats:
    return groups.is_new[np.newaxis].astype(np.float64)


def _exchanges(groups: _Groups, seed: int) -> Floats:
    """Which groups (E, G) are taken for the batch's, as many as there are, at random."""
    order = np.random.default_rng(seed).random((EXCHANGES, len(groups.is_new))).argsort(axis=1)
    return np.asarray(order < groups.is_new.sum(), np.float64)


Statistic: TypeAlias = "Callable[[Floats], Floats]"
"""From which groups (E, G) are the batch's to the measure (E,)."""


def _stability(old: Floats, new: Floats, groups: _Groups) -> Statistic:
    """The population stability index over tenths of the reference (Yurdakul & Naranjo 2020)."""
    edges = np.unique(np.quantile(old, np.linspace(0, 1, BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, np.concatenate([old, new]), side="right")
    counts = groups.sums(np.eye(len(edges) + 1)[bins])

    def measured(taken: Floats) -> Floats:
        second = taken @ counts
        parts = [_parts(each) for each in (counts.sum(axis=0) - second, second)]
        index: Floats = ((parts[1] - parts[0]) * np.log(parts[1] / parts[0])).sum(axis=1)
        return index

    return measured


def _parts(counts: Floats) -> Floats:
    """Parts of each row, half an image added to every bin, so that small batches are not judged by an empty one."""
    smoothed = counts + 0.5
    parts: Floats = smoothed / smoothed.sum(axis=1, keepdims=True)
    return parts


def _discrepancy(old: Floats, new: Floats, groups: _Groups) -> Statistic:
    """The squared maximum mean discrepancy under a Gaussian kernel of median width (Gretton et al. 2012)."""
    points = np.concatenate([old, new])
    norms = (points**2).sum(axis=1)
    distances = np.maximum(norms[:, np.newaxis] + norms - 2 * points @ points.T, 0)
    kernel = np.exp(-distances / max(float(np.median(distances)), np.finfo(float).tiny))
    own = groups.sums(np.diag(kernel)[:, np.newaxis])[:, 0]
    between = groups.sums(groups.sums(kernel).T)
    sizes = groups.sums(np.ones((len(points), 1)))[:, 0]

    def measured(taken: Floats) -> Floats:
        found = np.zeros(len(taken))
        sides = []
        for each in (1 - taken, taken):
            count = each @ sizes
            pairs = ((each @ between) * each).sum(axis=1) - each @ own
            found += pairs / np.maximum(count * (count - 1), 1)
            sides.append(each / count[:, np.newaxis])
        across: Floats = ((sides[0] @ between) * sides[1]).sum(axis=1)
        return found - 2 * across

    return measured


def _difference(old: Floats, new: Floats, groups: _Groups) -> Statistic:
    """By how much more of the batch is refused."""
    refused = groups.sums(np.concatenate([old, new])[:, np.newaxis])[:, 0]
    sizes = groups.sums(np.ones((len(old) + len(new), 1)))[:, 0]

    def measured(taken: Floats) -> Floats:
        more: Floats = (taken @ refused) / (taken @ sizes) - ((1 - taken) @ refused) / ((1 - taken) @ sizes)
        return more

    return measured


_STATISTICS: Final[Mapping[Measure, Callable[[Floats, Floats, _Groups], Statistic]]] = {
    Measure.PSI: _stability,
    Measure.MMD: _discrepancy,
    Measure.DIFFERENCE: _difference,
}


def _ks(old: Floats, new: Floats) -> float:
    """The greatest distance of the two cumulative distributions."""
    places = np.sort(np.concatenate([old, new]))
    parts = [np.searchsorted(np.sort(each), places, side="right") / len(each) for each in (old, new)]
    return float(np.abs(parts[0] - parts[1]).max())
