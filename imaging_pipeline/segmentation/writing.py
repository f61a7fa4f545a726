"""Lung masks of a film as a DICOM segmentation in the same study (PS3.3 A.51, C.8.20).

A pure function from a film's header and its masks to a data set. Knows no lake and no network. highdicom is loaded when
the first one is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

from imaging_pipeline.objects.model import key_of

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from numpy.typing import NDArray

CODE_VERSION = "1"
"""Raise it when the same film and masks would give another object: its UIDs change with it."""

MAKER = "imaging-pipeline"
SERIES_NUMBER = 9100
SERIES_DESCRIPTION = "Lungs (automatic segmentation, not for clinical use)"
ALGORITHM = "imaging-pipeline lungs"

_SEGMENTS = (("Right lung", "3341006", "#d95f5f"), ("Left lung", "44029006", "#5fa8d9"))
"""Label, code in SNOMED CT (CID 6115), and colour it is shown in."""


@dataclass(frozen=True, slots=True)
class SegmentationStyle:
    """How segmentations are written.

    Attributes:
        model_version: of the network; part of the UIDs.
        viewer_compat: whether a frame of reference and a plane are stated. A film has neither, and says so; some
            viewers cannot show a segmentation without. What is stated is a convention: the film's rows and columns
            as axes, its corner as origin. It is no geometry of the patient.
    """

    model_version: str
    viewer_compat: bool = False


def segmentation_of(film: Dataset, masks: NDArray[np.bool_], style: SegmentationStyle) -> Dataset:
    """The segmentation of a film; the same film, masks and style give the same data set.

    Args:
        film: the film; its pixels are not needed. Frames of several: one.
        masks: (2, rows, columns) of the film: the right and the left lung; at least one of them is not empty.
        style: how it is written.

    Raises:
        ValueError: the masks have another size than the film, or are empty.
    """
    from highdicom.seg import Segmentation  # noqa: PLC0415 - slow to load

    if masks.shape != (len(_SEGMENTS), film.Rows, film.Columns) or not masks.any():
        raise ValueError(f"expected masks of {len(_SEGMENTS)} lungs in the size of the film, not all empty")
    found = [number for number, mask in enumerate(masks) if mask.any()]
    made = Segmentation(
        source_images=[_described(film)],
        pixel_array=np.moveaxis(masks[found], 0, -1)[np.newaxis].astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[_segment(position + 1, number, film, style) for position, number in enumerate(found)],
        series_instance_uid=_uid(film, style, "series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=_uid(film, style, "instance"),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=ALGORITHM,
        software_versions=style.model_version,
        device_serial_number=style.model_version,
        content_label="LUNGS",
        content_description=SERIES_DESCRIPTION[:64],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=SERIES_DESCRIPTION,
    )
    made.PatientOrientation = film.get("PatientOrientation") or []
    _settle(made, film, style)
    if style.viewer_compat:
        _state_plane(made, film, style)
    return made


def sides_are_swapped(film: Dataset) -> bool:
    """Whether the film hangs with the patient's right on its right, by Patient Orientation (PS3.3 C.7.6.1.1.1)."""
    orientation = film.get("PatientOrientation") or ["L", "F"]
    return str(orientation[0]).startswith("R")


def pixel_spacing(film: Dataset) -> tuple[float, float] | None:
    """Distance of rows and of columns in mm, in the patient where it is calibrated, else on the detector; else None."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        value = film.get(keyword)
        if value and len(value) == 2 and min(value) > 0:
            return float(value[0]), float(value[1])
    return None


def _described(film: Dataset) -> Dataset:
    """The film without pixels, with what highdicom must read and a film may leave out."""
    copy = Dataset()
    copy.update({element.tag: element for element in film if element.tag != 0x7FE00010})
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
                    "AccessionNumber", "ReferringPhysicianName"):  # fmt: skip
        if keyword not in copy:  # type 2: must be there, may be empty
            setattr(copy, keyword, None)
    return copy


def _segment(number: int, lung: int, film: Dataset, style: SegmentationStyle) -> SegmentDescription:
    from highdicom import AlgorithmIdentificationSequence  # noqa: PLC0415
    from highdicom.color import CIELabColor  # noqa: PLC0415
    from highdicom.seg import SegmentDescription  # noqa: PLC0415
    from pydicom.sr.codedict import codes  # noqa: PLC0415
    from pydicom.sr.coding import Code  # noqa: PLC0415

    label, code, color = _SEGMENTS[lung]
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=Code("123037004", "SCT", "Anatomical structure"),
        segmented_property_type=Code(code, "SCT", label),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=ALGORITHM, version=style.model_version, family=codes.DCM.ArtificialIntelligence
        ),
        tracking_uid=_uid(film, style, label),
        tracking_id=label.lower(),
        display_color=CIELabColor.from_rgb(red, green, blue),
    )


def _settle(made: Dataset, film: Dataset, style: SegmentationStyle) -> None:
    """Put the film's times and a UID that follows in the place of the clock's and a random one."""
    for kind in ("Date", "Time"):
        stated = (film.get(f"{what}{kind}") for what in ("Content", "Acquisition", "Study"))
        value = next(filter(None, stated), None)
        setattr(made, f"Content{kind}", value)
        setattr(made, f"Series{kind}", value)
        made.pop(f"InstanceCreation{kind}", None)
    for equipment in made.get("ContributingEquipmentSequence") or ():
        equipment.pop("ContributionDateTime", None)
    organization = _uid(film, style, "dimensions")
    for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization


def _state_plane(made: Dataset, film: Dataset, style: SegmentationStyle) -> None:
    """State a frame of reference and a plane by convention (see :class:`SegmentationStyle`)."""
    made.FrameOfReferenceUID = _uid(film, style, "frame of reference")
    made.PositionReferenceIndicator = ""
    shared = made.SharedFunctionalGroupsSequence[0]
    shared.PlaneOrientationSequence = _item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.PixelMeasuresSequence = _item(PixelSpacing=list(pixel_spacing(film) or (1, 1)), SliceThickness=1)
    for frame in made.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence = _item(ImagePositionPatient=[0, 0, 0])


def _item(**attributes: object) -> Sequence:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return Sequence([item])


def _uid(film: Dataset, style: SegmentationStyle, what: str) -> UID:
    """A UID that follows from film, model and code (PS3.5 B.2): the same on every machine and run."""
    key = key_of(
        MAKER, "lungs", CODE_VERSION, style.model_version, str(film.SOPInstanceUID), str(style.viewer_compat), what
    )
    return UID(f"2.25.{int(key, 16)}")
