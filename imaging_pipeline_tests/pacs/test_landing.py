from __future__ import annotations

import shutil
import stat
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from imaging_pipeline.errors import ConfigurationError, PoisonInput, Reason, TransientError
from imaging_pipeline.pacs.landing import Landing, landing_of
from imaging_pipeline.settings import Settings
from imaging_pipeline_tests.conftest import environment, folder

CT = Path(str(get_testdata_file("CT_small.dcm")))
CT_UID = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    (tmp_path / "landing").mkdir()
    return Landing(tmp_path / "landing", 0)


def part_of(landing: Landing, path: Path) -> Path:
    part = landing.part()
    shutil.copyfile(path, part)
    return part


def files(landing: Landing) -> list[Path]:
    return sorted(path for path in landing.folder.rglob("*") if path.is_file())


def test_an_object_lands_byte_for_byte_and_its_name_tells_nothing(landing: Landing) -> None:
    landed = landing.keep(part_of(landing, CT))
    assert landed.is_new
    assert landed.sop_instance_uid == CT_UID
    assert landed.path.read_bytes() == CT.read_bytes()
    assert files(landing) == [landed.path]
    assert CT_UID not in str(landed.path)
    assert stat.S_IMODE(landed.path.stat().st_mode) == 0o600
    assert landing.holds(CT_UID)
    assert not landing.holds("1.2.3")


def test_what_lands_is_what_the_source_lists(landing: Landing) -> None:
    landing.part()
    landed = landing.keep(part_of(landing, CT))
    listed = [entry.uri for entry in folder(landing.folder).list(datetime.now(UTC))]
    assert listed == [f"file://{landed.path}"]


def test_the_same_object_again_changes_nothing_whoever_wrote_its_file(landing: Landing, tmp_path: Path) -> None:
    first = landing.keep(part_of(landing, CT))
    ds = pydicom.dcmread(CT)
    ds.file_meta.ImplementationVersionName = "ANOTHER_WRITER"
    ds.save_as(tmp_path / "again.dcm", enforce_file_format=True)
    again = landing.keep(part_of(landing, tmp_path / "again.dcm"))
    assert not again.is_new
    assert again.path == first.path
    assert files(landing) == [first.path]
    assert first.path.read_bytes() == CT.read_bytes()


def test_other_bytes_under_the_same_uid_are_kept_beside_the_first(landing: Landing, tmp_path: Path) -> None:
    first = landing.keep(part_of(landing, CT))
    ds = pydicom.dcmread(CT)
    ds.PatientComments = "changed"
    ds.save_as(tmp_path / "other.dcm")
    second = landing.keep(part_of(landing, tmp_path / "other.dcm"))
    assert second.is_new
    assert files(landing) == sorted([first.path, second.path])


def test_a_part_on_another_disk_lands_as_well(landing: Landing) -> None:
    memory = Path("/dev/shm")
    if memory.stat().st_dev == landing.folder.stat().st_dev:
        memory = Path("/var/tmp")
    if memory.stat().st_dev == landing.folder.stat().st_dev:
        pytest.skip("there is one disk only")
    elsewhere = Landing(memory, 0).part()
    shutil.copyfile(CT, elsewhere)
    assert landing.keep(elsewhere).path.read_bytes() == CT.read_bytes()
    assert not elsewhere.exists()


@pytest.mark.parametrize(
    ("content", "announced", "reason"),
    [
        (b"x" * 5_000, None, Reason.NOT_DICOM),
        (b"", None, Reason.NOT_DICOM),
        (b"\0" * 128 + b"DICM", None, Reason.MISSING_UID),
        (CT.read_bytes()[:300], None, Reason.MISSING_UID),
        (CT.read_bytes(), "1.2.3", Reason.MALFORMED),
    ],
    ids=["text", "empty", "nothing behind DICM", "cut in the file meta", "announced as another"],
)
def test_what_cannot_be_named_is_refused_and_leaves_nothing(
    landing: Landing, content: bytes, announced: str | None, reason: Reason
) -> None:
    part = landing.part()
    part.write_bytes(content)
    with pytest.raises(PoisonInput) as caught:
        landing.keep(part, announced)
    assert caught.value.reason is reason
    assert CT_UID not in str(caught.value)
    assert files(landing) == []


def test_nothing_is_taken_when_the_disk_is_nearly_full(tmp_path: Path) -> None:
    full = Landing(tmp_path, 1 << 60)
    with pytest.raises(TransientError, match="nearly full"):
        full.part()
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(TransientError, match="nearly full"):
        Landing(tmp_path, 0).refuse_when_full(free + (1 << 30))


def test_a_disk_that_is_not_mounted_is_noticed_and_nothing_is_made_in_its_place(tmp_path: Path) -> None:
    gone = Landing(tmp_path / "mnt", 0)
    with pytest.raises(TransientError, match="mounted"):
        gone.part()
    assert not (tmp_path / "mnt").exists()


def test_a_disk_that_goes_while_an_object_comes_is_noticed(landing: Landing, tmp_path: Path) -> None:
    elsewhere = tmp_path / "part"
    shutil.copyfile(CT, elsewhere)
    landing.folder.rmdir()
    with pytest.raises(TransientError, match="mounted"):
        landing.keep(elsewhere)


@pytest.mark.parametrize(
    ("rule", "is_right"),
    [("include: ['*.DCM']", False), ("exclude: ['a*/**']", False), ("include: ['**/*.dcm']", True)],
)
def test_a_source_that_leaves_out_what_lands_in_it_is_refused(tmp_path: Path, rule: str, is_right: bool) -> None:
    """Peers would be told that their objects are kept, and no run would ever see them."""
    (tmp_path / "sources.yaml").write_text(f"sources: [{{name: hospital, location: {tmp_path}, {rule}}}]")
    settings = Settings.from_environment(environment(tmp_path, SOURCES=str(tmp_path / "sources.yaml")))
    with nullcontext() if is_right else pytest.raises(ConfigurationError, match="leaves out what peers send"):
        landing_of("hospital", settings, 0)


def test_a_peers_source_must_be_a_configured_folder(tmp_path: Path) -> None:
    settings = Settings.from_environment(environment(tmp_path))
    assert landing_of("landing", settings, 0).folder == settings.landing
    with pytest.raises(ConfigurationError, match="no source 'hospital'"):
        landing_of("hospital", settings, 0)
    (tmp_path / "sources.yaml").write_text("sources: [{name: hospital, location: 's3://bucket/x'}]")
    settings = Settings.from_environment(environment(tmp_path, SOURCES=str(tmp_path / "sources.yaml")))
    with pytest.raises(ConfigurationError, match="must be a folder"):
        landing_of("hospital", settings, 0)
