"""What every source can do: list incrementally, in order, and look at one object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.sources import SourceConfig

PAGE_OBJECTS = 1_000
"""Objects of one page of a listing, at most."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a listing without gaps: everything between the page before and ``upto``.

    Attributes:
        objects: what is there and settled, by ascending URI (order of code points).
        unsettled: URIs of what is there too, and too young to be taken.
        upto: the greatest URI this page covers; None: the listing ends here.
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
        """The object at a URI as it is now, or None when there is none or the source does not take it.

        Raises:
            TransientError: the source does not answer.
        """
        ...

    def selects(self, uri: str) -> bool:
        """Whether the listing would hold this URI if an object were there: its patterns and names allow it."""
        ...
