"""Scores of files that are in no lake: the same as in the lake, a row for every file, a table or none."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path
from urllib.parse import unquote, urlparse

import mlflow
import numpy as np
import pytest
from pydicom.data import get_testdata_file

from imaging_pipeline.cli import main
from imaging_pipeline.conversion.header import Origin, to_dicom
from imaging_pipeline.conversion.picture import read_picture
from imaging_pipeline.conversion.picture_table import Facts
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pneumonia.film import Film, NoFilm, films_of
from imaging_pipeline.pneumonia.model_files import read_folder
from imaging_pipeline.pneumonia.prediction import Predictor, load_champion
from imaging_pipeline.pneumonia.standalone import COLUMNS, Predicted, predict_files
from imaging_pipeline.tensors.build import TensorSource, build_tensor
from imaging_pipeline.tensors.recipe import FrameChoice
from imaging_pipeline.tensors.shards import TensorRow
from imaging_pipeline_tests.conversion.pictures import encoded, grey
from imaging_pipeline_tests.dicom.images import image
from imaging_pipeline_tests.pneumonia.learned import LearnedModel
from imaging_pipeline_tests.tensors.rows import radiograph, small_recipe


@pytest.fixture(scope="module")
def predictor(learned_model: LearnedModel) -> Predictor:
    found = load_champion(learned_model.tracker)
    assert found is not None
    return found


@pytest.fixture
def model_folder(learned_model: LearnedModel) -> Path:
    client = mlflow.MlflowClient(learned_model.tracker.tracking_uri, learned_model.tracker.tracking_uri)
    location = client.get_logged_model(learned_model.learned.model.model_id).artifact_location
    return Path(unquote(urlparse(location).path))


def table(out: Path) -> dict[str, dict[str, str]]:
    with out.open(newline="") as stream:
        reader = csv.DictReader(stream)
        assert tuple(reader.fieldnames or ()) == COLUMNS
        return {Path(row["path"]).name: row for row in reader}


def predicted(places: list[Path], out: Path, predictor: Predictor) -> tuple[Predicted, dict[str, dict[str, str]]]:
    counts = predict_files([str(place) for place in places], out, predictor, "pneumonia/1", workers=2)
    return counts, table(out)


def lake_score(data: bytes, predictor: Predictor) -> float:
    assert predictor.recipe is not None
    made = build_tensor(TensorSource("instance", "2.25.1", "patient"), data, predictor.recipe)
    assert isinstance(made, TensorRow)
    return float(predictor.predict(made.array[np.newaxis]).probabilities[0])


def test_a_film_has_the_score_it_has_in_the_lake_in_every_form(tmp_path: Path, predictor: Predictor) -> None:
    folder = tmp_path / "films" / "deep"
    folder.mkdir(parents=True)
    picture = grey(rows=60, columns=48)
    forms = {
        "film.dcm": radiograph(1),
        "no_suffix": radiograph(2),
        "bare": radiograph(3)[132:],
        "picture.png": encoded(picture),
        "picture.jpg": encoded(picture, "JPEG", quality=90),
        "sixteen.png": encoded(grey(16)),
    }
    for name, data in forms.items():
        (folder / name).write_bytes(data)
    with zipfile.ZipFile(folder.parent / "more.zip", "w") as archive:
        archive.writestr("inner/zipped.dcm", radiograph(1))
    counts, rows = predicted([folder.parent], tmp_path / "scores.csv", predictor)
    assert counts.rows == len(rows) == len(forms) + 1
    assert counts.unreadable == 0
    for name, data in forms.items():
        as_object = data
        if "." in name and not name.endswith(".dcm"):
            as_object = to_dicom(read_picture(data), Origin(Facts(name), "ab" * 32))
        assert float(rows[name]["score"]) == pytest.approx(lake_score(as_object, predictor), abs=1e-6), name
        assert rows[name]["flag"] == ("POSITIVE" if float(rows[name]["score"]) >= predictor.threshold else "NEGATIVE")
        assert 0 <= float(rows[name]["uncertainty"]) <= 0.5
        assert rows[name]["model_version"] == "pneumonia/1"
    assert rows["zipped.dcm"]["score"] == rows["film.dcm"]["score"]
    assert rows["zipped.dcm"]["path"] == f"{folder.parent / 'more.zip'}!inner/zipped.dcm"


def test_a_bad_file_is_a_row_with_its_reason_and_the_others_are_scored(tmp_path: Path, predictor: Predictor) -> None:
    films = tmp_path / "films"
    films.mkdir()
    whole = radiograph(1)
    bad = {
        "empty.dcm": (b"", "empty"),
        "notes.txt": (b"films of the ward\n" * 40, "not_dicom"),
        "cut.dcm": (whole[: len(whole) // 2], None),
        "cut.png": (encoded(grey())[:200], "pixel_undecodable"),
        "ct.dcm": (image(np.zeros((8, 8), np.uint8), Modality="CT"), "not_selected"),
        "hand.dcm": (image(np.zeros((8, 8), np.uint8), BodyPartExamined="HAND"), "not_selected"),
        "broken.zip": (b"PK\x03\x04 no archive", None),
    }
    for name, (data, _) in bad.items():
        (films / name).write_bytes(data)
    (films / "good.dcm").write_bytes(whole)
    counts, rows = predicted([films], tmp_path / "scores.csv", predictor)
    assert set(rows) == {*bad, "good.dcm"}
    for name, (_, reason) in bad.items():
        assert (rows[name]["flag"], rows[name]["score"], rows[name]["uncertainty"]) == ("NO_ANSWER", "", ""), name
        assert rows[name]["reason"], name
        assert reason is None or rows[name]["reason"] == reason, name
    assert rows["good.dcm"]["flag"] in {"POSITIVE", "NEGATIVE"}
    assert counts.unreadable == len(bad) - 2, "a CT slice and a hand were read, and are no films of chests"


def test_every_frame_the_recipe_takes_has_a_row() -> None:
    recipe = small_recipe(frames=FrameChoice.ALL)
    data = image(np.random.default_rng(1).integers(0, 255, (3, 10, 8)).astype(np.uint8))
    found = films_of(data, recipe)
    assert [film.frame for film in found] == [1, 2, 3]
    assert all(isinstance(film, Film) and film.image.shape == recipe.shape for film in found)
    (first,) = films_of(data, small_recipe())
    assert first.frame == 1


def test_an_object_without_pixels_is_no_film() -> None:
    path = get_testdata_file("reportsi.dcm")
    assert isinstance(path, str)
    (found,) = films_of(Path(path).read_bytes(), small_recipe())
    assert isinstance(found, NoFilm)
    assert found.reason == "pixel_unsupported"


def test_a_run_that_stops_leaves_the_table_that_was_there(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "films" / "scores.csv"
    out.parent.mkdir()
    (out.parent / "film.dcm").write_bytes(radiograph(1))
    predicted([out.parent], out, predictor)
    before = out.read_bytes()
    _, rows = predicted([out.parent], out, predictor)
    assert (out.read_bytes(), set(rows)) == (before, {"film.dcm"}), "the table itself is no film"

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Predictor, "predict", killed)
    with pytest.raises(KeyboardInterrupt):
        predicted([out.parent], out, predictor)
    assert out.read_bytes() == before
    assert {path.name for path in out.parent.iterdir()} == {"film.dcm", "scores.csv"}


def test_a_model_in_a_folder_is_the_registered_one(model_folder: Path, predictor: Predictor) -> None:
    for folder in (model_folder, model_folder / "weights"):
        stored, digest = read_folder(folder)
        assert len(digest) == 64
        assert stored.recipe == predictor.recipe
        images = np.random.default_rng(1).uniform(0, 1, (4, 1, 32, 32)).astype(np.float32)
        said = Predictor.of(stored, None).predict(images)
        assert np.array_equal(said.probabilities, predictor.predict(images).probabilities, equal_nan=True)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]"])
def test_a_folder_without_a_model_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "settings.json").write_bytes(content)
        (tmp_path / "state_dict.pt").write_bytes(content)
    with pytest.raises(ConfigurationError, match="state_dict"):
        read_folder(tmp_path)


def test_the_command_needs_neither_lake_nor_key(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, film = tmp_path / "home", tmp_path / "JONES_MARY.dcm"
    film.write_bytes(radiograph(1))
    monkeypatch.setenv("IMAGING_PIPELINE_HOME", str(home))
    out = tmp_path / "scores.csv"
    options = ["--out", str(out), "--model", str(model_folder), "--workers", "1"]
    assert main(["predict", str(film), *options]) == 0
    assert not home.exists()
    (row,) = table(out).values()
    assert row["model_version"].startswith("sha256:")
    printed = capsys.readouterr()
    assert "rows 1 = " in printed.out
    assert "JONES" not in printed.out + printed.err, "names of files are in the table alone"
    (tmp_path / "bad.dcm").write_bytes(b"")
    assert main(["predict", str(film), str(tmp_path / "bad.dcm"), *options]) == 1
    assert main(["predict", str(tmp_path / "nowhere"), *options]) == 2
    assert "nowhere" not in capsys.readouterr().err


def test_a_registered_model_is_found_by_alias_and_by_version(learned_model: LearnedModel, tmp_path: Path) -> None:
    tracker, model = learned_model.tracker, learned_model.learned.model
    assert tracker.resolve("models:/pneumonia@champion") == tracker.resolve("models:/pneumonia/1") == model
    for unknown in ("models:/pneumonia/99", "models:/pneumonia@none", "models:/other@champion", "models:/other/1"):
        with pytest.raises(ConfigurationError, match="there is no model"):
            tracker.resolve(unknown)
    with pytest.raises(ConfigurationError, match="expected models:"):
        tracker.resolve("runs:/1/model")
