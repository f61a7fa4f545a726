"""Where in an image the network found what speaks for pneumonia: Grad-CAM (Selvaraju et al. 2017).

Owns the maps and how much of them lies inside a mask. Contains no drawing and no segmentation. Imports torch at the
top; import it lazily.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from imaging_pipeline.pneumonia.network import PneumoniaNetwork

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGES_AT_ONCE = 16


def heat_maps(network: PneumoniaNetwork, images: Tensor) -> NDArray[np.float32]:
    """Maps (N, S, S), S the network's image size, of images (N, 1, H, W), float32 on 0-1.

    A map is 0 or above, and 1 at its largest; it is 0 everywhere where nothing speaks for pneumonia. The network is
    left in evaluation mode.
    """
    network.eval()
    size = network.image_size
    maps = [np.empty((0, size, size), np.float32)]
    maps += [_maps(network, batch) for batch in torch.split(images, IMAGES_AT_ONCE) if len(batch)]
    return np.concatenate(maps)


def mass_inside(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The part (N,) of each map's mass that lies in its mask, and NaN where the map is empty.

    Args:
        maps: (N, S, S), 0 or above.
        masks: (N, H, W), of the same images; taken to the size of the maps by the nearest pixel.
    """
    rows, columns = (_nearest(masks.shape[axis], maps.shape[axis]) for axis in (1, 2))
    inside = masks[:, rows][:, :, columns]
    total = maps.sum(axis=(1, 2), dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray((maps * inside).sum(axis=(1, 2), dtype=np.float64) / total)


def _maps(network: PneumoniaNetwork, images: Tensor) -> NDArray[np.float32]:
    kept: list[Tensor] = []
    layer, is_its_input = _last_features(network.backbone)
    if is_its_input:
        hook = layer.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    else:
        hook = layer.register_forward_hook(lambda _, __, output: kept.append(output))
    device = next(network.parameters()).device
    with torch.enable_grad():
        try:
            logits = network(images.to(device).requires_grad_())
        finally:
            hook.remove()
        (features,) = kept
        (gradients,) = torch.autograd.grad(logits.sum(), features)
    features, gradients = _as_planes(features.detach()), _as_planes(gradients)
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    maps = functional.relu((weights * features).sum(dim=1, keepdim=True))
    size = (network.image_size, network.image_size)
    maps = functional.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False).squeeze(1)
    largest = maps.amax(dim=(1, 2), keepdim=True)
    scaled: NDArray[np.float32] = torch.where(largest > 0, maps / largest, maps).cpu().numpy()
    return scaled


def _last_features(backbone: nn.Module) -> tuple[nn.Module, bool]:
    """The layer whose input, or else output, holds the last features that still have a place in the image."""
    pools = [module for module in backbone.modules() if isinstance(module, nn.AdaptiveAvgPool2d)]
    blocks = [module for name, module in backbone.named_modules() if name.startswith("encoder.layers.encoder_layer_")]
    if blocks and not pools:  # a vision transformer: what enters its last block, tokens of patches
        last_block = [module for module in blocks if hasattr(module, "self_attention")][-1]
        return last_block, True
    if pools and _is_last(backbone, pools[-1]):
        return pools[-1], True
    if not pools and "features" in dict(backbone.named_children()):
        return backbone.get_submodule("features"), False
    return [module for module in backbone.modules() if isinstance(module, nn.Conv2d)][-1], False


def _is_last(backbone: nn.Module, pool: nn.Module) -> bool:
    """Whether a pooling layer comes after all convolutions; those inside a block do not."""
    modules = list(backbone.modules())
    convolutions = [index for index, module in enumerate(modules) if isinstance(module, nn.Conv2d)]
    return modules.index(pool) > convolutions[-1]


def _as_planes(features: Tensor) -> Tensor:
    """Features (N, C, H, W); tokens (N, 1 + H * W, C) lose the one that stands for the whole image."""
    if features.ndim == 4:
        return features
    side = int((features.shape[1] - 1) ** 0.5)
    return features[:, 1:].transpose(1, 2).reshape(len(features), -1, side, side)


def _nearest(count: int, wanted: int) -> NDArray[np.intp]:
    """Positions (wanted,) among ``count`` pixels."""
    return ((np.arange(wanted) + 0.5) * count / wanted).astype(np.intp)
