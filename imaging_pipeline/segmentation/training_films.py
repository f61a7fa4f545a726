"""What the lung network is trained on: phantoms of many shapes, and changes that make them unlike one another.

The phantoms know their lungs. They are drawn in a wider range than people have, and changed more than films differ, so
that real films lie inside of what was seen (domain randomisation, Tobin et al. 2017). Imports torch at the top; import
it lazily.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from imaging_pipeline.samples.anatomy import chest_phantom
from imaging_pipeline.samples.body import Body, View, happens

FILM_SIZE = 160
"""Side in pixels of the phantoms, larger than what the network sees: parts of them are cut out."""

_COARSE = 5
"""Knots a side of the smooth fields that bend a film and shade it."""


def draw_films(seed: int, count: int, size: int = FILM_SIZE) -> Iterator[tuple[Tensor, Tensor]]:
    """Phantoms (1, S, S), float32 on 0-1, bright is dense, and their lungs (2, S, S), float32 0 or 1: right, left."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        view = View.AP if happens(rng, 0.5) else View.PA
        phantom = chest_phantom(rng, size, pneumonia=happens(rng, 0.5), body=_body(rng), view=view)
        yield torch.from_numpy(phantom.image)[None], torch.from_numpy(phantom.lungs.astype(np.float32))


