"""A synthetic frontal chest radiograph with its ground truth, in pixels.

Owns the composition of body, findings and exposure into one image, its boxes and its lung mask. Holds no DICOM.

The label changes nothing but the opacities: body, pose, exposure, noise and distractors come from random streams of
their own. The same generator state with and without pneumonia gives the same radiograph with and without the opacity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imaging_pipeline.samples.body import Body, View, draw_body, draw_pose, happens
from imaging_pipeline.samples.exposure import draw_exposure, expose, resized
from imaging_pipeline.samples.lesions import Opacity, box_of, draw_opacities, render_distractors, render_opacity
from imaging_pipeline.samples.thorax import project

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SMALLEST_SIZE, LARGEST_GRID = 96, 320
"""Pixels a side: below the first the structures vanish; above the second the image is interpolated."""

LUNG_EDGE = 0.5
"""Air-filled share from which a pixel counts as lung."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels: upper left corner, width and height; covers columns x to x + width - 1."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Phantom:
    """One radiograph and what is true of it.

    Attributes:
        image: float32 (rows, columns) in [0, 1]; bright is dense.
        boxes: one per visible opacity; empty without pneumonia.
        lungs: bool (2, rows, columns), True where air-filled lung is seen: the right one, on the image's left, and the
            left one.
    """

    image: NDArray[np.float32]
    boxes: tuple[Box, ...]
    lungs: NDArray[np.bool_]

    @property
    def lung_mask(self) -> NDArray[np.bool_]:
        """Both lungs (rows, columns)."""
        mask: NDArray[np.bool_] = np.logical_or(*self.lungs)
        return mask

    def portrait(self) -> Phantom:
        """Cut to the middle 35/43 of the columns: a cassette of 35 cm by 43 cm, which cuts the upper arms."""
        side = self.image.shape[1]
        columns = round(side * 35 / 43)
        left = (side - columns) // 2
        kept = slice(left, left + columns)
        boxes = (_cut(box, left, columns) for box in self.boxes)
        return Phantom(
            np.ascontiguousarray(self.image[:, kept]),
            tuple(box for box in boxes if box.width > 0),
            np.ascontiguousarray(self.lungs[:, :, kept]),
        )


def chest_phantom(
    rng: np.random.Generator,
    size: int,
    *,
    pneumonia: bool,
    body: Body | None = None,
    view: View = View.PA,
) -> Phantom:
    """Draw one radiograph of size by size pixels.

    Args:
        rng: source of all randomness; the same state gives the same image.
        size: rows and columns.
        pneumonia: whether to add opacities.
        body: the person; a new one is drawn when missing.
        view: projection; AP has the larger heart, the shallower breath and the scapulae over the lungs.

    Raises:
        ValueError: size is below 96 pixels.
    """
    shape, disease, acquisition = rng.spawn(3)
    body = body or draw_body(shape, female=happens(shape, 0.5))
    opacities = draw_opacities(disease) if pneumonia else ()
    return radiograph(acquisition, size, body, opacities, view)


def radiograph(rng: np.random.Generator, size: int, body: Body, opacities: Sequence[Opacity], view: View) -> Phantom:
    """Expose a given body with given opacities; ``rng`` draws pose, distractors and exposure.

    Raises:
        ValueError: size is below 96 pixels.
    """
    if size < SMALLEST_SIZE:
        message = f"a chest phantom needs at least {SMALLEST_SIZE} pixels a side, {size} were asked for"
        raise ValueError(message)
    posing, distracting, exposing = rng.spawn(3)
    thorax = project(body, draw_pose(posing, view), view, min(size, LARGEST_GRID))
    attenuation = thorax.attenuation + render_distractors(distracting, thorax)
    boxes = []
    for opacity in opacities:
        added = render_opacity(opacity, thorax)
        attenuation += added
        found = box_of(resized(added, size))
        if found is not None:
            boxes.append(Box(*found))
    image = expose(attenuation, draw_exposure(exposing), exposing, size)
    lungs = np.stack([resized(lung, size) > LUNG_EDGE for lung in thorax.lungs])
    return Phantom(image, tuple(boxes), lungs)


def _cut(box: Box, left: int, columns: int) -> Box:
    start, stop = max(box.x - left, 0), min(box.x + box.width - left, columns)
    return Box(start, box.y, stop - start, box.height)
