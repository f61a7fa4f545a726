"""Segments that people have drawn and sent to the research side → labels of the images they lie on, with boxes.

A segment says what it is by its type code or by its name (PS3.3 C.8.20.4). One that an algorithm has made alone is no
label: a model must not learn from its own output.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import pixel_array

from imaging_pipeline.dicom.pixels import guarded
from imaging_pipeline.errors import PoisonInput
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.folder import uri_to_path
from imaging_pipeline.pneumonia.labels.findings import TASKS, said_in_words
from imaging_pipeline.pneumonia.labels.model import Box, Label, Method, value_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLEST_PIECE = 4
"""Pixels: fewer are a slip of the brush, and get no box."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """What the segments of one object say.

    Attributes:
        instance_key: its instance.
        labels: their ``image`` is a SOP Instance UID.
        is_readable: else its pixels cannot be decoded, and it says nothing.
    """

    instance_key: str
    labels: tuple[Label, ...] = ()
    is_readable: bool = True


def read_drawings(lake: Lake) -> Iterator[Drawing]:
    """The segmentations that people have sent and that name findings, in the order of their keys.

    Args:
        lake: the research lake.
    """
    stated: dict[tuple[str, str], dict[int, tuple[str, float | None]]] = {}
    for key, uri, number, name, types in lake.rows(_SEGMENTS):
        if said := _said(str(name or ""), types or ()):  # type: ignore[arg-type]  # a list of structs
            stated.setdefault((str(key), str(uri)), {})[int(str(number))] = said
    for (key, uri), segments in stated.items():
        try:
            labels = guarded(lambda: tuple(_labels(dcmread(uri_to_path(uri)), segments)))  # noqa: B023 - called at once
        except PoisonInput:
            yield Drawing(key, is_readable=False)
        else:
            yield Drawing(key, labels)


def _said(name: str, types: Iterable[Mapping[str, Any]]) -> tuple[str, float | None] | None:
    for code in types:
        if task := TASKS.get((str(code["coding_scheme_designator"]), str(code["code_value"]))):
            return task, 1.0
    return said_in_words(name)


def _labels(ds: Dataset, segments: Mapping[int, tuple[str, float | None]]) -> Iterator[Label]:
    for index, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
        image = _image_of(frame, ds)
        pixels = pixel_array(ds, index=index)
        for number, (task, said) in segments.items():
            mask = _mask(ds, frame, pixels, number)
            if not image or not mask.any():
                continue
            for box in (None, *(_boxes(mask) if said != 0 else ())):
                yield Label(image, task, value_of(task, said), said, str(number), box, method=Method.READING)


def _image_of(frame: Dataset, ds: Dataset) -> str:
    """The image a frame lies on; nothing when it says none, or several."""
    derived = _functional(ds, frame, "DerivationImageSequence")
    named = {str(image.ReferencedSOPInstanceUID) for item in derived for image in item.get("SourceImageSequence", ())}
    if not named:
        series = ds.get("ReferencedSeriesSequence", ())
        named = {str(item.ReferencedSOPInstanceUID) for each in series for item in each.ReferencedInstanceSequence}
    return named.pop() if len(named) == 1 else ""


def _mask(ds: Dataset, frame: Dataset, pixels: NDArray[np.generic], number: int) -> NDArray[np.uint8]:
    """Where a segment is on a frame (rows, columns), 0 or 1."""
    if ds.SegmentationType == "LABELMAP":
        is_inside = np.equal(pixels, number)
    else:
        (identified,) = _functional(ds, frame, "SegmentIdentificationSequence")
        is_own = int(identified.ReferencedSegmentNumber) == number
        is_inside = np.greater(pixels, ds.get("MaximumFractionalValue", 1) / 2) & is_own
    mask: NDArray[np.uint8] = is_inside.astype(np.uint8)
    return mask


def _functional(ds: Dataset, frame: Dataset, keyword: str) -> Sequence[Dataset]:
    """A functional group of a frame, or the one that all share (PS3.3 C.7.6.16)."""
    shared = ds.get("SharedFunctionalGroupsSequence") or [Dataset()]
    found: Sequence[Dataset] = frame.get(keyword) or shared[0].get(keyword) or ()
    return found


def _boxes(mask: NDArray[np.uint8]) -> Iterator[Box]:
    """What encloses each piece of a mask."""
    _, _, pieces, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    for left, top, width, height, area in pieces[1:].tolist():
        if area >= SMALLEST_PIECE:
            yield float(left), float(top), float(width), float(height)


_SEGMENTS = """
SELECT instance_key, storage_uri, segment_number, segment_label, segmented_property_type_code_sequence
FROM gold.annotation
JOIN deid.dicom_segmentation_metadata ON instance_key = annotation_key
JOIN deid.dicom_file_location AS file USING (instance_key)
WHERE file.role = 'DERIVED' AND segment_algorithm_type IS DISTINCT FROM 'AUTOMATIC'
ORDER BY instance_key, segment_number
"""
