"""Builds the classifier: a network of torchvision or timm for grey images, with one logit.

Owns what turns pixels into a logit, resizing and scaling included, so that a stored model needs no other
preprocessing. Contains no training and no thresholds. Imports torch at the top; import it lazily.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.vision_transformer import interpolate_embeddings

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pneumonia.config import Device, GreyScaling, TrainingConfig
from imaging_pipeline.pneumonia.plausibility import Plausibility

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

SCORING_BATCH = 64
"""Images scored at a time; one number everywhere, so that scores do not depend on who asks."""

GREY_MEAN = 0.5
GREY_DEVIATION = 0.25
"""Fixed input scaling: windowed radiographs fill 0-1, with about this mean and standard deviation."""

_LEAST_DEVIATION = 1e-3
"""What is added to the deviation of a film, which may be of one grey."""

RGB = 3

_UNFIT = ("googlenet", "inception_v3", "maxvit_t", "squeezenet1_0", "squeezenet1_1")
"""Networks of torchvision with several outputs, one input size, or a last layer that is no linear one."""

_TIMM = "timm/"
"""How the names of networks begin that the library timm builds."""

_TRANSFORMER = "vit_"
"""How the names of networks begin that are built for one image size."""

_POSITIONS = "encoder.pos_embedding"

_PLAUSIBILITY = "plausibility."

_ONE_KIND = re.compile(rf"^{re.escape(_PLAUSIBILITY)}(?=views\.|limit$)")
"""Names of models that know one kind of film only, as they were stored once."""


class PneumoniaNetwork(nn.Module):
    """Images (N, 1, H, W), float32 on 0-1, any H and W, to logits (N,), float32.

    Attributes:
        backbone: from images (N, channels, image_size, image_size) to logits (N, 1).
        image_size: side in pixels to which images are resized.
        channels: 1, or 3: the grey image is repeated.
        grey_scaling: of the input.
        last_layer: name of the backbone's last layer, which is linear; what goes into it is the embedding.
        temperature: by which logits are divided; 1 until it is fitted (Guo et al. 2017).
        plausibility: tells what is no film like those it was trained on; None until it is fitted.
    """

    temperature: Tensor
    plausibility: Plausibility | None

    def __init__(self, backbone: nn.Module, config: TrainingConfig, last_layer: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.image_size = config.image_size
        self.channels = config.channels
        self.grey_scaling = config.grey_scaling
        self.last_layer = last_layer
        self.register_buffer("temperature", torch.ones(()))
        self.register_module("plausibility", None)

    def forward(self, images: Tensor) -> Tensor:
        """One logit per image; above 0 means pneumonia is more likely than not."""
        logits: Tensor = self.backbone(self.scaled(resize(images, self.image_size)))
        return logits.squeeze(1) / self.temperature

    def scaled(self, resized: Tensor) -> Tensor:
        """What the backbone is given (N, channels, S, S) for images (N, 1, S, S) of its size."""
        mean: Tensor | float = GREY_MEAN
        deviation: Tensor | float = GREY_DEVIATION
        if self.grey_scaling is GreyScaling.FILM:
            mean = resized.mean(dim=(1, 2, 3), keepdim=True)
            deviation = resized.std(dim=(1, 2, 3), keepdim=True) + _LEAST_DEVIATION
        return ((resized - mean) / deviation).expand(-1, self.channels, -1, -1)

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N,) and embeddings (N, width), float32, of one forward pass."""
        kept: list[Tensor] = []
        last = self.backbone.get_submodule(self.last_layer)
        hook = last.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
        try:
            logits = self(images)
        finally:
            hook.remove()
        (embeddings,) = kept
        return logits, embeddings

    @property
    def width(self) -> int:
        """Length of an embedding."""
        last = self.backbone.get_submodule(self.last_layer)
        assert isinstance(last, nn.Linear)
        return last.in_features


class ProbabilityNetwork(nn.Module):
    """Images (N, 1, H, W), float32 on 0-1, to probabilities (N,), NaN where there is no answer: what is exported."""

    def __init__(self, network: PneumoniaNetwork) -> None:
        super().__init__()
        self.network = network
        last = network.backbone.get_submodule(network.last_layer)
        network.backbone.set_submodule(network.last_layer, _WithInput(last))

    def forward(self, images: Tensor) -> Tensor:
        """One probability per image."""
        network = self.network
        resized = resize(images, network.image_size)
        outputs = network.backbone(network.scaled(resized))  # no hook: an exported graph has none
        probabilities = torch.sigmoid(outputs[:, 0] / network.temperature)
        if network.plausibility is None:
            return probabilities
        unlike = network.plausibility(resized, outputs[:, 1:])
        return torch.where(unlike > 1, torch.nan, probabilities)


