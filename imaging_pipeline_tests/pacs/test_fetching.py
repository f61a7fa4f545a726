"""Rounds against an archive in memory, whose answers and failures a test decides; time is the test's, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.pacs.cohort import read_cohort
from imaging_pipeline.pacs.config import Hours, NewStudies, Retrieval
from imaging_pipeline.pacs.fetching import Clock, Round, fetch_round
from imaging_pipeline.pacs.server import Fetched, Offered
from imaging_pipeline.pacs.studies import Counts, StudyLedger

START = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
NEW = Retrieval("new", "pacs", new_studies=NewStudies(date(2026, 3, 1), overlap_days=2))


@dataclass
class Study:
    day: str
    instances: int
    patient: str = "A"
    modality: str = "CT"


@dataclass
class Archive:
    """What it has, what it was asked, and what it does when it is asked for a study."""

    studies: dict[str, Study] = field(default_factory=dict)
    days_asked: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    on_fetch: Callable[[str], None] = lambda _: None

    def find(self, questions: Iterable[Mapping[str, str]]) -> Iterator[Offered]:
        for asked in questions:
            self.days_asked.append(asked.get("StudyDate", ""))
            for uid, study in self.studies.items():
                has = {"StudyDate": study.day, "PatientID": study.patient, "StudyInstanceUID": uid}
                if all(has[key] == value for key, value in asked.items()):
                    yield Offered(uid, study.instances, frozenset({study.modality}))

    def fetch(self, study_uid: str) -> Fetched:
        self.on_fetch(study_uid)
        self.fetched.append(study_uid)
        return Fetched(self.studies[study_uid].instances)


@dataclass
class Day:
    """A clock that a test sets; sleeping moves it."""

    now: datetime = START
    slept: float = 0.0

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.now += timedelta(seconds=seconds)

    def clock(self, minutes: float | None = None) -> Clock:
        return Clock(lambda: self.now, self.sleep, self.now + timedelta(minutes=minutes) if minutes else None)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[StudyLedger]:
    made = StudyLedger(tmp_path / "identified" / "retrievals.sqlite")
    yield made
    made.close()


@pytest.fixture
def archive() -> Archive:
    return Archive({"1.1": Study("20260301", 10), "1.2": Study("20260309", 20)})


@pytest.fixture
def day() -> Day:
    return Day()


def test_the_first_look_asks_for_each_day_since_the_beginning_and_fetches_each_study_once(
    archive: Archive, ledger: StudyLedger, day: Day
) -> None:
    done = fetch_round(NEW, archive, ledger, day.clock())
    assert archive.days_asked == [f"202603{number:02}" for number in range(1, 12)]
    assert archive.fetched == ["1.1", "1.2"]
    assert done == Round(offered=2, fetched=2, instances=30)
    again = fetch_round(NEW, archive, ledger, day.clock())
    assert archive.fetched == ["1.1", "1.2"]
    assert again == Round(offered=1)
    assert ledger.counts("new") == Counts(complete=2, waiting=0, failing=0)


def test_later_looks_reach_back_behind_the_last(archive: Archive, ledger: StudyLedger, day: Day) -> None:
    fetch_round(NEW, archive, ledger, day.clock())
    archive.days_asked.clear()
    archive.studies["1.3"] = Study("20260308", 5)  # came to the archive a day late
    day.now += timedelta(days=1)
    fetch_round(NEW, archive, ledger, day.clock())
    assert archive.days_asked == ["20260308", "20260309", "20260310", "20260311", "20260312"]
    assert archive.fetched[-1] == "1.3"


def test_a_study_with_an_old_date_is_found_by_the_weekly_look_at_all_days(
    archive: Archive, ledger: StudyLedger, day: Day
) -> None:
    fetch_round(NEW, archive, ledger, day.clock())
    archive.studies["1.3"] = Study("20260302", 5)
    day.now += timedelta(days=6)
    fetch_round(NEW, archive, ledger, day.clock())
    assert "1.3" not in archive.fetched
    day.now += timedelta(days=1)
    fetch_round(NEW, archive, ledger, day.clock())
    assert archive.fetched[-1] == "1.3"


def test_a_look_that_fails_moves_no_watermark(archive: Archive, ledger: StudyLedger, day: Day) -> None:
    class Broken(Archive):
        def find(self, questions: Iterable[Mapping[str, str]]) -> Iterator[Offered]:
            yield from Archive.find(self, list(questions)[:3])
            raise TransientError("cut off")

    with pytest.raises(TransientError):
        fetch_round(NEW, Broken(archive.studies), ledger, day.clock())
    day.now += timedelta(days=5)
    fetch_round(NEW, archive, ledger, day.clock())
    assert archive.days_asked[0] == "20260301"
    assert archive.fetched == ["1.1", "1.2"]


def test_a_study_that_has_grown_is_fetched_again(archive: Archive, ledger: StudyLedger, day: Day) -> None:
    fetch_round(NEW, archive, ledger, day.clock())
    archive.studies["1.2"].instances = 21
    fetch_round(NEW, archive, ledger, day.clock())
    assert archive.fetched == ["1.1", "1.2", "1.2"]


def test_only_wanted_modalities_are_fetched_and_those_of_which_nothing_is_said(
    archive: Archive, ledger: StudyLedger, day: Day
) -> None:
    archive.studies["1.1"].modality = "US"
    dx = replace(NEW, new_studies=NewStudies(date(2026, 3, 1), 2, ("CT",)))
    fetch_round(dx, archive, ledger, day.clock())
    assert archive.fetched == ["1.2"]


def test_a_study_that_fails_waits_longer_each_time_and_does_not_hold_the_others(
    archive: Archive, ledger: StudyLedger, day: Day
) -> None:
    asked: list[datetime] = []

    def fail(uid: str) -> None:
        if uid == "1.1":
            asked.append(day.now)
            raise TransientError("no")

    archive.on_fetch = fail
    for _ in range(60):
        fetch_round(NEW, archive, ledger, day.clock())
        day.now += timedelta(minutes=1)
    assert archive.fetched == ["1.2"]
    waits = [(later - earlier).total_seconds() for earlier, later in pairwise(asked)]
    assert waits == [300, 600, 1200]
    assert ledger.counts("new") == Counts(complete=1, waiting=0, failing=1)


def test_instances_that_did_not_come_are_asked_for_again(archive: Archive, ledger: StudyLedger, day: Day) -> None:
    class Lossy(Archive):
        def fetch(self, study_uid: str) -> Fetched:
            self.fetched.append(study_uid)
            return Fetched(9, 1)

    lossy = Lossy({"1.1": archive.studies["1.1"]})
    done = fetch_round(NEW, lossy, ledger, day.clock())
    assert (done.incomplete, done.is_complete) == (1, False)
    day.now += timedelta(minutes=6)
    fetch_round(NEW, lossy, ledger, day.clock())
    assert lossy.fetched == ["1.1", "1.1"]


def test_a_round_that_is_killed_goes_on_with_the_other_studies_first(
    archive: Archive, ledger: StudyLedger, day: Day
) -> None:
    def die(uid: str) -> None:
        raise KeyboardInterrupt

    archive.on_fetch = die
    with pytest.raises(KeyboardInterrupt):
        fetch_round(NEW, archive, ledger, day.clock())
    archive.on_fetch = lambda _: None
    fetch_round(NEW, archive, ledger, day.clock())
    assert archive.fetched == ["1.2"]
    day.now += timedelta(minutes=5)
    fetch_round(NEW, archive, ledger, day.clock())
    assert archive.fetched == ["1.2", "1.1"]


def test_a_server_that_fails_study_after_study_is_left_alone(ledger: StudyLedger, day: Day) -> None:
    def fail(_: str) -> None:
        raise TransientError("it is down")

    archive = Archive({f"1.{number}": Study("20260309", 1) for number in range(9)}, on_fetch=fail)
    with pytest.raises(TransientError, match="3 studies in a row failed, the last because it is down"):
        fetch_round(NEW, archive, ledger, day.clock())
    assert ledger.counts("new") == Counts(complete=0, waiting=6, failing=3)


def test_nothing_is_asked_outside_the_hours_and_no_study_begun_after_them(
    archive: Archive, ledger: StudyLedger, day: Day
) -> None:
    night = replace(NEW, hours=Hours(time(20), time(6)))
    assert fetch_round(night, archive, ledger, day.clock()).stopped == "outside its hours"
    assert archive.days_asked == []
    day.now = START.replace(hour=5, minute=59)

    def take_long(_: str) -> None:
        day.now += timedelta(minutes=2)

    archive.on_fetch = take_long
    done = fetch_round(night, archive, ledger, day.clock())
    assert (done.fetched, done.stopped) == (1, "its hours are over")


def test_no_more_studies_an_hour_than_allowed_also_over_rounds(ledger: StudyLedger, day: Day) -> None:
    archive = Archive({f"1.{number}": Study("20260309", 1) for number in range(30)})
    slow = replace(NEW, studies_per_hour=6)
    begun: list[datetime] = []
    archive.on_fetch = lambda _: begun.append(day.now)
    stops = set()
    for _ in range(100):
        stops.add(fetch_round(slow, archive, ledger, day.clock(minutes=25)).stopped)
        day.now += timedelta(minutes=1)
    assert len(begun) == 30
    assert min(later - earlier for earlier, later in pairwise(begun)) >= timedelta(minutes=10)
    assert "no more than 6 studies an hour" in stops


def test_a_cohort_is_asked_for_once_a_day_and_at_once_when_its_file_changes(
    archive: Archive, ledger: StudyLedger, day: Day, tmp_path: Path
) -> None:
    cohort = Retrieval("trial", "pacs", cohort=tmp_path / "trial.csv")
    archive.studies["1.3"] = Study("20200101", 7, patient="B")
    (tmp_path / "trial.csv").write_text("PatientID\nB\n")
    assert fetch_round(cohort, archive, ledger, day.clock()).fetched == 1
    assert fetch_round(cohort, archive, ledger, day.clock()).offered == 0
    (tmp_path / "trial.csv").write_text("PatientID,StudyInstanceUID\nB,\nC,1.1\n")
    assert fetch_round(cohort, archive, ledger, day.clock()).offered == 2
    assert archive.fetched == ["1.3", "1.1"]
    archive.studies["1.4"] = Study("20200101", 7, patient="B")
    day.now += timedelta(days=1)
    fetch_round(cohort, archive, ledger, day.clock())
    assert archive.fetched[-1] == "1.4"


def test_a_study_of_which_something_failed_is_not_whole_though_its_numbers_agree(
    archive: Archive, ledger: StudyLedger, day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PACS need not count what it cannot send."""
    del archive.studies["1.2"]
    monkeypatch.setattr(archive, "fetch", lambda _: Fetched(10, 2))
    done = fetch_round(NEW, archive, ledger, day.clock())
    assert (done.fetched, done.incomplete) == (0, 1)
    assert ledger.counts("new") == Counts(complete=0, waiting=0, failing=1)


