"""The change feed: what it tells, when, and that it is written with the change or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata import silver
from imaging_pipeline.metadata.changes import read_changes
from imaging_pipeline.metadata.silver import VersionPolicy
from imaging_pipeline_tests.metadata.headers import Made, load, memory_lake

ONE = Made("b1", "one", "1.2")


@pytest.fixture
def lake() -> Iterator[Lake]:
    with memory_lake("identified") as made:
        yield made


def told(lake: Lake) -> list[tuple[object, ...]]:
    return [(row["action"], row["state"], row["arrival_batch"]) for row in read_changes(lake, "silver", 0, 100)]


def test_the_life_of_an_instance_is_told_in_order(lake: Lake) -> None:
    load(lake, ONE)
    load(lake, other := replace(ONE, batch="b2", content="other"))
    load(lake, replace(ONE, deleted=True))
    load(lake, replace(other, deleted=True))
    load(lake, ONE)
    assert told(lake) == [
        ("create", "current", "b1"),
        ("update", "current", "b2"),
        ("delete", "deleted", "b2"),
        ("create", "current", "b1"),
    ]
    rows = read_changes(lake, "silver", 0, 100)
    assert [row["sequence"] for row in rows] == [1, 2, 3, 4]
    assert {row["sop_instance_uid"] for row in rows} == {"1.2"}
    assert {row["study_instance_uid"] for row in rows} == {"2.25.1"}


def test_a_rerun_a_copy_and_a_tombstone_that_was_never_alive_tell_nothing(lake: Lake) -> None:
    load(lake, ONE)
    load(lake, ONE)
    load(lake, replace(ONE, batch="b2"))
    load(lake, Made("b3", "gone", "1.9", deleted=True))
    assert told(lake) == [("create", "current", "b1")]


def test_a_conflict_and_its_end_are_told_for_both_contents(lake: Lake) -> None:
    other = replace(ONE, batch="b2", content="other")
    load(lake, ONE, other, policy=VersionPolicy.KEEP_BOTH)
    load(lake, replace(other, deleted=True), policy=VersionPolicy.KEEP_BOTH)
    assert told(lake) == [
        ("create", "current", "b1"),
        ("create", "conflict", "b2"),
        ("update", "conflict", "b2"),
        ("delete", "replaced", "b2"),
        ("update", "current", "b2"),
    ]


def test_an_instance_that_moves_to_another_study_is_deleted_there_and_created_here(lake: Lake) -> None:
    load(lake, ONE, replace(ONE, batch="b2", content="other", study="7"))
    rows = [(row["action"], row["state"], row["study_instance_uid"]) for row in read_changes(lake, "silver", 1, 100)]
    assert rows == [("delete", "replaced", "2.25.1"), ("create", "current", "2.25.7")]


def test_a_reader_takes_up_where_it_left(lake: Lake) -> None:
    load(lake, *(Made("b1", f"n{number}", f"1.{number}") for number in range(1, 6)))
    first = read_changes(lake, "silver", 0, 2)
    rest = read_changes(lake, "silver", 2, 100)
    assert [row["sequence"] for row in first + rest] == [1, 2, 3, 4, 5]


def test_a_load_that_fails_tells_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(silver, "note_versions", killed)
        with pytest.raises(KeyboardInterrupt):
            load(lake, ONE)
    assert told(lake) == []
    assert lake.rows("FROM silver.dicom_instance") == []
    load(lake, ONE)
    assert told(lake) == [("create", "current", "b1")]