class _WithInput(nn.Module):
    """A layer whose input stands behind its output."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, values: Tensor) -> Tensor:
        return torch.cat([self.layer(values), values], dim=1)


def resize(images: Tensor, size: int) -> Tensor:
    """Images (N, 1, H, W) as (N, 1, size, size), bilinear with antialiasing; the aspect ratio is not kept.

    An image that has the size already comes out unchanged; there is no shortcut for it because the exported
    model must take any size.
    """
    return functional.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def score(network: PneumoniaNetwork, images: Tensor) -> NDArray[np.float64]:
    """Probabilities (N,) of images (N, 1, H, W), float32 on 0-1; leaves the network in evaluation mode."""
    return score_and_embed(network, images)[0]


def score_and_embed(network: PneumoniaNetwork, images: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """As :func:`score`, with the embeddings (N, width) of the same forward pass."""
    device = next(network.parameters()).device
    network.eval()
    scores, embeddings = [np.empty(0)], [np.empty((0, network.width), np.float32)]
    with torch.inference_mode():
        for batch in torch.split(images, SCORING_BATCH) if len(images) else ():
            logits, vectors = network.embed(batch.to(device, memory_format=torch.channels_last))
            scores.append(logits.double().sigmoid().cpu().numpy())
            embeddings.append(vectors.cpu().numpy())
    return np.concatenate(scores), np.concatenate(embeddings)


def implausibility(network: PneumoniaNetwork, images: Tensor, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    """How unlike the training films images (N, 1, S, S) are, float64 (N,); NaN where the network cannot tell."""
    if network.plausibility is None or not len(images):
        return np.full(len(images), np.nan)
    device = network.temperature.device
    with torch.inference_mode():
        ratios = network.plausibility(images.to(device), torch.from_numpy(embeddings).to(device))
    found: NDArray[np.float64] = ratios.double().cpu().numpy()
    return found


def pick_device(device: Device) -> torch.device:
    """The torch device meant.

    Raises:
        ConfigurationError: CUDA was asked for and is not there.
    """
    available = torch.cuda.is_available()
    if device is Device.CUDA and not available:
        raise ConfigurationError("device is set to cuda, but torch finds no CUDA device; choose auto or cpu")
    return torch.device("cuda" if available and device is not Device.CPU else "cpu")


def build_network(config: TrainingConfig) -> PneumoniaNetwork:
    """A new network, with random weights from torch's current generator or with ``config.weights_path``.

    Pretrained RGB weights are taken over for one channel by summing over the colours, which gives what the
    backbone would see on a grey image repeated three times. A last layer of another size stays random.

    Raises:
        ConfigurationError: there is no such network or it does not take the image size, or the weights cannot be
            read or do not belong to it.
    """
    backbone = _backbone(config)
    first_name, last_name = _ends(backbone)
    first, last = backbone.get_submodule(first_name), backbone.get_submodule(last_name)
    assert isinstance(first, nn.Conv2d)
    assert isinstance(last, nn.Linear)
    if config.channels != first.in_channels:
        backbone.set_submodule(first_name, _grey_convolution(first))
    backbone.set_submodule(last_name, nn.Linear(last.in_features, 1))
    if config.weights_path is not None:
        weights = _fitted(_read_weights(Path(config.weights_path)), config, backbone, f"{first_name}.weight")
        _load_pretrained(backbone, weights, last_name)
    network = PneumoniaNetwork(backbone, config, last_name)
    return network.to(memory_format=torch.channels_last)


def restore_network(config: TrainingConfig, state_dict: Mapping[str, Tensor]) -> PneumoniaNetwork:
    """A trained network in evaluation mode, on the CPU."""
    network = build_network(dataclasses.replace(config, weights_path=None))
    state_dict = {_ONE_KIND.sub(f"{_PLAUSIBILITY}kinds.0.", name): each for name, each in state_dict.items()}
    fitted = {
        name.removeprefix(_PLAUSIBILITY): each for name, each in state_dict.items() if name.startswith(_PLAUSIBILITY)
    }
    if fitted:
        network.plausibility = Plausibility.restored(fitted)
    network.load_state_dict(state_dict)
    return network.eval()


def with_plausibility(state_dict: Mapping[str, Tensor], plausibility: Plausibility) -> dict[str, Tensor]:
    """The state of a network that knows what films look like, too."""
    return dict(state_dict) | {_PLAUSIBILITY + name: each for name, each in plausibility.state_dict().items()}


def _backbone(config: TrainingConfig) -> nn.Module:
    """The network as its library builds it, for 1000 classes."""
    name = config.architecture
    if name.startswith(_TIMM):
        return _timm_backbone(name.removeprefix(_TIMM), config)
    known = set(torchvision.models.list_models(module=torchvision.models)) - set(_UNFIT)
    if name not in known:
        raise ConfigurationError(
            f"training setting architecture must be {_TIMM}NAME for a network of timm, or a classification network of "
            f"torchvision: {', '.join(sorted(known))}"
        )
    size = {"image_size": config.image_size} if name.startswith(_TRANSFORMER) else {}
    try:
        backbone: nn.Module = torchvision.models.get_model(name, weights=None, **size)
    except AssertionError:
        raise ConfigurationError(
            f"training setting image_size must be a multiple of the patches of {name}, whose side ends its name"
        ) from None
    return backbone


def _timm_backbone(name: str, config: TrainingConfig) -> nn.Module:
    """A convolutional network of timm, which knows how to take grey images."""
    try:
        import timm  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError(f"architecture {_TIMM}{name} needs the package timm: pip install timm") from None
    is_known = name in timm.list_models() and not timm.models.get_pretrained_cfg_value(name, "fixed_input_size")
    backbone: Any = timm.create_model(name, pretrained=False, in_chans=config.channels) if is_known else None
    if backbone is None or not isinstance(backbone.get_classifier(), nn.Linear):
        raise ConfigurationError(
            f"training setting architecture: timm has no convolutional network {name} that ends in a linear layer"
        )
    made: nn.Module = backbone
    return made


def _ends(backbone: nn.Module) -> tuple[str, str]:
    """Names of the first convolution and of the last linear layer."""
    first = next(name for name, module in backbone.named_modules() if isinstance(module, nn.Conv2d))
    *_, last = (name for name, module in backbone.named_modules() if isinstance(module, nn.Linear))
    return first, last


def _grey_convolution(rgb: nn.Conv2d) -> nn.Conv2d:
    kernel, stride, padding = rgb.kernel_size, rgb.stride, rgb.padding
    grey = nn.Conv2d(1, rgb.out_channels, kernel, stride, padding, bias=rgb.bias is not None)  # type: ignore[arg-type]
    with torch.no_grad():
        grey.weight.copy_(rgb.weight.sum(dim=1, keepdim=True))
        if grey.bias is not None and rgb.bias is not None:
            grey.bias.copy_(rgb.bias)
    return grey


def _fitted(weights: dict[str, Tensor], config: TrainingConfig, backbone: nn.Module, first: str) -> dict[str, Tensor]:
    """Weights of colour images for grey ones, and positions of another image size for this one."""
    if first in weights and weights[first].shape[1] == RGB and config.channels != RGB:
        weights = weights | {first: weights[first].sum(dim=1, keepdim=True)}
    if _POSITIONS in weights and weights[_POSITIONS].shape != backbone.state_dict()[_POSITIONS].shape:
        patch = int(config.architecture.rpartition("_")[2])
        return dict(interpolate_embeddings(config.image_size, patch, weights))
    return weights


def _load_pretrained(backbone: nn.Module, weights: dict[str, Tensor], last_name: str) -> None:
    last = f"{last_name}.weight"
    if last in weights and weights[last].shape[0] != 1:
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith(last_name)}
    optional = (last_name, "num_batches_tracked")
    try:
        missing = backbone.load_state_dict(weights, strict=False).missing_keys
    except RuntimeError:
        raise ConfigurationError("weights_path holds tensors of other shapes than the architecture has") from None
    if any(not name.startswith(optional) and not name.endswith(optional) for name in missing):
        raise ConfigurationError("weights_path does not hold all weights of the architecture")


def _read_weights(path: Path) -> dict[str, Tensor]:
    """A plain state dict, or one saved by this package (whose names start with ``backbone.``)."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, UnpicklingError) as error:
        kind = type(error).__name__
        raise ConfigurationError(f"weights_path cannot be read as a torch state dict ({kind})") from None
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise ConfigurationError("weights_path must hold one state dict: a mapping of names to tensors")
    return {name.removeprefix("backbone."): tensor for name, tensor in weights.items()}
