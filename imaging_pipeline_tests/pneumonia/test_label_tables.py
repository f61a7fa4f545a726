"""Tests of label files: layouts told by their columns, labels as their makers meant them, bad rows as issues."""

from __future__ import annotations

from datetime import datetime

import pytest

from imaging_pipeline.pneumonia.labels.layouts import CHEXPERT_FINDINGS, NIH_FINDINGS
from imaging_pipeline.pneumonia.labels.model import Label, Method, OfficialSplit
from imaging_pipeline.pneumonia.labels.plain import write_plain
from imaging_pipeline.pneumonia.labels.tables import MOST_COLLECTIONS, open_label_table

RSNA = "patientId,x,y,width,height,Target\n"
NIH = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
)
NIH_BOXES = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
CHEXPERT = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(name.title() for name in CHEXPERT_FINDINGS) + "\n"


def read(text: str | bytes, **renamed: str) -> tuple[list[Label], list[str]]:
    """Labels of a file, and what was wrong with its rows."""
    table = open_label_table(text if isinstance(text, bytes) else text.encode(), renamed)
    assert table is not None
    labels = list(table.labels())
    return labels, [issue.message for issue in table.issues()]


def layout(text: str) -> str | None:
    table = open_label_table(text.encode())
    return table.layout if table else None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (RSNA, "RSNA"),
        (RSNA.lower(), "RSNA"),
        ("Target;patientId;height;width;y;x\n", "RSNA"),
        ("patientId,class\n", "RSNA_CLASSES"),
        (NIH, "NIH"),
        (NIH_BOXES, "NIH_BOXES"),
        (CHEXPERT, "CHEXPERT"),
        ("image,label\n", "PLAIN"),
        ("sop_instance_uid\tlabel\n", "PLAIN"),
        ("file,source,pneumonia\n", "PLAIN"),
        ("image,width\n", None),
        ("label\n", None),
        ("", None),
        ("\x00\x01DICM", None),
    ],
)
def test_a_layout_is_told_by_its_columns_alone(header: str, expected: str | None) -> None:
    assert layout(header) == expected


def test_rows_of_the_rsna_challenge_are_labels_with_boxes() -> None:
    labels, issues = read(RSNA + "a,,,,,0\nb,264.0,152.0,213.0,379.0,1\nb,562,152,256.5,453,1\n")
    assert [(label.image, label.number, label.box) for label in labels] == [
        ("a", 0.0, None),
        ("b", 1.0, (264.0, 152.0, 213.0, 379.0)),
        ("b", 1.0, (562.0, 152.0, 256.5, 453.0)),
    ]
    assert not issues
    assert {(label.task, label.method) for label in labels} == {("pneumonia", Method.READING)}


def test_byte_order_mark_windows_line_ends_and_blank_lines_are_read() -> None:
    labels, issues = read(b"\xef\xbb\xbf" + (RSNA + "a,1,2,3,4,1\n\n,,,,,\n").replace("\n", "\r\n").encode())
    assert [label.place for label in labels] == ["2"]
    assert not issues


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("secret,1,2,3,1", "expected 6 fields, found 5"),
        ("secret,1,2,3,4,1,5", "expected 6 fields, found 7"),
        (",1,2,3,4,1", "expected the name of an image"),
        ("secret,1,2,3,4,2", "expected Target 0 or 1"),
        ("secret,1,2,3,4,0", "expected a box on a row with Target 1 and none with Target 0"),
        ("secret,,,,,1", "expected a box on a row with Target 1 and none with Target 0"),
        ("secret,1,2,,4,1", "expected four numbers in x, y, width and height"),
        ("secret,1,2,three,4,1", "expected four numbers in x, y, width and height"),
        ("secret,1,2,nan,4,1", "expected a finite box of positive size inside the image"),
        ("secret,-1,2,3,4,1", "expected a finite box of positive size inside the image"),
        ("secret,1,2,0,4,1", "expected a finite box of positive size inside the image"),
        ('sec"ret,1,2,3,4,1\n"secret" x,1,2,3,4,1', "expected separated values with closed quotes"),
    ],
)
def test_a_row_that_cannot_be_used_is_told_by_its_line_and_the_others_are_read(row: str, expected: str) -> None:
    labels, issues = read(f"{RSNA}a,,,,,0\n{row}\nb,,,,,0\n")
    assert {"a", "b"} <= {label.image for label in labels}
    assert [issue.partition(": ")[2] for issue in issues] == [expected]
    assert "line 3" in issues[0] or "line 4" in issues[0]
    assert "secret" not in issues[0]
    assert "three" not in issues[0]


