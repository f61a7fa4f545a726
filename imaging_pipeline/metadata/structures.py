"""Regions of interest of RT structure sets (PS3.3 C.8.8.5, C.8.8.6, C.8.8.8), and frames of segments (C.8.20)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from imaging_pipeline.errors import Issue, Reason, Severity, Stage
from imaging_pipeline.lake.registry import Table
from imaging_pipeline.metadata.frames import FRAME_GROUPS, SHARED_GROUPS
from imaging_pipeline.metadata.projection import Elements, Row
from imaging_pipeline.metadata.tolerance import bounded, items, numbered_items, projected, values, whole_number, word

_REGIONS, _NUMBER = "30060020", "30060022"
_CONTOURED, _CONTOURED_NUMBER, _CONTOURS, _KIND = "30060039", "30060084", "30060040", "30060042"
_OBSERVATIONS, _OBSERVED_NUMBER = "30060080", "30060084"
_CONTOUR_IMAGES = "30060016"
_FRAMES_OF_REFERENCE, _FRAME_OF_REFERENCE, _REGION_FRAME = "30060010", "00200052", "30060024"
_STUDIES, _SERIES_ITEMS, _SERIES = "30060012", "30060014", "0020000E"
_TARGET = "00081155"

_SEGMENT_IDENTIFICATION, _SEGMENT = "0062000A", "0062000B"
_SEGMENTS = range(65_536)


@dataclass(slots=True)
class _Contours:
    """What the contours of one region say."""

    count: int = 0
    kinds: set[str] = field(default_factory=set)
    image: str | None = None


def structures(elements: Elements, table: Table) -> tuple[list[Row], list[Issue]]:
    """Rows of ``dicom_rt_roi``: a region, with its contours and its first observation, joined by the ROI number.

    The series referred to is that of the image its first contour with an image lies on, else the only one of its frame
    of reference. A region without a number, and a second one with the same number, are issues and no rows.

    Args:
        elements: a header.
        table: ``dicom_rt_roi``.
    """
    contours = _contours(elements)
    observations: dict[int, Elements] = {}
    for observation in items(elements, _OBSERVATIONS):
        if (observed := whole_number(observation, _OBSERVED_NUMBER)) is not None:
            observations.setdefault(observed, observation)
    of_image, of_frame = _series(elements)
    rows: dict[int, Row] = {}
    issues: list[Issue] = []
    for index, region in numbered_items(elements, _REGIONS):
        path = f"{_REGIONS}[{index}]"
        number = whole_number(region, _NUMBER)
        if number is None or number in rows:
            issues.append(_unnumbered(path, is_missing=number is None))
            continue
        row, found = projected({**observations.get(number, {}), **region}, table, path)
        issues += found
        own = contours.get(number, _Contours())
        listed = of_frame.get(word(region, _REGION_FRAME) or "", set())
        row["roi_number"] = number
        row["contour_count"], row["geometric_types"] = own.count, sorted(own.kinds)
        row["referenced_series_instance_uid"] = of_image.get(own.image or "") or (
            next(iter(listed)) if len(listed) == 1 else None
        )
        rows[number] = row
    return list(rows.values()), bounded(issues)


def segment_frame_counts(elements: Elements) -> dict[int, int]:
    """Frames of each segment of a segmentation, by segment number; a segment without frames is not listed.

    A frame states its segments in its own functional groups, else in the shared ones (PS3.3 C.8.20.3.1). Label maps
    state none: there every frame holds all segments.
    """
    shared = next((found for group in items(elements, SHARED_GROUPS) if (found := _segments(group))), set())
    counts: Counter[int] = Counter()
    for group in items(elements, FRAME_GROUPS):
        counts.update(_segments(group) or shared)
    return dict(counts)


def _contours(elements: Elements) -> dict[int, _Contours]:
    found: dict[int, _Contours] = {}
    for contoured in items(elements, _CONTOURED):
        number = whole_number(contoured, _CONTOURED_NUMBER)
        if number is None:
            continue
        own = found.setdefault(number, _Contours())
        for contour in items(contoured, _CONTOURS):
            own.count += 1
            if kind := word(contour, _KIND):
                own.kinds.add(kind)
            own.image = own.image or next(_targets(contour), None)
    return found


def _series(elements: Elements) -> tuple[dict[str, str], dict[str, set[str]]]:
    """The series of each image that contours may lie on, and the series of each frame of reference."""
    of_image: dict[str, str] = {}
    of_frame: dict[str, set[str]] = {}
    for frame in items(elements, _FRAMES_OF_REFERENCE):
        for study in items(frame, _STUDIES):
            for series in items(study, _SERIES_ITEMS):
                if uid := word(series, _SERIES):
                    of_frame.setdefault(word(frame, _FRAME_OF_REFERENCE) or "", set()).add(uid)
                    of_image.update(dict.fromkeys(_targets(series), uid))
    return of_image, of_frame


def _targets(item: Elements) -> Iterator[str]:
    return (uid for image in items(item, _CONTOUR_IMAGES) if (uid := word(image, _TARGET)))


def _unnumbered(path: str, *, is_missing: bool) -> Issue:
    if is_missing:
        message = "a region of interest has no legal number (3006,0022)"
        return Issue(Reason.MISSING_TYPE1, Stage.MAP, Severity.WARNING, f"{path}.{_NUMBER}", message)
    message = "another region of interest has the same number; the first is taken"
    return Issue(Reason.DUPLICATE_ITEM, Stage.MAP, Severity.WARNING, f"{path}.{_NUMBER}", message)


def _segments(group: Elements) -> set[int]:
    """The segments that one functional group states."""
    stated = (number for item in items(group, _SEGMENT_IDENTIFICATION) for number in values(item, _SEGMENT))
    return {number for number in stated if isinstance(number, int) and number in _SEGMENTS}
