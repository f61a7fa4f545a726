"""Labels that people have made in a viewer on released images → rows of ``gold.label``.

All of it is on the research side: reports and segmentations that were sent to the service, under the name of the user
who sent them. Nothing identified is opened, and no key is needed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.made_objects import IS_SHOWN
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.pneumonia.label_import import INSTANCE, REGION
from imaging_pipeline.pneumonia.labels.model import TASK, Label, Method
from imaging_pipeline.pneumonia.labels.reports import read_annotations
from imaging_pipeline.pneumonia.labels.segments import read_drawings

CODE_VERSION = "1"
"""Raise it when the same annotations would give other rows."""

SOURCE = "VIEWER"
"""``source`` of all these labels."""


@dataclass(slots=True)
class AnnotationCounts:
    """What an import found.

    Attributes:
        annotations: objects that people have sent.
        telling: those that say something of a finding.
        unreadable: segmentations whose pixels cannot be decoded.
        refused: statements about an image that contradict another one of the same object.
        labels: rows about images, of all tasks.
        positive: those with the finding of the model's task.
        regions: rows about parts of images.
    """

    annotations: int = 0
    telling: int = 0
    unreadable: int = 0
    refused: int = 0
    labels: int = 0
    positive: int = 0
    regions: int = 0


@dataclass(frozen=True, slots=True)
class _Annotation:
    """An object that somebody has sent."""

    key: str
    kind: str
    user: str
    received_at: datetime


def annotation_state(research: Lake) -> str:
    """Stands for the annotations as they are now: another one when any came or went."""
    rows = research.rows(f"SELECT annotation_key FROM gold.annotation WHERE {IS_SHOWN} ORDER BY 1")
    return key_of(CODE_VERSION, *(str(key) for (key,) in rows))


def import_annotations(research: Lake) -> AnnotationCounts:
    """Bring the labels of people who annotate up to date; run again, it leaves the same rows.

    Of two annotations that say something of the same image and task, by the same user, the later one counts. What
    different users say stays side by side. An annotation that is gone takes its labels with it. What says yes and no of
    one image says nothing.

    Args:
        research: the research lake.

    Raises:
        TransientError: the lake is locked.
    """
    with research.one_snapshot():
        annotations = _annotations(research)
        counts = AnnotationCounts(annotations=len(annotations))
        said = _said(research, counts)
        images = {str(uid): str(key) for uid, key in research.rows(_IMAGES)}
    kept: dict[tuple[str, str, str], tuple[_Annotation, Sequence[Label]]] = {}
    for annotation in annotations.values():
        for (image, task), labels in said[annotation.key].items():
            if len({label.number for label in labels}) > 1:
                counts.refused += 1
            elif image in images:
                kept[images[image], task, annotation.user] = annotation, labels
    rows = [row for (subject, *_), told in kept.items() for row in _rows(subject, *told)]
    counts.labels = sum(row["subject_level"] == INSTANCE for row in rows)
    counts.regions = len(rows) - counts.labels
    counts.positive = sum(labels[0].task == TASK and labels[0].number == 1.0 for _, labels in kept.values())
    with research.transaction():
        table = registry.table("label").rows(rows)
        research.replace_all("gold", "label", table, where="source = ?", parameters=[SOURCE])
        released = f"SELECT instance_key FROM ({_IMAGES})"  # less than before, if one was withdrawn meanwhile
        research.connection.execute(
            f"DELETE FROM gold.label WHERE source = ? AND subject_key NOT IN ({released})", [SOURCE]
        )
    return counts


_Said = Mapping[tuple[str, str], Sequence[Label]]
"""What one annotation says, by image and task."""


def _annotations(research: Lake) -> dict[str, _Annotation]:
    """All that are shown by key, older ones first."""
    rows = research.rows(
        f"""SELECT annotation_key, kind, user_name, received_at FROM gold.annotation WHERE {IS_SHOWN}
        ORDER BY received_at, annotation_key"""
    )
    return {str(key): _Annotation(str(key), *told) for key, *told in rows}  # type: ignore[arg-type]


def _said(research: Lake, counts: AnnotationCounts) -> defaultdict[str, _Said]:
    """What each annotation says, by its key."""
    found: list[tuple[str, Sequence[Label]]] = [
        (report.instance_key, report.labels) for report in read_annotations(research)
    ]
    for drawing in read_drawings(research):
        counts.unreadable += not drawing.is_readable
        found.append((drawing.instance_key, drawing.labels))
    said: defaultdict[str, _Said] = defaultdict(dict)
    for key, labels in found:
        grouped: dict[tuple[str, str], list[Label]] = {}
        for label in labels:
            grouped.setdefault((label.image, label.task), []).append(label)
        said[key] = grouped
        counts.telling += bool(grouped)
    return said


def _rows(subject: str, annotation: _Annotation, labels: Sequence[Label]) -> Iterator[dict[str, object]]:
    """One row for what is said of an image, and one for each of the boxes."""
    first = labels[0]
    annotator = key_of("annotator", annotation.user)
    boxes = dict.fromkeys((label.box, label.place) for label in labels if label.box)
    regions = [(REGION, str(number), list(box), place) for number, (box, place) in enumerate(boxes)]
    for level, ordinal, bbox, place in [(INSTANCE, "0", None, first.place), *regions]:
        yield {
            "label_key": key_of(subject, first.task, SOURCE, annotator, level, ordinal),
            "subject_level": level,
            "subject_key": subject,
            "task": first.task,
            "label_value": first.value,
            "label_numeric": first.number,
            "bbox": bbox,
            "source": SOURCE,
            "layout": annotation.kind,
            "method": Method.READING,
            "annotator": annotator,
            "labelled_at": annotation.received_at,
            "source_token": annotation.key,
            "row_token": place,
        }


_IMAGES = """
SELECT sop_instance_uid, instance_key FROM deid.dicom_instance
WHERE version_state = 'CURRENT' AND instance_key NOT IN (SELECT instance_key FROM deid.made_object)
"""
