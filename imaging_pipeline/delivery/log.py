"""The delivery log: what each peer has been handed, and what it said.

One SQLite file for each zone, beside what it tells of. It is what makes a repeated run send nothing twice: an object is
noted as under way before its first byte leaves, and as accepted when the peer has said so. What is found under way
later was in flight when a process died or a connection broke, and its fate is asked of the peer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import filelock

from imaging_pipeline.delivery.items import Item
from imaging_pipeline.errors import TransientError
from imaging_pipeline.sqlite import connect, transaction

FIRST_WAIT: Final = timedelta(minutes=1)
LONGEST_WAIT: Final = timedelta(hours=6)
"""Waits double from the first to the longest."""

MOST_ATTEMPTS: Final = 12
"""Tried so often, over more than a day, an object waits for a person."""

GONE: Final = "file_gone"
CHANGED: Final = "file_changed"
INTERRUPTED: Final = "interrupted"
FOUND: Final = "found_there"
UNREADABLE: Final = "undecodable"
NOT_TAKEN: Final = "no_context"
NOT_NAMED: Final = "not_named"
"""Words the log has beside the peers' own codes."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS delivery (
    delivery_key TEXT PRIMARY KEY, peer TEXT NOT NULL, delivery TEXT NOT NULL, instance_key TEXT NOT NULL,
    study_uid TEXT NOT NULL, series_uid TEXT NOT NULL, sop_uid TEXT NOT NULL, sha256 TEXT NOT NULL,
    size INTEGER NOT NULL, state TEXT NOT NULL, code TEXT NOT NULL, attempts INTEGER NOT NULL,
    tried_at TEXT NOT NULL, next_at TEXT, accepted_at TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS delivery_of_peer ON delivery (peer, state, next_at);
CREATE TABLE IF NOT EXISTS peer (name TEXT PRIMARY KEY, failures INTEGER NOT NULL, next_at TEXT) WITHOUT ROWID;
"""

_KNOWN: Final = """
SELECT delivery_key, CASE
    WHEN state = 'ACCEPTED' AND accepted_at < max(accepted_at) OVER (PARTITION BY sop_uid) THEN 'WITHDRAWN'
    ELSE state END, next_at