def changed(films: Tensor, lungs: Tensor, generator: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
    """Some films and their lungs, bent, cut, shaded, blurred, marked and made noisy.

    Args:
        films: (N, 1, S, S), float32 on 0-1.
        lungs: (N, 2, S, S).
        generator: source of all randomness.
        size: side of what is given back.
    """

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(len(films), generator=generator) * (high - low) + low

    grid = _places(draw, generator, len(films), size)
    inside = (grid.abs().amax(dim=-1) <= 1).unsqueeze(1)
    films = functional.grid_sample(films, grid, mode="bilinear", padding_mode="border", align_corners=False)
    lungs = functional.grid_sample(lungs, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    films = torch.where(inside, films, draw(0, 1).round()[:, None, None, None] * draw(0, 1)[:, None, None, None])
    films = films.clamp(0, 1) ** draw(0.5, 2.0)[:, None, None, None]
    films = films + _smooth(generator, len(films), size, 1) * draw(0, 0.35)[:, None, None, None]
    films = _bare(_hazy(films, lungs, generator, draw), lungs, draw)
    films = _blurred(films, draw(0, 1.3))
    films = _marked(films, draw)
    noise = torch.randn(films.shape, generator=generator)
    return films + noise * draw(0, 0.06)[:, None, None, None], lungs


Draw = Callable[[float, float], Tensor]
"""Draws one number for each film, from a range."""


def _body(rng: np.random.Generator) -> Body:
    """Shape of a thorax, from child to heavy adult and beyond."""
    return Body(
        cage_width=rng.uniform(0.54, 0.76),
        apex_y=rng.uniform(-0.85, -0.62),
        dome_y=rng.uniform(0.20, 0.55),
        dome_gap=rng.uniform(-0.02, 0.12),
        heart_scale=rng.uniform(0.70, 1.30),
        mediastinum_width=rng.uniform(0.07, 0.19),
        rib_spacing=rng.uniform(0.105, 0.150),
        rib_tilt=rng.uniform(-0.02, 0.14),
        bone=rng.uniform(0.015, 0.11),
        soft_tissue=rng.uniform(0.45, 0.75),
        breast=rng.uniform(0.03, 0.16) if happens(rng, 0.5) else 0.0,
        gastric_bubble=happens(rng, 0.5),
        vessel_seed=int(rng.integers(2**32)),
    )


def _places(draw: Draw, generator: torch.Generator, count: int, size: int) -> Tensor:
    """From where in the film each pixel is taken (N, size, size, 2), in units of half a film."""
    angle, zoom, aspect = draw(-0.17, 0.17), torch.exp(draw(-0.45, 0.18)), torch.exp(draw(-0.2, 0.2))
    cosine, sine = torch.cos(angle), torch.sin(angle)
    rows = torch.stack(
        [
            torch.stack([cosine * zoom * aspect, -sine * zoom, draw(-0.18, 0.18)], dim=1),
            torch.stack([sine * zoom, cosine * zoom / aspect, draw(-0.25, 0.18)], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(rows, [count, 1, size, size], align_corners=False)
    bend = _smooth(generator, count, size, 2).permute(0, 2, 3, 1)
    return grid + bend * draw(0, 0.12)[:, None, None, None]


def _smooth(generator: torch.Generator, count: int, size: int, channels: int) -> Tensor:
    """Smooth random fields (N, channels, size, size), about -1 to 1."""
    coarse = torch.rand((count, channels, _COARSE, _COARSE), generator=generator) * 2 - 1
    return functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)


def _hazy(films: Tensor, lungs: Tensor, generator: torch.Generator, draw: Draw) -> Tensor:
    """Films with lungs, each or a part of it, up to about as dense as what is around: consolidation, effusion."""
    haze = _smooth(generator, len(films), films.shape[-1], 2).clamp(min=0) + torch.stack(
        [draw(-1, 0.5), draw(-1, 0.5)], 1
    )[:, :, None, None].clamp(min=0)
    return films + (lungs * haze).sum(dim=1, keepdim=True) * draw(-0.2, 0.4).clamp(min=0)[:, None, None, None]


def _bare(films: Tensor, lungs: Tensor, draw: Draw) -> Tensor:
    """Films with air beside the body, behind a straight line that comes near the lungs, as with raised arms."""
    axis = torch.linspace(-1, 1, films.shape[-1])
    near = functional.max_pool2d(lungs.amax(dim=1, keepdim=True), 9, stride=1, padding=4) > 0
    for side in (-1, 1):
        slope = draw(-0.3, 1.6)[:, None, None]
        height = side * axis[None, None, :] - slope * axis[None, :, None]
        beyond = (height > draw(0.55, 2.2)[:, None, None]).unsqueeze(1)
        films = torch.where(beyond & ~near, films * 0.1 + draw(0, 0.25)[:, None, None, None], films)
    return films


def _blurred(films: Tensor, deviations: Tensor) -> Tensor:
    """Each film blurred by a Gaussian of its own standard deviation, in pixels."""
    offsets = torch.arange(-3, 4, dtype=torch.float32)
    kernels = torch.exp(-0.5 * (offsets / deviations.clamp(min=0.1)[:, None]) ** 2)
    kernels = kernels / kernels.sum(dim=1, keepdim=True)
    planes = functional.pad(films.transpose(0, 1), (3, 3, 3, 3), mode="replicate")
    planes = functional.conv2d(planes, kernels[:, None, :, None], groups=len(films))
    return functional.conv2d(planes, kernels[:, None, None, :], groups=len(films)).transpose(0, 1)


def _marked(films: Tensor, draw: Draw) -> Tensor:
    """Films with a bright tube or wire across, and a bright patch at the rim: what lies on people and films."""
    size = films.shape[-1]
    axis = torch.linspace(-1, 1, size)
    across = draw(-math.pi, math.pi)
    distance = torch.cos(across)[:, None, None] * axis[None, None, :] + torch.sin(across)[:, None, None] * axis[:, None]
    wire = (distance - draw(-1.5, 1.5)[:, None, None]).abs() < draw(0.0, 0.025)[:, None, None]
    x, y, half = draw(-1, 1), draw(-1, 1), draw(0.0, 0.12)
    at_rim = torch.stack([x, y]).abs().amax(dim=0) > 0.75
    patch = ((axis[None, None, :] - x[:, None, None]).abs() < half[:, None, None]) & (
        (axis[None, :, None] - y[:, None, None]).abs() < half[:, None, None] / 2
    )
    marks = wire | (patch & at_rim[:, None, None])
    return torch.where(marks[:, None], films + draw(0.1, 0.6)[:, None, None, None], films)
