"""Several processes make and use the same SQLite file."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from imaging_pipeline.sqlite import connect


def test_a_new_file_that_another_one_is_writing_is_waited_for(tmp_path: Path) -> None:
    # SQLite itself refuses the switch to WAL at once when another connection holds the write lock.
    path = tmp_path / "new.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE seen (process INTEGER)")
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO seen VALUES (1)")
    release = threading.Timer(0.5, other.execute, ["COMMIT"])
    release.start()
    connection = connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("SELECT count(*) FROM seen").fetchone() == (1,)
    release.join()
    connection.close()
    other.close()


def test_a_file_that_is_no_database_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "no.sqlite"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        connect(path)
