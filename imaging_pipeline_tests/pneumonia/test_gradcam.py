"""Tests of the heat maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from imaging_pipeline.pneumonia.config import TrainingConfig
from imaging_pipeline.pneumonia.gradcam import heat_maps, mass_inside
from imaging_pipeline.pneumonia.network import PneumoniaNetwork, build_network
from imaging_pipeline_tests.pneumonia.images import BrightSpots


@pytest.mark.parametrize(
    "architecture", ["resnet18", "densenet121", "efficientnet_b0", "convnext_tiny", "vit_b_16", "shufflenet_v2_x0_5"]
)
def test_every_network_gives_a_map_of_each_image(architecture: str) -> None:
    torch.manual_seed(0)
    network = build_network(TrainingConfig(architecture=architecture, image_size=64))
    maps = heat_maps(network, torch.rand(3, 1, 70, 50))
    assert maps.shape == (3, 64, 64)
    assert np.isfinite(maps).all()
    assert (maps >= 0).all()
    assert set(maps.max(axis=(1, 2)).tolist()) <= {0.0, 1.0}
    assert all(parameter.grad is None for parameter in network.parameters())
    assert heat_maps(network, torch.empty(0, 1, 64, 64)).shape == (0, 64, 64)


def test_the_map_is_hot_where_the_finding_is() -> None:
    convolution, linear = nn.Conv2d(1, 2, 1, bias=False), nn.Linear(2, 1)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))  # bright, and dark
        linear.weight.copy_(torch.tensor([[1.0, -1.0]]))
    parts = nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    images = torch.from_numpy(BrightSpots(24, seed=9).images)
    maps = heat_maps(PneumoniaNetwork(parts, TrainingConfig(image_size=32), "4"), images)
    bright = (images[:, 0] > 0.5).numpy()
    inside = mass_inside(maps, bright)[:12]
    assert bright[:12].mean() < 0.3
    assert inside == pytest.approx(1)
    nothing = heat_maps(PneumoniaNetwork(parts, TrainingConfig(image_size=32), "4"), torch.zeros(1, 1, 32, 32))
    assert not nothing.any()


def test_mass_inside_is_a_part_of_the_mass_and_masks_may_have_another_size() -> None:
    maps = np.zeros((3, 8, 8), np.float32)
    maps[0, :4] = 1
    maps[1, 0, 0] = 0.5
    masks = np.zeros((3, 16, 16), np.bool_)
    masks[:, :, :8] = True
    inside = mass_inside(maps, masks)
    assert inside[:2].tolist() == [0.5, 1.0]
    assert np.isnan(inside[2])
