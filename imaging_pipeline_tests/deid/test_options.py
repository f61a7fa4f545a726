"""What each option of PS3.15 E.3, an override and the type of an object change in what comes out."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence

from imaging_pipeline.deid import codes
from imaging_pipeline.deid.documents import PLACEHOLDERS
from imaging_pipeline.deid.engine import Deidentified, Deidentifier
from imaging_pipeline.deid.profile import Profile, load_profile
from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline_tests.deid.corpus import NAME, ROOT, chest_film, encode, keys

DATES = "retain_longitudinal_modified_dates"
FULL = "retain_longitudinal_full_dates"
MR, SR, ECG, PDF, PLAN = (
    "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.9.1.1",
    "1.2.840.10008.5.1.4.1.1.104.1", "1.2.840.10008.5.1.4.1.1.481.5",
)  # fmt: skip


def profile_with(*options: str) -> Profile:
    return replace(load_profile(), options=frozenset(options))


def run(ds: Dataset, profile: Profile) -> Deidentified:
    return Deidentifier(profile, keys()).deidentify(encode(ds), patient_domain="north")


def out_of(ds: Dataset, profile: Profile) -> FileDataset:
    return dcmread(BytesIO(run(ds, profile).data))


def without_pixels(sop_class: str, modality: str, **attributes: object) -> Dataset:
    pixels = (
        "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
        "PhotometricInterpretation", "PixelSpacing", "PixelData", "ImageType", "PresentationIntentType",
    )  # fmt: skip
    ds = chest_film(SOPClassUID=sop_class, Modality=modality, **attributes)
    for keyword in pixels:
        delattr(ds, keyword)
    return ds


def item(**attributes: object) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def code(value: str, scheme: str, meaning: str) -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def codes_of(ds: FileDataset) -> list[str]:
    return [found.CodeValue for found in ds.DeidentificationMethodCodeSequence]


def test_full_dates_stay_as_they_are_and_the_object_says_so() -> None:
    out = out_of(chest_film(DateOfLastCalibration="20200101", ContentDate="not"), profile_with(FULL))
    assert (out.StudyDate, out.StudyTime, out.DateOfLastCalibration) == ("20210105", "101530", "20200101")
    assert not out.get("ContentDate")
    assert out.PatientBirthDate == ""
    assert out.LongitudinalTemporalInformationModified == "UNMODIFIED"
    assert codes_of(out) == ["113100", "113106"]


def test_device_identity_stays_without_its_dates_where_dates_move() -> None:
    ds = chest_film(DeviceSerialNumber="SN-4711-22", StationName="CR7", DateOfLastCalibration="20200101")
    out = out_of(ds, profile_with(DATES, "retain_device_identity"))
    assert (out.DeviceSerialNumber, out.StationName) == ("SN-4711-22", "CR7")
    assert not out.get("DateOfLastCalibration")
    assert "113109" in codes_of(out)


def test_institution_identity_stays_unless_it_is_the_patients_name() -> None:
    profile = profile_with(DATES, "retain_institution_identity")
    assert out_of(chest_film(), profile).InstitutionName == "St. Ottilien Hospital"
    assert not out_of(chest_film(InstitutionName=f"Praxis {NAME.split('^')[0]}"), profile).get("InstitutionName")


@pytest.mark.parametrize(
    ("age", "expected"), [("063Y", "063Y"), ("089Y", "089Y"), ("093Y", "090Y"), ("999M", "999M"), ("old", None)]
)
def test_characteristics_of_the_patient_stay_with_ages_above_89_made_one(age: str, expected: str | None) -> None:
    ds = chest_film(PatientWeight="81.5", EthnicGroup="White", SmokingStatus="NO")
    ds.add(DataElement(0x00101010, "AS", age, already_converted=True))
    out = out_of(ds, profile_with(DATES, "retain_patient_characteristics"))
    assert (out.get("PatientAge") or None) == expected
    assert (out.PatientSex, out.PatientWeight, out.EthnicGroup, out.SmokingStatus) == ("F", 81.5, "White", "NO")
    assert "Krautschnabel" not in str(
        out_of(chest_film(EthnicGroup="Krautschnabel"), profile_with(DATES, "retain_patient_characteristics"))
    )


def test_retained_uids_are_the_same_everywhere_in_the_object() -> None:
    reference = item(ReferencedSOPClassUID=MR, ReferencedSOPInstanceUID=f"{ROOT}.9")
    result = run(chest_film(ReferencedImageSequence=Sequence([reference])), profile_with(DATES, "retain_uids"))
    out = dcmread(BytesIO(result.data))
    assert out.SOPInstanceUID == out.file_meta.MediaStorageSOPInstanceUID == f"{ROOT}.3.1"
    assert out.ReferencedImageSequence[0].ReferencedSOPInstanceUID == f"{ROOT}.9"
    assert result.uid_map == {}


def test_descriptions_are_cleaned_and_texts_the_table_does_not_list_too() -> None:
    ds = chest_film(
        StudyDescription="Chest PA, ref. Dr. Krautschnabel", SeriesDescription=NAME,
        DetectorDescription="flat panel Zwyntharquist",
        LensDescription="wide", ImageComments="no pneumothorax",
    )  # fmt: skip
    out = out_of(ds, profile_with(DATES, "clean_descriptors"))
    assert out.StudyDescription.startswith("Chest PA")
    assert "Krautschnabel" not in out.StudyDescription
    assert "SeriesDescription" not in out
    assert "flat panel" in out.DetectorDescription
    assert "Zwyntharquist" not in out.DetectorDescription
    assert out.ImageComments == "no pneumothorax"
    assert "StudyDescription" not in out_of(ds, profile_with(DATES))


def test_a_cleaned_text_that_is_not_ascii_comes_in_utf_8() -> None:
    out = out_of(chest_film(SpecificCharacterSet="ISO_IR 100", ImageComments="Fraktur der Hüfte"),
                 profile_with(DATES, "clean_descriptors"))  # fmt: skip
    assert out.SpecificCharacterSet == "ISO_IR 192"
    assert out.ImageComments == "Fraktur der Hüfte"


def _private_film() -> Dataset:
    ds = chest_film(SOPClassUID=MR, Modality="MR")
    block = ds.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", "1000")
    block.add_new(0x0D, "CS", "DIRECTIONAL")
    block.add_new(0x0F, "LO", NAME)
    hidden = ds.private_block(0x0043, "GEMS_PARM_01", create=True)
    hidden.add_new(0x39, "LO", NAME)  # safe as IS, not as text
    other = ds.private_block(0x0099, "ACME", create=True)
    other.add_new(0x01, "LO", NAME)
    return ds


def test_private_elements_stay_only_when_listed_as_safe_and_of_their_vr() -> None:
    result = run(_private_film(), profile_with(DATES, "retain_safe_private"))
    out = dcmread(BytesIO(result.data))
    assert [int(elem.tag) for elem in out if elem.tag.is_private] == [0x00190010, 0x0019100C, 0x0019100D]
    assert (out[0x0019100C].value, out[0x0019100D].value) == (1000, "DIRECTIONAL")
    assert result.attribute_actions["00990010 X"] == result.attribute_actions["00431039 X"] == 1
    assert b"wyntharquist" not in result.data
    assert not [elem for elem in out_of(_private_film(), profile_with(DATES)) if elem.tag.is_private]


def test_an_override_is_for_its_class_and_manufacturer_alone(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(
        "extends: basic\nprofile: site\noverrides:\n"
        "  - {keyword: StationName, action: K, reason: rooms are public here, manufacturer: acme imaging}\n"
        f"  - {{keyword: ViewPosition, action: X, reason: wrong on these, sop_class: {MR}}}\n",
        "utf-8",
    )
    profile = load_profile(path)
    assert out_of(chest_film(StationName="ROOM-7"), profile).StationName == "ROOM-7"
    assert not out_of(chest_film(StationName="ROOM-7", Manufacturer="Other"), profile).get("StationName")
    assert out_of(chest_film(), profile).ViewPosition == "PA"
    assert "ViewPosition" not in out_of(chest_film(SOPClassUID=MR), profile)


def _report() -> Dataset:
    finding, observer = code("121071", "DCM", "Finding"), code("121008", "DCM", "Person Observer Name")
    contents = [
        item(RelationshipType="CONTAINS", ValueType="TEXT", ConceptNameCodeSequence=[finding],
             TextValue=f"No pneumothorax. Seen with {NAME.split('^')[0]}."),
        item(RelationshipType="CONTAINS", ValueType="PNAME", PersonName="Vogt^Emil",
             ConceptNameCodeSequence=[observer]),
        item(RelationshipType="CONTAINS", ValueType="TEXT", TextValue="Emil Vogt",
             ConceptNameCodeSequence=[code("121114", "DCM", "Performing Physician")]),
        item(RelationshipType="CONTAINS", ValueType="DATE", Date="19610412",
             ConceptNameCodeSequence=[code("121031", "DCM", "Subject Birth Date")]),
        item(RelationshipType="CONTAINS", ValueType="DATETIME", DateTime="20210105101530",
             ConceptNameCodeSequence=[finding]),
        item(RelationshipType="CONTAINS", ValueType="UIDREF", UID=f"{ROOT}.1", ConceptNameCodeSequence=[finding]),
        item(RelationshipType="CONTAINS", ValueType="CODE", ConceptNameCodeSequence=[finding],
             ConceptCodeSequence=[code("0815", "99HOUSE", "normal chest")]),
    ]  # fmt: skip
    ds = without_pixels(SR, "SR", CompletionFlag="COMPLETE", VerificationFlag="VERIFIED", ValueType="CONTAINER")
    ds.ConceptNameCodeSequence = [code("126000", "DCM", "Imaging Measurement Report")]
    ds.ContentSequence = contents
    ds.VerifyingObserverSequence = [
        item(VerifyingObserverName="Vogt^Emil", VerifyingOrganization="St. Ottilien", VerificationDateTime="20210105",
             VerifyingObserverIdentificationCodeSequence=[code("E-77", "99STAFF", "Emil Vogt")])
    ]  # fmt: skip
    return ds


def test_a_report_is_cleaned_item_by_item() -> None:
    result = run(_report(), load_profile("research"))
    out = dcmread(BytesIO(result.data))
    text, observer, physician, moment, reference, coded = out.ContentSequence
    assert text.TextValue.startswith("No pneumothorax.")
    assert observer.PersonName == physician.TextValue == "DEIDENTIFIED"
    assert moment.DateTime == f"{out.StudyDate}{out.StudyTime}"
    assert out.StudyInstanceUID == reference.UID
    assert coded.ConceptCodeSequence[0].CodeMeaning == "normal chest"
    verifier = out.VerifyingObserverSequence[0]
    assert verifier.VerifyingObserverName == verifier.VerifyingOrganization == "DEIDENTIFIED"
    assert not verifier.VerifyingObserverIdentificationCodeSequence
    for secret in (b"Vogt", b"wyntharquist", b"E-77", b"19610412"):
        assert secret not in result.data


def test_a_waveform_keeps_its_samples_and_loses_what_goes_on_behind_them() -> None:
    group = item(NumberOfWaveformChannels=1, NumberOfWaveformSamples=4, WaveformBitsAllocated=16,
                 SamplingFrequency="500", WaveformSampleInterpretation="SS", MultiplexGroupLabel=NAME)  # fmt: skip
    group.add(DataElement(0x54001010, "OW", bytes(range(8))))
    ds = without_pixels(ECG, "ECG", WaveformSequence=Sequence([group]))
    ds.WaveformAnnotationSequence = [
        item(UnformattedTextValue=f"sinus rhythm {NAME}", ReferencedWaveformChannels=[1, 1])
    ]
    out = out_of(ds, load_profile("research"))
    assert out.WaveformSequence[0].WaveformData == bytes(range(8))
    assert "MultiplexGroupLabel" not in out.WaveformSequence[0]
    assert out.WaveformAnnotationSequence[0].UnformattedTextValue.startswith("sinus rhythm")
    group["WaveformData"].value = bytes(8) + NAME.encode()
    with pytest.raises(PoisonInput, match="longer than its samples"):
        run(ds, load_profile("research"))


def _document() -> Dataset:
    ds = without_pixels(PDF, "DOC", MIMETypeOfEncapsulatedDocument="application/pdf", DocumentTitle=f"Letter of {NAME}")
    ds.add(DataElement(0x00420011, "OB", b"%PDF-1.4 " + NAME.encode()))
    ds.BurnedInAnnotation = "YES"
    ds.EncapsulatedDocumentLength = 100
    return ds


def test_a_document_is_held_or_replaced_by_an_empty_one() -> None:
    research = load_profile("research")
    with pytest.raises(PoisonInput) as caught:
        run(_document(), research)
    assert caught.value.reason in (Reason.NOT_DEIDENTIFIABLE, Reason.PIXEL_REVIEW_REQUIRED)
    ds = _document()
    ds.BurnedInAnnotation = "NO"
    out = out_of(ds, replace(research, encapsulated_documents="placeholder"))
    assert out.EncapsulatedDocument.rstrip(b"\0") == PLACEHOLDERS["application/pdf"]
    assert (out.MIMETypeOfEncapsulatedDocument, out.EncapsulatedDocumentLength) == ("application/pdf", 310)
    ds.MIMETypeOfEncapsulatedDocument = "text/plain"
    with pytest.raises(PoisonInput, match="no placeholder"):
        run(ds, replace(research, encapsulated_documents="placeholder"))


def test_the_offsets_of_the_empty_pdf_are_right() -> None:
    document = PLACEHOLDERS["application/pdf"]
    start = int(document.rpartition(b"startxref\n")[2].split()[0])
    assert document[start:].startswith(b"xref")
    rows = document[start:].splitlines()[3:6]
    assert [document[int(row[:10]) :].startswith(b"%d 0 obj" % number) for number, row in enumerate(rows, 1)] == [
        True
    ] * 3


def test_a_plan_keeps_its_numbers_and_loses_its_people() -> None:
    beam = item(BeamNumber=1, RadiationType="PHOTON", BeamName=f"Beam {NAME}", TreatmentMachineName="LINAC SMITH")
    ds = without_pixels(PLAN, "RTPLAN", RTPlanLabel="Breast left", RTPlanDate="20210105", BeamSequence=[beam])
    ds.OperatorsName, ds.PlanIntent = "Vogt^Emil", "CURATIVE"
    out = out_of(ds, load_profile("research"))
    assert (out.RTPlanLabel, out.PlanIntent, out.BeamSequence[0].RadiationType) == ("Breast left", "CURATIVE", "PHOTON")
    assert out.RTPlanDate == out.StudyDate
    assert out.OperatorsName == ""
    assert out.BeamSequence[0].TreatmentMachineName == ""


def test_identifiers_from_other_objects_of_the_patient_are_taken_out_too() -> None:
    from imaging_pipeline.deid.screen import Identifier, Kind

    ds = chest_film(ImageComments="compare Wolkenstein chest")
    known = [Identifier(Kind.PERSON, "compare")]
    engine = Deidentifier(profile_with(DATES, "clean_descriptors"), keys())
    assert b"compare" in engine.deidentify(encode(ds), patient_domain="n").data
    assert b"compare" not in engine.deidentify(encode(ds), patient_domain="n", known=known).data


@pytest.mark.parametrize(
    ("value", "meaning"),
    [("uV", "uV"), ("mm[Hg]", "mm[Hg]"), ("g/(24.h)", None), ("ml/min", "ml/min"), ("{Vogt}", None), ("Vogt", None)],
)
def test_units_of_measurement_stay_and_annotations_in_them_do_not(value: str, meaning: str | None) -> None:
    found = codes.meaning("UCUM", value)
    assert found == meaning or (found and meaning)


def test_actions_are_counted_by_attribute_and_sum_up() -> None:
    reference = item(ReferencedSOPClassUID=MR, ReferencedSOPInstanceUID=f"{ROOT}.9")
    result = run(chest_film(ReferencedImageSequence=Sequence([reference, reference])), load_profile())
    assert result.attribute_actions["00081140.00081155 U"] == 2
    assert result.attribute_actions["00100010 D"] == 1
    assert result.attribute_actions["00020003 U"] == 1
    assert sum(result.attribute_actions.values()) == sum(result.actions.values())


def test_patient_and_accession_numbers_under_ff1_open_with_the_key() -> None:
    out = out_of(chest_film(), replace(load_profile(), identifiers="ff1"))
    assert keys().original_patient_id("north", out.PatientID) == "MRN-7731945"
