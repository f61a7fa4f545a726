"""The thorax of a chest phantom: soft tissue, lungs, heart and bones as an attenuation map.

Owns the projection of one body on a detector. Holds no disease, no detector effect and no DICOM.

Coordinates are dimensionless: x grows to the image's right (the patient's left), y grows downwards, both span -1 to 1
over the square field of view. Attenuation adds along a ray, so structures are summed; 1 is about the densest bone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from imaging_pipeline.samples.body import LEFT, RIGHT, Body, Plane, Pose, View
from imaging_pipeline.samples.vessels import draw_vessels

RIB_PAIRS = 10
"""Ribs 2 to 11; the first pair hides behind the clavicles."""

HEART_PARTS = ((0.13, 0.27, 0.33, 0.21, 0.50), (-0.10, 0.26, 0.13, 0.20, 0.0), (0.07, 0.02, 0.11, 0.20, 0.2))
"""Ventricles, right atrium, great vessels' root: centre x, centre y, half axes, tilt in radians."""


@dataclass(frozen=True, slots=True)
class Thorax:
    """A projected body: planes are float32 (n, n).

    Attributes:
        attenuation: sum of all structures, unbounded, about 0 (air) to 1 (bone over heart).
        lungs: air-filled share of the right and of the left lung field, 0 to 1.
        vessels: lung vessels, 0 to 1.
        x: body coordinate of each pixel.
        y: body coordinate of each pixel.
    """

    attenuation: Plane
    lungs: tuple[Plane, Plane]
    vessels: Plane
    x: Plane
    y: Plane


def project(body: Body, pose: Pose, view: View, n: int) -> Thorax:
    """Project a body on an n by n grid."""
    x, y = _grid(pose, n)
    floor = _diaphragm(body, pose, x)
    right, left = (_lung(body, side, x, y, floor) for side in (RIGHT, LEFT))
    air = np.maximum(right, left)
    vessels = _vessels(body, x, y)
    tissue = _soft_tissue(body, x, y)
    heart = _heart(body, view, x, y) * (1 - 0.85 * soft_step((y - floor - 0.02) * 45))
    attenuation = tissue - 0.40 * air + 0.14 * vessels * air
    attenuation += 0.10 * _below_diaphragm(body, pose, x, y, floor)
    attenuation += np.maximum(0.24 * heart, _mediastinum(body, x, y)) - _airways(x, y)
    bones = _spine(body, x, y) * (1 - 0.5 * heart) + _ribs(body, x, y, n) + _shoulder_girdle(body, view, x, y)
    attenuation += bones * np.minimum(1, 4 * tissue)
    attenuation += _breasts(body, x, y)
    # Behind the heart lung is present but not seen, so no finding is placed or labelled there.
    seen = 1 - heart
    return Thorax(attenuation, (right * seen, left * seen), vessels, x, y)


def soft_step(z: Plane) -> Plane:
    """Smooth step from 0 to 1 around z = 0 (a logistic curve)."""
    plane: Plane = 0.5 + 0.5 * np.tanh(0.5 * z)
    return plane


def _pow4(z: Plane) -> Plane:
    # numpy calls pow() for any exponent but 2, which costs ten times the two products.
    return np.square(np.square(z))


def _bone_profile(across: Plane) -> Plane:
    """Shadow of a flat bone at ``across`` half widths from its axis: a plateau between two bright cortices."""
    plane: Plane = 0.75 * np.exp(-_pow4(across)) + 0.45 * np.exp(-np.square((across - 0.85) / 0.22))
    return plane


def _grid(pose: Pose, n: int) -> tuple[Plane, Plane]:
    axis = np.linspace(-1, 1, n, dtype=np.float32)
    x, y = axis[None, :] - np.float32(pose.shift_x), axis[:, None] - np.float32(pose.shift_y)
    cos, sin = np.float32(math.cos(pose.angle) / pose.scale), np.float32(math.sin(pose.angle) / pose.scale)
    return cos * x + sin * y, cos * y - sin * x


def _rise(body: Body, y: Plane) -> Plane:
    """Height above the widest part of the rib cage: 0 there and below, 1 at the apex of the lungs."""
    plane: Plane = np.clip((0.34 - y) / (0.34 - body.apex_y), 0, 1)
    return plane


def _cage(body: Body, y: Plane) -> Plane:
    """Half width of the rib cage at height y."""
    rise = _rise(body, y)
    plane: Plane = body.cage_width * np.sqrt(1 - rise * rise * (0.3 + 0.7 * rise))
    return plane


