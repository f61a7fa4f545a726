"""Scores and embeds images with the champion of the model registry.

Owns the way from an array of images to probabilities and vectors. Contains no thresholding policy and writes no
results: the caller stores them with name and version of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imaging_pipeline.pneumonia.config import Device

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imaging_pipeline.pneumonia.network import PneumoniaNetwork
    from imaging_pipeline.pneumonia.tracking import ModelTracker, RegisteredModel

WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65_535}
"""The value of unsigned images that counts as 1."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one forward pass says of N images.

    Attributes:
        probabilities: of pneumonia, float64 (N,).
        embeddings: what the network's last layer is given, float32 (N, width).
    """

    probabilities: NDArray[np.float64]
    embeddings: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Predictor:
    """One model version, in memory.

    Attributes:
        model: in the registry.
        threshold: probabilities at or above it are called positive.
    """

    model: RegisteredModel
    threshold: float
    _network: PneumoniaNetwork

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return self._network.width

    def predict(self, images: NDArray[np.float32] | NDArray[np.uint8] | NDArray[np.uint16]) -> Prediction:
        """Probabilities and embeddings of N images, in their order.

        Args:
            images: (N, 1, H, W); float32 on 0-1, or unsigned, whose largest value counts as 1. Any H and W.

        Raises:
            ValueError: shape, type or range are not as said.
        """
        import torch  # noqa: PLC0415

        from imaging_pipeline.pneumonia.network import SCORING_BATCH, score_and_embed  # noqa: PLC0415

        if images.ndim != 4 or images.shape[1] != 1:
            raise ValueError(f"expected images (N, 1, H, W), found shape {images.shape}")
        starts = range(0, max(1, len(images)), SCORING_BATCH)
        batches = (torch.from_numpy(_on_unit_scale(images[start : start + SCORING_BATCH])) for start in starts)
        parts = [score_and_embed(self._network, batch) for batch in batches]
        return Prediction(np.concatenate([scores for scores, _ in parts]), np.concatenate([each for _, each in parts]))


def load_champion(tracker: ModelTracker, device: Device = Device.AUTO) -> Predictor | None:
    """The champion, ready to predict; None when no version was promoted yet.

    Raises:
        ConfigurationError: its files are not those registered, or ``device`` is not there.
        TransientError: the store is busy or unreachable.
    """
    from imaging_pipeline.pneumonia.network import pick_device, restore_network  # noqa: PLC0415

    champion = tracker.champion()
    if champion is None:
        return None
    stored = tracker.load(champion)
    network = restore_network(stored.config, stored.state_dict).to(pick_device(device))
    return Predictor(champion, stored.threshold, network)


def _on_unit_scale(images: NDArray[np.float32] | NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.float32]:
    """A float32 copy on 0-1."""
    if images.dtype in WHITE:
        return (images / np.float32(WHITE[images.dtype])).astype(np.float32)
    if images.dtype != np.float32:
        raise ValueError(f"expected float32, uint8 or uint16, found {images.dtype}")
    if not bool(np.all((images >= 0) & (images <= 1))):
        raise ValueError("expected float32 images on 0-1")
    return images.astype(np.float32)
