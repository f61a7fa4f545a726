"""The command ``import-images``, as a person types it; and what it makes, in the lake."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

from imaging_pipeline.cli import main
from imaging_pipeline_tests.conftest import environment
from imaging_pipeline_tests.conversion.pictures import encoded, grey, put

CXR = Path(__file__).parents[3] / "shared" / "data" / "cxr"

TABLE = (
    "file,source,patient_id,pneumonia,view,sex,age,license,official_split\n"
    "images/a.jpg,north,n-1,1,AP,M,40,CC BY 4.0,train\n"
    "images/b.jpg,north,n-2,0,PA,,1-5 (cohort),CC BY 4.0,test\n"
    "images/c.png,south,s-1,?,PA,F,50,CC0,\n"
)


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three films with a table."""
    for name, value in environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    films = {f"images/{name}.jpg": encoded(grey(seed=seed), "JPEG") for seed, name in enumerate("ab")}
    return put(tmp_path / "in", films | {"images/c.png": encoded(grey(16)), "labels.csv": TABLE.encode()})


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["import-images", *map(str, arguments)])
    told = capsys.readouterr()
    return status, told.out, told.err


def labels(out: Path) -> list[dict[str, str]]:
    with (out / "labels.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_collection_becomes_objects_with_labels_beside_them(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = (collection, "--csv", collection / "labels.csv", "--out", out, "--modality", "DX", "--body-part", "CHEST")
    status, told, _ = run(capsys, *options)
    assert status == 0
    assert "pictures 3 = made 3 + failed 0 + not in the table 0" in told
    assert "1  WARNING   malformed: the age cannot be understood" in told
    assert "labels: 3 of 3 images" in told
    uids = {
        name: pydicom.dcmread(out / "images" / f"{name}.dcm").SOPInstanceUID for name in ("a.jpg", "b.jpg", "c.png")
    }
    said = [(row["sop_instance_uid"], row["label"], row["source"], row["official_split"]) for row in labels(out)]
    assert said == [
        (uids["a.jpg"], "1", "north", "train"),
        (uids["b.jpg"], "0", "north", "test"),
        (uids["c.png"], "uncertain", "south", ""),
    ]


def test_bad_pictures_and_rows_are_told_without_names_and_give_a_status(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(
        collection,
        {"images/b.jpg": b"\xff\xd8\xffbroken", "labels.csv": (TABLE + "images/d.jpg,,,perhaps not\n").encode()},
    )
    status, told, err = run(capsys, collection, "--csv", collection / "labels.csv", "--out", tmp_path / "out")
    assert status == 1
    assert "made 2 + failed 1" in told
    assert "ERROR     truncated" in told
    assert "line 5: expected 9 fields, found 4" in told
    assert not [word for word in ("b.jpg", "d.jpg", "n-2", "perhaps") if word in told + err]
    assert len(labels(tmp_path / "out")) == 2


def test_columns_are_named_by_the_caller_where_the_table_calls_them_otherwise(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "befunde.csv"
    table.write_text("Bild;Nummer;Befund\na.jpg;7;1\n")
    named = ("--column", "image=Bild", "--column", "patient_id=Nummer", "--column", "label=Befund")
    status, told, _ = run(capsys, collection, "--csv", table, "--out", tmp_path / "out", *named, "--collection", "ward")
    assert status == 0
    assert "made 1 + failed 0 + not in the table 2" in told
    assert [(row["label"], row["source"]) for row in labels(tmp_path / "out")] == [("1", "ward")]
    film = pydicom.dcmread(tmp_path / "out" / "images" / "a.jpg.dcm")
    assert (film.PatientID, film.IssuerOfPatientID) == ("7", "ward")


def test_a_table_without_labels_gives_objects_alone(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("image,patient_id\na.jpg,7\n")
    status, told, _ = run(capsys, collection, "--csv", table, "--out", tmp_path / "out")
    assert status == 0
    assert "no column with labels" in told
    assert not (tmp_path / "out" / "labels.csv").exists()


@pytest.mark.parametrize(
    "arguments", [("--csv", "nowhere.csv"), ("--column", "image"), ("--column", "=x"), ("--csv", "images/c.png")]
)
def test_misuse_is_told_and_writes_nothing(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, str]
) -> None:
    option, value = arguments
    given = collection / value if option == "--csv" else value
    status, _, err = run(capsys, collection, "--out", tmp_path / "out", option, given)
    assert status == 2
    assert err.startswith("imaging-pipeline: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--modality=D/X", "--body-part=a\\\\b", "--collection=a\\\\b", "--view=UP"])
def test_options_that_dicom_cannot_hold_are_refused(collection: Path, tmp_path: Path, option: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["import-images", str(collection), "--out", str(tmp_path / "out"), option])
    assert caught.value.code == 2


def test_objects_do_not_depend_on_processes_or_the_clock(collection: Path, tmp_path: Path) -> None:
    made = []
    for number, workers in enumerate(("1", "2")):
        out = tmp_path / f"out{number}"
        command = [sys.executable, "-m", "imaging_pipeline.cli", "import-images", str(collection), "--out", str(out)]
        table = ["--csv", str(collection / "labels.csv"), "--workers", workers]
        zone = {"TZ": ("Asia/Tokyo", "America/Lima")[number], "PYTHONHASHSEED": str(number)}
        subprocess.run([*command, *table], check=True, capture_output=True, env=os.environ | zone, timeout=100)
        made.append({str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert made[0] == made[1]
    assert len(made[0]) == 5


@pytest.mark.skipif(not CXR.is_dir(), reason="the chest films to try things on are not here")
def test_films_of_two_real_collections_are_imported(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (CXR / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    chosen = [row for source in ("nih", "kermany") for row in rows if row["source"] == source][:: len(rows) // 20]
    folder = put(tmp_path / "cxr", {row["file"]: (CXR / row["file"]).read_bytes() for row in chosen})
    options = ("--csv", CXR / "labels.csv", "--out", tmp_path / "out", "--modality", "DX", "--body-part", "CHEST")
    status, told, _ = run(capsys, folder, *options)
    assert status == 0
    assert f"made {len(chosen)} + failed 0" in told
    said = {row["sop_instance_uid"]: row for row in labels(tmp_path / "out")}
    for row in chosen:
        film = pydicom.dcmread(tmp_path / "out" / f"{row['file']}.dcm")
        assert (film.PatientID, film.ViewPosition) == (row["patient_id"], row["view"])
        assert film.PhotometricInterpretation == "MONOCHROME2"
        label = said[film.SOPInstanceUID]
        assert (label["label"], label["official_split"]) == (row["pneumonia"], row["official_split"])
