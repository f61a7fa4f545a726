"""Dates and times inside running text: found in their many spellings, moved in place or taken out.

Owns the spellings. Contains no shift of its own (`dates` moves) and no other kind of identifier.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from imaging_pipeline.deid.dates import shift_date, shift_datetime, shift_time
from imaging_pipeline.deid.text_patterns import caseless, lowered
from imaging_pipeline.deid.vocabulary import is_clinical, plain

_LANGUAGES: Final = (
    (
        "January February March April May June July August September October November December",
        "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec",
    ),
    (
        "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
        "Jan Feb Mär Apr Mai Jun Jul Aug Sep Okt Nov Dez",
    ),
    (
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "janv févr mars avr mai juin juil août sept oct nov déc",
    ),
    (
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        "ene feb mar abr may jun jul ago sep oct nov dic",
    ),
    (
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
        "gen feb mar apr mag giu lug ago set ott nov dic",
    ),
    (
        "januari februari maart april mei juni juli augustus september oktober november december",
        "jan feb mrt apr mei jun jul aug sep okt nov dec",
    ),
)
_OTHER_SPELLINGS: Final = {"sept": 9, "jänner": 1, "mrz": 3, "maerz": 3, "fev": 2, "aout": 8, "feber": 2}

_MONTH_TABLES: Final = tuple(tuple(tuple(names.split()) for names in language) for language in _LANGUAGES)
_MONTHS: Final[dict[str, int]] = {plain(name): number for name, number in _OTHER_SPELLINGS.items()} | {
    plain(name): number
    for language in _MONTH_TABLES
    for names in language
    for number, name in enumerate(names, start=1)
}
_MONTH: Final = "(?P<mon>" + "|".join(
    sorted({re.escape(name) for table in _MONTH_TABLES for names in table for name in names} | set(_OTHER_SPELLINGS),
           key=lambda name: (-len(name), name))
) + r")(?![^\W\d_])\.?"  # fmt: skip
_ANY_MONTH: Final = _MONTH.replace("?P<mon>", "?:")
_ORDINAL: Final = (
    r"(?:(?:twenty|thirty)[- ])?(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth"
    r"|(?:thir|four|fif|six|seven|eigh|nine)teenth|twentieth|thirtieth)"
)
_YEAR: Final = r"(?P<y>(?:18|19|20)\d\d)"
_YEAR_OR_SHORT: Final = r"(?P<y>(?:18|19|20)\d\d|'?\d\d)"
_ANY_DAY: Final = r"(?:3[01]|[12]\d|0?[1-9])(?:st|nd|rd|th|er|ten|\.)?"
_TO: Final = r"(?:[-\u2013+&]|to|till|until|and|bis|und|au|et)"
_DAY: Final = r"(?P<d>3[01]|[12]\d|0?[1-9])(?:st|nd|rd|th|er|ten|\.)?"
_START: Final = r"(?<!\d)(?<!\d[.,:/-])"
_END: Final = r"(?![\d:]|[.,/-]\d)"
_CLOCK: Final = (
    r"(?P<h>[01]?\d|2[0-4])(?:[:hH.](?P<mi>[0-5]\d)(?:[:.](?P<s>[0-6]\d)(?:[.,](?P<f>\d{1,6}))?)?)"
    r"(?:\s?(?P<ap>[ap])\.?m\b\.?)?(?:\s?(?:Uhr|hrs?|Z|UTC|[+-]\d\d:?\d\d)(?![^\W_]))?"
)
_WEEKDAY: Final = (
    r"(?:(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|(?:Mon|Diens|Donners|Frei|Sams|Sonn)tag|Mittwoch|Sonnabend"
    r"|(?:lun|mar|mercre|jeu|vendre|same)di|dimanche)s?"
)
_DAY_ABBREVIATION: Final = r"(?:Mon|Tues?|Wed|Thurs?|Thu|Fri|Sat|Sun|Mo|Di|Mi|Do|Fr|Sa|So|lun|mer|jeu|ven|sam|dim)"
_BEFORE: Final = rf"(?:\b(?:{_WEEKDAY}|{_DAY_ABBREVIATION})\b[.,]?\s*(?:der|den|le|the)?\s*)?"
_AFTER: Final = rf"(?:(?:\s*,)?\s*(?:\b(?:at|um|gegen|à|a|@)\s+|[T_-]\s*)?{_CLOCK})?"

_OTHER_MONTH: Final = rf"{_START}{_ANY_DAY}[\s/_-]+(?P<word>[^\W\d_]{{3,12}})\.?[\s/_-]+(?:18|19|20)\d\d(?!\w)"
"""A word that nobody knows between a day and a year: a month of another language. Not moved."""

_FLAGS: Final = re.IGNORECASE
_PATTERNS: Final = tuple(
    (re.compile(pattern, _FLAGS), _MONTH in pattern or _ANY_MONTH in pattern)
    for pattern in (
        # 20210105, 20210105101530, 2021010510, with fraction and offset
        r"(?<![\d.,])(?P<y>(?:18|19|20)\d\d)(?P<m>0[1-9]|1[0-2])(?P<d>0[1-9]|[12]\d|3[01])"
        r"(?:[T_ -]?(?P<h>[01]\d|2[0-3])(?P<mi>[0-5]\d)(?P<s>[0-5]\d)?(?:\.(?P<f>\d{1,6}))?(?:[+-]\d{4})?)?(?!\d)",
        # 2021年1月4日, 2021년 1월 4일
        r"(?P<y>(?:18|19|20)\d\d)\s?[年년]\s?(?P<m>1[0-2]|0?[1-9])\s?[月월]\s?(?P<d>3[01]|[12]\d|0?[1-9])\s?[日일]?",
        # the eleventh of March, March the eleventh: not moved
        rf"\b{_ORDINAL}\s+(?:of\s+)?{_ANY_MONTH}(?:[\s,]+(?:18|19|20)\d\d)?|(?<![^\W_]){_ANY_MONTH}\s+"
        rf"(?:the\s+)?{_ORDINAL}\b",
        # 2021-W05, 4.I.2021: not moved
        r"\b(?:18|19|20)\d\d-?W\d\d(?:-\d)?\b|(?<![\w.])\d{1,2}[./ -]\s?(?!X )[IVX]{1,4}[./ -]\s?(?:(?:18|19|20)\d\d"
        r"|\d\d)(?!\w)|\b(?:week|wk|KW|semaine)\s?\d\d?[\s,/-]+(?:18|19|20)\d\d\b",
        # 20-22/02/2016, 20 to 22 Feb 2016, 20/22 Feb: not moved
        rf"{_START}{_ANY_DAY}\s?{_TO}\s?\d{{1,2}}([/.])\d{{1,2}}\1(?:(?:18|19|20)\d\d|\d\d)(?!\d)",
        rf"{_START}{_ANY_DAY}\s?(?:{_TO}|/)\s?{_ANY_DAY}[\s/-]*(?:of\s|de\s)?{_ANY_MONTH}(?:[\s,/-]*(?:18|19|20)\d\d)?(?!\d)",
        # 2021-01-05, 2021/1/5, 2021.01.05
        rf"{_BEFORE}{_START}{_YEAR}(?P<sep>[-/.:_])(?P<m>1[0-2]|0?[1-9])(?P=sep)(?P<d>3[01]|[12]\d|0?[1-9])"
        rf"(?!\d){_AFTER}",
        # 05.01.2021, 1/5/21, 05-01-2021, 5. 1. 2021
        rf"{_BEFORE}{_START}(?P<a>\d{{1,2}})(?P<sep>\s?[-/._]\s?)(?P<b>\d{{1,2}})(?P=sep){_YEAR_OR_SHORT}(?!\d"
        rf"|\.\d){_AFTER}",
        # 05 01 2021, 2021 01 05
        rf"{_BEFORE}{_START}(?P<a>\d{{1,2}})(?P<sep> )(?P<b>\d{{1,2}}) {_YEAR}(?!\d|[.,]\d){_AFTER}",
        rf"{_BEFORE}{_START}{_YEAR} (?P<m>1[0-2]|0[1-9]) (?P<d>3[01]|[12]\d|0[1-9])(?![\d.,:/-]){_AFTER}",
        # 5 January 2021, 5. Jan. 21, 05-JAN-2021, 05JAN2021, 5 de enero de 2021, 5th of January
        rf"{_BEFORE}(?<![\d.,:/]){_DAY}[\s/_-]*(?:of\s|de\s)?\s*{_MONTH}(?:[\s,/_-]*(?:de\s)?{_YEAR_OR_SHORT}"
        rf"(?![\d.])){_AFTER}",
        # January 5, 2021
        rf"{_BEFORE}(?<![^\W_]){_MONTH}[\s/_-]*{_DAY}(?:\s*,\s*|[\s/_-]+){_YEAR_OR_SHORT}(?![\d.]){_AFTER}",
        # 2021 Jan 5, 2021-JAN-05
        rf"{_BEFORE}(?<!\d){_YEAR}[\s/_-]*{_MONTH}[\s/_-]*{_DAY}(?!\d){_AFTER}",
        # January 2021, Jan '21, 01/2021, 2021-01
        rf"(?<![^\W_]){_MONTH}[\s,'/_-]*(?:de\s)?{_YEAR}(?!\d)",
        rf"(?<![^\W_]){_MONTH}[\s,/_-]*(?P<y>['\u2019]\d\d)(?!\d)",
        rf"{_START}(?P<m>1[0-2]|0?[1-9])/{_YEAR}{_END}",
        rf"{_START}(?P<m>1[0-2]|0[1-9])[.-]{_YEAR}{_END}",
        rf"{_START}{_YEAR}[-/](?P<m>1[0-2]|0[1-9]){_END}",
        # 5 January, January 5th: no year to move them by
        rf"{_BEFORE}(?<![\d.,:/]){_DAY}\s*(?:of\s|de\s)?{_MONTH}(?!\s*\d){_AFTER}",
        rf"{_BEFORE}(?<![^\W_])(?!(?:mag|set|gen|ago)(?!\w*\s)){_MONTH}[\s/-]*(?P<d>3[01]|[12]\d|0?[1-9])(?:st|nd|rd"
        rf"|th)?(?![\d./]|\s*(?:mm|cm|ml|x)){_AFTER}",
        # on 3/14, vom 14.3., le 14/03
        r"\b(?:on|dated|since|until|from|compared\s+(?:to|with)|comparison|prior|previous|LMP|EDD|EDC|DOS|vom|am|seit|bis"
        r"|le|du|depuis):?\s+\d{1,2}[/.]\d{1,2}\.?(?![\d./%]|\s*(?:mm|cm|ml|mg|mmHg))",
        # 14.03. with both points; b. 1956, *1956
        rf"{_START}(?:3[01]|[12]\d|0[1-9])\.(?:1[0-2]|0[1-9])\.(?![\w.])",
        r"(?:\bb\.|(?<!\w)[*\u2020])\s?(?:18|19|20)\d\d(?!\w)",
        # since 2015
        rf"\b(?:in|since|from|until|of|year|dated?|seit|aus|von|bis|Jahr|im\s+Jahr|depuis|en|année|anno|dal|Q[1-4]"
        rf"|prior|KW\s?\d\d?)"
        rf"[\s/]+{_YEAR}(?![\d.,]|\s*(?:mm|cm|ml|ms|mg|mGy|kV|mA|HU|x))",
        rf"[(\[]{_YEAR}[)\]]",
        rf"^\s*{_YEAR}\s*$",
        _OTHER_MONTH,
        rf"\b{_WEEKDAY}\b",
        rf"(?:\b(?:at|um|gegen|à|@)\s+)?{_START}{_CLOCK}(?![\d:]|\s*(?:o'?.?clock|position))",
        r"\b(?:at|um|gegen|à|@)\s+(?P<h>1[0-2]|0?[1-9])\s?(?P<ap>[ap])\.?m\b\.?",
        r"(?<![\w.])(?P<h>1[0-2]|0?[1-9])\s?(?P<ap>[ap])\.?m\b\.?",
        r"\b(?:[01]?\d|2[0-4])\s?Uhr\b|\b\d{4}\s?(?:hrs|hours|h)\b",
    )
)
"""Spellings in the order they are looked for, and whether a month's name is in all that one of them finds."""

