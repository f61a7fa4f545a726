"""A picture and what is known of it → a DICOM object.

Secondary Capture (PS3.3 A.8.1) says what such an object is. A chest film becomes a Digital X-Ray Image For Presentation
(A.26) only where all that this class must state is known: view, size of a pixel, and whether text is burned in.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)

from imaging_pipeline.conversion.picture import Picture
from imaging_pipeline.conversion.picture_table import Facts
from imaging_pipeline.dicom.part10 import to_part10
from imaging_pipeline.objects.model import key_of

CODE_VERSION = "1"
"""Raise it when the same picture and facts would give other bytes: UIDs change with it."""

IMPLEMENTATION_UID = UID("2.25.318236418370905136043186573016286720414")
IMPLEMENTATION_NAME = "IMAGING_PIPELINE"
MAKER = "imaging-pipeline"

_VIEW_CODES = {"PA": ("399348003", "postero-anterior"), "AP": ("399067008", "antero-posterior")}
"""Of CID 4010 (PS3.16): the views of a film that hangs with the patient's left on the right."""

_UNPAIRED = frozenset({"ABDOMEN", "CHEST", "CSPINE", "HEAD", "LSPINE", "NECK", "PELVIS", "SKULL", "SPINE", "TSPINE"})
"""Parts of the body without a side (PS3.16 Annex L)."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a picture comes from.

    Attributes:
        facts: what the table says.
        sha256: digest of the picture file.
        burned_in: YES or NO where it is known, for Burned In Annotation.
    """

    facts: Facts
    sha256: str
    burned_in: str = ""


def instance_uid(origin: Origin) -> str:
    """The SOP Instance UID: another one as soon as anything in the object would be different.

    It follows from the picture's bytes and from what is known of it, not from its name: a copy of a picture of the same
    patient and study is the same instance.
    """
    known = asdict(origin.facts) | {"image": "", "doubts": ()}
    return _uid("instance", CODE_VERSION, origin.sha256, origin.burned_in, json.dumps(known, sort_keys=True))


