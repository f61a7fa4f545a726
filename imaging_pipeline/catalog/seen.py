"""Objects of the ledger: the versions that were seen, which of them are current, missing or gone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from imaging_pipeline.catalog.batches import revise
from imaging_pipeline.catalog.ledger_file import text_of
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.source import Source
from imaging_pipeline.sources import Deletions
from imaging_pipeline.sqlite import transaction

DELETIONS_ALWAYS_BELIEVED = 100
"""So many vanished objects are believed whatever their share; more must be less than half of the source."""

_LAST = "\U0010ffff"
"""Sorts behind every character a URI can hold."""


@dataclass(frozen=True, slots=True)
class Known:
    """A current object as the ledger has it."""

    row_id: int
    version: str
    is_missing: bool


class SeenObjects:
    """The objects of all sources; made over the ledger's file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def known(self, source: Source, after: str | None, upto: str | None) -> dict[str, Known]:
        """The current objects of a source behind ``after`` (None: from its first) up to ``upto`` (None: its last)."""
        start, first = (">=", source.prefix) if after is None else (">", after)
        rows = self._connection.execute(
            f"""SELECT uri, id, version, missing_since IS NOT NULL FROM object
            WHERE source = ? AND uri {start} ? AND uri <= ? AND is_current AND parent_uri IS NULL""",
            (source.config.name, first, source.prefix + _LAST if upto is None else upto),
        )
        return {uri: Known(row_id, version, bool(missing)) for uri, row_id, version, missing in rows}

    def unknown(self, entries: Sequence[ObjectVersion]) -> list[ObjectVersion]:
        """Those that no other source has taken in already; an object belongs to the first that names it."""
        rows = self._connection.execute(
            "SELECT uri, version FROM object WHERE is_current AND uri IN (SELECT value FROM json_each(?))",
            (json.dumps([entry.uri for entry in entries]),),
        ).fetchall()
        current = set(rows)
        return [entry for entry in entries if (entry.uri, entry.version) not in current]

    def note_all(
        self,
        entries: Sequence[ObjectVersion],
        archives: Iterable[tuple[ObjectVersion, list[ObjectVersion]]],
        now: datetime,
        deletions: Deletions,
    ) -> int:
        """Note objects and the members of archives, in one transaction; returns how many were new, changed or back."""
        with transaction(self._connection):
            new = self._note(entries, None, now, deletions)
            for archive, members in archives:
                new += self._note(members, archive.uri, now, deletions)
                listed = {member.uri for member in members}
                left = [row_id for uri, row_id in self._member_ids(archive.uri) if uri not in listed]
                self.retire(left, now, deletions)
                self._connection.execute(
                    "UPDATE object SET members_noted = 1 WHERE uri = ? AND version = ?", (archive.uri, archive.version)
                )
        return new

    def has_members_noted(self, archive: ObjectVersion) -> bool:
        """Whether the members of this version of an archive were noted since it was last found new, changed or back."""
        rows = self._connection.execute(
            "SELECT members_noted FROM object WHERE uri = ? AND version = ?", (archive.uri, archive.version)
        ).fetchall()
        return any(noted for (noted,) in rows)

    def _note(
        self, entries: Sequence[ObjectVersion], parent_uri: str | None, now: datetime, deletions: Deletions
    ) -> int:
        """Make versions the current ones of their URIs."""
        uris = [entry.uri for entry in entries]
        rows = self._connection.execute(
            """SELECT uri, version, id, is_current, gone_at IS NOT NULL, batch_seq FROM object
            WHERE uri IN (SELECT value FROM json_each(?))""",
            (json.dumps(uris),),
        ).fetchall()
        known = {(uri, version): row for uri, version, *row in rows}
        wanted = {(entry.uri, entry.version): entry for entry in entries}
        current = {key for key, (_, is_current, _, _) in known.items() if is_current}
        # A file that was overwritten: its old bytes are gone, and everything made from them.
        archives = {entry.uri for entry in entries if entry.is_archive}
        old = [key for key in current if key not in wanted]
        self.retire([known[key][0] for key in old if key[0] not in archives], now, deletions)
        self.retire([known[key][0] for key in old if key[0] in archives], now, deletions, keep_members=True)
        back = [known[key] for key in wanted if key in known and key not in current]
        self._connection.executemany(
            "UPDATE object SET is_current = 1, gone_at = NULL, missing_since = NULL, members_noted = 0 WHERE id = ?",
            [(row_id,) for row_id, *_ in back],
        )
        revise(self._connection, {batch for _, _, was_gone, batch in back if was_gone and batch is not None})
        fresh = [entry for key, entry in wanted.items() if key not in known]
        self._connection.executemany(
            """INSERT INTO object (uri, version, size, modified_at, source, is_archive, parent_uri, noted_at)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
            [
                (e.uri, e.version, e.size, e.modified_at.isoformat(), e.source, e.is_archive, parent_uri, text_of(now))
                for e in fresh
            ],
        )
        return len(back) + len(fresh)

    def missing_ids(self, source: Source) -> dict[str, int]:
        """Rows of a source that a listing has not found in their place, by URI."""
        rows = self._connection.execute(
            """SELECT uri, id FROM object WHERE source = ? AND uri >= ? AND uri <= ?
            AND missing_since IS NOT NULL AND is_current""",
            (source.config.name, source.prefix, source.prefix + _LAST),
        ).fetchall()
        return dict(rows)

    def is_likely(self, source: Source, lost: int, last_id: int) -> bool:
        """Whether so many can have vanished: of what was known before, some or most must still be there."""
        ((left,),) = self._connection.execute(
            """SELECT count(*) FROM object WHERE source = ? AND uri >= ? AND uri <= ?
            AND is_current AND parent_uri IS NULL AND missing_since IS NULL AND id <= ?""",
            (source.config.name, source.prefix, source.prefix + _LAST, last_id),
        ).fetchall()
        return left > 0 and (lost <= DELETIONS_ALWAYS_BELIEVED or lost < left)

    def last_id(self) -> int:
        """The newest row."""
        ((last,),) = self._connection.execute("SELECT coalesce(max(id), 0) FROM object").fetchall()
        return int(last)

    def retire(
        self,
        row_ids: Sequence[int],
        now: datetime,
        deletions: Deletions = Deletions.TOMBSTONE,
        *,
        keep_members: bool = False,
    ) -> int:
        """Objects are not current any more, nor the members of archives among them.

        Where deletions count, they are gone and the batches they came in are revised; where they do not, what was made
        of them stays. Those in no batch never come into one.
        """
        if not row_ids:
            return 0
        ids = json.dumps(list(row_ids))
        chosen = "id IN (SELECT value FROM json_each(?))"
        if not keep_members:
            rows = self._connection.execute(
                f"""SELECT member.id FROM object AS archive JOIN object AS member ON member.parent_uri = archive.uri
                WHERE archive.{chosen} AND member.is_current""",
                (ids,),
            ).fetchall()
            ids = json.dumps([*row_ids, *(row_id for (row_id,) in rows)])
        if deletions is Deletions.TOMBSTONE:
            batches = self._connection.execute(
                f"SELECT DISTINCT batch_seq FROM object WHERE {chosen} AND is_current AND batch_seq IS NOT NULL", (ids,)
            ).fetchall()
            revise(self._connection, {seq for (seq,) in batches})
        cursor = self._connection.execute(
            f"UPDATE object SET is_current = 0, gone_at = ?, missing_since = NULL WHERE {chosen} AND is_current",
            (text_of(now) if deletions is Deletions.TOMBSTONE else None, ids),
        )
        return cursor.rowcount

    def set_missing(self, row_ids: Sequence[int], since: str | None) -> None:
        """Note since when a listing has not found them; None: they are there."""
        self._connection.executemany(
            "UPDATE object SET missing_since = ? WHERE id = ?", [(since, row_id) for row_id in row_ids]
        )

    def current_ids(self, uris: Sequence[str]) -> list[int]:
        """Rows of the current versions of some URIs."""
        rows = self._connection.execute(
            "SELECT id FROM object WHERE is_current AND uri IN (SELECT value FROM json_each(?))",
            (json.dumps(uris),),
        ).fetchall()
        return [row_id for (row_id,) in rows]

    def _member_ids(self, archive_uri: str) -> list[tuple[str, int]]:
        return self._connection.execute(
            "SELECT uri, id FROM object WHERE parent_uri = ? AND is_current", (archive_uri,)
        ).fetchall()

    def missing(self, source: str) -> int:
        """How many objects have vanished from a source without being believed to be gone."""
        ((count,),) = self._connection.execute(
            "SELECT count(*) FROM object WHERE source = ? AND missing_since IS NOT NULL AND is_current", (source,)
        ).fetchall()
        return int(count)