_WEEKDAY_FIRST: Final = re.compile(rf"^\s*(?:{_WEEKDAY}|{_DAY_ABBREVIATION})\b[.,]?\s*", _FLAGS)
_MONTH_NAME: Final = caseless(_ANY_MONTH)
_GATE: Final = caseless(
    rf"\d\s?[-/.:_h]\s?[\dIVX]|\d\s[IVX]{{1,4}}\s\d|(?:18|19|20)\d\d|\d\s?[ap]\.?m|\bUhr|\d{{4}}\s?h|\b{_WEEKDAY}\b"
)
_MONTH_GATE: Final = caseless(
    rf"\d\W*(?:\w\w\W|of\s|de\s)?{_ANY_MONTH}|{_ANY_MONTH}\W*\d|{_ORDINAL}\W+(?:of\W+)?{_ANY_MONTH}|{_ANY_MONTH}\W+"
    rf"(?:the\W+)?{_ORDINAL}"
)
"""What every date or time has some of, those with a month's name apart: a text without it has none."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A date or time found in a text: where, and what stands there instead (None: nothing)."""

    start: int
    end: int
    instead: str | None


def moments(text: str, shift: timedelta | None, earliest: date, known: frozenset[str]) -> Iterator[Moment]:
    """Dates and times of ``text``, in order and without overlap.

    A day and month that could change places (``03/04/2021``) are told apart by the patient's other dates and by the
    separator's use in the text; when that does not decide they are taken out rather than moved wrongly.

    Args:
        text: any text.
        shift: how far to move; None takes all out.
        earliest: dates before it are taken out.
        known: dates of the patient as ``YYYYMMDD``.
    """
    low = lowered(text)
    has_month = _MONTH_NAME.search(low) is not None
    if not _GATE.search(low) and not (has_month and _MONTH_GATE.search(low)):
        return
    taken = bytearray(len(text))
    found = []
    first_field = _order(text)
    for pattern, needs_month in _PATTERNS:
        for match in pattern.finditer(text) if has_month or not needs_month else ():
            start, end = match.span()
            if any(taken[start:end]):
                continue
            if pattern is _CLOCK_PATTERN and not _is_clock(match):
                continue
            if pattern is _OTHER_MONTH_PATTERN and is_clinical(plain(match["word"])):
                continue
            taken[start:end] = b"\1" * (end - start)
            new = None if shift is None else _moved(match, shift, earliest, known, first_field)
            found.append(Moment(start, end, new))
    yield from sorted(found, key=lambda moment: moment.start)


