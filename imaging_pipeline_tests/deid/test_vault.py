from __future__ import annotations

import sqlite3
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from imaging_pipeline.deid.vault import CrosswalkEntry, Vault, crosswalk_of
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline_tests.deid.corpus import chest_film, keys, release

SECRET = "Zwyntharquist MRN-7731945"


def _write(path: str, start: int) -> None:
    vault = Vault(Path(path), keys())
    for number in range(start, start + 20):
        vault.record([CrosswalkEntry("UID", f"2.25.{number}", f"1.2.{number}")])


def test_entries_come_back_and_are_written_once(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault" / "crosswalk.db", keys())
    entries = [CrosswalkEntry("PATIENT", "P1", SECRET), CrosswalkEntry("UID", "2.25.1", "1.2.3")]
    vault.record(entries)
    vault.record(entries)
    assert list(vault.originals("PATIENT")) == [("P1", SECRET)]
    assert vault.original("UID", "2.25.1") == "1.2.3"
    assert vault.original("UID", "2.25.2") is None


def test_files_are_the_owners_alone_and_hold_no_original(tmp_path: Path) -> None:
    folder = tmp_path / "vault"
    vault = Vault(folder / "crosswalk.db", keys())
    vault.record([CrosswalkEntry("PATIENT", "P1", SECRET)])
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert SECRET.encode() not in path.read_bytes()
    assert SECRET not in repr(CrosswalkEntry("PATIENT", "P1", SECRET))


def test_a_folder_or_file_others_can_use_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vault" / "crosswalk.db"
    Vault(path, keys())
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="can be used by others"):
        Vault(path, keys())
    path.chmod(0o600)
    path.parent.chmod(0o750)
    with pytest.raises(ConfigurationError, match="can be used by others"):
        Vault(path, keys())


def test_a_link_is_no_vault(tmp_path: Path) -> None:
    real = Vault(tmp_path / "vault" / "real.db", keys())
    assert real
    link = tmp_path / "vault" / "link.db"
    link.symlink_to(tmp_path / "vault" / "real.db")
    with pytest.raises(ConfigurationError, match="plain file"):
        Vault(link, keys())


def test_another_projects_key_does_not_open_it(tmp_path: Path) -> None:
    Vault(tmp_path / "vault" / "crosswalk.db", keys())
    with pytest.raises(ConfigurationError, match="does not open"):
        Vault(tmp_path / "vault" / "crosswalk.db", keys("another"))


def test_an_entry_moved_to_another_pseudonym_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "vault" / "crosswalk.db"
    vault = Vault(path, keys())
    vault.record([CrosswalkEntry("PATIENT", "P1", "first"), CrosswalkEntry("PATIENT", "P2", "second")])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE crosswalk SET sealed = (SELECT sealed FROM crosswalk WHERE pseudonym = 'P2')")
    connection.close()
    with pytest.raises(ConfigurationError, match="moved to another pseudonym"):
        vault.original("PATIENT", "P1")


def test_a_file_that_is_no_database_is_a_configuration_error(tmp_path: Path) -> None:
    path = tmp_path / "vault" / "crosswalk.db"
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"no database at all" * 100)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="SQLite"):
        Vault(path, keys())


def test_an_unknown_kind_is_a_bug_and_nothing_is_written(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault" / "crosswalk.db", keys())
    with pytest.raises(ValueError, match="kind"):
        vault.record([CrosswalkEntry("UID", "2.25.1", "1.2"), CrosswalkEntry("NAME", "x", "y")])
    assert not list(vault.originals("UID"))


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "vault" / "crosswalk.db"
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_write, [str(path)] * 2, [0, 10]))
    assert len(list(Vault(path, keys()).originals("UID"))) == 30


def test_a_pseudonym_cannot_come_to_stand_for_a_second_patient(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault" / "crosswalk.db", keys())
    vault.record([CrosswalkEntry("PATIENT", "P1", "first"), CrosswalkEntry("PATIENT", "P1", "first")])
    for entries in (
        [CrosswalkEntry("UID", "2.25.1", "1.2"), CrosswalkEntry("PATIENT", "P1", "second")],
        [CrosswalkEntry("PATIENT", "P2", "third"), CrosswalkEntry("PATIENT", "P2", "fourth")],
    ):
        with pytest.raises(ConfigurationError, match="one pseudonym"):
            vault.record(entries)
    assert list(vault.originals("PATIENT")) == [("P1", "first")]
    assert list(vault.originals("UID")) == []


def test_an_accession_number_can_be_traced_and_no_pseudonym_stands_for_two(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault" / "crosswalk.db", keys())
    released = release(chest_film())
    vault.record(crosswalk_of(released))
    pseudonym = released.accession_map["ACC992817"]
    assert vault.original("ACCESSION", pseudonym) == "north\x1fACC992817"
    assert b"ACC992817" not in b"".join(path.read_bytes() for path in (tmp_path / "vault").iterdir())
    for kind, first in (("PATIENT", released.patient_id), ("ACCESSION", pseudonym)):
        with pytest.raises(ConfigurationError, match="would get one pseudonym"):
            vault.record([CrosswalkEntry(kind, first, "south\x1fACC992818")])
    vault.record([CrosswalkEntry("PATIENT", pseudonym, "north\x1fA1")])
    assert vault.original("ACCESSION", pseudonym) == "north\x1fACC992817"
