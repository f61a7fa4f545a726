"""Volumes: the slices of a series in their order in space, resampled to the grid of a recipe.

Owns the geometry of stacks (PS3.3 C.7.6.2) and trilinear resampling. Must not contain storage, the lake or processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from imaging_pipeline.dicom.pixels import Frame, decode_frames
from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.tensors.images import brightness, quantized, resized
from imaging_pipeline.tensors.recipe import Recipe, VolumeGrid

SAME_DIRECTION: Final = 0.001
"""Greatest difference of direction cosines of one stack, as in ``series_volume_geometry``."""

SAME_PLACE_MM: Final = 0.01
"""Slices nearer to each other lie at one place, as in ``series_volume_geometry``."""

LARGEST_WINDOW: Final = 16_384
"""Most pixels a side of a slice that the grid may cover: more means a wrong spacing."""

_POSITION, _ORIENTATION, _SPACING = "00200032", "00200037", "00280030"


@dataclass(frozen=True, slots=True)
class Slice:
    """One image, or one frame of an image, of a series and where it lies.

    Attributes:
        instance_key: its instance.
        frame_number: from 1.
        position: Image Position (Patient), centre of the first pixel (x, y, z) in mm, or None.
        orientation: Image Orientation (Patient), direction cosines of row and column, or None.
        spacing: Pixel Spacing, between rows and between columns in mm, or None.
        rows: pixels of a column.
        columns: pixels of a row.
    """

    instance_key: str
    frame_number: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    rows: int
    columns: int


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Slices that make one volume, in the order of instance and frame.

    Attributes:
        slices: all of them.
        offsets: of each slice's first pixel from that of the lowest one, in mm: along the normal, down the columns,
            along the rows; float64 (n, 3).
        step_mm: median distance of neighbours along the normal.
    """

    slices: tuple[Slice, ...]
    offsets: npt.NDArray[np.float64]
    step_mm: float


def stack_of(slices: Sequence[Slice], grid: VolumeGrid) -> Stack:
    """Find out how slices lie to each other.

    The slices of a tilted gantry, each shifted in its plane, are a stack too.

    Raises:
        PoisonInput: PIXEL_UNSUPPORTED: there are too few, one lacks its place, they differ in orientation, spacing or
            size, two lie at one place, or one is missing.
    """
    ordered = tuple(sorted(slices, key=lambda each: (each.instance_key, each.frame_number)))
    if len(ordered) < grid.minimum_slices:
        raise _refused(f"expected at least {grid.minimum_slices} slices, found {len(ordered)}", _POSITION)
    orientations = _same([each.orientation for each in ordered], 6, _ORIENTATION, SAME_DIRECTION)
    spacings = _same([each.spacing for each in ordered], 2, _SPACING, SAME_PLACE_MM)
    if (spacings <= 0).any():
        raise _refused("expected a pixel spacing above 0", _SPACING)
    if len({(each.rows, each.columns) for each in ordered}) > 1:
        raise _refused("expected slices of one size; choose one kind with 'where'", "00280010")
    row, column = orientations[0, :3], orientations[0, 3:]
    if abs(row @ column) > SAME_DIRECTION or np.abs(np.array([row @ row, column @ column]) - 1).max() > SAME_DIRECTION:
        raise _refused("expected unit vectors at a right angle as row and column direction", _ORIENTATION)
    positions = _numbers([each.position for each in ordered], 3, _POSITION)
    axes = np.stack([np.cross(row, column), column, row])
    # Products and sums one by one: a matrix product may round differently from machine to machine.
    offsets = (positions[:, np.newaxis] * axes).sum(axis=2)
    offsets -= offsets[offsets[:, 0].argmin()]
    return Stack(ordered, offsets, _step(np.sort(offsets[:, 0]), grid))


def _step(heights: npt.NDArray[np.float64], grid: VolumeGrid) -> float:
    """Median distance of slices that lie in order along the normal."""
    distances = np.diff(heights)
    if twins := int((distances < SAME_PLACE_MM).sum()):
        message = f"expected one slice at a place, found {twins} at a place taken; choose one stack with 'where'"
        raise _refused(message, _POSITION)
    step = float(np.median(distances))
    if gaps := int((distances > step * (1 + grid.gap_tolerance)).sum()):
        raise _refused(f"expected slices without gaps, found {gaps} gaps in {len(heights)} slices", _POSITION)
    return step


def _same(values: Sequence[tuple[float, ...] | None], count: int, path: str, most: float) -> npt.NDArray[np.float64]:
    found = _numbers(values, count, path)
    if np.abs(found - found[0]).max() > most:
        kind = "orientation" if path == _ORIENTATION else "pixel spacing"
        raise _refused(f"expected slices of one {kind}; choose one stack with 'where'", path)
    return found


def _numbers(values: Sequence[tuple[float, ...] | None], count: int, path: str) -> npt.NDArray[np.float64]:
    if any(value is None or len(value) != count or not np.isfinite(value).all() for value in values):
        raise _refused("expected position, orientation and pixel spacing on every slice", path)
    return np.array(values, dtype=np.float64)


