"""One pass of a delivery: what is due leaves, and the log says what became of it.

Owns the order of notes and acts that makes a repeated or interrupted pass send nothing twice. Knows no protocol:
`dimse` and `dicomweb` speak to peers.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from imaging_pipeline.delivery.items import Item
from imaging_pipeline.delivery.log import CHANGED, FOUND, GONE, INTERRUPTED, Answer, DeliveryLog, Entry, State
from imaging_pipeline.errors import TransientError
from imaging_pipeline.objects.folder import uri_to_path
from imaging_pipeline.pacs.config import Delivery

GROUP_OBJECTS: Final = 100
GROUP_BYTES: Final = 256 << 20
"""One association or request carries at most so much: what must be asked for when it breaks stays small."""


class PeerFailedError(TransientError):
    """A peer cannot be reached, refuses us, or broke off.

    Attributes:
        in_flight: keys of what had left, or was leaving, and was not answered.
    """

    def __init__(self, message: str, in_flight: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.in_flight = frozenset(in_flight)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One object about to leave.

    Attributes:
        key: its key in the log.
        item: what it is.
        path: its file, whose digest has been looked at.
    """

    key: str
    item: Item
    path: Path


class Sender(Protocol):
    """How a peer is spoken to."""

    def send(self, group: Sequence[Outgoing]) -> Iterator[tuple[str, Answer]]:
        """Hand over some objects; the key of each with the peer's answer, as it comes.

        Raises:
            PeerFailedError: the peer cannot be reached or broke off; what was not answered did not arrive, but for
                what the error names.
        """
        ...

    def held(self, entries: Sequence[Entry]) -> dict[str, bool] | None:
        """Which of some objects the peer has, by key; None: it does not answer such questions.

        Raises:
            PeerFailedError: as :meth:`send`.
        """
        ...


Connect = Callable[[], AbstractContextManager[Sender]]
"""Makes a sender; nothing is said to the peer before the first call."""


@dataclass(frozen=True, slots=True)
class Passed:
    """What one pass did.

    Attributes:
        chosen: objects the delivery is about.
        accepted: of them, accepted in this pass.
        refused: refused in this pass, for good or for now.
        waiting: not accepted yet, after this pass.
        settled: objects whose fate an earlier pass had not learned, and this one did.
        failure: why the pass ended early, in words; empty: it did not.
    """

    chosen: int
    accepted: int = 0
    refused: int = 0
    waiting: int = 0
    settled: int = 0
    failure: str = ""


def send_due(
    delivery: Delivery,
    items: Sequence[Item],
    log: DeliveryLog,
    connect: Connect,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    pause: Callable[[float], None] = time.sleep,
    progress: Callable[[int, int], None] | None = None,
    still: Callable[[Sequence[Item]], Sequence[Item]] = lambda items: items,
) -> Passed:
    """Send what a peer has not accepted yet and is due now.

    A peer that fails ends the pass; it is left alone for a while that grows with each failure. Run again after a kill,
    it first learns what became of what was under way.

    Args:
        delivery: what is sent to whom.
        items: the objects it is about.
        log: of its zone.
        connect: makes the sender.
        clock: the time, aware.
        pause: sleeps for so many seconds, to keep to ``objects_per_second`` (config).
        progress: told of objects done since the last call, and of all there are.
        still: which of some objects may be sent now; asked just before they are.

    Raises:
        TransientError: another process is sending to this peer.
    """
    peer = delivery.peer
    with log.sending_to(peer):
        before = len(log.due(peer, items, clock()))
        if log.rests_until(peer, clock()) is not None:
            return Passed(len(items), waiting=before, failure="the peer failed before and is left alone for a while")
        counts = dict.fromkeys(State, 0)
        settled, failure = 0, ""
        try:
            with connect() as sender:
                settled = _settle(log, peer, sender, clock)
                due = log.due(peer, items, clock())
                for group in _groups(_paced(due, delivery.objects_per_second, pause), delivery.objects_per_second):
                    for answer in _send_group(log, delivery, sender, still(group), clock):
                        counts[answer.state] += 1
                    if progress:
                        progress(len(group), len(due))
        except PeerFailedError as error:
            log.peer_failed(peer, clock())
            failure = str(error)
        else:
            log.peer_works(peer)
        accepted = log.accepted(peer)
    refused = counts[State.REFUSED] + counts[State.WAITING]
    return Passed(
        len(items),
        counts[State.ACCEPTED],
        refused,
        sum(item.key(peer) not in accepted for item in items),
        settled,
        failure,
    )


