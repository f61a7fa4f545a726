"""Opening the pipeline's own SQLite files, which several processes of one machine use at once."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

BUSY_TIMEOUT_SECONDS: Final = 60.0
"""How long a reader or writer waits for another one."""

_PAUSE_SECONDS: Final = 0.02


def connect(path: Path) -> sqlite3.Connection:
    """A connection in WAL mode and autocommit: transactions are opened by hand, as IMMEDIATE ones.

    Raises:
        sqlite3.OperationalError: another process has held the file for :data:`BUSY_TIMEOUT_SECONDS`.
        sqlite3.DatabaseError: the file is no SQLite database.
    """
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
    try:
        _enter_wal(connection)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All writes inside, or none; other writers wait from the beginning on."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has ended it already
            connection.execute("ROLLBACK")
        raise


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Switch a new file to WAL.

    SQLite does not call its busy handler for this switch: of two processes that make the same file at once, one is told
    at once that the database is locked (https://sqlite.org/wal.html, "Sometimes Queries Return SQLITE_BUSY").
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return
