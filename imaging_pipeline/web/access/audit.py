"""The audit log of a zone: a table that only grows, each row sealed onto the one before.

A row's seal is an HMAC over the row and the seal before it. So no row can be changed, taken out, moved or put in
between without the service key; and the *head*, the number and seal of the last row, kept in a file elsewhere, shows a
cut. The categories follow PS3.15 A.5.3 (query, instances accessed, user authentication, security alert).
"""

from __future__ import annotations

import hmac
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import filelock

from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.objects.writing import write_atomically
from imaging_pipeline.settings import Settings
from imaging_pipeline.sqlite import connect, transaction
from imaging_pipeline.web.access.private import access_folder, derived_key, private_file, service_key

LOCK_TIMEOUT_SECONDS: Final = 30.0
"""Two processes (the service and a command) take turns; a row takes some milliseconds."""

OK, DENIED, REFUSED, FAILED, BEGUN = "ok", "denied", "refused", "failed", "begun"
"""Outcomes: ``denied`` for who it was, ``refused`` for what was asked; of a query only that it has begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that was done, or tried. No field holds what a person typed, or what was found.

    Attributes:
        action: view, search, store, login, logout, link, sql, audit.
        who: name of the user; empty: nobody known.
        via: how they have shown it.
        resource: the route, with the names of its parameters in place of their values.
        study: Study Instance UID; on the research side only one that is served there.
        series: likewise.
        instance: likewise.
        outcome: one of the words above.
        requests: how many of the same the row stands for.
        bytes: sent, or received where something is stored.
        detail: a code or digest that says more.
    """

    action: str
    who: str = ""
    via: str = ""
    resource: str = ""
    study: str = ""
    series: str = ""
    instance: str = ""
    outcome: str = OK
    requests: int = 1
    bytes: int = 0
    detail: str = ""


COLUMNS: Final = ("row", "at", *(field.name for field in fields(Event)))

