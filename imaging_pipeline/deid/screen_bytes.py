"""Identifiers looked for in bytes, where no element says what is text: in many encodings, and inside encodings of text.

Owns the search in bytes. Contains no elements and no judgement of what an identifier is.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

MIN_LETTERS: Final = 4
"""Shortest word that is looked for in bytes, where shorter ones occur by chance."""
MIN_DIGITS: Final = 5
"""Shortest number that counts as an identifier by itself: shorter ones are ordinary measurements."""

_ENCODINGS: Final = (
    "utf-8", "latin-1", "utf-16-le", "utf-16-be", "shift_jis", "iso2022_jp", "euc_jp", "euc_kr", "gb18030", "cp1251",
    "iso8859_2", "iso8859_3", "iso8859_4", "iso8859_5", "iso8859_6", "iso8859_7", "iso8859_8", "iso8859_9", "tis_620",
)  # fmt: skip
_MAX_INFLATED: Final = 4_000_000
_MAX_LAYERS: Final = 2
_UNPRINTABLE: Final = bytes(byte for byte in range(256) if byte < 0x20 and byte not in b"\t\r\n\x1b") + bytes(
    range(0x7F, 0xC0)
)
_MAX_UNPRINTABLE: Final = 0.1
_BASE64_LETTERS: Final = bytes.maketrans(b"-_", b"+/")

_NUMBERS: Final = re.compile(rb"(?<![0-9.])[0-9]{5,}(?![0-9]|\.[0-9])")
_DAYS: Final = re.compile(rb"(?<![0-9])[0-9]{8,14}(?![0-9])")
_MIN_UID: Final = 3
_UIDS: Final = re.compile(rb"[0-9]+(?:\.[0-9]+)+")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-](?:[A-Za-z0-9+/_-]|\r?\n(?=[A-Za-z0-9+/_-]{4})){10,}={0,2}")
_HEX: Final = re.compile(rb"(?:[0-9a-fA-F]{2}[ :-]?){6,}")
_ESCAPED: Final = re.compile(rb"[%=][0-9a-fA-F]{2}")
_PERCENT: Final = re.compile(rb"[\w.+-]*(?:[%=][0-9a-fA-F]{2}[\w.+-]*){2,}")
_ENTITIES: Final = re.compile(rb"[\w ]*(?:&#x?[0-9a-fA-F]+;[\w ]*){2,}")
_STREAM: Final = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")
_WIDE: Final = (
    (b"A\0" * 4, re.compile(rb"(?:[\x20-\x7e]\x00){4,}"), 0, 2),
    (b"\0A" * 4, re.compile(rb"(?:\x00[\x20-\x7e]){4,}"), 1, 2),
    (b"A\0\0\0" * 4, re.compile(rb"(?:[\x20-\x7e]\x00{3}){4,}"), 0, 4),
    (b"\0\0\0A" * 4, re.compile(rb"(?:\x00{3}[\x20-\x7e]){4,}"), 3, 4),
)
"""What a match has in it once every printable character is an ``A``; pattern, first letter and step."""


def _only(allowed: bytes, instead: bytes) -> bytes:
    """A table for `bytes.translate` that keeps some bytes and puts ``instead`` for all others."""
    return bytes(byte if byte in allowed else instead[0] for byte in range(256))


_ALNUM: Final = b"0123456789abcdefghijklmnopqrstuvwxyz"
_UPPER: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_WORD_BYTES: Final = _only(_ALNUM, b" ")
_NUMBER_BYTES: Final = _only(b"0123456789.", b" ")
_BASE64_BYTES: Final = _only(_ALNUM + _UPPER + b"+/_-=\r\n", b" ")
_HEX_BYTES: Final = _only(b"0123456789abcdefABCDEF :-", b"\0")
_PRINTABLE: Final = bytes(ord("A") if 0x20 <= byte <= 0x7E else byte for byte in range(256))
_MIN_BASE64: Final = 11
_MIN_HEX: Final = 12
_MAX_REMEMBERED: Final = 256


def bare(word: str) -> str:
    """A number without the zeros it is filled up with (``0012345`` is ``12345``), other words as they are."""
    number = word.lstrip("0") if word.isdecimal() else ""
    return number if len(number) >= MIN_DIGITS else word


class Haystack:
    """Bytes prepared for asking about many identifiers.

    Args:
        data: the bytes; what is written in them as base64, hexadecimal digits, wide characters, percent or numeric
            entities is searched as well.
    """

    __slots__ = ("_data", "_days", "_lowered", "_numbers", "_uids", "_words")

    def __init__(self, data: bytes) -> None:
        self._data = b"\n".join((data, *_unwrapped(data, _MAX_LAYERS)))
        self._lowered = self._data.lower()
        self._words = set(self._lowered.translate(_WORD_BYTES).decode("ascii").split())
        self._numbers: set[str] = set()
        self._days: set[bytes] = set()
        self._uids: set[bytes] = set()
        for run in set(self._lowered.translate(_NUMBER_BYTES).split()):
            if len(run) >= _MIN_UID:
                self._add(run)

    def _add(self, run: bytes) -> None:
        """Note the UIDs, numbers and days in a run of digits and points."""
        if b"." in run:
            self._uids.update(_UIDS.findall(run))
        if len(run) >= MIN_DIGITS:
            self._numbers.update(bare(digits.decode()) for digits in _NUMBERS.findall(run))
            self._days.update(digits[:8] for digits in _DAYS.findall(run))

    def has_uid(self, text: str) -> bool:
        """Whether a UID stands there as a whole; what is no UID by its form is looked for as text."""
        needle = text.encode("utf-8", "replace").lower()
        if re.fullmatch(rb"[0-9]+(\.[0-9]+)+", needle):
            return needle in self._uids
        return len(needle) >= MIN_LETTERS and needle in self._lowered

    def has_day(self, day: str) -> bool:
        """Whether a date (``YYYYMMDD``) stands there, alone or in front of a time."""
        return day.encode("ascii", "replace") in self._days

    def has_text(self, text: str) -> bool:
        """Whether a word, a number or several words stand there, in any encoding."""
        folded = text.casefold().strip()
        if folded.isascii() and folded.isdigit():
            return len(folded) >= MIN_DIGITS and bare(folded) in self._numbers
        if len(folded.encode()) < MIN_LETTERS:  # a letter of most scripts weighs more than one of ours
            return False
        if folded.isascii() and folded.isalnum():
            return folded in self._words
        if folded.isascii():
            return folded.encode() in self._lowered
        return any(needle in self._data for needle in _needles(text.strip()))


def inflated(data: bytes) -> Iterator[bytes]:
    """What zlib and gzip streams that begin anywhere in ``data`` hold, at most 4 MB of each."""
    for match in _STREAM.finditer(data):
        window = zlib.MAX_WBITS + (16 if match[0][:1] == b"\x1f" else 0)
        try:
            yield zlib.decompressobj(window).decompress(memoryview(data)[match.start() :], _MAX_INFLATED)
        except zlib.error:
            continue


def _unwrapped(data: bytes, layers: int) -> Iterator[bytes]:
    """Texts that are written inside ``data`` in another way."""
    if not layers:
        return
    for piece in _decoded(data):
        yield piece
        yield from _unwrapped(piece, layers - 1)


def _decoded(data: bytes) -> Iterator[bytes]:
    shape = data.translate(_PRINTABLE) if b"\0" in data else b""
    for sign, pattern, first, step in _WIDE:
        if sign in shape:
            yield from (match[0][first::step] for match in pattern.finditer(data))
    for run in dict.fromkeys(data.translate(_BASE64_BYTES).split(b" ")):
        if len(run) >= _MIN_BASE64:
            yield from _texts_in(run)
    for run in dict.fromkeys(data.translate(_HEX_BYTES).split(b"\0")):
        if len(run) >= _MIN_HEX:
            yield from _from_hex(run)
    if len(_ESCAPED.findall(data)) > 1:
        yield from (unquote_to_bytes(match[0].replace(b"=", b"%")) for match in _PERCENT.finditer(data))
    if b"&#" in data:
        yield from (html.unescape(match[0].decode("latin-1")).encode() for match in _ENTITIES.finditer(data))


def _texts_in(run: bytes) -> Iterator[bytes]:
    """Texts in a run of base64 characters and line ends; what every object holds is remembered."""
    for match in _BASE64.finditer(run):
        found = match[0]
        if not found.isdigit():
            yield from _remembered(found) if len(found) <= _MAX_REMEMBERED else filter(_is_text, _from_base64(found))


@lru_cache(maxsize=4096)
def _remembered(run: bytes) -> tuple[bytes, ...]:
    return tuple(filter(_is_text, _from_base64(run)))


def _from_hex(run: bytes) -> Iterator[bytes]:
    for match in _HEX.finditer(run):
        digits = match[0].translate(None, b" :-")
        piece = binascii.unhexlify(digits[: len(digits) // 2 * 2])
        if _is_text(piece) and not piece.isdigit():
            yield piece


def _from_base64(run: bytes) -> Iterator[bytes]:
    """A run of base64 characters read from each of its first four, since letters may stand in front of it."""
    letters = run.translate(_BASE64_LETTERS, b"\r\n=")
    for start in range(4):
        part = letters[start:]
        part = part[: len(part) - (len(part) % 4 == 1)]
        yield base64.b64decode(part + b"=" * (-len(part) % 4))


def _is_text(piece: bytes) -> bool:
    """Whether bytes are text, or wide text: other bytes were not encoded text in the first place."""
    plain = piece.replace(b"\0", b"")
    if not plain:
        return False
    odd = len(plain) - len(plain.translate(None, _UNPRINTABLE))
    if odd <= _MAX_UNPRINTABLE * len(plain):
        return True
    try:
        return plain.decode("utf-8").isprintable()
    except UnicodeDecodeError:
        return False


def _needles(text: str) -> Iterator[bytes]:
    for variant in {text, text.lower(), text.upper(), text.title()}:
        for encoding in _ENCODINGS:
            try:
                yield variant.encode(encoding)
            except UnicodeError:
                continue