def _diaphragm(body: Body, pose: Pose, x: Plane) -> Plane:
    """Height of the diaphragm below each pixel; the right dome stands higher (liver)."""
    lateral = np.abs(x)
    outward = np.clip((lateral - 0.30) / (body.cage_width - 0.30), 0, 1.2)
    inward = np.clip((0.30 - lateral) / 0.25, 0, 1)
    gap = body.dome_gap * soft_step(x * 60)
    return body.dome_y + pose.breath + gap + 0.24 * outward * outward + 0.05 * inward * inward


def _lung(body: Body, side: int, x: Plane, y: Plane, floor: Plane) -> Plane:
    lateral = side * x
    medial = 0.085 + 0.08 * _pow4(_rise(body, y))
    depth = np.minimum(_cage(body, y) - lateral, lateral - medial)
    depth = np.minimum(depth, 0.8 * (floor - y))
    depth = np.minimum(depth, 0.9 * (y - body.apex_y))
    filling = 1 - 0.42 * np.exp(-np.maximum(depth, 0) / 0.09)
    plane: Plane = soft_step(depth * 75) * filling
    return plane


def _soft_tissue(body: Body, x: Plane, y: Plane) -> Plane:
    heights = (-1.2, -0.98, -0.88, -0.76, -0.66, -0.52, -0.30, -0.12, 0.20, 0.70, 1.2)
    widths = (0.22, 0.23, 0.29, 0.62, 0.94, 1.12, 1.05, 0.94, 0.89, 0.91, 0.98)
    skin = np.interp(y[:, [y.shape[1] // 2]], heights, widths).astype(np.float32)
    skin = np.convolve(np.pad(skin[:, 0], 6, mode="edge"), np.full(13, 1 / 13), mode="valid")[:, None]
    chord = np.clip((skin * (0.9 + 0.14 * body.soft_tissue) - np.abs(x)) / 0.42, 0, 1)
    plane: Plane = (body.soft_tissue * chord**0.55).astype(np.float32)
    return plane


def _below_diaphragm(body: Body, pose: Pose, x: Plane, y: Plane, floor: Plane) -> Plane:
    below = soft_step((y - floor) * 60) * soft_step((0.80 - np.abs(x)) * 18)
    if body.gastric_bubble:
        top = body.dome_y + pose.breath + body.dome_gap
        below -= 1.5 * soft_step(5 * _ellipse(x, y, (0.34, top + 0.13, 0.15, 0.075, 0.0), 1.0))
    return below


def _ellipse(x: Plane, y: Plane, part: tuple[float, float, float, float, float], scale: float) -> Plane:
    """Positive inside an ellipse, 1 at its centre; grows about the midline at the heart's base."""
    cx, cy, half_x, half_y, tilt = part
    dx, dy = x - cx * scale, y - cy
    cos, sin = math.cos(tilt), math.sin(tilt)
    along, across = (cos * dx + sin * dy) / (half_x * scale), (cos * dy - sin * dx) / (half_y * scale)
    return 1 - along**2 - across**2


def _heart(body: Body, view: View, x: Plane, y: Plane) -> Plane:
    # The heart lies further from the detector in AP, so it is magnified.
    scale = body.heart_scale * (1.13 if view is View.AP else 1.0)
    gap = np.ones_like(x)
    for part in HEART_PARTS:
        inside = _ellipse(x, y, part, scale)
        gap *= 1 - soft_step(inside * 14) * (0.80 + 0.20 * np.clip(inside, 0, 1))
    return 1 - gap


def _mediastinum(body: Body, x: Plane, y: Plane) -> Plane:
    """Midline soft tissue with the aortic knob."""
    width = body.mediastinum_width + 0.05 * soft_step((-0.55 - y) * 12)
    band = soft_step((width - np.abs(x - 0.01)) * 45)
    knob = soft_step(5 * _ellipse(x, y, (0.115, -0.27, 0.075, 0.085, 0.0), 1.0))
    plane: Plane = 0.19 * np.maximum(band, 0.85 * knob)
    return plane


def _spine(body: Body, x: Plane, y: Plane) -> Plane:
    """Vertebral bodies, discs between them, spinous processes."""
    lateral = np.abs(x)
    vertebra = 0.72 + 0.28 * np.tanh(3 * np.cos(y * (2 * np.pi / 0.125)))
    column = soft_step((0.078 - lateral) * 70) + 0.4 * np.exp(-np.square(lateral / 0.016))
    plane: Plane = body.bone * column * vertebra
    return plane


def _airways(x: Plane, y: Plane) -> Plane:
    """Air in the trachea and the main bronchi; the right one is the steeper."""
    air = 0.11 * np.exp(-_pow4((x + 0.008) / 0.036)) * soft_step((-0.20 - y) * 40)
    for side, slope in ((RIGHT, 1.35), (LEFT, 0.95)):
        reach = side * x
        across = (y + 0.20 - slope * reach) / (math.hypot(1, slope) * 0.024)
        air += 0.05 * np.exp(-_pow4(across)) * soft_step(reach * 60) * soft_step((0.20 - reach) * 40)
    return air


def _ribs(body: Body, x: Plane, y: Plane, n: int) -> Plane:
    total = np.zeros_like(x)
    middle = y[:, n // 2]
    for pair in range(RIB_PAIRS):
        origin = body.apex_y - 0.02 + pair * body.rib_spacing
        tilt = body.rib_tilt + 0.016 * pair
        # Rotation moves a rib by at most 0.08 off its row range.
        rows = slice(*np.searchsorted(middle, (origin - 0.14, origin + tilt + 0.50)))
        total[rows] += _rib_pair(body, origin, tilt, x[rows], y[rows])
    fade = 1 - 0.55 * soft_step((y - body.dome_y - 0.08) * 14)
    return total * (fade * soft_step((np.abs(x) - 0.07) * 60))


def _rib_pair(body: Body, origin: float, tilt: float, x: Plane, y: Plane) -> Plane:
    """One rib ring: the posterior arc runs out and down from the spine, the anterior arc returns lower and fainter."""
    side = float(_cage(body, np.asarray(origin + tilt + 0.10, np.float32))) + 0.035
    out = np.minimum(np.abs(x) / side, 0.999)
    bow = np.sqrt(1 - out**2)
    total = np.zeros_like(x)
    for height, half_width, density in ((-0.11, 0.026, 1.0), (0.21, 0.024, 0.62)):
        centre = origin + tilt * out + 0.11 + height * bow
        slope = (tilt - height * out / bow) / side
        across = np.abs(y - centre) / np.sqrt(1 + slope**2) / half_width
        # The anterior end is cartilage and casts no shadow.
        end = soft_step((out - 0.52) * 25) if height > 0 else 1.0
        total += density * body.bone * _bone_profile(across) * end
    return total * soft_step((side + 0.02 - np.abs(x)) * 60)


def _shoulder_girdle(body: Body, view: View, x: Plane, y: Plane) -> Plane:
    """Clavicles, scapulae and humeral heads."""
    lateral = np.abs(x)
    lift = 0.05 if view is View.AP else 0.0
    clavicle = -0.60 - lift - 0.20 * (lateral - 0.08) + 0.035 * np.sin((lateral - 0.08) * 7.5)
    across = np.abs(y - clavicle) / 0.030
    total = (
        1.5 * body.bone * _bone_profile(across) * soft_step((lateral - 0.085) * 70) * soft_step((0.70 - lateral) * 40)
    )
    border = (0.62 if view is View.AP else 0.72) + 0.10 * np.square(np.clip((y + 0.2) / 0.4, -1, 1))
    blade = soft_step((lateral - border) * 70) * soft_step((y + 0.56) * 22) * soft_step((0.10 - y) * 14)
    total += 0.8 * body.bone * blade * soft_step((0.97 - lateral) * 20)
    head = _ellipse(lateral, y, (0.95, -0.52, 0.13, 0.13, 0.0), 1.0)
    total += 1.6 * body.bone * soft_step(head * 9)
    return total


def _breasts(body: Body, x: Plane, y: Plane) -> Plane:
    if body.breast == 0:
        return np.zeros_like(x)
    lateral = np.abs(x)
    inside = _ellipse(lateral, y, (0.46, 0.24, 0.32, 0.30, 0.0), 1.0)
    return body.breast * soft_step(inside * 7) * soft_step((y - 0.02) * 6)


def _vessels(body: Body, x: Plane, y: Plane) -> Plane:
    """Sample the body's vessels, drawn once in body coordinates, at the posed pixels."""
    canvas = draw_vessels(np.random.default_rng(body.vessel_seed))
    half = canvas.shape[0] / 2
    column = np.clip((x + 1) * half, 0, canvas.shape[1] - 1).astype(np.intp)
    row = np.clip((y + 1) * half, 0, canvas.shape[0] - 1).astype(np.intp)
    plane: Plane = canvas[row, column]
    return plane
