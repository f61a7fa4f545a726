from __future__ import annotations

import json
from typing import Any

import pytest
from pydicom.dataset import Dataset

from imaging_pipeline.errors import Reason
from imaging_pipeline.lake import registry
from imaging_pipeline.metadata.projection import Elements, Row
from imaging_pipeline.metadata.references import references
from imaging_pipeline_tests.metadata.objects import (
    REAL_OBJECTS,
    assert_survives,
    coded,
    of_dataset,
    of_test_file,
    real_objects,
)

REFERENCE = registry.table("dicom_reference")
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"


def rows_of(elements: Elements) -> list[Row]:
    rows, issues = references(elements, REFERENCE)
    assert not issues
    assert [row["reference_index"] for row in rows] == list(range(1, len(rows) + 1))
    return rows


def image(uid: str, **values: Any) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT_IMAGE, uid
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def holding(keyword: str, *items: Dataset, **values: Any) -> Dataset:
    dataset = Dataset()
    setattr(dataset, keyword, list(items))
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def segmentation(frames: int, sources: int) -> Dataset:
    """A segmentation whose frames come from one image each, by turns."""
    groups = [
        holding(
            "DerivationImageSequence",
            holding(
                "SourceImageSequence",
                image(
                    f"1.2.3.{frame % sources}",
                    ReferencedFrameNumber=frame + 1,
                    PurposeOfReferenceCodeSequence=[coded("121322")],
                ),
            ),
        )
        for frame in range(frames)
    ]
    return holding("PerFrameFunctionalGroupsSequence", *groups)


def test_a_reference_carries_the_series_and_study_of_the_macro_around_it() -> None:
    dataset = holding(
        "CurrentRequestedProcedureEvidenceSequence",
        holding(
            "ReferencedSeriesSequence",
            holding("ReferencedSOPSequence", image("1.2.3.1"), image("1.2.3.2"), SeriesInstanceUID="1.2.20"),
            holding("ReferencedSOPSequence", image("1.2.3.3"), SeriesInstanceUID="1.2.21"),
            StudyInstanceUID="1.2.10",
        ),
    )
    rows = rows_of(of_dataset(dataset))
    assert [row["to_sop_instance_uid"] for row in rows] == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]
    assert [row["to_series_instance_uid"] for row in rows] == ["1.2.20", "1.2.20", "1.2.21"]
    assert {row["to_study_instance_uid"] for row in rows} == {"1.2.10"}
    assert {row["to_sop_class_uid"] for row in rows} == {CT_IMAGE}
    path = "CurrentRequestedProcedureEvidenceSequence.ReferencedSeriesSequence.ReferencedSOPSequence"
    assert {row["sequence_path"] for row in rows} == {path}


def test_the_objects_own_study_and_series_are_not_those_of_its_references() -> None:
    (row,) = rows_of(of_dataset(holding("SourceImageSequence", image("1.2.3.4"))))
    assert (row["to_study_instance_uid"], row["to_series_instance_uid"]) == (None, None)


def test_frames_segments_and_purpose_are_kept() -> None:
    item = image(
        "1.2.3.4",
        ReferencedFrameNumber=[3, 1],
        ReferencedSegmentNumber=[7],
        PurposeOfReferenceCodeSequence=[coded("121324", "Source image")],
    )
    (row,) = rows_of(of_dataset(holding("SourceImageSequence", item)))
    assert (row["to_frame_numbers"], row["to_segment_numbers"]) == ([3, 1], [7])
    assert row["purpose_of_reference"]["code_meaning"] == "Source image"  # type: ignore[index]


def test_references_of_thousands_of_frames_are_one_row_for_each_image_with_all_its_frames() -> None:
    rows = rows_of(of_dataset(segmentation(3000, 4)))
    assert len(rows) == 4
    assert rows[1]["to_sop_instance_uid"] == "1.2.3.1"
    assert rows[1]["to_frame_numbers"] == list(range(2, 3001, 4))
    path = "PerFrameFunctionalGroupsSequence.DerivationImageSequence.SourceImageSequence"
    assert rows[1]["sequence_path"] == path


