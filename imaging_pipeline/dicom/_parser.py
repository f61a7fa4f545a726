"""The walk over the elements of one object, and what was wrong with it.

Owns the loop over elements (PS3.5 7.1), the state of one reading and the assembly of JSON objects. Contains no
value decoding and no handling of special elements: those come in as handlers, one per ``Kind``.

How damage is met: what was read before stays and the damage becomes an issue. A length that leaves its item
ends that item; a length that leaves the object ends the reading (``Parser.is_over``), since nothing after it has
a known place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from imaging_pipeline.dicom._elements import ValueFault
from imaging_pipeline.dicom._memo import MEMO_DEPTH, Inside, Known, Memo
from imaging_pipeline.dicom._source import Source
from imaging_pipeline.dicom._tables import Entry, Kind, Table, Tables, attribute_key
from imaging_pipeline.errors import Issue, Reason, Severity, Stage

UNDEFINED = 0xFFFFFFFF
"""The length of sequences, items and encapsulated pixel data that end at a delimiter (PS3.5 7.1.1)."""

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
"""Tags of items and delimiters (PS3.5 7.5)."""

MAX_ISSUES = 200
"""Issues kept for one object; damaged files make the same one thousands of times."""

MAX_DEPTH = 64
"""Deepest nesting of sequences that is followed; structured reports stay below 20."""

_ODD_DIGITS = frozenset("13579BDF")
_LONGEST_HEADER = 12  # tag, representation, reserved bytes, 32-bit length


class Scope:
    """One data set being read: the top level or an item.

    Attributes:
        table: entries in force; replaced when the data set declares its character set.
        memo: what was decoded under that table.
        last: the element before, as remembered.
        last_tag: its tag.
        fragments: the JSON attributes so far, in the order of the file.
        depth: 0 at the top level, 1 in an item there.
        is_signed: PixelRepresentation of this data set or, until it comes, of the one around (None: nowhere).
        creators: private creators by their tags (PS3.5 7.8.1).
        undecided: place, entry and bytes of ``US or SS`` values, settled when the data set is complete.
        is_disordered: a tag did not come after the one before it.
    """

    __slots__ = (
        "creators",
        "depth",
        "fragments",
        "is_disordered",
        "is_signed",
        "last",
        "last_tag",
        "memo",
        "table",
        "undecided",
    )

    def __init__(self, table: Table, parent: Scope | None = None, sequence: int = 0) -> None:
        self.depth: int = parent.depth + 1 if parent else 0
        self.use(table, sequence)
        self.last_tag = -1
        self.fragments: list[str] = []
        self.is_signed: bool | None = parent.is_signed if parent else None
        self.creators: dict[int, str] = {}
        self.undecided: list[tuple[int, Entry, bytes]] = []
        self.is_disordered = False

    def use(self, table: Table, sequence: int = 0) -> None:
        """Go on under a table, in an item of the sequence with this tag."""
        self.table = table
        self.memo = table.memo if self.depth <= MAX_DEPTH - MEMO_DEPTH else Memo(0)
        self.last = self.memo.start(sequence)

    def is_owner(self, owner: tuple[int, str | None]) -> bool:
        """Whether a private creator, given by tag and value, is that of this data set."""
        return self.creators.get(owner[0]) == owner[1]

    def add(self, known: Known) -> None:
        """Add a remembered element that a handler has found."""
        self.fragments.append(known.text)
        self.last.next = known
        self.last = known


class Element(NamedTuple):
    """One element's place.

    Attributes:
        entry: what is known of it.
        at: offset of its tag.
        start: offset of its value.
        length: as stated, possibly ``UNDEFINED``.
        stop: offset after the value; meaningless for undefined lengths.
        limit: end of the data set it belongs to.
    """

    entry: Entry
    at: int
    start: int
    length: int
    stop: int
    limit: int


class PixelData(NamedTuple):
    """Where the pixel data of an object are: the element, its value, and the bytes of the value if known."""

    element_at: int
    offset: int
    length: int | None


Handler = Callable[["Parser", Scope, Element], int]
"""Reads one element into the scope and returns the offset after it."""


class Parser:
    """Reads the elements of one object.

    Attributes:
        source: the bytes.
        is_inflated: they are the inflated data set, not the object.
        tables: entries and memos, shared with other readings.
        issues: what was wrong, at most ``MAX_ISSUES``.
        path: the items around the data set being read, as tag of the sequence and number of the item.
        is_over: nothing more can or need be read.
        pixel_data: the top-level pixel data, when met.
        element_count: elements of finished data sets, at every depth.
        private_count: those of them that are private.
        unrepeatable: how often something came up that must not be remembered: an issue, or an attribute that
            depends on more than its own bytes.
        deepest: the greatest depth of items so far; see ``read_noting``.
    """

    def __init__(self, source: Source, tables: Tables, handlers: Mapping[Kind, Handler]) -> None:
        self.source = source
        self.tables = tables
        self.is_inflated = False
        self.issues: list[Issue] = []
        self.path: list[tuple[int, int]] = []
        self.is_over = False
        self.pixel_data: PixelData | None = None
        self.element_count = 0
        self.private_count = 0
        self.unrepeatable = 0
        self.deepest = 0
        self._handlers = handlers

    def report(self, reason: Reason, severity: Severity, message: str, tag: int | None = None) -> None:
        """Note an issue, at an element of the data set being read or about that data set."""
        self.unrepeatable += 1
        if len(self.issues) < MAX_ISSUES:
            steps = [f"{sequence:08X}[{item}]" for sequence, item in self.path]
            steps += [] if tag is None else [f"{tag:08X}"]
            self.issues.append(Issue(reason, Stage.PARSE, severity, ".".join(steps) or None, message))

    def read(self, scope: Scope, at: int, limit: int) -> int:
        """Read elements into ``scope`` up to ``limit`` or a delimiter; the offset after them."""
        while True:
            at, element = self._read_values(scope, at, limit)
            if element is None:
                return self._end(scope, at, limit)
            kind = element.entry.kind
            if kind is Kind.END or (kind is Kind.DELIMITER and scope.depth):
                return element.start if element.entry.tag == ITEM_END else at
            scope.last_tag = element.entry.tag
            at = self._handlers[kind](self, scope, element)
            if self.is_over:
                return at

    def _read_values(self, scope: Scope, at: int, limit: int) -> tuple[int, Element | None]:
        """Read up to the first element that asks for a handler; its offset, or that of the end, and the element.

        The hot loop: an element is first compared with the one expected here, then looked up, then decoded.
        """
        source, table, memo, append = self.source, scope.table, scope.memo, scope.fragments.append
        entries, known_of, key_bytes = table.entries, memo.known, table.key_bytes
        last, last_tag = scope.last, scope.last_tag
        prefix = source.prefix
        room = min(limit, len(prefix))
        element = None
        while at + 8 <= limit:
            known = last.next
            if (
                known is None
                or at + known.size > room
                or prefix[at : at + known.size] != known.raw
                or (known.owner is not None and not scope.is_owner(known.owner))
            ):
                if at + _LONGEST_HEADER > room:
                    prefix = source.load(at + _LONGEST_HEADER)
                    room = min(limit, len(prefix))
                    if at + 8 > room:
                        break
                key = prefix[at : at + key_bytes]
                entry = entries.get(key) or table.entry(key)
                start = at + entry.header_bytes
                if start > room:
                    break
                stop = start + entry.read_length(prefix, at + entry.length_at)[0]
                raw = prefix[at:stop] if stop <= room and stop - start <= entry.memo_bytes else b""
                known = known_of.get(raw)
                if known is not None:
                    last.next = known
                elif raw and entry.is_plain:
                    known = self._new(entry, raw, memo, last)
                else:
                    element = Element(entry, at, start, stop - start, stop, limit)
                    scope.is_disordered |= entry.tag <= last_tag
                    break
            if known.tag <= last_tag:
                scope.is_disordered = True
            if known.is_special:
                self._repeat(known, scope)
            append(known.text)
            at += known.size
            last, last_tag = known, known.tag
        scope.last, scope.last_tag = last, last_tag
        return at, element

    def _repeat(self, known: Known, scope: Scope) -> None:
        """What a remembered element does beside standing in the data set."""
        if known.inside is not None:
            self.count(known.inside)
        if known.effect is not None:
            known.effect(scope)

    def count(self, inside: Inside) -> None:
        """Count elements that were remembered, so that no data set of this reading counts them."""
        self.element_count += inside.elements
        self.private_count += inside.private
        self.deepest = max(self.deepest, len(self.path) + inside.depth)

    def _end(self, scope: Scope, at: int, limit: int) -> int:
        """The offset to go on at when the last element was read, or when the rest holds none."""
        limit = min(limit, self.source.size)
        if self.is_over or at >= limit:
            return at
        if limit - at >= _LONGEST_HEADER or scope.depth:
            return self.end_here("the object ends before the next element") if limit >= self.source.size else limit
        severity = Severity.WARNING if any(self.source.prefix[at:limit]) else Severity.INFO
        self.report(Reason.TRUNCATED, severity, "bytes too few for an element are left at the end")
        return limit

    def finish(self, scope: Scope) -> str:
        """The JSON object of a data set that was read, with its elements counted."""
        fragments = scope.fragments
        for place, entry, value in scope.undecided:
            resolved = scope.table.resolved(entry, "SS" if scope.is_signed else "US")
            fragments[place] = self.decode(resolved, value)
        if scope.is_disordered:
            fragments = self._ordered(fragments)
        self.element_count += len(fragments)
        self.private_count += sum([fragment[4] in _ODD_DIGITS for fragment in fragments])
        return f"{{{','.join(fragments)}}}"

    def _ordered(self, fragments: list[str]) -> list[str]:
        """Fragments in tag order, the last one of each tag; a JSON object may not repeat a name."""
        last_of_tag = {fragment[1:9]: fragment for fragment in fragments}
        ordered = [last_of_tag[tag] for tag in sorted(last_of_tag)]
        if len(ordered) < len(fragments):
            self.report(Reason.MALFORMED, Severity.WARNING, "elements are given twice; the last one was kept")
        elif ordered != fragments:
            self.report(Reason.MALFORMED, Severity.INFO, "elements are not in the order of their tags")
        return ordered

    def _new(self, entry: Entry, raw: bytes, memo: Memo, last: Known) -> Known:
        """Decode an element that came after ``last``; it is remembered unless its value does not fit."""
        try:
            known = Known(raw, entry.tag, entry.key + entry.decode(raw[entry.header_bytes :]))
        except ValueFault as fault:
            return Known(raw, entry.tag, self._faulty(entry, fault))
        memo.keep(known, last)
        return known

    def decode(self, entry: Entry, value: bytes) -> str:
        """The JSON attribute of a value."""
        try:
            return entry.key + entry.decode(value)
        except ValueFault as fault:
            return self._faulty(entry, fault)

    def _faulty(self, entry: Entry, fault: ValueFault) -> str:
        """The JSON attribute of a value that does not fit, and an issue."""
        self.report(fault.reason, Severity.WARNING, fault.message, entry.tag)
        return attribute_key(entry.tag, fault.vr or entry.vr) + fault.body

    def reference(self, entry: Entry, start: int, length: int | None) -> str:
        """The JSON attribute of a value that stays in the object (PS3.18 F.2.6); the reference is relative."""
        self.unrepeatable += 1
        size = "" if length is None else f"&length={length}"
        inflated = "&inflated=true" if self.is_inflated else ""
        return f'{entry.key},"BulkDataURI":"?offset={start}{size}{inflated}"}}'

    def value(self, element: Element) -> bytes | None:
        """The bytes of a value of defined length, or None when they are not all there."""
        if element.length == UNDEFINED or element.stop > element.limit:
            return None
        prefix = self.source.load(element.stop)
        return prefix[element.start : element.stop] if element.stop <= len(prefix) else None

    def overrun(self, element: Element) -> int:
        """Where to go on when a value reaches further than the data set it is in, or than the object."""
        if element.length != UNDEFINED and element.limit < element.stop <= self.source.size:
            message = "the value reaches beyond the end of its item"
            self.report(Reason.MALFORMED, Severity.WARNING, message, element.entry.tag)
            return element.limit
        return self.end_here("the object ends inside this element", element.entry.tag)

    def end_here(self, message: str, tag: int | None = None) -> int:
        """Give up the rest of the object; the offset at which every loop stops."""
        if not self.is_over:
            reason = Reason.TOO_LARGE if self.source.is_capped else Reason.TRUNCATED
            self.report(reason, Severity.WARNING, message, tag)
        self.is_over = True
        return self.source.size
