"""The ledger: which object versions were seen, which are gone, and the batches they were cut into.

One SQLite file, written by whoever announces batches (the sensors, or a person's one-off load) and read by everyone
else. It holds URIs, so it belongs to the identified zone. It opens no object but archives' directories, and knows
nothing of what becomes of a batch.

A listing is compared page by page with what is known between two URIs, so a pass can stop anywhere and go on later,
memory does not grow with the source, and nothing is written where nothing has changed.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

from imaging_pipeline.errors import ConfigurationError, PoisonInput
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.objects.source import Page, Source
from imaging_pipeline.sources import Deletions
from imaging_pipeline.sqlite import connect

SCHEMA_VERSION = 2

CHEAP_SECONDS = 1.0
"""A source that is listed in less is listed in every tick."""

REST = 9.0
"""A larger one is listed again after a rest this many times as long as its last listing: 10 % of the time."""

DELETIONS_ALWAYS_BELIEVED = 100
"""So many vanished objects are believed whatever their share; more must be less than half of the source."""

_BATCH_ID = re.compile(r"\d{4}-\d{2}-\d{2}\.\d{5,}")

_LAST = "\U0010ffff"
"""Sorts behind every character a URI can hold."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS batch (
  seq INTEGER PRIMARY KEY,
  batch_id TEXT NOT NULL UNIQUE,
  source TEXT NOT NULL,
  objects INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  revision INTEGER NOT NULL DEFAULT 0
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
  parent_uri TEXT,
  batch_seq INTEGER REFERENCES batch (seq),
  noted_at TEXT NOT NULL,
  missing_since TEXT,
  gone_at TEXT,
  UNIQUE (uri, version)
);
CREATE TABLE IF NOT EXISTS listing (
  source TEXT NOT NULL,
  prefix TEXT NOT NULL,
  upto TEXT,
  seconds REAL NOT NULL,
  finished_at TEXT,
  PRIMARY KEY (source, prefix)
);
CREATE INDEX IF NOT EXISTS object_by_batch ON object (batch_seq, id);
CREATE INDEX IF NOT EXISTS object_waiting ON object (source, id) WHERE batch_seq IS NULL AND gone_at IS NULL;
CREATE INDEX IF NOT EXISTS object_listed ON object (source, uri, version, missing_since)
  WHERE gone_at IS NULL AND parent_uri IS NULL;
