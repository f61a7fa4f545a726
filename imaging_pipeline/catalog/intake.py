"""Finding new objects and cutting them into batches, and proving afterwards that none was forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from imaging_pipeline.catalog.ledger import Batch, Ledger, Scan
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.events import EventQueue
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.objects.source import Source

NOTICES_PER_CALL = 10
"""Messages taken from a queue at once; the most SQS gives."""

NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large a batch may be.

    Attributes:
        objects: most objects of one batch.
        bytes: most bytes of one batch.
        batches: most batches cut in one call; the rest waits for the next.
    """

    objects: int
    bytes: int
    batches: int = NO_LIMIT


@dataclass(frozen=True, slots=True)
class Heard:
    """What the events of a queue told: what was found at the objects they name, and how many made no sense."""

    found: Scan
    notices: int
    not_understood: int


def listen(
    ledger: Ledger,
    source: Source,
    queue: EventQueue,
    reader: ObjectReader,
    *,
    now: datetime,
    budget_seconds: float,
    clock: Callable[[], float],
) -> Heard:
    """Take in the objects that waiting events name; a message is deleted after the ledger has its objects.

    A message that makes no sense stays in its queue, whose dead-letter policy keeps it for a person.

    Raises:
        ConfigurationError: the queue or the bucket cannot be used.
        TransientError: one of them does not answer; the messages come again.
    """
    started, heard = clock(), Heard(Scan(), 0, 0)
    while clock() - started < budget_seconds:
        notices = queue.receive(NOTICES_PER_CALL)
        if not notices:
            break
        understood = [notice for notice in notices if notice.is_understood]
        uris = [uri for notice in understood for uri in notice.uris if uri.startswith(source.prefix)]
        found = ledger.look_at(source, uris, reader, now=now)
        queue.delete([notice.receipt for notice in understood])
        heard = Heard(
            heard.found + found,
            heard.notices + len(notices),
            heard.not_understood + len(notices) - len(understood),
        )
        if not understood:
            break  # a queue that shows messages again at once would give these for ever
    return heard


def cut(ledger: Ledger, now: datetime, limits: BatchLimits, *, source: str | None, is_announced: bool) -> list[Batch]:
    """Cut what waits into batches of the day.

    Args:
        ledger: where it waits.
        now: aware UTC; its day names the batches.
        limits: how large and how many.
        source: objects of this source only; None: of all.
        is_announced: False: the caller runs the batches itself.
    """
    return ledger.cut(
        day=now.date(),
        max_objects=limits.objects,
        max_bytes=limits.bytes,
        max_batches=limits.batches,
        source=source,
        is_announced=is_announced,
    )


def forgotten_batches(ledger: Ledger, lake: Lake) -> dict[str, int]:
    """Batches with objects that the catalog does not hold, and how many: what a reconcile has to bring back.

    Anti-joins every manifest with the catalog's keys, batch by batch, so that memory does not grow with the catalog.
    """
    missing: dict[str, int] = {}
    for batch in ledger.batches():
        rows = lake.rows("SELECT object_key FROM bronze.object_catalog WHERE arrival_batch = ?", [batch.batch_id])
        catalogued = {str(key) for (key,) in rows}
        lacking = sum(target.key not in catalogued for target in ledger.manifest(batch.batch_id))
        if lacking:
            missing[batch.batch_id] = lacking
    return missing