_CLOCK_PATTERN: Final = _PATTERNS[-4][0]
_OTHER_MONTH_PATTERN: Final = next(pattern for pattern, _ in _PATTERNS if pattern.pattern == _OTHER_MONTH)
_NUMERIC: Final = re.compile(r"(?<!\d)(\d{1,2})([-/._])(\d{1,2})\2(?:\d{4}|\d\d)(?!\d)")


def _is_clock(match: re.Match[str]) -> bool:
    """A point between two numbers makes a decimal, not a time, unless something says so."""
    text = match[0].casefold()
    return ":" in text or match["ap"] is not None or "uhr" in text or ("h" in text and "." not in text)


def _order(text: str) -> str:
    """``day`` or ``month``: what the numeric dates of the text begin with, where one of them shows it."""
    orders = set()
    for match in _NUMERIC.finditer(text):
        first, second = int(match[1]), int(match[3])
        if first > 12 >= second:
            orders.add("day")
        elif second > 12 >= first:
            orders.add("month")
    return orders.pop() if len(orders) == 1 else ""


def _moved(
    match: re.Match[str], shift: timedelta, earliest: date, known: frozenset[str], first_field: str
) -> str | None:
    parts = match.groupdict()
    if parts.get("y") is None:
        return _moved_clock(match, shift, earliest) if parts.get("h") else None
    day, month, names = _day_and_month(parts, known, first_field)
    if month is None and "a" not in parts:
        moved_year = shift_datetime(parts["y"], shift, earliest)
        return _rewritten(match, {"y": moved_year}) if moved_year else None
    if month is None:
        return None
    year = _full_year(parts["y"])
    clock = _clock_text(parts)
    text = f"{year:04d}{month:02d}{day or 15:02d}"
    moved = shift_date(text, clock, shift, earliest)
    if moved is None:
        return None
    new = {"y": moved[:4], names[1]: moved[4:6], names[0]: moved[6:]}
    if clock:
        moved_clock = shift_time(clock, text, shift, earliest)
        if moved_clock is None:
            return None
        new |= _clock_parts(moved_clock, parts)
    return _rewritten(match, new)


