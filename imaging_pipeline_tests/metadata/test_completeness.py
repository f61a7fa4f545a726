"""When a study is complete, and what opens it again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.changes import read_changes
from imaging_pipeline.metadata.completeness import StudyCounts, publish_study_state, settle_studies
from imaging_pipeline.metadata.silver import load_silver
from imaging_pipeline.objects.model import key_of
from imaging_pipeline_tests.metadata.headers import SEEN, Made, memory_lake, put

FIRST, SECOND = Made("b1", "one", "1.2"), Made("b2", "two", "1.3")


@pytest.fixture
def lake() -> Iterator[Lake]:
    with memory_lake("identified") as made:
        yield made


@pytest.fixture
def research() -> Iterator[Lake]:
    with memory_lake("research") as made:
        yield made


def load(lake: Lake, *objects: Made) -> None:
    for batch in dict.fromkeys(made.batch for made in objects):
        put(lake, batch, [made for made in objects if made.batch == batch])
        load_silver(lake, batch)


def after(seconds: float) -> datetime:
    """A moment after the first object was seen."""
    return SEEN + timedelta(seconds=seconds)


def late(made: Made, seconds: float) -> Made:
    return replace(made, seen=after(seconds))


def settle(lake: Lake, seconds: float, *, everything: bool = False) -> StudyCounts:
    return settle_studies(lake, after(seconds), quiet_seconds=300, limit_seconds=3600, everything=everything)


def states(lake: Lake) -> list[tuple[object, ...]]:
    return lake.rows("SELECT state, is_forced, revision, instances FROM silver.study_state ORDER BY ALL")


def told(lake: Lake, schema: str = "silver") -> list[object]:
    return [row["action"] for row in read_changes(lake, schema, 0, 100) if row["sop_instance_uid"] is None]


def test_a_study_is_complete_once_nothing_has_come_for_a_while(lake: Lake) -> None:
    load(lake, FIRST, late(SECOND, 100))
    assert settle(lake, 399) == StudyCounts(open=1, completed=0, reopened=0, forced=0)
    assert states(lake) == [("OPEN", False, 0, 2)]
    assert settle(lake, 400) == StudyCounts(open=0, completed=1, reopened=0, forced=0)
    assert states(lake) == [("COMPLETE", False, 0, 2)]
    assert told(lake) == ["complete"]


def test_a_moment_with_a_time_zone_is_the_same_moment(lake: Lake) -> None:
    load(lake, FIRST)
    assert settle_studies(lake, after(300).replace(tzinfo=UTC)).completed == 1


def test_settling_again_writes_nothing(lake: Lake) -> None:
    load(lake, FIRST)
    settle(lake, 300)
    rows, feed = lake.rows("FROM silver.study_state"), lake.rows("FROM silver.change_feed")
    assert settle(lake, 9000) == StudyCounts(open=0, completed=0, reopened=0, forced=0)
    assert lake.rows("FROM silver.study_state") == rows
    assert lake.rows("FROM silver.change_feed") == feed


def test_a_study_that_never_gets_quiet_is_completed_by_force(lake: Lake) -> None:
    load(lake, FIRST, late(SECOND, 3590))
    assert settle(lake, 3599).open == 1
    assert settle(lake, 3600) == StudyCounts(open=0, completed=1, reopened=0, forced=1)
    assert states(lake) == [("COMPLETE", True, 0, 2)]


def test_the_limit_counts_from_the_last_completion(lake: Lake) -> None:
    load(lake, FIRST)
    settle(lake, 300)
    load(lake, late(SECOND, 4000))
    assert settle(lake, 4001) == StudyCounts(open=1, completed=0, reopened=1, forced=0)
    assert settle(lake, 4300) == StudyCounts(open=0, completed=1, reopened=0, forced=0)
    assert states(lake) == [("COMPLETE", False, 1, 2)]
    assert told(lake) == ["complete", "reopen", "complete"]


def test_an_image_that_was_seen_in_time_and_loaded_late_opens_the_study(lake: Lake) -> None:
    load(lake, FIRST)
    settle(lake, 300)
    load(lake, late(SECOND, 10))
    assert settle(lake, 310) == StudyCounts(open=0, completed=1, reopened=1, forced=0)
    assert states(lake) == [("COMPLETE", False, 1, 2)]
    assert told(lake) == ["complete", "reopen", "complete"]


def test_other_content_opens_a_study_and_a_copy_or_a_deletion_does_not(lake: Lake) -> None:
    load(lake, FIRST, SECOND)
    settle(lake, 300)
    load(lake, late(replace(FIRST, batch="b3"), 1000))
    assert settle(lake, 1001) == StudyCounts(open=0, completed=0, reopened=0, forced=0)
    load(lake, replace(SECOND, deleted=True))
    assert settle(lake, 1002).reopened == 0
    assert states(lake) == [("COMPLETE", False, 0, 1)]
    load(lake, replace(FIRST, batch="b4", content="other"))
    assert settle(lake, 1003).reopened == 1


def test_a_restored_image_opens_its_study(lake: Lake) -> None:
    load(lake, FIRST, SECOND)
    settle(lake, 300)
    load(lake, replace(SECOND, deleted=True))
    settle(lake, 400)
    load(lake, SECOND)
    assert settle(lake, 401).reopened == 1


def test_a_load_that_is_over_completes_everything_at_once(lake: Lake) -> None:
    load(lake, FIRST, replace(SECOND, study="2"))
    assert settle(lake, 1, everything=True) == StudyCounts(open=0, completed=2, reopened=0, forced=0)
    assert states(lake) == [("COMPLETE", False, 0, 1), ("COMPLETE", False, 0, 1)]


class Keys:
    """Research UIDs that are easy to read."""

    def uid(self, original: str) -> str:
        return f"2.25.9{original[5:]}"


def release(research: Lake, study: str, instances: int) -> None:
    """The study's row as the release leaves it."""
    uid = Keys().uid(f"2.25.{study}")
    row: dict[str, object] = {
        "study_key": key_of(uid),
        "patient_key": "patient",
        "study_instance_uid": uid,
        "number_of_study_related_instances": instances,
        "arrival_batch": "b1",
        "row_version": "b1",
    }
    with research.transaction():
        rows = registry.table("dicom_study").rows([row])
        research.replace_all("deid", "dicom_study", rows, where="study_key = ?", parameters=[key_of(uid)])