CREATE INDEX IF NOT EXISTS object_missing ON object (source) WHERE missing_since IS NOT NULL AND gone_at IS NULL;
CREATE INDEX IF NOT EXISTS object_member ON object (parent_uri) WHERE parent_uri IS NOT NULL;
"""

_COLUMNS = "uri, version, size, modified_at, source, is_archive, noted_at, gone_at"


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
    batch: Batch

    @property
    def run_key(self) -> str:
        """The same for the same announcement, so that making it twice is harmless."""
        revision = self.batch.revision
        return f"{self.batch.batch_id}/{revision}" if revision else self.batch.batch_id


@dataclass(frozen=True, slots=True)
class Scan:
    """What a listing, or a part of one, found.

    Attributes:
        listed: objects listed.
        new: those of them, and members of archives, that were new, changed or back.
        gone: objects that were marked as gone.
        held: vanished objects that were not believed to be gone: too many at once.
        is_complete: the listing came to its end.
    """

    listed: int = 0
    new: int = 0
    gone: int = 0
    held: int = 0
    is_complete: bool = True

    def __add__(self, other: Scan) -> Scan:
        return Scan(
            self.listed + other.listed,
            self.new + other.new,
            self.gone + other.gone,
            self.held + other.held,
            self.is_complete and other.is_complete,
        )


@dataclass(frozen=True, slots=True)
class _Known:
    """A current object as the ledger has it."""

    row_id: int
    version: str
    is_missing: bool


def is_batch_id(text: str) -> bool:
    """Whether a text is a well-formed partition key; Dagster itself accepts anything, even an empty one.

    >>> is_batch_id("2026-01-31.00007"), is_batch_id("2026-01-31...2026-02-01")
    (True, False)
    """
    return _BATCH_ID.fullmatch(text) is not None


class Ledger:
    """The ledger file; use as a context manager.

    Args:
        path: the SQLite file, made when it is missing.
        clock: seconds that only grow, for time budgets.

    Raises:
        ConfigurationError: the file was made by a development version with another layout.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        self._connection = connect(path)
        self._prepare()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the ledger is of no use afterwards."""
        self._connection.close()

    def is_listing_due(self, source: Source, now: datetime) -> bool:
        """Whether a pass over the source is under way, or has rested long enough since the last one."""
        _, seconds, finished_at = self._listing(source)
        if finished_at is None or seconds < CHEAP_SECONDS:
            return True
        return (now.astimezone(UTC).replace(tzinfo=None) - finished_at).total_seconds() >= seconds * REST

    def scan(
        self,
        source: Source,
        reader: ObjectReader,
        *,
        now: datetime,
        budget_seconds: float = float("inf"),
        believe_deletions: bool = False,
    ) -> Scan:
        """List a source, or go on with a listing, and note what is new, changed or gone.

        What is noted is committed page by page. A listing that ends early, by its budget, an error or a kill, goes on
        where it was. Objects that have vanished are marked as gone at the end of the listing, and not when they are
        so many that the source itself is likely to be missing (a share that is not mounted).

        Args:
            source: what to list.
            reader: looks into archives that are new.
            now: aware.
            budget_seconds: the listing stops after the page at which so much time has passed.
            believe_deletions: a person has looked: the vanished objects are gone, however many.

        Raises:
            ConfigurationError: the source is missing or access to it is denied.
            TransientError: it does not answer.
        """
        after, spent, finished_at = self._listing(source)
        if finished_at is not None:
            after, spent = None, 0.0
        started, found, is_complete = self._clock(), Scan(), False
        try:
            for page in source.pages(after, now):
                found += self._take_page(source, reader, page, after, now)
                after = page.upto
                is_complete = after is None
                if is_complete or self._clock() - started >= budget_seconds:
                    break
            if is_complete:
                found += self._believe(source, now, believe_deletions=believe_deletions)
        finally:
            spent += self._clock() - started
            self._save_listing(source, after, spent, now if is_complete else None)
        return replace(found, is_complete=is_complete)

    def restart_listing(self, source: Source) -> None:
        """Begin the next listing from the start, also when one is under way."""
        self._save_listing(source, None, 0.0, None)

    def look_at(self, source: Source, uris: Iterable[str], reader: ObjectReader, *, now: datetime) -> Scan:
        """Look at single objects that an event has named, as they are now; order and repetition do not matter.

        Raises:
            TransientError: the source does not answer.
        """
        found = Scan()
        for uri in dict.fromkeys(uris):
            entry = source.stat(uri)
            if entry is not None:
                found += Scan(listed=1, new=self._note_all([entry], self._expanded([entry], reader), now))
            elif source.selects(uri) and source.config.deletions is Deletions.TOMBSTONE:
                with self._transaction():
                    found += Scan(gone=self._bury(self._current_ids([uri]), now))
        return found

    def add_members(self, archive: ObjectVersion, reader: ObjectReader, *, now: datetime) -> int:
        """Note the members of an archive that was recognised by its content; returns how many are new."""
        return self._note_all([], self._expanded([replace(archive, is_archive=True)], reader), now)

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
        with self._transaction():
            for name in [source] if source is not None else self.sources_waiting():
                while len(batches) < max_batches:
                    batch = self._cut_one(name, day, max_objects, max_bytes)
                    if batch is None:
                        break
                    batches.append(batch)
                    if is_announced:
                        self._announce(batch.seq, 0)
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
            f"""SELECT announcement.seq, {_BATCH} FROM announcement JOIN batch ON batch.seq = batch_seq
            WHERE announcement.seq > ? AND announcement.revision = batch.revision
              AND (? IS NULL OR source = ?) AND source NOT IN (SELECT value FROM json_each(?))
            ORDER BY announcement.seq LIMIT ?""",
            (after, source, source, json.dumps(list(other_than)), limit),
        ).fetchall()
        return [Announcement(seq, Batch(*batch)) for seq, *batch in rows]

    def announce_again(self, batch_ids: Iterable[str]) -> None:
        """Have batches run again, as a new revision."""
        with self._transaction():
            for batch_id in batch_ids:
                rows = self._connection.execute("SELECT seq FROM batch WHERE batch_id = ?", (batch_id,)).fetchall()
                self._revise({seq for (seq,) in rows})

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
        rows = self._connection.execute(f"SELECT {_COLUMNS} FROM object WHERE batch_seq = ? ORDER BY id", (seq,))
        return [_object(row) for row in rows]

    def waiting(self, source: str | None = None) -> int:
        """How many noted objects are in no batch yet."""
        ((count,),) = self._connection.execute(
            "SELECT count(*) FROM object WHERE batch_seq IS NULL AND gone_at IS NULL AND (? IS NULL OR source = ?)",
            (source, source),
        ).fetchall()
        return int(count)

    def sources_waiting(self) -> list[str]:
        """Names of the sources with objects that are in no batch yet."""
        rows = self._connection.execute(
            "SELECT DISTINCT source FROM object WHERE batch_seq IS NULL AND gone_at IS NULL ORDER BY source"
        ).fetchall()
        return [name for (name,) in rows]

    def missing(self, source: str) -> int:
        """How many objects have vanished from a source without being believed to be gone."""
        ((count,),) = self._connection.execute(
            "SELECT count(*) FROM object WHERE source = ? AND missing_since IS NOT NULL AND gone_at IS NULL", (source,)
        ).fetchall()
        return int(count)

    def _prepare(self) -> None:
        ((version,),) = self._connection.execute("PRAGMA user_version").fetchall()
        if version == SCHEMA_VERSION:
            return
        with self._transaction():
            ((version,),) = self._connection.execute("PRAGMA user_version").fetchall()
            ((tables,),) = self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            if tables and version != SCHEMA_VERSION:
                raise ConfigurationError(
                    f"the ledger has layout {version}, this version of imaging-pipeline needs {SCHEMA_VERSION}: "
                    "start with a new IMAGING_PIPELINE_HOME and load the sources again"
                )
            for statement in _SCHEMA.split(";"):
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _listing(self, source: Source) -> tuple[str | None, float, datetime | None]:
        """Where the listing of a source is: upto, seconds spent, when it was finished (None: it is under way).

        A source whose location has changed begins anew.
        """
        rows = self._connection.execute(
            "SELECT upto, seconds, finished_at FROM listing WHERE source = ? AND prefix = ?",
            (source.config.name, source.prefix),
        ).fetchall()
        upto, seconds, finished_at = rows[0] if rows else (None, 0.0, None)
        return upto, seconds, datetime.fromisoformat(finished_at) if finished_at else None

    def _save_listing(self, source: Source, upto: str | None, seconds: float, finished: datetime | None) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO listing (source, prefix, upto, seconds, finished_at) VALUES (?, ?, ?, ?, ?)",
            (source.config.name, source.prefix, upto, seconds, _text(finished) if finished else None),
        )

    def _take_page(self, source: Source, reader: ObjectReader, page: Page, after: str | None, now: datetime) -> Scan:
        """Compare a page with what is known in its range; write only when there is a difference."""
        known = self._known(source, after, page.upto)
        fresh: list[ObjectVersion] = []
        back: list[int] = []
        for entry in page.objects:
            row = known.pop(entry.uri, None)
            if row is None or row.version != entry.version:
                fresh.append(entry)
            elif row.is_missing:
                back.append(row.row_id)
        lost: list[int] = []
        if source.config.deletions is Deletions.TOMBSTONE:
            lost = [
                row.row_id
                for uri, row in known.items()
                if not row.is_missing and uri not in page.unsettled and source.selects(uri)
            ]
        fresh = self._unknown(fresh)
        new = self._note_all(fresh, self._expanded(fresh, reader), now) if fresh else 0
        if back or lost:
            with self._transaction():
                self._set_missing(back, None)
                self._set_missing(lost, _text(now))
        return Scan(listed=len(page.objects), new=new)

    def _known(self, source: Source, after: str | None, upto: str | None) -> dict[str, _Known]:
        """The current objects of a source behind ``after`` (None: from its first) up to ``upto`` (None: its last)."""
        start, first = (">=", source.prefix) if after is None else (">", after)
        rows = self._connection.execute(
            f"""SELECT uri, id, version, missing_since IS NOT NULL FROM object
            WHERE source = ? AND uri {start} ? AND uri <= ? AND gone_at IS NULL AND parent_uri IS NULL""",
            (source.config.name, first, source.prefix + _LAST if upto is None else upto),
        )
        return {uri: _Known(row_id, version, bool(missing)) for uri, row_id, version, missing in rows}

    def _unknown(self, entries: Sequence[ObjectVersion]) -> list[ObjectVersion]:
        """Those that no other source has taken in already; an object belongs to the first that names it."""
        rows = self._connection.execute(
            "SELECT uri, version FROM object WHERE gone_at IS NULL AND uri IN (SELECT value FROM json_each(?))",
            (json.dumps([entry.uri for entry in entries]),),
        ).fetchall()
        current = set(rows)
        return [entry for entry in entries if (entry.uri, entry.version) not in current]

    def _expanded(
        self, entries: Iterable[ObjectVersion], reader: ObjectReader
    ) -> list[tuple[ObjectVersion, list[ObjectVersion]]]:
        """Archives with their members; one whose directory cannot be read is left out, its batch will say why."""
        found: list[tuple[ObjectVersion, list[ObjectVersion]]] = []
        for entry in entries:
            if entry.is_archive:
                try:
                    found.append((entry, list(reader.list_members(entry))))
                except PoisonInput:
                    continue  # its members of before stay as they are
        return found

    def _note_all(
        self,
        entries: Sequence[ObjectVersion],
        archives: Iterable[tuple[ObjectVersion, list[ObjectVersion]]],
        now: datetime,
    ) -> int:
        """Note objects and the members of archives, in one transaction; returns how many were new, changed or back."""
        with self._transaction():
            new = self._note(entries, None, now)
            for archive, members in archives:
                new += self._note(members, archive.uri, now)
                listed = {member.uri for member in members}
                self._bury([row_id for uri, row_id in self._member_ids(archive.uri) if uri not in listed], now)
        return new

    def _note(self, entries: Sequence[ObjectVersion], parent_uri: str | None, now: datetime) -> int:
        """Make versions the current ones of their URIs."""
        uris = [entry.uri for entry in entries]
        rows = self._connection.execute(
            """SELECT id, uri, version, gone_at IS NULL, batch_seq FROM object
            WHERE uri IN (SELECT value FROM json_each(?))""",
            (json.dumps(uris),),
        ).fetchall()
        known = {(uri, version): (row_id, is_current, batch) for row_id, uri, version, is_current, batch in rows}
        wanted = {(entry.uri, entry.version): entry for entry in entries}
        current = {key for key, (_, is_current, _) in known.items() if is_current}
        # A file that was overwritten: its old bytes are gone, and everything made from them.
        archives = {entry.uri for entry in entries if entry.is_archive}
        old = [key for key in current if key not in wanted]
        self._bury([known[key][0] for key in old if key[0] not in archives], now)
        self._bury([known[key][0] for key in old if key[0] in archives], now, keep_members=True)
        back = [known[key] for key in wanted if key in known and key not in current]
        self._connection.executemany(
            "UPDATE object SET gone_at = NULL, missing_since = NULL WHERE id = ?", [(row_id,) for row_id, _, _ in back]
        )
        self._revise({batch for _, _, batch in back if batch is not None})
        fresh = [entry for key, entry in wanted.items() if key not in known]
        self._connection.executemany(
            """INSERT INTO object (uri, version, size, modified_at, source, is_archive, parent_uri, noted_at)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
            [
                (e.uri, e.version, e.size, e.modified_at.isoformat(), e.source, e.is_archive, parent_uri, _text(now))
                for e in fresh
            ],
        )
        return len(back) + len(fresh)

    def _believe(self, source: Source, now: datetime, *, believe_deletions: bool) -> Scan:
        """At the end of a listing: mark what has vanished as gone, unless it is too much to be true."""
        name = source.config.name
        missing = self.missing(name) if source.config.deletions is Deletions.TOMBSTONE else 0
        if not missing:
            return Scan()
        ((known,),) = self._connection.execute(
            "SELECT count(*) FROM object WHERE source = ? AND gone_at IS NULL AND parent_uri IS NULL", (name,)
        ).fetchall()
        is_likely = missing < known and (missing <= DELETIONS_ALWAYS_BELIEVED or missing * 2 < known)
        if not is_likely and not believe_deletions:
            return Scan(held=missing)
        with self._transaction():
            rows = self._connection.execute(
                "SELECT id FROM object WHERE source = ? AND missing_since IS NOT NULL AND gone_at IS NULL", (name,)
            ).fetchall()
            return Scan(gone=self._bury([row_id for (row_id,) in rows], now))

    def _bury(self, row_ids: Sequence[int], now: datetime, *, keep_members: bool = False) -> int:
        """Mark objects as gone, with the members of archives among them, and revise the batches they came in."""
        if not row_ids:
            return 0
        ids = json.dumps(list(row_ids))
        chosen = "id IN (SELECT value FROM json_each(?))"
        if not keep_members:
            rows = self._connection.execute(
                f"""SELECT member.id FROM object AS archive JOIN object AS member ON member.parent_uri = archive.uri
                WHERE archive.{chosen} AND member.gone_at IS NULL""",
                (ids,),
            ).fetchall()
            ids = json.dumps([*row_ids, *(row_id for (row_id,) in rows)])
        batches = self._connection.execute(
            f"SELECT DISTINCT batch_seq FROM object WHERE {chosen} AND gone_at IS NULL AND batch_seq IS NOT NULL",
            (ids,),
        ).fetchall()
        cursor = self._connection.execute(
            f"UPDATE object SET gone_at = ?, missing_since = NULL WHERE {chosen} AND gone_at IS NULL", (_text(now), ids)
        )
        self._revise({seq for (seq,) in batches})
        return cursor.rowcount

    def _revise(self, batch_seqs: Collection[int]) -> None:
        for seq in sorted(batch_seqs):
            ((revision,),) = self._connection.execute(
                "UPDATE batch SET revision = revision + 1 WHERE seq = ? RETURNING revision", (seq,)
            ).fetchall()
            self._announce(seq, revision)

    def _announce(self, batch_seq: int, revision: int) -> None:
        self._connection.execute("INSERT INTO announcement (batch_seq, revision) VALUES (?, ?)", (batch_seq, revision))

    def _set_missing(self, row_ids: Sequence[int], since: str | None) -> None:
        self._connection.executemany(
            "UPDATE object SET missing_since = ? WHERE id = ?", [(since, row_id) for row_id in row_ids]
        )

    def _current_ids(self, uris: Sequence[str]) -> list[int]:
        rows = self._connection.execute(
            "SELECT id FROM object WHERE gone_at IS NULL AND uri IN (SELECT value FROM json_each(?))",
            (json.dumps(uris),),
        ).fetchall()
        return [row_id for (row_id,) in rows]

    def _member_ids(self, archive_uri: str) -> list[tuple[str, int]]:
        return self._connection.execute(
            "SELECT uri, id FROM object WHERE parent_uri = ? AND gone_at IS NULL", (archive_uri,)
        ).fetchall()

    def _cut_one(self, source: str, day: date, max_objects: int, max_bytes: int) -> Batch | None:
        chosen: list[int] = []
        total = 0
        waiting = "source = ? AND batch_seq IS NULL AND gone_at IS NULL"
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

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise


_BATCH = "batch.seq, batch_id, source, objects, bytes, batch.revision"


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


def _text(moment: datetime) -> str:
    """A moment as naive UTC in ISO 8601."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat()
