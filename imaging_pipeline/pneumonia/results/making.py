"""From a prediction and the bytes of its image to the files of its results, in worker processes.

Writes files and nothing else; lakes are written by `batch`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from imaging_pipeline.deid.reading import quiet, read
from imaging_pipeline.dicom.pixels import open_image
from imaging_pipeline.errors import Issue, PoisonInput, Reason, Severity, Stage
from imaging_pipeline.metadata.made_objects import MadeObject, write_object
from imaging_pipeline.objects.folder import path_to_uri
from imaging_pipeline.objects.model import ObjectVersion, key_of
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.pneumonia.prediction import Flag
from imaging_pipeline.pneumonia.results.capture import capture_of
from imaging_pipeline.pneumonia.results.finding import Finding, Kind
from imaging_pipeline.pneumonia.results.overlay import heat_on_film, overlay
from imaging_pipeline.tensors.images import brightness, placement
from imaging_pipeline.tensors.recipe import Recipe

ISSUE_PREFIX = "result: "
"""What messages of this step begin with: only such issues are replaced by it."""


@dataclass(frozen=True, slots=True)
class Target:
    """A prediction, and the image it is about as one zone has it.

    Attributes:
        prediction_key: the prediction.
        instance_key: the image.
        object_key: what issues name it by.
        arrival_batch: the batch of the prediction.
        content_sha256: digest of the image's bytes.
        finding: what was predicted.
        tensor_uri: shard with the tensor that was predicted from.
        shard_row: its row there.
        version: the original; None: a released file.
        storage_uri: the released file.
    """

    prediction_key: str
    instance_key: str
    object_key: str
    arrival_batch: str
    content_sha256: str
    finding: Finding
    tensor_uri: str = field(repr=False)
    shard_row: int
    version: ObjectVersion | None = field(default=None, repr=False)
    storage_uri: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Result:
    """The files of one prediction and their rows of ``result_object``, or why there are none."""

    target: Target
    made: tuple[MadeObject, ...] = ()
    rows: tuple[dict[str, object], ...] = ()
    issue: Issue | None = None


@dataclass(frozen=True, slots=True)
class Maker:
    """What a worker needs to make results; picklable.

    Attributes:
        reader: reads the originals.
        folder: where the files go, those of each batch in one of its own.
        recipe: how the tensors were made that were predicted from.
        kinds: what is made; a prediction without an answer has no picture.
    """

    reader: ObjectReader
    folder: Path
    recipe: Recipe
    kinds: tuple[Kind, ...] = tuple(Kind)

    def folder_of(self, batch_id: str) -> Path:
        """Where the files of a batch are, and no others."""
        return self.folder / batch_id

    def kinds_of(self, finding: Finding) -> tuple[Kind, ...]:
        """What is made of a prediction."""
        return tuple(kind for kind in self.kinds if kind is Kind.REPORT or finding.flag is not Flag.NO_ANSWER)

    def made_from(self, target: Target) -> str:
        """Another one as soon as a result would have other bytes."""
        return key_of(target.finding.token, target.content_sha256, self.recipe.digest)

    def make(self, jobs: Sequence[tuple[Target, NDArray[np.uint8]]]) -> list[Result]:
        """Make the results of some predictions, each with its heat map (S, S); a refused one becomes an issue."""
        return [self._made(target, heat) for target, heat in jobs]

    def _made(self, target: Target, heat: NDArray[np.uint8]) -> Result:
        try:
            data = self.reader.read_stored(target.version, target.storage_uri, target.content_sha256)
            with quiet():
                source = read(data)
                datasets = [
                    (kind, self._dataset(kind, source, data, target, heat)) for kind in self.kinds_of(target.finding)
                ]
        except PoisonInput as refusal:
            issue = replace(refusal.issue(Stage.PIXEL), severity=Severity.WARNING)
            return Result(target, issue=replace(issue, message=ISSUE_PREFIX + issue.message))
        made = [
            (kind, ds, write_object(self.folder_of(target.arrival_batch), ds, [target.instance_key]))
            for kind, ds in datasets
        ]
        rows = tuple(self._row(target, kind, ds, each.path) for kind, ds, each in made)
        return Result(target, tuple(each for *_, each in made), rows)

    def _dataset(self, kind: Kind, source: Dataset, data: bytes, target: Target, heat: NDArray[np.uint8]) -> Dataset:
        if kind is Kind.REPORT:
            from imaging_pipeline.pneumonia.results.sr import report_of  # noqa: PLC0415 - loads every code there is

            return report_of(source, target.finding)
        frame = open_image(data).frame(target.finding.frame - 1)
        film = brightness(frame, self.recipe)
        place = placement(film, self.recipe, frame.pixel_aspect)
        warmth = heat_on_film(heat.astype(np.float32) / np.float32(255), place, self.recipe.size, film.shape[1:])
        return capture_of(source, overlay(film[0], warmth, target.finding, frame.pixel_aspect), target.finding)

    def _row(self, target: Target, kind: Kind, ds: Dataset, path: Path) -> dict[str, object]:
        data = path.read_bytes()
        return {
            "instance_key": key_of(str(ds.SOPInstanceUID)),
            "source_instance_key": target.instance_key,
            "kind": kind.value,
            "prediction_key": target.prediction_key,
            "model_name": target.finding.model_name,
            "model_version": target.finding.model_version,
            "sop_class_uid": str(ds.SOPClassUID),
            "sop_instance_uid": str(ds.SOPInstanceUID),
            "series_instance_uid": str(ds.SeriesInstanceUID),
            "study_instance_uid": str(ds.StudyInstanceUID),
            "storage_uri": path_to_uri(path),
            "sha256": hashlib.sha256(data).hexdigest(),
            "size_bytes": len(data),
            "made_from": self.made_from(target),
            "arrival_batch": target.arrival_batch,
        }


def crashed(job: tuple[Target, Any]) -> list[Result]:
    """The result for an image that killed its process."""
    message = f"{ISSUE_PREFIX}decoding the image killed the process"
    return [Result(job[0], issue=Issue(Reason.WORKER_CRASHED, Stage.PIXEL, Severity.WARNING, message=message))]
