"""What lies in or over the lungs of a chest phantom: the labelled opacities and the unlabelled distractors.

Owns where findings are, their shape and density. Does not know pixels of the detector, exposure or DICOM.
Distractors are drawn from one distribution for all images, so that none of them tells the label.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from PIL import Image

from imaging_pipeline.samples.body import LEFT, RIGHT, Plane, happens
from imaging_pipeline.samples.thorax import Thorax, soft_step

VISIBLE = 0.35
"""Share of an opacity's peak from which a reader would draw it into the box."""

WELL_INSIDE = 0.6
"""Air-filled share of the lung at the places a focus may be centred on."""


class Pattern(enum.StrEnum):
    """How an opacity fills the lung."""

    PATCHY = "patchy"
    LOBAR = "lobar"


@dataclass(frozen=True, slots=True)
class Opacity:
    """One focus of pneumonia.

    Attributes:
        side: RIGHT or LEFT.
        height: where between top (0) and bottom (1) of the lung.
        depth: where between the midline (0) and the chest wall (1).
        spread: size in half fields of view.
        density: attenuation added at its core.
        pattern: how it fills the lung.
        seed: of its texture, so that all views of a study show the same focus.
    """

    side: int
    height: float
    depth: float
    spread: float
    density: float
    pattern: Pattern
    seed: int


def draw_opacities(rng: np.random.Generator) -> tuple[Opacity, ...]:
    """Draw the foci of one pneumonia: one, or in a third of cases one in each lung."""
    first = LEFT if happens(rng, 0.45) else RIGHT
    sides = (first, -first) if happens(rng, 0.33) else (first,)
    return tuple(
        Opacity(
            side=side,
            height=rng.uniform(0.30, 0.88),
            depth=rng.uniform(0.25, 0.80),
            spread=rng.uniform(0.10, 0.19),
            density=rng.uniform(0.15, 0.30),
            pattern=Pattern.LOBAR if happens(rng, 0.35) else Pattern.PATCHY,
            seed=int(rng.integers(2**32)),
        )
        for side in sides
    )


def render_opacity(opacity: Opacity, thorax: Thorax) -> Plane:
    """Attenuation one focus adds: float32 (n, n), zero outside its lung."""
    rng = np.random.default_rng(opacity.seed)
    lung = thorax.lungs[0 if opacity.side == RIGHT else 1]
    cx, cy = _centre(opacity, lung, thorax)
    fill = np.zeros_like(lung)
    blobs, size = (9, 0.62) if opacity.pattern is Pattern.PATCHY else (6, 0.85)
    for _ in range(blobs):
        dx, dy = rng.normal(0, 0.62 * opacity.spread, 2).tolist()
        wide, high = (size * opacity.spread * rng.uniform(0.6, 1.25, 2)).tolist()
        fill += np.exp(-np.square((thorax.x - cx - dx) / wide) - np.square((thorax.y - cy - dy) / high))
    fill = 1 - np.exp(-fill)
    if opacity.pattern is Pattern.LOBAR:
        # A fissure cuts the consolidation with a straight, sharp upper border.
        fill *= soft_step((thorax.y - cy + 0.35 * opacity.spread - 0.12 * (thorax.x - cx)) * 50)
    n = lung.shape[0]
    texture = np.clip(0.9 + 0.18 * noise_field(rng, n, 18) + 0.12 * noise_field(rng, n, 48), 0.3, 1.4)
    bronchogram = 1 - 0.5 * thorax.vessels
    plane: Plane = opacity.density * fill * texture * bronchogram * np.minimum(1, 1.25 * lung)
    return plane


def box_of(added: Plane) -> tuple[int, int, int, int] | None:
    """Bounding box (x, y, width, height) in pixels of what is visible of one focus; None when nothing is."""
    seen = added > VISIBLE * added.max(initial=0.0)
    if not seen.any():
        return None
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    return (
        int(columns[0]),
        int(rows[0]),
        int(columns[-1] - columns[0] + 1),
        int(rows[-1] - rows[0] + 1),
    )


def render_distractors(rng: np.random.Generator, thorax: Thorax) -> Plane:
    """Attenuation of what may mislead: a nodule, a plate-like atelectasis, a veil, an electrode with its lead."""
    x, y = thorax.x, thorax.y
    lungs = thorax.lungs[0] + thorax.lungs[1]
    total = np.zeros_like(x)
    if happens(rng, 0.15):
        cx, cy, radius = _side(rng) * rng.uniform(0.25, 0.5), rng.uniform(-0.4, 0.3), rng.uniform(0.018, 0.034)
        total += 0.16 * np.exp(-np.square((np.square(x - cx) + np.square(y - cy)) / radius**2))
    if happens(rng, 0.20):
        line, slope = rng.uniform(0.05, 0.32), rng.uniform(-0.25, 0.25)
        half = lungs * soft_step(_side(rng) * 60 * x)
        total += 0.11 * half * np.exp(-np.square((y - line - slope * x) / 0.012))
    if happens(rng, 0.30):
        total += rng.uniform(0.02, 0.09) * thorax.lungs[int(rng.integers(2))]
    if happens(rng, 0.30):
        total += _electrode(rng, x, y)
    return total


def noise_field(rng: np.random.Generator, n: int, cells: int) -> Plane:
    """Smooth random field, float32 (n, n), standard deviation about 0.7, with ``cells`` bumps a side."""
    coarse = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    return np.asarray(coarse.resize((n, n), Image.Resampling.BICUBIC))


def _centre(opacity: Opacity, lung: Plane, thorax: Thorax) -> tuple[float, float]:
    """Body coordinates of a focus placed by its share of the visible lung's height, then of its width there."""
    rows = np.flatnonzero((lung > WELL_INSIDE).any(1))
    row = int(rows[round(opacity.height * (len(rows) - 1))])
    columns = np.flatnonzero(lung[row] > WELL_INSIDE)
    depth = opacity.depth if opacity.side == LEFT else 1 - opacity.depth
    column = int(columns[round(depth * (len(columns) - 1))])
    return float(thorax.x[row, column]), float(thorax.y[row, column])


def _side(rng: np.random.Generator) -> int:
    return LEFT if happens(rng, 0.5) else RIGHT


def _electrode(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    cx, cy, swing = rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.3), rng.uniform(-0.3, 0.3)
    disc = soft_step(6 - (6 / 0.026**2) * (np.square(x - cx) + np.square(y - cy)))
    wire = np.exp(-np.square((x - cx - swing * np.sin(2.2 * (y - cy))) / 0.006)) * soft_step((y - cy) * 60)
    plane: Plane = 0.22 * disc + 0.10 * wire
    return plane
