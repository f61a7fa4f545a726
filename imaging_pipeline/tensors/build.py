"""Building tensors: objects in, rows and failures out, one for each object and in its order.

Owns the step from bytes to a row. Must not contain storage, selection of objects or processes; everything here can be
sent to a worker process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from imaging_pipeline.dicom.pixels import decode_frame
from imaging_pipeline.errors import Issue, PoisonInput, Stage
from imaging_pipeline.tensors.recipe import Recipe
from imaging_pipeline.tensors.shards import TensorRow


@dataclass(frozen=True, slots=True)
class TensorSource:
    """The instance a tensor is made of, by its keys in the research lake."""

    instance_key: str
    sop_instance_uid: str
    patient_id: str


@dataclass(frozen=True, slots=True)
class TensorFailure:
    """An instance without a tensor, and why."""

    instance_key: str
    issue: Issue


def tensor_key(instance_key: str, recipe_digest: str) -> str:
    """Key of the tensor of one instance by one recipe: 128 bits of SHA-256, 32 hex digits."""
    return hashlib.sha256(f"{instance_key}|{recipe_digest}".encode()).hexdigest()[:32]


def build_tensors(objects: Iterable[tuple[TensorSource, bytes]], recipe: Recipe) -> Iterator[TensorRow | TensorFailure]:
    """Rows or failures of ``objects``, lazily and in their order; nothing is dropped."""
    for source, data in objects:
        yield build_tensor(source, data, recipe)


def build_tensor(source: TensorSource, data: bytes, recipe: Recipe) -> TensorRow | TensorFailure:
    """Make the tensor of an object's first frame.

    Args:
        source: whose tensor it is.
        data: the whole DICOM object.
        recipe: what to make; whether it selects the object is for the caller to ask.
    """
    try:
        array = recipe.apply(decode_frame(data))
    except PoisonInput as refusal:
        return TensorFailure(source.instance_key, refusal.issue(Stage.PIXEL))
    return TensorRow(
        tensor_key=tensor_key(source.instance_key, recipe.digest),
        instance_key=source.instance_key,
        sop_instance_uid=source.sop_instance_uid,
        patient_id=source.patient_id,
        array=array,
        minimum=float(array.min()),
        maximum=float(array.max()),
        mean=float(array.mean(dtype=np.float64)),
        standard_deviation=float(array.std(dtype=np.float64)),
        tensor_sha256=hashlib.sha256(array.tobytes()).hexdigest(),
        source_content_sha256=hashlib.sha256(data).hexdigest(),
    )
