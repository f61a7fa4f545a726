"""Objects with values a second pair of eyes has thought of; all made up."""

from __future__ import annotations

import io

import pydicom
import pytest
from PIL import ImageCms
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, SecondaryCaptureImageStorage

from imaging_pipeline.deid.engine import Deidentifier
from imaging_pipeline.deid.known import Patients, facts_of
from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.dicom.header import read_header

KEY = bytes((37 * number + 11) % 256 for number in range(32))


def object_with(sop_class: str = CTImageStorage, **elements: object) -> bytes:
    """A made-up image of 16 x 16 pixels."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, "1.2.826.0.1.3680043.77.1.1"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.826.0.1.3680043.77.1", "1.2.826.0.1.3680043.77.2"
    ds.PatientID, ds.PatientName, ds.PatientBirthDate = "A7", "Zwickenpflug^Ada", "19561024"
    ds.StudyDate, ds.StudyTime = "20160222", "101500"
    ds.Modality = "MR" if sop_class == MRImageStorage else "CT"
    ds.Rows = ds.Columns = 16
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelData = bytes(512)
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    out = io.BytesIO()
    pydicom.dcmwrite(out, FileDataset(None, ds, file_meta=meta, preamble=bytes(128)), enforce_file_format=True)
    return out.getvalue()


def released(data: bytes) -> Dataset:
    engine = Deidentifier(load_profile("research"), ProjectKeys.derive(KEY, "heart"))
    return pydicom.dcmread(io.BytesIO(engine.deidentify(data, patient_domain="x").data))


@pytest.mark.parametrize("number", ["19561024", "24101956", "10241956", "561024", "241056", "160222", "220216"])
def test_a_number_that_is_a_day_of_the_patient_goes(number: str) -> None:
    assert released(object_with(AcquisitionNumber=number)).AcquisitionNumber is None


@pytest.mark.parametrize("name", ["*tse2d1_15", "*fl3d1", "epiRT", "*ep_b0"])
def test_the_name_of_a_sequence_stays(name: str) -> None:
    assert released(object_with(MRImageStorage, SequenceName=name)).SequenceName == name


@pytest.mark.parametrize("keyword", ["SequenceName", "ConvolutionKernel", "FilterType", "RescaleType"])
def test_a_bare_name_goes_from_technical_texts(keyword: str) -> None:
    assert not released(object_with(MRImageStorage, **{keyword: "kolmogorova"})).get(keyword)
    assert released(object_with(MRImageStorage, **{keyword: "STANDARD"}))[keyword].value == "STANDARD"


def test_a_patient_id_of_a_letter_and_a_digit_goes_from_texts() -> None:
    assert released(object_with(StudyDescription="abdomen A7")).StudyDescription == "abdomen"


def test_a_number_of_measurement_stays() -> None:
    assert released(object_with(AcquisitionNumber="160223")).AcquisitionNumber == 160223


@pytest.mark.parametrize("term", ["WSD", "SYN", "DV"])
def test_how_a_picture_became_an_object_stays(term: str) -> None:
    assert released(object_with(SecondaryCaptureImageStorage, ConversionType=term)).ConversionType == term


def test_a_name_with_digits_written_to_it_goes() -> None:
    kept = released(object_with(PatientName="Brown^Ada", StudyDescription="hand Brown2019")).StudyDescription
    assert kept == "hand"


@pytest.mark.parametrize("keyword", ["Radionuclide", "FilterType", "RescaleType", "AttenuationCorrectionMethod"])
def test_a_phone_number_and_a_name_go_from_kept_texts(keyword: str) -> None:
    kept = released(object_with(**{keyword: "041-555 1234 Oyelaran"})).get(keyword, "")
    assert "1234" not in kept
    assert "Oyelaran" not in kept


def test_a_file_meta_element_nobody_knows_stops_nothing() -> None:
    data = object_with()
    length = int.from_bytes(data[140:144], "little")
    extra = b"\x02\x00\x00\x02LO\x04\x00A7A7"
    data = (
        data[:140]
        + (length + len(extra)).to_bytes(4, "little")
        + data[144 : 144 + length]
        + extra
        + data[144 + length :]
    )
    patients = Patients()
    patients.add(facts_of(read_header(data).json, "x"))
    assert patients.identifiers(load_profile("research"))
    assert "A7A7" not in str(released(data).file_meta)


def test_bytes_that_are_no_color_profile_go_and_a_color_profile_stays() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile += bytes(len(profile) % 2)
    assert not released(object_with(ICCProfile=b"Quattrocchi Pia 88302177" * 8)).get("ICCProfile")
    assert released(object_with(ICCProfile=profile)).ICCProfile == profile
