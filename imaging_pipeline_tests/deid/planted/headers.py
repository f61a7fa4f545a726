"""Plants in headers: realistic attributes, every attribute of the dictionary, private blocks, odd places of a file."""

from __future__ import annotations

import warnings
import zlib

from pydicom._dicom_dict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from imaging_pipeline_tests.deid.planted.objects import CT, DX, MR, coded, reference, start, uid, with_image
from imaging_pipeline_tests.deid.planted.patients import SERIAL, Patient
from imaging_pipeline_tests.deid.planted.plants import Kind, Planted, Planter, encode

LIMITS = {
    "AE": 16, "AS": 4, "CS": 16, "DA": 8, "DT": 26, "TM": 14, "LO": 64, "LT": 1024, "PN": 64, "SH": 16, "ST": 1024,
    "UC": 64, "UR": 64, "UT": 64, "DS": 16, "IS": 12, "UI": 64,
}  # fmt: skip
TEXTS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_ESSENTIAL = frozenset({
    "Modality", "PhotometricInterpretation", "ImageType", "BurnedInAnnotation", "PatientName", "PatientID",
    "SpecificCharacterSet", "AccessionNumber", "IssuerOfPatientID", "PresentationIntentType", "Manufacturer",
    "ConversionType", "RecognizableVisualFeatures", "PixelPresentation",
})  # fmt: skip


def radiograph(patient: Patient) -> Planted:
    """A chest film as archives have them: identifiers where people and devices put them, clean text beside them."""
    planter = start(patient, DX)
    with_image(planter)
    _people_and_places(planter)
    _dates_and_uids(planter)
    _descriptions(planter)
    _technique(planter)
    return planter.done(f"radiograph-{patient.family}")


def _people_and_places(planter: Planter) -> None:
    plant, family, given = planter.plant, planter.patient.family, planter.patient.given
    plant(Kind.NAME, "OtherPatientNames", f"{family}-Smythe^{given}", f"{family}-Smythe", family)
    plant(Kind.NAME, "PatientBirthName", f"Ferrowick^{given}", "Ferrowick")
    plant(Kind.NAME, "PatientMotherBirthName", "Dunnaskellen^Rosa", "Dunnaskellen")
    plant(Kind.NUMBER, "OtherPatientIDs", ["ALT-5550917", "SSN 078-05-1120"], "ALT-5550917", "078-05-1120")
    plant(Kind.NUMBER, "PatientID", "OLD-884412", within=("OtherPatientIDsSequence",))
    plant(Kind.NUMBER, "MedicalRecordLocator", "SHELF 77-B-10442", "77-B-10442")
    plant(Kind.NUMBER, "AdmissionID", "ADM20210105-3")
    plant(Kind.NUMBER, "IssuerOfAdmissionID", "OTTHIS")
    plant(Kind.NUMBER, "FillerOrderNumberImagingServiceRequest", "FON-554433")
    plant(Kind.NUMBER, "PlacerOrderNumberImagingServiceRequest", "PON-998877")
    plant(Kind.NUMBER, "RequestedProcedureID", "RP4410098", within=("RequestAttributesSequence",))
    plant(Kind.NUMBER, "ScheduledProcedureStepID", "SPS551200", within=("RequestAttributesSequence",))
    plant(Kind.NUMBER, "PerformedProcedureStepID", "PPS9931001")
    plant(Kind.NUMBER, "MilitaryRank", "Oberstabsgefreiter")
    plant(Kind.CONTACT, "PatientInsurancePlanCodeSequence", [coded("INS5512", "99LOC", f"Plan of {family}")], "INS5512")
    plant(Kind.CONTACT, "CountryOfResidence", "Liechtenstein")
    plant(Kind.CONTACT, "RegionOfResidence", "Oberfranken-Ost")
    plant(Kind.CONTACT, "CurrentPatientLocation", "Ward 7B bed 12", "Ward 7B")
    plant(Kind.STAFF, "PhysiciansOfRecord", "Vanderbloom^Piet", "Vanderbloom")
    plant(Kind.STAFF, "PerformingPhysicianName", "Okonkwo-Reyes^Ada", "Okonkwo")
    plant(Kind.STAFF, "NameOfPhysiciansReadingStudy", "Delacroix-Petit^Luc", "Delacroix")
    plant(Kind.STAFF, "OperatorsName", "Szczepanik^Ola", "Szczepanik")
    plant(Kind.STAFF, "RequestingPhysician", "Featherstonehaugh^P", "Featherstonehaugh")
    plant(Kind.STAFF, "ScheduledPerformingPhysicianName", "Quillfeather^N", within=("RequestAttributesSequence",))
    plant(Kind.STAFF, "PersonIdentificationCodeSequence", [coded("EMP40071", "99STAFF", "Quillfeather")], "EMP40071")
    plant(Kind.INSTITUTION, "InstitutionAddress", "Ottilienplatz 4, 80331 Musterstadt", "Ottilienplatz", "80331")
    plant(Kind.INSTITUTION, "InstitutionalDepartmentName", "Radiologie Haus Drei", "Radiologie Haus Drei")
    plant(Kind.DEVICE, "DetectorID", "DET-33417-A")
    plant(Kind.DEVICE, "PlateID", "PLT00992817")
    plant(Kind.DEVICE, "CassetteID", "CAS-440071")
    plant(Kind.DEVICE, "GantryID", "GNT-5571")
    plant(Kind.DEVICE, "PerformedStationAETitle", "OTTAE77")
    plant(Kind.DEVICE, "RetrieveAETitle", "OTTPACS01")


