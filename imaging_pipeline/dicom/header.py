"""The header of a DICOM object: its bytes in, one document of the DICOM JSON Model (PS3.18 F.2) out.

Owns the order of reading: recognition, file meta information (PS3.10 7.1), data set. Contains no fetching of
objects and no interpretation of single attributes. Pixel data are never read.

The document holds the data set and the file meta information, in tag order, as compact text that every strict
JSON parser accepts and that encodes to UTF-8. It carries the same values as ``pydicom.Dataset.to_json_dict``
except where the standard, strictness or a table of many objects asks for something else; each difference is in
``docs/reference/json_model.md`` and has a test. The most important ones:

* group 0002 is in it; group lengths (gggg,0000) are not, as PS3.18 F.2.2 demands;
* an empty component of a multi-valued attribute is ``null`` (PS3.18 F.2.5);
* numeric text (DS, IS) keeps its digits; text that is no number stays text, where pydicom fails;
* binary values over 1024 bytes, and any value over 1 MiB, are a ``BulkDataURI`` relative to the object:
  ``?offset=O&length=L`` (bytes; no length for encapsulated pixel data; ``&inflated=true`` when the offset counts
  inside a deflated data set).

The issues' paths count items from 0, as the document's arrays do. Reading one header costs time and memory in
proportion to its size: lengths are checked before anything is sliced, nesting, issues, inflation and memo are
bounded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from imaging_pipeline.dicom._charset import ASCII
from imaging_pipeline.dicom._handlers import HANDLERS
from imaging_pipeline.dicom._memo import MEMO_BYTES
from imaging_pipeline.dicom._parser import Parser, Scope
from imaging_pipeline.dicom._recognition import (
    DEFLATED_UID,
    PREAMBLE_BYTES,
    UID_OF_SYNTAX,
    declared_syntax,
    found_syntax,
    has_file_meta,
    has_preamble,
)
from imaging_pipeline.dicom._source import UNKNOWN_SIZE, Source, inflating
from imaging_pipeline.dicom._tables import EXPLICIT_LITTLE, IMPLICIT_LITTLE, Syntax, Tables
from imaging_pipeline.errors import Issue, PoisonInput, Reason, Severity

_TRANSFER_SYNTAX = '"00020010":{"vr":"UI","Value":["'
_DEFAULT_CODECS = (ASCII,)
_SHORTEST_ELEMENT = 8


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of one object says.

    Attributes:
        json: the document, see the module.
        transfer_syntax_uid: as declared, or the one found where none is declared.
        has_preamble: the object starts with a preamble and DICM (PS3.10 7.1).
        pixel_offset: offset of the value of the pixel data in the object; None without pixel data, and for a
            deflated data set.
        pixel_length: bytes of that value as stated; None for an undefined length.
        has_pixel: (7FE0,0010), (7FE0,0008) or (7FE0,0009) is there.
        header_bytes: bytes before the pixel data element, or of the whole object (of a deflated data set,
            after inflation).
        element_count: elements in the document, at every depth.
        private_element_count: those of them with an odd group.
        issues: what was lost (WARNING) or unusual (INFO); never with values.
    """

    json: str
    transfer_syntax_uid: str | None
    has_preamble: bool
    pixel_offset: int | None
    pixel_length: int | None
    has_pixel: bool
    header_bytes: int
    element_count: int
    private_element_count: int
    issues: tuple[Issue, ...]


class HeaderReader:
    """Reads headers and remembers decoded elements, since most of them repeat over a series.

    The memo is bounded and a result never depends on it. One reader may serve several threads; every process of a
    pool has its own.

    Args:
        memo_bytes: the most that is remembered per combination of encoding and character set, of which there are
            at most ``_tables.TABLES_MAX``; 0 to remember nothing.
    """

    def __init__(self, *, memo_bytes: int = MEMO_BYTES) -> None:
        self._tables = Tables(memo_bytes)

    def read(self, data: bytes, *, size: int | None = None, more: Callable[[int], bytes] | None = None) -> Header:
        """Read one header; see ``read_header``."""
        if not data and not size:
            raise PoisonInput(Reason.EMPTY, "the object has no bytes")
        source = Source(data, size, more)
        prefix = source.load(PREAMBLE_BYTES + 4)
        return _Reading(source, self._tables, has_preamble(prefix)).run()


def read_header(data: bytes, *, size: int | None = None, more: Callable[[int], bytes] | None = None) -> Header:
    """Read the header of one DICOM object, recognised by its content.

    Accepted are files with or without preamble, and bare data sets, in implicit, explicit, big endian and
    deflated encoding. Damage costs as little as possible and is told in ``Header.issues``. Elements after the
    pixel data are read only when ``data`` is the whole object.

    Args:
        data: the first bytes of the object, or all of them.
        size: bytes of the whole object; ``len(data)`` by default.
        more: gives a longer prefix of the object, at least as many bytes as asked for, or all. It is called
            only when the header is longer than ``data``; its errors pass through.

    Raises:
        PoisonInput: EMPTY, NOT_DICOM, TRUNCATED or MALFORMED when no element can be read, TOO_LARGE for a
            deflated header that inflates beyond its limits.
    """
    return _shared_reader().read(data, size=size, more=more)


