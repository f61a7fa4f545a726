"""What a model says of images: a probability with its uncertainty, or no answer, and an embedding.

Owns the way from an array of images to answers. Contains no store of results: the caller keeps them with name and
version of the model.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imaging_pipeline.pneumonia.config import Device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from imaging_pipeline.pneumonia.model_files import StoredModel
    from imaging_pipeline.pneumonia.network import PneumoniaNetwork
    from imaging_pipeline.pneumonia.tracking import ModelTracker, RegisteredModel
    from imaging_pipeline.tensors.recipe import Recipe

WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65_535}
"""The value of unsigned images that counts as 1."""

UNLIKE_TRAINING = "unlike_training_films"
"""Why there is no answer: the image is further from the films of the training than hardly any chest film is."""


class Flag(enum.StrEnum):
    """What is said of an image at the model's operating point."""

    POSITIVE = "POSITIVE"
    NEGATIVE = "NEGATIVE"
    NO_ANSWER = "NO_ANSWER"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of N images.

    Attributes:
        probabilities: of pneumonia, float64 (N,); NaN where there is no answer.
        uncertainties: standard deviation of the probability under small changes of position and exposure, float64
            (N,); NaN where there is no answer, or where it was not asked for.
        implausibilities: how unlike the training films the image is, float64 (N,); above 1 there is no answer. NaN
            where the model was trained on too few films to tell.
        embeddings: what the network's last layer is given, float32 (N, width).
    """

    probabilities: NDArray[np.float64]
    uncertainties: NDArray[np.float64]
    implausibilities: NDArray[np.float64]
    embeddings: NDArray[np.float32]

    def flags(self, threshold: float) -> list[Flag]:
        """What is said of each image."""
        return [_flag(probability, threshold) for probability in self.probabilities.tolist()]


@dataclass(frozen=True, slots=True)
class Predictor:
    """One model, in memory.

    Attributes:
        model: in the registry; None: it was loaded from a folder.
        threshold: probabilities at or above it are called positive.
        recipe: how the images it was trained on were made; None: the model was stored without it.
    """

    model: RegisteredModel | None
    threshold: float
    recipe: Recipe | None
    _network: PneumoniaNetwork

    @classmethod
    def of(cls, stored: StoredModel, model: RegisteredModel | None, device: Device = Device.AUTO) -> Predictor:
        """A stored model, ready to predict.

        Raises:
            ConfigurationError: ``device`` is not there.
        """
        from imaging_pipeline.pneumonia.network import pick_device, restore_network  # noqa: PLC0415 - imports torch

        network = restore_network(stored.config, stored.state_dict).to(pick_device(device))
        return cls(model, stored.threshold, stored.recipe, network)

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return self._network.width

    def predict(
        self, images: NDArray[np.float32] | NDArray[np.uint8] | NDArray[np.uint16], *, with_uncertainty: bool = True
    ) -> Prediction:
        """What is said of N images, in their order.

        Args:
            images: (N, 1, H, W); float32 on 0-1, or unsigned, whose largest value counts as 1. Any H and W.
            with_uncertainty: costs four more passes through the network.

        Raises:
            ValueError: shape, type or range are not as said.
        """
        return joined(
            [answer(self._network, batch, with_uncertainty=with_uncertainty) for batch in self._batches(images)]
        )

    def heat_maps(self, images: NDArray[np.float32] | NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.float32]:
        """Where the network found what speaks for pneumonia: maps (N, S, S) on 0-1, S the side of its images.

        Args:
            images: as for `predict`.

        Raises:
            ValueError: as `predict`.
        """
        from imaging_pipeline.pneumonia.gradcam import heat_maps  # noqa: PLC0415 - imports torch

        return np.concatenate([heat_maps(self._network, batch) for batch in self._batches(images)])

    def _batches(self, images: NDArray[np.float32] | NDArray[np.uint8] | NDArray[np.uint16]) -> Iterator[Tensor]:
        """Images (n, 1, S, S) of the network's size, float32 on 0-1; one empty batch of no images."""
        import torch  # noqa: PLC0415

        from imaging_pipeline.pneumonia.network import SCORING_BATCH, resize  # noqa: PLC0415

        if images.ndim != 4 or images.shape[1] != 1:
            raise ValueError(f"expected images (N, 1, H, W), found shape {images.shape}")
        for start in range(0, max(1, len(images)), SCORING_BATCH):
            batch = torch.from_numpy(_on_unit_scale(images[start : start + SCORING_BATCH]))
            size = self._network.image_size
            yield resize(batch, size) if len(batch) else batch.new_empty(0, 1, size, size)


def answer(network: PneumoniaNetwork, images: Tensor, *, with_uncertainty: bool = True) -> Prediction:
    """What a network says of images (N, 1, S, S) of its size, float32 on 0-1."""
    from imaging_pipeline.pneumonia.network import implausibility, score_and_embed  # noqa: PLC0415 - import torch
    from imaging_pipeline.pneumonia.uncertainty import spread  # noqa: PLC0415

    scores, embeddings = score_and_embed(network, images)
    unlike = implausibility(network, images, embeddings)
    is_refused = unlike > 1
    uncertain = spread(network, images, scores) if with_uncertainty else np.full(len(scores), np.nan)
    return Prediction(
        probabilities=np.where(is_refused, np.nan, scores),
        uncertainties=np.where(is_refused, np.nan, uncertain),
        implausibilities=unlike,
        embeddings=embeddings,
    )


def joined(parts: list[Prediction]) -> Prediction:
    """What is said of all images of some batches."""
    return Prediction(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.uncertainties for part in parts]),
        np.concatenate([part.implausibilities for part in parts]),
        np.concatenate([part.embeddings for part in parts]),
    )


def load_champion(tracker: ModelTracker, device: Device = Device.AUTO) -> Predictor | None:
    """The champion, ready to predict; None when no version was promoted yet.

    Raises:
        ConfigurationError: its files are not those registered, or ``device`` is not there.
        TransientError: the store is busy or unreachable.
    """
    champion = tracker.champion()
    return Predictor.of(tracker.load(champion), champion, device) if champion else None


def _flag(probability: float, threshold: float) -> Flag:
    if np.isnan(probability):
        return Flag.NO_ANSWER
    return Flag.POSITIVE if probability >= threshold else Flag.NEGATIVE


def _on_unit_scale(images: NDArray[np.float32] | NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.float32]:
    """A float32 copy on 0-1."""
    if images.dtype in WHITE:
        return (images / np.float32(WHITE[images.dtype])).astype(np.float32)
    if images.dtype != np.float32:
        raise ValueError(f"expected float32, uint8 or uint16, found {images.dtype}")
    if not bool(np.all((images >= 0) & (images <= 1))):
        raise ValueError("expected float32 images on 0-1")
    return images.astype(np.float32)