def _settle(log: DeliveryLog, peer: str, sender: Sender, clock: Callable[[], datetime]) -> int:
    """Learn what became of what was under way when the last pass died or broke off.

    Where the peer does not say what it has, it is sent again: storing an object a second time under its UID changes
    nothing there, and losing it would. So is what the log has under its UID with other bytes: a peer is asked for UIDs,
    and may mean those bytes.
    """
    entries = log.entries(peer)
    open_entries = [entry for entry in entries if entry.state is State.UNDER_WAY]
    if not open_entries:
        return 0
    contents = Counter(entry.sop_uid for entry in entries)
    asked = [entry for entry in open_entries if contents[entry.sop_uid] == 1]
    held = (sender.held(asked) if asked else None) or {}
    arrived = [entry.delivery_key for entry in open_entries if held.get(entry.delivery_key)]
    log.answer(peer, {key: Answer(State.ACCEPTED, FOUND) for key in arrived}, clock())
    broken = [
        entry.delivery_key for entry in open_entries if entry.code == INTERRUPTED and entry.delivery_key not in arrived
    ]
    log.answer(peer, {key: Answer(State.WAITING, INTERRUPTED) for key in broken}, clock())
    log.put_back({entry.delivery_key for entry in open_entries} - {*arrived, *broken})
    return len(open_entries)


def _send_group(
    log: DeliveryLog, delivery: Delivery, sender: Sender, group: Sequence[Item], clock: Callable[[], datetime]
) -> Iterator[Answer]:
    peer = delivery.peer
    if not group:
        return
    log.begin(peer, delivery.name, group, clock())
    ready: list[Outgoing] = []
    unanswered = set[str]()
    for item in group:
        found = _ready(item, peer)
        if isinstance(found, Answer):
            log.answer(peer, {item.key(peer): found}, clock())
            yield found
        else:
            ready.append(found)
            unanswered.add(found.key)
    try:
        for key, answer in sender.send(ready) if ready else ():
            log.answer(peer, {key: answer}, clock())
            unanswered.discard(key)
            yield answer
    except PeerFailedError as error:
        log.interrupted(unanswered & error.in_flight)
        log.put_back(unanswered - error.in_flight)
        raise


def _ready(item: Item, peer: str) -> Outgoing | Answer:
    """The object as it may leave: its bytes are those its row speaks of, or it does not leave."""
    path = uri_to_path(item.uri)
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return Answer(State.WAITING, GONE)  # taken back meanwhile; else its batch puts it there again
    return Outgoing(item.key(peer), item, path) if digest == item.sha256 else Answer(State.REFUSED, CHANGED)


def _paced(items: Sequence[Item], per_second: float | None, pause: Callable[[float], None]) -> Iterator[Item]:
    for number, item in enumerate(items):
        if per_second and number:
            pause(1 / per_second)
        yield item


def _groups(items: Iterable[Item], per_second: float | None) -> Iterator[list[Item]]:
    """Parts that fit on one association; at a slow pace, none that would take long to gather."""
    most = max(1, min(GROUP_OBJECTS, int(per_second))) if per_second else GROUP_OBJECTS
    group: list[Item] = []
    for item in items:
        if group and (len(group) >= most or sum(each.size for each in group) + item.size > GROUP_BYTES):
            yield group
            group = []
        group.append(item)
    if group:
        yield group