FROM delivery WHERE peer = :peer
"""
"""How far objects are at a peer. What it has accepted under a UID last is what it has: all before was replaced."""


class State(StrEnum):
    """How far one object is at one peer.

    WITHDRAWN: it was accepted, and may not be there any more as it was, for it was taken back here and the peer is to
    be told. Where the same bytes are to be sent once more, they are new to the peer.
    """

    UNDER_WAY = "UNDER_WAY"
    ACCEPTED = "ACCEPTED"
    WAITING = "WAITING"
    REFUSED = "REFUSED"
    WITHDRAWN = "WITHDRAWN"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer said to one object.

    Attributes:
        state: ACCEPTED; REFUSED, where the same bytes would be refused again; WAITING, where they may be taken later.
        code: the DIMSE status or failure reason in hexadecimal, or a word for what happened before there was one.
    """

    state: State
    code: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the log, times in naive UTC; see the columns of the table ``delivery``."""

    delivery_key: str
    peer: str
    delivery: str
    instance_key: str
    study_uid: str
    series_uid: str
    sop_uid: str
    sha256: str
    size: int
    state: State
    code: str
    attempts: int
    tried_at: datetime
    next_at: datetime | None
    accepted_at: datetime | None


class DeliveryLog:
    """The log file; use as a context manager.

    Args:
        path: the SQLite file, made for its owner alone when it is missing.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._path = path
        self._connection = connect(path)
        self._connection.executescript(_SCHEMA)

    def __enter__(self) -> DeliveryLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    @contextmanager
    def sending_to(self, peer: str) -> Iterator[None]:
        """Nobody else sends to this peer meanwhile: two at once could hand over one object twice.

        Raises:
            TransientError: another process is sending to it.
        """
        lock = filelock.FileLock(self._path.with_name(f".{self._path.stem}.{peer}.lock"), timeout=0)
        try:
            with lock:
                yield
        except filelock.Timeout:
            raise TransientError(f"another process is sending to peer {peer!r}") from None

    def due(self, peer: str, items: Sequence[Item], now: datetime) -> list[Item]:
        """Those of some objects that this peer is to be sent now.

        New ones, those whose wait is over, and those that were taken back since and are to be sent once more.
        """
        rows = self._connection.execute(_KNOWN, {"peer": peer})
        known = {key: (state, next_at) for key, state, next_at in rows.fetchall()}
        return [item for item in items if _is_due(known.get(item.key(peer)), _text(now))]

    def has_due(self, peer: str, now: datetime) -> bool:
        """Whether something handed to a peer before is to be looked at now: its wait is over, or it is open."""
        found = self._connection.execute(
            "SELECT 1 FROM delivery WHERE peer = ? AND (state = ? OR (state = ? AND next_at <= ?)) LIMIT 1",
            (peer, State.UNDER_WAY, State.WAITING, _text(now)),
        )
        return found.fetchone() is not None

    def begin(self, peer: str, delivery: str, items: Iterable[Item], now: datetime) -> None:
        """Note objects as under way, all or none, before the first of them leaves."""
        rows = []
        for item in items:
            uids = (item.study_uid, item.series_uid, item.sop_uid)
            of_item = (item.key(peer), peer, delivery, item.instance_key, *uids, item.sha256, item.size)
            rows.append((*of_item, State.UNDER_WAY, "", 1, _text(now)))
        with transaction(self._connection):
            self._connection.executemany(
                """INSERT INTO delivery VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)
                ON CONFLICT (delivery_key) DO UPDATE SET
                    state = excluded.state, code = '', attempts = attempts + 1, tried_at = excluded.tried_at,
                    delivery = excluded.delivery, instance_key = excluded.instance_key, next_at = NULL""",
                rows,
            )

    def answer(self, peer: str, answers: Mapping[str, Answer], now: datetime) -> None:
        """Note what a peer said, by key; what is to be tried again waits longer each time, and in the end for a person.

        An object that was accepted stays so.
        """
        with transaction(self._connection):
            for key, said in answers.items():
                ((attempts,),) = self._connection.execute(
                    "SELECT attempts FROM delivery WHERE delivery_key = ? AND peer = ?", (key, peer)
                ).fetchall()
                state = said.state
                if state is State.WAITING and attempts >= MOST_ATTEMPTS:
                    state = State.REFUSED
                next_at = _text(now + _wait(attempts)) if state is State.WAITING else None
                accepted_at = _text(now) if state is State.ACCEPTED else None
                self._connection.execute(
                    """UPDATE delivery SET state = ?, code = ?, next_at = ?, accepted_at = coalesce(?, accepted_at)
                    WHERE delivery_key = ? AND state <> ?""",
                    (state, said.code, next_at, accepted_at, key, State.ACCEPTED),
                )

    def put_back(self, keys: Iterable[str]) -> None:
        """Objects that were noted as under way and did not leave, or never arrived: due at once."""
        with transaction(self._connection):
            self._connection.executemany(
                """UPDATE delivery SET state = ?, code = '', next_at = tried_at, attempts = attempts - 1
                WHERE delivery_key = ? AND state = ?""",
                [(State.WAITING, key, State.UNDER_WAY) for key in keys],
            )

    def interrupted(self, keys: Iterable[str]) -> None:
        """Objects that had left, or were leaving, when the connection broke: under way until the peer is asked."""
        with transaction(self._connection):
            self._connection.executemany(
                "UPDATE delivery SET code = ? WHERE delivery_key = ?", [(INTERRUPTED, key) for key in keys]
            )

    def withdraw(self, keys: Iterable[str]) -> None:
        """Objects a peer has accepted that were taken back here: sent once more should they ever be released again."""
        with transaction(self._connection):
            self._connection.executemany(
                "UPDATE delivery SET state = ? WHERE delivery_key = ? AND state = ?",
                [(State.WITHDRAWN, key, State.ACCEPTED) for key in keys],
            )

    def try_again(self, peer: str) -> int:
        """A person has looked: what the peer refused is due again, and so is the peer; how many objects."""
        with transaction(self._connection):
            self._connection.execute("DELETE FROM peer WHERE name = ?", (peer,))
            changed = self._connection.execute(
                "UPDATE delivery SET state = ?, attempts = 0, next_at = tried_at WHERE peer = ? AND state IN (?, ?)",
                (State.WAITING, peer, State.REFUSED, State.WAITING),
            )
            return changed.rowcount

    def peer_failed(self, peer: str, now: datetime) -> datetime:
        """Note that a peer could not be reached, or broke off; when it is tried again (naive UTC)."""
        with transaction(self._connection):
            self._connection.execute("INSERT OR IGNORE INTO peer VALUES (?, 0, NULL)", (peer,))
            ((failures,),) = self._connection.execute(
                "SELECT failures + 1 FROM peer WHERE name = ?", (peer,)
            ).fetchall()
            next_at = _text(now + _wait(failures))
            self._connection.execute(
                "UPDATE peer SET failures = ?, next_at = ? WHERE name = ?", (failures, next_at, peer)
            )
        return datetime.fromisoformat(next_at)

    def peer_works(self, peer: str) -> None:
        """Forget the failures of a peer."""
        with transaction(self._connection):
            self._connection.execute("DELETE FROM peer WHERE name = ?", (peer,))

    def rests_until(self, peer: str, now: datetime) -> datetime | None:
        """When a peer that failed is tried again (naive UTC); None: it may be tried now."""
        rows = self._connection.execute("SELECT next_at FROM peer WHERE name = ? AND next_at > ?", (peer, _text(now)))
        return next((datetime.fromisoformat(text) for (text,) in rows.fetchall()), None)

    def accepted(self, peer: str) -> set[str]:
        """Keys of what a peer has accepted, and what was neither taken back nor replaced there since."""
        rows = self._connection.execute(_KNOWN, {"peer": peer})
        return {str(key) for key, state, _ in rows if state == State.ACCEPTED}

    def entries(self, peer: str | None = None) -> list[Entry]:
        """All lines, or those of one peer, by key."""
        where, values = ("WHERE peer = ?", (peer,)) if peer else ("", ())
        rows = self._connection.execute(f"SELECT * FROM delivery {where} ORDER BY delivery_key", values)
        return [_entry(row) for row in rows]


def _is_due(known: tuple[str, str | None] | None, now: str) -> bool:
    if known is None:
        return True
    state, next_at = known
    return state == State.WITHDRAWN or (state == State.WAITING and (next_at is None or next_at <= now))


def _wait(attempts: int) -> timedelta:
    return min(FIRST_WAIT * int(2 ** min(attempts - 1, 20)), LONGEST_WAIT)


def _text(moment: datetime) -> str:
    """Naive UTC in ISO 8601, always with microseconds, so that texts sort like the moments."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def _entry(row: tuple[Any, ...]) -> Entry:
    values = dict(zip(Entry.__dataclass_fields__, row, strict=True))
    times = {name: datetime.fromisoformat(values[name]) for name in _TIMES if values[name]}
    return Entry(**values | times | {"state": State(values["state"])})


_TIMES: Final = ("tried_at", "next_at", "accepted_at")
