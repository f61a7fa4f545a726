from __future__ import annotations

import json
from typing import Any

import pytest
from pydicom.dataset import Dataset

from imaging_pipeline.errors import Reason
from imaging_pipeline.lake import registry
from imaging_pipeline.metadata.projection import Elements
from imaging_pipeline.metadata.structures import segment_frame_counts, structures
from imaging_pipeline_tests.metadata.objects import (
    REAL_OBJECTS,
    assert_survives,
    broken,
    of_dataset,
    of_test_file,
    real_objects,
)

REGION = registry.table("dicom_rt_roi")
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"


def item(**values: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def structure_set() -> Elements:
    """Two regions in one frame of reference with two series; the first has contours on an image of the second."""

    def image(uid: str) -> Dataset:
        return item(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2", ReferencedSOPInstanceUID=uid)

    series = [
        item(SeriesInstanceUID=f"1.2.20.{number}", ContourImageSequence=[image(f"1.2.3.{number}")]) for number in (1, 2)
    ]
    study = item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
        ReferencedSOPInstanceUID="1.2.10",
        RTReferencedSeriesSequence=series,
    )
    contours = [
        item(ContourGeometricType=kind, ContourImageSequence=[image("1.2.3.2")], ContourData=[0, 0, 0])
        for kind in ("CLOSED_PLANAR", "CLOSED_PLANAR", "POINT")
    ]
    dataset = item(
        ReferencedFrameOfReferenceSequence=[item(FrameOfReferenceUID="1.2.30", RTReferencedStudySequence=[study])],
        StructureSetROISequence=[
            item(ROINumber=7, ROIName="Heart", ReferencedFrameOfReferenceUID="1.2.30", ROIVolume="612.5"),
            item(ROINumber=9, ROIName="Lung", ReferencedFrameOfReferenceUID="1.2.30"),
        ],
        ROIContourSequence=[item(ReferencedROINumber=7, ContourSequence=contours)],
        RTROIObservationsSequence=[
            item(ObservationNumber=1, ReferencedROINumber=9, RTROIInterpretedType="AVOIDANCE", ROIObservationLabel="L"),
            item(ObservationNumber=2, ReferencedROINumber=7, RTROIInterpretedType="ORGAN"),
        ],
    )
    return of_dataset(dataset, STRUCTURE_SET)


def test_a_region_is_joined_with_its_contours_and_observation_by_its_number() -> None:
    rows, issues = structures(structure_set(), REGION)
    assert not issues
    heart, lung = rows
    assert (heart["roi_number"], heart["roi_name"], heart["roi_volume"]) == (7, "Heart", 612.5)
    assert (heart["contour_count"], heart["geometric_types"]) == (3, ["CLOSED_PLANAR", "POINT"])
    assert (heart["rt_roi_interpreted_type"], lung["rt_roi_interpreted_type"]) == ("ORGAN", "AVOIDANCE")
    assert lung["roi_observation_label"] == "L"
    assert (lung["contour_count"], lung["geometric_types"]) == (0, [])


def test_the_series_is_that_of_the_images_with_contours() -> None:
    heart, lung = structures(structure_set(), REGION)[0]
    assert heart["referenced_series_instance_uid"] == "1.2.20.2"
    assert lung["referenced_series_instance_uid"] is None  # either of two


def test_a_real_structure_set_is_read() -> None:
    elements = of_test_file("rtstruct.dcm")
    rows, issues = structures(elements, REGION)
    assert not issues
    assert [row["roi_name"] for row in rows] == ["patient", "Isocenter 1", "Isocenter 2"]
    assert [row["geometric_types"] for row in rows] == [["CLOSED_PLANAR"], ["POINT"], ["POINT"]]
    assert [row["rt_roi_interpreted_type"] for row in rows] == ["EXTERNAL", "ISOCENTER", "ISOCENTER"]
    assert all(row["contour_count"] for row in rows)
    (series,) = {row["referenced_series_instance_uid"] for row in rows}
    assert series


def test_a_region_without_a_number_and_a_second_one_with_the_same_are_told() -> None:
    elements: Any = json.loads(json.dumps(structure_set()))
    regions = elements["30060020"]["Value"]
    regions += [{**regions[0], "30060022": {"vr": "IS", "Value": ["seven"]}}, regions[1]]
    rows, issues = structures(elements, REGION)
    assert [row["roi_number"] for row in rows] == [7, 9]
    assert [(issue.reason, issue.dicom_path) for issue in issues] == [
        (Reason.MISSING_TYPE1, "30060020[2].30060022"),
        (Reason.DUPLICATE_ITEM, "30060020[3].30060022"),
    ]


def segmentation(frames: list[list[int]], shared: int | None = None) -> Elements:
    def group(numbers: list[int]) -> Dataset:
        if not numbers:
            return Dataset()
        return item(SegmentIdentificationSequence=[item(ReferencedSegmentNumber=numbers)])

    dataset = item(PerFrameFunctionalGroupsSequence=[group(numbers) for numbers in frames])
    if shared is not None:
        dataset.SharedFunctionalGroupsSequence = [group([shared])]
    return of_dataset(dataset, "1.2.840.10008.5.1.4.1.1.66.4")


def test_frames_of_each_segment_are_counted() -> None:
    assert segment_frame_counts(segmentation([[1], [1], [2], [1, 3]])) == {1: 3, 2: 1, 3: 1}


def test_frames_that_state_no_segment_are_of_the_shared_one() -> None:
    assert segment_frame_counts(segmentation([[], [], [2]], shared=1)) == {1: 2, 2: 1}
    assert segment_frame_counts(segmentation([[], []])) == {}


def test_a_real_segmentation_has_the_frames_its_header_describes() -> None:
    assert segment_frame_counts(of_test_file("liver_1frame.dcm")) == {1: 3}
    assert segment_frame_counts(of_test_file("CT_small.dcm")) == {}


@pytest.mark.parametrize("elements", [structure_set(), of_test_file("rtstruct.dcm")])
def test_no_damage_to_a_structure_set_stops_its_rows(elements: Elements) -> None:
    assert_survives(structures, REGION, elements, cases=300)


def test_no_damage_to_a_segmentation_stops_the_counting() -> None:
    elements = segmentation([[1], [1], [2], [1, 3]], shared=1)
    for seed in range(300):
        counts = segment_frame_counts(broken(elements, seed))
        assert all(isinstance(number, int) and frames > 0 for number, frames in counts.items())


@pytest.mark.skipif(not REAL_OBJECTS.is_dir(), reason="no objects of public test suites here")
def test_segments_of_public_test_suites_have_as_many_frames_as_there_are() -> None:
    found = 0
    for elements in real_objects():
        if "00280008" in elements and (counts := segment_frame_counts(elements)):
            assert sum(counts.values()) == int(float(elements["00280008"]["Value"][0]))
            found += 1
    assert found