def test_a_quote_that_is_never_closed_costs_what_is_behind_it() -> None:
    labels, issues = read(RSNA + 'a,,,,,0\n"secret,,,,,0\nb,,,,,0\n')
    assert [label.image for label in labels] == ["a"]
    assert len(issues) == 1


def test_of_many_bad_rows_a_hundred_are_told_one_by_one_and_the_rest_counted() -> None:
    _, issues = read(RSNA + "a,,,,,5\n" * 150)
    assert len(issues) == 101
    assert issues[-1] == "50 more rows cannot be used"


def test_classes_of_the_rsna_challenge_are_a_task_of_their_own() -> None:
    labels, issues = read("patientId,class\na,No Lung Opacity / Not Normal\nb,Normal\nc,Something\n")
    assert [(label.task, label.value, label.number) for label in labels] == [
        ("chest film class", "no lung opacity / not normal", None),
        ("chest film class", "normal", None),
    ]
    assert issues == ["line 4: expected one of the three classes of the challenge"]


def test_findings_of_chestxray14_are_yes_when_named_and_no_otherwise() -> None:
    rows = "1_0.png,Pneumonia|Pleural_Thickening,0,1,058Y,M,PA,2682,2749,0.143,0.143,\n2_0.png,No Finding" + "," * 9
    labels, issues = read(NIH + rows + "\n3_0.png,No Finding|Mass,,,,,,,,,,\n4_0.png,Dropsy,,,,,,,,,,\n")
    found = {(label.image, label.task): label.number for label in labels}
    assert len(found) == 2 * (len(NIH_FINDINGS) + 1)
    assert {task for (image, task), number in found.items() if number and image == "1_0.png"} == {
        "pneumonia",
        "pleural thickening",
    }
    assert {task for (image, task), number in found.items() if number and image == "2_0.png"} == {"no finding"}
    assert {label.method for label in labels} == {Method.TEXT_MINING}
    assert [issue.split(":")[0] for issue in issues] == ["line 4", "line 5"]


def test_boxes_of_chestxray14_are_regions_of_their_finding() -> None:
    labels, issues = read(NIH_BOXES + "13118_8.png,Infiltrate,225.08,547.01,86.77,79.18,,,\n")
    assert [(label.task, label.number, label.box) for label in labels] == [
        ("infiltration", 1.0, (225.08, 547.01, 86.77, 79.18))
    ]
    assert not issues


def test_chexpert_says_yes_no_uncertain_or_nothing() -> None:
    path = "CheXpert-v1.0-small/{}/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,"
    cells = dict.fromkeys(CHEXPERT_FINDINGS, "") | {"pneumonia": "-1.0", "edema": "1.0", "fracture": "0.0"}
    labels, issues = read(
        CHEXPERT + "".join(path.format(side) + ",".join(cells.values()) + "\n" for side in ("train", "valid"))
    )
    assert not issues
    said = {label.task: (label.value, label.number) for label in labels}
    assert said["pneumonia"] == ("uncertain", None)
    assert said["edema"] == ("edema", 1.0)
    assert said["fracture"] == ("no fracture", 0.0)
    assert said["support devices"] == ("not mentioned", None)
    assert {(label.split, label.method) for label in labels} == {
        (OfficialSplit.TRAIN, Method.TEXT_MINING),
        (OfficialSplit.VAL, Method.READING),
    }
    assert {label.image for label in labels} == {"patient00001/study1/view1_frontal.jpg"}


