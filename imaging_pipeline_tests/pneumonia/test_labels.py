"""Tests of the RSNA label table."""

from __future__ import annotations

import pytest

from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.pneumonia.labels import ImageLabel, is_rsna_labels, read_rsna_labels

HEADER = b"patientId,x,y,width,height,Target\n"


def test_rows_of_one_image_become_one_label_with_all_its_boxes() -> None:
    table = HEADER + b"a,,,,,0\nb,264.0,152.0,213.0,379.0,1\nb,562,152,256.5,453,1\nc,,,,,0\n"
    assert read_rsna_labels(table) == [
        ImageLabel("a", pneumonia=False, boxes=()),
        ImageLabel("b", pneumonia=True, boxes=((264.0, 152.0, 213.0, 379.0), (562.0, 152.0, 256.5, 453.0))),
        ImageLabel("c", pneumonia=False, boxes=()),
    ]


def test_rows_of_one_image_need_not_be_neighbours() -> None:
    labels = read_rsna_labels(HEADER + b"b,1,1,2,2,1\na,,,,,0\nb,5,5,2,2,1\n")
    assert [(label.image_id, len(label.boxes)) for label in labels] == [("b", 2), ("a", 0)]


def test_byte_order_mark_windows_line_ends_and_blank_lines_are_read() -> None:
    table = b"\xef\xbb\xbf" + (HEADER + b"a,1,2,3,4,1\n\n").replace(b"\n", b"\r\n")
    assert is_rsna_labels(table)
    assert read_rsna_labels(table) == [ImageLabel("a", pneumonia=True, boxes=((1.0, 2.0, 3.0, 4.0),))]


def test_a_table_without_rows_has_no_labels() -> None:
    assert read_rsna_labels(HEADER) == []


@pytest.mark.parametrize("data", [b"", b"patientId,class\na,Normal\n", b"\x00\x01DICM", HEADER.lower()])
def test_other_files_are_not_taken_for_the_table(data: bytes) -> None:
    assert not is_rsna_labels(data)
    with pytest.raises(PoisonInput):
        read_rsna_labels(data)


@pytest.mark.parametrize(
    "row",
    [
        b"secret,1,2,3,1",
        b"secret,1,2,3,4,5,1",
        b",1,2,3,4,1",
        b"secret,1,2,3,4,2",
        b"secret,1,2,3,4,0",
        b"secret,,,,,1",
        b"secret,1,2,,4,1",
        b"secret,1,2,three,4,1",
        b"secret,1,2,nan,4,1",
        b"secret,-1,2,3,4,1",
        b"secret,1,2,0,4,1",
        b"a,1,2,3,4,1",
        b"secret,\xff,2,3,4,1",
        b'"secret,1,2,3,4,1',
    ],
)
def test_a_malformed_row_is_refused_with_its_line_and_without_its_values(row: bytes) -> None:
    with pytest.raises(PoisonInput) as caught:
        read_rsna_labels(HEADER + b"a,,,,,0\n" + row + b"\n")
    assert caught.value.reason is Reason.MALFORMED
    assert "line 3" in caught.value.message
    assert "secret" not in str(caught.value)
    assert "three" not in str(caught.value)
