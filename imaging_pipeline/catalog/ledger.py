"""The ledger: which object versions were seen, and the batches they were cut into.

One SQLite file, written by whoever announces batches (the landing sensor, or a person's one-off load) and read
by everyone else. It holds URIs, so it belongs to the identified zone. It opens no object but archives'
directories, and knows nothing of what becomes of a batch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from imaging_pipeline.errors import PoisonInput
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.sqlite import connect

_BATCH_ID = re.compile(r"\d{4}-\d{2}-\d{2}\.\d{5,}")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS batch (
  seq INTEGER PRIMARY KEY,
  batch_id TEXT NOT NULL UNIQUE,
  objects INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  is_announced INTEGER NOT NULL,
  created_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS object (
  id INTEGER PRIMARY KEY,
  uri TEXT NOT NULL,
  version TEXT NOT NULL,
  size INTEGER NOT NULL,
  modified_at TEXT NOT NULL,
  source TEXT NOT NULL,
  is_archive INTEGER NOT NULL,
  batch_seq INTEGER REFERENCES batch (seq),
  UNIQUE (uri, version)
);
CREATE INDEX IF NOT EXISTS object_by_batch ON object (batch_seq);
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """A fixed list of object versions: one partition.

    Attributes:
        seq: its number over all days; the sensor's cursor.
        batch_id: ``YYYY-MM-DD.NNNNN``: day of arrival (UTC) and number of that day; the partition key.
        objects: how many objects.
        bytes: their size together.
    """

    seq: int
    batch_id: str
    objects: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What one listing found: objects listed, and those of them that were new or changed."""

    listed: int
    new: int


def is_batch_id(text: str) -> bool:
    """Whether a text is a well-formed partition key; Dagster itself accepts anything, even an empty one.

    >>> is_batch_id("2026-01-31.00007"), is_batch_id("2026-01-31...2026-02-01")
    (True, False)
    """
    return _BATCH_ID.fullmatch(text) is not None


class Ledger:
    """The ledger file; use as a context manager."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = connect(path)
        self._connection.executescript(_SCHEMA)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def record(self, listing: Iterable[ObjectVersion], reader: ObjectReader) -> Scan:
        """Note every object version of a listing; look into the archives that are new.

        An archive whose directory cannot be read is noted itself, without members, and its batch will say why.
        """
        listed = new = 0
        with self._transaction():
            for entry in listing:
                listed += 1
                if self._note(entry):
                    new += 1
                    members = sum(self._note(member) for member in _members(reader, entry)) if entry.is_archive else 0
                    new, listed = new + members, listed + members
        return Scan(listed, new)

    def cut(
        self, *, day: date, max_objects: int, max_bytes: int, max_batches: int, is_announced: bool = False
    ) -> list[Batch]:
        """Cut objects that are in no batch yet into batches, in the order they were noted.

        A batch closes at ``max_objects`` or before it would pass ``max_bytes``; a larger object gets its own.

        Args:
            day: day of arrival (UTC), for the batch's name.
            max_objects: most objects of a batch.
            max_bytes: most bytes of a batch.
            max_batches: most batches to cut now; the rest waits for the next call.
            is_announced: the caller runs the batches itself; the sensor need not.
        """
        batches: list[Batch] = []
        with self._transaction():
            while len(batches) < max_batches:
                batch = self._cut_one(day, max_objects, max_bytes, is_announced=is_announced)
                if batch is None:
                    break
                batches.append(batch)
        return batches

    def batches(self) -> list[Batch]:
        """All batches, oldest first."""
        return self._select("", ())

    def batches_to_announce(self, after: int, limit: int) -> list[Batch]:
        """The next batches behind the cursor that nobody has taken on yet, oldest first."""
        return self._select("WHERE seq > ? AND NOT is_announced", (after,), limit)

    def manifest(self, batch_id: str) -> list[ObjectVersion]:
        """The object versions of a batch, always the same, in the same order.

        Raises:
            KeyError: there is no such batch.
        """
        rows = self._connection.execute(
            """SELECT uri, version, size, modified_at, source, is_archive FROM object
            WHERE batch_seq = (SELECT seq FROM batch WHERE batch_id = ?) ORDER BY id""",
            (batch_id,),
        ).fetchall()
        if not rows:
            raise KeyError(batch_id)
        return [
            ObjectVersion(uri, version, size, datetime.fromisoformat(modified_at), source, bool(is_archive))
            for uri, version, size, modified_at, source, is_archive in rows
        ]

    def waiting(self) -> int:
        """How many noted objects are in no batch yet."""
        ((count,),) = self._connection.execute("SELECT count(*) FROM object WHERE batch_seq IS NULL").fetchall()
        return int(count)

    def _note(self, entry: ObjectVersion) -> bool:
        cursor = self._connection.execute(
            """INSERT OR IGNORE INTO object (uri, version, size, modified_at, source, is_archive)
            VALUES (?, ?, ?, ?, ?, ?)""",
            (entry.uri, entry.version, entry.size, entry.modified_at.isoformat(), entry.source, entry.is_archive),
        )
        return cursor.rowcount == 1

    def _cut_one(self, day: date, max_objects: int, max_bytes: int, *, is_announced: bool) -> Batch | None:
        chosen: list[int] = []
        total = 0
        for row_id, size in self._connection.execute(
            "SELECT id, size FROM object WHERE batch_seq IS NULL ORDER BY id LIMIT ?", (max_objects,)
        ):
            if chosen and total + size > max_bytes:
                break
            chosen.append(row_id)
            total += size
        if not chosen:
            return None
        batch_id = self._next_id(day)
        cursor = self._connection.execute(
            "INSERT INTO batch (batch_id, objects, bytes, is_announced, created_at) VALUES (?, ?, ?, ?, ?)",
            (batch_id, len(chosen), total, is_announced, day.isoformat()),
        )
        seq = cursor.lastrowid or 0
        self._connection.execute(
            "UPDATE object SET batch_seq = ? WHERE batch_seq IS NULL AND id <= ?", (seq, chosen[-1])
        )
        return Batch(seq, batch_id, len(chosen), total)

    def _next_id(self, day: date) -> str:
        ((last,),) = self._connection.execute(
            "SELECT max(CAST(substr(batch_id, 12) AS INTEGER)) FROM batch WHERE batch_id LIKE ?",
            (f"{day.isoformat()}.%",),
        ).fetchall()
        return f"{day.isoformat()}.{(last or 0) + 1:05d}"

    def _select(self, where: str, parameters: tuple[int, ...], limit: int = -1) -> list[Batch]:
        rows = self._connection.execute(
            f"SELECT seq, batch_id, objects, bytes FROM batch {where} ORDER BY seq LIMIT ?",
            (*parameters, limit),
        ).fetchall()
        return [Batch(*row) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise


def _members(reader: ObjectReader, archive: ObjectVersion) -> Iterator[ObjectVersion]:
    try:
        yield from reader.list_members(archive)
    except PoisonInput:
        return  # its own catalog row will carry the reason
