from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.objects.dicomdir import MEDIA_STORAGE_DIRECTORY, Dicomdir
from imaging_pipeline.objects.folder import Folder, path_to_uri, uri_to_path
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.source import ABSENT
from imaging_pipeline.sources import SourceConfig, SourceKind

NOW = datetime.now(UTC)
MEDIUM = Path(str(get_testdata_file("DICOMDIR"))).parent


def dicomdir(path: Path, **more: object) -> Dicomdir:
    values = {"minimum_age_seconds": 0.0, **more}
    return Dicomdir(SourceConfig("site", str(path), SourceKind.DICOMDIR, **values))  # type: ignore[arg-type]


def listed(source: Dicomdir) -> list[ObjectVersion]:
    return [entry for page in source.pages(None, NOW) for entry in page.objects]


def record(file_id: bytes | None, in_use: int = 0xFFFF, kind: str = "IMAGE") -> Dataset:
    made = Dataset()
    made.OffsetOfTheNextDirectoryRecord = 0
    made.RecordInUseFlag = in_use
    made.OffsetOfReferencedLowerLevelDirectoryEntity = 0
    made.DirectoryRecordType = kind
    if file_id is not None:
        made.add_new(0x00041500, "LO", file_id.decode("latin-1").split("\\"))
        made["ReferencedFileID"].VR = "CS"
    return made


def medium(root: Path, file_ids: Sequence[bytes | None], files: Sequence[bytes] = ()) -> Path:
    """A DICOMDIR of these File IDs, with these files beside it."""
    root.mkdir(exist_ok=True)
    return write(root, [record(file_id) for file_id in file_ids], files)


def write(root: Path, records: Sequence[Dataset], files: Sequence[bytes] = (), *, is_undefined: bool = False) -> Path:
    for name in files:
        path = Path(os.fsdecode(os.fsencode(root) + b"/" + name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(MEDIA_STORAGE_DIRECTORY.decode())
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(root / "DICOMDIR"), {}, file_meta=meta, preamble=bytes(128))
    dataset.FileSetID = "TEST"
    dataset.DirectoryRecordSequence = list(records)
    dataset["DirectoryRecordSequence"].is_undefined_length = is_undefined
    for each in records:
        each.is_undefined_length_sequence_item = is_undefined
    dataset.save_as(root / "DICOMDIR", enforce_file_format=True)
    return root / "DICOMDIR"


@pytest.mark.parametrize(
    "name", ["DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-implicit", "DICOMDIR-nopatient",
             "DICOMDIR-reordered"],
)  # fmt: skip
def test_a_real_medium_is_listed_by_its_directory(name: str) -> None:
    source = dicomdir(MEDIUM / name)
    on_disk = Folder(SourceConfig("site", str(MEDIUM), include=("77654033/**", "9889200?/**"), minimum_age_seconds=0.0))
    assert listed(source) == list(on_disk.list(NOW))
    assert len(listed(source)) == 31
    assert source.prefix == on_disk.prefix
    assert all(source.selects(entry.uri) and source.stat(entry.uri) == entry for entry in listed(source))
    assert not source.selects(path_to_uri(MEDIUM / "DICOMDIR"))


def test_a_directory_of_files_that_are_gone_lists_them_as_absent(tmp_path: Path) -> None:
    path = Path(shutil.copy(MEDIUM / "TINY_ALPHA" / "DICOMDIR", tmp_path.resolve()))
    found = listed(dicomdir(path))
    assert {entry.version for entry in found} == {ABSENT}
    assert len(found) == 50
    assert found[0].uri == path_to_uri(path.parent / "PT000000/ST000000/SE000000/IM000000")


def test_an_empty_directory_lists_nothing() -> None:
    (page,) = dicomdir(MEDIUM / "DICOMDIR-empty.dcm").pages(None, NOW)
    assert (page.objects, page.upto) == ((), None)


def test_names_are_found_as_media_really_give_them(tmp_path: Path) -> None:
    pairs = {
        b"DICOM\\IM1": b"dicom/im1", b"DICOM\\IM2": b"dicom/IM2.dcm", b"DICOM\\IM3": b"dicom/im3.;1",
        b"DICOM\\IM4.DCM": b"dicom/im4", b"DICOM\\IM5": b"dicom/IM5;1", b"A\\B": b"A/B", b"A\\\xc4": b"A/\xc4",
    }  # fmt: skip
    found = listed(dicomdir(medium(tmp_path, list(pairs), list(pairs.values()))))
    assert {os.fsencode(uri_to_path(entry.uri).relative_to(tmp_path.resolve())) for entry in found} == set(
        pairs.values()
    )
    assert ABSENT not in {entry.version for entry in found}


def test_the_name_as_written_goes_before_its_twins_and_several_twins_are_none(tmp_path: Path) -> None:
    files = [b"IM1", b"im1", b"IM1.dcm", b"im2", b"Im2", b"im3", b"IM3.dcm"]
    found = listed(dicomdir(medium(tmp_path, [b"IM1", b"IM2", b"IM3", b"IM4"], files)))
    assert {(entry.name, entry.version == ABSENT) for entry in found} == {
        ("IM1", False), ("IM2", True), ("im3", False), ("IM4", True),
    }  # fmt: skip


def test_a_file_named_by_two_records_is_one_object(tmp_path: Path) -> None:
    assert [entry.name for entry in listed(dicomdir(medium(tmp_path, [b"IM1", b"im1", b"IM1 "], [b"IM1"])))] == ["IM1"]


def test_inactive_records_are_skipped(tmp_path: Path) -> None:
    path = write(tmp_path, [record(b"IM1"), record(b"IM2", in_use=0), record(None, kind="PATIENT")], [b"IM1", b"IM2"])
    assert [entry.name for entry in listed(dicomdir(path))] == ["IM1"]


@pytest.mark.parametrize(
    "file_id",
    [b"..\\outside", b"..\\..\\etc\\passwd", b"../outside", b"A\\..\\..\\outside", b"/etc/passwd", b"\\outside",
     b"A\\.\\..", b"IM1\0X", b"..", b"A/../../outside"],
)  # fmt: skip
def test_a_file_id_that_is_not_legal_is_an_object_that_leads_nowhere(tmp_path: Path, file_id: bytes) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    path = medium(tmp_path / "medium", [b"IM1", file_id], [b"IM1", b"A/x"])
    source = dicomdir(path)
    found = listed(source)
    assert len(found) == 2
    (odd,) = (entry for entry in found if entry.name != "IM1")
    assert odd.version == ABSENT
    assert odd.uri.startswith(source.prefix)
    leads_to = Path(os.path.normpath(uri_to_path(odd.uri)))
    assert leads_to.is_relative_to((tmp_path / "medium").resolve())
    assert not leads_to.exists()
    assert source.stat(odd.uri) is None


def test_links_on_a_medium_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    path = medium(tmp_path / "medium", [b"IM1", b"DIR\\outside"])
    (tmp_path / "medium" / "IM1").symlink_to(tmp_path / "outside")
    (tmp_path / "medium" / "DIR").symlink_to(tmp_path)
    assert {entry.version for entry in listed(dicomdir(path))} == {ABSENT}
    assert ABSENT not in {entry.version for entry in listed(dicomdir(path, follow_links=True))}


@pytest.mark.parametrize("is_undefined", [False, True])
def test_a_directory_cut_off_anywhere_is_said(tmp_path: Path, is_undefined: bool) -> None:
    path = write(tmp_path, [record(b"IM%d" % n) for n in range(6)], is_undefined=is_undefined)
    assert len(listed(dicomdir(path))) == 6
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ConfigurationError, match="site"):
            listed(dicomdir(path))


