"""Writes what a service does to its audit log before it answers, without a disk's pause for each frame.

The first request of a kind (who, what, which series, how it ended) is on the disk before the first byte of its answer
leaves. Those like it in the next minute are counted, and become one row when the minute is over or the service stops:
PS3.15 A.5.3.6 lets one message stand for several instances. After a kill the log says who saw what, and may miss how
often within that minute.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Final

from imaging_pipeline.web.access.audit import AuditLog, Event

WINDOW_SECONDS: Final = 60.0
"""How long requests like one that is in the log are counted instead of being written each."""

MAX_WINDOWS: Final = 5_000
"""How many kinds are counted at once; more, and all become rows early."""

_LOOK_SECONDS: Final = 5.0


@dataclass(slots=True)
class Tally:
    """What has followed a row of the log."""

    event: Event
    opened_at: float
    requests: int = 0
    bytes: int = 0

    def summary(self) -> Event:
        """The row for all that the first row does not say."""
        return replace(self.event, requests=self.requests, bytes=self.bytes, instance="", detail="summary")


@dataclass(slots=True, eq=False)
class _Waiting:
    event: Event
    is_written: bool = False
    error: Exception | None = None


class Recorder:
    """Between the requests of one process and its zone's audit log."""

    def __init__(self, log: AuditLog, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._waiting: list[_Waiting] = []
        self._turn = asyncio.Lock()
        self._tallies: dict[Hashable, Tally] = {}
        self._looked_at = clock()

    async def write(self, event: Event) -> None:
        """Write a row; all that wait at the same time go to the disk together.

        Raises:
            ImagingError: it is not written.
        """
        mine = _Waiting(event)
        self._waiting.append(mine)
        async with self._turn:
            if not mine.is_written and mine.error is None:
                await self._write_waiting()
        if mine.error is not None:
            raise mine.error

    async def count(self, kind: Hashable, event: Callable[[], Event]) -> Tally:
        """Count a request, and write its row first if it is the first of its kind; the tally takes its bytes.

        Raises:
            ImagingError: the row is not written.
        """
        await self._close_old()
        if (tally := self._tallies.get(kind)) is not None:
            tally.requests += 1
            return tally
        row = await asyncio.to_thread(event)
        await self.write(row)
        return self._tallies.setdefault(kind, Tally(row, self._clock()))

    async def flush(self) -> None:
        """Write what was counted; for the end of the service.

        Raises:
            ImagingError: it is not written.
        """
        await self._close([*self._tallies])

    async def _close_old(self) -> None:
        now = self._clock()
        if len(self._tallies) > MAX_WINDOWS:
            await self.flush()
        elif now - self._looked_at > _LOOK_SECONDS:
            self._looked_at = now
            await self._close([key for key, each in self._tallies.items() if now - each.opened_at > WINDOW_SECONDS])

    async def _close(self, kinds: list[Hashable]) -> None:
        closed = {kind: self._tallies.pop(kind) for kind in kinds}
        events = [tally.summary() for tally in closed.values() if tally.requests or tally.bytes]
        try:
            if events:
                await asyncio.to_thread(self._log.append, *events)
        except Exception:
            self._tallies |= closed
            raise

    async def _write_waiting(self) -> None:
        """Write all that wait. Interrupted, they go on waiting: a row may then stand twice, and is not missed."""
        batch = [*self._waiting]
        try:
            await asyncio.to_thread(self._log.append, *(each.event for each in batch))
        except Exception as error:  # noqa: BLE001 - everybody whose row it was is told
            for each in batch:
                each.error = error
        else:
            for each in batch:
                each.is_written = True
        self._waiting = self._waiting[len(batch) :]
