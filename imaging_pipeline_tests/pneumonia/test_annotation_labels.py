"""Labels that people make in a viewer: what reports and segmentations that were sent say of released images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from imaging_pipeline.objects.model import key_of
from imaging_pipeline.pneumonia.annotation_labels import AnnotationCounts, annotation_state, import_annotations
from imaging_pipeline.pneumonia.labels.findings import said_in_words
from imaging_pipeline_tests.deid.corpus import encode
from imaging_pipeline_tests.deid.test_release import FIRST
from imaging_pipeline_tests.pneumonia.test_labels import FINDING, GROUP, PNEUMONIA, PRESENT, code, image, item, stated
from imaging_pipeline_tests.web.stow.service import body_of
from imaging_pipeline_tests.web.stow.test_annotations import Research, report_on, research, zone

__all__ = ["research", "zone"]

SQUARE = [10.0, 5.0, 40.0, 5.0, 40.0, 25.0, 10.0, 25.0, 10.0, 5.0]
ABSENT = code("272519000")


def send(research: Research, *annotations: Dataset) -> AnnotationCounts:
    """Store annotations as their user does, and take the labels."""
    for ds in annotations:
        status, answer = research.service.post(body_of(encode(ds)))
        assert status == 202, answer
    return import_annotations(research.lake)


def report(research: Research, *content: Dataset, number: int = 1) -> Dataset:
    """A report with some content about the film."""
    uid = str(research.film().SOPInstanceUID)
    return report_on(research.film(), ContentSequence=[*content, image(uid)], SOPInstanceUID=f"2.25.{number}")


def measured(
    research: Research, *content: Dataset, graphic: str = "POLYLINE", points: Sequence[float] = SQUARE
) -> Dataset:
    """A measurement as OHIF 3.13 writes it: the outline stands below each number that it gave."""
    drawn_on = image(str(research.film().SOPInstanceUID))
    outline = item("SCOORD", None, drawn_on, GraphicType=graphic, GraphicData=list(points))
    return item("CONTAINER", GROUP, *content, *(item("NUM", code(number), outline) for number in ("1", "2")))


def comment(words: str) -> Dataset:
    """The label of a measurement, as OHIF 3.13 writes it."""
    return item("TEXT", code("121106", "DCM"), TextValue=words)


def free_text(words: str) -> Dataset:
    """The same as older versions write it."""
    value = code("CORNERSTONEFREETEXT", "CORNERSTONEJS")
    value.CodeMeaning = words
    return stated(FINDING, value)


def segmented(research: Research, *masks: tuple[str, Code, str, slice]) -> Dataset:
    """A segmentation of the film: names and types of its segments, how they were made, and the rows they cover."""
    film = research.film()
    pixels = np.zeros((1, film.Rows, film.Columns, len(masks)), dtype=np.uint8)
    algorithm = AlgorithmIdentificationSequence(name="hand", version="1", family=codes.DCM.ArtificialIntelligence)
    segments = []
    for number, (name, kind, made, rows) in enumerate(masks):
        pixels[0, rows, :, number] = 1
        how, of = SegmentAlgorithmTypeValues(made), codes.SCT.MorphologicallyAbnormalStructure
        segments.append(SegmentDescription(number + 1, name, of, kind, how, algorithm))
    for keyword in ("PatientBirthDate", "AccessionNumber", "StudyID", "StudyTime", "ReferringPhysicianName"):
        if keyword not in film:
            setattr(film, keyword, None)
    uids = generate_uid(), 1, generate_uid(), 1
    seg = Segmentation([film], pixels, SegmentationTypeValues.BINARY, segments, *uids, "Maker", "Model", "1", "0")
    seg.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    return seg


def labels(research: Research, columns: str = "label_value, label_numeric", level: str = "INSTANCE") -> list[object]:
    rows = research.lake.rows(f"SELECT {columns} FROM gold.label WHERE subject_level = ? ORDER BY ALL", [level])
    return list(rows)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("pneumonia", ("pneumonia", 1.0)),
        ("Pneumonia: present", ("pneumonia", 1.0)),
        ("no  PNEUMONIA.", ("pneumonia", 0.0)),
        ("pleural_effusion absent", ("pleural effusion", 0.0)),
        ("pneumonia?", ("pneumonia", None)),
        ("possible pneumonia", ("pneumonia", None)),
        ("bronchopneumonia", None),
        ("no sign of pneumonia or pneumothorax", None),
        ("", None),
    ],
)
def test_words_are_a_label_where_they_say_one_finding_and_nothing_else(
    words: str, said: tuple[str, float | None] | None
) -> None:
    assert said_in_words(words) == said


def test_measurements_with_a_finding_are_a_label_with_boxes_under_who_sent_them(research: Research) -> None:
    told = report(
        research,
        measured(research, comment("Pneumonia")),
        measured(research, free_text("pneumonia"), graphic="CIRCLE", points=[20, 30, 23, 34]),
        measured(research, stated(FINDING, PNEUMONIA), graphic="ELLIPSE", points=[0, 10, 20, 10, 10, 5, 10, 15]),
        measured(research, comment("pneumonia"), points=[0, 0, 9, 9]),
        measured(research, comment("no pneumothorax"), points=[1, 1, 9, 1, 9, 9]),
        measured(research, comment("left lung: see the prior")),
    )
    counts = send(research, told)
    assert (counts.telling, counts.labels, counts.positive, counts.regions) == (1, 2, 1, 3)
    assert labels(research) == [("no pneumothorax", 0.0), ("pneumonia", 1.0)]
    boxes = [[0.0, 5.0, 20.0, 10.0], [10.0, 5.0, 30.0, 20.0], [15.0, 25.0, 10.0, 10.0]]
    assert labels(research, "bbox", "REGION") == [(box,) for box in boxes]
    subject, key = key_of(str(research.film().SOPInstanceUID)), key_of("2.25.1")
    who = "subject_key, source, layout, method, annotator, source_token"
    ours = (subject, "VIEWER", "SR", "READING", key_of("annotator", "ann"), key)
    assert set(labels(research, who) + labels(research, who, "REGION")) == {ours}
    assert research.lake.rows(
        """SELECT DISTINCT user_name, labelled_at = received_at
        FROM gold.annotation JOIN gold.label ON source_token = annotation_key"""
    ) == [("ann", True)]


def test_the_later_report_of_a_user_counts_and_what_was_taken_back_leaves_nothing(research: Research) -> None:
    before = annotation_state(research.lake)
    send(research, report(research, measured(research, comment("pneumonia"))))
    send(research, report(research, stated(PNEUMONIA, ABSENT), number=2))
    assert labels(research) == [("no pneumonia", 0.0)]
    rows = research.lake.rows("SELECT * EXCLUDE (_loaded_at) FROM gold.label")
    send(research)
    assert research.lake.rows("SELECT * EXCLUDE (_loaded_at) FROM gold.label") == rows
    assert annotation_state(research.lake) != before
    research.forget()
    assert send(research).labels == 0
    assert research.lake.rows("SELECT * FROM gold.label") == []
    assert annotation_state(research.lake) == before


def test_contradictions_and_reports_of_algorithms_are_no_labels(research: Research) -> None:
    algorithm = item("TEXT", code("111001", "DCM"), TextValue="a model")
    counts = send(
        research,
        report(research, stated(PNEUMONIA, PRESENT), stated(PNEUMONIA, ABSENT)),
        report(research, measured(research, algorithm, stated(FINDING, PNEUMONIA)), number=2),
    )
    assert (counts.annotations, counts.telling, counts.refused, counts.labels) == (2, 1, 1, 0)
    assert labels(research) == []


def test_segments_that_people_made_of_a_finding_are_boxes_until_the_film_is_withdrawn(research: Research) -> None:
    drawn = segmented(
        research,
        ("Pneumonia", codes.SCT.Lesion, "MANUAL", slice(0, 1)),
        ("Segment 2", Code("233604007", "SCT", "Pneumonia"), "SEMIAUTOMATIC", slice(2, 4)),
        ("pneumonia", codes.SCT.Lesion, "AUTOMATIC", slice(1, 2)),
        ("lung", codes.SCT.Lung, "MANUAL", slice(0, 4)),
    )
    counts = send(research, drawn)
    assert (counts.unreadable, counts.labels) == (0, 1)
    assert labels(research, "label_value, label_numeric, layout") == [("pneumonia", 1.0, "SEG")]
    assert labels(research, "bbox, row_token", "REGION") == [
        ([0.0, 0.0, 4.0, 1.0], "1"),
        ([0.0, 2.0, 4.0, 2.0], "2"),
    ]
    research.zones.vanish(FIRST)
    assert send(research).labels == 0
    assert labels(research) == []
