"""A file → what a model is shown of it: DICOM of any form, PNG or JPEG, by the recipe of the model.

Owns the way of one object that is in no lake to its pixels, which is the pipeline's own: a picture becomes a DICOM
object as ``import-images`` makes it, and a frame becomes a tensor as the tensor step makes it. So a film has the same
score here and there. Contains no listing of files and no model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from imaging_pipeline.conversion.header import Origin, to_dicom
from imaging_pipeline.conversion.picture import JPEG, PNG, read_picture
from imaging_pipeline.conversion.picture_table import Facts
from imaging_pipeline.dicom.header import read_header
from imaging_pipeline.dicom.pixels import ImageObject, guarded, open_image
from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.objects.reading import MAX_OBJECT_BYTES
from imaging_pipeline.tensors.build import chosen_frames
from imaging_pipeline.tensors.images import image_tensor
from imaging_pipeline.tensors.recipe import Recipe

NOT_SELECTED = "not_selected"
"""Why there is no answer: the header says that the image is none of those the recipe of the model takes."""


@dataclass(frozen=True, slots=True)
class Film:
    """One frame as the model takes it: (channels, height, width), of the recipe's type; frames count from 1."""

    frame: int
    image: npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class NoFilm:
    """Why nothing can be said of an object or a frame.

    Attributes:
        reason: a code of `Reason`, or `NOT_SELECTED`.
        message: in words, without any value of the object.
        frame: counts from 1; None: the whole object.
    """

    reason: str
    message: str
    frame: int | None = None


def films_of(data: bytes, recipe: Recipe) -> list[Film | NoFilm]:
    """The frames of an object that the recipe takes, or why there is none; never empty.

    Args:
        data: the whole file.
        recipe: of the model. Its SQL condition is about tables, and is not asked; nor is a picture, which has no
            header, asked for its modality.
    """
    try:
        return list(_films(data, recipe))
    except PoisonInput as refusal:
        return [_no_film(refusal)]


def films_of_file(path: Path, recipe: Recipe) -> list[Film | NoFilm]:
    """As `films_of`, of a file."""
    try:
        if path.stat().st_size > MAX_OBJECT_BYTES:
            return [NoFilm(Reason.TOO_LARGE, f"larger than {MAX_OBJECT_BYTES:,} bytes")]
        data = path.read_bytes()
    except OSError:
        return [NoFilm(Reason.UNREADABLE, "the file cannot be read")]
    return films_of(data, recipe)


def _films(data: bytes, recipe: Recipe) -> Iterator[Film | NoFilm]:
    is_picture = data.startswith((PNG, JPEG))
    image = _opened_picture(data) if is_picture else _opened(data)
    if not is_picture and not guarded(lambda: _is_taken(image, recipe)):
        message = f"its modality, body part or view is none of recipe {recipe.name}"
        yield NoFilm(NOT_SELECTED, message)
        return
    for index in chosen_frames(recipe.frames, image.number_of_frames):
        try:
            yield Film(index + 1, image_tensor(image.frame(index), recipe))
        except PoisonInput as refusal:
            yield _no_film(refusal, index + 1)


def _opened_picture(data: bytes) -> ImageObject:
    origin = Origin(Facts(image=""), hashlib.sha256(data).hexdigest())
    return open_image(to_dicom(read_picture(data), origin))


def _opened(data: bytes) -> ImageObject:
    try:
        return open_image(data)
    except PoisonInput:
        read_header(data)  # says better what is wrong with what is no DICOM object at all
        raise


def _is_taken(image: ImageObject, recipe: Recipe) -> bool:
    codes = (str(image.ds.get(keyword) or "") for keyword in ("Modality", "BodyPartExamined", "ViewPosition"))
    return recipe.select.takes(*codes)


def _no_film(refusal: PoisonInput, frame: int | None = None) -> NoFilm:
    return NoFilm(str(refusal.reason), refusal.message, frame)
