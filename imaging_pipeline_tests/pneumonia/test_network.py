"""Tests of the classifier's construction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torchvision

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pneumonia.config import GreyScaling, TrainingConfig
from imaging_pipeline.pneumonia.network import build_network, resize, score, score_and_embed

TIMM = "timm/tf_efficientnet_lite0"
ARCHITECTURES = ["resnet18", "densenet121", "efficientnet_b0", "convnext_tiny", "vit_b_16", "shufflenet_v2_x0_5", TIMM]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gives_one_logit_per_grey_image_of_any_size(architecture: str) -> None:
    network = build_network(TrainingConfig(architecture=architecture, image_size=64)).eval()
    with torch.inference_mode():
        logits = network(torch.rand(2, 1, 80, 50))
    assert logits.shape == (2,)
    assert logits.isfinite().all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_embedding_is_what_the_last_layer_makes_the_logit_of(architecture: str) -> None:
    network = build_network(TrainingConfig(architecture=architecture, image_size=64)).eval()
    images = torch.rand(2, 1, 80, 50)
    with torch.inference_mode():
        logits, embeddings = network.embed(images)
        assert embeddings.shape == (2, network.width)
        last = network.backbone.get_submodule(network.last_layer)
        assert torch.equal(last(embeddings).squeeze(1), logits)
        assert torch.equal(network(images), logits)
    assert not torch.equal(embeddings[0], embeddings[1])


def test_pretrained_colour_weights_see_a_grey_image_as_they_saw_three_equal_channels(tmp_path: Path) -> None:
    colour = torchvision.models.resnet18(weights=None).eval()
    torch.save(colour.state_dict(), tmp_path / "weights.pt")
    network = build_network(TrainingConfig(image_size=64, weights_path=str(tmp_path / "weights.pt"))).eval()
    image = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        expected = colour.conv1(image.expand(-1, 3, -1, -1))
        assert torch.allclose(network.backbone.get_submodule("conv1")(image), expected, atol=1e-5)
    assert torch.equal(network.backbone.state_dict()["layer4.1.conv2.weight"], colour.layer4[1].conv2.weight)


def test_own_weights_are_taken_with_their_last_layer(tmp_path: Path) -> None:
    first = build_network(TrainingConfig(image_size=64))
    torch.save(first.state_dict(), tmp_path / "weights.pt")
    second = build_network(TrainingConfig(image_size=64, weights_path=str(tmp_path / "weights.pt")))
    images = torch.rand(3, 1, 64, 64)
    assert score(first, images).tolist() == score(second, images).tolist()


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    torch.save(torchvision.models.efficientnet_b0(weights=None).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ConfigurationError, match="weights_path"):
        build_network(TrainingConfig(weights_path=str(tmp_path / "weights.pt")))


def test_weights_that_would_run_code_are_refused_unread(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Path("anything")}, tmp_path / "weights.pt")
    with pytest.raises(ConfigurationError, match="weights_path"):
        build_network(TrainingConfig(weights_path=str(tmp_path / "weights.pt")))


def test_missing_weights_are_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="weights_path"):
        build_network(TrainingConfig(weights_path=str(tmp_path / "none.pt")))


def test_an_image_of_the_right_size_is_not_changed_by_resizing() -> None:
    images = torch.rand(2, 1, 48, 48)
    assert torch.equal(resize(images, 48), images)


def test_a_film_may_be_scaled_by_its_own_grey_values() -> None:
    films = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    otherwise_exposed = 0.3 * films + 0.5
    for scaling, is_blind in ((GreyScaling.FILM, True), (GreyScaling.FIXED, False)):
        network = build_network(TrainingConfig(image_size=32, grey_scaling=scaling)).eval()
        with torch.inference_mode():
            assert torch.allclose(network(films), network(otherwise_exposed), atol=1e-2) is is_blind
            assert network(torch.full((1, 1, 32, 32), 0.7)).isfinite().all()


def test_no_images_have_no_scores_and_no_embeddings() -> None:
    network = build_network(TrainingConfig(image_size=32))
    scores, embeddings = score_and_embed(network, torch.empty(0, 1, 32, 32))
    assert scores.shape == (0,)
    assert embeddings.shape == (0, 512)


def test_three_channels_see_a_grey_image_as_one_channel_of_summed_weights_does(tmp_path: Path) -> None:
    torch.save(torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict(), tmp_path / "weights.pt")
    images, features = torch.rand(2, 1, 64, 64), []
    for channels in (1, 3):
        network = build_network(
            TrainingConfig(
                architecture="shufflenet_v2_x0_5",
                image_size=64,
                channels=channels,
                weights_path=str(tmp_path / "weights.pt"),
            )
        )
        features.append(score_and_embed(network, images)[1])
    assert torch.allclose(*map(torch.from_numpy, features), atol=1e-4)


def test_a_vision_transformer_takes_weights_of_another_image_size(tmp_path: Path) -> None:
    torch.save(torchvision.models.vit_b_32(weights=None, image_size=64).state_dict(), tmp_path / "weights.pt")
    config = TrainingConfig(
        architecture="vit_b_32", image_size=96, channels=3, weights_path=str(tmp_path / "weights.pt")
    )
    assert score(build_network(config), torch.rand(1, 1, 64, 64)).shape == (1,)


NO_CLASSIFIER = [
    "resnet19", "googlenet", "squeezenet1_0", "fasterrcnn_resnet50_fpn",
    "timm/resnet19", "timm/vit_base_patch16_224", "timm/dla34", "timm/hf-hub:somebody/something",
]  # fmt: skip


def test_colour_weights_of_timm_see_a_grey_image_as_they_saw_three_equal_channels(tmp_path: Path) -> None:
    colour = timm.create_model(TIMM.removeprefix("timm/"), pretrained=False).eval()
    torch.save(colour.state_dict(), tmp_path / "weights.pt")
    config = TrainingConfig(architecture=TIMM, image_size=64, weights_path=str(tmp_path / "weights.pt"))
    network = build_network(config).eval()
    image = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        expected = colour.conv_stem(image.expand(-1, 3, -1, -1))
        assert torch.allclose(network.backbone.get_submodule("conv_stem")(image), expected, atol=1e-5)
    three = build_network(replace(config, channels=3)).eval()
    assert three.backbone.get_submodule("conv_stem").weight.shape[1] == 3


@pytest.mark.parametrize("architecture", NO_CLASSIFIER)
def test_a_network_that_does_not_classify_in_one_linear_layer_is_refused(architecture: str) -> None:
    with pytest.raises(ConfigurationError, match="architecture"):
        build_network(TrainingConfig(architecture=architecture))


def test_an_image_size_that_the_patches_do_not_fill_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="image_size"):
        build_network(TrainingConfig(architecture="vit_b_32", image_size=100))
