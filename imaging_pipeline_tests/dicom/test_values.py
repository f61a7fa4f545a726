"""Text values of PS3.5 6.2, right and wrong ones."""

from __future__ import annotations

import datetime as dt
import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging_pipeline.dicom import values


def test_examples_in_the_documentation_are_true() -> None:
    assert doctest.testmod(values).failed == 0


@pytest.mark.parametrize(
    "text",
    ["", None, "2024", "202413", "20241301", "20240230", "2024-02-03", "2024.2.3", "00000101", "\uff12024010\uff11"],
)
def test_wrong_dates_are_none(text: str | None) -> None:
    assert values.parse_date(text) is None


@given(st.dates())
def test_every_date_is_read_back(day: dt.date) -> None:
    assert values.parse_date(day.isoformat().replace("-", "")) == day
    assert values.parse_date(day.isoformat().replace("-", ".") + " ") == day


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10", dt.time(10)),
        ("1030", dt.time(10, 30)),
        ("103015", dt.time(10, 30, 15)),
        ("103015.1", dt.time(10, 30, 15, 100_000)),
        ("103015.000001 ", dt.time(10, 30, 15, 1)),
        ("10:30:15.25", dt.time(10, 30, 15, 250_000)),
        ("235960", dt.time(23, 59, 59, 999_999)),
    ],
)
def test_times_may_be_partial(text: str, expected: dt.time) -> None:
    assert values.parse_time(text) == expected


@pytest.mark.parametrize("text", ["", None, "1", "24", "1060", "103061", "103015.", "1030.5", "103015.1234567"])
def test_wrong_times_are_none(text: str | None) -> None:
    assert values.parse_time(text) is None


@given(st.datetimes())
def test_every_datetime_is_read_back_with_its_offset(moment: dt.datetime) -> None:
    text = f"{moment.year:04}{moment:%m%d%H%M%S.%f}-0330"
    assert values.parse_datetime(text) == moment
    assert values.utc_offset(text) == -dt.timedelta(hours=3, minutes=30)


@pytest.mark.parametrize("text", ["", None, "2024", "202402", "20240230", "20240229-2500", "20240229.5", "x"])
def test_wrong_datetimes_are_none(text: str | None) -> None:
    assert values.parse_datetime(text) is None


@pytest.mark.parametrize("text", ["", None, "-0000", "+1401", "-1201", "+0060", "0100", "+100"])
def test_wrong_offsets_are_none(text: str | None) -> None:
    assert values.utc_offset(text) is None


@pytest.mark.parametrize(
    ("text", "years"), [("000D", 0.0), ("052W", 52 * 7 / 365.25), ("006M", 0.5), ("090Y", 90.0), ("001Y ", 1.0)]
)
def test_ages_are_in_years(text: str, years: float) -> None:
    assert values.age_years(text) == pytest.approx(years)


@pytest.mark.parametrize("text", ["", None, "90Y", "090", "090y", "0090Y", "-01Y"])
def test_wrong_ages_are_none(text: str | None) -> None:
    assert values.age_years(text) is None


@pytest.mark.parametrize("text", ["", None, "1", "1.", ".1", "1..2", "1.02", "1.2a", "1.2 ", "1." + "2" * 63])
def test_wrong_uids_are_refused(text: str | None) -> None:
    assert not values.is_uid(text)


@pytest.mark.parametrize("text", ["1.2", "0.0", "2.25.0", "1." + "2" * 62])
def test_uids_are_accepted(text: str) -> None:
    assert values.is_uid(text)
