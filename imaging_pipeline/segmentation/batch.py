"""The lungs of a batch's frontal chest films: segmentation objects in their studies, and what was found as rows.

Opens the research lake only. The network runs in the worker processes; a film that cannot be decoded costs itself.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pydicom

from imaging_pipeline.catalog.inspection import issue_row
from imaging_pipeline.dicom.pixels import open_image
from imaging_pipeline.errors import Issue, PoisonInput, Reason, Stage
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.made_objects import MadeObject, add_objects, write_object
from imaging_pipeline.objects.folder import path_to_uri, uri_to_path
from imaging_pipeline.segmentation.writing import CODE_VERSION as WRITING_VERSION
from imaging_pipeline.segmentation.writing import SegmentationStyle, pixel_spacing, segmentation_of, sides_are_swapped
from imaging_pipeline.sources import ElementMode
from imaging_pipeline.tensors.recipe import Recipe
from imaging_pipeline.tensors.targets import image_targets
from imaging_pipeline.tensors.thumbnails import picture_of
from imaging_pipeline.workers import map_chunks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imaging_pipeline.segmentation.models import LungModel

CODE_VERSION: Final = f"lungs-1.{WRITING_VERSION}"
"""Raise it when the same film and network would give another row or object."""

TABLE: Final = "lung_segmentation"
KIND: Final = "lungs"
"""Kind of these objects in ``made_object``."""

FILMS_PER_CHUNK: Final = 16
ISSUE_PREFIX: Final = "lungs: "
"""What messages of this step begin with: only such issues are replaced by it."""

_SHORTEST_EDGE: Final = 256
"""A film is decoded at a size of at least so many pixels a side where its compression allows: the network sees 128."""

_LATERAL: Final = ("LL", "RL", "LLD", "RLD", "LLO", "RLO", "LAT", "LATERAL")
"""View Position (0018,5101) of films that are not frontal."""


@dataclass(frozen=True, slots=True)
class Film:
    """A released frontal film.

    Attributes:
        instance_key: its research key.
        storage_uri: its file.
        content_sha256: digest of the file as released.
    """

    instance_key: str
    storage_uri: str
    content_sha256: str


@dataclass(slots=True)
class Segmented:
    """What came of some films: rows, objects, and issues of films without a row."""

    rows: list[dict[str, object]] = field(default_factory=list)
    made: list[MadeObject] = field(default_factory=list)
    issues: list[tuple[Film, Issue]] = field(default_factory=list)

    def add(self, other: Segmented) -> None:
        """Take in another result."""
        self.rows += other.rows
        self.made += other.made
        self.issues += other.issues


@dataclass(frozen=True, slots=True)
class LungWriter:
    """Finds lungs and writes them as objects, in a worker process; picklable.

    Attributes:
        folder: where the objects go; those of each batch into a folder of their own.
        model: path of the network, or None: that of the package.
        viewer_compat: see :class:`SegmentationStyle`.
    """

    folder: Path
    model: Path | None = None
    viewer_compat: bool = False

    def segment(self, films: Sequence[Film]) -> Segmented:
        """Rows and objects of some films; what cannot be decoded becomes an issue."""
        result = Segmented()
        for film in films:
            try:
                self._segment_one(film, result)
            except PoisonInput as refusal:
                issue = refusal.issue(Stage.PIXEL)
                result.issues.append((film, replace(issue, message=ISSUE_PREFIX + issue.message)))
        return result

    def crashed(self, film: Film) -> Segmented:
        """The result for a film whose decoding killed its process."""
        message = f"{ISSUE_PREFIX}decoding it killed the process"
        return Segmented(issues=[(film, Issue(Reason.WORKER_CRASHED, Stage.PIXEL, message=message))])

    def _segment_one(self, film: Film, result: Segmented) -> None:
        from imaging_pipeline.segmentation.lungs import Quality, find_lungs  # noqa: PLC0415 - these load torch

        data = _bytes_of(film)
        header = pydicom.dcmread(BytesIO(data), stop_before_pixels=True)
        model = _model(self.model)
        (found,) = find_lungs(model.segmenter, [_shown(data)], sizes=[(header.Rows, header.Columns)])
        masks, shares = found.masks, found.shares
        if sides_are_swapped(header):
            masks, shares = masks[::-1], (shares[1], shares[0])
        made = None
        if found.quality is not Quality.NONE:
            style = SegmentationStyle(model.version, self.viewer_compat)
            made = write_object(self.folder, segmentation_of(header, masks, style), [film.instance_key])
            result.made.append(made)
        areas = [_area(mask, header) for mask in masks]
        result.rows.append(
            {
                "instance_key": film.instance_key,
                "segmentation_key": made and made.path.name.partition("-")[0],
                "storage_uri": made and path_to_uri(made.path),
                "quality": found.quality,
                "certainty": found.certainty,
                "right_share": shares[0],
                "left_share": shares[1],
                "right_area": areas[0],
                "left_area": areas[1],
                "model_version": model.version,
                "source_content_sha256": film.content_sha256,
            }
        )


@dataclass(frozen=True, slots=True)
class LungCounts:
    """What became of the frontal films of a batch.

    Attributes:
        films: all of them.
        by_quality: films with a row, by quality.
        objects: segmentations that are in the lake now.
        failed: films without a row; each has an issue.
    """

    films: int
    by_quality: dict[str, int]
    objects: int
    failed: int


def segment_batch(
    lake: Lake,
    batch_id: str,
    recipe: Recipe,
    writer: LungWriter,
    *,
    workers: int,
    element_mode: ElementMode = ElementMode.ALL,
    progress: Callable[[int, int], None] | None = None,
) -> LungCounts:
    """Find the lungs on the frontal films that a batch has released; run again, it leaves the same files and rows.

    Args:
        lake: the research lake.
        batch_id: the batch.
        recipe: selects the chest films; lateral ones are left out.
        writer: finds and writes.
        workers: processes.
        element_mode: which elements of the new headers become rows of ``dicom_element``.
        progress: called with the films done since the last call, and all there are.

    Raises:
        TransientError: the lake is locked, or films were released anew meanwhile.
    """
    films = frontal_films(lake, batch_id, recipe)
    writer = replace(writer, folder=writer.folder / batch_id)
    total = Segmented()
    for part in map_chunks(writer.segment, films, workers=workers, chunk_size=FILMS_PER_CHUNK, on_crash=writer.crashed):
        total.add(part)
        if progress:
            progress(len(part.rows) + len(part.issues), len(films))
    added = add_objects(lake, "deid", batch_id, KIND, total.made, folder=writer.folder, element_mode=element_mode)
    rows = _as_added(total, set(added.instance_keys), batch_id)
    issues = [issue_row(batch_id, film.instance_key, issue) for film, issue in total.issues]
    with lake.transaction():
        where = "arrival_batch = ? OR instance_key IN (SELECT instance_key FROM staged_rows)"
        table = registry.table(TABLE)
        lake.replace_all("gold", TABLE, table.rows(rows), where=where, parameters=[batch_id])
        own = f"starts_with(message, '{ISSUE_PREFIX}')"
        lake.replace_batch("gold", "ingest_issue", registry.table("ingest_issue").rows(issues), batch_id, where=own)
    qualities = [str(row["quality"]) for row in rows]
    by_quality = {quality: qualities.count(quality) for quality in sorted(set(qualities))}
    return LungCounts(len(films), by_quality, len(added.instance_keys), len(total.issues))


def frontal_films(lake: Lake, batch_id: str, recipe: Recipe) -> list[Film]:
    """Films that a batch has released and the recipe selects, in the order of their keys; of one frame, not lateral."""
    targets = [each for each in image_targets(lake, batch_id, [recipe]) if each.source.number_of_frames == 1]
    rows = lake.rows(
        """SELECT instance_key, content_sha256 FROM deid.deid_verification
        LEFT JOIN deid.dicom_xray_acquisition USING (instance_key)
        WHERE instance_key IN (SELECT unnest($keys))
            AND coalesce(view_position NOT IN (SELECT unnest($lateral)), true)""",
        {"keys": [each.source.instance_key for each in targets], "lateral": list(_LATERAL)},
    )
    digests = {str(key): str(sha256) for key, sha256 in rows}
    return [
        Film(key, each.storage_uri, digests[key]) for each in targets if (key := each.source.instance_key) in digests
    ]


def _as_added(total: Segmented, added: set[str], batch_id: str) -> list[dict[str, object]]:
    """The rows; without the object of one that was refused."""
    gone = {"segmentation_key": None, "storage_uri": None}
    return [
        row | ({} if row["segmentation_key"] in added else gone) | {"arrival_batch": batch_id} for row in total.rows
    ]


@functools.lru_cache(maxsize=1)
def _model(path: Path | None) -> LungModel:
    """The network, loaded once in each process; its own processes are parallel, so it has one thread."""
    import torch  # noqa: PLC0415

    from imaging_pipeline.segmentation.models import load_lung_model  # noqa: PLC0415

    torch.set_num_threads(1)
    return load_lung_model(path)


def _bytes_of(film: Film) -> bytes:
    try:
        data = uri_to_path(film.storage_uri).read_bytes()
    except OSError:
        raise PoisonInput(Reason.UNREADABLE, "the de-identified file cannot be read") from None
    if hashlib.sha256(data).hexdigest() != film.content_sha256:
        raise PoisonInput(Reason.CHANGED_WHILE_READ, "its bytes differ from those the lake knows")
    return data


def _shown(data: bytes) -> NDArray[np.float32]:
    """A film (rows, columns) on 0-1 as a viewer shows it first, perhaps smaller than it is."""
    frame = open_image(data).reduced_frame(0, _SHORTEST_EDGE)
    return np.asarray(picture_of(frame).convert("L"), np.float32) / np.float32(255)


def _area(mask: NDArray[np.bool_], header: pydicom.Dataset) -> float | None:
    """Area of a mask in mm2, in the plane that the size of the film's pixels is stated for."""
    spacing = pixel_spacing(header)
    return None if spacing is None else float(mask.sum() * spacing[0] * spacing[1])