def _dates_and_uids(planter: Planter) -> None:
    planter.day("SeriesDate", "20210105")
    planter.day("AcquisitionDate", "20210104")
    planter.day("ContentDate", "20210106")
    planter.day("PerformedProcedureStepStartDate", "20210105")
    planter.day("ScheduledProcedureStepStartDate", "20201229", within=("RequestAttributesSequence",))
    planter.day("AcquisitionDateTime", "20210105101530.120")
    planter.plant(Kind.DATE, "LastMenstrualDate", "20201203")
    planter.uid("FrameOfReferenceUID", uid(1, 9, 1))
    planter.uid("ReferencedSOPInstanceUID", uid(1, 1, 77), within=("ReferencedStudySequence",))
    planter.uid("SynchronizationFrameOfReferenceUID", uid(1, 9, 2))


def _descriptions(planter: Planter) -> None:
    patient, text = planter.patient, planter.text
    family, given = patient.family, patient.given
    text(Kind.STAFF, "StudyDescription", "CHEST PA/LAT, ref. Dr. Krautschnabel", "Krautschnabel", "CHEST|PA|LAT")
    text(Kind.NAME, "SeriesDescription", f"Thorax p.a. {family.upper()}", family, "Thorax")
    text(Kind.NAME, "ProtocolName", f"Chest {given} {family} routine", f"{family}|{given} {family}", "Chest|routine")
    text(
        Kind.NUMBER,
        "ImageComments",
        f"compare with MRN {patient.patient_id}, no pneumothorax",
        patient.patient_id,
        "no pneumothorax",
    )
    text(
        Kind.STAFF,
        "AdditionalPatientHistory",
        "Cough for 3 weeks, fever. Called Dr. P. Vanderbloom at 089 5558 1234.",
        "Vanderbloom|5558 1234",
        "Cough for 3 weeks|fever",
    )
    text(Kind.CONTACT, "PatientComments", f"Lives at {patient.street}, {patient.city}", patient.street, "")
    text(
        Kind.STAFF,
        "RequestedProcedureDescription",
        "XR chest requested by Nurse Okonkwo",
        "Okonkwo",
        "chest",
        ("RequestAttributesSequence",),
    )


def _technique(planter: Planter) -> None:
    planter.keep("BodyPartExamined", "CHEST")
    planter.keep("ViewPosition", "PA")
    planter.keep("KVP", "125")
    planter.keep("ExposureTime", "8")
    planter.keep("PixelSpacing", ["0.143", "0.143"])
    planter.keep("WindowCenter", "2047")
    planter.keep("WindowWidth", "4095")
    planter.keep("ManufacturerModelName", "Radiomatic 3000")
    planter.keep("SoftwareVersions", "4.2.1")
    planter.keep("PresentationIntentType", "FOR PRESENTATION")
    planter.keep("ImageLaterality", "U")
    planter.keep("PatientOrientation", ["L", "F"])
    planter.keep("RescaleIntercept", "0")
    planter.keep("RescaleSlope", "1")
    planter.ds.AnatomicRegionSequence = Sequence([coded("51185008", "SCT", "Chest")])
    planter.keep("CodeValue", "51185008", within=("AnatomicRegionSequence",))


