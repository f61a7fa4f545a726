"""Examines a trained network: how good it is, for whom, on what else, and what it might have learned instead.

Owns which images are looked at for what. Figures, alarms, pictures and the card are made elsewhere. Imports torch at
the top; import it lazily.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Subset

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pneumonia.evaluation import Evaluation, auroc, evaluate
from imaging_pipeline.pneumonia.facts import ImageFacts
from imaging_pipeline.pneumonia.gradcam import heat_maps, mass_inside
from imaging_pipeline.pneumonia.memory import ImageMemory
from imaging_pipeline.pneumonia.model_card import EXTERNAL, Part, model_card, parts_of
from imaging_pipeline.pneumonia.network import score_and_embed, with_plausibility
from imaging_pipeline.pneumonia.operating_point import calibrated
from imaging_pipeline.pneumonia.pixel_statistics import pixel_statistics
from imaging_pipeline.pneumonia.plausibility import fit_plausibility
from imaging_pipeline.pneumonia.plots import EXAMPLES, example_sheet, report_figures, worst_errors
from imaging_pipeline.pneumonia.prediction import Prediction, answer, joined
from imaging_pipeline.pneumonia.shortcuts import Side, lung_alarm, shortcut_alarms
from imaging_pipeline.pneumonia.training import score_all
from imaging_pipeline.tensors.splits import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from imaging_pipeline.pneumonia.alarms import Alarm
    from imaging_pipeline.pneumonia.learning import Material
    from imaging_pipeline.pneumonia.memory import LabelledImages
    from imaging_pipeline.pneumonia.network import PneumoniaNetwork
    from imaging_pipeline.pneumonia.training import TrainedNetwork
    from imaging_pipeline.tensors.versions import DatasetVersion, Member

MOST_TRAINING_IMAGES = 20_000
"""More do not make the baselines of the alarms better; the first by key are taken, and keys are digests."""

MOST_HEAT_MAPS = 200


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found.

    Attributes:
        evaluation: over the whole test side.
        figures: PNG bytes by file name.
        card: of the model, as JSON values.
    """

    evaluation: Evaluation
    figures: Mapping[str, bytes]
    card: Mapping[str, object]


def knowing_films(
    trained: TrainedNetwork,
    train_set: LabelledImages,
    validation_set: LabelledImages,
    collections: tuple[Sequence[str], Sequence[str]] | None = None,
) -> TrainedNetwork:
    """The network with what tells it what is no film like those of the training; as it is where there are too few.

    Args:
        trained: the network.
        train_set: its training side.
        validation_set: its validation side.
        collections: the one each image of either side is of; None: all are of one.
    """
    network, config = trained.network(), trained.config
    count = min(len(train_set), MOST_TRAINING_IMAGES)
    learnt: Any = Subset(train_set, range(count))  # type: ignore[arg-type]
    seen, held_out = (_embedded(network, ImageMemory(each, config)) for each in (learnt, validation_set))
    named = (collections[0][:count], collections[1]) if collections else None
    made = fit_plausibility(seen, held_out, named)
    return replace(trained, state_dict=with_plausibility(trained.state_dict, made)) if made else trained


def _embedded(network: PneumoniaNetwork, images: ImageMemory) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in images.batches():
        yield batch, torch.from_numpy(score_and_embed(network, batch)[1])


def answers_of(network: PneumoniaNetwork, images: ImageMemory, *, with_uncertainty: bool = True) -> Prediction:
    """What a network says of all images, in their order."""
    return joined([answer(network, batch, with_uncertainty=with_uncertainty) for batch in images.batches()])


def examine(material: Material, trained: TrainedNetwork) -> Examination:
    """Evaluate a network on the test side, its subgroups and the external sets, and look for shortcuts.

    Figures are over the images that are answered; how many are not is said beside them.

    Raises:
        ConfigurationError: no image of the test side is answered.
    """
    network, seed, dataset = trained.network(), trained.config.seed, material.dataset
    every, every_image = (
        dataset.side(Split.TEST),
        ImageMemory(material.images(dataset.side(Split.TEST)), trained.config),
    )
    said = answers_of(network, every_image)
    answered = np.flatnonzero(np.isfinite(said.probabilities))
    if not len(answered):
        raise ConfigurationError(
            "the model answers none of the test images, so unlike those of training they are: look at the split"
        )
    members, images = [every[position] for position in answered], every_image.only(answered.tolist())
    test = _side(members, images, said.probabilities[answered], said.embeddings[answered], material.facts)
    learnt = dataset.side(Split.TRAIN)[:MOST_TRAINING_IMAGES]
    learnt_images = ImageMemory(material.images(learnt), trained.config)
    train = _side(learnt, learnt_images, *score_all(network, learnt_images), material.facts)
    alarms = [
        *shortcut_alarms(train, test, trained.config.promotion, seed),
        _lung_alarm(members, images, network, test.scores >= trained.threshold, material, seed),
    ]
    groups = {key: facts.groups for key, facts in material.facts.items()}
    parts = parts_of(every, said.probabilities, trained.threshold, groups, seed)
    evaluation = parts[0].evaluation
    for other in material.external:
        parts += _external(other, material, trained, network, groups)
    answers = _answers(said, np.array([member.label > 0 for member in every]), trained.threshold)
    return Examination(
        evaluation,
        _figures(trained, network, images, test, parts),
        model_card(dataset, material.recipe, trained, parts, alarms, _calibration(trained, test), answers),
    )


