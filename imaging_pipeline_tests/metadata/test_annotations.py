from __future__ import annotations

import json
from typing import Any

from pydicom.dataset import Dataset

from imaging_pipeline.lake import registry
from imaging_pipeline.metadata.annotations import graphic_annotations
from imaging_pipeline.metadata.projection import Elements, Row
from imaging_pipeline_tests.metadata.objects import assert_survives, of_dataset, of_test_file

ANNOTATION = registry.table("dicom_annotation")
PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"
MICROSCOPY = "1.2.840.10008.5.1.4.1.1.91.1"


def rows_of(elements: Elements) -> list[Row]:
    rows, issues = graphic_annotations(elements, ANNOTATION)
    assert not issues
    assert [row["annotation_index"] for row in rows] == list(range(1, len(rows) + 1))
    return rows


def item(**values: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def presentation_state() -> Elements:
    image = item(
        ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2", ReferencedSOPInstanceUID="1.2.3.4", ReferencedFrameNumber=2
    )
    boxed = item(
        BoundingBoxAnnotationUnits="PIXEL",
        UnformattedTextValue="nodule",
        BoundingBoxTopLeftHandCorner=[1.0, 2.0],
        BoundingBoxBottomRightHandCorner=[3.0, 4.0],
    )
    anchored = item(AnchorPointAnnotationUnits="DISPLAY", UnformattedTextValue="here", AnchorPoint=[0.5, 0.25])
    line = item(
        GraphicAnnotationUnits="PIXEL",
        NumberOfGraphicPoints=2,
        GraphicType="POLYLINE",
        GraphicData=[1.0, 1.0, 9.0, 9.0],
    )
    drawn = item(
        GraphicLayer="LAYER1",
        ReferencedImageSequence=[image],
        TextObjectSequence=[boxed, anchored],
        GraphicObjectSequence=[line],
    )
    dataset = item(
        ContentLabel="FINDINGS",
        ContentDescription="what was found",
        ContentCreatorName="Doe^Jane",
        GraphicAnnotationSequence=[drawn],
    )
    return of_dataset(dataset, PRESENTATION_STATE)


def test_texts_and_graphics_of_a_presentation_state_are_rows() -> None:
    rows = rows_of(presentation_state())
    assert {row["annotation_source"] for row in rows} == {"PR"}
    assert {row["graphic_layer"] for row in rows} == {"LAYER1"}
    assert {row["referenced_sop_instance_uid"] for row in rows} == {"1.2.3.4"}
    assert rows[0]["referenced_frame_numbers"] == [2]
    assert {(row["content_label"], row["content_creator_name"]) for row in rows} == {("FINDINGS", "Doe^Jane")}
    assert [row.get("unformatted_text_value") for row in rows] == ["nodule", "here", None]
    assert [row.get("graphic_type") for row in rows] == [None, None, "POLYLINE"]
    assert [row["graphic_annotation_units"] for row in rows] == ["PIXEL", "DISPLAY", "PIXEL"]
    assert [row["graphic_data"] for row in rows] == [[1, 2, 3, 4], [0.5, 0.25], [1, 1, 9, 9]]


def test_each_overlay_plane_is_a_row() -> None:
    dataset = Dataset()
    for group, description in ((0x6000, "ruler"), (0x601E, None)):
        dataset.add_new((group, 0x0010), "US", 8)
        dataset.add_new((group, 0x0011), "US", 8)
        dataset.add_new((group, 0x3000), "OW", bytes(8))
        if description:
            dataset.add_new((group, 0x0022), "LO", description)
    dataset.add_new((0x6002, 0x1001), "CS", "LAYER1")  # says which layer shows an overlay of the image; no plane
    rows = rows_of(of_dataset(dataset, "1.2.840.10008.5.1.4.1.1.2"))
    assert [(row["annotation_source"], row["overlay_group"]) for row in rows] == [
        ("OVERLAY", 0x6000),
        ("OVERLAY", 0x601E),
    ]
    assert [row.get("overlay_description") for row in rows] == ["ruler", None]


def test_a_real_image_with_an_overlay_has_one_row() -> None:
    (row,) = rows_of(of_test_file("examples_overlay.dcm"))
    assert (row["annotation_source"], row["overlay_group"]) == ("OVERLAY", 0x6000)


def test_an_image_without_drawings_has_no_row() -> None:
    assert graphic_annotations(of_test_file("CT_small.dcm"), ANNOTATION) == ([], [])


def test_groups_of_microscopy_annotations_are_rows() -> None:
    group = item(
        AnnotationGroupUID="1.2.3.9",
        AnnotationGroupLabel="nuclei",
        NumberOfAnnotations=40_000,
        GraphicType="POLYGON",
        PointCoordinatesData=bytes(4096),
    )
    image = item(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.6", ReferencedSOPInstanceUID="1.2.3.4")
    dataset = item(ContentLabel="NUCLEI", ReferencedImageSequence=[image], AnnotationGroupSequence=[group])
    (row,) = rows_of(of_dataset(dataset, MICROSCOPY))
    assert (row["annotation_source"], row["annotation_group_label"]) == ("ANN", "nuclei")
    assert (row["annotation_group_uid"], row["number_of_annotations"]) == ("1.2.3.9", 40_000)
    assert (row["graphic_type"], row["content_label"]) == ("POLYGON", "NUCLEI")
    assert row["referenced_sop_instance_uid"] == "1.2.3.4"


def test_a_bad_coordinate_costs_the_coordinates_of_one_graphic() -> None:
    elements: Any = json.loads(json.dumps(presentation_state()))
    graphic = elements["00700001"]["Value"][0]["00700009"]["Value"][0]
    graphic["00700022"]["Value"][0] = "left"
    rows, issues = graphic_annotations(elements, ANNOTATION)
    assert len(rows) == 3
    assert "graphic_data" not in rows[2]
    assert rows[2]["graphic_type"] == "POLYLINE"
    assert [issue.dicom_path for issue in issues] == ["00700001[0].00700009[0].00700022"]


def test_no_damage_to_a_presentation_state_stops_its_rows() -> None:
    assert_survives(graphic_annotations, ANNOTATION, presentation_state(), cases=400)
    assert_survives(graphic_annotations, ANNOTATION, of_test_file("examples_overlay.dcm"))
