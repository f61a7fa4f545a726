"""Chest phantoms as DX and CR objects: what each study holds and the attributes of its images.

Owns the plan of studies and images that follows from a seed, and the modules of the two information objects
(PS3.3 A.2 CR, A.26 DX). Does not draw pixels, encode them or write files.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation

from imaging_pipeline.samples.anatomy import Box, Phantom, radiograph
from imaging_pipeline.samples.body import Body, View, draw_body, happens
from imaging_pipeline.samples.encoding import part10, put_pixels
from imaging_pipeline.samples.lesions import Opacity, draw_opacities
from imaging_pipeline.samples.sites import Display, Machine, Patient, digest, draw_patient, generator

EDITION = 1
"""Raised whenever a seed gives other bytes than before; part of every file name."""

PNEUMONIA_SHARE = 0.45
"""Share of studies with pneumonia."""

FIRST_STUDY = dt.datetime(2019, 1, 7, tzinfo=dt.UTC)
STUDY_SPAN_DAYS = 1800

FIELD_OF_VIEW_MM = 430.0
PRIVATE_GROUP = 0x0019
VIEW_CODES = {View.PA: ("399348003", "postero-anterior"), View.AP: ("399067008", "antero-posterior")}
VIEW_CHOICES = ((View.PA,), (View.AP,), (View.PA, View.AP))
VIEW_SHARES = (0.30, 0.20, 0.50)


@dataclass(frozen=True, slots=True)
class Study:
    """One visit: one machine, one state of the lungs, one or two views."""

    patient: Patient
    body: Body
    machine: Machine
    opacities: tuple[Opacity, ...]
    start: dt.datetime
    views: tuple[View, ...]
    key: str


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """One image to be made: everything but its pixels.

    Attributes:
        stem: file name without suffix, shaped like a UUID, free of any identifier.
        study: what it belongs to.
        index: of the view in the study.
        size: pixels a side before a portrait machine cuts the columns.
    """

    stem: str
    study: Study
    index: int
    size: int


@dataclass(frozen=True, slots=True)
class PhantomImage:
    """One finished object and its ground truth; boxes is empty when there is no pneumonia."""

    stem: str
    content: bytes
    boxes: tuple[Box, ...]


def plan_patient(seed: int, number: int, size: int) -> Iterator[ImagePlan]:
    """Plan all images of one patient, study by study; cheap, no pixels are drawn."""
    patient = draw_patient(seed, number)
    rng = generator(seed, "studies", number)
    body = draw_body(rng, female=patient.female)
    for ordinal in range(int(rng.choice((1, 2, 3), p=(0.45, 0.35, 0.20)))):
        study = _draw_study(rng, patient, body, digest(EDITION, seed, number, ordinal, size))
        for index in range(len(study.views)):
            yield ImagePlan(_stem(study.key, index), study, index, size)


def make_image(plan: ImagePlan) -> PhantomImage:
    """Draw, encode and label one planned image; the same plan always gives the same bytes."""
    study = plan.study
    rng = generator(study.key, "image", plan.index)
    phantom = radiograph(rng, plan.size, study.body, study.opacities, study.views[plan.index])
    if study.machine.portrait:
        phantom = phantom.portrait()
    ds = _dataset(plan, phantom, rng)
    return PhantomImage(plan.stem, part10(ds, study.machine.transfer_syntax), phantom.boxes)


def _draw_study(rng: np.random.Generator, patient: Patient, body: Body, key: str) -> Study:
    """One visit; the views and the machine are drawn without regard to the disease."""
    machines = patient.site.machines
    start = FIRST_STUDY + dt.timedelta(
        days=int(rng.integers(STUDY_SPAN_DAYS)), seconds=int(rng.integers(7 * 3600, 20 * 3600))
    )
    machine = machines[int(rng.integers(len(machines)))]
    views = VIEW_CHOICES[int(rng.choice(len(VIEW_CHOICES), p=VIEW_SHARES))]
    opacities = draw_opacities(generator(key, "opacities")) if happens(rng, PNEUMONIA_SHARE) else ()
    return Study(patient, body, machine, opacities, start, views, key)


def _stem(*parts: object) -> str:
    code = digest("stem", *parts)
    return f"{code[:8]}-{code[8:12]}-4{code[13:16]}-a{code[17:20]}-{code[20:32]}"


def _uid(*parts: object) -> str:
    """Make a UUID-derived UID (PS3.5 B.2)."""
    return f"2.25.{int(digest('uid', *parts)[:32], 16)}"


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def _dataset(plan: ImagePlan, phantom: Phantom, rng: np.random.Generator) -> Dataset:
    study = plan.study
    ds = Dataset()
    if study.patient.site.charset:
        ds.SpecificCharacterSet = list(study.patient.site.charset)
    _put_patient(ds, study)
    _put_study(ds, study)
    _put_series(ds, plan)
    _put_equipment(ds, study)
    _put_image(ds, plan, rng)
    put_pixels(ds, phantom.image, study.machine)
    if study.machine.modality == "DX":
        _put_dx(ds, plan)
    else:
        _put_cr(ds, plan)
    _put_private(ds, study)
    return ds


def _put_patient(ds: Dataset, study: Study) -> None:
    """Patient and Patient Study modules (PS3.3 C.7.1.1, C.7.2.2)."""
    patient = study.patient
    ds.PatientName = patient.name
    ds.PatientID = patient.patient_id
    ds.IssuerOfPatientID = patient.site.prefix
    ds.PatientBirthDate = f"{patient.birth_date:%Y%m%d}"
    ds.PatientSex = "F" if patient.female else "M"
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID, other.TypeOfPatientID = patient.national_id, "NATIONAL", "TEXT"
    ds.OtherPatientIDsSequence = [other]
    ds.PatientAge = f"{(study.start.date() - patient.birth_date).days * 100 // 36525:03d}Y"
    ds.PatientSize = f"{patient.size_m:.2f}"
    ds.PatientWeight = f"{patient.weight_kg:.1f}"


def _put_study(ds: Dataset, study: Study) -> None:
    """General Study module (PS3.3 C.7.2.1)."""
    number = int(study.key[:12], 16)
    ds.StudyInstanceUID = _uid(study.key)
    ds.StudyDate = f"{study.start:%Y%m%d}"
    ds.StudyTime = f"{study.start:%H%M%S}"
    ds.StudyID = str(number % 10**6)
    ds.AccessionNumber = f"{study.patient.site.prefix}{study.start:%y}{number % 10**9:09d}"
    ds.StudyDescription = study.patient.site.study_description
    ds.ReferringPhysicianName = study.patient.physicians[0]
    ds.NameOfPhysiciansReadingStudy = study.patient.physicians[1]


def _put_series(ds: Dataset, plan: ImagePlan) -> None:
    """General Series module (PS3.3 C.7.3.1); View Position belongs to a CR series, so each view is a series."""
    taken = _taken(plan)
    ds.Modality = plan.study.machine.modality
    ds.SeriesInstanceUID = _uid(plan.study.key, "series", plan.index)
    ds.SeriesNumber = str(plan.index + 1)
    ds.SeriesDate, ds.SeriesTime = f"{taken:%Y%m%d}", f"{taken:%H%M%S}"
    ds.SeriesDescription = f"CHEST {plan.study.views[plan.index]}"
    ds.ProtocolName = "Chest"
    ds.BodyPartExamined = "CHEST"
    ds.OperatorsName = plan.study.patient.physicians[2]


def _put_equipment(ds: Dataset, study: Study) -> None:
    """General Equipment module (PS3.3 C.7.5.1)."""
    machine = study.machine
    ds.Manufacturer = machine.manufacturer
    ds.InstitutionName = study.patient.site.institution
    ds.InstitutionAddress = study.patient.site.address
    ds.StationName = machine.station
    ds.ManufacturerModelName = machine.model
    ds.DeviceSerialNumber = str(int(digest(machine.station)[:8], 16))
    ds.SoftwareVersions = f"{len(machine.model)}.{machine.bits_stored}.1"


def _put_image(ds: Dataset, plan: ImagePlan, rng: np.random.Generator) -> None:
    """General Image, X-Ray Acquisition Dose and SOP Common attributes (PS3.3 C.7.6.1, C.8.7.5, C.12.1)."""
    taken = _taken(plan)
    view = plan.study.views[plan.index]
    ds.SOPInstanceUID = _uid(plan.study.key, "image", plan.index)
    ds.InstanceNumber = "1"
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.AcquisitionDate = ds.ContentDate = f"{taken:%Y%m%d}"
    ds.AcquisitionTime = ds.ContentTime = f"{taken:%H%M%S}"
    # Rows run to the patient's left whichever way the beam went, since the image is displayed facing the patient.
    ds.PatientOrientation = ["L", "F"]
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    ds.KVP = "125" if view is View.PA else "90"
    ds.DistanceSourceToDetector = "1800" if view is View.PA else "1100"
    ds.ExposureTime = str(int(rng.integers(3, 25)))
    ds.XRayTubeCurrent = str(int(rng.integers(160, 400)))
    ds.Exposure = str(int(rng.integers(1, 6)))
    ds.ImagerPixelSpacing = [f"{FIELD_OF_VIEW_MM / plan.size:.4f}"] * 2


def _put_dx(ds: Dataset, plan: ImagePlan) -> None:
    """DX Series, Anatomy Imaged, Image, Detector and Positioning (PS3.3 C.8.11.1 to C.8.11.5)."""
    machine, view = plan.study.machine, plan.study.views[plan.index]
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.ImageLaterality = "U"
    ds.AnatomicRegionSequence = [_code("51185008", "Chest")]
    ds.PixelIntensityRelationship = "LOG"
    # Displayed inverted, a low value means few photons reached the detector.
    ds.PixelIntensityRelationshipSign = 1 if machine.inverted else -1
    ds.PresentationLUTShape = "INVERSE" if machine.inverted else "IDENTITY"
    ds.DetectorType = "SCINTILLATOR"
    ds.DetectorConfiguration = "AREA"
    ds.DetectorID = digest(machine.station, "detector")[:10].upper()
    ds.DateOfLastDetectorCalibration = f"{plan.study.start - dt.timedelta(days=30):%Y%m%d}"
    ds.ViewPosition = view
    value, meaning = VIEW_CODES[view]
    ds.ViewCodeSequence = [_code(value, meaning)]
    ds.ViewCodeSequence[0].ViewModifierCodeSequence = []
    ds.PositionerType = "COLUMN" if view is View.PA else "NONE"
    ds.AcquisitionContextSequence = []


def _put_cr(ds: Dataset, plan: ImagePlan) -> None:
    """CR Series and CR Image modules (PS3.3 C.8.1.1, C.8.1.2)."""
    ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.ViewPosition = plan.study.views[plan.index]
    ds.FilterType = "NONE"
    ds.CollimatorGridName = "PARALLEL"
    ds.FocalSpots = "1.2"
    ds.PlateType = "ST-VI"
    ds.PlateID = digest(plan.stem, "plate")[:8].upper()
    ds.CassetteOrientation = "PORTRAIT" if plan.study.machine.portrait else "LANDSCAPE"
    ds.CassetteSize = "35CMX43CM"
    ds.AcquisitionDeviceProcessingDescription = "CHEST,GENERAL"
    ds.Sensitivity = "200"
    if plan.study.machine.display is Display.NONE:
        ds.AcquisitionDeviceProcessingCode = "RAW"


def _put_private(ds: Dataset, study: Study) -> None:
    """Add a vendor block with an identifier in it, as hospitals' objects have (PS3.5 7.8)."""
    block = ds.private_block(PRIVATE_GROUP, f"{study.machine.manufacturer[:40]} PHANTOM 1.0", create=True)
    block.add_new(0x01, "LO", f"STUDY OF {study.patient.patient_id}")
    block.add_new(0x02, "DS", "1.25")
    block.add_new(0x03, "OB", bytes.fromhex(study.key[:32]))
    block.add_new(0x04, "PN", study.patient.name)


def _taken(plan: ImagePlan) -> dt.datetime:
    return plan.study.start + dt.timedelta(minutes=2 + 3 * plan.index)
