"""Reports and pictures of predictions as objects of the study of their image, read back and judged by others' tools."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from imaging_pipeline.deid.reading import quiet
from imaging_pipeline.dicom.pixels import decode_frame
from imaging_pipeline.errors import PoisonInput
from imaging_pipeline.metadata.made_objects import write_object
from imaging_pipeline.pneumonia.prediction import Flag
from imaging_pipeline.pneumonia.results.capture import capture_of
from imaging_pipeline.pneumonia.results.finding import NOT_FOR_CLINICAL_USE, Finding
from imaging_pipeline.pneumonia.results.overlay import heat_on_film, overlay
from imaging_pipeline.pneumonia.results.sr import report_of
from imaging_pipeline.tensors.images import fitted, placement
from imaging_pipeline.tensors.recipe import Crop, ResizeMode
from imaging_pipeline_tests.deid.corpus import NAME, PATIENT_ID, ROOT, chest_film, encode
from imaging_pipeline_tests.deid.validity import errors_of
from imaging_pipeline_tests.tensors.rows import small_recipe

FOUND = Finding("pneumonia", "3", Flag.POSITIVE, 0.4213, 0.8731, 0.031, weights_sha256="ab" * 32)
REFUSED = Finding("pneumonia", "3", Flag.NO_ANSWER, 0.4213, reason="unlike_training_films")
FILM = np.tile(np.linspace(0.2, 0.8, 80, dtype=np.float32), (100, 1))

needs_dciodvfy = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")


def source(**attributes: object) -> Dataset:
    """The header of a chest film as it is read from a file."""
    return pydicom.dcmread(io.BytesIO(encode(chest_film(**attributes))))


def capture(image: Dataset, finding: Finding = FOUND) -> Dataset:
    return capture_of(image, overlay(FILM, np.zeros_like(FILM), finding), finding)


def written(ds: Dataset, folder: Path) -> Dataset:
    """What is read back from its file."""
    return pydicom.dcmread(write_object(folder, ds, ["source"]).path)


def both(image: Dataset, finding: Finding = FOUND) -> list[Dataset]:
    return [report_of(image, finding), capture(image, finding)]


def items(ds: Dataset) -> dict[str, list[Any]]:
    """Values of all content items by the meaning of their concept."""
    found: dict[str, list[Any]] = {}
    for item in ds.get("ContentSequence", []):
        name = item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else item.ValueType
        value: Any = item.get("TextValue") or item.get("UID")
        if item.ValueType == "CODE":
            value = item.ConceptCodeSequence[0].CodeValue
        elif item.ValueType == "NUM":
            measured = item.MeasuredValueSequence[0]
            value = (float(measured.NumericValue), measured.MeasurementUnitsCodeSequence[0].CodeValue)
        elif item.ValueType == "IMAGE":
            value = item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        found.setdefault(name, []).append(value)
        for below, values in items(item).items():
            found.setdefault(below, []).extend(values)
    return found


def test_a_report_says_what_was_found_by_which_model_and_that_it_is_not_for_clinical_use(tmp_path: Path) -> None:
    report = written(report_of(source(), FOUND), tmp_path)
    said = items(report)
    assert said["Finding"] == ["233604007"]
    assert said["Presence of property"] == ["52101004"]
    assert said["Certainty of Finding"] == [(87.31, "%")]
    assert said["+/-, range of measurement uncertainty"] == [(3.1, "%")]
    assert said["Source of Measurement"] == [f"{ROOT}.3.1"]
    assert (said["Algorithm Name"], said["Algorithm Version"]) == (["pneumonia"], ["3"])
    assert said["Algorithm Parameters"] == ["threshold=0.4213", f"weights_sha256={'ab' * 32}"]
    assert NOT_FOR_CLINICAL_USE in said["Comment"]
    assert "not for clinical use" in report.SeriesDescription
    assert (report.VerificationFlag, report.CompletionFlag) == ("UNVERIFIED", "COMPLETE")
    with quiet():
        read = highdicom.sr.ComprehensiveSR.from_dataset(report)
    (group,) = read.content.get_image_measurement_groups()
    assert group.finding_type.value == "233604007"
    assert group.get_measurements()[0].value == pytest.approx(87.31)


def test_a_report_without_an_answer_has_no_number_and_says_why() -> None:
    said = items(report_of(source(), REFUSED))
    assert said["Presence of property"] == ["373068000"]
    assert "Certainty of Finding" not in said
    assert "No answer: unlike training films" in said["Comment"]
    assert items(report_of(source(), Finding("p", "1", Flag.NEGATIVE, 0.5, 0.1)))["Presence of property"] == [
        "272519000"
    ]
    with pytest.raises(ValueError, match="NO_ANSWER"):
        Finding("p", "1", Flag.NEGATIVE, 0.5)


@needs_dciodvfy
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"BodyPartExamined": None, "PatientOrientation": ["L", "F"], "BurnedInAnnotation": "NO"},
        {"PatientName": None, "StudyDate": None, "StudyTime": None, "StudyID": None, "ReferringPhysicianName": None,
         "LossyImageCompression": "01", "LossyImageCompressionRatio": "12.5",
         "LossyImageCompressionMethod": "ISO_10918_1"},
    ],
    ids=["a film", "a film with its orientation", "hardly a header"],
)  # fmt: skip
def test_results_are_valid_to_dciodvfy(attributes: dict[str, object], tmp_path: Path) -> None:
    for ds in both(source(**attributes)):
        assert errors_of(write_object(tmp_path, ds, ["source"]).path) == set()


@needs_dciodvfy
def test_a_result_about_a_frame_names_it_and_is_valid(tmp_path: Path) -> None:
    image = source(NumberOfFrames=3, SOPClassUID="1.2.840.10008.5.1.4.1.1.12.1", Modality="XA")
    finding = Finding("pneumonia", "3", Flag.POSITIVE, 0.5, 0.9, frame=2)
    report, picture = both(image, finding)
    assert picture.SourceImageSequence[0].ReferencedFrameNumber == 2
    assert '"00081160": {"Value": [2], "vr": "IS"}' in json.dumps(report.to_json_dict(), sort_keys=True)
    other = Finding("pneumonia", "3", Flag.POSITIVE, 0.5, 0.9, frame=3)
    assert {report.SOPInstanceUID, picture.SOPInstanceUID}.isdisjoint({ds.SOPInstanceUID for ds in both(image, other)})
    for ds in (report, picture):
        assert errors_of(write_object(tmp_path, ds, ["source"]).path) == set()


def test_results_stand_in_the_study_of_their_image_as_series_of_their_own(tmp_path: Path) -> None:
    image = source(PatientComments="a comment", TimezoneOffsetFromUTC="+0200")
    for ds in both(image):
        read = written(ds, tmp_path)
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientComments", "StudyDate",
                        "StudyInstanceUID", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
                        "TimezoneOffsetFromUTC"):  # fmt: skip
            assert read.get(keyword) == image.get(keyword), keyword
        assert read.SeriesInstanceUID not in (image.SeriesInstanceUID, image.StudyInstanceUID)
        assert (read.ContentDate, read.ContentTime) == ("20210105", "101530"), "a date of today would tell the shift"
    assert len({ds.SeriesInstanceUID for ds in both(image)}) == 2


def test_the_same_prediction_gives_the_same_bytes_at_another_time(tmp_path: Path) -> None:
    first, second = ({write_object(tmp_path, ds, ["source"]).path.name for ds in both(source())} for _ in range(2))
    assert first == second, "names hold the digest of the bytes"


def test_another_model_version_makes_other_objects() -> None:
    newer = Finding("pneumonia", "4", Flag.POSITIVE, 0.4213, 0.8731)
    uids = [uid for finding in (FOUND, newer) for ds in both(source(), finding)
            for uid in (ds.SOPInstanceUID, ds.SeriesInstanceUID)]  # fmt: skip
    assert len(set(uids)) == 8
    assert all(re.fullmatch(r"2\.25\.\d{1,39}", uid) for uid in uids)


@pytest.mark.parametrize(
    ("charset", "name"),
    [("ISO_IR 100", "Müller^Jörg"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう")],
)
def test_names_in_other_alphabets_stay_what_they_are(charset: object, name: str, tmp_path: Path) -> None:
    image = source(SpecificCharacterSet=charset, PatientName=name)
    for ds in both(image):
        assert str(written(ds, tmp_path).PatientName) == name


@pytest.mark.parametrize("missing", ["StudyInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_an_image_without_a_place_is_refused_without_a_word_about_it(missing: str) -> None:
    image = source()
    delattr(image, missing)
    with pytest.raises(PoisonInput) as refusal:
        both(image)
    assert not any(text in str(refusal.value) for text in (NAME, PATIENT_ID, ROOT))


@pytest.mark.parametrize("stated", ["YES", "NO", None])
def test_a_capture_says_of_burned_in_text_what_its_film_says(stated: str | None) -> None:
    picture = capture(source(BurnedInAnnotation=stated))
    assert picture.get("BurnedInAnnotation") == stated
    assert (picture.Modality, picture.ConversionType) == ("OT", "WSD"), "no recipe takes it for a film"
    assert picture.SourceImageSequence[0].ReferencedSOPInstanceUID == f"{ROOT}.3.1"


def test_the_pixels_of_a_capture_are_the_picture_with_text_beside_the_film(tmp_path: Path) -> None:
    drawn = overlay(FILM, np.zeros_like(FILM), FOUND)
    path = write_object(tmp_path, capture_of(source(), drawn, FOUND), ["source"]).path
    shown = decode_frame(path.read_bytes())
    assert np.array_equal(shown.stored, drawn)
    other = overlay(FILM, np.zeros_like(FILM), Finding("pneumonia", "3", Flag.NEGATIVE, 0.4213, 0.1))
    differs = np.argwhere((drawn != other).any(axis=2))
    line = max(drawn.shape) // 30
    assert len(differs)
    assert differs[:, 0].max() < 3 * line, "the score stands above the film"
    film = drawn[3 * line : 3 * line + 512, :100]
    assert (film == film[..., :1]).all(), "without heat the film is grey"


def test_heat_is_in_colour_and_the_rest_of_the_film_is_not() -> None:
    heat = np.zeros_like(FILM)
    heat[20:40, 10:30] = 1
    drawn = overlay(FILM, heat, FOUND).astype(int)
    colour = np.ptp(drawn, axis=2)
    line, scale = 512 // 30, 512 / 100
    top = 3 * line
    inside = colour[top + round(24 * scale) : top + round(36 * scale), round(14 * scale) : round(26 * scale)]
    outside = colour[top + round(60 * scale) : top + round(90 * scale), : round(70 * scale)]
    assert inside.min() > 40
    assert outside.max() == 0


@pytest.mark.parametrize("crop", list(Crop))
@pytest.mark.parametrize("resize", list(ResizeMode))
@pytest.mark.parametrize("aspect", [1.0, 1.6])
def test_heat_lies_on_the_film_where_the_network_saw_it(crop: Crop, resize: ResizeMode, aspect: float) -> None:
    film = np.full((1, 120, 90), 0.3, np.float32)
    film[:, :10] = film[:, :, 80:] = 0  # a border that may be cut off
    film[0, 60:72, 40:50] = 1
    recipe = small_recipe(size=(64, 48), crop=crop, resize=resize)
    tensor = fitted(film, recipe, aspect)[0]
    seen = (tensor > 0.65).astype(np.float32)  # a map that is hot where the square is in the tensor
    square = np.kron(seen, np.ones((2, 2), np.float32))  # the network's size
    laid = heat_on_film(square, placement(film, recipe, aspect), recipe.size, film.shape[1:])
    assert laid.shape == film.shape[1:]
    rows, columns = np.nonzero(laid > 0.5)
    assert abs(rows.mean() - 65.5) < 2
    assert abs(columns.mean() - 44.5) < 2
    assert len(rows) == pytest.approx(120, rel=0.35)