def to_dicom(picture: Picture, origin: Origin) -> bytes:
    """Bytes of a DICOM file (PS3.10 7.1); the same input gives the same bytes everywhere."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPInstanceUID = instance_uid(origin)
    _put_patient(ds, origin)
    _put_series(ds, origin)
    _put_image(ds, picture, origin)
    if _is_film(picture, origin):
        _put_digital_xray(ds, picture, origin.facts)
    else:
        _put_secondary_capture(ds, picture, origin.facts)
    syntax = JPEGBaseline8Bit if picture.is_jpeg else ExplicitVRLittleEndian
    _put_pixels(ds, picture)
    return to_part10(ds, syntax, IMPLEMENTATION_UID, IMPLEMENTATION_NAME)


def _put_patient(ds: Dataset, origin: Origin) -> None:
    """Patient, General Study and Patient Study (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2)."""
    facts = origin.facts
    ds.PatientName = ""
    ds.PatientID = facts.patient_id
    if facts.patient_id and facts.collection:
        ds.IssuerOfPatientID = facts.collection
    ds.PatientBirthDate = ""
    ds.PatientSex = facts.sex
    if facts.age:
        ds.PatientAge = facts.age
    ds.StudyInstanceUID = _uid("study", *_study(origin))
    ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.StudyID = facts.study if len(facts.study) <= 16 else ""


def _study(origin: Origin) -> tuple[str, ...]:
    """What tells the study from others; of a picture without patient or study the picture itself."""
    facts = origin.facts
    own = () if facts.patient_id and facts.study else (origin.sha256,)
    return (facts.collection, facts.patient_id, facts.study, *own)


def _put_series(ds: Dataset, origin: Origin) -> None:
    """General Series and General Equipment (PS3.3 C.7.3.1, C.7.5.1): each picture is a series, as each exposure is."""
    facts = origin.facts
    ds.SeriesInstanceUID = _uid("series", ds.SOPInstanceUID)
    ds.Modality = facts.modality or "OT"
    ds.SeriesNumber = ""
    if facts.body_part:
        ds.BodyPartExamined = facts.body_part
    if facts.body_part not in _UNPAIRED:
        ds.Laterality = ""
    if facts.view:
        ds.ViewPosition = facts.view
    ds.Manufacturer = ""


def _put_image(ds: Dataset, picture: Picture, origin: Origin) -> None:
    """General Image (PS3.3 C.7.6.1), and where the picture comes from."""
    ds.InstanceNumber = "1"
    ds.PatientOrientation = ["L", "F"] if _is_frontal(origin.facts) else ""
    ds.ContentDate = ds.ContentTime = ""
    if origin.burned_in:
        ds.BurnedInAnnotation = origin.burned_in
    ds.LossyImageCompression = "00" if picture.lossy_ratio is None else "01"
    if picture.lossy_ratio is not None:
        ds.LossyImageCompressionRatio = f"{picture.lossy_ratio:.3f}"
        ds.LossyImageCompressionMethod = "ISO_10918_1"
    said = [f"file of SHA-256 {origin.sha256}", *picture.steps]
    if origin.facts.collection:
        said.append(f"collection: {origin.facts.collection}")
    if origin.facts.licence:
        said.append(f"terms of use: {origin.facts.licence}")
    ds.DerivationDescription = "; ".join(["made from a picture", *said])[:1024]


def _put_secondary_capture(ds: Dataset, picture: Picture, facts: Facts) -> None:
    """SC Equipment and SC Image (PS3.3 C.8.6.1, C.8.6.2)."""
    ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.ConversionType = "WSD"
    ds.SecondaryCaptureDeviceManufacturer = MAKER
    ds.SecondaryCaptureDeviceSoftwareVersions = f"conversion {CODE_VERSION}"
    if spacing := _spacing(picture, facts):
        ds.PixelSpacing = spacing


def _put_digital_xray(ds: Dataset, picture: Picture, facts: Facts) -> None:
    """DX Series, Anatomy Imaged, Image, Detector and Positioning (PS3.3 C.8.11.1 to C.8.11.5)."""
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.ImageLaterality = "U"
    ds.AnatomicRegionSequence = [_code("51185008", "Chest")]
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"
    ds.PresentationLUTShape = "IDENTITY"
    ds.DetectorType = ds.PositionerType = ""
    ds.ImagerPixelSpacing = _spacing(picture, facts)
    ds.ViewCodeSequence = [_code(*_VIEW_CODES[facts.view])]
    ds.ViewCodeSequence[0].ViewModifierCodeSequence = []
    ds.AcquisitionContextSequence = []


def _is_film(picture: Picture, origin: Origin) -> bool:
    facts = origin.facts
    is_chest_film = facts.modality == "DX" and facts.body_part == "CHEST" and _is_frontal(facts)
    return is_chest_film and picture.samples == 1 and bool(_spacing(picture, facts) and origin.burned_in)


def _is_frontal(facts: Facts) -> bool:
    return facts.view in _VIEW_CODES


def _spacing(picture: Picture, facts: Facts) -> list[str]:
    """Size of a pixel of the picture (mm), which may have been made smaller since it was measured."""
    if facts.spacing is None:
        return []
    scale = facts.spacing_of / picture.columns if facts.spacing_of else 1.0
    return [f"{size * scale:.6f}".rstrip("0") for size in facts.spacing]


def _put_pixels(ds: Dataset, picture: Picture) -> None:
    """Image Pixel and VOI LUT (PS3.3 C.7.6.3, C.11.2); the window of 16 bits is what the picture uses of them."""
    ds.SamplesPerPixel = picture.samples
    ds.PhotometricInterpretation = picture.photometric
    if picture.samples == 3:
        ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = picture.rows, picture.columns
    ds.BitsAllocated = ds.BitsStored = picture.bits
    ds.HighBit = picture.bits - 1
    ds.PixelRepresentation = 0
    if picture.samples == 1:
        low, high = (0, 255) if picture.bits == 8 else picture.limits
        ds.WindowCenter, ds.WindowWidth = f"{(low + high + 1) / 2:g}", f"{max(high - low + 1, 2)}"
    if picture.is_jpeg:
        ds.add_new("PixelData", "OB", encapsulate([picture.data]))
        ds["PixelData"].is_undefined_length = True
    else:
        padded = picture.data + b"\0" * (len(picture.data) % 2)
        ds.add_new("PixelData", "OB" if picture.bits == 8 else "OW", padded)


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def _uid(*parts: str) -> str:
    """A UID derived from a hash (PS3.5 B.2)."""
    return f"2.25.{int(key_of(MAKER, *parts), 16)}"
