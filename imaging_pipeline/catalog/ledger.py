"""The ledger: which object versions were seen, which are gone, and the batches they were cut into.

One SQLite file, written by whoever announces batches (the sensors, or a person's one-off load) and read by everyone
else. It holds URIs, so it belongs to the identified zone. It opens no object but archives' directories, and knows
nothing of what becomes of a batch.

A listing is compared page by page with what is known between two URIs, so a pass can stop anywhere and go on later,
memory does not grow with the source, and nothing is written where nothing has changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, replace
from datetime import datetime
from pathlib import Path

from imaging_pipeline.catalog.batches import Announcement, Batch, Batches, is_batch_id
from imaging_pipeline.catalog.ledger_file import open_ledger, text_of
from imaging_pipeline.catalog.seen import SeenObjects
from imaging_pipeline.errors import PoisonInput
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.objects.source import Page, Source
from imaging_pipeline.sources import Deletions
from imaging_pipeline.sqlite import transaction

__all__ = ["Announcement", "Batch", "Ledger", "Scan", "is_batch_id"]

CHEAP_SECONDS = 1.0
"""A source that is listed in less is listed in every tick."""

REST = 9.0
"""A larger one is listed again after a rest this many times as long as its last listing: 10 % of the time."""


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
class _Listing:
    """How far a pass over a source is.

    Attributes:
        upto: what it has covered; None: nothing yet, or everything.
        seconds: spent on it.
        last_id: the newest row when it began.
        finished_at: when it ended (naive UTC in ISO 8601); None: it is under way.
        is_held: vanished objects of an earlier pass were not believed to be gone, and no person has said so since.
    """

    upto: str | None = None
    seconds: float = 0.0
    last_id: int = 0
    finished_at: str | None = None
    is_held: bool = False


class Ledger(Batches):
    """The ledger file; use as a context manager.

    Args:
        path: the SQLite file, made when it is missing.
        clock: seconds that only grow, for time budgets.

    Raises:
        ConfigurationError: the file was made by a development version with another layout.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(open_ledger(path))
        self._seen = SeenObjects(self._connection)
        self._clock = clock

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the ledger is of no use afterwards."""
        self._connection.close()

    def is_listing_due(self, source: Source, now: datetime) -> bool:
        """Whether a pass over the source is under way, or has rested long enough since the last one."""
        listing = self._listing(source)
        if listing.finished_at is None or listing.seconds < CHEAP_SECONDS:
            return True
        rested = datetime.fromisoformat(text_of(now)) - datetime.fromisoformat(listing.finished_at)
        return rested.total_seconds() >= listing.seconds * REST

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
        listing = self._listing(source)
        if listing.finished_at is not None or listing.upto is None:
            listing = replace(listing, upto=None, seconds=0.0, last_id=self._seen.last_id(), finished_at=None)
        started, found, is_complete = self._clock(), Scan(), False
        try:
            for page in source.pages(listing.upto, now):
                found += self._take_page(source, reader, page, listing.upto, now)
                listing = replace(listing, upto=page.upto)
                is_complete = page.upto is None
                if is_complete or self._clock() - started >= budget_seconds:
                    break
            if is_complete:
                gone = self._believe(source, listing, now, believe_deletions=believe_deletions)
                found, listing = found + gone, replace(listing, is_held=gone.held > 0, finished_at=text_of(now))
        finally:
            seconds = listing.seconds + self._clock() - started
            self._save_listing(source, replace(listing, seconds=seconds))
        return replace(found, is_complete=is_complete)

    def restart_listing(self, source: Source) -> None:
        """Begin the next listing from the start, also when one is under way."""
        self._save_listing(source, replace(self._listing(source), upto=None, seconds=0.0, finished_at=None))

    def look_at(self, source: Source, uris: Iterable[str], reader: ObjectReader, *, now: datetime) -> Scan:
        """Look at single objects that an event has named, as they are now; order and repetition do not matter.

        Raises:
            TransientError: the source does not answer.
        """
        found = Scan()
        for uri in dict.fromkeys(uris):
            entry = source.stat(uri)
            if entry is not None:
                expanded = self._expanded([entry], reader)
                found += Scan(listed=1, new=self._seen.note_all([entry], expanded, now, source.config.deletions))
                self._seen.set_missing(self._seen.current_ids([uri]), None)
            elif source.selects(uri) and source.config.deletions is Deletions.TOMBSTONE:
                with transaction(self._connection):
                    found += Scan(gone=self._seen.retire(self._seen.current_ids([uri]), now))
        return found

    def add_members(
        self, archive: ObjectVersion, reader: ObjectReader, *, now: datetime, deletions: Deletions = Deletions.TOMBSTONE
    ) -> int:
        """Note the members of an archive that could be read, or was recognised, only when it was read.

        Returns how many are new. Where this version was looked into before, when it was listed, nothing is done.
        """
        if self._seen.has_members_noted(archive):
            return 0
        return self._seen.note_all([], self._expanded([replace(archive, is_archive=True)], reader), now, deletions)

    def missing(self, source: str) -> int:
        """How many objects have vanished from a source without being believed to be gone."""
        return self._seen.missing(source)

    def _listing(self, source: Source) -> _Listing:
        """Where the listing of a source is; one whose location has changed begins anew."""
        rows = self._connection.execute(
            "SELECT upto, seconds, last_id, finished_at, is_held FROM listing WHERE source = ? AND prefix = ?",
            (source.config.name, source.prefix),
        ).fetchall()
        return _Listing(*rows[0]) if rows else _Listing()

    def _save_listing(self, source: Source, listing: _Listing) -> None:
        self._connection.execute(
            """INSERT OR REPLACE INTO listing (source, prefix, upto, seconds, last_id, finished_at, is_held)
            VALUES (?, ?, ?, ?, ?, ?, ?)""",
            (source.config.name, source.prefix, *astuple(listing)),
        )

    def _take_page(self, source: Source, reader: ObjectReader, page: Page, after: str | None, now: datetime) -> Scan:
        """Compare a page with what is known in its range; write only when there is a difference."""
        known = self._seen.known(source, after, page.upto)
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
        fresh = self._seen.unknown(fresh)
        new = self._seen.note_all(fresh, self._expanded(fresh, reader), now, source.config.deletions) if fresh else 0
        if back or lost:
            with transaction(self._connection):
                self._seen.set_missing(back, None)
                self._seen.set_missing(lost, text_of(now))
        return Scan(listed=len(page.objects), new=new)

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

    def _believe(self, source: Source, listing: _Listing, now: datetime, *, believe_deletions: bool) -> Scan:
        """At the end of a listing: mark what has vanished as gone, unless it is too much to be true.

        What was not seen in its place is looked at once more: a pass may take long, and things come back.
        """
        if source.config.deletions is not Deletions.TOMBSTONE:
            return Scan()
        missing = self._seen.missing_ids(source)
        back = [row_id for uri, row_id in missing.items() if source.stat(uri) is not None]
        self._seen.set_missing(back, None)
        lost = sorted(set(missing.values()) - set(back))
        if not lost:
            return Scan()
        if not believe_deletions and (listing.is_held or not self._seen.is_likely(source, len(lost), listing.last_id)):
            return Scan(held=len(lost))
        with transaction(self._connection):
            return Scan(gone=self._seen.retire(lost, now))