def every_attribute(patient: Patient, syntax: str, depth: int) -> Planted:
    """Every text attribute of the dictionary with the patient's name and number, at the top or ``depth`` items deep."""
    planter = start(patient, DX)
    with_image(planter)
    target = planter.ds
    for _ in range(depth):
        inner = Dataset()
        target.PerFrameFunctionalGroupsSequence = Sequence([inner])
        target = inner
    for tag, (vr, _, _, _, keyword) in sorted(DicomDictionary.items()):
        if vr not in TEXTS or tag < 0x00080006 or tag >> 16 >= 0x5000 or (not depth and keyword in _ESSENTIAL):
            continue
        if tag in target:
            continue
        number = f"7{tag:08X}Z"
        value = f"{number} {patient.family}"[: LIMITS[vr]] if vr not in ("CS", "AE", "UR") else number
        target.add(DataElement(tag, vr, value))
        planter.note(Kind.NUMBER, f"{tag:08X} at depth {depth}", number)
    return planter.done(f"every-attribute-{UID(syntax).keyword}-{depth}", syntax)


def numbers(patient: Patient) -> Planted:
    """Identifiers in attributes of numbers, codes, times and UIDs, and under VRs they should not have."""
    planter = start(patient, CT)
    with_image(planter, bits=16)
    digits = "".join(char for char in patient.patient_id if char.isdigit())[:8]
    planter.plant(Kind.NUMBER, "AcquisitionNumber", digits)
    planter.plant(Kind.NUMBER, "SeriesNumber", digits)
    planter.plant(Kind.DATE, "TemporalPositionIndex", int(patient.birth_date), patient.birth_date)
    planter.plant(Kind.DATE, "KVP", patient.birth_date)
    planter.uid("StorageMediaFileSetUID", f"1.2.840.113619.2.{digits}.1")
    planter.uid("IrradiationEventUID", uid(1, int(digits)))
    planter.uid("MappingResourceUID", uid(1, 44), within=("AnatomicRegionSequence",))
    planter.inside("AnatomicRegionSequence").update(coded("69536005", "SCT", f"Head of {patient.name}"))
    planter.note(Kind.NAME, "CodeMeaning", patient.family)
    odd = [
        (0x00180090, "LO"), (0x00189004, "UT"), (0x00281050, "OB"), (0x00280120, "OB"), (0x00081140, "LO"),
        (0x00200013, "LO"), (0x00281051, "SH"), (0x00180050, "PN"), (0x00280030, "ST"), (0x00201041, "UC"),
    ]  # fmt: skip
    for tag, vr in odd:
        value: object = patient.name.encode() if vr == "OB" else patient.name
        planter.ds.add(DataElement(tag, vr, value))
        planter.note(Kind.NAME, f"{tag:08X} as {vr}", patient.family)
    planter.ds.add(DataElement(0x00100000, "UL", int(digits)))
    planter.ds.add(DataElement(0x0018FFFE, "LO", f"unknown {patient.family}"))
    planter.note(Kind.NAME, "0018FFFE", patient.family)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return planter.done("numbers")


def private(patient: Patient, syntax: str) -> Planted:
    """Private blocks of known and unknown makers, at the top and nested, with names, dates and numbers."""
    planter = start(patient, MR)
    with_image(planter)
    inner = planter.inside("RequestAttributesSequence")
    for holder, number in ((planter.ds, 1), (inner, 2)):
        block = holder.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
        block.add_new(0x08, "CS", "IMAGE NUM 4")
        block.add_new(0x10, "OB", _shadow(patient))
        planter.note(Kind.NAME, f"private CSA header {number}", patient.family)
        block = holder.private_block(0x0009, "GEMS_IDEN_01", create=True)
        block.add_new(0x02, "SH", f"{SERIAL[:8]}")
        block.add_new(0x27, "SL", 1609837530)
        block.add_new(0xE3, "UI", uid(5, number))
        planter.note(Kind.UID, f"private GEMS UID {number}", uid(5, number))
        planter.note(Kind.DEVICE, f"private GEMS suite id {number}", SERIAL[:8])
        block = holder.private_block(0x2001, "Philips Imaging DD 001", create=True)
        block.add_new(0x03, "FL", 1000.0)
        block.add_new(0xC8, "LO", f"Exam of {patient.name}")
        planter.note(Kind.NAME, f"private Philips exam card {number}", patient.family)
        block = holder.private_block(0x0011, f"{patient.family.upper()} TOOLS"[:60], create=True)
        block.add_new(0x01, "LO", patient.patient_id)
        block.add_new(0x02, "UN", patient.name.encode("utf-8"))
        block.add_new(0x03, "DA", patient.birth_date)
        planter.note(Kind.NAME, f"private creator {number}", patient.family)
        planter.note(Kind.NUMBER, f"private number {number}", patient.patient_id)
        deep = Dataset()
        deep.PatientComments = f"{patient.given} {patient.family}"
        block.add_new(0x04, "SQ", Sequence([deep]))
        planter.note(Kind.NAME, f"private sequence {number}", f"{patient.given} {patient.family}")
        block.add_new(0x05, "UN", zlib.compress(patient.name.encode("utf-8") * 3))
    planter.ds.add(DataElement(0x00130001, "LO", f"no creator {patient.family}"))
    planter.note(Kind.NAME, "private without creator", patient.family)
    diffusion = planter.ds.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    diffusion.add_new(0x0C, "IS", "1000")
    diffusion.add_new(0x0D, "CS", "DIRECTIONAL")
    diffusion.add_new(0x0B, "DS", patient.birth_date)
    planter.note(Kind.DATE, "private safe element of another meaning", patient.birth_date)
    return planter.done(f"private-{UID(syntax).keyword}", syntax)


