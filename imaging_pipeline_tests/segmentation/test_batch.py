"""Lungs of a batch: objects, rows, and what goes again. One lake for all tests; they follow each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.quality import count_violations
from imaging_pipeline.segmentation.batch import LungWriter, segment_batch
from imaging_pipeline.tensors.recipe import load_recipe
from imaging_pipeline.tensors.storage import ShardStore
from imaging_pipeline.tensors.withdrawal import withdraw_tensors
from imaging_pipeline_tests.metadata.headers import memory_lake
from imaging_pipeline_tests.segmentation.films import BATCH, encoded, films, release

ROWS = "SELECT * EXCLUDE (_loaded_at) FROM gold.lung_segmentation ORDER BY instance_key"
OBJECTS = "SELECT storage_uri FROM deid.dicom_file_location WHERE arrival_batch LIKE '%+lungs' ORDER BY 1"


class Home:
    """A research lake with released films: four frontal ones, of which one hangs the other way round and one is broken,
    and a lateral one.
    """

    def __init__(self, folder: Path, lake: Lake) -> None:
        self.folder, self.lake = folder, lake
        self.films = list(films(5))
        _, turned, broken, _, lateral = self.films
        turned.PatientOrientation = ["R", "F"]
        broken.PixelData = broken.PixelData[: len(broken.PixelData) // 4]
        lateral.ViewPosition = "LL"
        release(lake, folder / "files", [encoded(film) for film in self.films])

    def segment(self, **style: bool) -> dict[str, object]:
        writer = LungWriter(self.folder / "segmentations", **style)  # type: ignore[arg-type]
        counts = segment_batch(self.lake, BATCH, load_recipe("chest-xray-224"), writer, workers=1)
        return {"films": counts.films, "objects": counts.objects, "failed": counts.failed, **counts.by_quality}

    def rows(self) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = self.lake.query(ROWS).to_pylist()
        return rows

    def objects(self) -> list[Dataset]:
        return [pydicom.dcmread(str(uri).removeprefix("file://")) for (uri,) in self.lake.rows(OBJECTS)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with memory_lake("research") as lake:
        yield Home(tmp_path_factory.mktemp("home"), lake)


def test_frontal_films_get_their_lungs_and_a_broken_one_an_issue(home: Home) -> None:
    assert home.segment() == {"films": 4, "objects": 3, "failed": 1, "PLAUSIBLE": 3}
    ((message, stage),) = home.lake.rows("SELECT message, stage FROM gold.ingest_issue")
    assert str(message).startswith("lungs: ")
    assert stage == "PIXEL"
    for row in home.rows():
        assert min(row["right_share"], row["left_share"]) > 0.02
        assert 5_000 < row["right_area"] < 40_000, "square millimetres of a lung"


def test_the_segmentations_are_instances_of_the_study_of_their_film(home: Home) -> None:
    found = home.lake.rows(
        f"""SELECT film.instance_key, lungs.study_instance_uid = film.study_instance_uid, lungs.modality
        FROM gold.lung_segmentation AS found
        JOIN {_FILMS} AS film USING (instance_key)
        JOIN {_FILMS} AS lungs ON lungs.instance_key = found.segmentation_key"""
    )
    assert [row[1:] for row in found] == [(True, "SEG")] * 3
    assert not count_violations(home.lake, "deid")
    assert home.lake.rows("SELECT count(*) FROM deid.made_object WHERE kind = 'lungs'") == [(3,)]


def test_the_right_lung_is_the_patients_whichever_way_the_film_hangs(home: Home) -> None:
    turned = home.films[1].SOPInstanceUID
    for made in home.objects():
        masks = np.unpackbits(np.frombuffer(made.PixelData, np.uint8), bitorder="little")
        masks = masks[: 2 * made.Rows * made.Columns].reshape(2, made.Rows, made.Columns)
        right, left = (np.nonzero(mask.any(axis=0))[0].mean() for mask in masks)
        is_turned = made.SourceImageSequence[0].ReferencedSOPInstanceUID == turned
        assert (right > left) == is_turned


def test_another_run_changes_nothing(home: Home) -> None:
    rows, objects = home.rows(), home.lake.rows(OBJECTS)
    (home.folder / "segmentations" / BATCH / "left-by-a-kill.dcm").write_bytes(b"x")
    assert home.segment()["objects"] == 3
    assert (home.rows(), home.lake.rows(OBJECTS)) == (rows, objects)
    assert len(home.lake.rows("SELECT 1 FROM gold.ingest_issue")) == 1
    assert len(list((home.folder / "segmentations" / BATCH).iterdir())) == 3


def test_another_style_takes_the_place_of_the_first(home: Home) -> None:
    home.segment(viewer_compat=True)
    assert all("FrameOfReferenceUID" in made for made in home.objects())
    assert len(home.objects()) == len(list((home.folder / "segmentations" / BATCH).iterdir())) == 3


def test_what_is_withdrawn_takes_its_lungs_along(home: Home) -> None:
    withdrawn = home.films[0]
    keys = {str(row["instance_key"]) for row in home.rows()}
    release(home.lake, home.folder / "files", [encoded(film) for film in home.films[1:]])
    withdraw_tensors(home.lake, keys, ShardStore(str(home.folder / "tensors")))
    assert len(home.rows()) == len(home.objects()) == len(list((home.folder / "segmentations" / BATCH).iterdir())) == 2
    assert withdrawn.StudyInstanceUID not in {made.StudyInstanceUID for made in home.objects()}
    assert not count_violations(home.lake, "deid")


_FILMS = """(SELECT instance_key, study_instance_uid, modality FROM deid.dicom_instance
    JOIN deid.dicom_series USING (series_key) JOIN deid.dicom_study USING (study_key))"""
