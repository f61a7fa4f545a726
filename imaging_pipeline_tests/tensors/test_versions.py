"""Freezing datasets: only complete studies, nothing withdrawn, labels that agree, and no image on two sides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.tensors.assignment import HoldOut, SplitBy
from imaging_pipeline.tensors.definition import load_definition
from imaging_pipeline.tensors.splits import Split, split_of
from imaging_pipeline.tensors.storage import ShardStore
from imaging_pipeline.tensors.withdrawal import withdraw_tensors
from imaging_pipeline_tests.metadata.headers import memory_lake
from imaging_pipeline_tests.tensors.labelled import DEFINITION, PLAN, Labelled, members, picture, sides


@pytest.fixture
def labelled(tmp_path: Path) -> Iterator[Labelled]:
    with memory_lake("research") as lake:
        lake.snapshot_id = lambda: 1  # type: ignore[method-assign] - a plain database has no snapshots
        yield Labelled(lake, tmp_path)


def patient_on(side: Split, number: int = 0) -> str:
    """A patient whom the hash puts on a side."""
    found = (f"p{n}" for n in range(1000) if split_of(f"p{n}", seed=PLAN.seed, fractions=PLAN.fractions) is side)
    return [next(found) for _ in range(number + 1)][number]


def test_the_shipped_dataset_splits_as_it_always_did() -> None:
    plan = load_definition("pneumonia").split
    assert (plan.by, plan.seed, plan.looks_back) == (SplitBy.PATIENT, 20_260_101, False)
    assert (plan.fractions.train, plan.fractions.val, plan.fractions.test) == (0.7, 0.1, 0.2)
    found = [split_of(f"patient-{number}", seed=plan.seed, fractions=plan.fractions) for number in range(8)]
    assert found == ["train", "train", "train", "train", "test", "train", "train", "train"]


def test_images_of_open_studies_wait(labelled: Labelled) -> None:
    for name in "abc":
        labelled.add(name, settled=False)
    with pytest.raises(ConfigurationError, match="complete study"):
        labelled.freeze()
    labelled.settle("study-a", 1)
    labelled.settle("study-b", 1, "OPEN")
    assert members(labelled.freeze()) == ["a"]


def test_a_late_image_takes_its_study_out_until_it_settles_again(labelled: Labelled) -> None:
    labelled.add("a")
    labelled.add("b", "s2")
    first = labelled.freeze()
    labelled.add("late", "s2", images=2, settled=False)
    assert members(labelled.freeze()) == ["a"]
    labelled.settle("s2", 2)
    last = labelled.freeze()
    assert members(last) == ["a", "b", "late"]
    assert last.version != first.version


def test_what_was_made_of_a_study_is_no_late_image(labelled: Labelled) -> None:
    labelled.add("a")
    labelled.add("b", "s2")
    first = labelled.freeze()
    row = {"arrival_batch": "made", "row_version": "1", "instance_key": "report", "series_key": "s2"}
    study = row | {"study_key": "s2", "patient_key": "s2", "study_instance_uid": "s2"}
    labelled.put("dicom_instance", **row, sop_instance_uid="2.25.9")
    labelled.put(
        "made_object", **row, made_key="m", object_key="o", source_instance_key="b", source_sha256="", kind="k"
    )
    labelled.put("dicom_study", **study, number_of_study_related_instances=2)
    assert labelled.freeze().version == first.version
    labelled.put("dicom_study", **study, number_of_study_related_instances=3)
    assert members(labelled.freeze()) == ["a"]


def test_a_withdrawn_image_is_in_no_later_version_and_stays_in_the_earlier(labelled: Labelled) -> None:
    labelled.add("a")
    labelled.add("b")
    first = labelled.freeze()
    withdraw_tensors(labelled.lake, {"b"}, ShardStore(""))
    assert members(labelled.freeze()) == ["a"]
    kept = labelled.lake.rows(
        "SELECT tensor_key FROM gold.dataset_member WHERE dataset_version = ? ORDER BY 1", [first.version]
    )
    assert kept == [("a",), ("b",)]


def test_an_unchanged_dataset_is_frozen_once(labelled: Labelled) -> None:
    labelled.add("a")
    assert labelled.freeze().is_new
    assert not labelled.freeze().is_new
    assert labelled.lake.rows("SELECT count(*) FROM gold.dataset_version") == [(1,)]


def test_a_cohort_takes_the_images_that_satisfy_it(labelled: Labelled) -> None:
    labelled.add("a", sex="F")
    labelled.add("b", sex="M")
    women = replace(DEFINITION, cohort="patient_sex = 'F' AND patient_age_years < 50 -- adults")
    assert members(labelled.freeze(women)) == ["a"]


@pytest.mark.parametrize(
    "cohort", ["true; DROP TABLE gold.label", "read_text('x') IS NULL", "no_such_column = 1", "x FROM y"]
)
def test_a_cohort_that_is_no_condition_is_refused(labelled: Labelled, cohort: str) -> None:
    labelled.add("a")
    with pytest.raises(ConfigurationError, match="cohort"):
        labelled.freeze(replace(DEFINITION, cohort=cohort))


def test_labels_that_contradict_each_other_leave_the_image_out_unless_one_source_is_preferred(
    labelled: Labelled,
) -> None:
    labelled.add("a", label=1.0)
    labelled.add("b", label=1.0)
    labelled.put_label("a", 0.0, source="other")
    labelled.put_label("b", 1.0, source="other")
    labelled.put_label("b", None, source="uncertain")
    unsure = labelled.freeze()
    assert members(unsure) == ["b"]
    assert unsure.left_out == {"its labels disagree": 1}
    sure = labelled.freeze(replace(DEFINITION, label_sources=("other", "s")))
    assert [(member.tensor_key, member.label) for member in sure.members] == [("a", 0.0), ("b", 1.0)]


def test_the_same_pixels_are_on_one_side_only_and_the_test_side_keeps_them(labelled: Labelled) -> None:
    train, test = patient_on(Split.TRAIN), patient_on(Split.TEST)
    pixels = picture("x", labelled.recipe)
    labelled.add("learned", train, array=pixels)
    labelled.add("tested", test, array=pixels)
    frozen = labelled.freeze()
    assert sides(frozen) == {"tested": "test"}
    assert frozen.left_out == {"the same pixels are on another side": 1}


def test_nearly_the_same_pixels_count_as_the_same(labelled: Labelled) -> None:
    pixels = picture("x", labelled.recipe)
    fainter = np.clip(pixels * 0.97 + 1, 0, 255).astype(np.uint8)
    labelled.add("learned", patient_on(Split.TRAIN), array=fainter)
    labelled.add("other", patient_on(Split.TRAIN, 1))
    labelled.add("checked", patient_on(Split.VAL), array=pixels)
    assert sides(labelled.freeze()) == {"checked": "val", "other": "train"}


def test_copies_on_one_side_stay(labelled: Labelled) -> None:
    pixels = picture("x", labelled.recipe)
    labelled.add("one", patient_on(Split.TRAIN), array=pixels)
    labelled.add("two", patient_on(Split.TRAIN, 1), array=pixels)
    assert sides(labelled.freeze()) == {"one": "train", "two": "train"}


def test_official_sides_are_taken_over(labelled: Labelled) -> None:
    for name, side in (("a", "train"), ("b", "test"), ("c", None)):
        labelled.add(name, official=side)
    frozen = labelled.freeze(replace(DEFINITION, split=replace(PLAN, by=SplitBy.OFFICIAL, fractions=_ALL_TRAIN)))
    assert sides(frozen) == {"a": "train", "b": "test"}
    assert frozen.left_out == {"no official side": 1}


_ALL_TRAIN = replace(PLAN.fractions, train=1.0, val=0.0, test=0.0)


def test_a_held_out_maker_is_tested_on_and_not_learned_from(labelled: Labelled) -> None:
    for number in range(12):
        labelled.add(f"i{number:02}", f"p{number}", maker="ACME" if number % 3 == 0 else "OTHER")
    plan = replace(PLAN, fractions=replace(PLAN.fractions, train=0.8, val=0.2, test=0.0))
    definition = replace(DEFINITION, split=replace(plan, hold_out=HoldOut("manufacturer", ("ACME",))))
    found = sides(labelled.freeze(definition))
    assert {name for name, side in found.items() if side == "test"} == {"i00", "i03", "i06", "i09"}


def test_strata_keep_patients_where_they_were_when_data_grow(labelled: Labelled) -> None:
    definition = replace(DEFINITION, split=replace(PLAN, stratify=("label", "sex")))
    for number in range(20):
        labelled.add(f"i{number:02}", label=float(number % 4 == 0), sex="FM"[number % 2])
    first = sides(labelled.freeze(definition))
    assert sum(side == "test" for name, side in first.items() if int(name[1:]) % 4 == 0) == 1
    for number in range(20, 30):
        labelled.add(f"i{number:02}", label=1.0, sex="M")
    labelled.put_label("i01", 1.0)  # moves a patient to another stratum
    later = sides(labelled.freeze(definition))
    assert {name: later[name] for name in first} == first
    assert set(later.values()) == {"train", "val", "test"}
