"""Value decoders: the bytes of one value field to the text that follows ``"ggggeeee":{"vr":"XX"``.

Owns the value representations of PS3.5 6.2 and their form in the DICOM JSON Model (PS3.18 F.2). Contains no
parsing of elements, tags or files. A decoder returns the rest of the attribute object with its closing brace
(``}`` alone for an empty value) or raises ``ValueFault``, which carries the text to use instead.
"""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Callable, Iterable
from json.encoder import encode_basestring as quote

from imaging_pipeline.dicom._charset import decode
from imaging_pipeline.errors import Reason

Decoder = Callable[[bytes], str]
"""Value bytes to the rest of a JSON attribute object."""

BINARY_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
"""Representations that JSON carries as InlineBinary or BulkDataURI."""

LONG_VRS = BINARY_VRS | {"SQ", "SV", "UC", "UR", "UT", "UV"}
"""Representations with a 32-bit length in explicit syntaxes (PS3.5 Table 7.1-1)."""

_SHORT_VRS = ("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST")
KNOWN_VRS = LONG_VRS.union(_SHORT_VRS, ("TM", "UI", "UL", "US"))
"""Every value representation of PS3.5 Table 6.2-1."""

MAX_NUMBER_CHARACTERS = 40
"""Longer numeric text is kept as text; DS allows 16 characters, IS 12, and Python refuses 4300 digits."""

_EMPTY = "}"
_NOT_FINITE = {"nan": '"NaN"', "inf": '"inf"', "-inf": '"-inf"'}
_BACKSLASH = "\\"
_JSON_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_JSON_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?").fullmatch
_TEXT_RESETS = b"\r\n\t\f"
_PERSON_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


class ValueFault(Exception):
    """A value does not fit its representation; never leaves the package.

    Attributes:
        reason: the code of the issue.
        message: what was expected, without the value.
        body: the text to use in place of the decoded value.
        vr: the representation to state instead, or None to keep it.
    """

    def __init__(self, reason: Reason, message: str, body: str, vr: str | None = None) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message
        self.body = body
        self.vr = vr


def decoders_for(endian: str, codecs: tuple[str, ...]) -> dict[str, Decoder]:
    """Decoders of all representations for one byte order (``<`` or ``>``) and one character set."""
    integers = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q"}
    return {
        **dict.fromkeys(("AS", "CS", "DA", "DT", "TM", "UI"), decode_strings),
        "AE": decode_application_entity,
        "UR": decode_uri,
        "DS": _numeric_text(_decimal, _JSON_DECIMAL.pattern),
        "IS": _numeric_text(_integer, _JSON_INTEGER.pattern),
        **{vr: _integers(endian, code) for vr, code in integers.items()},
        "FL": _floats(endian, "f"),
        "FD": _floats(endian, "d"),
        "AT": _tags(endian),
        **dict.fromkeys(BINARY_VRS, decode_binary),
        **dict.fromkeys(("LO", "SH", "UC"), _texts(codecs)),
        **dict.fromkeys(("LT", "ST", "UT"), _text(codecs)),
        "PN": _person_names(codecs),
    }


def decode_binary(value: bytes) -> str:
    """InlineBinary (PS3.18 F.2.7); bytes are not swapped."""
    return f',"InlineBinary":"{base64.b64encode(value).decode()}"}}' if value else _EMPTY


def decode_unknown_vr(value: bytes) -> str:
    """Bytes under two letters that are no representation; always a fault."""
    raise ValueFault(Reason.VR_INVALID, "the value representation is not defined", decode_binary(value), "UN")


def decode_strings(value: bytes) -> str:
    r"""Strings of the default repertoire, separated by ``\``, padded at the end."""
    text = value.decode("latin_1").rstrip(" \0")
    if "\\" not in text:
        return _one_text(text)
    return _values(map(_quote_or_null, text.split("\\")))


def decode_application_entity(value: bytes) -> str:
    """AE: padded on both sides."""
    text = value.decode("latin_1").strip(" \0")
    if "\\" not in text:
        return _one_text(text)
    parts = [part.strip(" \0") for part in text.split("\\")]
    return _values(map(_quote_or_null, parts)) if any(parts) else _EMPTY


def decode_uri(value: bytes) -> str:
    """UR: one value; a backslash does not separate."""
    return _one_text(value.decode("latin_1").rstrip(" \0"))


def _one_text(text: str) -> str:
    return f',"Value":[{quote(text)}]}}' if text else _EMPTY


def _values(parts: Iterable[str]) -> str:
    return f',"Value":[{",".join(parts)}]}}'


def _quote_or_null(part: str) -> str:
    """One of several values; an empty one is null (PS3.18 F.2.5)."""
    return quote(part) if part else "null"