@functools.cache
def _shared_reader() -> HeaderReader:
    """The reader of this process; made on first use, and a copy of its own in every forked worker."""
    return HeaderReader()


class _Reading:
    """The reading of one object."""

    def __init__(self, source: Source, tables: Tables, is_file: bool) -> None:  # noqa: FBT001
        self._source = source
        self._tables = tables
        self._is_file = is_file
        self._parser = Parser(source, tables, HANDLERS)
        self._scope = Scope(tables.file_meta)

    def run(self) -> Header:
        at = PREAMBLE_BYTES + 4 if self._is_file else 0
        uid, at = self._read_file_meta(at)
        parser = self._parser
        if uid == DEFLATED_UID:
            self._read_deflated(at)
        elif not parser.is_over:
            uid = self._read_data_set(uid, at)
        json = self._parser.finish(self._scope)
        if not self._scope.fragments:
            raise self._refusal()
        return self._header(json, uid)

    def _read_file_meta(self, at: int) -> tuple[str | None, int]:
        """The declared transfer syntax and the offset of the data set."""
        source, parser = self._source, self._parser
        info = functools.partial(parser.report, severity=Severity.INFO)
        prefix = source.load(at + 12)
        is_meta_there = has_file_meta(prefix, at)
        if not self._is_file and not is_meta_there and found_syntax(source, at) is None:
            raise PoisonInput(Reason.NOT_DICOM, "no preamble, no file meta information and no data set")
        if not self._is_file:
            info(Reason.MISSING_PREAMBLE, message="the object does not start with a preamble and DICM")
        if not is_meta_there:
            info(Reason.MISSING_FILE_META, message="there is no file meta information")
            return None, at
        at = parser.read(self._scope, at, source.size)
        stated = ",".join(self._scope.fragments).partition(_TRANSFER_SYNTAX)[2]
        uid = stated.partition('"')[0] or None
        if uid is None and not parser.is_over:
            info(Reason.MISSING_FILE_META, message="the file meta information states no transfer syntax")
        return uid, at

    def _read_data_set(self, uid: str | None, at: int) -> str | None:
        """Read the data set; the transfer syntax, found by content where none is declared."""
        if at >= self._source.size:
            return uid
        declared = declared_syntax(uid) if uid else None
        syntax = found_syntax(self._source, at, declared)
        if syntax is not None and declared is not None and syntax != declared:
            message = f"declared {_words(declared)}, found {_words(syntax)}"
            self._parser.report(Reason.WRONG_TRANSFER_SYNTAX, Severity.INFO, message)
        syntax = syntax or declared
        if syntax is None and self._scope.fragments:
            syntax = IMPLICIT_LITTLE  # the default transfer syntax (PS3.5 10.1)
        if syntax is None:
            reason = Reason.MALFORMED if self._source.size - at >= _SHORTEST_ELEMENT else Reason.TRUNCATED
            self._parser.report(reason, Severity.WARNING, "what follows is no data set")
            return uid
        self._scope.use(self._tables.get(syntax, _DEFAULT_CODECS))
        self._parser.read(self._scope, at, self._source.size)
        return uid or UID_OF_SYNTAX[syntax]

    def _read_deflated(self, at: int) -> None:
        """Go on in the inflated data set, with what is known so far."""
        self._parser.source = inflating(self._source, at)
        self._parser.is_inflated = True
        self._scope.use(self._tables.get(EXPLICIT_LITTLE, _DEFAULT_CODECS))
        self._parser.read(self._scope, 0, UNKNOWN_SIZE)

    def _header(self, json: str, uid: str | None) -> Header:
        parser = self._parser
        pixel_data = parser.pixel_data
        read_bytes = len(parser.source.prefix) if parser.is_inflated else self._source.size
        return Header(
            json=json,
            transfer_syntax_uid=uid,
            has_preamble=self._is_file,
            pixel_offset=None if pixel_data is None or parser.is_inflated else pixel_data.offset,
            pixel_length=pixel_data.length if pixel_data else None,
            has_pixel=pixel_data is not None,
            header_bytes=pixel_data.element_at if pixel_data else read_bytes,
            element_count=parser.element_count,
            private_element_count=parser.private_count,
            issues=tuple(parser.issues),
        )

    def _refusal(self) -> PoisonInput:
        """Why nothing could be read of an object that looked like DICOM."""
        reasons = {issue.reason for issue in self._parser.issues}
        if Reason.TOO_LARGE in reasons:
            return PoisonInput(Reason.TOO_LARGE, "the first element is larger than a header may be")
        if Reason.MALFORMED in reasons:
            return PoisonInput(Reason.MALFORMED, "what follows the preamble is no data set")
        return PoisonInput(Reason.TRUNCATED, "the object ends before its first element")


def _words(syntax: Syntax) -> str:
    return f"{'explicit' if syntax.is_explicit else 'implicit'} {'big' if syntax.is_big else 'little'} endian"