def test_one_reference_to_the_whole_object_makes_it_whole_and_other_places_stay_rows_of_their_own() -> None:
    dataset = holding("SourceImageSequence", image("1.2.3.4", ReferencedFrameNumber=2), image("1.2.3.4"))
    dataset.ReferencedImageSequence = [image("1.2.3.4", ReferencedFrameNumber=5)]
    frames = {row["sequence_path"]: row["to_frame_numbers"] for row in rows_of(of_dataset(dataset))}
    assert frames == {"ReferencedImageSequence": [5], "SourceImageSequence": None}


def test_a_real_structure_set_names_study_and_series_of_its_images() -> None:
    rows = rows_of(of_test_file("rtstruct.dcm"))
    by_path = {str(row["sequence_path"]).rpartition(".")[2]: row for row in rows}
    study = by_path["RTReferencedStudySequence"]
    assert study["to_sop_instance_uid"] == study["to_study_instance_uid"]
    contour = next(row for row in rows if str(row["sequence_path"]).startswith("ReferencedFrameOfReferenceSequence"))
    assert contour["to_study_instance_uid"] == study["to_study_instance_uid"]
    assert all(
        row["to_series_instance_uid"] for row in rows if "RTReferencedSeriesSequence." in str(row["sequence_path"])
    )


def test_a_real_segmentation_refers_to_its_source_images() -> None:
    rows = rows_of(of_test_file("liver_1frame.dcm"))
    series = [row for row in rows if row["sequence_path"] == "ReferencedSeriesSequence.ReferencedInstanceSequence"]
    assert series
    assert len({row["to_series_instance_uid"] for row in series}) == 1
    assert any(str(row["sequence_path"]).endswith("DerivationImageSequence.SourceImageSequence") for row in rows)


def test_references_in_private_sequences_are_found_too() -> None:
    elements = of_dataset(holding("SourceImageSequence", image("1.2.3.4")))
    moved = {"00091001": elements["00082112"]}
    (row,) = rows_of(moved)
    assert row["sequence_path"] == "00091001"


def test_an_illegal_uid_is_kept_and_told_without_its_value() -> None:
    elements: Any = of_dataset(holding("SourceImageSequence", image("1.2.3.4"), image("1.2.3.5")))
    elements["00082112"]["Value"][0]["00081155"]["Value"] = ["Doe^Jane"]
    rows, issues = references(elements, REFERENCE)
    assert [row["to_sop_instance_uid"] for row in rows] == ["Doe^Jane", "1.2.3.5"]
    assert [(issue.reason, issue.dicom_path) for issue in issues] == [(Reason.UID_INVALID, "00082112[0].00081155")]
    assert "Doe" not in str(issues)


def test_depth_does_not_matter() -> None:
    item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": ["1.2.3"]}}
    for _ in range(3000):
        item = {"0040A730": {"vr": "SQ", "Value": [item]}}
    assert len(references(item, REFERENCE)[0]) == 1


@pytest.mark.parametrize("name", ["rtstruct.dcm", "liver_1frame.dcm", "test-SR.dcm"])
def test_no_damage_to_an_object_stops_its_references(name: str) -> None:
    assert_survives(references, REFERENCE, of_test_file(name))


@pytest.mark.skipif(not REAL_OBJECTS.is_dir(), reason="no objects of public test suites here")
def test_every_reference_of_public_test_suites_is_a_row() -> None:
    found = 0
    for elements in real_objects():
        rows, _ = references(elements, REFERENCE)
        stated = {uid for uid in _stated(elements) if uid}
        assert {row["to_sop_instance_uid"] for row in rows} == stated
        found += len(rows)
    assert found > 100


def _stated(elements: Any) -> list[str]:
    """What (0008,1155) says, wherever it is."""
    found: list[str] = []

    def note(item: dict[str, Any]) -> dict[str, Any]:
        found.extend(item.get("00081155", {}).get("Value", []))
        return item

    json.loads(json.dumps(elements), object_hook=note)
    return found
