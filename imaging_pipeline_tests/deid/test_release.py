"""Batches through the zones: what is taken back, and in which order things are written."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from imaging_pipeline.catalog.bronze import load_bronze
from imaging_pipeline.deid import release
from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline.deid.release import ReleaseCounts, Releaser, release_batch, release_counts
from imaging_pipeline.deid.vault import Vault
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.silver import load_silver
from imaging_pipeline.objects.folder import Folder
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline_tests.deid.corpus import ROOT, chest_film, encode, keys

FIRST, SECOND = "2026-01-31.00001", "2026-01-31.00002"


class Zones:
    """Both lakes, the vault and the folder of released files."""

    def __init__(self, folder: Path, identified: Lake, research: Lake) -> None:
        self.folder = folder
        self.identified = identified
        self.research = research
        self.vault = Vault(folder / "vault" / "vault.sqlite", keys())

    def take_in(self, batch_id: str, **films: dict[str, object]) -> ReleaseCounts:
        """One batch of chest films, by file name."""
        landing = self.folder / "landing" / batch_id
        landing.mkdir(parents=True)
        for name, attributes in films.items():
            (landing / f"{name}.dcm").write_bytes(encode(chest_film(**attributes)))
        manifest = list(Folder(landing, "north").list(datetime.now(UTC)))
        load_bronze(self.identified, batch_id, manifest, ObjectReader(), run_id="run", workers=1)
        load_silver(self.identified, batch_id)
        return self.release(batch_id)

    def release(self, batch_id: str) -> ReleaseCounts:
        releaser = Releaser(load_profile(), keys(), ObjectReader(), self.folder / "files", batch_id)
        return release_batch(self.identified, self.research, self.vault, releaser, workers=1)

    def files(self) -> set[Path]:
        return {path for path in (self.folder / "files").rglob("*") if path.is_file()}

    def named_files(self) -> set[Path]:
        rows = self.research.rows("SELECT storage_uri FROM deid.dicom_file_location")
        return {Path(str(uri).removeprefix("file://")) for (uri,) in rows}


@pytest.fixture
def zones(tmp_path: Path, identified: Lake, research: Lake) -> Zones:
    return Zones(tmp_path, identified, research)


def test_an_object_of_a_corrected_patient_leaves_no_file_under_the_old_pseudonym(zones: Zones) -> None:
    zones.take_in(FIRST, wrong={"PatientID": "MRN-1111111"})
    zones.take_in(SECOND, corrected={"PatientID": "MRN-2222222"})
    assert len(zones.files()) == 1
    assert zones.files() == zones.named_files()
    (path,) = zones.files()
    assert path.is_relative_to(zones.folder / "files" / keys().patient_id("north", "MRN-2222222"))


def test_a_newer_version_that_is_held_takes_the_released_one_back(zones: Zones) -> None:
    zones.take_in(FIRST, seen={})
    counts = zones.take_in(SECOND, corrected={"BurnedInAnnotation": "YES"})
    found = release_counts(zones.identified, zones.research, keys(), SECOND)
    assert (counts.instances, counts.released, counts.held) == (1, 0, 1)
    assert (found.instances, found.released, found.held) == (1, 0, 1)
    assert len(counts.held_keys) == 1
    assert not zones.files()
    for table in ("dicom_instance", "dicom_image_pixel", "dicom_file_location", "deid_verification"):
        assert zones.research.rows(f"SELECT count(*) FROM deid.{table}") == [(0,)]


def test_a_kill_while_a_file_is_taken_back_leaves_none_without_a_row(
    zones: Zones, monkeypatch: pytest.MonkeyPatch
) -> None:
    zones.take_in(FIRST, wrong={"PatientID": "MRN-1111111"})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(release, "write_entities", killed)
        with pytest.raises(KeyboardInterrupt):
            zones.take_in(SECOND, held={"BurnedInAnnotation": "YES"})
    assert zones.files() <= zones.named_files()
    zones.release(SECOND)
    assert zones.files() == zones.named_files() == set()


def test_files_are_written_in_an_order_that_only_the_key_gives(zones: Zones) -> None:
    uids = [f"{ROOT}.3.{number}" for number in range(8)]
    zones.take_in(FIRST, **{f"film{number}": {"SOPInstanceUID": uid} for number, uid in enumerate(uids)})
    written = sorted(zones.files(), key=lambda path: path.stat().st_mtime_ns)
    order = [path.stem.partition("-")[0] for path in written]
    assert order == sorted(order, key=key_of)
    assert sorted(uids, key=key_of) != sorted(uids, key=lambda uid: key_of(keys().uid(uid)))
