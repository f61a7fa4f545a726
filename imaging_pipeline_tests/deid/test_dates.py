from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging_pipeline.deid.dates import partner, shift_date, shift_datetime, shift_time

EARLIEST = date(1970, 1, 1)
SHIFTS = st.integers(1, 3650 * 86400).map(lambda seconds: -timedelta(seconds=seconds))
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2099, 12, 30, 23, 59))  # noqa: DTZ001  # DICOM's wall clock


@given(MOMENTS, MOMENTS, SHIFTS)
def test_distances_between_moments_are_kept(first: datetime, second: datetime, shift: timedelta) -> None:
    moved = []
    for moment in (first, second):
        day, clock = f"{moment:%Y%m%d}", f"{moment:%H%M%S.%f}"
        text = (shift_date(day, clock, shift, EARLIEST) or "") + (shift_time(clock, day, shift, EARLIEST) or "")
        assert shift_datetime(day + clock, shift, EARLIEST) == text
        moved.append(datetime.strptime(text, "%Y%m%d%H%M%S.%f"))  # noqa: DTZ007  # as above
    assert moved[0] - moved[1] == first - second


@pytest.mark.parametrize(
    "text",
    ["", "2020", "20201301", "20200230", "0000", "2020010A", "19000101", "20200101-20200202", "20991231", "99991231"],
)
def test_what_is_no_plausible_date_gives_nothing(text: str) -> None:
    assert shift_date(text, "101010", timedelta(days=-1), EARLIEST) is None


@pytest.mark.parametrize("text", ["", "25", "1", "10:70", "noon", "101010.1234567", "1010-1100"])
def test_what_is_no_time_gives_nothing(text: str) -> None:
    assert shift_time(text, "", timedelta(days=-1), EARLIEST) is None


@pytest.mark.parametrize("day", ["19000101", "99991231", "unknown"])
def test_the_time_of_a_placeholder_date_gives_nothing(day: str) -> None:
    assert shift_time("000000", day, timedelta(hours=-1), EARLIEST) is None


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("10", "09"),
        ("1030", "0930"),
        ("103015", "093015"),
        ("103015.12", "093015.12"),
        ("10:30:15", "093015"),
        ("003060", "233059"),
    ],
)
def test_a_time_keeps_its_precision_and_goes_round_the_clock(text: str, moved: str) -> None:
    assert shift_time(text, "", timedelta(hours=-1), EARLIEST) == moved


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("2020", "2019"),
        ("202001", "201901"),
        ("20200110", "20190110"),
        ("2020011010", "2019011010"),
        ("20200110101112.123456+0530", "20190110101112.123456"),
        ("20200110101112-0800", "20190110101112"),
        ("1899", None),
        ("99991231235959", None),
        ("20201340", None),
        ("yesterday", None),
    ],
)
def test_a_datetime_keeps_its_precision_and_loses_its_zone(text: str, moved: str | None) -> None:
    assert shift_datetime(text, timedelta(days=-365), EARLIEST) == moved


def test_a_date_without_time_counts_as_noon() -> None:
    assert shift_date("20200110", "", timedelta(hours=-13), EARLIEST) == "20200109"
    assert shift_date("20200110", "2330", timedelta(hours=-13), EARLIEST) == "20200110"


@pytest.mark.parametrize(
    ("keyword", "other"),
    [("StudyDate", "StudyTime"), ("StudyTime", "StudyDate"), ("DateOfSecondaryCapture", "TimeOfSecondaryCapture"),
     ("Date", "Time"), ("ContrastBolusStartTime", None), ("AcquisitionDateTime", None)],
)  # fmt: skip
def test_dates_know_their_times(keyword: str, other: str | None) -> None:
    assert partner(keyword) == other