def published(research: Lake) -> list[tuple[object, ...]]:
    return research.rows("SELECT study_instance_uid, state, revision, instances FROM deid.study_state ORDER BY ALL")


def test_research_learns_the_state_of_released_studies_and_no_time(lake: Lake, research: Lake) -> None:
    load(lake, FIRST, replace(SECOND, study="2"))
    settle(lake, 300)
    release(research, "1", 1)
    publish_study_state(lake, research, Keys())
    assert published(research) == [("2.25.91", "COMPLETE", 0, 1)]
    times = "first_arrival_at, last_arrival_at, settled_at, content_sha256"
    assert research.rows(f"SELECT {times} FROM deid.study_state") == [(None, None, None, None)]
    assert told(research, "deid") == ["complete"]
    rows = research.rows("FROM deid.study_state")
    publish_study_state(lake, research, Keys())
    assert research.rows("FROM deid.study_state") == rows


def test_a_late_image_opens_the_published_study_even_before_it_is_settled_again(lake: Lake, research: Lake) -> None:
    load(lake, FIRST)
    settle(lake, 300)
    release(research, "1", 1)
    publish_study_state(lake, research, Keys())
    load(lake, late(SECOND, 500))
    release(research, "1", 2)
    publish_study_state(lake, research, Keys())
    assert published(research) == [("2.25.91", "OPEN", 0, 2)]
    settle(lake, 800)
    publish_study_state(lake, research, Keys())
    assert published(research) == [("2.25.91", "COMPLETE", 1, 2)]
    assert told(research, "deid") == ["complete", "reopen", "complete"]


def test_a_withdrawn_study_has_no_state(lake: Lake, research: Lake) -> None:
    load(lake, FIRST)
    settle(lake, 300)
    release(research, "1", 1)
    publish_study_state(lake, research, Keys())
    with research.transaction():
        research.connection.execute("DELETE FROM deid.dicom_study")
    publish_study_state(lake, research, Keys())
    assert published(research) == []
