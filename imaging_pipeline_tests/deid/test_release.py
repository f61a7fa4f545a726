"""Batches through the zones: what is taken back, and in which order things are written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imaging_pipeline.catalog.bronze import load_bronze
from imaging_pipeline.deid import release, rows
from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline.deid.release import ReleaseCounts, Releaser, release_batch, release_counts
from imaging_pipeline.deid.vault import Vault
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.changes import read_changes
from imaging_pipeline.metadata.quality import count_violations
from imaging_pipeline.metadata.silver import ENTITY_TABLES, VersionPolicy, load_silver
from imaging_pipeline.objects.folder import path_to_uri
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline_tests.conftest import folder
from imaging_pipeline_tests.deid.corpus import ROOT, chest_film, encode, keys
from imaging_pipeline_tests.metadata.headers import memory_lake

FIRST, SECOND = "2026-01-31.00001", "2026-01-31.00002"


class Zones:
    """Both lakes, the vault and the folder of released files."""

    def __init__(self, folder: Path, identified: Lake, research: Lake) -> None:
        self.folder = folder
        self.identified = identified
        self.research = research
        self.vault = Vault(folder / "vault" / "vault.sqlite", keys())
        self.profile = load_profile()

    def take_in(
        self,
        batch_id: str,
        *,
        source: str = "north",
        policy: VersionPolicy = VersionPolicy.KEEP_LAST,
        **films: dict[str, object],
    ) -> ReleaseCounts:
        """One batch of chest films, by file name."""
        landing = self.folder / "landing" / batch_id
        landing.mkdir(parents=True)
        for name, attributes in films.items():
            (landing / f"{name}.dcm").write_bytes(encode(chest_film(**attributes)))
        manifest = list(folder(landing, source).list(datetime.now(UTC)))
        load_bronze(self.identified, batch_id, manifest, ObjectReader(), run_id="run", workers=1)
        load_silver(self.identified, batch_id, policy)
        return self.release(batch_id)

    def vanish(
        self, batch_id: str, *names: str, policy: VersionPolicy = VersionPolicy.KEEP_LAST, back: bool = False
    ) -> ReleaseCounts:
        """The batch run again after some of its files (all, when none is named) have vanished, or are back."""
        landing = self.folder / "landing" / batch_id
        uris = [path_to_uri(landing / f"{name}.dcm") for name in names] or [path_to_uri(p) for p in landing.iterdir()]
        moment = None if back else datetime(2026, 2, 1)  # noqa: DTZ001 - the lake's times are naive UTC
        with self.identified.transaction():
            self.identified.connection.execute(
                "UPDATE bronze.object_catalog SET deleted_at = ? WHERE storage_uri IN (SELECT unnest(?))",
                [moment, uris],
            )
        load_silver(self.identified, batch_id, policy)
        return self.release(batch_id)

    def rows(self, table: str) -> int:
        ((count,),) = self.research.rows(f"SELECT count(*) FROM deid.{table}")
        return int(str(count))

    def closes(self, batch_id: str) -> bool:
        """The check between the zones passes."""
        counts = release_counts(self.identified, self.research, keys(), batch_id)
        return counts.is_closed and not count_violations(self.research, "deid", batch_id)

    def told(self) -> list[tuple[object, ...]]:
        return [(row["action"], row["state"]) for row in read_changes(self.research, "deid", 0, 100)]

    def release(self, batch_id: str) -> ReleaseCounts:
        releaser = Releaser(self.profile, keys(), ObjectReader(), self.folder / "files", batch_id)
        return release_batch(self.identified, self.research, self.vault, releaser, workers=1)

    def files(self) -> set[Path]:
        return {path for path in (self.folder / "files").rglob("*") if path.is_file()}

    def named_files(self) -> set[Path]:
        rows = self.research.rows("SELECT storage_uri FROM deid.dicom_file_location")
        return {Path(str(uri).removeprefix("file://")) for (uri,) in rows}


@pytest.fixture
def zones(tmp_path: Path) -> Iterator[Zones]:
    """Lakes in memory: the same statements, a tenth of the time."""
    with memory_lake("identified") as identified, memory_lake("research") as research:
        yield Zones(tmp_path, identified, research)


@pytest.fixture
def stored_zones(tmp_path: Path, identified: Lake, research: Lake) -> Zones:
    """Lakes as they are installed."""
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


def test_an_object_that_names_another_patient_is_held_and_the_rest_of_the_batch_is_released(zones: Zones) -> None:
    zones.profile = load_profile("research")
    films = {
        name: {"PatientID": patient, "StudyDescription": text}
        | {f"{level}InstanceUID": f"{ROOT}.{number}.{part}" for part, level in enumerate(("Study", "Series", "SOP"), 4)}
        for number, (name, patient, text) in enumerate(
            [("phantom", "HEAD", "CHEST"), ("other", "MRN-1111111", "HEAD"), ("clean", "MRN-2222222", "CHEST PA")]
        )
    }
    counts = zones.take_in(FIRST, **films)
    assert (counts.instances, counts.released, counts.held) == (3, 2, 1)
    assert zones.closes(FIRST)
    assert zones.files() == zones.named_files()
    assert zones.research.rows("SELECT DISTINCT study_description FROM deid.dicom_study ORDER BY ALL") == [
        ("CHEST",),
        ("CHEST PA",),
    ]
    ((reason, message),) = zones.identified.rows("SELECT issue_code, message FROM bronze.ingest_issue")
    assert reason == "residual_identifier"
    assert "dicom_study.study_description" in str(message)
    assert "HEAD" not in str(message)


def test_a_kill_while_a_file_is_taken_back_leaves_none_without_a_row(
    zones: Zones, monkeypatch: pytest.MonkeyPatch
) -> None:
    zones.take_in(FIRST, wrong={"PatientID": "MRN-1111111"})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rows, "write_entities", killed)
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


def test_a_vanished_object_leaves_nothing_on_the_research_side(zones: Zones) -> None:
    zones.take_in(FIRST, film={})
    counts = zones.vanish(FIRST)
    assert (counts.instances, counts.released, counts.held) == (0, 0, 0)
    assert counts.held_keys == {key_of(keys().uid(f"{ROOT}.3.1"))}
    assert zones.files() == set()
    assert {table: zones.rows(table) for table in (*ENTITY_TABLES, "deid_verification")} == dict.fromkeys(
        (*ENTITY_TABLES, "deid_verification"), 0
    )
    assert zones.identified.rows("SELECT count(*) FROM bronze.ingest_issue WHERE stage = 'DEID'") == [(0,)]
    assert zones.told() == [("create", "current"), ("delete", "deleted")]
    assert zones.closes(FIRST)


def test_a_restored_object_is_released_again(zones: Zones) -> None:
    zones.take_in(FIRST, film={})
    before = zones.files()
    zones.vanish(FIRST)
    assert zones.vanish(FIRST, back=True).released == 1
    assert zones.files() == zones.named_files() == before
    assert zones.closes(FIRST)


def test_a_vanished_copy_takes_nothing_from_what_another_batch_released(zones: Zones) -> None:
    zones.take_in(FIRST, copy={})
    zones.take_in(SECOND, film={})
    before = zones.files(), zones.research.rows("FROM deid.dicom_instance")
    counts = zones.vanish(FIRST)
    assert (counts.instances, counts.held_keys) == (0, frozenset())
    assert (zones.files(), zones.research.rows("FROM deid.dicom_instance")) == before
    assert zones.told() == [("create", "current")]


def test_a_copy_in_an_earlier_batch_keeps_released_what_another_batch_has_released(zones: Zones) -> None:
    zones.take_in(FIRST, copy={})
    zones.take_in(SECOND, film={})
    before = zones.files()
    counts = zones.vanish(SECOND)
    assert (counts.instances, counts.held_keys) == (0, frozenset())
    assert zones.files() == zones.named_files() == before
    assert zones.told() == [("create", "current")]
    for _ in range(2):
        assert zones.closes(FIRST)
        assert zones.closes(SECOND)
        zones.release(FIRST)


def test_the_earlier_content_comes_back_when_the_later_one_vanishes(stored_zones: Zones) -> None:
    zones = stored_zones
    zones.take_in(FIRST, film={"PatientID": "MRN-1111111"})
    zones.take_in(SECOND, film={"PatientID": "MRN-2222222"})
    zones.vanish(SECOND)
    (path,) = zones.files()
    assert path.is_relative_to(zones.folder / "files" / keys().patient_id("north", "MRN-1111111"))
    assert zones.rows("dicom_patient") == 1
    zones.vanish(FIRST)
    assert zones.files() == set()
    assert zones.rows("dicom_patient") == 0


def test_a_study_of_two_batches_keeps_its_rows_when_one_of_them_is_taken_back(zones: Zones) -> None:
    zones.take_in(FIRST, early={"SOPInstanceUID": f"{ROOT}.3.1"})
    before = zones.research.query("SELECT * EXCLUDE (_loaded_at) FROM deid.dicom_study").to_pylist()
    zones.take_in(SECOND, late={"SOPInstanceUID": f"{ROOT}.3.2"})
    zones.vanish(SECOND)
    assert zones.research.query("SELECT * EXCLUDE (_loaded_at) FROM deid.dicom_study").to_pylist() == before
    assert zones.rows("dicom_instance") == 1
    assert not count_violations(zones.research, "deid")


def test_two_contents_of_one_uid_are_both_held_until_one_is_taken_away(zones: Zones) -> None:
    both = VersionPolicy.KEEP_BOTH
    zones.take_in(FIRST, policy=both, film={})
    counts = zones.take_in(SECOND, policy=both, other={"ViewPosition": "AP"})
    assert (counts.instances, counts.released, counts.held) == (2, 0, 2)
    assert zones.files() == set()
    assert zones.rows("dicom_patient") == 0
    issues = "SELECT arrival_batch, issue_code FROM bronze.ingest_issue WHERE stage = 'DEID' ORDER BY 1"
    assert zones.identified.rows(issues) == [(FIRST, "conflict_content"), (SECOND, "conflict_content")]
    assert zones.closes(FIRST)
    assert zones.closes(SECOND)
    counts = zones.vanish(SECOND, policy=both)
    assert (counts.instances, counts.released, counts.held) == (1, 1, 0)
    assert zones.identified.rows(issues) == []
    assert zones.files() == zones.named_files()
    assert zones.closes(FIRST)
    assert zones.closes(SECOND)


def test_one_patient_id_in_two_sources_is_two_patients_in_research(zones: Zones) -> None:
    zones.take_in(FIRST, source="north", film={})
    zones.take_in(
        SECOND,
        source="south",
        film={
            "SOPInstanceUID": f"{ROOT}.9.3",
            "SeriesInstanceUID": f"{ROOT}.9.2",
            "StudyInstanceUID": f"{ROOT}.9.1",
        },
    )
    assert zones.identified.rows("SELECT count(*), count(DISTINCT patient_id) FROM silver.dicom_patient") == [(2, 1)]
    ((patients, pseudonyms),) = zones.research.rows(
        "SELECT count(*), count(DISTINCT patient_id) FROM deid.dicom_patient"
    )
    assert (patients, pseudonyms) == (2, 2)


def test_a_kill_while_a_vanished_object_is_taken_back_is_mended_by_running_again(
    zones: Zones, monkeypatch: pytest.MonkeyPatch
) -> None:
    zones.take_in(FIRST, film={})

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for module, step in ((release, "write_rows"), (rows, "write_entities"), (release, "_write_issues")):
        with monkeypatch.context() as patched:
            patched.setattr(module, step, killed)
            with pytest.raises(KeyboardInterrupt):
                zones.vanish(FIRST)
        assert zones.files() <= zones.named_files()
        zones.release(FIRST)
        assert zones.files() == zones.named_files() == set()
        zones.vanish(FIRST, back=True)


def test_the_feed_of_the_research_side_holds_no_original_uid(zones: Zones) -> None:
    zones.take_in(FIRST, film={})
    zones.vanish(FIRST)
    told = repr(zones.research.rows("FROM deid.change_feed"))
    assert ROOT not in told
    assert keys().uid(f"{ROOT}.3.1") in told
