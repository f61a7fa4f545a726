"""The files of one stored model.

Owns their layout. ``weights/`` holds tensors and settings, from which this package rebuilds the network without
unpickling any code; around it lies a standard MLflow model (an exported graph), so that MLflow's own tools can
serve it: images (N, 1, H, W), float32 on 0-1, any H and W, to probabilities (N,), NaN where there is no answer.
Contains no store and no registry.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import TYPE_CHECKING

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pneumonia.config import TrainingConfig
from imaging_pipeline.tensors.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from torch import Tensor, nn

    from imaging_pipeline.pneumonia.training import TrainedNetwork

WEIGHTS_FOLDER = "weights"
STATE_DICT = "state_dict.pt"
SETTINGS = "settings.json"


@dataclass(frozen=True, slots=True)
class StoredModel:
    """What predicts.

    Attributes:
        state_dict: for ``restore_network(config, state_dict)``.
        config: of the network.
        threshold: probabilities at or above it are called positive.
        recipe: how its images are made; None: the model was stored without it.
    """

    state_dict: dict[str, Tensor]
    config: TrainingConfig
    threshold: float
    recipe: Recipe | None = None


def write_model(
    trained: TrainedNetwork,
    folder: Path,
    run_id: str,
    model_id: str,
    location: str,
    recipe: Mapping[str, Any] | None = None,
) -> str:
    """Writes all files of a model into the new ``folder``; the digest of its weights folder.

    Args:
        trained: the network.
        folder: is made.
        run_id: of MLflow.
        model_id: of MLflow.
        location: where MLflow keeps the model.
        recipe: how its images are made, as JSON values.
    """
    _write_mlflow_model(trained, folder, run_id, model_id, location)
    weights = folder / WEIGHTS_FOLDER
    weights.mkdir()
    _write_weights(trained, weights, recipe)
    return weights_digest(weights)


def weights_digest(weights: Path) -> str:
    """SHA-256 over tensors and settings, hexadecimal."""
    digest = hashlib.sha256()
    for name in (STATE_DICT, SETTINGS):
        digest.update(hashlib.sha256((weights / name).read_bytes()).digest())
    return digest.hexdigest()


def read_model(weights: Path) -> StoredModel:
    """The model of a weights folder; loads tensors and numbers only, never code."""
    import torch  # noqa: PLC0415

    settings = json.loads((weights / SETTINGS).read_text())
    tensors = torch.load(io.BytesIO((weights / STATE_DICT).read_bytes()), map_location="cpu", weights_only=True)
    recipe = Recipe.from_json(json.dumps(settings["recipe"])) if settings.get("recipe") else None
    return StoredModel(tensors, TrainingConfig.from_dict(settings["config"]), float(settings["threshold"]), recipe)


def read_folder(folder: Path) -> tuple[StoredModel, str]:
    """The model of a folder, and the digest of its weights; see `read_model`.

    Args:
        folder: with the files of one model as MLflow downloads them, or its folder ``weights``.

    Raises:
        ConfigurationError: it holds no model of this software, or a damaged one.
    """
    weights = folder / WEIGHTS_FOLDER if (folder / WEIGHTS_FOLDER).is_dir() else folder
    try:
        return read_model(weights), weights_digest(weights)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, UnpicklingError) as error:
        raise ConfigurationError(
            f"the folder of the model cannot be read ({type(error).__name__}): name one that holds {WEIGHTS_FOLDER}/"
            f"{STATE_DICT} and {SETTINGS}, as 'mlflow artifacts download' leaves it"
        ) from None


def _write_weights(trained: TrainedNetwork, weights: Path, recipe: Mapping[str, Any] | None) -> None:
    import torch  # noqa: PLC0415

    torch.save(dict(trained.state_dict), weights / STATE_DICT)
    config = trained.config.to_dict() | {"weights_path": None}
    settings = {
        "config": config,
        "threshold": trained.threshold,
        "threshold_note": trained.threshold_note,
        "recipe": recipe,
    }
    (weights / SETTINGS).write_text(json.dumps(settings, indent=2))


def _write_mlflow_model(trained: TrainedNetwork, folder: Path, run_id: str, model_id: str, location: str) -> None:
    """The network with its sigmoid as an MLflow model; its example is a grey ramp, never a patient's image."""
    import mlflow.pytorch  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    from mlflow.models import Model, ModelSignature  # noqa: PLC0415
    from mlflow.types import Schema, TensorSpec  # noqa: PLC0415

    float32 = np.dtype(np.float32)
    inputs = Schema([TensorSpec(float32, (-1, 1, -1, -1))])
    outputs = Schema([TensorSpec(float32, (-1,))])
    rows, columns = trained.config.image_size, trained.config.image_size + 16
    example = np.linspace(0, 1, 2 * rows * columns, dtype=np.float32).reshape(2, 1, rows, columns)
    mlflow.pytorch.save_model(
        _probability_network(trained),
        str(folder),
        mlflow_model=Model(artifact_path=location, model_uuid=model_id, run_id=run_id, model_id=model_id),
        signature=ModelSignature(inputs, outputs),
        input_example=example,
        pip_requirements=_requirements(),
        serialization_format="pt2",
    )


def _probability_network(trained: TrainedNetwork) -> nn.Module:
    import torch  # noqa: PLC0415

    from imaging_pipeline.pneumonia.network import ProbabilityNetwork, restore_network  # noqa: PLC0415

    network = ProbabilityNetwork(restore_network(trained.config, trained.state_dict))
    return network.to(memory_format=torch.contiguous_format).eval()


def _requirements() -> list[str]:
    """What loads the exported graph; named here because MLflow would find out by loading it in a new process."""
    from importlib.metadata import version  # noqa: PLC0415

    return [f"{name}=={version(name).split('+')[0]}" for name in ("mlflow", "torch", "torchvision", "numpy")]
