"""Tests of making DICOM objects of a folder of pictures: structure, validity, damage, and running again."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileDataset

from imaging_pipeline.conversion import folder as conversion_folder
from imaging_pipeline.conversion.csv_table import CsvTable
from imaging_pipeline.conversion.folder import REPORT, Conversion, Stated, convert_folder
from imaging_pipeline.conversion.picture_table import age_string
from imaging_pipeline.dicom.pixels import decode_frame, render
from imaging_pipeline.errors import ConfigurationError, Reason, Severity
from imaging_pipeline.objects.writing import write_atomically
from imaging_pipeline_tests.conversion.pictures import colour, encoded, grey, put

NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
)
CHEST = Stated(modality="DX", body_part="CHEST")


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the second that a pool of processes takes to start; the command is tested with one."""

    def one_chunk(function: object, items: Sequence[object], **_: object) -> list[object]:
        return [function(items)]  # type: ignore[operator]

    monkeypatch.setattr(conversion_folder, "map_chunks", one_chunk)


def run(path: Path, table: str | None = None, stated: Stated = CHEST, **renamed: str) -> Conversion:
    """Convert ``path / in`` to ``path / out``."""
    given = None if table is None else CsvTable(table.encode(), renamed)
    return convert_folder(path / "in", path / "out", given, stated, workers=1)


def read(path: Path, name: str) -> FileDataset:
    return pydicom.dcmread(path / "out" / f"{name}.dcm")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_films_of_chestxray14_have_the_patients_studies_and_sizes_of_the_table(tmp_path: Path) -> None:
    names = ["00000001_000.png", "00000001_001.png", "00000002_000.png"]
    put(tmp_path / "in", {f"images_001/{name}": encoded(grey(seed=n)) for n, name in enumerate(names)})
    rows = [
        "00000001_000.png,No Finding,0,1,058Y,M,PA,128,96,0.143,0.150,",
        "00000001_001.png,Mass,1,1,59,M,AP,128,96,0.143,0.150,",
        "00000002_000.png,Pneumonia,0,2,3 months,F,PA,128,96,0.143,0.150,",
        "00000009_000.png,Pneumonia,0,9,60,F,PA,128,96,0.143,0.150,",
    ]
    conversion = run(tmp_path, NIH_HEADER + "\n".join(rows), Stated(burned_in="NO"))
    assert (conversion.made, conversion.missing, conversion.is_complete) == (3, 1, True)
    first, second, third = (read(tmp_path, f"images_001/{name}") for name in names)
    assert (first.PatientID, first.PatientSex, first.PatientAge, first.ViewPosition) == ("1", "M", "058Y", "PA")
    assert (second.PatientAge, third.PatientAge, third.PatientSex) == ("059Y", "003M", "F")
    assert first.IssuerOfPatientID == "ChestX-ray14"
    assert first.StudyInstanceUID != second.StudyInstanceUID
    assert len({ds.SeriesInstanceUID for ds in (first, second, third)}) == 3
    assert first.SOPClassUID.name == "Digital X-Ray Image Storage - For Presentation"
    assert [float(size) for size in first.ImagerPixelSpacing] == [0.3, 0.286], "between rows, between columns"
    np.testing.assert_array_equal(first.pixel_array, grey(seed=0))


def test_two_views_of_a_chexpert_study_are_one_study(tmp_path: Path) -> None:
    header = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Pneumonia\n"
    study = "train/patient00001/study1"
    put(tmp_path / "in", {f"{study}/view{n}.jpg": encoded(grey(seed=n), "JPEG") for n in (1, 2)})
    rows = "".join(f"CheXpert-v1.0/{study}/view{n}.jpg,Female,68,Frontal,AP,,1.0\n" for n in (1, 2))
    assert run(tmp_path, header + rows, Stated()).made == 2
    views = [read(tmp_path, f"{study}/view{n}.jpg") for n in (1, 2)]
    assert len({ds.StudyInstanceUID for ds in views}) == 1
    assert {(ds.PatientID, ds.Modality, ds.BodyPartExamined) for ds in views} == {("patient00001", "DX", "CHEST")}


def test_a_plain_table_may_call_its_columns_as_it_likes(tmp_path: Path) -> None:
    put(tmp_path / "in", {"a.png": encoded(grey()), "b.png": encoded(grey(seed=1))})
    conversion = run(
        tmp_path,
        "Datei;Pat-Nr;sex;age\na.png;7;w;1-5 (cohort)\nb.png;7;F;\n",
        Datei="image",
        **{"Pat-Nr": "patient_id"},
    )
    assert conversion.made == 2
    assert read(tmp_path, "a.png").PatientID == read(tmp_path, "b.png").PatientID == "7"
    assert [issue.message for issue in conversion.pictures[0].issues] == [
        "the sex cannot be understood",
        "the age cannot be understood",
    ]
    assert conversion.is_complete, "a value was lost, no picture"


