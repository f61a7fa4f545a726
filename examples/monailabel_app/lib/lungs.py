"""The lungs of a film, by the network that export_model.py has written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import LoadImaged
from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.tasks.infer.basic_infer import BasicInferTask
from torch.nn import functional

LABELS = {"right lung": 1, "left lung": 2, "pneumonia": 3}
"""Values of a mask. The network finds the lungs; pneumonia is what a person draws."""

SIZE = 128
"""Side in pixels of the films the network was exported for."""


class LungInfer(BasicInferTask):
    """Films as FilmDatastore gives them (columns, rows, 1), to masks of the same shape."""

    def __init__(self, path: str) -> None:
        super().__init__(
            path=path,
            network=None,  # TorchScript
            type=InferType.SEGMENTATION,
            labels=LABELS,
            dimension=2,
            description="Both lungs on a frontal chest film",
            config={"device": ["cpu"], "result_extension": ".nii.gz", "result_dtype": "uint8"},
        )

    def pre_transforms(self, _data: Mapping[str, Any] | None = None) -> Sequence[Callable]:
        """Read the film, and bring it to the network's size."""
        return [LoadImaged(keys="image", image_only=False), _prepared]

    def post_transforms(self, _data: Mapping[str, Any] | None = None) -> Sequence[Callable]:
        """Draw what was found on the film."""
        return [_drawn]


def _prepared(data: dict[str, Any]) -> dict[str, Any]:
    film = torch.as_tensor(data["image"]).float()[..., 0].T
    data["shape"] = tuple(film.shape)
    film = (film - film.min()) / (film.max() - film.min()).clamp(min=1)
    data["image"] = functional.interpolate(film[None, None], (SIZE, SIZE), mode="bilinear", antialias=True)[0]
    return data


def _drawn(data: dict[str, Any]) -> dict[str, Any]:
    logits = functional.interpolate(torch.as_tensor(data["pred"])[None].float(), data["shape"], mode="bilinear")[0]
    found = torch.where(logits.amax(dim=0) > 0, logits.argmax(dim=0) + 1, 0)
    data["pred"] = found.T[..., None].to(torch.uint8).numpy()
    return data
