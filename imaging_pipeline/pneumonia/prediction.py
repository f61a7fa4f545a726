"""Scores images with the champion of the model registry.

Owns the way from an array of images to probabilities. Contains no thresholding policy and writes no results: the
caller stores each score with ``model_name`` and ``model_version``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imaging_pipeline.pneumonia.config import Device

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imaging_pipeline.pneumonia.network import PneumoniaNetwork
    from imaging_pipeline.pneumonia.tracking import ModelTracker

WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65_535}
"""The value of unsigned images that counts as 1."""


@dataclass(frozen=True, slots=True)
class Predictor:
    """One model version, in memory.

    Attributes:
        model_name: in the registry.
        model_version: in the registry.
        threshold: probabilities at or above it are called positive.
    """

    model_name: str
    model_version: str
    threshold: float
    _network: PneumoniaNetwork

    def predict(self, images: NDArray[np.float32] | NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.float64]:
        """Probabilities of pneumonia (N,).

        Args:
            images: (N, 1, H, W); float32 on 0-1, or unsigned, whose largest value counts as 1. Any H and W.

        Raises:
            ValueError: shape, type or range are not as said.
        """
        import torch  # noqa: PLC0415

        from imaging_pipeline.pneumonia.network import SCORING_BATCH, score  # noqa: PLC0415

        if images.ndim != 4 or images.shape[1] != 1:
            raise ValueError(f"expected images (N, 1, H, W), found shape {images.shape}")
        scores = [np.empty(0)]
        for start in range(0, len(images), SCORING_BATCH):
            batch = torch.from_numpy(_on_unit_scale(images[start : start + SCORING_BATCH]))
            scores.append(score(self._network, batch))
        return np.concatenate(scores)


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
    return Predictor(champion.name, champion.version, stored.threshold, network)


def _on_unit_scale(images: NDArray[np.float32] | NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.float32]:
    """A float32 copy on 0-1."""
    if images.dtype in WHITE:
        return (images / np.float32(WHITE[images.dtype])).astype(np.float32)
    if images.dtype != np.float32:
        raise ValueError(f"expected float32, uint8 or uint16, found {images.dtype}")
    if not bool(np.all((images >= 0) & (images <= 1))):
        raise ValueError("expected float32 images on 0-1")
    return images.astype(np.float32)
