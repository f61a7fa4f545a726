"""Which network finds the lungs: the one that comes with the package, or one given by its path.

Reads files. Contains no training. Imports torch at the top; import it lazily.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.segmentation.lungs import Segmenter
from imaging_pipeline.segmentation.network import LUNGS, LungNetwork, resized

SETTING: Final = "IMAGING_PIPELINE_LUNG_MODEL"

VERSION_DIGITS: Final = 12
"""Of the digest of the weights: what a model is called."""

_SCRIPT: Final = Path("models") / "model.ts"
_METADATA: Final = Path("configs") / "metadata.json"
_BOTH: Final = "lung"


@dataclass(frozen=True, slots=True)
class LungModel:
    """A network that finds lungs.

    Attributes:
        segmenter: the network.
        version: stands for its weights: digits of their digest.
    """

    segmenter: Segmenter
    version: str


def load_lung_model(path: Path | None = None) -> LungModel:
    """The network of the package, or that of a path.

    Args:
        path: weights of this package's network (``.npz`` as ``save_weights`` writes it, or a state dict of torch); a
            TorchScript module that takes films (N, 1, H, W) on 0-1 and gives logits (N, 2, H, W) of the right and the
            left lung; or the folder of a MONAI bundle with its TorchScript. A TorchScript module is code: take it from
            people you trust.

    Raises:
        ConfigurationError: there is no such model there.
    """
    if path is None:
        with resources.as_file(resources.files("imaging_pipeline.segmentation") / "data" / "lungs.npz") as shipped:
            return load_lung_model(shipped)
    try:
        if path.is_dir():
            return _bundle(path)
        version = _digest(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
            return LungModel(_with_weights(weights), version)
        if _is_script(path):
            return LungModel(_script(path), version)
        return LungModel(_with_weights(torch.load(path, map_location="cpu", weights_only=True)), version)
    except (OSError, ValueError, KeyError, RuntimeError, UnpicklingError, zipfile.BadZipFile) as error:
        raise ConfigurationError(
            f"{SETTING}: expected weights of the lung network, a TorchScript module or a MONAI bundle "
            f"({type(error).__name__})"
        ) from None


def save_weights(network: LungNetwork, path: Path) -> None:
    """Write weights as float16; the same weights give the same bytes."""
    arrays = {
        name: tensor.numpy().astype(np.float16) if tensor.is_floating_point() else tensor.numpy()
        for name, tensor in network.state_dict().items()
    }
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _with_weights(weights: Mapping[str, Tensor]) -> Segmenter:
    network = LungNetwork()
    network.load_state_dict({name: tensor.to(_type_of(tensor)) for name, tensor in weights.items()})
    return network.eval()


def _type_of(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.is_floating_point() else tensor.dtype


def _is_script(path: Path) -> bool:
    """Whether a file is TorchScript: a zip archive, as a state dict is, with code in it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _script(path: Path) -> nn.Module:
    module: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return module.eval()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:VERSION_DIGITS]


def _bundle(folder: Path) -> LungModel:
    """The network of a MONAI bundle, with what its metadata say of input and output."""
    described: Mapping[str, Any] = json.loads((folder / _METADATA).read_text("utf-8"))["network_data_format"]
    film = described["inputs"]["image"]
    names = {int(index): str(name).lower() for index, name in described["outputs"]["pred"]["channel_def"].items()}
    low, high = (float(value) for value in film.get("value_range") or (0, 1))
    size = film["spatial_shape"][0]
    adapted = _Adapted(_script(folder / _SCRIPT), names, size if isinstance(size, int) else None, low, high)
    return LungModel(adapted, _digest(folder / _SCRIPT))


class _Adapted:
    """A network with its own size, range and channels as a segmenter."""

    def __init__(self, module: nn.Module, names: Mapping[int, str], size: int | None, low: float, high: float) -> None:
        self._module, self._size, self._low, self._high = module, size, low, high
        of_lungs = {name: index for index, name in names.items() if _BOTH in name}
        sides = [next((index for name, index in of_lungs.items() if name.startswith(side[:4])), None) for side in LUNGS]
        self._sides = [index for index in sides if index is not None]
        self._both = None if len(self._sides) == len(LUNGS) else next(iter(of_lungs.values()), None)
        if self._both is None and len(self._sides) < len(LUNGS):
            raise ValueError("no channel of the bundle is a lung")

    def __call__(self, films: Tensor) -> Tensor:
        taken = films if self._size is None else resized(films, self._size)
        found = self._module(taken * (self._high - self._low) + self._low)
        found = functional.interpolate(found, size=films.shape[-2:], mode="bilinear", align_corners=False)
        if self._both is None:
            return torch.cat([_against_others(found, index) for index in self._sides], dim=1)
        return _split(_against_others(found, self._both))


def _against_others(logits: Tensor, index: int) -> Tensor:
    """Logit (N, 1, H, W) of one channel of a softmax; a lone channel is one already."""
    if logits.shape[1] == 1:
        return logits
    others = [each for each in range(logits.shape[1]) if each != index]
    return logits[:, [index]] - logits[:, others].logsumexp(dim=1, keepdim=True)


def _split(logits: Tensor) -> Tensor:
    """Two lungs from logits (N, 1, H, W) of both: what lies on either side of their middle column."""
    columns = torch.arange(logits.shape[-1])
    weights = logits.sigmoid().sum(dim=(1, 2))
    middle = (weights * columns).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-6)
    is_right = (columns[None] < middle[:, None])[:, None, None]
    nowhere = torch.full_like(logits, -20.0)
    return torch.cat([torch.where(is_right, logits, nowhere), torch.where(is_right, nowhere, logits)], dim=1)
