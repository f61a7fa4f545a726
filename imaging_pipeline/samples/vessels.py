"""The branching vessels of both lungs.

Owns how vessels grow from the hila. Knows neither pose nor what lies over the lungs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from imaging_pipeline.samples.body import LEFT, RIGHT, happens

if TYPE_CHECKING:
    from numpy.typing import NDArray

CANVAS = 512
"""Pixels a side vessels are drawn on before they are averaged to half of it, which softens their edges."""

STEP, THINNEST = 0.036, 1.0
"""Length of one straight piece in half fields of view; the width in canvas pixels at which a vessel ends."""

FORK_SHARE = 0.30
"""Share of pieces that end in a fork."""


@dataclass(frozen=True, slots=True)
class Tip:
    """The growing end of a vessel: where, in which direction (0 is outwards, positive is down), how wide."""

    x: float
    y: float
    side: int
    angle: float
    width: float


def draw_vessels(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw the vessels of one body over the whole field of view: float32 (256, 256), 0 to 1."""
    canvas = Image.new("L", (CANVAS, CANVAS))
    pen = ImageDraw.Draw(canvas)
    tips = [
        Tip(side * 0.14, -0.08 if side == LEFT else -0.04, side, angle + rng.normal(0, 0.1), rng.uniform(5.0, 8.0))
        for side in (RIGHT, LEFT)
        for angle in np.linspace(-1.3, 1.4, 8).tolist()
    ]
    while tips:
        tips.extend(_grow(tips.pop(), pen, rng))
    softened = canvas.resize((CANVAS // 2, CANVAS // 2), Image.Resampling.BOX)
    return np.asarray(softened, np.float32) / np.float32(255)


def _grow(tip: Tip, pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> list[Tip]:
    """Draw one piece of a vessel; return the tips it continues with: none at its end, two at a fork."""
    if tip.width <= THINNEST:
        return []
    angle = tip.angle + rng.normal(0, 0.20)
    x, y = tip.x + tip.side * STEP * math.cos(angle), tip.y + STEP * math.sin(angle)
    ends = [_on_canvas(tip.x, tip.y), _on_canvas(x, y)]
    pen.line(ends, fill=int(20 + 26 * min(tip.width, 8)), width=round(tip.width))
    width = tip.width * 0.91
    if not happens(rng, FORK_SHARE):
        return [Tip(x, y, tip.side, angle, width)]
    fork = 0.65 if happens(rng, 0.5) else -0.65
    return [Tip(x, y, tip.side, angle, 0.88 * width), Tip(x, y, tip.side, angle + fork, 0.66 * width)]


def _on_canvas(x: float, y: float) -> tuple[float, float]:
    return (x + 1) * CANVAS / 2, (y + 1) * CANVAS / 2
