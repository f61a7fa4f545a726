"""Building tensors of images: the bytes of an object in, rows or a failure for each recipe out.

Owns the step from bytes to rows. Must not contain storage, selection of objects or processes; everything here can be
sent to a worker process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from imaging_pipeline.dicom.pixels import decode_frames
from imaging_pipeline.errors import Issue, PoisonInput, Stage
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.tensors.images import image_tensor
from imaging_pipeline.tensors.recipe import FrameChoice, Recipe
from imaging_pipeline.tensors.shards import TensorRow


@dataclass(frozen=True, slots=True)
class TensorSource:
    """The instance tensors are made of, by its keys in the research lake.

    Attributes:
        instance_key: the instance.
        sop_instance_uid: its research SOP Instance UID.
        patient_id: its patient's pseudonym.
        series_key: its series.
        number_of_frames: its frames as its header says.
    """

    instance_key: str
    sop_instance_uid: str
    patient_id: str
    series_key: str | None = None
    number_of_frames: int = 1


@dataclass(frozen=True, slots=True)
class TensorFailure:
    """An instance, or a series, without a tensor of a recipe, and why."""

    subject_key: str
    issue: Issue


Made: TypeAlias = "list[TensorRow] | TensorFailure"
"""What an object or a series became by one recipe: all its tensors, or none and why."""


def tensor_key(subject_key: str, recipe_digest: str, frame_number: int | None = None) -> str:
    """Key of the tensor of a frame of an instance, or of a series, by one recipe."""
    return key_of(subject_key, recipe_digest, str(frame_number or ""))


def build_tensor(source: TensorSource, data: bytes, recipe: Recipe) -> TensorRow | TensorFailure:
    """Make the tensor of one frame by one recipe: the first that `build_tensors` makes."""
    (made,) = build_tensors(source, data, [recipe])
    return made if isinstance(made, TensorFailure) else made[0]


def build_tensors(source: TensorSource, data: bytes, recipes: Sequence[Recipe]) -> list[Made]:
    """Make the tensors of an object by several recipes; each frame is decoded once.

    Args:
        source: whose tensors they are.
        data: the whole DICOM object.
        recipes: for images, what to make; whether they select the object is for the caller to ask.

    Returns:
        For each recipe the tensors of the frames it wants, or why it has none.
    """
    wanted = [chosen_frames(recipe.frames, source.number_of_frames) for recipe in recipes]
    indices = sorted(set().union(*wanted))
    sha256 = hashlib.sha256(data).hexdigest()
    made: list[Made] = [[] for _ in recipes]
    try:
        for index, frame in zip(indices, decode_frames(data, indices), strict=True):
            for position, recipe in enumerate(recipes):
                rows = made[position]
                if index not in wanted[position] or isinstance(rows, TensorFailure):
                    continue
                try:
                    rows.append(_row(source, index + 1, image_tensor(frame, recipe), recipe, sha256))
                except PoisonInput as refusal:
                    made[position] = TensorFailure(source.instance_key, refusal.issue(Stage.PIXEL))
    except PoisonInput as refusal:
        failure = TensorFailure(source.instance_key, refusal.issue(Stage.PIXEL))
        return [
            rows if isinstance(rows, TensorFailure) or len(rows) == len(frames) else failure
            for rows, frames in zip(made, wanted, strict=True)
        ]
    return made


def chosen_frames(choice: FrameChoice, number_of_frames: int) -> range:
    """Indices, from 0, of the frames that become tensors; of an even number the later one is in the middle."""
    count = max(1, number_of_frames)
    match choice:
        case FrameChoice.ALL:
            return range(count)
        case FrameChoice.MIDDLE:
            return range(count // 2, count // 2 + 1)
        case FrameChoice.FIRST:
            return range(1)


def measured(array: npt.NDArray[Any]) -> dict[str, Any]:
    """The fields of a `TensorRow` that follow from its array."""
    return {
        "array": array,
        "minimum": float(array.min()),
        "maximum": float(array.max()),
        "mean": float(array.mean(dtype=np.float64)),
        "standard_deviation": float(array.std(dtype=np.float64)),
        "tensor_sha256": hashlib.sha256(array.tobytes()).hexdigest(),
    }


def _row(source: TensorSource, frame: int, array: npt.NDArray[Any], recipe: Recipe, sha256: str) -> TensorRow:
    return TensorRow(
        tensor_key=tensor_key(source.instance_key, recipe.digest, frame),
        series_key=source.series_key,
        instance_key=source.instance_key,
        sop_instance_uid=source.sop_instance_uid,
        frame_number=frame,
        patient_id=source.patient_id,
        source_content_sha256=sha256,
        **measured(array),
    )
