"""What was decoded before under one table: equal bytes are not decoded again.

Owns remembered elements and the order in which they came: most elements of an object, and their order, are those of
the object before, so each one leads to the one expected next, and comparing bytes is all it takes. Contains no
parsing. What is remembered follows from the remembered bytes alone, so a result never depends on the memo. Bounded;
threads may share it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

MEMO_BYTES = 4 * 1024 * 1024
"""What one memo keeps before it starts anew: bytes of raw elements and decoded text, with Python's overhead."""

MEMO_VALUE_BYTES = 256
"""Longer values are rarely met twice and not remembered; must stay below the size of inline binary values."""

MEMO_SEQUENCE_BYTES = 4096
"""Longer sequences are not remembered as a whole."""

MEMO_DEPTH = 16
"""Sequences that nest deeper are not remembered, so that the limit on nesting does not depend on the memo."""

_OPENING_BYTES = 40  # of a sequence: its header, those of its first item and element, and most of a code
_OVERHEAD_BYTES = 300  # of three objects and their place in a dict


class Inside(NamedTuple):
    """What a sequence holds.

    Attributes:
        elements: their number, at every depth.
        private: private ones among them.
        depth: how deep items nest.
    """

    elements: int
    private: int
    depth: int


Effect = Callable[[Any], None]
"""Changes the scope an element was met in."""


class Known:
    """A decoded element.

    Attributes:
        raw: its bytes, from the tag to the end of the value or to the sequence delimiter with it.
        size: their number.
        tag: group and element as one number.
        text: its JSON attribute.
        inside: what it holds; None unless it is a sequence.
        effect: what it does to the data set it is in, beside standing there; None for nearly all.
        is_special: there is an ``inside`` or an ``effect``.
        owner: tag and value of the private creator that its text depends on; None unless there is such a thing.
        next: the element that came after it the last time.
    """

    __slots__ = ("effect", "inside", "is_special", "next", "owner", "raw", "size", "tag", "text")

    def __init__(self, raw: bytes, tag: int, text: str, inside: Inside | None = None) -> None:
        self.raw = raw
        self.size = len(raw)
        self.tag = tag
        self.text = text
        self.inside = inside
        self.effect: Effect | None = None
        self.is_special = inside is not None
        self.owner: tuple[int, str | None] | None = None
        self.next: Known | None = None


class Memo:
    """Decoded elements of one table.

    Args:
        memo_bytes: as ``MEMO_BYTES``; 0 to remember nothing.

    Attributes:
        known: raw element to decoded element.
    """

    def __init__(self, memo_bytes: int = MEMO_BYTES) -> None:
        self.known: dict[bytes, Known] = {}
        self._resolved: dict[tuple[str, bytes], Known] = {}
        self._openings: dict[bytes, Known] = {}
        self._starts: dict[int, Known] = {}
        self._memo_bytes = memo_bytes
        self._room = memo_bytes

    def start(self, sequence: int) -> Known:
        """What stands before the first element of the items of a sequence, given by its tag; 0 for no item."""
        start = self._starts.get(sequence)
        if start is None:
            start = Known(b"", -1, "")
            self._room -= _OVERHEAD_BYTES
            if self._room >= 0 or self._start_anew(start):
                self._starts[sequence] = start
        return start

    def keep(self, known: Known, after: Known) -> None:
        """Keep an element that came after another one, for the next time the same bytes come."""
        self._room -= known.size + len(known.text) + _OVERHEAD_BYTES
        if self._room >= 0 or self._start_anew(known):
            self.known[known.raw] = known
            _chain(known, after)

    def sequence(self, prefix: bytes, at: int) -> Known | None:
        """The sequence of undefined length that is at an offset of an object, if it is remembered."""
        known = self._openings.get(prefix[at : at + _OPENING_BYTES])
        return known if known is not None and prefix.startswith(known.raw, at) else None

    def keep_sequence(self, known: Known, after: Known) -> None:
        """Keep a sequence of undefined length that came after another element; it is found by its first bytes."""
        self._room -= known.size + len(known.text) + _OVERHEAD_BYTES
        if self._room >= 0 or self._start_anew(known):
            self._openings[known.raw[:_OPENING_BYTES]] = known
            _chain(known, after)

    def resolved(self, vr: str, raw: bytes) -> Known | None:
        """A remembered element whose representation does not follow from its bytes."""
        return self._resolved.get((vr, raw))

    def keep_resolved(self, vr: str, known: Known, after: Known) -> None:
        """Keep an element of this representation, which does not follow from its bytes."""
        self._room -= known.size + len(known.text) + _OVERHEAD_BYTES
        if self._room >= 0 or self._start_anew(known):
            self._resolved[vr, known.raw] = known
            _chain(known, after)

    def _start_anew(self, known: Known) -> bool:
        """Forget everything, since the room is used up; is there room for this element now?"""
        size = known.size + len(known.text) + _OVERHEAD_BYTES
        if size > self._memo_bytes:
            self._room += size
            return False
        kept = (self.known, self._resolved, self._openings, self._starts)
        for forgotten in [known for one in kept for known in list(one.values())]:
            forgotten.next = None  # else what is forgotten would live on in the chain
        for one in kept:
            one.clear()
        self._room = self._memo_bytes - size
        return True


def _chain(known: Known, after: Known) -> None:
    """Let a new element follow another one; what came after the element it takes the place of comes after it."""
    replaced = after.next  # read once: another thread may start anew
    if replaced is not None:
        known.next = replaced.next
    after.next = known
