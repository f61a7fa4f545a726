"""What an instance is made from: copies, conflicts and deletions, in any order of batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.merging import ENTITY_TABLES
from imaging_pipeline.metadata.quality import count_placed, count_violations
from imaging_pipeline.metadata.silver import VersionPolicy
from imaging_pipeline_tests.metadata.headers import Made, load, memory_lake

RUN_COLUMNS = {registry.LOADED_AT}


@pytest.fixture
def lake() -> Iterator[Lake]:
    with memory_lake("identified") as made:
        yield made


def instances(lake: Lake) -> list[tuple[object, ...]]:
    return lake.rows("SELECT arrival_batch, version_no, version_state FROM silver.dicom_instance ORDER BY ALL")


def roles(lake: Lake) -> list[tuple[object, ...]]:
    return lake.rows("SELECT arrival_batch, role FROM silver.dicom_file_location ORDER BY ALL")


def issues(lake: Lake) -> list[tuple[object, ...]]:
    return lake.rows("SELECT arrival_batch, issue_code, severity FROM bronze.ingest_issue ORDER BY ALL")


def contents(lake: Lake) -> dict[str, list[str]]:
    """All rows that loading writes, without the time and without the feed, which tells of every step."""
    found = {}
    for name in [*ENTITY_TABLES, "ingest_issue"]:
        schema = "bronze" if name == "ingest_issue" else "silver"
        columns = ", ".join(f'"{c.name}"' for c in registry.table(name).columns if c.name not in RUN_COLUMNS)
        found[name] = sorted(map(repr, lake.rows(f"SELECT {columns} FROM {schema}.{name}")))
    return found


def test_a_vanished_object_leaves_its_copy_in_its_place(lake: Lake) -> None:
    one, copy = Made("b1", "one", "1.2"), Made("b2", "copy", "1.2")
    load(lake, one, copy)
    load(lake, replace(copy, deleted=True))
    assert instances(lake) == [("b1", 1, "CURRENT")]
    assert roles(lake) == [("b1", "ORIGINAL"), ("b2", "DELETED")]
    assert issues(lake) == []
    assert not count_violations(lake, "silver")


def test_an_instance_without_any_object_stays_as_a_tombstone_that_counts_for_nothing(lake: Lake) -> None:
    gone, stays = Made("b1", "gone", "1.2"), Made("b1", "stays", "1.3")
    load(lake, gone, stays)
    load(lake, replace(gone, deleted=True), stays)
    assert instances(lake) == [("b1", 1, "CURRENT"), ("b1", 1, "DELETED")]
    counts = "SELECT number_of_study_related_series, number_of_study_related_instances, study_size_bytes"
    assert lake.rows(f"{counts} FROM silver.dicom_study") == [(1, 1, 1000)]
    load(lake, replace(gone, deleted=True), replace(stays, deleted=True))
    assert lake.rows(f"{counts}, modalities_in_study FROM silver.dicom_study") == [(0, 0, 0, None)]
    assert lake.rows("SELECT number_of_series_related_instances FROM silver.dicom_series") == [(0,)]
    assert count_placed(lake, "b1") == (2, 2, 0)
    assert not count_violations(lake, "silver", "b1")


def test_a_restored_object_is_current_again(lake: Lake) -> None:
    made = Made("b1", "one", "1.2")
    load(lake, made)
    before = contents(lake)
    load(lake, replace(made, deleted=True))
    load(lake, made)
    assert contents(lake) == before


@pytest.mark.parametrize("order", [("b1", "b2"), ("b2", "b1")])
def test_a_deleted_object_loses_against_any_that_is_there(lake: Lake, order: Sequence[str]) -> None:
    made = {"b1": Made("b1", "there", "1.2"), "b2": Made("b2", "gone", "1.2", "other", deleted=True, study="2")}
    load(lake, *(made[batch] for batch in order))
    assert instances(lake) == [("b1", 1, "CURRENT")]
    assert lake.rows("SELECT study_instance_uid FROM silver.dicom_study") == [("2.25.1",)]
    assert not count_violations(lake, "silver")


def test_the_first_bytes_stay_current_when_the_policy_says_so(lake: Lake) -> None:
    first, later = Made("b1", "one", "1.2"), Made("b2", "two", "1.2", "other")
    load(lake, later, first, policy=VersionPolicy.KEEP_FIRST)
    assert instances(lake) == [("b1", 1, "CURRENT")]
    assert roles(lake) == [("b1", "ORIGINAL"), ("b2", "REPLACED")]
    assert issues(lake) == [("b2", "conflict_content", "WARNING")]
    load(lake, replace(first, deleted=True), policy=VersionPolicy.KEEP_FIRST)
    assert instances(lake) == [("b2", 2, "CURRENT")]


def test_both_contents_are_kept_and_in_conflict_until_one_is_left(lake: Lake) -> None:
    policy = VersionPolicy.KEEP_BOTH
    first, later, copy = Made("b1", "one", "1.2"), Made("b2", "two", "1.2", "other"), Made("b3", "copy", "1.2")
    load(lake, first, later, copy, policy=policy)
    assert instances(lake) == [("b2", 2, "CONFLICT"), ("b3", 1, "CONFLICT")]
    assert roles(lake) == [("b1", "COPY"), ("b2", "ORIGINAL"), ("b3", "ORIGINAL")]
    assert [row for row in issues(lake) if row[1] == "conflict_content"] == [
        ("b2", "conflict_content", "WARNING"),
        ("b3", "conflict_content", "WARNING"),
    ]
    assert not count_violations(lake, "silver")
    load(lake, replace(later, deleted=True), policy=policy)
    assert instances(lake) == [("b2", 2, "DELETED"), ("b3", 1, "CURRENT")]
    assert issues(lake) == [("b1", "duplicate_content", "INFO")]


def test_another_policy_takes_over_when_batches_are_run_again(lake: Lake) -> None:
    made = [Made("b1", "one", "1.2"), Made("b2", "two", "1.2", "other"), Made("b2", "three", "1.3")]
    load(lake, *made)
    last = contents(lake)
    load(lake, *made, policy=VersionPolicy.KEEP_BOTH)
    assert len(instances(lake)) == 3
    load(lake, *made)
    assert contents(lake) == last


def test_one_patient_id_in_two_sources_is_two_patients_with_their_own_studies(lake: Lake) -> None:
    load(lake, Made("b1", "one", "1.2", source="north"), Made("b2", "two", "1.3", source="south", study="2"))
    assert lake.rows("SELECT patient_domain, patient_id FROM silver.dicom_patient ORDER BY 1") == [
        ("north", "P1"),
        ("south", "P1"),
    ]
    assert lake.rows("SELECT count(DISTINCT patient_key) FROM silver.dicom_study") == [(2,)]
    assert issues(lake) == []


@pytest.mark.parametrize("order", [("b1", "b2"), ("b2", "b1")])
def test_one_uid_in_two_sources_is_one_instance_and_a_warning(lake: Lake, order: Sequence[str]) -> None:
    made = {"b1": Made("b1", "one", "1.2", source="north"), "b2": Made("b2", "two", "1.2", source="south")}
    load(lake, *(made[batch] for batch in order))
    assert instances(lake) == [("b2", 1, "CURRENT")]
    assert ("b1", "patient_conflict", "WARNING") in issues(lake)
    assert lake.rows("SELECT patient_domain FROM silver.dicom_patient") == [("south",)]


def test_what_a_replaced_object_alone_said_is_gone_with_it(lake: Lake) -> None:
    film = Made("b1", "one", "1.2", station="old", modality="DX", patient="wrong")
    load(lake, film, replace(film, batch="b2", content="other", station="new", modality="CT", patient="right"))
    assert lake.rows("SELECT count(*) FROM silver.dicom_xray_acquisition") == [(0,)]
    assert lake.rows("SELECT patient_id FROM silver.dicom_patient") == [("right",)]
    assert lake.rows("SELECT station_name FROM silver.dicom_equipment") == [("new",)]


def test_what_a_batch_had_won_and_gives_up_goes_back_to_the_others(lake: Lake) -> None:
    first, copy = Made("b1", "one", "1.2"), Made("b1", "copy", "1.2")
    load(lake, first, copy)
    before = contents(lake)
    load(lake, replace(first, batch="b2", content="other"))
    load(lake, Made("b2", "else", "1.3", study="2", patient="P2"))
    assert instances(lake) == [("b1", 1, "CURRENT"), ("b2", 1, "CURRENT")]
    assert lake.rows("SELECT count(*) FROM silver.dicom_patient") == [(2,)]
    assert issues(lake) == [("b1", "duplicate_content", "INFO")]
    assert not count_violations(lake, "silver")
    load(lake, Made("b2", "none", "1.2", deleted=True))
    assert {name: rows for name, rows in contents(lake).items() if name != "dicom_file_location"} == {
        name: rows for name, rows in before.items() if name != "dicom_file_location"
    }


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Made], list[list[Made]], VersionPolicy]:
    """Objects as they are in the end, the loads that led there (some seen in an earlier state), and a policy."""
    final = [
        Made(
            batch=f"b{draw(st.integers(1, 3))}",
            name=f"n{number}",
            uid=draw(st.sampled_from(["1.2", "1.3"])),
            content=draw(st.sampled_from("xy")),
            deleted=draw(st.booleans()),
            study=draw(st.sampled_from("12")),
            station=draw(st.sampled_from("ST")),
            modality=draw(st.sampled_from(["CT", "DX"])),
            source=draw(st.sampled_from(["north", "south"])),
        )
        for number in range(draw(st.integers(1, 5)))
    ]
    by_batch = [[made for made in final if made.batch == batch] for batch in sorted({made.batch for made in final})]
    earlier = [
        [replace(made, deleted=draw(st.booleans())) for made in draw(st.permutations(objects))[: draw(st.integers(1))]]
        for objects in draw(st.lists(st.sampled_from(by_batch), max_size=3))
    ]
    return final, [*(e for e in earlier if e), *draw(st.permutations(by_batch))], draw(st.sampled_from(VersionPolicy))


def expected_instances(final: Sequence[Made], policy: VersionPolicy) -> dict[tuple[str, str], tuple[str, str]]:
    """The reference: (UID, content) of each instance that there must be → (object it is made from, state)."""
    found = {}
    for uid in {made.uid for made in final}:
        objects = sorted((made for made in final if made.uid == uid), key=lambda made: (made.batch, made.key))
        live = [made for made in objects if not made.deleted]
        if policy is VersionPolicy.KEEP_BOTH:
            for content in {made.content for made in objects}:
                same = [made for made in live if made.content == content]
                last = (same or [made for made in objects if made.content == content])[-1]
                in_conflict = len({made.content for made in live}) > 1
                state = "DELETED" if not same else "CONFLICT" if in_conflict else "CURRENT"
                found[uid, content] = (last.key, state)
        else:
            chosen = (live or objects)[0 if policy is VersionPolicy.KEEP_FIRST else -1]
            found[uid, chosen.content] = (chosen.key, "CURRENT" if live else "DELETED")
    return found


def expected_roles(final: Sequence[Made], policy: VersionPolicy) -> dict[str, str]:
    kept = expected_instances(final, policy)
    chosen = {key for key, _ in kept.values()}
    return {
        made.key: "DELETED"
        if made.deleted
        else "ORIGINAL"
        if made.key in chosen
        else "COPY"
        if (made.uid, made.content) in kept
        else "REPLACED"
        for made in final
    }


@settings(deadline=None, max_examples=12, suppress_health_check=list(HealthCheck))
@given(history=histories())
def test_any_order_of_loads_leaves_what_the_objects_say(
    history: tuple[list[Made], list[list[Made]], VersionPolicy],
) -> None:
    final, loads, policy = history
    with memory_lake("identified") as lake:
        for objects in loads:
            load(lake, *objects, policy=policy)
        by_key = {made.key: made for made in final}
        rows = lake.rows("SELECT object_key, version_state, sop_instance_uid FROM silver.dicom_instance")
        assert {(str(uid), by_key[str(key)].content): (key, state) for key, state, uid in rows} == expected_instances(
            final, policy
        )
        assert dict(lake.rows("SELECT object_key, role FROM silver.dicom_file_location")) == expected_roles(
            final, policy
        )
        sources = [by_key[str(key)] for key, _, _ in rows]
        assert dict(
            lake.rows("SELECT study_instance_uid, number_of_study_related_instances FROM silver.dicom_study")
        ) == {
            f"2.25.{study}": sum(made.study == study and not made.deleted for made in sources)
            for study in {made.study for made in sources}
        }
        assert not count_violations(lake, "silver")
        before = contents(lake)
        fed = lake.rows("FROM silver.change_feed")
        for objects in reversed(loads[-len({made.batch for made in final}) :]):
            load(lake, *objects, policy=policy)
        assert contents(lake) == before
        assert lake.rows("FROM silver.change_feed") == fed
    with memory_lake("identified") as rebuilt:
        load(rebuilt, *final, policy=policy)
        assert contents(rebuilt) == before
