"""What every source can do: list incrementally, in order, and look at one object."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from imaging_pipeline.errors import TransientError
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.sources import SourceConfig

PAGE_OBJECTS = 1_000
"""Objects of one page of a listing, at most."""

ABSENT = "absent"
"""Version of an object that a manifest or a DICOMDIR names and that is not there. Reading it gives Reason.GONE, so
that what was announced and never came is a row of its batch."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a listing without gaps: everything between the page before and ``upto``.

    Attributes:
        objects: what is there and settled, by ascending URI (order of code points).
        unsettled: URIs of what is there too, and too young to be taken.
        upto: the greatest URI this page covers, not always one of an object; None: the listing ends here.
    """

    objects: tuple[ObjectVersion, ...]
    unsettled: frozenset[str]
    upto: str | None


class Source(Protocol):
    """A place that holds objects."""

    @property
    def config(self) -> SourceConfig:
        """Its configuration."""
        ...

    @property
    def prefix(self) -> str:
        """What the URIs of all its objects start with; the range that its listing covers."""
        ...

    def pages(self, after: str | None, now: datetime) -> Iterator[Page]:
        """The listing behind the URI ``after`` (None: from the start), page by page; the last one ends it.

        Args:
            after: the ``upto`` of the last page that was taken in.
            now: aware; what is younger than the minimum age is unsettled.

        Raises:
            ConfigurationError: the source is missing or access to it is denied.
            TransientError: it does not answer; a later call may go on from the last page.
        """
        ...

    def stat(self, uri: str) -> ObjectVersion | None:
        """The object at a URI as it is now, of any age, or None when there is none or the source does not take it.

        Raises:
            ConfigurationError: the source is missing or access to it is denied.
            TransientError: the source does not answer.
        """
        ...

    def selects(self, uri: str) -> bool:
        """Whether the listing would hold this URI if an object were there: its patterns and names allow it."""
        ...


def is_settled(modified: float, now: float, minimum_age_seconds: float) -> bool:
    """Whether an object is not being written any more, as far as its time tells.

    Only a time close to now, on either side, makes an object wait. One far ahead of now is a wrong clock or an odd
    copy: were it to wait until that time has come, it might wait for ever and be lost without a word. An object taken
    too early because of a wrong clock costs a second reading: its time changes with the last byte written, which
    makes it a new version for the next listing, and a reader refuses bytes that change while they are read.

    Args:
        modified: seconds since 1970.
        now: seconds since 1970.
        minimum_age_seconds: 0: everything is settled.
    """
    return abs(now - modified) >= minimum_age_seconds


def seconds_of(time: datetime) -> float:
    """Seconds since 1970 of a naive UTC time."""
    return time.replace(tzinfo=UTC).timestamp()


def refuse_unsettled_list(modified: float, now: datetime, config: SourceConfig) -> None:
    """Half a list would read as if the rest of its objects had vanished: wait until it is whole.

    Raises:
        TransientError: the manifest or DICOMDIR itself is younger than the source's minimum age.
    """
    if not is_settled(modified, now.timestamp(), config.minimum_age_seconds):
        raise TransientError(f"the list of source {config.name!r} is being written; it is read when it has settled")


def pages_of(
    uris: Sequence[str],
    look: Callable[[Sequence[str]], Iterable[ObjectVersion]],
    after: str | None,
    now: datetime,
    minimum_age_seconds: float,
) -> Iterator[Page]:
    """Pages of a list that is known whole.

    Args:
        uris: ascending, each once.
        look: the objects at some of these URIs, in their order.
        after: the ``upto`` of the last page that was taken in, or None.
        now: aware.
        minimum_age_seconds: younger objects are unsettled.
    """
    first = 0 if after is None else bisect_right(uris, after)
    while True:
        found = list(look(uris[first : first + PAGE_OBJECTS]))
        unsettled = frozenset(
            entry.uri
            for entry in found
            if not is_settled(seconds_of(entry.modified_at), now.timestamp(), minimum_age_seconds)
        )
        first += PAGE_OBJECTS
        upto = uris[first - 1] if first < len(uris) else None
        yield Page(tuple(entry for entry in found if entry.uri not in unsettled), unsettled, upto)
        if upto is None:
            return
