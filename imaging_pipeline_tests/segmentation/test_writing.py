from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from imaging_pipeline.metadata.made_objects import write_object
from imaging_pipeline.segmentation.writing import SegmentationStyle, pixel_spacing, segmentation_of
from imaging_pipeline_tests.segmentation.films import films

STYLE, COMPATIBLE = SegmentationStyle("0123456789ab"), SegmentationStyle("0123456789ab", viewer_compat=True)


def masks(film: Dataset) -> np.ndarray:
    rows, columns = np.indices((film.Rows, film.Columns))
    right = (rows - film.Rows / 2) ** 2 + (columns - film.Columns / 4) ** 2 < (film.Columns / 6) ** 2
    return np.stack([right, right[:, ::-1] & (rows > film.Rows / 2)])


@pytest.fixture(scope="module")
def some_films() -> list[Dataset]:
    """A film of each kind of machine: digital and computed radiography."""
    return list({film.Modality: film for film in films(6)}.values())


def test_a_segmentation_stands_beside_its_film_and_says_what_made_it(some_films: list[Dataset], tmp_path: Path) -> None:
    for film in some_films:
        made = pydicom.dcmread(write_object(tmp_path, segmentation_of(film, masks(film), STYLE), ["film"]).path)
        for keyword in ("PatientID", "PatientName", "PatientSex", "StudyInstanceUID", "StudyDate", "AccessionNumber"):
            assert made[keyword].value == film[keyword].value
        assert made.SeriesInstanceUID != film.SeriesInstanceUID
        assert made.Modality == "SEG"
        assert "FrameOfReferenceUID" not in made
        assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == film.SOPInstanceUID
        assert "not for clinical use" in made.SeriesDescription
        right, left = made.SegmentSequence
        assert [each.SegmentedPropertyTypeCodeSequence[0].CodeValue for each in (right, left)] == [
            "3341006",
            "44029006",
        ]
        assert right.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == STYLE.model_version


@pytest.mark.parametrize("style", [STYLE, COMPATIBLE], ids=["plain", "viewer_compat"])
def test_the_masks_are_read_back_as_they_were_written(
    some_films: list[Dataset], style: SegmentationStyle, tmp_path: Path
) -> None:
    from highdicom.seg import segread

    for film in some_films:
        made = segread(write_object(tmp_path, segmentation_of(film, masks(film), style), ["film"]).path)
        read = np.unpackbits(np.frombuffer(made.PixelData, np.uint8), bitorder="little")
        expected = masks(film)
        assert np.array_equal(read[: expected.size].reshape(expected.shape), expected)
        numbers = [
            frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            for frame in made.PerFrameFunctionalGroupsSequence
        ]
        assert numbers == [1, 2]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed (Debian: dicom3tools)")
@pytest.mark.parametrize("style", [STYLE, COMPATIBLE], ids=["plain", "viewer_compat"])
def test_a_validator_finds_no_error(some_films: list[Dataset], style: SegmentationStyle, tmp_path: Path) -> None:
    for film in some_films:
        path = write_object(tmp_path, segmentation_of(film, masks(film), style), ["film"]).path
        done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
        assert "Error" not in done.stderr + done.stdout


def test_the_same_film_and_masks_give_the_same_bytes_and_no_clock_is_in_them(
    some_films: list[Dataset], tmp_path: Path
) -> None:
    film = some_films[0]
    first, second = (
        write_object(tmp_path / name, segmentation_of(film, masks(film), STYLE), ["film"]).path for name in "ab"
    )
    assert (first.name, first.read_bytes()) == (second.name, second.read_bytes())
    assert f"{dt.datetime.now(dt.UTC):%Y%m%d}" not in str(pydicom.dcmread(first))


def test_each_model_and_style_has_uids_of_its_own(some_films: list[Dataset]) -> None:
    film = some_films[0]
    styles = (STYLE, COMPATIBLE, SegmentationStyle("another"))
    made = [segmentation_of(film, masks(film), style) for style in styles]
    assert len({each.SOPInstanceUID for each in made}) == len({each.SeriesInstanceUID for each in made}) == 3


def test_a_plane_is_stated_only_when_asked_for_and_with_the_pixels_of_the_film(some_films: list[Dataset]) -> None:
    film = some_films[0]
    made = segmentation_of(film, masks(film), COMPATIBLE)
    shared = made.SharedFunctionalGroupsSequence[0]
    assert [float(value) for value in shared.PixelMeasuresSequence[0].PixelSpacing] == list(pixel_spacing(film) or ())
    assert (
        len(
            {
                str(frame.PlanePositionSequence[0].ImagePositionPatient)
                for frame in made.PerFrameFunctionalGroupsSequence
            }
        )
        == 1
    )
    assert made.FrameOfReferenceUID
    assert "FrameOfReferenceUID" not in film


def test_a_lung_that_was_not_found_is_no_segment(some_films: list[Dataset]) -> None:
    film = some_films[0]
    one = masks(film)
    one[0] = False
    (segment,) = segmentation_of(film, one, STYLE).SegmentSequence
    assert (segment.SegmentNumber, segment.SegmentLabel) == (1, "Left lung")
    with pytest.raises(ValueError, match="not all empty"):
        segmentation_of(film, np.zeros_like(one), STYLE)


def test_a_film_with_nothing_but_what_it_must_have_gets_its_segmentation(some_films: list[Dataset]) -> None:
    bare = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns",
                    "BitsAllocated", "BitsStored", "SamplesPerPixel", "PhotometricInterpretation"):  # fmt: skip
        setattr(bare, keyword, some_films[0][keyword].value)
    made = segmentation_of(bare, masks(bare), STYLE)
    assert made.StudyInstanceUID == bare.StudyInstanceUID
