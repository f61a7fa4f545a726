"""The sample landing folder."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import pydicom
import pytest

from imaging_pipeline.samples.landing import (
    ARCHIVE_NAME,
    LABEL_COLUMNS,
    LABELS_NAME,
    SampleLanding,
    new_study,
    read_targets,
    write_sample_landing,
)

PATIENTS, SIZE, SEED = 16, 96, 7


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> SampleLanding:
    return write_sample_landing(tmp_path_factory.mktemp("landing"), patients=PATIENTS, size=SIZE, seed=SEED)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def archived(landing: SampleLanding) -> dict[str, bytes]:
    with zipfile.ZipFile(landing.folder / ARCHIVE_NAME) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_counts_agree_with_the_folder(landing: SampleLanding) -> None:
    content = files(landing.folder)
    loose = [name for name in content if name.startswith("phantoms/")]
    assert landing.patients == PATIENTS
    assert len(loose) + landing.archived_images == landing.images
    assert len(archived(landing)) == landing.archived_images
    assert sum(name.startswith("pydicom/") for name in content) == landing.pydicom_files
    assert len(content) == landing.written_files
    assert not [name for name in content if Path(name).name.startswith(".")]


def test_another_run_with_the_same_seed_gives_the_same_bytes(landing: SampleLanding, tmp_path: Path) -> None:
    write_sample_landing(tmp_path, patients=PATIENTS, size=SIZE, seed=SEED)
    assert files(tmp_path) == files(landing.folder)


def test_a_second_call_touches_nothing(landing: SampleLanding) -> None:
    before = times(landing.folder)
    again = write_sample_landing(landing.folder, patients=PATIENTS, size=SIZE, seed=SEED)
    assert times(landing.folder) == before
    assert again.written_files == 0
    assert again.images == landing.images
    assert again.pneumonia_images == landing.pneumonia_images


def test_an_interrupted_landing_is_completed_without_rewriting_the_rest(tmp_path: Path) -> None:
    write_sample_landing(tmp_path, patients=3, size=SIZE)
    victim = sorted((tmp_path / "phantoms").iterdir())[0]
    content = victim.read_bytes()
    victim.unlink()
    (tmp_path / LABELS_NAME).unlink()
    before = times(tmp_path)
    assert write_sample_landing(tmp_path, patients=3, size=SIZE).written_files == 2
    assert victim.read_bytes() == content
    assert {path: time for path, time in times(tmp_path).items() if path in before} == before


def test_every_phantom_is_labelled_and_every_label_has_its_phantom(landing: SampleLanding) -> None:
    stems = {path.stem for path in (landing.folder / "phantoms").iterdir()} | {Path(n).stem for n in archived(landing)}
    targets = read_targets(landing.labels)
    assert set(targets) == stems
    assert sum(targets.values()) == landing.pneumonia_images
    assert 0 < landing.pneumonia_images < landing.images


def test_labels_follow_the_format_of_the_challenge(landing: SampleLanding) -> None:
    assert landing.labels.name == "stage_2_train_labels.csv"
    with landing.labels.open(newline="") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
    assert tuple(reader.fieldnames or ()) == LABEL_COLUMNS
    for row in rows:
        corner = [row[name] for name in ("x", "y", "width", "height")]
        if row["Target"] == "0":
            assert corner == ["", "", "", ""]
        else:
            x, y, width, height = (int(value) for value in corner)
            assert 0 <= x < x + width <= SIZE
            assert 0 <= y < y + height <= SIZE


def test_archived_patients_are_not_among_the_loose_ones(landing: SampleLanding) -> None:
    loose = {pydicom.dcmread(path).PatientID for path in (landing.folder / "phantoms").iterdir()}
    packed = {pydicom.dcmread(io.BytesIO(content)).PatientID for content in archived(landing).values()}
    assert packed
    assert not loose & packed
    assert len(loose | packed) == PATIENTS


def test_archive_members_lie_in_nested_folders_and_read_with_their_pixels(landing: SampleLanding) -> None:
    for name, content in archived(landing).items():
        assert name.count("/") >= 3
        assert pydicom.dcmread(io.BytesIO(content)).pixel_array.shape[0] == SIZE


def test_the_odd_objects_of_pydicom_are_there(landing: SampleLanding) -> None:
    folder = landing.folder / "pydicom"
    source = Path(pydicom.__file__).parent / "data"
    for name in (
        "test_files/MR_truncated.dcm",
        "test_files/no_meta.dcm",
        "test_files/dicomdirtests/DICOMDIR",
        "test_files/dicomdirtests/77654033/CR1/6154",
        "charset_files/chrH31.dcm",
        "palettes/hotiron.dcm",
    ):
        assert (folder / name).read_bytes() == (source / name).read_bytes()
    assert not [path for path in folder.rglob("*") if path.suffix in {".txt", ".json", ".py", ".md"}]


def test_progress_counts_up_to_the_number_of_images(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    made = write_sample_landing(
        tmp_path, patients=2, size=SIZE, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(done, made.images) for done in range(1, made.images + 1)]


def test_no_patients_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one patient"):
        write_sample_landing(tmp_path, patients=0)


def test_a_new_study_is_a_new_patient_and_leaves_labels_alone(landing: SampleLanding) -> None:
    labels = landing.labels.read_bytes()
    known = {pydicom.dcmread(path).PatientID for path in (landing.folder / "phantoms").iterdir()}
    path = new_study(landing.folder, seed=3, size=SIZE)
    content = path.read_bytes()
    ds = pydicom.dcmread(path)
    assert path.parent == landing.folder / "phantoms"
    assert ds.pixel_array.shape[0] == SIZE
    assert ds.PatientID not in known
    assert path.stem not in read_targets(landing.labels)
    assert landing.labels.read_bytes() == labels
    assert new_study(landing.folder, seed=3, size=SIZE).read_bytes() == content
    assert new_study(landing.folder, seed=4, size=SIZE) != path
    for seed in (3, 4):
        new_study(landing.folder, seed=seed, size=SIZE).unlink()
