from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from imaging_pipeline.deid.reading import count, elements
from imaging_pipeline_tests.deid.corpus import PATIENT_ID, ROOT, chest_film, encode, keys, release, released

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
PROGRAM = """
import hashlib
from imaging_pipeline_tests.deid.corpus import chest_film, release
print(hashlib.sha256(release(chest_film()).data).hexdigest())
"""


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_transfer_syntax_and_pixels_stay_as_they_are(syntax: str) -> None:
    ds = chest_film()
    ds["PixelData"].value = twelve_bits = bytes(number % 16 for number in range(32))
    out = released(encode(ds, syntax))
    assert out.file_meta.TransferSyntaxUID == syntax
    assert out.PixelData == twelve_bits
    assert (out.Rows, out.BitsStored, out.PixelSpacing, out.PhotometricInterpretation) == (
        4,
        12,
        [0.143] * 2,
        "MONOCHROME2",
    )


def test_an_object_without_preamble_and_meta_is_read() -> None:
    content = encode(chest_film(), ImplicitVRLittleEndian)
    start = 144 + dcmread(BytesIO(content)).file_meta.FileMetaInformationGroupLength
    assert released(content[start:]).file_meta.TransferSyntaxUID == ImplicitVRLittleEndian


def test_the_result_names_what_is_in_the_object() -> None:
    result = release(chest_film())
    out = dcmread(BytesIO(result.data))
    assert (out.StudyInstanceUID, out.SeriesInstanceUID) == (result.study_instance_uid, result.series_instance_uid)
    assert out.SOPInstanceUID == result.sop_instance_uid == out.file_meta.MediaStorageSOPInstanceUID
    assert out.PatientID == str(out.PatientName) == result.patient_id == keys().patient_id("north", PATIENT_ID)
    assert out.AccessionNumber == keys().accession_number("north", "ACC992817")
    assert (result.original_patient_id, result.patient_domain) == (PATIENT_ID, "north")
    assert result.uid_map[f"{ROOT}.1"] == result.study_instance_uid
    assert set(result.uid_map.values()).isdisjoint(result.uid_map)


def test_the_object_says_what_was_done_to_it() -> None:
    out = released(chest_film())
    assert out.PatientIdentityRemoved == "YES"
    assert out.LongitudinalTemporalInformationModified == "MODIFIED"
    assert [item.CodeValue for item in out.DeidentificationMethodCodeSequence] == ["113100", "113107"]
    assert out.DeidentificationMethod
    assert out.PatientBirthDate == out.PatientSex == out.StudyID == ""


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_element_of_the_source_is_counted_once(syntax: str) -> None:
    item = Dataset()
    item.ReferencedSOPInstanceUID, item.PatientComments = "1.2.3.4.5", "x"
    ds = chest_film(ReferencedImageSequence=Sequence([item, item]), RequestAttributesSequence=Sequence([item]))
    ds.private_block(0x0029, "ACME", create=True).add_new(1, "SQ", Sequence([item]))
    content = encode(ds, syntax)
    source = dcmread(BytesIO(content))
    assert sum(release(content).actions.values()) == count(source) + count(source.file_meta)


def test_the_same_input_gives_the_same_bytes_in_another_process() -> None:
    printed = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout.strip()
    again = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout.strip()
    assert printed == again
    assert release(chest_film()).data == release(chest_film()).data


def test_references_between_objects_still_resolve() -> None:
    first, second = f"{ROOT}.3.1", f"{ROOT}.3.2"
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", first
    target = released(chest_film(SOPInstanceUID=first, FrameOfReferenceUID="1.2.3.99"))
    source = released(
        chest_film(SOPInstanceUID=second, ReferencedImageSequence=Sequence([item]), FrameOfReferenceUID="1.2.3.99")
    )
    assert source.ReferencedImageSequence[0].ReferencedSOPInstanceUID == target.SOPInstanceUID
    assert source.ReferencedImageSequence[0].ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.1.1"
    assert source.FrameOfReferenceUID == target.FrameOfReferenceUID != "1.2.3.99"


def test_two_projects_have_nothing_in_common() -> None:
    ours, theirs = released(chest_film()), released(chest_film(), project="other")
    pseudonyms = (
        "PatientID",
        "PatientName",
        "AccessionNumber",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
    )
    for keyword in (*pseudonyms, "StudyDate", "StudyTime"):
        assert ours[keyword].value != theirs[keyword].value


def test_the_same_number_from_two_sources_is_two_patients_unless_an_issuer_says_otherwise() -> None:
    assert release(chest_film(), domain="north").patient_id != release(chest_film(), domain="south").patient_id
    issued = [release(chest_film(IssuerOfPatientID="NHS"), domain=domain) for domain in ("north", "south")]
    assert issued[0].patient_id == issued[1].patient_id
    assert issued[0].patient_domain == "NHS"


@pytest.mark.parametrize("patient_id", [None, "", "  "])
def test_without_patient_id_each_study_is_its_own_patient(patient_id: str | None) -> None:
    one = release(chest_film(PatientID=patient_id))
    other = release(chest_film(PatientID=patient_id, StudyInstanceUID=f"{ROOT}.77"))
    assert one.original_patient_id == f"NO_PID:{ROOT}.1"
    assert one.patient_id != other.patient_id
    out = dcmread(BytesIO(one.data))
    assert out.PatientID == str(out.PatientName) == one.patient_id


def _moment(ds: Dataset) -> datetime:
    return datetime.strptime(ds.StudyDate + ds.StudyTime, "%Y%m%d%H%M%S")  # noqa: DTZ007  # DICOM's wall clock


def test_intervals_between_the_studies_of_a_patient_are_kept() -> None:
    sources = [
        chest_film(StudyDate="20210105", StudyTime="101530"),
        chest_film(StudyDate="20230630", StudyTime="000001"),
    ]
    before = _moment(sources[1]) - _moment(sources[0])
    first, second = (released(ds) for ds in sources)
    assert _moment(second) - _moment(first) == before
    assert first.StudyDate != "20210105"
    assert _moment(first) - _moment(sources[0]) == keys().date_shift("north", PATIENT_ID)


def test_date_and_datetime_of_one_object_move_together() -> None:
    out = released(chest_film(AcquisitionDateTime="20210105101530.250000+0100", AcquisitionDate="20210105"))
    assert out.AcquisitionDateTime == f"{out.StudyDate}{out.StudyTime}.250000"
    assert len(out.AcquisitionDate) == 8


def test_a_second_run_over_an_output_changes_it_again() -> None:
    once = release(chest_film()).data
    twice = release(once)
    assert twice.patient_id != dcmread(BytesIO(once)).PatientID
    texts = {str(elem.value) for _, _, _, _, elem in elements(dcmread(BytesIO(twice.data))) if elem and elem.VR == "UI"}
    assert texts.isdisjoint(release(chest_film()).uid_map.values())
