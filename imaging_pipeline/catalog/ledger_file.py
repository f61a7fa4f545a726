"""The ledger's SQLite file: its tables, its transactions, and how it writes a moment."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.sqlite import connect, transaction

SCHEMA_VERSION = 4

_SCHEMA = """
CREATE TABLE IF NOT EXISTS batch (
  seq INTEGER PRIMARY KEY,
  batch_id TEXT NOT NULL UNIQUE,
  source TEXT NOT NULL,
  objects INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  revision INTEGER NOT NULL DEFAULT 0,
  announced INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS announcement (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  batch_seq INTEGER NOT NULL REFERENCES batch (seq),
  revision INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS object (
  id INTEGER PRIMARY KEY,
  uri TEXT NOT NULL,
  version TEXT NOT NULL,
  size INTEGER NOT NULL,
  modified_at TEXT NOT NULL,
  source TEXT NOT NULL,
  is_archive INTEGER NOT NULL,
  members_noted INTEGER NOT NULL DEFAULT 0,
  parent_uri TEXT,
  batch_seq INTEGER REFERENCES batch (seq),
  noted_at TEXT NOT NULL,
  is_current INTEGER NOT NULL DEFAULT 1,
  missing_since TEXT,
  gone_at TEXT,
  UNIQUE (uri, version)
);
CREATE TABLE IF NOT EXISTS listing (
  source TEXT NOT NULL,
  prefix TEXT NOT NULL,
  upto TEXT,
  seconds REAL NOT NULL,
  last_id INTEGER NOT NULL,
  finished_at TEXT,
  is_held INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (source, prefix)
);
CREATE INDEX IF NOT EXISTS object_by_batch ON object (batch_seq, id);
CREATE INDEX IF NOT EXISTS object_waiting ON object (source, id) WHERE batch_seq IS NULL AND is_current;
CREATE INDEX IF NOT EXISTS object_listed ON object (source, uri, version, missing_since)
  WHERE is_current AND parent_uri IS NULL;
CREATE INDEX IF NOT EXISTS object_missing ON object (source, uri) WHERE missing_since IS NOT NULL AND is_current;
CREATE INDEX IF NOT EXISTS object_member ON object (parent_uri) WHERE parent_uri IS NOT NULL;
"""


def open_ledger(path: Path) -> sqlite3.Connection:
    """A connection to the file, which is made when it is missing.

    Raises:
        ConfigurationError: the file was made by a development version with another layout.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = connect(path)
    try:
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    if version == SCHEMA_VERSION:
        return
    with transaction(connection):
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        if tables and version != SCHEMA_VERSION:
            raise ConfigurationError(
                f"the ledger has layout {version}, this version of imaging-pipeline needs {SCHEMA_VERSION}: "
                "start with a new IMAGING_PIPELINE_HOME and load the sources again"
            )
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def text_of(moment: datetime) -> str:
    """A moment as naive UTC in ISO 8601."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat()