def test_a_record_that_lost_its_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="damaged"):
        listed(dicomdir(medium(tmp_path, [b"IM1", None])))


@pytest.mark.parametrize("content", [b"", b"no dicom at all" * 50, bytes(128) + b"DICM"])
def test_what_is_no_directory_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "DICOMDIR").write_bytes(content)
    with pytest.raises(ConfigurationError, match="damaged"):
        listed(dicomdir(tmp_path / "DICOMDIR"))


def test_a_directory_whose_lengths_contradict_each_other_is_said() -> None:
    with pytest.raises(ConfigurationError, match="damaged"):
        listed(dicomdir(MEDIUM / "DICOMDIR-nooffset"))  # its last item is longer than the sequence that holds it


def test_another_dicom_file_is_no_directory() -> None:
    with pytest.raises(ConfigurationError, match="damaged"):
        listed(dicomdir(Path(str(get_testdata_file("CT_small.dcm")))))


def test_a_missing_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="site"):
        listed(dicomdir(tmp_path / "DICOMDIR"))


def test_a_directory_that_is_being_written_waits(tmp_path: Path) -> None:
    shutil.copy(MEDIUM / "DICOMDIR", tmp_path / "DICOMDIR")
    with pytest.raises(TransientError, match="site"):
        list(dicomdir(tmp_path / "DICOMDIR", minimum_age_seconds=60.0).pages(None, datetime.now(UTC)))


def test_no_flipped_byte_loses_a_file(tmp_path: Path) -> None:
    whole = (MEDIUM / "DICOMDIR").read_bytes()
    for at in range(132, 2_400, 3):
        (tmp_path / "DICOMDIR").write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            assert len(listed(dicomdir(tmp_path / "DICOMDIR"))) >= 30
        except ConfigurationError:
            continue