def _shadow(patient: Patient) -> bytes:
    text = f'tPatientName = "{patient.name}"\nlScanTime = 20210105101530\nPatientID = {patient.patient_id}\n'
    data = b"SV10\4\3\2\1" + bytes(8) + text.encode("utf-8")
    return data + b"\0" * (len(data) % 2)


def odd_places(patient: Patient, *, trailing: bool, padding: bool) -> Planted:
    """Preamble, file meta, padding, what follows the data set, and what follows a value inside its own length."""
    planter = start(patient, DX)
    with_image(planter)
    name = patient.name.encode("utf-8")
    meta = planter.ds.file_meta = FileMetaDataset()
    meta.SourceApplicationEntityTitle = "QUILLHAVENAE"
    meta.SendingApplicationEntityTitle = "QUILLHAVENSND"
    meta.ReceivingApplicationEntityTitle = "QUILLHAVENRCV"
    meta.ImplementationVersionName = "ZWYNTH_1"
    meta.ImplementationClassUID = UID(uid(6, 6))
    meta.PrivateInformationCreatorUID = UID("1.2.3.4.5")
    meta.PrivateInformation = name + b" " * (len(name) % 2)
    for word in ("QUILLHAVENAE", "QUILLHAVENSND", "QUILLHAVENRCV"):
        planter.note(Kind.INSTITUTION, f"file meta {word[10:]}", word)
    planter.note(Kind.DEVICE, "file meta version", "ZWYNTH_1")
    planter.note(Kind.UID, "file meta class", uid(6, 6))
    planter.note(Kind.NAME, "file meta private", patient.family)
    planter.note(Kind.NAME, "preamble", patient.family)
    if padding:
        planter.ds.add(DataElement(0xFFFCFFFC, "OB", name + b"\0" * (len(name) % 2)))
        planter.ds.add(DataElement(0x00180010, "LO", f"Iodine\0{patient.family}"))
        planter.note(Kind.NAME, "padding", patient.family)
    behind = b"\xfe\xff\0\0" + name * 2 if trailing else b""
    data = encode(
        planter.ds, preamble=(name + b" " + patient.patient_id.encode()).ljust(128, b" ")[:128], trailing=behind
    )
    return planter.file(f"odd-places-{'trailing' if trailing else 'inside'}{'-padding' if padding else ''}", data)


def references(patient: Patient) -> Planted:
    """The same UIDs in many attributes, whose replacements must agree; long and odd forms of them."""
    planter = start(patient, CT)
    with_image(planter, bits=16)
    shared = uid(1, 1, 501)
    for within in (
        ("ReferencedImageSequence",), ("SourceImageSequence",),
        ("ReferencedSeriesSequence", "ReferencedInstanceSequence"),
        ("StudiesContainingOtherReferencedInstancesSequence", "ReferencedSeriesSequence", "ReferencedInstanceSequence"),
        ("DerivationImageSequence", "SourceImageSequence"),
    ):  # fmt: skip
        planter.inside(*within).update(reference(CT, shared))
        planter.uid("ReferencedSOPInstanceUID", shared, within=within)
    planter.uid("ConcatenationUID", uid(1, 88, 1))
    planter.uid("DimensionOrganizationUID", uid(1, 88, 2), within=("DimensionOrganizationSequence",))
    planter.uid("TargetUID", uid(1, 88, 3))
    planter.uid("TransactionUID", uid(1, 88, 4))
    planter.uid("DeviceUID", f"1.3.12.2.1107.5.1.4.{SERIAL[2:7]}")
    planter.uid("PaletteColorLookupTableUID", uid(1, 88, 6))
    return planter.done("references")


SYNTAXES = (str(ImplicitVRLittleEndian), str(ExplicitVRBigEndian), str(DeflatedExplicitVRLittleEndian))


def planter_of(patient: Patient) -> Planter:
    """A clean radiograph to plant on."""
    planter = start(patient, DX)
    with_image(planter)
    return planter