def test_without_a_table_nothing_is_claimed_of_the_patient(tmp_path: Path) -> None:
    put(tmp_path / "in", {"a.png": encoded(grey())})
    run(tmp_path, stated=Stated())
    ds = read(tmp_path, "a.png")
    assert (ds.PatientID, ds.PatientSex, ds.Modality, "BurnedInAnnotation" in ds) == ("", "", "OT", False)
    assert ds.SOPClassUID.name == "Secondary Capture Image Storage"


def test_a_picture_tells_where_it_comes_from(tmp_path: Path) -> None:
    put(tmp_path / "in", {"a.jpg": encoded(grey(), "JPEG")})
    run(tmp_path, "image,source,licence\na.jpg,north,CC BY 4.0\n")
    ds = read(tmp_path, "a.jpg")
    assert (ds.ConversionType, list(ds.ImageType)) == ("WSD", ["DERIVED", "SECONDARY"])
    assert "collection: north; terms of use: CC BY 4.0" in ds.DerivationDescription
    assert (ds.LossyImageCompression, ds.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert ds.file_meta.TransferSyntaxUID.name == "JPEG Baseline (Process 1)"


KINDS = {
    "grey8.png": encoded(grey()),
    "odd.png": encoded(grey(rows=33, columns=31)),
    "grey16.png": encoded(grey(16)),
    "colour.png": encoded(colour(rows=33, columns=31)),
    "grey.jpg": encoded(grey(), "JPEG"),
    "full.jpg": encoded(colour(), "JPEG", subsampling=0),
    "half.jpg": encoded(colour(), "JPEG", subsampling=1),
    "quarter.jpeg": encoded(colour(), "JPEG", subsampling=2),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_a_viewer_shows_is_the_picture(tmp_path: Path, name: str) -> None:
    put(tmp_path / "in", {name: KINDS[name]})
    run(tmp_path)
    expected = np.asarray(Image.open(io.BytesIO(KINDS[name])))
    ds = read(tmp_path, name)
    if ds.SamplesPerPixel == 3:
        shown = pydicom.pixels.pixel_array(tmp_path / "out" / f"{name}.dcm")
        assert int(np.abs(shown.astype(int) - expected).max()) <= 3  # decoders differ in the last bits of colour
        return
    np.testing.assert_array_equal(ds.pixel_array, expected)
    rendered = render(decode_frame((tmp_path / "out" / f"{name}.dcm").read_bytes()))
    spread = (expected - expected.min()) / np.ptp(expected) if ds.BitsAllocated == 16 else expected / 255
    np.testing.assert_allclose(rendered, spread, atol=0.01)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize(
    "stated",
    [
        Stated(),
        CHEST,
        Stated(modality="DX", body_part="CHEST", view="PA", burned_in="NO"),
        Stated(modality="CR", body_part="CHEST", view="LL", collection="north", burned_in="YES"),
        Stated(modality="CR", body_part="KNEE"),
    ],
)
def test_every_object_is_valid(tmp_path: Path, stated: Stated) -> None:
    put(tmp_path / "in", KINDS)
    rows = "".join(f"{name},7,2,M,40,0.2\n" for name in KINDS)
    for table in (None, "image,patient_id,study,sex,age,pixel_spacing\n" + rows):
        run(tmp_path, table, stated)
        for path in (tmp_path / "out").glob("*.dcm"):
            done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, timeout=60, check=False)
            assert not [line for line in done.stderr.splitlines() if line.startswith("Error")], path.name


def test_only_a_film_of_which_all_is_known_is_called_a_digital_xray(tmp_path: Path) -> None:
    put(tmp_path / "in", {"a.png": encoded(grey()), "c.png": encoded(colour())})
    whole = {"image": "a.png", "modality": "DX", "body_part": "CHEST", "view": "PA", "pixel_spacing": "0.2"}
    for missing in (None, *list(whole)[1:]):
        cells = {name: "" if name == missing else value for name, value in whole.items()}
        table = ",".join(cells) + "\n" + ",".join(cells.values()) + "\n"
        run(tmp_path, table, Stated(burned_in="NO"))
        is_film = "Digital X-Ray" in read(tmp_path, "a.png").SOPClassUID.name
        assert is_film == (missing is None), missing
    run(tmp_path, table.replace("a.png", "c.png"), Stated(view="PA", modality="DX", body_part="CHEST", burned_in="NO"))
    assert "Secondary" in read(tmp_path, "c.png").SOPClassUID.name


def test_bad_pictures_are_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    put(
        tmp_path / "in",
        {"good.png": encoded(grey()), "half.png": encoded(grey())[:99], "empty.jpg": b"", "._x.png": b"x"},
    )
    conversion = run(tmp_path)
    assert (conversion.made, conversion.is_complete) == (1, False)
    wrong = {picture.name: picture.issues[0] for picture in conversion.pictures if not picture.uid}
    assert {name: issue.reason for name, issue in wrong.items()} == {
        "half.png": Reason.PIXEL_UNDECODABLE,
        "empty.jpg": Reason.EMPTY,
    }
    assert all(issue.severity is Severity.ERROR and ".png" not in issue.message for issue in wrong.values())
    with (tmp_path / "out" / REPORT).open(newline="") as stream:
        report = {row["picture"]: row for row in csv.DictReader(stream)}
    assert report["good.png"]["sop_instance_uid"] == read(tmp_path, "good.png").SOPInstanceUID
    assert "pixel_undecodable" in report["half.png"]["issues"]


def test_a_second_run_makes_the_same_objects_and_writes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "in", KINDS)
    run(tmp_path)
    before = contents(tmp_path / "out")
    written: list[str] = []

    def write(path: Path, data: bytes) -> None:
        written.append(path.name)
        write_atomically(path, data)

    monkeypatch.setattr(conversion_folder, "write_atomically", write)
    run(tmp_path)
    assert written == [REPORT]
    assert contents(tmp_path / "out") == before
    shutil.rmtree(tmp_path / "out")
    run(tmp_path)
    assert contents(tmp_path / "out") == before


