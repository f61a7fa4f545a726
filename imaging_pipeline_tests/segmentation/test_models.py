from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.samples.anatomy import chest_phantom
from imaging_pipeline.segmentation import __main__ as command
from imaging_pipeline.segmentation.lungs import find_lungs
from imaging_pipeline.segmentation.models import LungModel, load_lung_model, save_weights
from imaging_pipeline.segmentation.network import LungNetwork, ranked
from imaging_pipeline.segmentation.training import LungTraining, lung_loss, train_lungs
from imaging_pipeline.segmentation.training_films import changed, draw_films


class _Channels(nn.Module):
    """The network of the package with the channels of another one."""

    def __init__(self, network: LungNetwork, *, both_in_one: bool) -> None:
        super().__init__()
        self.network, self.both_in_one = network, both_in_one

    def forward(self, films: Tensor) -> Tensor:
        found = self.network(films / 100)
        if self.both_in_one:
            found = found.amax(dim=1, keepdim=True)
        return torch.cat([torch.zeros_like(found[:, :1]), found], dim=1)


@pytest.fixture(scope="module")
def network() -> LungNetwork:
    segmenter = load_lung_model().segmenter
    assert isinstance(segmenter, LungNetwork)
    return segmenter


def masks(model: LungModel) -> np.ndarray:
    film = chest_phantom(np.random.default_rng(5), 160, pneumonia=False).image
    return find_lungs(model.segmenter, [film])[0].masks


def script(network: nn.Module, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.trace(network, torch.rand(1, 1, 128, 128) * 100).save(str(path))
    return path


def bundle(folder: Path, network: LungNetwork, channels: dict[str, str], *, both_in_one: bool) -> Path:
    script(_Channels(network, both_in_one=both_in_one), folder / "models" / "model.ts")
    described = {
        "inputs": {"image": {"num_channels": 1, "spatial_shape": [128, 128], "value_range": [0, 100]}},
        "outputs": {"pred": {"num_channels": len(channels), "channel_def": channels}},
    }
    (folder / "configs").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps({"network_data_format": described}))
    return folder


def test_the_same_network_given_in_other_forms_finds_the_same_lungs(network: LungNetwork, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    sides = {"0": "background", "2": "Left lung", "1": "Right lung"}
    one = {"0": "background", "1": "lung"}
    paths = [
        tmp_path / "weights.pt",
        script(network, tmp_path / "network.ts"),
        bundle(tmp_path / "sides", network, sides, both_in_one=False),
        bundle(tmp_path / "one", network, one, both_in_one=True),
    ]
    expected = masks(load_lung_model())
    models = [load_lung_model(path) for path in paths]
    for model in models[:3]:
        assert np.mean(masks(model) != expected) < 0.002
    both = masks(models[3])
    assert np.mean(both.any(axis=0) != expected.any(axis=0)) < 0.01
    assert np.mean(both != expected) < 0.02
    assert len({model.version for model in models} | {load_lung_model().version}) == 5


@pytest.mark.parametrize("name", ["absent.pt", "text.npz", "text.pt", "other.pt", "empty_bundle", "brain_bundle"])
def test_what_is_no_such_model_is_refused_without_naming_its_path(
    network: LungNetwork, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    if name.startswith("text"):
        path.write_text("no weights")
    elif name == "other.pt":
        torch.save(nn.Linear(2, 2).state_dict(), path)
    elif name == "empty_bundle":
        path.mkdir()
    elif name == "brain_bundle":
        bundle(path, network, {"0": "background", "1": "tumour"}, both_in_one=True)
    with pytest.raises(ConfigurationError, match="IMAGING_PIPELINE_LUNG_MODEL") as refused:
        load_lung_model(path)
    assert name not in str(refused.value)


@pytest.mark.slow
def test_a_training_is_repeated_bit_by_bit_and_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--films", "4", "--steps", "2", "--seed", "3"]
    for name in ("one.npz", "two.npz"):
        assert command.main([str(tmp_path / name), *arguments]) == 0
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert "2 of 2 steps" in capsys.readouterr().err
    films, lungs = (torch.stack(list(each)) for each in zip(*draw_films(3, 8), strict=True))
    seen, truth = changed(films, lungs, torch.Generator().manual_seed(1), 128)
    losses = []
    for steps in (1, 25):
        trained = train_lungs(LungTraining(seed=3, films=8, steps=steps, batch=4)).train()
        losses.append(float(lung_loss(trained.body(ranked(seen)), truth).detach()))
    assert losses[1] < losses[0] - 0.1


def test_the_weights_are_small_and_written_the_same_each_time(network: LungNetwork, tmp_path: Path) -> None:
    assert sum(parameter.numel() for parameter in network.parameters()) < 1_000_000
    save_weights(network, tmp_path / "again.npz")
    assert load_lung_model(tmp_path / "again.npz").version == load_lung_model().version
    assert (tmp_path / "again.npz").stat().st_size < 2_000_000
