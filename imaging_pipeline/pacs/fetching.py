"""One round of a retrieval: look what a server has, and fetch what did not come yet, within its hours and rate.

Owns the order of steps and what is resumed. A round may be killed anywhere; the next goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.pacs.cohort import read_cohort
from imaging_pipeline.pacs.config import NewStudies, Retrieval
from imaging_pipeline.pacs.server import STUDY_DATE, Offered, StudyServer
from imaging_pipeline.pacs.studies import StudyLedger

FULL_LOOK_SECONDS = 7 * 86_400.0
"""How often all days are asked for again: studies with an old date come when films are scanned or archives move."""

COHORT_LOOK_SECONDS = 86_400.0
"""How often the studies of a cohort are asked for again; at once when the file has changed."""


@dataclass(slots=True)
class Round:
    """What one round did.

    Attributes:
        offered: studies the server has, as far as it was asked.
        fetched: studies that came whole.
        incomplete: studies of which something did not come; they are asked for again later.
        instances: that came.
        unknown: identifiers of the cohort that the server has no study of, when it was asked for them.
        stopped: why it ended before everything was done, or empty.
    """

    offered: int = 0
    fetched: int = 0
    incomplete: int = 0
    instances: int = 0
    unknown: int = 0
    stopped: str = ""

    @property
    def is_complete(self) -> bool:
        """Nothing that was due is left."""
        return not self.incomplete and not self.stopped

    def __str__(self) -> str:
        said = f"{self.offered} studies offered; {self.fetched} came whole, {self.incomplete} did not"
        said += f"; {self.instances} instances"
        said += f"; {self.unknown} identifiers of the cohort are unknown there" if self.unknown else ""
        return said + (f"; {self.stopped}" if self.stopped else "")


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, as a round sees it.

    Attributes:
        now: aware; its own time zone is that of hours and study dates.
        sleep: waits for some seconds.
        deadline: aware; no study is begun after it. None: no limit.
    """

    now: Callable[[], datetime]
    sleep: Callable[[float], None]
    deadline: datetime | None = None


def fetch_round(retrieval: Retrieval, server: StudyServer, ledger: StudyLedger, clock: Clock) -> Round:
    """Look, then fetch, until nothing is due.

    A study whose server fails is passed over and asked for again later; one server that is silent ends the round.

    Raises:
        ConfigurationError: the cohort cannot be read, or the server does not let us in.
        TransientError: the server does not answer the search.
    """
    done = Round()
    if not _is_allowed(retrieval, clock):
        done.stopped = "outside its hours"
        return done
    done.offered, done.unknown = _look(retrieval, server, ledger, clock)
    failures = 0
    while (study_uid := ledger.next_due(retrieval.name, clock.now().timestamp())) is not None:
        done.stopped = _wait(retrieval, ledger, clock)
        if done.stopped:
            break
        ledger.start(retrieval.name, study_uid, clock.now().timestamp())
        try:
            fetched = server.fetch(study_uid)
        except TransientError as error:
            done.incomplete += 1
            failures += 1
            if failures == _FAILURES_IN_A_ROW:
                raise TransientError(f"{done}; {failures} studies in a row failed, the last because {error}") from error
            continue
        failures = 0
        if not fetched.failed:  # the numbers may agree by chance: a server need not count what it cannot send
            ledger.finish(retrieval.name, study_uid, fetched.received)
        done.instances += fetched.received
        done.fetched += not fetched.failed
        done.incomplete += bool(fetched.failed)
    return done


_FAILURES_IN_A_ROW = 3


def _look(retrieval: Retrieval, server: StudyServer, ledger: StudyLedger, clock: Clock) -> tuple[int, int]:
    """How many studies were offered, and how many identifiers of a cohort had no answer."""
    if retrieval.new_studies is not None:
        return _look_for_new(retrieval, retrieval.new_studies, server, ledger, clock), 0
    return _look_for_cohort(retrieval, server, ledger, clock)


def _look_for_new(retrieval: Retrieval, new: NewStudies, server: StudyServer, ledger: StudyLedger, clock: Clock) -> int:
    """Ask day by day, so that no answer is so long that a server cuts it; the days move on when all were answered."""
    now, progress = clock.now(), ledger.progress(retrieval.name)
    is_full = progress.looked_upto is None or _is_older(progress.looked_fully_at, FULL_LOOK_SECONDS, now)
    behind = (progress.looked_upto or new.since) - timedelta(days=new.overlap_days)
    first, last = new.since if is_full else max(new.since, behind), now.date() + timedelta(days=1)
    offered = 0
    for study in server.find({STUDY_DATE: f"{day:%Y%m%d}"} for day in _days(first, last)):
        if _is_wanted(study, new):
            ledger.offer(retrieval.name, study)
            offered += 1
    ledger.set_looked(retrieval.name, now.date(), now.timestamp() if is_full else None)
    return offered


def _look_for_cohort(retrieval: Retrieval, server: StudyServer, ledger: StudyLedger, clock: Clock) -> tuple[int, int]:
    if retrieval.cohort is None:
        raise ConfigurationError(f"retrieval {retrieval.name!r} has neither cohort nor new_studies")
    cohort, now = read_cohort(retrieval.cohort), clock.now()
    name = f"{retrieval.name}/{hashlib.sha256(repr(cohort).encode()).hexdigest()[:16]}"  # another list is another look
    if not _is_older(ledger.progress(name).looked_fully_at, COHORT_LOOK_SECONDS, now):
        return 0, 0
    offered = set()
    asked: list[dict[str, str]] = []
    answered = set()

    def questions() -> Iterator[dict[str, str]]:
        for keyword, values in cohort.items():
            for value in values:
                asked.append({keyword: value})
                yield asked[-1]

    for study in server.find(questions()):  # each question is answered before the next is asked
        ledger.offer(retrieval.name, study)
        offered.add(study.study_uid)
        answered.add(len(asked))
    ledger.keep_offered(retrieval.name, name, offered)
    ledger.set_looked(name, now.date(), now.timestamp())
    return len(offered), len(asked) - len(answered)


def _wait(retrieval: Retrieval, ledger: StudyLedger, clock: Clock) -> str:
    """Wait until the rate allows the next study; says why not, when it must not be begun in this round."""
    started = ledger.progress(retrieval.name).started_at
    pause = 3600 / retrieval.studies_per_hour if retrieval.studies_per_hour and started is not None else 0.0
    seconds = (started or 0.0) + pause - clock.now().timestamp()
    if seconds > 0:
        if clock.deadline is not None and clock.now() + timedelta(seconds=seconds) > clock.deadline:
            return f"no more than {retrieval.studies_per_hour} studies an hour"
        clock.sleep(seconds)
    if clock.deadline is not None and clock.now() > clock.deadline:
        return "its time was used up"
    return "" if _is_allowed(retrieval, clock) else "its hours are over"


def may_go_on(retrieval: Retrieval, clock: Clock) -> bool:
    """Whether a round is in its hours and its time is not used up."""
    return _is_allowed(retrieval, clock) and (clock.deadline is None or clock.now() <= clock.deadline)


def _is_allowed(retrieval: Retrieval, clock: Clock) -> bool:
    return retrieval.hours is None or retrieval.hours.hold(clock.now().time())


def _is_wanted(study: Offered, new: NewStudies) -> bool:
    """A study of which the server does not say what is in it is wanted: none may be missed."""
    return not new.modalities or not study.modalities or bool(study.modalities & set(new.modalities))


def _is_older(moment: float | None, seconds: float, now: datetime) -> bool:
    return moment is None or now.timestamp() - moment >= seconds


def _days(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=number) for number in range((last - first).days + 1))
