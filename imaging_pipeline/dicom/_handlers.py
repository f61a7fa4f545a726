"""How each kind of element is read: long values, character sets, private and ambiguous ones, pixel data.

Owns the decisions that need more than one element's own bytes. Contains no loop over elements and no decoding
of values. The value of pixel data is never read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from imaging_pipeline.dicom._charset import charset_of
from imaging_pipeline.dicom._memo import Effect
from imaging_pipeline.dicom._parser import UNDEFINED, Element, Handler, Parser, PixelData, Scope
from imaging_pipeline.dicom._sequences import read_noting, read_sequence, skip_fragments
from imaging_pipeline.dicom._tables import Entry, Kind, is_private, private_vr, public_vr
from imaging_pipeline.errors import Reason, Severity

INLINE_BINARY_BYTES = 1024
"""Longer binary values become a BulkDataURI."""

INLINE_TEXT_BYTES = 1024 * 1024
"""Longer values of the other representations become a BulkDataURI too."""

_DICTIONARY_UN_BYTES = 0xFFFF
"""Unknown values from this length on stay unknown: a 16-bit length could not have held them."""

_ONE_ENTRY_BYTES = 2
_ITEM_GROUPS = (b"\xfe\xff", b"\xff\xfe")


def read_value(parser: Parser, scope: Scope, element: Element) -> int:
    """A value that is too long to be remembered, or was not loaded yet."""
    if element.length == UNDEFINED:
        return _read_undefined(parser, scope, element)
    inline_bytes = INLINE_BINARY_BYTES if element.entry.kind is Kind.BINARY else INLINE_TEXT_BYTES
    if element.length > inline_bytes and element.stop <= min(element.limit, parser.source.size):
        scope.fragments.append(parser.reference(element.entry, element.start, element.length))
        return element.stop
    value = parser.value(element)
    if value is None:
        return parser.overrun(element)
    scope.fragments.append(parser.decode(element.entry, value))
    return element.stop


def _read_undefined(parser: Parser, scope: Scope, element: Element) -> int:
    """A value of undefined length: fragments of a binary value, else a sequence (PS3.5 6.2.2, A.4)."""
    entry, start = element.entry, element.start
    if parser.source.load(start + 8)[start : start + 2] not in _ITEM_GROUPS:
        return parser.end_here("the value of undefined length holds no items", entry.tag)
    may_be_encapsulated = entry.kind is Kind.BINARY and entry.vr != "UN" and scope.table.syntax.is_explicit
    if not may_be_encapsulated:
        return read_sequence(parser, scope, element._replace(entry=scope.table.resolved(entry, "SQ")))
    end = skip_fragments(parser, scope.table.syntax, start, element.limit)
    if end is None:
        return parser.end_here("the encapsulated value has no delimiter", entry.tag)
    scope.fragments.append(parser.reference(entry, start, end - 8 - start))
    return end


def _short_value(parser: Parser, scope: Scope, element: Element) -> bytes | None:
    """The value of an element that steers the reading, also put into the scope; None if it is absurdly long."""
    if element.length > INLINE_BINARY_BYTES:
        return None
    value = parser.value(element)
    if value is not None:
        scope.fragments.append(parser.decode(element.entry, value))
    return value


def _read_with_effect(parser: Parser, scope: Scope, element: Element, effect_of: Callable[[int, bytes], Effect]) -> int:
    """An element that says something about its data set; the next time its bytes come, its effect is all there is."""
    at, known = read_noting(parser, scope, element, read_value)
    value = parser.value(element) if element.length <= INLINE_BINARY_BYTES else None
    if value is not None:
        effect = effect_of(element.entry.tag, value)
        effect(scope)
        if known is not None:
            known.effect, known.is_special = effect, True
            scope.memo.keep(known, scope.last)
            scope.last = known
    return at


def _read_charset(parser: Parser, scope: Scope, element: Element) -> int:
    """Specific Character Set (0008,0005): holds for the rest of the data set and its items (PS3.5 7.5.3)."""
    value = _short_value(parser, scope, element)
    if value is None:
        return read_value(parser, scope, element)
    charset = charset_of(tuple(value.decode("latin_1").rstrip(" \0").split("\\")))
    if not charset.is_known:
        message = "a term of the character set is not defined"
        parser.report(Reason.CHARSET_UNKNOWN, Severity.WARNING, message, element.entry.tag)
    scope.use(parser.tables.get(scope.table.syntax, charset.codecs))
    return element.stop


def _read_pixel_representation(parser: Parser, scope: Scope, element: Element) -> int:
    """Pixel Representation (0028,0103): decides between US and SS in implicit data sets."""
    return _read_with_effect(parser, scope, element, _signedness)


def _signedness(_tag: int, value: bytes) -> Effect:
    is_signed = any(value)

    def effect(scope: Scope) -> None:
        scope.is_signed = is_signed

    return effect


def _read_creator(parser: Parser, scope: Scope, element: Element) -> int:
    """Private creator (gggg,0010-00FF): names the owner of a block (PS3.5 7.8.1)."""
    return _read_with_effect(parser, scope, element, _ownership)


def _ownership(tag: int, value: bytes) -> Effect:
    creator = value.decode("latin_1").rstrip(" \0")

    def effect(scope: Scope) -> None:
        scope.creators[tag] = creator

    return effect


def _read_by_context(parser: Parser, scope: Scope, element: Element) -> int:
    """An element whose representation the file does not state, or states as unknown."""
    vr = _vr_in_context(scope, element)
    if vr == "US or SS" and element.length <= INLINE_BINARY_BYTES:
        value = parser.value(element)
        if value is None:
            return parser.overrun(element)
        parser.unrepeatable += 1
        scope.undecided.append((len(scope.fragments), element.entry, value))
        scope.fragments.append(element.entry.key)
        return element.stop
    resolved = scope.table.resolved(element.entry, "US" if vr == "US or SS" else vr)
    return _read_resolved(parser, scope, element._replace(entry=resolved))


def _read_resolved(parser: Parser, scope: Scope, element: Element) -> int:
    """An element whose representation is known by now; remembered under that representation."""
    entry, prefix = element.entry, parser.source.prefix
    is_loaded = element.stop <= min(element.limit, len(prefix))
    raw = prefix[element.at : element.stop] if is_loaded and element.length <= entry.memo_bytes else b""
    known = scope.memo.resolved(entry.vr, raw)
    if known is not None:
        if known.inside is not None:
            parser.count(known.inside)
        scope.add(known)
        return element.stop
    at, known = read_noting(parser, scope, element, read_sequence if entry.kind is Kind.SEQUENCE else read_value)
    if known is not None and known.raw == raw:
        if is_private(entry.tag):
            creator = _creator_tag(entry)
            known.owner = (creator, scope.creators.get(creator))
        scope.memo.keep_resolved(entry.vr, known, scope.last)
        scope.last = known
    return at


def _read_stated_sequence(parser: Parser, scope: Scope, element: Element) -> int:
    """A sequence that is stated as such."""
    is_undefined = element.length == UNDEFINED
    known = scope.memo.sequence(parser.source.prefix, element.at) if is_undefined else None
    if known is not None and element.at + known.size <= element.limit:
        if known.inside is not None:
            parser.count(known.inside)
        scope.add(known)
        return element.at + known.size
    at, known = read_noting(parser, scope, element, read_sequence)
    if known is not None:
        keep = scope.memo.keep_sequence if is_undefined else scope.memo.keep
        keep(known, scope.last)
        scope.last = known
    return at


def _vr_in_context(scope: Scope, element: Element) -> str:
    """The representation by dictionary and neighbours; only ``US or SS`` is left open."""
    entry = element.entry
    vr = entry.vr
    if is_private(entry.tag):
        creator = scope.creators.get(_creator_tag(entry))
        vr = private_vr(entry.tag, creator) if creator else "UN"
    elif entry.is_unknown and element.length < _DICTIONARY_UN_BYTES:
        vr = public_vr(entry.tag)
    if vr == "US or OW":  # LUT Data: a table of one entry is a number (PS3.3 C.11.1.1.1)
        return "US" if element.length == _ONE_ENTRY_BYTES else "OW"
    return "OW" if " or " in vr and vr != "US or SS" else vr


def _creator_tag(entry: Entry) -> int:
    """Tag of the private creator of an element's block (PS3.5 7.8.1)."""
    return entry.tag & 0xFFFF0000 | (entry.tag & 0xFF00) >> 8


