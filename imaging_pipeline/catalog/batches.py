"""Batches of the ledger: fixed lists of objects, and the announcements that have them run."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.sqlite import transaction

_BATCH_ID = re.compile(r"\d{4}-\d{2}-\d{2}\.\d{5,}")

_BATCH = "batch.seq, batch_id, source, objects, bytes, batch.revision"

_OBJECT = "uri, version, size, modified_at, source, is_archive, noted_at, gone_at"


@dataclass(frozen=True, slots=True)
class Batch:
    """A fixed list of object versions: one partition.

    Attributes:
        seq: its number over all days.
        batch_id: ``YYYY-MM-DD.NNNNN``: day of arrival (UTC) and number of that day; the partition key.
        source: where its objects come from.
        objects: how many objects.
        bytes: their size together.
        revision: how often objects of it have vanished, or come back, since it was cut.
    """

    seq: int
    batch_id: str
    source: str
    objects: int
    bytes: int
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Announcement:
    """A batch to be run, for the first time or because of a new revision; its number is a sensor's cursor."""

    seq: int
    revision: int
    batch: Batch

    @property
    def run_key(self) -> str:
        """The same for the same announcement, so that making it twice is harmless."""
        return f"{self.batch.batch_id}/{self.revision}" if self.revision else self.batch.batch_id


def is_batch_id(text: str) -> bool:
    """Whether a text is a well-formed partition key; Dagster itself accepts anything, even an empty one.

    >>> is_batch_id("2026-01-31.00007"), is_batch_id("2026-01-31...2026-02-01")
    (True, False)
    """
    return _BATCH_ID.fullmatch(text) is not None