def test_a_study_of_which_no_number_is_known_is_fetched(archive: Archive, ledger: StudyLedger, day: Day) -> None:
    archive.studies = {"1.1": Study("20260301", 0)}
    assert fetch_round(NEW, archive, ledger, day.clock()).fetched == 1
    assert archive.fetched == ["1.1"]


def test_who_is_struck_off_a_cohort_is_not_fetched_any_more_and_is_when_named_again(
    archive: Archive, ledger: StudyLedger, day: Day, tmp_path: Path
) -> None:
    def fail(study_uid: str) -> None:
        raise TransientError(study_uid)

    archive.studies = {"1.1": Study("20260301", 10, "A"), "1.2": Study("20260309", 20, "B")}
    cohort = Retrieval("trial", "pacs", cohort=tmp_path / "trial.csv")
    both = "PatientID\nA\nB\n"
    (tmp_path / "trial.csv").write_text(both)
    archive.on_fetch = fail
    fetch_round(cohort, archive, ledger, day.clock())
    archive.on_fetch = lambda _: None
    (tmp_path / "trial.csv").write_text("PatientID\nB\n")
    day.now += timedelta(hours=1)
    fetch_round(cohort, archive, ledger, day.clock())
    assert archive.fetched == ["1.2"]
    (tmp_path / "trial.csv").write_text(both)
    fetch_round(cohort, archive, ledger, day.clock())
    assert archive.fetched == ["1.2", "1.1"]


@pytest.mark.parametrize(("text", "said"), [("PatientID\n \n", "names nobody"), ("Patient\nA\n", "must have one of")])
def test_a_cohort_that_names_nobody_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "trial.csv").write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        read_cohort(tmp_path / "trial.csv")


def test_blanks_in_the_heading_of_a_cohort_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "trial.csv").write_text("StudyInstanceUID, PatientID\n1.2,\n,A\n")
    assert read_cohort(tmp_path / "trial.csv") == {
        "StudyInstanceUID": ("1.2",),
        "AccessionNumber": (),
        "PatientID": ("A",),
    }
