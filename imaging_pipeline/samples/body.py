"""The shape of one person's thorax and the way an exposure sees it.

Owns the numbers that describe a body and a pose, and their distributions. Draws no pixels.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Plane: TypeAlias = NDArray[np.floating[Any]]
"""A map over the field of view, rows first."""

RIGHT, LEFT = -1, 1
"""Sign of x on the patient's right and left side."""


class View(enum.StrEnum):
    """Projection of a frontal chest radiograph, the values of View Position (0018,5101)."""

    PA = "PA"
    AP = "AP"


@dataclass(frozen=True, slots=True)
class Body:
    """Shape of one person's thorax; lengths in half fields of view."""

    cage_width: float
    apex_y: float
    dome_y: float
    dome_gap: float
    heart_scale: float
    mediastinum_width: float
    rib_spacing: float
    rib_tilt: float
    bone: float
    soft_tissue: float
    breast: float
    gastric_bubble: bool
    vessel_seed: int


@dataclass(frozen=True, slots=True)
class Pose:
    """How one exposure sees the body: in-plane angle in radians, magnification, shift, depth of breath."""

    angle: float
    scale: float
    shift_x: float
    shift_y: float
    breath: float


def happens(rng: np.random.Generator, probability: float) -> bool:
    """Draw whether something of a given probability happens."""
    return bool(rng.random() < probability)


def draw_body(rng: np.random.Generator, *, female: bool) -> Body:
    """Draw one person's shape; the same body serves all studies of a patient."""
    return Body(
        cage_width=rng.uniform(0.64, 0.73),
        apex_y=rng.uniform(-0.80, -0.73),
        dome_y=rng.uniform(0.36, 0.47),
        dome_gap=rng.uniform(0.02, 0.08),
        heart_scale=rng.uniform(0.86, 1.12),
        mediastinum_width=rng.uniform(0.10, 0.13),
        rib_spacing=rng.uniform(0.122, 0.136),
        rib_tilt=rng.uniform(0.05, 0.11),
        bone=rng.uniform(0.045, 0.075),
        soft_tissue=rng.uniform(0.56, 0.64),
        breast=rng.uniform(0.05, 0.11) if female else 0.0,
        gastric_bubble=happens(rng, 0.5),
        vessel_seed=int(rng.integers(2**32)),
    )


def draw_pose(rng: np.random.Generator, view: View) -> Pose:
    """Draw the geometry of one exposure; bedside AP views are larger, more tilted and less inspired (breath < 0)."""
    bedside = view is View.AP
    return Pose(
        angle=math.radians(rng.normal(0, 2.2 if bedside else 1.2)),
        scale=rng.uniform(0.96, 1.08) * (1.03 if bedside else 1.0),
        shift_x=rng.normal(0, 0.025),
        shift_y=rng.normal(0, 0.025),
        breath=rng.uniform(-0.09, 0.0) if bedside else rng.uniform(-0.03, 0.05),
    )
