"""Dates and times moved by a fixed amount, in the text forms of DICOM (PS3.5 Table 6.2-1: DA, TM, DT).

Owns parsing and writing of DA, TM and DT. Contains no keys and no knowledge of attributes except which date belongs to
which time. A text that is not a legal value gives None, never the text itself.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import Final

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.tag import BaseTag, Tag

NOON: Final = time(12)
"""The time of day of a date whose time is missing: the middle of what it can be."""

LATEST: Final = date(2099, 12, 30)
"""Later dates are placeholders (20991231, 99991231): no image has them, and shifted they give the shift away."""

_DA: Final = re.compile(r"(\d{4})(\d{2})(\d{2})|(\d{4})\.(\d{2})\.(\d{2})", re.ASCII)
_TM: Final = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(?:\.(\d{1,6}))?)?)?", re.ASCII)
_DT: Final = re.compile(
    r"(\d{4})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:\.(\d{1,6}))?)?)?)?)?)?(?:[+-]\d{4})?", re.ASCII
)
_DT_MIDDLE: Final = (0, 7, 15, 12, 30, 30)
_TM_MIDDLE: Final = (0, 30, 30)


@lru_cache(maxsize=1024)
def partner(keyword: str) -> BaseTag | None:
    """The tag of the TM that belongs to a DA and the other way round (``StudyDate`` and ``StudyTime``), or None."""
    for word, other, vr in (("Date", "Time", "TM"), ("Time", "Date", "DA")):
        candidate = keyword.replace(word, other) if word in keyword else ""
        tag = tag_for_keyword(candidate) if candidate else None
        if tag is not None and dictionary_VR(tag) == vr:
            return Tag(tag)
    return None


def shift_date(text: str, time_text: str, shift: timedelta, earliest: date) -> str | None:
    """Move a DA by ``shift``, taking the time of day from its TM (noon when that is missing or not legal).

    Returns:
        ``YYYYMMDD``, or None when ``text`` is not a date or lies before ``earliest`` or behind `LATEST`.

    >>> shift_date("20240301", "003000", -timedelta(hours=1), date(1970, 1, 1))
    '20240229'
    """
    moved = _moment(text, time_text, shift, earliest)
    return f"{moved:%Y%m%d}" if moved else None


def shift_time(text: str, date_text: str, shift: timedelta, earliest: date) -> str | None:
    """Move a TM by ``shift``, with the precision it has; without a date it moves around the clock.

    Returns:
        ``HH`` to ``HHMMSS.FFFFFF``, or None when ``text`` is not a time, or ``date_text`` is a date that is not moved
        (a placeholder's midnight would give the shift away).
    """
    match = _TM.fullmatch(text.strip())
    clock = _time(text)
    if match is None or clock is None:
        return None
    moved = _moment(date_text, text, shift, earliest)
    if moved is None and date_text.strip():
        return None
    moved = moved or datetime.combine(date(2000, 1, 1), clock) + shift
    return _precise(f"{moved:%H%M%S%f}", sum(group is not None for group in match.groups()), match[4])


def shift_datetime(text: str, shift: timedelta, earliest: date) -> str | None:
    """Move a DT by ``shift``, with the precision it has and without its offset from UTC.

    The wall clock moves, as it does for DA and TM, so that all values of one object keep their distances; the offset
    would name the region.

    Returns:
        ``YYYY`` to ``YYYYMMDDHHMMSS.FFFFFF``, or None when ``text`` is not a moment or lies before ``earliest`` or
        behind `LATEST`.
    """
    match = _DT.fullmatch(text.strip())
    if match is None:
        return None
    fields = [int(group) if group else middle for group, middle in zip(match.groups(), _DT_MIDDLE, strict=False)]
    try:
        clock = time(fields[3], fields[4], min(fields[5], 59), _microseconds(match[7]))
        moment = datetime.combine(date(fields[0], fields[1], fields[2]), clock)
        if not earliest <= moment.date() <= LATEST:
            return None
        moved = moment + shift
    except (ValueError, OverflowError):
        return None
    fields_below_year = sum(group is not None for group in match.groups()) - 1
    return f"{moved:%Y}" + _precise(f"{moved:%m%d%H%M%S%f}", fields_below_year, match[7])


def raw_date(text: str) -> str | None:
    """The ``YYYYMMDD`` a DA or DT text begins with, or None."""
    digits = text.strip().replace(".", "")[:8]
    return digits if len(digits) == 8 and digits.isascii() and digits.isdigit() else None


def _moment(text: str, time_text: str, shift: timedelta, earliest: date) -> datetime | None:
    match = _DA.fullmatch(text.strip())
    if match is None:
        return None
    try:
        day = date(*(int(group) for group in match.groups() if group is not None))
        if not earliest <= day <= LATEST:
            return None
        return datetime.combine(day, _time(time_text) or NOON) + shift
    except (ValueError, OverflowError):
        return None


def _time(text: str) -> time | None:
    match = _TM.fullmatch(text.strip())
    if match is None:
        return None
    hour, minute, second = (
        int(group) if group else middle for group, middle in zip(match.groups()[:3], _TM_MIDDLE, strict=True)
    )
    try:
        return time(hour, minute, min(second, 59) if second <= 60 else second, _microseconds(match[4]))
    except ValueError:
        return None


def _microseconds(fraction: str | None) -> int:
    return int((fraction or "0").ljust(6, "0"))


def _precise(digits: str, fields: int, fraction: str | None) -> str:
    """The first two-digit fields of ``digits``, whose last six are microseconds, with the old fraction's length."""
    if fraction is None:
        return digits[: 2 * fields]
    whole = len(digits) - 6
    return f"{digits[:whole]}.{digits[whole : whole + len(fraction)]}"