def _day_and_month(
    parts: dict[str, str | None], known: frozenset[str], first_field: str
) -> tuple[int | None, int | None, tuple[str, str]]:
    """Day, month and the names of their groups; no month when they cannot be told apart."""
    if "a" not in parts:
        day = int(parts.get("d") or 0) or None
        if parts.get("mon"):
            return day, _MONTHS[plain(parts["mon"] or "")], ("d", "mon")
        return day, int(parts.get("m") or 0) or None, ("d", "m")
    first, second = int(parts["a"] or 0), int(parts["b"] or 0)
    orders = [(first, second, ("a", "b")), (second, first, ("b", "a"))]
    possible = [order for order in orders if 1 <= order[0] <= 31 and 1 <= order[1] <= 12]
    if len(possible) == 2 and first != second:
        possible = _likelier(possible, _full_year(parts["y"] or ""), parts["sep"] or "", known, first_field)
    return possible[0] if possible else (None, None, ("a", "b"))


def _likelier(
    orders: list[tuple[int, int, tuple[str, str]]], year: int, separator: str, known: frozenset[str], first_field: str
) -> list[tuple[int, int, tuple[str, str]]]:
    """Which of day-first and month-first is meant: by the patient's dates, the text's other dates, the separator."""
    found = [order for order in orders if f"{year:04d}{order[1]:02d}{order[0]:02d}" in known]
    if len(found) == 1:
        return found
    if first_field:
        return orders[:1] if first_field == "day" else orders[1:]
    return orders[:1] if "." in separator else []  # a point is never written between month and day


