"""Sequences, their items, and the fragments of encapsulated values.

Owns nesting (PS3.5 7.5, A.4). Contains no value decoding.
"""

from __future__ import annotations

import struct

from imaging_pipeline.dicom._memo import MEMO_DEPTH, Inside, Known
from imaging_pipeline.dicom._parser import ITEM, MAX_DEPTH, SEQUENCE_END, UNDEFINED, Element, Handler, Parser, Scope
from imaging_pipeline.dicom._tables import IMPLICIT_LITTLE, Kind, Syntax, Table
from imaging_pipeline.errors import Reason, Severity

_TAG_AND_VR_BYTES = 6


def read_sequence(parser: Parser, scope: Scope, element: Element) -> int:
    """Read a sequence of stated or undefined length."""
    entry = element.entry
    is_undefined = element.length == UNDEFINED
    limit = element.limit if is_undefined else min(element.stop, element.limit)
    if len(parser.path) >= MAX_DEPTH:
        parser.report(Reason.MALFORMED, Severity.WARNING, f"sequences nest deeper than {MAX_DEPTH}", entry.tag)
        parser.is_over = parser.is_over or is_undefined
        scope.fragments.append(entry.key + "}")
        return limit
    items: list[str] = []
    at = _read_items(parser, scope, element, limit, items)
    scope.fragments.append(f'{entry.key},"Value":[{",".join(items)}]}}' if items else entry.key + "}")
    if is_undefined:
        return at
    return element.stop if element.stop <= element.limit else parser.overrun(element)


def read_noting(parser: Parser, scope: Scope, element: Element, read: Handler) -> tuple[int, Known | None]:
    """Read an element; the offset after it, and what may be remembered: text that follows from its bytes alone."""
    before = parser.unrepeatable
    elements, private, deepest = parser.element_count, parser.private_count, parser.deepest
    parser.deepest = len(parser.path)
    at = read(parser, scope, element)
    depth = parser.deepest - len(parser.path)
    parser.deepest = max(parser.deepest, deepest)
    is_short = at - element.start <= element.entry.memo_bytes and at <= len(parser.source.prefix)
    if parser.unrepeatable != before or not is_short or depth > MEMO_DEPTH:
        return at, None
    inside = None
    if element.entry.kind is Kind.SEQUENCE:
        inside = Inside(parser.element_count - elements, parser.private_count - private, depth)
    return at, Known(parser.source.prefix[element.at : at], element.entry.tag, scope.fragments[-1], inside)


def skip_fragments(parser: Parser, syntax: Syntax, at: int, limit: int) -> int | None:
    """The offset after the delimiter of an encapsulated value (PS3.5 A.4), None when it is not reached."""
    read_item = struct.Struct(syntax.endian + "HHL").unpack_from
    while at + 8 <= limit:
        prefix = parser.source.load(at + 8)
        if at + 8 > len(prefix):
            return None
        group, number, length = read_item(prefix, at)
        at += 8
        if group << 16 | number == SEQUENCE_END:
            return at
        if group << 16 | number != ITEM:
            return None
        at += int(length)
    return None


def _read_items(parser: Parser, scope: Scope, element: Element, limit: int, items: list[str]) -> int:
    """Read the items of a sequence into ``items``; the offset after the last one or after the delimiter.

    Unknown representations hold implicit little endian items (PS3.5 6.2.2), whatever is around.
    """
    tag, at = element.entry.tag, element.start
    table = scope.table
    if element.entry.is_unknown:
        table = parser.tables.get(IMPLICIT_LITTLE, table.codecs)
    read_item = struct.Struct(table.syntax.endian + "HHL").unpack_from
    while at + 8 <= limit and not parser.is_over:
        prefix = parser.source.load(at + 8)
        if at + 8 > len(prefix):
            return parser.end_here("the object ends inside this sequence", tag)
        group, number, length = read_item(prefix, at)
        if group << 16 | number == SEQUENCE_END:
            return at + 8
        if group << 16 | number != ITEM:
            parser.report(Reason.MALFORMED, Severity.WARNING, "an item was expected", tag)
            return at
        at += 8
        stop = limit if length == UNDEFINED else min(at + length, limit)
        child = Scope(_item_table(parser, table, element, at, stop), scope, tag)
        parser.path.append((tag, len(items)))
        parser.deepest = max(parser.deepest, len(parser.path))
        at = parser.read(child, at, stop) if length == UNDEFINED else max(stop, parser.read(child, at, stop))
        items.append(parser.finish(child))
        parser.path.pop()
    return at if element.length != UNDEFINED else parser.end_here("the sequence has no delimiter", tag)


def _item_table(parser: Parser, table: Table, element: Element, at: int, stop: int) -> Table:
    """The table for an item: some writers turn implicit inside sequences, or keep an unknown one explicit."""
    end = min(at + _TAG_AND_VR_BYTES, stop)
    opening = parser.source.load(end)[at:end]
    if len(opening) < _TAG_AND_VR_BYTES or opening[:2] in (b"\xfe\xff", b"\xff\xfe"):
        return table
    is_explicit = opening[4:6].isalpha() and opening[4:6].isupper()
    if is_explicit == table.syntax.is_explicit or (is_explicit and not element.entry.is_unknown):
        return table
    return parser.tables.get(table.syntax._replace(is_explicit=is_explicit), table.codecs)
