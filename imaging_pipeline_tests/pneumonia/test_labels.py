"""Tests of the RSNA label table, and of taking labels in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imaging_pipeline.catalog.bronze import load_bronze
from imaging_pipeline.errors import PoisonInput, Reason, TransientError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.silver import load_silver
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.pneumonia.label_import import LabelCounts, import_labels
from imaging_pipeline.pneumonia.labels import ImageLabel, is_rsna_labels, read_rsna_labels
from imaging_pipeline_tests.conftest import folder
from imaging_pipeline_tests.deid.corpus import ROOT, chest_film, encode, keys
from imaging_pipeline_tests.metadata.headers import memory_lake

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


class Landing:
    """A released film and its labels, in both lakes."""

    def __init__(self, path: Path, identified: Lake, research: Lake) -> None:
        self.path, self.identified, self.research = path, identified, research
        path.mkdir()
        (path / "film.dcm").write_bytes(encode(chest_film()))
        (path / "labels.csv").write_bytes(HEADER + b"film,1,2,3,4,1\n")
        load_bronze(
            identified, "b1", list(folder(path).list(datetime.now(UTC))), ObjectReader(), run_id="run", workers=1
        )
        load_silver(identified, "b1")
        uid = keys().uid(f"{ROOT}.3.1")
        row: dict[str, object] = {
            "instance_key": key_of(uid),
            "series_key": "s",
            "sop_instance_uid": uid,
            "arrival_batch": "b1",
            "row_version": "1",
        }
        with research.transaction():
            research.replace_batch("deid", "dicom_instance", registry.table("dicom_instance").rows([row]), "b1")

    def vanish(self, name: str) -> None:
        (self.path / name).unlink()
        with self.identified.transaction():
            self.identified.connection.execute(
                "UPDATE bronze.object_catalog SET deleted_at = now() WHERE storage_uri LIKE '%' || ?", [name]
            )

    def labels(self) -> LabelCounts:
        return import_labels(self.identified, self.research, keys(), ObjectReader())


@pytest.fixture
def landing(tmp_path: Path) -> Iterator[Landing]:
    with memory_lake("identified") as identified, memory_lake("research") as research:
        yield Landing(tmp_path / "landing", identified, research)


def test_a_label_file_that_vanished_takes_its_labels_with_it(landing: Landing) -> None:
    assert landing.labels() == LabelCounts(files=1, malformed=0, labels=1, matched=1, positive=1)
    landing.vanish("labels.csv")
    assert landing.labels() == LabelCounts(files=0, malformed=0, labels=0, matched=0, positive=0)
    assert landing.research.rows("SELECT count(*) FROM gold.label") == [(0,)]


def test_a_label_file_that_cannot_be_read_and_is_not_known_to_be_gone_changes_nothing(landing: Landing) -> None:
    landing.labels()
    (landing.path / "labels.csv").unlink()
    with pytest.raises(TransientError, match="no label changed"):
        landing.labels()
    assert landing.research.rows("SELECT count(*) FROM gold.label WHERE subject_level = 'INSTANCE'") == [(1,)]


def test_an_image_that_was_deleted_gets_no_label(landing: Landing) -> None:
    landing.vanish("film.dcm")
    load_silver(landing.identified, "b1")
    assert landing.labels().matched == 0