def _read_pixel_data(parser: Parser, scope: Scope, element: Element) -> int:
    """Pixel data: their place is noted; reading goes on after them only when the whole object is loaded."""
    entry, source = element.entry, parser.source
    if scope.depth:
        return read_value(parser, scope, element._replace(entry=scope.table.resolved(entry, entry.vr)))
    length = None if element.length == UNDEFINED else element.length
    if length is None and not scope.table.syntax.is_explicit:
        entry = scope.table.resolved(entry, "OB")  # encapsulated all the same (PS3.5 A.4)
    parser.pixel_data = PixelData(element.at, element.start, length)
    scope.fragments.append(parser.reference(entry, element.start, length))
    end: int | None = element.stop
    if length is None and source.is_complete:
        end = skip_fragments(parser, scope.table.syntax, element.start, element.limit)
    if end is None or (length is not None and element.stop > source.size):
        parser.report(Reason.TRUNCATED, Severity.WARNING, "the pixel data end before they should", entry.tag)
        end = None
    parser.is_over = end is None or not source.is_complete
    return source.size if end is None else end


def _read_group_length(parser: Parser, _scope: Scope, element: Element) -> int:
    """Group length (gggg,0000): retired, and not part of the JSON model (PS3.18 F.2.2)."""
    is_inside = element.length != UNDEFINED and element.stop <= min(element.limit, parser.source.size)
    return element.stop if is_inside else parser.overrun(element)


def _read_stray_delimiter(parser: Parser, _scope: Scope, element: Element) -> int:
    """A delimiter outside every sequence: skipped."""
    parser.report(Reason.MALFORMED, Severity.INFO, "a delimiter stands outside of a sequence", element.entry.tag)
    return element.start


HANDLERS: Mapping[Kind, Handler] = MappingProxyType(
    {
        Kind.VALUE: read_value,
        Kind.BINARY: read_value,
        Kind.SEQUENCE: _read_stated_sequence,
        Kind.CHARSET: _read_charset,
        Kind.PIXEL_REPRESENTATION: _read_pixel_representation,
        Kind.PIXEL_DATA: _read_pixel_data,
        Kind.CREATOR: _read_creator,
        Kind.BY_CONTEXT: _read_by_context,
        Kind.GROUP_LENGTH: _read_group_length,
        Kind.DELIMITER: _read_stray_delimiter,
    }
)
"""The handler of each kind of element; ``Kind.END`` has none, it ends the loop."""
