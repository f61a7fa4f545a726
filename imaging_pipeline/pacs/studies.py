"""What a retrieval knows: which studies were offered and which came, in a SQLite file of the identified zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from imaging_pipeline.pacs.server import Offered
from imaging_pipeline.sqlite import connect, transaction

FIRST_WAIT_SECONDS = 300.0
"""Before a study that did not come whole is asked for again; doubled each time."""

LONGEST_WAIT_SECONDS = 86_400.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS study (
  retrieval TEXT NOT NULL,
  study_uid TEXT NOT NULL,
  offered INTEGER NOT NULL,
  received INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  due_at REAL NOT NULL DEFAULT 0,
  PRIMARY KEY (retrieval, study_uid)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS study_waiting ON study (retrieval, due_at) WHERE received <> offered;
CREATE TABLE IF NOT EXISTS retrieval (
  name TEXT PRIMARY KEY,
  looked_upto TEXT,
  looked_fully_at REAL,
  started_at REAL,
  cursor INTEGER
);
"""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a retrieval stands.

    Attributes:
        looked_upto: the last day whose studies were asked for.
        looked_fully_at: when everything was asked for last; seconds since 1970.
        started_at: when the last study was asked for; seconds since 1970.
        cursor: in a log of changes.
    """

    looked_upto: date | None
    looked_fully_at: float | None
    started_at: float | None
    cursor: int | None


@dataclass(frozen=True, slots=True)
class Counts:
    """Studies of a retrieval.

    Attributes:
        complete: all their instances came.
        waiting: not asked for yet, or grown since.
        failing: asked for, and not come whole.
    """

    complete: int
    waiting: int
    failing: int


class StudyLedger:
    """The file; several processes may use it at once.

    Args:
        path: it is made when it is missing, for its owner alone.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        self._connection = connect(path)
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def offer(self, retrieval: str, study: Offered) -> None:
        """Note what a server offers; a study waits when its number of instances is not the one that came.

        A study that has grown is asked for at once, however often it failed before.
        """
        self._connection.execute(
            "INSERT INTO study (retrieval, study_uid, offered, received) VALUES (?, ?, ?, -1) "
            "ON CONFLICT (retrieval, study_uid) DO UPDATE SET offered = excluded.offered, attempts = 0, due_at = 0 "
            "WHERE offered <> excluded.offered",
            [retrieval, study.study_uid, study.instances],
        )

    def keep_offered(self, retrieval: str, look: str, study_uids: set[str]) -> None:
        """Let go of what waits and was not offered in the newest look: whoever was struck off a list is not fetched.

        Args:
            retrieval: whose list it is.
            look: under which name of :meth:`set_looked` it was asked; other lists must be asked for again.
            study_uids: what it offered.
        """
        with transaction(self._connection):
            waiting = self._connection.execute(
                "SELECT study_uid FROM study WHERE retrieval = ? AND received <> offered", [retrieval]
            ).fetchall()
            self._connection.executemany(
                "DELETE FROM study WHERE retrieval = ? AND study_uid = ?",
                [(retrieval, uid) for (uid,) in waiting if uid not in study_uids],
            )
            self._connection.execute(
                "DELETE FROM retrieval WHERE substr(name, 1, ?) = ? AND name <> ?",
                [len(retrieval) + 1, f"{retrieval}/", look],
            )

    def next_due(self, retrieval: str, now: float) -> str | None:
        """Study Instance UID of the one that waits longest, or None when none is due."""
        found = self._connection.execute(
            "SELECT study_uid FROM study WHERE retrieval = ? AND received <> offered AND due_at <= ? "
            "ORDER BY due_at, study_uid LIMIT 1",
            [retrieval, now],
        ).fetchone()
        return None if found is None else str(found[0])

    def start(self, retrieval: str, study_uid: str, now: float) -> None:
        """Note that a study is asked for. It is due again later: one that kills us must not hold the others."""
        with transaction(self._connection):
            self._set(retrieval, "started_at", now)
            ((attempts,),) = self._connection.execute(
                "SELECT attempts FROM study WHERE retrieval = ? AND study_uid = ?", [retrieval, study_uid]
            ).fetchall()
            wait = min(FIRST_WAIT_SECONDS * 2.0 ** min(attempts, 20), LONGEST_WAIT_SECONDS)
            self._connection.execute(
                "UPDATE study SET attempts = attempts + 1, due_at = ? WHERE retrieval = ? AND study_uid = ?",
                [now + wait, retrieval, study_uid],
            )

    def finish(self, retrieval: str, study_uid: str, received: int) -> None:
        """Note how many instances came."""
        self._connection.execute(
            "UPDATE study SET received = ? WHERE retrieval = ? AND study_uid = ?", [received, retrieval, study_uid]
        )

    def progress(self, retrieval: str) -> Progress:
        """Where it stands."""
        found = self._connection.execute(
            "SELECT looked_upto, looked_fully_at, started_at, cursor FROM retrieval WHERE name = ?", [retrieval]
        ).fetchone()
        upto, fully, started, cursor = found or (None, None, None, None)
        return Progress(date.fromisoformat(upto) if upto else None, fully, started, cursor)

    def set_looked(self, retrieval: str, upto: date, fully_at: float | None) -> None:
        """Note that all studies up to a day were offered; ``fully_at``: from the first day on, at that moment."""
        with transaction(self._connection):
            self._set(retrieval, "looked_upto", upto.isoformat())
            if fully_at is not None:
                self._set(retrieval, "looked_fully_at", fully_at)

    def set_cursor(self, retrieval: str, cursor: int) -> None:
        """Keep a cursor."""
        self._set(retrieval, "cursor", cursor)

    def counts(self, retrieval: str) -> Counts:
        """How many studies came, wait and fail."""
        ((complete, waiting, failing),) = self._connection.execute(
            "SELECT count(*) FILTER (WHERE received = offered), "
            "count(*) FILTER (WHERE received <> offered AND attempts = 0), "
            "count(*) FILTER (WHERE received <> offered AND attempts > 0) FROM study WHERE retrieval = ?",
            [retrieval],
        ).fetchall()
        return Counts(complete, waiting, failing)

    def _set(self, retrieval: str, column: str, value: object) -> None:
        self._connection.execute(
            f"INSERT INTO retrieval (name, {column}) VALUES (?, ?) "
            f"ON CONFLICT (name) DO UPDATE SET {column} = excluded.{column}",
            [retrieval, value],
        )
