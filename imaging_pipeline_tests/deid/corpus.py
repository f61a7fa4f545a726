"""Synthetic objects with identifiers planted in them."""

from __future__ import annotations

import hashlib
from io import BytesIO

from pydicom import dcmread, dcmwrite
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from imaging_pipeline.deid.engine import Deidentified, Deidentifier
from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline.deid.pseudonyms import ProjectKeys

MASTER_KEY = hashlib.sha256(b"a key for tests only").digest()
DX = "1.2.840.10008.5.1.4.1.1.1.1"
ROOT = "1.2.826.0.1.3680043.9.7433"
NAME = "Zwyntharquist^Oberon^Tiberius"
PATIENT_ID = "MRN-7731945"


def keys(project: str = "chest") -> ProjectKeys:
    return ProjectKeys.derive(MASTER_KEY, project)


def deidentifier(project: str = "chest") -> Deidentifier:
    return Deidentifier(load_profile(), keys(project))


def chest_film(**attributes: object) -> Dataset:
    """A 4 x 4 digital chest film; ``attributes`` by keyword replace or add, None removes."""
    ds = Dataset()
    values: dict[str, object] = {
        "SOPClassUID": DX, "SOPInstanceUID": f"{ROOT}.3.1", "StudyInstanceUID": f"{ROOT}.1", "Modality": "DX",
        "SeriesInstanceUID": f"{ROOT}.2", "PatientName": NAME, "PatientID": PATIENT_ID, "PatientBirthDate": "19610412",
        "PatientSex": "F", "AccessionNumber": "ACC992817", "StudyDate": "20210105", "StudyTime": "101530",
        "Manufacturer": "Acme Imaging", "ImageType": ["ORIGINAL", "PRIMARY"], "BodyPartExamined": "CHEST",
        "ReferringPhysicianName": "Krautschnabel^Ilse", "InstitutionName": "St. Ottilien Hospital", "StudyID": "77120",
        "PixelSpacing": ["0.143", "0.143"], "Rows": 4, "Columns": 4, "BitsAllocated": 16, "BitsStored": 12,
        "HighBit": 11, "PixelRepresentation": 0, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "ViewPosition": "PA", "PresentationIntentType": "FOR PRESENTATION",
    }  # fmt: skip
    for keyword, value in {**values, **attributes}.items():
        if value is not None:
            setattr(ds, keyword, value)
    if "PixelData" not in ds:
        ds.add(DataElement(0x7FE00010, "OW", bytes(range(32))))
    return ds


def encode(
    ds: Dataset, syntax: str = ExplicitVRLittleEndian, preamble: bytes = bytes(128), trailing: bytes = b""
) -> bytes:
    """``ds`` as a Part 10 file."""
    ds.file_meta = getattr(ds, "file_meta", None) or FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return preamble + buffer.getvalue()[128:] + trailing


def release(ds: Dataset | bytes, project: str = "chest", domain: str = "north") -> Deidentified:
    content = ds if isinstance(ds, bytes) else encode(ds)
    return deidentifier(project).deidentify(content, patient_domain=domain)


def released(ds: Dataset | bytes, project: str = "chest", domain: str = "north") -> FileDataset:
    """The data set that comes out."""
    return dcmread(BytesIO(release(ds, project, domain).data))


def nested(item: Dataset, depth: int, keyword: str = "PerFrameFunctionalGroupsSequence") -> DataElement:
    """``item`` inside ``depth`` sequences that are kept."""
    for _ in range(depth):
        outer = Dataset()
        setattr(outer, keyword, Sequence([item]))
        item = outer
    return item[keyword]