def _numeric_text(number: Callable[[str], str | None], pattern: str) -> Decoder:
    """Decoder of DS or IS; components that are no number stay text and make a fault.

    Args:
        number: a component as JSON number, None when it is none.
        pattern: of the components that are JSON numbers as they stand; they need no closer look.
    """
    short = rf"(?![^\\]{{{MAX_NUMBER_CHARACTERS + 1}}}){pattern}"
    are_numbers = re.compile(rf"{short}(?:\\{short})*").fullmatch

    def decode_numbers(value: bytes) -> str:
        text = value.decode("latin_1").strip(" \0")
        if not text:
            return _EMPTY
        if are_numbers(text):
            return f',"Value":[{text.replace(_BACKSLASH, ",")}]}}'
        parts = [part.strip(" \0") for part in text.split("\\")]
        numbers = [number(part) if part else "null" for part in parts]
        if None not in numbers:
            return _values(filter(None, numbers))
        body = _values(quote(part) if one is None else one for part, one in zip(parts, numbers, strict=True))
        raise ValueFault(Reason.VR_INVALID, "a number was expected", body)

    return decode_numbers


def _decimal(text: str) -> str | None:
    """JSON number of a DS component: the text itself where JSON allows it, so that no digit is lost."""
    if len(text) > MAX_NUMBER_CHARACTERS:
        return None
    if _JSON_DECIMAL.fullmatch(text):
        return text
    if not _DECIMAL(text):
        return None
    number = float(text)
    return repr(number) if math.isfinite(number) else None


def _integer(text: str) -> str | None:
    """JSON number of an IS component; a decimal without fraction counts as an integer."""
    if len(text) > MAX_NUMBER_CHARACTERS:
        return None
    if _JSON_INTEGER.fullmatch(text):
        return text
    if not _DECIMAL(text):
        return None
    number = float(text)
    return str(int(number)) if number.is_integer() else None


def _check_length(value: bytes, width: int) -> None:
    if len(value) % width:
        message = f"the length is no multiple of {width} bytes"
        raise ValueFault(Reason.VR_INVALID, message, decode_binary(value), "UN")


def _integers(endian: str, code: str) -> Decoder:
    one = struct.Struct(endian + code)
    width = one.size

    def decode_integers(value: bytes) -> str:
        if len(value) == width:
            return f',"Value":[{one.unpack(value)[0]}]}}'
        _check_length(value, width)
        return _values(map(str, struct.unpack(f"{endian}{len(value) // width}{code}", value))) if value else _EMPTY

    return decode_integers


def _floats(endian: str, code: str) -> Decoder:
    """Decoder of FL or FD; JSON has no NaN and no infinity, they become strings."""
    one = struct.Struct(endian + code)
    width = one.size

    def decode_floats(value: bytes) -> str:
        if len(value) == width:
            text = repr(one.unpack(value)[0])
            return f',"Value":[{_NOT_FINITE.get(text, text)}]}}'
        _check_length(value, width)
        if not value:
            return _EMPTY
        texts = map(repr, struct.unpack(f"{endian}{len(value) // width}{code}", value))
        return _values([_NOT_FINITE.get(text, text) for text in texts])

    return decode_floats


def _tags(endian: str) -> Decoder:
    def decode_tags(value: bytes) -> str:
        _check_length(value, 4)
        if not value:
            return _EMPTY
        halves = struct.iter_unpack(endian + "HH", value)
        return _values(f'"{group:04X}{element:04X}"' for group, element in halves)

    return decode_tags


def lut_descriptor(endian: str) -> Decoder:
    """Decoder of a signed LUT Descriptor, whose first value is unsigned all the same (PS3.3 C.11.1.1.1)."""
    three = struct.Struct(endian + "Hhh")
    usual = _integers(endian, "h")

    def decode_descriptor(value: bytes) -> str:
        return _values(map(str, three.unpack(value))) if len(value) == three.size else usual(value)

    return decode_descriptor


def _checked(body: str, is_clean: bool) -> str:  # noqa: FBT001 - internal, one caller pattern
    if is_clean:
        return body
    raise ValueFault(Reason.CHARSET_UNKNOWN, "bytes outside the declared character set", body)


def _texts(codecs: tuple[str, ...]) -> Decoder:
    resets = _TEXT_RESETS + b"\\"

    def decode_texts(value: bytes) -> str:
        text, is_clean = decode(value, codecs, resets)
        if "\\" not in text:
            return _checked(_one_text(text.rstrip("\0 ")), is_clean)
        parts = [part.rstrip("\0 ") for part in text.split("\\")]
        return _checked(_values(map(_quote_or_null, parts)), is_clean)

    return decode_texts


def _text(codecs: tuple[str, ...]) -> Decoder:
    def decode_text(value: bytes) -> str:
        text, is_clean = decode(value, codecs, _TEXT_RESETS)
        return _checked(_one_text(text.rstrip("\0 ")), is_clean)

    return decode_text


def _person_names(codecs: tuple[str, ...]) -> Decoder:
    """Decoder of PN: up to three component groups, of which the empty ones are left out (PS3.18 F.2.2)."""
    resets = _TEXT_RESETS + b"\\^="

    def decode_names(value: bytes) -> str:
        text, is_clean = decode(value.rstrip(b"\0 "), codecs, resets)
        return _checked(_values(map(_person_name, text.split("\\"))) if text else _EMPTY, is_clean)

    return decode_names


def _person_name(text: str) -> str:
    if text and "=" not in text:
        return f'{{"Alphabetic":{quote(text)}}}'
    groups = zip(_PERSON_GROUPS, text.split("="), strict=False)
    parts = [f'"{name}":{quote(group)}' for name, group in groups if group]
    return "{" + ",".join(parts) + "}" if parts else "null"