@pytest.mark.parametrize(
    ("text", "value", "number"),
    [
        ("1", "pneumonia", 1.0),
        ("0.0", "no pneumonia", 0.0),
        ("PNEUMONIA", "pneumonia", 1.0),
        ("NORMAL", "no pneumonia", 0.0),
        ("no pneumonia", "no pneumonia", 0.0),
        ("Positive", "pneumonia", 1.0),
        ("-1", "uncertain", None),
        ("Equivocal", "uncertain", None),
        ("0.25", "0.25", 0.25),
        ("bacterial_pneumonia", "bacterial pneumonia", None),
    ],
)
def test_a_plain_label_is_a_number_yes_or_no_or_a_class(text: str, value: str, number: float | None) -> None:
    ((label,), _) = read(f"image,label\na,{text}\n")
    assert (label.value, label.number) == (value, number)


def test_all_a_plain_table_may_say_is_read() -> None:
    ((label,), issues) = read(
        "image,task,label,source,annotator,method,confidence,is_consensus,labelled_at,split,x,y,width,height\n"
        "a,Lung_Opacity,yes,panel,Dr A,text mining,0.5,TRUE,2026-01-02,Validation,1,2,3,4\n"
    )
    assert not issues
    assert label == Label(
        image="a",
        task="lung opacity",
        value="lung opacity",
        number=1.0,
        place="2",
        box=(1.0, 2.0, 3.0, 4.0),
        collection="panel",
        annotator="Dr A",
        method=Method.TEXT_MINING,
        confidence=0.5,
        is_consensus=True,
        labelled_at=datetime(2026, 1, 2),  # noqa: DTZ001 - the wall clock of the label file
        split=OfficialSplit.VAL,
    )


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("label", ""),
        ("label", "inf"),
        ("confidence", "2"),
        ("labelled_at", "soon"),
        ("split", "holdout"),
        ("method", "gazing"),
    ],
)
def test_a_plain_row_with_a_value_out_of_range_is_refused_without_that_value(column: str, text: str) -> None:
    cells = {"image": "secret", "label": "1", "confidence": "", "labelled_at": "", "split": "", "method": ""}
    cells[column] = text
    labels, (issue,) = read(f"{','.join(cells)}\n{','.join(cells.values())}\n")
    assert not labels
    assert "secret" not in issue
    assert not text or text not in issue.partition(":")[2].replace("expected", "")


def test_the_size_of_an_image_is_no_box() -> None:
    ((label,), issues) = read("image,label,width,height\na,1,224,224\n")
    assert (label.box, issues) == (None, [])


def test_columns_may_be_given_the_names_of_the_layout() -> None:
    ((label,), _) = read("Datei,Befund\na.png,1\n", Datei="image", Befund="label")
    assert (label.image, label.number) == ("a.png", 1.0)


def test_a_source_column_with_a_value_for_each_row_is_refused() -> None:
    rows = "".join(f"a{number},1,s{number}\n" for number in range(MOST_COLLECTIONS + 2))
    labels, issues = read("image,label,source\n" + rows)
    assert len(labels) == MOST_COLLECTIONS
    assert len(issues) == 2


def test_labels_written_plain_are_read_as_they_were() -> None:
    labels, _ = read(NIH + "1_0.png,Pneumonia,0,1,058Y,M,PA,2682,2749,0.143,0.143,\n")
    boxes, _ = read(NIH_BOXES + "1_0.png,Mass,225.08,547.01,86.77,79.18,,,\n")
    uncertain, _ = read("image,label,annotator,labelled_at,is_consensus\na,?,Dr A,2026-01-02T03:04:05,0\n")
    again, issues = read(write_plain([*labels, *boxes, *uncertain]))
    assert not issues
    assert [_without_place(label) for label in again] == [
        _without_place(label) for label in [*labels, *boxes, *uncertain]
    ]


def _without_place(label: Label) -> list[object]:
    return [getattr(label, name) for name in Label.__slots__ if name != "place"]
