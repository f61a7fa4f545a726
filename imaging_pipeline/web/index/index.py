"""The serving index of a zone: look-ups and searches in milliseconds at a million instances.

It follows the lake's snapshots; what it does not know yet, or no more, is what changed since the last refresh.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence

from imaging_pipeline.sqlite import transaction
from imaging_pipeline.web.index.file import create_index, deflated, in_time, inflated, open_index
from imaging_pipeline.web.index.headers import read_headers
from imaging_pipeline.web.index.loading import bring_up_to_date, withdraw
from imaging_pipeline.web.index.model import Instance
from imaging_pipeline.web.index.searching import Answer, Search, run_search
from imaging_pipeline.web.zone import Zone

_INSTANCE = """
SELECT instance.key, object_key, coalesce(patient_id, ''), study.uid, series.uid, instance.uid, sop_class,
    transfer_syntax, uri, version, size, source, sha256, instance.number, frames, rows, columns, bits_allocated,
    samples, photometric, pixel_data_offset, arrival_batch
FROM instance JOIN series ON series.id = instance.series JOIN study ON study.id = series.study
"""

_ORDER = "series.number, series.uid, instance.number, instance.uid"

FILE_META = "0002"
"""Group of the file meta information, which is no part of an answer (PS3.18 F.2)."""

SEARCH_SECONDS = 30.0
"""How long one search may keep a thread and the disk busy; those over an index of columns take milliseconds."""

_PLACES = 500
"""Keys of one query."""


class Index:
    """The index of one zone. All methods may be called from any thread, and block.

    Args:
        zone: the zone; its lake is read by :meth:`refresh` and :meth:`headers` alone.
    """

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._local = threading.local()
        self._refreshing = threading.Lock()
        create_index(zone.index_path)

    def refresh(self) -> bool:
        """Take in what has changed in the lake; whether anything had.

        Raises:
            ConfigurationError: the lake cannot be opened.
            TransientError: it is busy.
        """
        with self._refreshing:
            is_less = withdraw(self._connection(), self._zone)
            with self._zone.open_lake() as lake:
                return bring_up_to_date(self._connection(), self._zone, lake) or is_less

    def instance(self, study: str, series: str, sop: str) -> Instance | None:
        """The instance of these three UIDs, if it is served."""
        return next(iter(self.instances(study, series, sop)), None)

    def instances(self, study: str, series: str | None = None, sop: str | None = None) -> list[Instance]:
        """The instances of a study, a series, or one instance, by series, instance number and UID."""
        where, values = _of(study, series, sop)
        rows = self._connection().execute(f"{_INSTANCE} WHERE {where} ORDER BY {_ORDER}", values)
        return [Instance(*row) for row in rows]

    def knows(self, study: str, series: str | None = None, sop: str | None = None) -> bool:
        """Whether these UIDs are of this zone."""
        where, values = _of(study, series, sop)
        return self._connection().execute(f"{_INSTANCE} WHERE {where} LIMIT 1", values).fetchone() is not None

    def headers(self, instances: Sequence[Instance]) -> Iterator[tuple[Instance, str]]:
        """The headers of instances in the given order, as documents of the DICOM JSON Model with group 0002.

        Bulk data are relative ``BulkDataURI`` (docs/reference/json_model.md). A header is kept once it was read.

        Raises:
            PoisonInput: an object is gone or cannot be read; nothing is given then.
        """
        kept = self._have_headers(instances)
        return ((one, inflated(kept[one.instance_key])) for one in instances)

    def search(self, search: Search) -> Answer:
        """What a search finds.

        Raises:
            PoisonInput: headers are looked into or answered, and one cannot be read.
            TransientError: it takes too long.
        """
        if search.needs_headers and search.study is not None:
            self._have_headers(self.instances(search.study, search.series))
        with in_time(self._connection(), SEARCH_SECONDS) as connection:
            answer = run_search(connection, search)
        return self._with_headers(search, answer) if search.answers_headers else answer

    def held_studies(self) -> int:
        """How many studies are not shown, because the checks of a batch they are in have not passed."""
        ((count,),) = self._connection().execute("SELECT count(*) FROM held").fetchall()
        return int(count)

    def close(self) -> None:
        """Let go of the file, when a refresh that is under way has ended. A thread that still asks is answered."""
        with self._refreshing:
            self._local = threading.local()  # a connection closes with the last thread that uses it

    def _connection(self) -> sqlite3.Connection:
        """The connection of this thread."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = open_index(self._zone.index_path)
        return connection

    def _with_headers(self, search: Search, answer: Answer) -> Answer:
        """The answer, with what only headers say: all but bulk data, or the fields asked for."""
        instances = [one for match in answer.matches for one in self.instances(*match.uids)]
        for match, (_, text) in zip(answer.matches, self.headers(instances), strict=True):
            header = json.loads(text)
            for tag, element in header.items():
                is_wanted = search.has_all_fields or tag in search.fields
                if is_wanted and not tag.startswith(FILE_META) and "BulkDataURI" not in element:
                    match.document.setdefault(tag, element)
        return answer

    def _have_headers(self, instances: Sequence[Instance]) -> dict[str, bytes]:
        """Headers as the file keeps them, by instance key; those it lacks are read and kept."""
        kept = self._kept_headers([one.instance_key for one in instances])
        missing = [one for one in instances if one.instance_key not in kept]
        if missing:
            read = {key: deflated(text) for key, text in read_headers(self._zone, missing).items()}
            self._keep_headers([(read[one.instance_key], one) for one in missing])
            kept |= read
        return kept

    def _kept_headers(self, keys: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for first in range(0, len(keys), _PLACES):
            part = keys[first : first + _PLACES]
            found |= self._connection().execute(_HEADERS.format(places=",".join("?" * len(part))), part).fetchall()
        return found

    def _keep_headers(self, documents: Sequence[tuple[bytes, Instance]]) -> None:
        """Keep headers of instances that are still served as they were read; not while a refresh holds the file."""
        if not self._refreshing.acquire(blocking=False):
            return
        try:
            connection = self._connection()
            with transaction(connection):
                connection.executemany(
                    _KEEP_HEADER, [(data, one.instance_key, one.object_key, one.sha256) for data, one in documents]
                )
        finally:
            self._refreshing.release()


def _of(study: str, series: str | None, sop: str | None) -> tuple[str, list[str]]:
    given = [("study.uid", study), ("series.uid", series), ("instance.uid", sop)]
    used = [(column, uid) for column, uid in given if uid is not None]
    return " AND ".join(f"{column} = ?" for column, _ in used), [uid for _, uid in used]


_HEADERS = """
SELECT key, document FROM header JOIN instance ON instance.id = header.instance WHERE instance.key IN ({places})
"""

_KEEP_HEADER = """
INSERT OR REPLACE INTO header SELECT id, ? FROM instance WHERE key = ? AND object_key = ? AND sha256 = ?
"""