def _full_year(text: str) -> int:
    year = int(text.lstrip("'\u2019"))
    return year if year >= 100 else year + (2000 if year < 50 else 1900)


def _clock_text(parts: dict[str, str | None]) -> str:
    """The time of day as a TM, or nothing."""
    if not parts.get("h"):
        return ""
    hour = int(parts["h"] or 0)
    if parts.get("ap"):
        hour = hour % 12 + (12 if (parts["ap"] or "").casefold() == "p" else 0)
    fraction = f".{parts['f']}" if parts.get("f") else ""
    return f"{hour % 24:02d}{parts.get('mi') or '00'}{parts.get('s') or '00'}{fraction}"


def _clock_parts(moved: str, parts: dict[str, str | None]) -> dict[str, str]:
    new = {"h": moved[:2], "mi": moved[2:4], "s": moved[4:6], "f": moved[7:]}
    if parts.get("ap"):
        hour = int(moved[:2])
        new["h"], new["ap"] = f"{hour % 12 or 12:02d}", "p" if hour >= 12 else "a"
    return new


def _moved_clock(match: re.Match[str], shift: timedelta, earliest: date) -> str | None:
    parts = match.groupdict()
    moved = shift_time(_clock_text(parts), "", shift, earliest)
    return _rewritten(match, _clock_parts(moved, parts)) if moved else None


def _rewritten(match: re.Match[str], new: dict[str, str]) -> str:
    """The matched text with the groups' values in the width and spelling of the old ones; a weekday goes."""
    text, begin = match[0], match.start()
    parts = match.groupdict()
    names = [name for name in new if parts.get(name) is not None]
    pieces = sorted((match.start(name) - begin, match.end(name) - begin, name) for name in names)
    out, position = [], 0
    for start, end, name in pieces:
        out += [text[position:start], _spelled(name, new[name], text[start:end])]
        position = end
    return _WEEKDAY_FIRST.sub("", "".join([*out, text[position:]]))


def _spelled(name: str, value: str, old: str) -> str:
    if name == "mon":
        return _month_name(int(value), old)
    if name == "y":
        return value if len(old) == 4 else old[:-2] + value[2:]
    if name == "ap":
        return value.upper() if old.isupper() else value
    return value if name == "f" or len(old) == 2 else str(int(value))


def _month_name(month: int, old: str) -> str:
    """The name of a month in the language, length and case of another month's name."""
    folded = plain(old)
    for table in _MONTH_TABLES:
        for names in table:
            if folded in map(plain, names):
                return _cased(names[month - 1], old)
    return _cased(_MONTH_TABLES[0][1][month - 1], old)


def _cased(name: str, old: str) -> str:
    if old.isupper():
        return name.upper()
    return name.lower() if old.islower() else name.capitalize()