def test_a_run_that_was_stopped_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "in", KINDS)
    run(tmp_path)
    whole = contents(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")

    def write(path: Path, data: bytes) -> None:
        if path.name == "half.jpg.dcm":
            raise KeyboardInterrupt
        write_atomically(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(conversion_folder, "write_atomically", write)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert 0 < len(contents(tmp_path / "out")) < len(whole)
    run(tmp_path)
    assert contents(tmp_path / "out") == whole


def test_the_same_picture_of_one_patient_is_one_instance_and_of_two_patients_two(tmp_path: Path) -> None:
    put(tmp_path / "in", {f"{name}.png": encoded(grey()) for name in "abc"})
    table = "image,patient_id,study\na.png,1,x\nb.png,1,x\nc.png,2,x\n"
    run(tmp_path, table)
    a, b, c = ((tmp_path / "out" / f"{name}.png.dcm").read_bytes() for name in "abc")
    assert a == b
    assert read(tmp_path, "a.png").SOPInstanceUID != read(tmp_path, "c.png").SOPInstanceUID
    assert c


def test_what_the_table_says_anew_gives_another_instance_in_the_same_place(tmp_path: Path) -> None:
    put(tmp_path / "in", {"a.png": encoded(grey())})
    uids = []
    for sex in "MF":
        run(tmp_path, f"image,patient_id,sex\na.png,1,{sex}\n")
        uids.append(read(tmp_path, "a.png").SOPInstanceUID)
        assert read(tmp_path, "a.png").PatientSex == sex
    assert uids[0] != uids[1]


def test_an_object_whose_picture_is_gone_goes_and_nothing_else_does(tmp_path: Path) -> None:
    put(tmp_path / "in", {"a.png": encoded(grey()), "b.png": encoded(grey(seed=1))})
    run(tmp_path)
    put(tmp_path / "out", {"mine.dcm": b"not made here"})
    (tmp_path / "in" / "b.png").unlink()
    assert run(tmp_path).removed == 1
    assert set(contents(tmp_path / "out")) == {"a.png.dcm", "mine.dcm", REPORT}


def test_pictures_that_the_table_does_not_name_are_left_out_and_told(tmp_path: Path) -> None:
    put(tmp_path / "in", {"a.png": encoded(grey()), "x/b.png": encoded(grey()), "y/b.png": encoded(grey())})
    conversion = run(tmp_path, "image,patient_id\na.png,1\nb.png,1\n,1\n" + "a.png," + "9" * 65 + "\n")
    assert (conversion.made, conversion.unlisted, conversion.missing, len(conversion.table_issues)) == (1, 2, 1, 2)
    assert not conversion.is_complete


@pytest.mark.parametrize(
    ("files", "table", "out", "message"),
    [
        ({"a.txt": b""}, None, "out", "no PNG or JPEG file"),
        ({"a.png": b""}, "name,sex\na.png,M\n", "out", "no column that names pictures"),
        ({"a.png": b""}, "image,sex\nb.png,M\n", "out", "names none of the pictures"),
        ({"a.png": b""}, None, "in/out", "must not go into the folder"),
    ],
)
def test_a_wrong_call_is_told_before_anything_is_written(
    tmp_path: Path, files: dict[str, bytes], table: str | None, out: str, message: str
) -> None:
    put(tmp_path / "in", files)
    given = CsvTable(table.encode()) if table else None
    with pytest.raises(ConfigurationError, match=message):
        convert_folder(tmp_path / "in", tmp_path / out, given, Stated(), workers=1)
    assert not (tmp_path / out).exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("58", "058Y"),
        ("058Y", "058Y"),
        ("3 months", "003M"),
        ("12 d", "012D"),
        ("61.5", "061Y"),
        ("old", None),
        ("", None),
    ],
)
def test_ages_are_understood_as_they_are_written(text: str, expected: str | None) -> None:
    assert age_string(text) == expected
