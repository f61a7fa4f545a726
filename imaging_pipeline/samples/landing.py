"""A landing folder as a hospital would fill it: loose objects, an archive, odd files, and the labels beside them.

Owns the folder's layout and how files get there (whole or not at all, and never twice). Does not decide what a
phantom looks like or what is in its header.

Layout::

    phantoms/<stem>.dcm           chest phantoms
    studies.zip                   phantoms of further patients, in nested folders
    pydicom/...                   the real objects that ship with pydicom, broken ones included
    stage_2_train_labels.csv      labels of all phantoms, in the format of the RSNA Pneumonia Detection Challenge
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pydicom

from imaging_pipeline.objects.writing import write_atomically
from imaging_pipeline.samples.phantoms import ImagePlan, PhantomImage, make_image, plan_patient
from imaging_pipeline.samples.sites import digest

PHANTOM_FOLDER, PYDICOM_FOLDER, ARCHIVE_NAME = "phantoms", "pydicom", "studies.zip"

LABELS_NAME = "stage_2_train_labels.csv"
LABEL_COLUMNS = ("patientId", "x", "y", "width", "height", "Target")
"""Columns of the challenge; patientId names the image, one row a box, no box when Target is 0."""

ARCHIVED_SHARE = 8
"""One patient in so many goes into the archive."""

ARCHIVE_TIME = (2020, 1, 1, 0, 0, 0)
"""Time of every archive member, so that the archive has the same bytes whenever it is made."""

FRESH_PATIENTS = 1_000_000
"""Numbers from here on are patients of ``new_study``, never of a landing."""


@dataclass(frozen=True, slots=True)
class SampleLanding:
    """What a sample landing holds.

    Attributes:
        folder: root of the landing.
        labels: the label file.
        patients: phantom patients, archived ones included.
        studies: their studies.
        images: their images.
        archived_images: how many of the images lie in the archive.
        pneumonia_images: images with at least one box.
        pydicom_files: copies of the objects that ship with pydicom.
        written_files: files this call wrote; 0 when all was there.
    """

    folder: Path
    labels: Path
    patients: int
    studies: int
    images: int
    archived_images: int
    pneumonia_images: int
    pydicom_files: int
    written_files: int


def write_sample_landing(
    folder: Path,
    *,
    patients: int = 160,
    size: int = 320,
    seed: int = 7,
    progress: Callable[[int, int], None] | None = None,
) -> SampleLanding:
    """Fill a folder with sample input; files already there with the same content are left untouched.

    The label file is written last. When it lists all images of this seed and they all exist, no image is drawn again,
    so a second call takes a moment.

    Args:
        folder: made when missing.
        patients: how many phantom patients; each has about 1.75 studies and 2.6 images.
        size: rows of each phantom, in pixels.
        seed: same seed, same bytes.
        progress: called with images done and images in all; not at all when nothing has to be drawn.

    Raises:
        ValueError: size is below 96 pixels or patients below 1.
        OSError: the folder cannot be written.
    """
    if patients < 1:
        message = f"a sample landing needs at least one patient, {patients} were asked for"
        raise ValueError(message)
    loose_patients = patients - patients // ARCHIVED_SHARE
    loose = [plan for number in range(loose_patients) for plan in plan_patient(seed, number, size)]
    archived = [plan for number in range(loose_patients, patients) for plan in plan_patient(seed, number, size)]
    written = _copy_pydicom_files(folder / PYDICOM_FOLDER)
    labels = folder / LABELS_NAME
    if not _is_complete(folder, loose, archived):
        written += _write_phantoms(folder, loose, archived, progress)
    return SampleLanding(
        folder=folder,
        labels=labels,
        patients=patients,
        studies=len({plan.study.key for plan in chain(loose, archived)}),
        images=len(loose) + len(archived),
        archived_images=len(archived),
        pneumonia_images=sum(1 for target in read_targets(labels).values() if target),
        pydicom_files=len(_pydicom_files()),
        written_files=written,
    )


def new_study(folder: Path, seed: int, *, size: int = 320) -> Path:
    """Drop one fresh, unlabelled phantom into a landing folder and return its path.

    Other seeds give other patients; none of them is a patient of ``write_sample_landing``.
    """
    plan = next(plan_patient(seed, FRESH_PATIENTS + seed, size))
    path = _loose_path(folder, plan)
    _write_if_changed(path, make_image(plan).content)
    return path


def read_targets(labels: Path) -> dict[str, int]:
    """Target (0 or 1) of each image stem in a label file."""
    with labels.open(encoding="ascii", newline="") as stream:
        return {row["patientId"]: int(row["Target"]) for row in csv.DictReader(stream)}


def _write_phantoms(
    folder: Path,
    loose: Sequence[ImagePlan],
    archived: Sequence[ImagePlan],
    progress: Callable[[int, int], None] | None,
) -> int:
    """Draw and write all phantoms, the archive and the labels; returns how many files were written."""
    rows: list[tuple[str | int, ...]] = []
    members: list[tuple[str, bytes]] = []
    written = 0
    total = len(loose) + len(archived)
    for done, plan in enumerate(chain(loose, archived), start=1):
        image = make_image(plan)
        rows.extend(_label_rows(image))
        if done <= len(loose):
            written += _write_if_changed(_loose_path(folder, plan), image.content)
        else:
            members.append((_member_name(plan), image.content))
        if progress is not None:
            progress(done, total)
    if members:
        written += _write_if_changed(folder / ARCHIVE_NAME, _archive(members))
    return written + _write_if_changed(folder / LABELS_NAME, _labels(rows))


def _is_complete(folder: Path, loose: Sequence[ImagePlan], archived: Sequence[ImagePlan]) -> bool:
    """Whether a former call finished: a file name is a digest of all its content follows from, so names suffice."""
    labels = folder / LABELS_NAME
    if not labels.is_file() or (archived and not (folder / ARCHIVE_NAME).is_file()):
        return False
    listed = read_targets(labels).keys()
    return listed == {plan.stem for plan in chain(loose, archived)} and all(
        _loose_path(folder, plan).is_file() for plan in loose
    )


def _loose_path(folder: Path, plan: ImagePlan) -> Path:
    return folder / PHANTOM_FOLDER / f"{plan.stem}.dcm"


def _member_name(plan: ImagePlan) -> str:
    study = plan.study
    return f"{study.start:%Y}/{study.machine.station}/{digest('folder', study.key)[:12]}/{plan.stem}.dcm"


def _label_rows(image: PhantomImage) -> list[tuple[str | int, ...]]:
    if not image.boxes:
        return [(image.stem, "", "", "", "", 0)]
    return [(image.stem, box.x, box.y, box.width, box.height, 1) for box in image.boxes]


def _labels(rows: Sequence[tuple[str | int, ...]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(LABEL_COLUMNS)
    writer.writerows(rows)
    return text.getvalue().encode("ascii")


def _archive(members: Sequence[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name, ARCHIVE_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def _pydicom_files() -> list[tuple[str, Path]]:
    """Relative name and path of each object inside the installed pydicom; asking pydicom for them might download."""
    root = Path(pydicom.__file__).parent / "data"
    paths = chain(*((root / part).rglob("*") for part in ("test_files", "charset_files", "palettes")))
    return sorted((path.relative_to(root).as_posix(), path) for path in paths if path.is_file() and _is_object(path))


def _is_object(path: Path) -> bool:
    """Tell objects from notes; a name ending in .dcm counts, since some broken objects have no DICM prefix."""
    if path.suffix == ".dcm":
        return True
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _copy_pydicom_files(folder: Path) -> int:
    return sum(_write_if_changed(folder / name, path.read_bytes()) for name, path in _pydicom_files())


def _write_if_changed(path: Path, content: bytes) -> bool:
    """Write a file unless it is there already with this content; returns whether it was written."""
    if path.is_file() and path.read_bytes() == content:
        return False
    write_atomically(path, content)
    return True
