"""The SQLite file of the serving index: its tables, and connections to it.

The file holds nothing that the lake does not say: removing it costs the time to make it again.
"""

from __future__ import annotations

import os
import sqlite3
import time
import unicodedata
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imaging_pipeline.errors import TransientError
from imaging_pipeline.sqlite import connect, transaction

INDEX_VERSION = "2"
"""Raise it when the same lake would give other rows here: the file is then made again."""

CACHE_KILOBYTES = 65_536
MAPPED_BYTES = 1 << 30
"""Of the file, per process: reads then cost no system call."""

_STEPS = 100_000
"""Of SQLite's virtual machine between two looks at the clock: some milliseconds."""

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE cleared (batch TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE study_batch (study_key TEXT NOT NULL, batch TEXT NOT NULL, PRIMARY KEY (batch, study_key)) WITHOUT ROWID;
CREATE INDEX study_batch_study ON study_batch (study_key);
CREATE TABLE held (study_key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE study (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, patient_key TEXT NOT NULL, uid TEXT NOT NULL,
    patient_id TEXT, patient_name TEXT, birth_date TEXT, sex TEXT, study_date TEXT, study_time TEXT,
    accession_number TEXT, study_id TEXT, referring_physician TEXT, document TEXT NOT NULL
);
CREATE TABLE series (
    id INTEGER PRIMARY KEY, study INTEGER NOT NULL, key TEXT NOT NULL UNIQUE, uid TEXT NOT NULL, modality TEXT,
    number INTEGER, document TEXT NOT NULL
);
CREATE TABLE instance (
    id INTEGER PRIMARY KEY, series INTEGER NOT NULL, key TEXT NOT NULL, object_key TEXT NOT NULL, uid TEXT NOT NULL,
    sop_class TEXT NOT NULL, transfer_syntax TEXT NOT NULL, uri TEXT NOT NULL, version TEXT NOT NULL,
    size INTEGER NOT NULL, source TEXT NOT NULL, sha256 TEXT NOT NULL, number INTEGER, frames INTEGER,
    stated_frames INTEGER, rows INTEGER, columns INTEGER, bits_allocated INTEGER, samples INTEGER, photometric TEXT,
    pixel_data_offset INTEGER, arrival_batch TEXT NOT NULL
);
CREATE TABLE header (instance INTEGER PRIMARY KEY, document BLOB NOT NULL);
CREATE TABLE name_word (study INTEGER NOT NULL, tag TEXT NOT NULL, word TEXT NOT NULL, sound TEXT NOT NULL);
CREATE UNIQUE INDEX study_uid ON study (uid);
CREATE INDEX study_order ON study (study_date DESC, study_time DESC, uid);
CREATE INDEX study_patient ON study (patient_id);
CREATE INDEX study_patient_key ON study (patient_key);
CREATE INDEX study_name ON study (patient_name);
CREATE INDEX study_accession ON study (accession_number);
CREATE INDEX series_study ON series (study, number, uid);
CREATE UNIQUE INDEX series_uid ON series (uid, study);
CREATE INDEX series_modality ON series (modality, study);
CREATE INDEX instance_series ON instance (series, number, uid);
CREATE UNIQUE INDEX instance_uid ON instance (uid, series);
CREATE INDEX instance_key ON instance (key);
CREATE INDEX name_word_word ON name_word (tag, word, study);
CREATE INDEX name_word_sound ON name_word (tag, sound, study);
CREATE INDEX name_word_study ON name_word (study);
"""


def create_index(path: Path) -> None:
    """Make the file for its owner alone; one of another version is emptied, one of this version stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = connect(path)
    try:
        with transaction(connection):
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            if "meta" not in names or meta(connection, "version") != INDEX_VERSION:
                for name in names:
                    connection.execute(f"DROP TABLE {name}")
                for statement in _TABLES.split(";"):
                    connection.execute(statement)
                set_meta(connection, "version", INDEX_VERSION)
    finally:
        connection.close()


def open_index(path: Path) -> sqlite3.Connection:
    """A connection that any thread may use, one at a time, with the functions that searches need."""
    connection = sqlite3.connect(path, timeout=60.0, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA cache_size = -{CACHE_KILOBYTES}")
    connection.execute(f"PRAGMA mmap_size = {MAPPED_BYTES}")
    connection.execute("PRAGMA synchronous = NORMAL")  # it can be made again
    connection.create_function("folded", 1, folded, deterministic=True)
    connection.create_function("inflated", 1, inflated, deterministic=True)
    return connection


@contextmanager
def in_time(connection: sqlite3.Connection, seconds: float) -> Iterator[sqlite3.Connection]:
    """The connection, whose queries are given up after a while.

    Raises:
        TransientError: they were.
    """
    until = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
    try:
        yield connection
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        raise TransientError("a search took too long: ask for less") from None
    finally:
        connection.set_progress_handler(None, 0)


def meta(connection: sqlite3.Connection, name: str) -> str | None:
    """What the file says about itself."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return row[0] if row else None


def set_meta(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Let the file say so."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def folded(name: str | None) -> str | None:
    """A person name as names are compared: without case, accents and empty components at its end.

    >>> folded("Müller^Jörg^^^")
    'muller^jorg'
    """
    if name is None:
        return None
    plain = unicodedata.normalize("NFKD", name.strip(" ^="))
    return "".join(letter for letter in plain.casefold() if not unicodedata.combining(letter))


def deflated(document: str) -> bytes:
    """A header as the file keeps it."""
    return zlib.compress(document.encode("utf-8", "surrogatepass"), 1)


def inflated(data: bytes) -> str:
    """The header that :func:`deflated` packed."""
    return zlib.decompress(data).decode("utf-8", "surrogatepass")
