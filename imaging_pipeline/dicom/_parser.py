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
from imaging_pipeline.dicom._source import Source
from imaging_pipeline.dicom._tables import Entry, Kind, Table, Tables, attribute_key
from imaging_pipeline.errors import Issue, Reason, Severity, Stage

UNDEFINED = 0xFFFFFFFF
"""The length of sequences, items and encapsulated pixel data that end at a delimiter (PS3.5 7.1.1)."""

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
"""Tags of items and delimiters (PS3.5 7.5)."""

MAX_ISSUES = 200
"""Issues kept for one object; damaged files make the same one thousands of times."""

MEMO_VALUE_BYTES = 256
"""Longer values are rarely met twice and not remembered; must stay below the size of inline binary values."""

_LONGEST_HEADER = 12  # tag, representation, reserved bytes, 32-bit length


class Scope:
    """One data set being read: the top level or an item.

    Attributes:
        table: entries and memo in force; replaced when the data set declares its character set.
        fragments: the JSON attributes so far, in the order of the file.
        is_item: it is an item of a sequence.
        is_signed: PixelRepresentation of this data set or, until it comes, of the one around (None: nowhere).
        creators: private creators by their tags (PS3.5 7.8.1).
        undecided: place, entry and bytes of ``US or SS`` values, settled when the data set is complete.
        is_disordered: a tag did not come after the one before it.
    """

    __slots__ = ("creators", "fragments", "is_disordered", "is_item", "is_signed", "table", "undecided")

    def __init__(self, table: Table, parent: Scope | None = None) -> None:
        self.table = table
        self.fragments: list[str] = []
        self.is_item = parent is not None
        self.is_signed: bool | None = parent.is_signed if parent else None
        self.creators: dict[int, str] = {}
        self.undecided: list[tuple[int, Entry, bytes]] = []
        self.is_disordered = False


class Element(NamedTuple):
    """One element's place.

    Attributes:
        entry: what is known of it.
        at: offset of its tag.
        start: offset of its value.
        length: as stated, possibly ``UNDEFINED``.
        limit: end of the data set it belongs to.
    """

    entry: Entry
    at: int
    start: int
    length: int
    limit: int

    @property
    def stop(self) -> int:
        """Offset after the value; meaningless for undefined lengths."""
        return self.start + self.length


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
        tables: entries and memos, shared with other readings.
        issues: what was wrong, at most ``MAX_ISSUES``.
        path: the items around the data set being read, as tag of the sequence and number of the item.
        is_over: nothing more can or need be read.
        pixel_data: the top-level pixel data, when met.
        element_count: elements of finished data sets, at every depth.
        private_count: those of them that are private.
        outside_uses: how often an attribute depended on more than its own bytes, so may not be remembered.
    """

    def __init__(
        self, source: Source, tables: Tables, handlers: Mapping[Kind, Handler], *, is_inflated: bool = False
    ) -> None:
        self.source = source
        self.tables = tables
        self.issues: list[Issue] = []
        self.path: list[tuple[int, int]] = []
        self.is_over = False
        self.pixel_data: PixelData | None = None
        self.element_count = 0
        self.private_count = 0
        self.outside_uses = 0
        self._handlers = handlers
        self._is_inflated = is_inflated

    def report(self, reason: Reason, severity: Severity, message: str, tag: int | None = None) -> None:
        """Note an issue, at an element of the data set being read or about that data set."""
        if len(self.issues) < MAX_ISSUES:
            steps = [f"{sequence:08X}[{item}]" for sequence, item in self.path]
            steps += [] if tag is None else [f"{tag:08X}"]
            self.issues.append(Issue(reason, Stage.PARSE, severity, ".".join(steps) or None, message))

    def read(self, scope: Scope, at: int, limit: int) -> int:
        """Read elements into ``scope`` up to ``limit`` or a delimiter; the offset after them."""
        source, table, append = self.source, scope.table, scope.fragments.append
        entries, memo, key_bytes = table.entries, table.memo, table.key_bytes
        prefix = source.prefix
        room = min(limit, len(prefix))
        last_tag = -1
        while at + 8 <= limit:
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
            tag = entry.tag
            if tag <= last_tag:
                scope.is_disordered = True
            last_tag = tag
            if entry.is_plain and stop <= room and stop - start <= MEMO_VALUE_BYTES:
                raw = prefix[at:stop]
                append(memo.get(raw) or self.decode(entry, table, prefix[start:stop], raw))
                at = stop
                continue
            if entry.kind is Kind.END or (entry.kind is Kind.DELIMITER and scope.is_item):
                return start if tag == ITEM_END else at
            at = self._handlers[entry.kind](self, scope, Element(entry, at, start, stop - start, limit))
            if self.is_over:
                break
            prefix, table = source.prefix, scope.table
            entries, memo, room = table.entries, table.memo, min(limit, len(prefix))
        return self._end(scope, at, limit)

    def _end(self, scope: Scope, at: int, limit: int) -> int:
        """The offset to go on at when the last element was read, or when the rest holds none."""
        limit = min(limit, self.source.size)
        if self.is_over or at >= limit:
            return at
        if limit - at >= _LONGEST_HEADER or scope.is_item:
            return self.end_here("the object ends before the next element") if limit >= self.source.size else limit
        severity = Severity.WARNING if any(self.source.prefix[at:limit]) else Severity.INFO
        self.report(Reason.TRUNCATED, severity, "bytes too few for an element are left at the end")
        return limit

    def finish(self, scope: Scope) -> str:
        """The JSON object of a data set that was read, with its elements counted."""
        fragments = scope.fragments
        for place, entry, value in scope.undecided:
            resolved = scope.table.resolved(entry, "SS" if scope.is_signed else "US")
            fragments[place] = self.decode(resolved, scope.table, value)
        if scope.is_disordered:
            fragments = self._ordered(fragments)
        self.element_count += len(fragments)
        self.private_count += sum([fragment[4] in "13579BDF" for fragment in fragments])
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

    def decode(self, entry: Entry, table: Table, value: bytes, raw: bytes = b"") -> str:
        """The JSON attribute of a value; remembered under ``raw`` unless the value does not fit."""
        try:
            fragment = entry.key + entry.decode(value)
        except ValueFault as fault:
            self.report(fault.reason, Severity.WARNING, fault.message, entry.tag)
            return attribute_key(entry.tag, fault.vr or entry.vr) + fault.body
        if raw:
            table.remember(raw, fragment)
        return fragment

    def reference(self, entry: Entry, start: int, length: int | None) -> str:
        """The JSON attribute of a value that stays in the object (PS3.18 F.2.6); the reference is relative."""
        self.outside_uses += 1
        size = "" if length is None else f"&length={length}"
        inflated = "&inflated=true" if self._is_inflated else ""
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
