"""What the X-ray system does to a projected chest: exposure, scatter, processing, noise, shutter and side marker.

Owns the step from attenuation to the detector's processed image. Knows no anatomy, no label and no DICOM.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imaging_pipeline.samples.body import Plane, happens
from imaging_pipeline.samples.lesions import noise_field


@dataclass(frozen=True, slots=True)
class Exposure:
    """Settings of one exposure; drawn alike for every image, whatever it shows."""

    gain: float
    offset: float
    gamma: float
    tilt_x: float
    tilt_y: float
    sharpness: float
    noise: float
    shutter: tuple[float, float, float, float]
    marker: str


def draw_exposure(rng: np.random.Generator) -> Exposure:
    """Draw the settings of one exposure."""
    shutter = rng.uniform(0.0, 0.045, 4) if happens(rng, 0.4) else np.zeros(4)
    return Exposure(
        gain=rng.uniform(0.92, 1.12),
        offset=rng.normal(0, 0.035),
        gamma=rng.uniform(0.82, 1.22),
        tilt_x=rng.normal(0, 0.025),
        tilt_y=rng.normal(0, 0.025),
        sharpness=rng.uniform(0.2, 0.9),
        noise=rng.uniform(0.006, 0.016),
        shutter=(float(shutter[0]), float(shutter[1]), float(shutter[2]), float(shutter[3])),
        marker=str(rng.choice(("L", "R"))),
    )


def expose(attenuation: Plane, exposure: Exposure, rng: np.random.Generator, size: int) -> Plane:
    """Turn attenuation (n, n) into the processed image: float32 (size, size) in [0, 1], bright is dense."""
    n = attenuation.shape[0]
    axis = np.linspace(-1, 1, n, dtype=np.float32)
    signal = attenuation + exposure.tilt_x * axis[None, :] + exposure.tilt_y * axis[:, None]
    signal = signal + 0.010 * noise_field(rng, n, 6) + 0.006 * noise_field(rng, n, n // 5)
    signal += exposure.sharpness * (signal - _blurred(signal, 24))
    image = resized(np.clip(exposure.gain * signal + exposure.offset + 0.06, 0, 1.15) / 1.15, size) ** exposure.gamma
    image += exposure.noise * rng.standard_normal(image.shape, dtype=np.float32)
    _mark(image, exposure.marker)
    _shut(image, exposure.shutter)
    plane: Plane = np.clip(image, 0, 1)
    return plane


def resized(plane: Plane, size: int) -> Plane:
    """Resample a square plane to (size, size), float32, without overshoot; itself when it fits."""
    if plane.shape[0] == size:
        return plane.astype(np.float32)
    return np.array(Image.fromarray(plane.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR))


def _blurred(plane: Plane, coarse: int) -> Plane:
    """Low-frequency part: box-averaged to ``coarse`` pixels a side and interpolated back."""
    n = plane.shape[0]
    small = Image.fromarray(plane).resize((coarse, coarse), Image.Resampling.BOX)
    return np.asarray(small.resize((n, n), Image.Resampling.BICUBIC))


def _mark(image: Plane, letter: str) -> None:
    """Stamp the lead side marker beside the patient's shoulder, in place."""
    size = image.shape[0]
    height = max(8, round(0.055 * size))
    stamp = Image.new("L", (height, height))
    font = ImageFont.load_default(size=height)
    ImageDraw.Draw(stamp).text((height // 2, height // 2), letter, fill=255, font=font, anchor="mm")
    top, left = round(0.07 * size), round((0.88 if letter == "L" else 0.07) * size)
    part = image[top : top + height, left : left + height]
    np.maximum(part, np.asarray(stamp, np.float32) / 262, out=part)


def _shut(image: Plane, shutter: tuple[float, float, float, float]) -> None:
    """Blacken the collimated border (top, bottom, left, right shares), in place."""
    size = image.shape[0]
    top, bottom, left, right = (round(share * size) for share in shutter)
    image[:top] = 0
    image[size - bottom :] = 0
    image[:, :left] = 0
    image[:, size - right :] = 0
