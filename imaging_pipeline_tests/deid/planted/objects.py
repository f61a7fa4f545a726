"""Objects of each storage class with the attributes their IODs require, and what every object has planted in it."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from imaging_pipeline_tests.deid.planted.patients import INSTITUTION, SERIAL, STATION, Patient
from imaging_pipeline_tests.deid.planted.plants import ROOT, STUDY_DAY, Kind, Planter

STORAGE = "1.2.840.10008.5.1.4.1.1."
DX, CT, MR, US, US_MULTI, SC, MG, XA, NM, PT = (
    f"{STORAGE}{part}" for part in ("1.1", "2", "4", "6.1", "3.1", "7", "1.2", "12.1", "20", "128")
)
ENHANCED_CT, TOMO, SEG = (f"{STORAGE}{part}" for part in ("2.1", "13.1.3", "66.4"))
SR_COMPREHENSIVE, KO, GSPS, PDF, CDA, ECG, RAW = (
    f"{STORAGE}{part}" for part in ("88.33", "88.59", "11.1", "104.1", "104.2", "9.1.1", "66")
)
RTSTRUCT, RTPLAN, RTDOSE = (f"{STORAGE}{part}" for part in ("481.3", "481.5", "481.2"))

MODALITY = {
    DX: "DX", CT: "CT", MR: "MR", US: "US", US_MULTI: "US", SC: "OT", MG: "MG", XA: "XA", NM: "NM", PT: "PT",
    ENHANCED_CT: "CT", TOMO: "MG", SEG: "SEG", SR_COMPREHENSIVE: "SR", KO: "KO", GSPS: "PR", PDF: "DOC", CDA: "DOC",
    ECG: "ECG", RAW: "OT", RTSTRUCT: "RTSTRUCT", RTPLAN: "RTPLAN", RTDOSE: "RTDOSE",
}  # fmt: skip


def uid(*numbers: int) -> str:
    return ".".join((ROOT, *map(str, numbers)))


def start(patient: Patient, sop_class: str, number: int = 1, *, study: int = 1, day: str = STUDY_DAY) -> Planter:
    """An object with the modules of patient, study, series and equipment, every identifier in them noted."""
    ds = Dataset()
    ds.SOPClassUID = sop_class
    ds.Modality = MODALITY[sop_class]
    if patient.charset:
        ds.SpecificCharacterSet = patient.charset
    planter = Planter(patient, ds)
    planter.uid("SOPInstanceUID", uid(study, 1, number))
    planter.uid("SeriesInstanceUID", uid(study, 2, 0))
    planter.uid("StudyInstanceUID", uid(study, 3, 0))
    planter.plant(Kind.NAME, "PatientName", patient.name, patient.family, f"{patient.given} {patient.family}")
    planter.plant(Kind.NUMBER, "PatientID", patient.patient_id)
    planter.plant(Kind.NUMBER, "AccessionNumber", patient.accession)
    planter.plant(Kind.DATE, "PatientBirthDate", patient.birth_date)
    planter.plant(Kind.CONTACT, "PatientAddress", f"{patient.street}, {patient.city}", patient.street)
    planter.plant(Kind.CONTACT, "PatientTelephoneNumbers", patient.phone)
    planter.plant(Kind.STAFF, "ReferringPhysicianName", "Krautschnabel^Ilse^^Dr.", "Krautschnabel")
    planter.plant(Kind.INSTITUTION, "InstitutionName", INSTITUTION)
    planter.plant(Kind.DEVICE, "StationName", STATION)
    planter.plant(Kind.DEVICE, "DeviceSerialNumber", SERIAL)
    planter.plant(Kind.NUMBER, "StudyID", "ST7712056")
    planter.day("StudyDate", day)
    ds.StudyTime = "101530"
    ds.PatientSex = "F"
    ds.PatientAge = "059Y"
    ds.SeriesNumber, ds.InstanceNumber = "1", str(number)
    planter.keep("Manufacturer", "Acme Imaging")
    planter.keep("Modality", MODALITY[sop_class])
    return planter


def with_image(
    planter: Planter,
    shape: tuple[int, int] = (64, 64),
    *,
    bits: int = 12,
    frames: int = 1,
    samples: int = 1,
    photometric: str = "MONOCHROME2",
) -> np.ndarray:
    """Add an image pixel module with a smooth phantom; the pixels returned may be drawn on and set again."""
    ds = planter.ds
    rows, columns = shape
    planter.keep("Rows", rows)
    planter.keep("Columns", columns)
    planter.keep("BitsAllocated", 8 if bits <= 8 else 16)
    planter.keep("BitsStored", bits)
    planter.keep("HighBit", bits - 1)
    planter.keep("PixelRepresentation", 0)
    planter.keep("SamplesPerPixel", samples)
    planter.keep("PhotometricInterpretation", photometric)
    planter.keep("ImageType", ["ORIGINAL", "PRIMARY"])
    if samples > 1:
        ds.PlanarConfiguration = 0
    if frames > 1:
        ds.NumberOfFrames = str(frames)
    pixels = phantom(rows, columns, frames, samples, bits)
    set_pixels(planter, pixels)
    return pixels


def phantom(rows: int, columns: int, frames: int, samples: int, bits: int) -> np.ndarray:
    """Soft blobs with a little noise, (frames, rows, columns[, samples]), as anatomy has them: nothing like letters."""
    y, x = np.mgrid[0:rows, 0:columns]
    rng = np.random.default_rng(rows * 31 + columns)
    top = 2**bits - 1
    lungs = np.exp(-(((x / columns - 0.33) / 0.15) ** 2 + ((y / rows - 0.5) / 0.3) ** 2))
    lungs += np.exp(-(((x / columns - 0.67) / 0.15) ** 2 + ((y / rows - 0.5) / 0.3) ** 2))
    image = np.clip(0.55 - 0.35 * lungs + rng.normal(0, 0.01, (rows, columns)), 0, 0.7) * top
    dtype = np.uint8 if bits <= 8 else np.uint16
    stack = np.repeat(image[None].astype(dtype), frames, axis=0)
    return np.repeat(stack[..., None], samples, axis=-1) if samples > 1 else stack


def set_pixels(planter: Planter, pixels: np.ndarray) -> None:
    ds = planter.ds
    content = pixels.tobytes()
    ds.add_new(0x7FE00010, "OB" if pixels.dtype == np.uint8 else "OW", content + b"\0" * (len(content) % 2))


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def reference(sop_class: str, instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
    return item


def sequence(*items: Dataset) -> Sequence:
    return Sequence(items)
