"""DICOM text values as Python values: dates, times, ages and identifiers (PS3.5 6.2).

Owns the reading of single values of DA, TM, DT, AS and UI. Contains no element, file or table, and raises
nothing: a value that does not follow its representation is None (or False), never a guess.
"""

from __future__ import annotations

import datetime as dt
import re

DAYS_PER_YEAR = 365.25
"""Mean year of the Julian calendar, used for ages in days and weeks."""

MAX_UID_CHARACTERS = 64
"""Longest UID (PS3.5 9.1)."""

_LEAP_SECOND = 60
_MINUTES_PER_HOUR = 60
_MAX_OFFSET = dt.timedelta(hours=14)
_MIN_OFFSET = dt.timedelta(hours=-12)
_UNITS_PER_YEAR = {"D": DAYS_PER_YEAR, "W": DAYS_PER_YEAR / 7, "M": 12.0, "Y": 1.0}

_DATE = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})").fullmatch
_OLD_DATE = re.compile(r"([0-9]{4})\.([0-9]{2})\.([0-9]{2})").fullmatch
_TIME = re.compile(r"([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:\.([0-9]{1,6}))?)?)?").fullmatch
_OLD_TIME = re.compile(r"([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,6}))?)?").fullmatch
_DATETIME = re.compile(r"([0-9]{8})([0-9]{2}[0-9.]*)?([+-][0-9]{4})?").fullmatch
_OFFSET = re.compile(r"([+-])([0-9]{2})([0-9]{2})").search
_AGE = re.compile(r"([0-9]{3})([DWMY])").fullmatch
_UID = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))+").fullmatch


def parse_date(text: str | None) -> dt.date | None:
    """Read a DA value, ``YYYYMMDD``, or ``YYYY.MM.DD`` of ACR-NEMA (PS3.5 6.2, DA).

    >>> parse_date("20240229")
    datetime.date(2024, 2, 29)
    >>> parse_date("2024.02.29")
    datetime.date(2024, 2, 29)
    >>> parse_date("20230229") is None
    True
    """
    text = _stripped(text)
    match = _DATE(text) or _OLD_DATE(text)
    if match is None:
        return None
    try:
        return dt.date(*map(int, match.groups()))
    except ValueError:
        return None


def parse_time(text: str | None) -> dt.time | None:
    """Read a TM value, ``HH[MM[SS[.F]]]`` with up to six digits of fraction, or ``HH:MM:SS`` of ACR-NEMA.

    The parts that are left out count as zero; a leap second (``60``) is the last microsecond before the next
    minute (PS3.5 6.2, TM).

    >>> parse_time("1030")
    datetime.time(10, 30)
    >>> parse_time("103059.5")
    datetime.time(10, 30, 59, 500000)
    >>> parse_time("2500") is None
    True
    """
    text = _stripped(text)
    match = _TIME(text) or _OLD_TIME(text)
    if match is None:
        return None
    hour, minute, second, fraction = match.groups()
    seconds, microseconds = int(second or 0), int((fraction or "").ljust(6, "0"))
    if seconds == _LEAP_SECOND:
        seconds, microseconds = 59, 999_999
    try:
        return dt.time(int(hour), int(minute or 0), seconds, microseconds)
    except ValueError:
        return None


def parse_datetime(text: str | None) -> dt.datetime | None:
    """Read a DT value with at least a full date as local time without zone (PS3.5 6.2, DT).

    The offset from UTC does not move the clock; ``utc_offset`` gives it.

    >>> parse_datetime("20240229103059.25+0200")
    datetime.datetime(2024, 2, 29, 10, 30, 59, 250000)
    >>> parse_datetime("20240229")
    datetime.datetime(2024, 2, 29, 0, 0)
    >>> parse_datetime("202402") is None
    True
    """
    match = _DATETIME(_stripped(text))
    if match is None:
        return None
    day, clock, offset = match.groups()
    date = parse_date(day)
    time = parse_time(clock) if clock else dt.time()
    if date is None or time is None or (offset and utc_offset(offset) is None):
        return None
    return dt.datetime.combine(date, time)


def utc_offset(text: str | None) -> dt.timedelta | None:
    """Read the offset from UTC, ``&ZZXX``, at the end of a DT value or alone, as in (0008,0201).

    Offsets lie between -1200 and +1400, and ``-0000`` is not allowed (PS3.5 6.2, DT).

    >>> utc_offset("20240229103059+0530")
    datetime.timedelta(seconds=19800)
    >>> utc_offset("20240229") is None
    True
    """
    match = _OFFSET(_stripped(text)[-5:])
    if match is None or match[0] == "-0000" or int(match[3]) >= _MINUTES_PER_HOUR:
        return None
    offset = dt.timedelta(hours=int(match[2]), minutes=int(match[3])) * (-1 if match[1] == "-" else 1)
    return offset if _MIN_OFFSET <= offset <= _MAX_OFFSET else None


def age_years(text: str | None) -> float | None:
    """Read an AS value, ``nnnD``, ``nnnW``, ``nnnM`` or ``nnnY``, in years (PS3.5 6.2, AS).

    >>> age_years("018M")
    1.5
    >>> age_years("42Y") is None
    True
    """
    match = _AGE(_stripped(text))
    return int(match[1]) / _UNITS_PER_YEAR[match[2]] if match else None


def is_uid(text: str | None) -> bool:
    """Tell whether a text is a UID: numbers without leading zeros between dots, 64 characters at most.

    A root alone (``1``) identifies nothing and is no UID (PS3.5 9.1).

    >>> is_uid("1.2.840.10008.1.2"), is_uid("1.02.3"), is_uid("1.2.")
    (True, False, False)
    """
    return text is not None and len(text) <= MAX_UID_CHARACTERS and _UID(text) is not None


def _stripped(text: str | None) -> str:
    """The text without its padding."""
    return (text or "").strip(" \0")