class Batches:
    """What was seen, cut into batches; made over the ledger's file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def cut(
        self,
        *,
        day: date,
        max_objects: int,
        max_bytes: int,
        max_batches: int,
        source: str | None = None,
        is_announced: bool = True,
    ) -> list[Batch]:
        """Cut objects that are in no batch yet into batches, source by source, in the order they were noted.

        When all of a source is cut, its batches with a new revision are announced too: an object that was moved is
        taken in under its new name before it is taken back under the old one.

        A batch closes at ``max_objects`` or before it would pass ``max_bytes``; a larger object gets its own.

        Args:
            day: day of arrival (UTC), for the batch's name.
            max_objects: most objects of a batch.
            max_bytes: most bytes of a batch.
            max_batches: most batches to cut now; the rest waits for the next call.
            source: objects of this source only; None: of all.
            is_announced: False: the caller runs the batches itself; no sensor need announce them.
        """
        batches: list[Batch] = []
        with transaction(self._connection):
            for name in [source] if source is not None else self._sources():
                while len(batches) < max_batches:
                    batch = self._cut_one(name, day, max_objects, max_bytes)
                    if batch is None:
                        break
                    batches.append(batch)
                    if is_announced:
                        self._announce(batch.seq, 0)
                self._settle_revisions(name, is_announced=is_announced)
        return batches

    def batches(self) -> list[Batch]:
        """All batches, oldest first."""
        rows = self._connection.execute(f"SELECT {_BATCH} FROM batch ORDER BY seq").fetchall()
        return [Batch(*row) for row in rows]

    def announcements(
        self, after: int, limit: int, *, source: str | None = None, other_than: Collection[str] = ()
    ) -> list[Announcement]:
        """The next announcements behind a cursor, oldest first; one that a later revision has overtaken is left out.

        Args:
            after: number of the last one that was made.
            limit: at most so many.
            source: batches of this source only.
            other_than: batches of other sources than these only.
        """
        rows = self._connection.execute(
            f"""SELECT announcement.seq, announcement.revision, {_BATCH}
            FROM announcement JOIN batch ON batch.seq = batch_seq
            WHERE announcement.seq > ? AND announcement.revision = batch.announced
              AND (? IS NULL OR source = ?) AND source NOT IN (SELECT value FROM json_each(?))
            ORDER BY announcement.seq LIMIT ?""",
            (after, source, source, json.dumps(list(other_than)), limit),
        ).fetchall()
        return [Announcement(seq, revision, Batch(*batch)) for seq, revision, *batch in rows]

    def announce_again(self, batch_ids: Iterable[str]) -> None:
        """Have batches run again, as a new revision."""
        with transaction(self._connection):
            for batch_id in batch_ids:
                rows = self._connection.execute("SELECT seq FROM batch WHERE batch_id = ?", (batch_id,)).fetchall()
                revise(self._connection, {seq for (seq,) in rows})

    def batch(self, batch_id: str) -> Batch:
        """One batch.

        Raises:
            KeyError: there is no such batch.
        """
        rows = self._connection.execute(f"SELECT {_BATCH} FROM batch WHERE batch_id = ?", (batch_id,)).fetchall()
        if not rows:
            raise KeyError(batch_id)
        return Batch(*rows[0])

    def manifest(self, batch_id: str) -> list[ObjectVersion]:
        """The object versions of a batch, always the same, in the same order; only their ``deleted_at`` may change.

        Raises:
            KeyError: there is no such batch.
        """
        seq = self.batch(batch_id).seq
        rows = self._connection.execute(f"SELECT {_OBJECT} FROM object WHERE batch_seq = ? ORDER BY id", (seq,))
        return [_object(row) for row in rows]

    def waiting(self, source: str | None = None) -> int:
        """How many noted objects are in no batch yet."""
        ((count,),) = self._connection.execute(
            "SELECT count(*) FROM object WHERE batch_seq IS NULL AND is_current AND (? IS NULL OR source = ?)",
            (source, source),
        ).fetchall()
        return int(count)

    def sources_waiting(self) -> list[str]:
        """Names of the sources with objects that are in no batch yet."""
        rows = self._connection.execute(
            "SELECT DISTINCT source FROM object WHERE batch_seq IS NULL AND is_current ORDER BY source"
        ).fetchall()
        return [name for (name,) in rows]

    def _sources(self) -> list[str]:
        """Names of all sources with objects that wait, or batches that were revised."""
        rows = self._connection.execute("SELECT DISTINCT source FROM batch WHERE revision > announced").fetchall()
        return sorted({*self.sources_waiting(), *(name for (name,) in rows)})

    def _cut_one(self, source: str, day: date, max_objects: int, max_bytes: int) -> Batch | None:
        chosen: list[int] = []
        total = 0
        waiting = "source = ? AND batch_seq IS NULL AND is_current"
        for row_id, size in self._connection.execute(
            f"SELECT id, size FROM object WHERE {waiting} ORDER BY id LIMIT ?", (source, max_objects)
        ):
            if chosen and total + size > max_bytes:
                break
            chosen.append(row_id)
            total += size
        if not chosen:
            return None
        batch_id = self._next_id(day)
        ((seq,),) = self._connection.execute(
            "INSERT INTO batch (batch_id, source, objects, bytes) VALUES (?, ?, ?, ?) RETURNING seq",
            (batch_id, source, len(chosen), total),
        ).fetchall()
        self._connection.execute(
            f"UPDATE object SET batch_seq = ? WHERE {waiting} AND id <= ?", (seq, source, chosen[-1])
        )
        return Batch(seq, batch_id, source, len(chosen), total)

    def _next_id(self, day: date) -> str:
        ((last,),) = self._connection.execute(
            "SELECT max(CAST(substr(batch_id, 12) AS INTEGER)) FROM batch WHERE batch_id LIKE ?",
            (f"{day.isoformat()}.%",),
        ).fetchall()
        return f"{day.isoformat()}.{(last or 0) + 1:05d}"

    def _settle_revisions(self, source: str, *, is_announced: bool) -> None:
        waiting = "SELECT 1 FROM object WHERE source = ? AND batch_seq IS NULL AND is_current LIMIT 1"
        if self._connection.execute(waiting, (source,)).fetchone():
            return
        rows = self._connection.execute(
            "SELECT seq, revision FROM batch WHERE source = ? AND revision > announced ORDER BY seq", (source,)
        ).fetchall()
        for seq, revision in rows:
            if is_announced:
                self._announce(seq, revision)
        self._connection.executemany("UPDATE batch SET announced = revision WHERE seq = ?", [(seq,) for seq, _ in rows])

    def _announce(self, batch_seq: int, revision: int) -> None:
        self._connection.execute("INSERT INTO announcement (batch_seq, revision) VALUES (?, ?)", (batch_seq, revision))


def revise(connection: sqlite3.Connection, batch_seqs: Collection[int]) -> None:
    """Give batches a new revision, to be announced when all of their source is cut."""
    connection.executemany("UPDATE batch SET revision = revision + 1 WHERE seq = ?", [(seq,) for seq in batch_seqs])


def _object(row: Sequence[object]) -> ObjectVersion:
    uri, version, size, modified_at, source, is_archive, noted_at, gone_at = row
    return ObjectVersion(
        uri=str(uri),
        version=str(version),
        size=int(str(size)),
        modified_at=datetime.fromisoformat(str(modified_at)),
        source=str(source),
        is_archive=bool(is_archive),
        first_seen_at=datetime.fromisoformat(str(noted_at)),
        deleted_at=datetime.fromisoformat(str(gone_at)) if gone_at else None,
    )