def _refused(message: str, path: str) -> PoisonInput:
    return PoisonInput(Reason.PIXEL_UNSUPPORTED, message, dicom_path=path)


def volume_tensor(stack: Stack, recipe: Recipe, read: Callable[[str], bytes]) -> npt.NDArray[Any]:
    """Resample a stack to the recipe's grid, around the middle of the stack.

    Rows and columns of the volume run as those of the slices, its slices along the normal (row direction x column
    direction). Where nothing was measured it is 0. Trilinear; along an axis on which the grid is coarser than the
    slices, the triangle filter is as wide as the grid's step, so that nothing is skipped.

    Args:
        stack: where the slices lie.
        recipe: with a volume.
        read: gives the bytes of an instance; called once for each, in the order of their keys.

    Returns:
        C-contiguous array (1, slices, rows, columns) of the recipe's type.

    Raises:
        PoisonInput: a slice cannot be read, decoded, or has another size than its header says.
    """
    grid = recipe.volume
    assert grid is not None
    weights = _weights(stack, grid)
    sums = np.zeros(grid.size, dtype=np.float32)
    for position, frame in _frames(stack, read):
        shown = brightness(frame, recipe)[0]
        if shown.shape != (stack.slices[position].rows, stack.slices[position].columns):
            raise PoisonInput(Reason.PIXEL_UNDECODABLE, "expected pixels of the size the header says")
        reached = np.flatnonzero(weights[position])
        if reached.size:
            plane = _in_grid(shown, stack, position, grid)
            for layer in reached:
                sums[layer] += plane * weights[position, layer]
    return quantized(np.clip(sums, 0, 1), recipe.dtype)[np.newaxis]


def _frames(stack: Stack, read: Callable[[str], bytes]) -> Iterator[tuple[int, Frame]]:
    """Each slice by its position in the stack; an object is read and parsed once for all its frames."""
    for key, group in groupby(enumerate(stack.slices), key=lambda each: each[1].instance_key):
        positions, slices = zip(*group, strict=True)
        frames = decode_frames(read(key), [each.frame_number - 1 for each in slices])
        yield from zip(positions, frames, strict=True)


def _weights(stack: Stack, grid: VolumeGrid) -> npt.NDArray[np.float32]:
    """What each slice (axis 0) gives to each layer of the grid (axis 1); sums to 1 inside of the stack, else to 0."""
    heights = stack.offsets[:, 0]
    layers = _centres(grid.size[0], grid.spacing_mm[0]) + heights.max() / 2
    reach = max(stack.step_mm, grid.spacing_mm[0])
    shares = np.maximum(0, 1 - np.abs(layers[np.newaxis] - heights[:, np.newaxis]) / reach)
    sums = shares.sum(axis=0)
    is_inside = (layers >= -stack.step_mm / 2) & (layers <= heights.max() + stack.step_mm / 2) & (sums > 0)
    weights: npt.NDArray[np.float64] = np.where(is_inside, shares / np.where(sums > 0, sums, 1), 0)
    return weights.astype(np.float32)


def _centres(count: int, step: float) -> npt.NDArray[np.float64]:
    """Places along an axis of the grid, in mm from its middle."""
    centres: npt.NDArray[np.float64] = (np.arange(count, dtype=np.float64) - (count - 1) / 2) * step
    return centres


def _in_grid(shown: npt.NDArray[np.float32], stack: Stack, position: int, grid: VolumeGrid) -> npt.NDArray[np.float32]:
    """A slice at the grid's rows and columns, 0 outside of it."""
    each = stack.slices[position]
    assert each.spacing is not None
    top, bottom = _covered(stack, position, 1, grid, each.spacing[0], each.rows)
    left, right = _covered(stack, position, 2, grid, each.spacing[1], each.columns)
    first_row, first_column = int(np.floor(top)), int(np.floor(left))
    window = np.zeros((int(np.ceil(bottom)) - first_row, int(np.ceil(right)) - first_column), dtype=np.float32)
    rows = slice(max(0, first_row), min(each.rows, first_row + window.shape[0]))
    columns = slice(max(0, first_column), min(each.columns, first_column + window.shape[1]))
    if rows.start < rows.stop and columns.start < columns.stop:
        window[
            rows.start - first_row : rows.stop - first_row, columns.start - first_column : columns.stop - first_column
        ] = shown[rows, columns]
    box = (left - first_column, top - first_row, right - first_column, bottom - first_row)
    return resized(window, grid.size[1], grid.size[2], box)


def _covered(
    stack: Stack, position: int, axis: int, grid: VolumeGrid, spacing: float, count: int
) -> tuple[float, float]:
    """Edges of the grid along an axis, in pixels of a slice: its first pixel reaches from 0 to 1."""
    middle = (stack.offsets[:, axis].min() + stack.offsets[:, axis].max() + (count - 1) * spacing) / 2
    half = grid.size[axis] * grid.spacing_mm[axis] / 2
    start = (middle - half - stack.offsets[position, axis]) / spacing + 0.5
    if 2 * half / spacing > LARGEST_WINDOW:
        raise _refused("expected a pixel spacing of the size of the grid's", _SPACING)
    return float(start), float(start + 2 * half / spacing)
