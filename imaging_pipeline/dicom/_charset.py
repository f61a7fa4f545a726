"""Character sets of DICOM text: the terms of (0008,0005) and the decoding of bytes under them.

Owns the term table (PS3.3 C.12.1.1.2), the escape sequences of code extensions and the rule what happens to
bytes that do not fit. Contains no knowledge of elements or value representations, and raises nothing: text that
cannot be decoded is returned with replacements and marked as unclean.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

ASCII = "ascii"
"""The default repertoire, ISO_IR 6; bytes above 0x7F are read as Latin-1 and marked as unclean."""

_SINGLE_BYTE = {
    "6": ASCII,
    "13": "shift_jis",  # JIS X 0201, a subset of Shift JIS
    "100": "latin_1",
    "101": "iso8859_2",
    "109": "iso8859_3",
    "110": "iso8859_4",
    "126": "iso8859_7",
    "127": "iso8859_6",
    "138": "iso8859_8",
    "144": "iso8859_5",
    "148": "iso8859_9",
    "166": "tis_620",
    "203": "iso8859_15",
}
_MULTI_BYTE = {"58": "gb2312", "87": "iso2022_jp", "149": "euc_kr", "159": "iso2022_jp_2"}
_STAND_ALONE = {"ISO_IR 192": "utf_8", "GB18030": "gb18030", "GBK": "gbk"}
"""Sets that allow no code extension: an escape byte in them means nothing (PS3.3 Table C.12-5)."""

_TERMS = {
    "": ASCII,
    **{f"ISO_IR {number}": codec for number, codec in _SINGLE_BYTE.items()},
    **{f"ISO 2022 IR {number}": codec for number, codec in (_SINGLE_BYTE | _MULTI_BYTE).items()},
    **_STAND_ALONE,
}
_ESCAPES = {
    b"\x1b(B": ASCII,
    b"\x1b(J": "shift_jis",
    b"\x1b)I": "shift_jis",
    b"\x1b-A": "latin_1",
    b"\x1b-B": "iso8859_2",
    b"\x1b-C": "iso8859_3",
    b"\x1b-D": "iso8859_4",
    b"\x1b-F": "iso8859_7",
    b"\x1b-G": "iso8859_6",
    b"\x1b-H": "iso8859_8",
    b"\x1b-L": "iso8859_5",
    b"\x1b-M": "iso8859_9",
    b"\x1b-T": "tis_620",
    b"\x1b-b": "iso8859_15",
    b"\x1b$B": "iso2022_jp",
    b"\x1b$(D": "iso2022_jp_2",
    b"\x1b$)A": "gb2312",
    b"\x1b$)C": "euc_kr",
}
"""Escape sequences of PS3.3 Tables C.12-3 and C.12-4."""

_KEEPS_ESCAPE = frozenset({"iso2022_jp", "iso2022_jp_2"})
"""Codecs that read the escape sequence themselves; their double bytes may contain any ASCII delimiter."""

_FRAGMENT = re.compile(rb"^[^\x1b]+|\x1b[^\x1b]*")


@dataclass(frozen=True, slots=True)
class Charset:
    """The decoding in force for one data set.

    Attributes:
        codecs: Python codecs of the declared terms; the first one holds until an escape sequence.
        is_known: every term is a defined term, or a spelling of one that leaves no doubt.
    """

    codecs: tuple[str, ...] = (ASCII,)
    is_known: bool = True


@functools.lru_cache(maxsize=256)
def charset_of(terms: tuple[str, ...]) -> Charset:
    """The decoding that the values of (0008,0005) ask for (PS3.3 C.12.1.1.2).

    Unknown terms count as the default repertoire. A stand-alone set allows no others beside it: in first place
    it is the only one, elsewhere it is ignored.

    >>> charset_of(("", "ISO 2022 IR 87")).codecs
    ('ascii', 'iso2022_jp')
    >>> charset_of(("ISO IR 100",))
    Charset(codecs=('latin_1',), is_known=True)
    >>> charset_of(("KLINGON",))
    Charset(codecs=('ascii',), is_known=False)
    """
    codecs = [_TERMS.get(term.strip()) or _respelled(term) for term in terms or ("",)]
    is_known = None not in codecs
    first, *others = [codec or ASCII for codec in codecs]
    stand_alone = _STAND_ALONE.values()
    if first in stand_alone:
        return Charset((first,), is_known)
    extensions = (codec for codec in others if codec not in stand_alone)
    return Charset(tuple(dict.fromkeys((first, *extensions))), is_known)


def decode(value: bytes, codecs: tuple[str, ...], resets: bytes = b"") -> tuple[str, bool]:
    """Text of a value, and whether every byte of it could be decoded as declared.

    Args:
        value: the bytes of the whole value field; delimiters are looked for in the text only, since a
            multi-byte character may contain their codes.
        codecs: the codecs of the data set, the first one being in force at the start.
        resets: bytes after which the first codec is in force again (PS3.5 6.1.2.5.3).
    """
    codec = codecs[0]
    if b"\x1b" not in value or codec in _STAND_ALONE.values():
        return _decode_plain(value, codec)
    texts = []
    is_clean = True
    for fragment in _FRAGMENT.findall(value):
        text, fragment_is_clean = _decode_fragment(fragment, codecs, resets)
        texts.append(text)
        is_clean = is_clean and fragment_is_clean
    return "".join(texts), is_clean


def _decode_plain(value: bytes, codec: str) -> tuple[str, bool]:
    try:
        return value.decode(codec), True
    except UnicodeDecodeError:
        return (value.decode("latin_1") if codec == ASCII else value.decode(codec, "replace")), False


def _decode_fragment(fragment: bytes, codecs: tuple[str, ...], resets: bytes) -> tuple[str, bool]:
    """Text of one run of bytes, which starts with an escape sequence unless it is the first one."""
    if not fragment.startswith(b"\x1b"):
        return _decode_plain(fragment, codecs[0])
    width = 4 if fragment.startswith((b"\x1b$(", b"\x1b$)")) else 3
    codec = _ESCAPES.get(fragment[:width])
    if codec is None:
        text, _ = _decode_plain(fragment, codecs[0])
        return text, False
    is_declared = codec == ASCII or codec in codecs
    if codec in _KEEPS_ESCAPE:
        text, is_clean = _decode_plain(fragment, codec)
        return text, is_clean and is_declared
    body = fragment[width:]
    end = next((at for at, byte in enumerate(body) if byte in resets), len(body))
    text, is_clean = _decode_plain(body[:end], codec)
    rest, rest_is_clean = _decode_plain(body[end:], codecs[0])
    return text + rest, is_clean and rest_is_clean and is_declared


def _respelled(term: str) -> str | None:
    """The codec of a misspelled term (``ISO-IR 100``, ``ISO 2022-IR 87``, ``UTF-8``), if there is one."""
    return _SPELLINGS.get(_letters(term))


def _letters(term: str) -> str:
    return "".join(character for character in term.upper() if character.isalnum())


_SPELLINGS = {_letters(term): codec for term, codec in _TERMS.items() if term} | {"UTF8": "utf_8"}