def _answers(said: Prediction, labels: NDArray[np.bool_], threshold: float) -> dict[str, float]:
    """How many test images get no answer, and whether the uncertainty of wrong answers is greater."""
    answered = np.isfinite(said.probabilities)
    figures = {"refused": float(1 - answered.mean()), "images_refused": float(np.count_nonzero(~answered))}
    uncertainty = said.uncertainties[answered]
    is_wrong = (said.probabilities[answered] >= threshold) != labels[answered]
    for name, chosen in (("right", ~is_wrong), ("wrong", is_wrong)):
        if chosen.any():
            figures[f"uncertainty_{name}"] = float(uncertainty[chosen].mean())
    area = auroc(uncertainty, is_wrong)
    return figures if area is None else figures | {"uncertainty_auroc_of_errors": area}


def _side(
    members: Sequence[Member],
    images: ImageMemory,
    scores: NDArray[np.float64],
    embeddings: NDArray[np.float32],
    facts: Mapping[str, ImageFacts],
) -> Side:
    return Side(
        labels=np.array([member.label > 0 for member in members]),
        patients=[member.patient for member in members],
        facts=[facts.get(member.instance_key, ImageFacts()) for member in members],
        statistics=pixel_statistics(_each(images)),
        embeddings=embeddings,
        scores=scores,
    )


def _each(images: ImageMemory) -> Iterator[NDArray[np.float32]]:
    for batch in images.batches():
        yield from batch.numpy()


def _external(
    other: DatasetVersion,
    material: Material,
    trained: TrainedNetwork,
    network: PneumoniaNetwork,
    groups: Mapping[str, Mapping[str, str]],
) -> list[Part]:
    """The model on another dataset, without what it has learned from or was chosen by: patients, and same pixels."""
    seen = [member for member in material.dataset.members if member.split != Split.TEST]
    patients, tensors = {member.patient for member in seen}, {member.tensor_sha256 for member in seen}
    members = [
        member for member in other.members if member.patient not in patients and member.tensor_sha256 not in tensors
    ]
    if not members:
        return []
    images = ImageMemory(material.images(members), trained.config)
    scores = answers_of(network, images, with_uncertainty=False).probabilities
    name = (other.dataset_id, other.version)
    return parts_of(members, scores, trained.threshold, groups, trained.config.seed, split=EXTERNAL, dataset=name)


def _lung_alarm(
    members: Sequence[Member],
    images: ImageMemory,
    network: PneumoniaNetwork,
    called: NDArray[np.bool_],
    material: Material,
    seed: int,
) -> Alarm:
    """Heat maps of images that are called positive and have a mask, against their masks."""
    masks = material.lung_masks or {}
    with_mask = (position for position in np.flatnonzero(called).tolist() if members[position].instance_key in masks)
    chosen = np.fromiter(with_mask, np.intp)[:MOST_HEAT_MAPS]
    inside, lungs = np.empty(len(chosen)), np.empty(len(chosen))
    for row, position in enumerate(chosen.tolist()):
        mask = masks[members[position].instance_key]
        maps = heat_maps(network, images.take(torch.tensor([position])))
        inside[row], lungs[row] = mass_inside(maps, mask[np.newaxis])[0], mask.mean()
    return lung_alarm(inside, lungs, [members[position].patient for position in chosen.tolist()], seed)


def _calibration(trained: TrainedNetwork, test: Side) -> dict[str, float]:
    """What the temperature, fitted on the validation side, does on the test side."""
    before = calibrated(test.scores, 1 / trained.temperature)
    figures: dict[str, float] = {"temperature": trained.temperature}
    for name, scores in (("uncalibrated", before), ("calibrated", test.scores)):
        found = evaluate(scores, test.labels, test.patients, trained.threshold, bootstrap=1)
        figures |= {
            f"{figure}_{name}": value for figure in ("brier", "ece") if (value := getattr(found, figure)) is not None
        }
    return figures


def _figures(
    trained: TrainedNetwork, network: PneumoniaNetwork, images: ImageMemory, test: Side, parts: Sequence[Part]
) -> dict[str, bytes]:
    def sheet(positions: NDArray[np.intp], *, with_heat: bool = False) -> bytes:
        shown = images.take(torch.from_numpy(positions))
        return example_sheet(
            shown.numpy(),
            test.scores[positions],
            test.labels[positions],
            trained.threshold,
            heat=heat_maps(network, shown) if with_heat else None,
            numbers=(positions + 1).tolist(),
        )

    curves = report_figures(
        trained.history,
        trained.best_epoch,
        evaluation=parts[0].evaluation,
        scores=test.scores,
        labels=test.labels,
        subgroups={part.name: part.evaluation for part in parts},
    )
    likeliest = np.argsort(-test.scores, kind="stable")[:EXAMPLES]
    return curves | {
        "examples.png": sheet(np.arange(min(EXAMPLES, len(test.scores)))),
        "worst.png": sheet(worst_errors(test.scores, test.labels, trained.threshold)),
        "heat.png": sheet(likeliest, with_heat=True),
    }