_GENESIS: Final = "0" * 64
_TYPES: Final = {"row": "INTEGER PRIMARY KEY", "requests": "INTEGER NOT NULL", "bytes": "INTEGER NOT NULL"}
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS audit (
    {", ".join(f"{name} {_TYPES.get(name, 'TEXT NOT NULL')}" for name in COLUMNS)}, seal TEXT NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the log only grows'); END;
CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the log only grows'); END;
CREATE TRIGGER IF NOT EXISTS no_replace BEFORE INSERT ON audit
WHEN NEW.row <> (SELECT coalesce(max(row), 0) + 1 FROM audit)
BEGIN SELECT RAISE(ABORT, 'the log only grows at its end'); END;
"""
_INSERT: Final = f"INSERT INTO audit VALUES ({', '.join('?' * (len(COLUMNS) + 1))})"
_LAST: Final = "SELECT row, seal FROM audit ORDER BY row DESC LIMIT 1"


@dataclass(frozen=True, slots=True)
class Head:
    """Where a log ends: what stands up to here can be proved by it.

    Attributes:
        row: number of the last row; 0: there is none yet.
        seal: of that row.
    """

    row: int = 0
    seal: str = _GENESIS

    def __str__(self) -> str:
        return f"{self.row}:{self.seal}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """A head that was printed.

        Raises:
            ConfigurationError: it is none.
        """
        row, _, seal = text.strip().partition(":")
        if not row.isdecimal() or len(seal) != len(_GENESIS):
            raise ConfigurationError("a head of the audit log looks like ROW:SEAL, as 'access audit head' prints it")
        return cls(int(row), seal)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verifying a log has shown.

    Attributes:
        head: where it ends.
        faults: what is wrong, in words; empty: nothing is.
        unanchored: rows behind the head that is kept elsewhere: a kill between the two writes leaves some.
    """

    head: Head
    faults: tuple[str, ...]
    unanchored: int

    @property
    def is_sound(self) -> bool:
        """Whether nothing was changed, moved, put in or cut off."""
        return not self.faults


class AuditLog:
    """The log of one zone."""

    def __init__(
        self,
        folder: Path,
        zone: str,
        key: bytes,
        *,
        heads: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the log, making it when it is missing.

        Args:
            folder: for the owner alone; there already.
            zone: ``clinical`` or ``research``.
            key: the service key.
            heads: folder for the file of the head, best on another disk, which others keep; None: ``folder``.
            clock: seconds since 1970.
        """
        self._path = folder / "audit.sqlite"
        self._zone = zone
        self._key = derived_key(key, f"audit {zone}")
        self._head_key = derived_key(key, f"audit head {zone}")
        self._anchor = (heads or folder) / f"audit-{zone}.head"
        self._digest_key = derived_key(key, f"audit digest {zone}")
        self._clock = clock
        self._lock = filelock.FileLock(folder / "audit.lock", timeout=LOCK_TIMEOUT_SECONDS, thread_local=False)
        private_file(self._path)
        with closing(connect(self._path)) as connection:
            connection.executescript(_SCHEMA)

    def digest(self, text: str) -> str:
        """Stands for a text in the log: the same text gives the same; without the service key it cannot be guessed."""
        return hmac.new(self._digest_key, text.encode("utf-8", "surrogatepass"), "sha256").hexdigest()[:16]

    def append(self, *events: Event) -> None:
        """Add rows, all or none; they are on the disk when this returns.

        Raises:
            TransientError: the disk refuses, or another process holds the log for too long.
            ConfigurationError: the log is not the one its head was taken from, so nothing may be added to it.
        """
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        try:
            with self._lock, closing(connect(self._path)) as connection:
                last = _last(connection)
                self._refuse_other(connection, last)
                rows, head = self._sealed(events, at, last)
                connection.execute("PRAGMA synchronous = FULL")
                with transaction(connection):
                    connection.executemany(_INSERT, rows)
                self._write_anchor(head)
        except (OSError, sqlite3.OperationalError) as error:
            raise TransientError(f"the audit log cannot be written ({type(error).__name__})") from None
        except sqlite3.DatabaseError:
            raise ConfigurationError("the audit log is damaged: run 'imaging-pipeline access audit verify'") from None

    def rows(self, after: int = 0, limit: int = -1, **equal: str) -> Iterator[dict[str, object]]:
        """Rows behind a number, in their order; only those with the given values of columns."""
        unknown = set(equal) - set(COLUMNS)
        if unknown:
            raise ValueError(f"no column {', '.join(sorted(unknown))}")
        where = " AND ".join(["row > ?", *(f"{name} = ?" for name in equal)])
        query = f"SELECT {', '.join(COLUMNS)} FROM audit WHERE {where} ORDER BY row LIMIT ?"
        with closing(connect(self._path)) as connection:
            for row in connection.execute(query, (after, *equal.values(), limit)):
                yield dict(zip(COLUMNS, row, strict=True))

    def head(self) -> Head:
        """Where the log ends now."""
        with closing(connect(self._path)) as connection:
            return _last(connection)

    def verify(self, *kept: Head) -> Verdict:
        """Compute the seal of every row anew, and look whether the log still holds what its heads say.

        Args:
            kept: heads that were printed earlier and kept elsewhere.
        """
        faults: list[str] = []
        with self._reading() as connection:
            anchored = self._anchored(faults)
            heads = [head for head in (anchored, *kept) if head is not None]
            expected, seals = Head(), {0: _GENESIS}
            wanted = {head.row for head in heads}
            for *row, seal in connection.execute(f"SELECT {', '.join(COLUMNS)}, seal FROM audit ORDER BY row"):
                expected = Head(expected.row + 1, self._seal(expected.seal, row))
                if fault := _fault(expected, int(row[0]), seal):
                    faults.append(fault)
                    expected = Head(int(row[0]), seal)
                if expected.row in wanted:
                    seals[expected.row] = seal
        for head in heads:
            if head.row > expected.row:
                faults.append(f"the log ends at row {expected.row}, and a head says {head.row}: rows were cut off")
            elif seals.get(head.row) != head.seal:
                faults.append(f"row {head.row} is not the one a head was taken from")
        if anchored is None and expected.row:
            faults.append("the file of the head is missing")
        return Verdict(expected, tuple(faults), expected.row - anchored.row if anchored else 0)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One state of the log and of its head, while others may write."""
        with self._lock, closing(connect(self._path)) as connection:
            connection.execute("BEGIN")
            connection.execute(_LAST).fetchone()
            yield connection

    def _refuse_other(self, connection: sqlite3.Connection, last: Head) -> None:
        """A cut log must not go on growing: its new head would hide the cut."""
        faults: list[str] = []
        anchored = self._anchored(faults)
        if anchored is None and not faults and last.row == 0:
            return
        there = anchored and connection.execute("SELECT seal FROM audit WHERE row = ?", (anchored.row,)).fetchone()
        if faults or anchored is None or there != (anchored.seal,):
            raise ConfigurationError(
                "the audit log does not hold what its head says, so nothing is added and nothing served: keep folder "
                "and head as they are, look with 'imaging-pipeline access audit verify', and restore the log"
            )

    def _anchored(self, faults: list[str]) -> Head | None:
        """The head that is kept; None, with a fault unless the file is not there: it cannot be believed."""
        try:
            content = json.loads(self._anchor.read_text("utf-8"))
            head = Head(int(content["row"]), str(content["seal"]))
            signature = str(content["signature"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            faults.append("the file of the head is damaged")
            return None
        if not hmac.compare_digest(signature.encode(), self._signature(head).encode()):
            faults.append("the head is not signed by this service")
            return None
        return head

    def _write_anchor(self, head: Head) -> None:
        content = {"zone": self._zone, "row": head.row, "seal": head.seal, "signature": self._signature(head)}
        write_atomically(self._anchor, json.dumps(content).encode() + b"\n")

    def _signature(self, head: Head) -> str:
        return hmac.new(self._head_key, f"{self._zone}:{head}".encode(), "sha256").hexdigest()

    def _sealed(self, events: tuple[Event, ...], at: str, last: Head) -> tuple[list[tuple[object, ...]], Head]:
        rows: list[tuple[object, ...]] = []
        for event in events:
            row = (last.row + 1, at, *astuple(event))
            last = Head(last.row + 1, self._seal(last.seal, row))
            rows.append((*row, last.seal))
        return rows, last

    def _seal(self, previous: str, row: list[object] | tuple[object, ...]) -> str:
        text = json.dumps([previous, *row], separators=(",", ":"))
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()


def open_audit(settings: Settings, zone: str) -> AuditLog:
    """The audit log of a zone of this installation.

    Raises:
        ConfigurationError: others can get at its folder, or its key cannot be used.
    """
    folder = access_folder(settings, zone)
    return AuditLog(folder, zone, service_key(folder / "service.key"), heads=settings.audit_heads)


def _last(connection: sqlite3.Connection) -> Head:
    row = connection.execute(_LAST).fetchone()
    return Head(*row) if row else Head()


def _fault(expected: Head, row: int, seal: str) -> str | None:
    """What is wrong with a row that should stand at the end of what was read."""
    if row != expected.row:
        return f"before row {row}, rows are missing from {expected.row} on"
    return None if seal == expected.seal else f"row {row} was changed, moved or put in"
