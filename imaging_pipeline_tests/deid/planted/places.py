"""Plants in places that tools forget: values that continue, twins of an object, lists of numbers, safe private text."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from importlib import resources

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from imaging_pipeline_tests.deid.planted import objects as of
from imaging_pipeline_tests.deid.planted.headers import planter_of
from imaging_pipeline_tests.deid.planted.objects import coded, sequence, start, uid, with_image
from imaging_pipeline_tests.deid.planted.patients import Patient
from imaging_pipeline_tests.deid.planted.pixels import Drawn, ink
from imaging_pipeline_tests.deid.planted.plants import STUDY_DAY, Kind, Planted, encode


def values_that_go_on(patient: Patient) -> Planted:
    """Legal values with something behind them: after a null, a backslash, a blank, inside a date or a number."""
    planter = planter_of(patient)
    family = patient.family
    wrong_vr = {}
    for tag, vr, before, room in (
        (0x00080070, "LO", "Acme Imaging\0", 40), (0x00181020, "LO", "4.2.1\\", 40), (0x00180060, "DS", "120 ", 12),
        (0x00080031, "TM", "101530 ", 9), (0x0008002A, "DT", "20210105101530 ", 11), (0x00181150, "IS", "1 ", 10),
        (0x00185100, "CS", "HFS\0", 12), (0x00081032, "LO", "x", 20), (0x00080022, "DA", "", 8),
    ):  # fmt: skip
        planter.ds.add(DataElement(tag, "LO", before + family[:room]))
        planter.note(Kind.NAME, f"{tag:08X}", family[:room])
        wrong_vr[tag] = vr
    planter.keeps = [keep for keep in planter.keeps if keep.path != "00080070"]
    return planter.file("values-that-go-on", _with_vrs(encode(planter.ds), wrong_vr))


def _with_vrs(data: bytes, vrs: dict[int, str]) -> bytes:
    """Other VRs on elements of an explicit little endian file."""
    for tag, vr in vrs.items():
        here = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
        data = data.replace(here + b"LO", here + vr.encode())
    return data


def numbers_as_text(patient: Patient) -> Planted:
    """The birth date, the study date and the patient's number as numbers of other kinds."""
    planter = planter_of(patient)
    digits = "".join(char for char in patient.patient_id if char.isdigit())
    planter.plant(Kind.DATE, "AcquisitionNumber", STUDY_DAY)
    planter.plant(Kind.NUMBER, "Exposure", digits)
    planter.plant(Kind.NUMBER, "KVP", f"{digits}.0", digits)
    planter.plant(Kind.DATE, "DistanceSourceToDetector", f"{patient.birth_date}.5", patient.birth_date)
    planter.plant(Kind.NUMBER, "ExposureTime", f"+{digits}", digits)
    planter.plant(Kind.NUMBER, "SeriesNumber", f"00{digits}"[:12], digits)
    planter.plant(Kind.NUMBER, "SoftwareVersions", f"1.0 build {digits}", digits)
    planter.plant(Kind.NUMBER, "DoubleExposureFlag", f"F{digits}", digits)
    planter.plant(Kind.UID, "IrradiationEventUID", "1.2.840.10008.4410.2938.1961.412", "4410.2938")
    planter.plant(Kind.UID, "FrameOfReferenceUID", f"1.2.840.10008.1.4.{digits}", digits)
    planter.plant(
        Kind.UID, "ReferencedSOPClassUID", f"1.2.840.113619.4.{digits}", digits, within=("ReferencedImageSequence",)
    )
    return planter.done("numbers-as-text")


def device_texts(patient: Patient) -> Planted:
    """People, places, dates and numbers in attributes that are kept for what they say of the device."""
    planter = start(patient, of.MR)
    with_image(planter)
    for keyword, text, needles in (
        ("ManufacturerModelName", "Scanner of Dr. Krautschnabel-Huber", "Krautschnabel|Huber"),
        ("SoftwareVersions", "V4 inst. 04.01.2021 tel 089 5558 1234", "04.01.2021|5558"),
        ("SequenceName", "*fl2d1 Dr.Okonk", "Okonk"),
        ("ScanOptions", "DRKRAUTSCHNABEL", "Krautschnabel"),
        ("ConvolutionKernel", "B70 Dr Birnsting", "Birnsting"),
        ("ContrastBolusAgent", "Gadovist by Dr. Ferrowick", "Ferrowick"),
        ("ReceiveCoilName", "Nurse Quillfeat", "Quillfeat"),
        ("ImagedNucleus", "Dr Wiesengrund", "Wiesengrund"),
        ("FilterType", "Dr Vanderbloom", "Vanderbloom"),
        ("DeviceDescription", "bought by Prof. von Trottenburg", "Trottenburg"),
        ("AcquisitionDeviceProcessingDescription", "thorax Dr. Szczepanik", "Szczepanik"),
        ("ImagerPixelSpacing", ["0.1", "0.1"], ""),
        ("CalibrationImage", "YES", ""),
    ):
        if needles:
            planter.plant(Kind.STAFF, keyword, text, *needles.split("|"))
    planter.plant(Kind.INSTITUTION, "DeidentificationMethod", "scrubbed by Klinik Ottobrunn", "Ottobrunn")
    planter.plant(Kind.INSTITUTION, "DetectorManufacturerName", "Klinik Ottobrunn Werkstatt", "Ottobrunn")
    planter.plant(Kind.CONTACT, "AcquisitionDeviceProcessingCode", "x@ottilien.de", "ottilien")
    return planter.done("device-texts")


def who_was_there(patient: Patient) -> Planted:
    """Sequences that tell of people, systems and former values, and what is asked of trials."""
    planter = planter_of(patient)
    family = patient.family
    within: tuple[str, ...] = ("ContributingEquipmentSequence",)
    planter.plant(Kind.INSTITUTION, "InstitutionName", "Klinik Ottobrunn", "Ottobrunn", within=within)
    planter.plant(Kind.STAFF, "OperatorsName", "Kowalczyk^J", "Kowalczyk", within=within)
    planter.plant(Kind.STAFF, "ContributionDescription", "edited by Santangelo", "Santangelo", within=within)
    planter.inside(*within).PurposeOfReferenceCodeSequence = sequence(coded("109103", "DCM", f"Modifying {family}"))
    planter.note(Kind.NAME, "contributing purpose", f"Modifying {family}")
    within = ("OriginalAttributesSequence",)
    planter.plant(Kind.INSTITUTION, "ModifyingSystem", "OTTROUTER9", within=within)
    planter.plant(Kind.INSTITUTION, "SourceOfPreviousValues", "Praxis Ottobrunn", "Ottobrunn", within=within)
    within = ("OriginalAttributesSequence", "ModifiedAttributesSequence")
    planter.plant(Kind.NAME, "PatientName", f"Ferrowick^{patient.given}", "Ferrowick", within=within)
    planter.plant(Kind.NUMBER, "PatientID", "FORMER-99120", within=within)
    planter.plant(
        Kind.STAFF, "PersonTelephoneNumbers", "089 5559 8765", within=("ReferringPhysicianIdentificationSequence",)
    )
    planter.plant(Kind.NUMBER, "ClinicalTrialSubjectID", "TRIAL-SUBJ-0042")
    planter.plant(Kind.INSTITUTION, "ClinicalTrialSiteName", "Ottobrunn Trial Centre", "Ottobrunn Trial")
    planter.plant(Kind.STAFF, "ClinicalTrialCoordinatingCenterName", "Quillfeather Centre", "Quillfeather")
    planter.plant(Kind.NAME, "ResponsiblePerson", f"{family}^Beatrix", family)
    planter.plant(
        Kind.INSTITUTION,
        "CodingSchemeResponsibleOrganization",
        "Ottobrunn Org",
        "Ottobrunn Org",
        within=("CodingSchemeIdentificationSequence",),
    )
    planter.plant(
        Kind.NAME, "LongCodeValue", f"{family}-{patient.patient_id}", family, within=("ProcedureCodeSequence",)
    )
    planter.plant(
        Kind.NAME, "URNCodeValue", f"urn:x:{family}", family, within=("ReasonForRequestedProcedureCodeSequence",)
    )
    local = coded("HOLLOWBROOK", "99OTTILIEN", "Routine of Birnstingl")
    planter.inside("RequestedProcedureCodeSequence").update(local)
    planter.note(Kind.STAFF, "local code value", "Hollowbrook")
    planter.note(Kind.STAFF, "local code meaning", "Birnstingl")
    planter.note(Kind.INSTITUTION, "local code scheme", "99OTTILIEN")
    planter.inside("PerformedProtocolCodeSequence").update(coded("ORD-7734410", "L", "Chest"))
    planter.note(Kind.NUMBER, "number as local code", "7734410")
    signature = planter.inside("DigitalSignaturesSequence")
    signature.add_new(0x04000115, "OB", b"CN=" + family.encode("utf-8") + b"\0" * (len(family.encode("utf-8")) % 2 + 1))
    planter.note(Kind.NAME, "certificate of signer", f"CN={family}")
    planter.inside("UnassignedSharedConvertedAttributesSequence").PatientComments = f"legacy {family}"
    planter.note(Kind.NAME, "unassigned converted attribute", f"legacy {family}")
    return planter.done("who-was-there")


def aged(patient: Patient) -> Planted:
    """A patient over ninety: the age itself identifies (45 CFR 164.514 (b)(2)(i)(C))."""
    planter = planter_of(patient)
    planter.plant(Kind.DATE, "PatientAge", "094Y")
    planter.plant(Kind.DATE, "PatientAge", "093Y", within=("ReferencedPatientSequence",))
    planter.plant(Kind.DATE, "ImageComments", "94 year old man", "94")
    planter.plant(Kind.STAFF, "EthnicGroup", "Dr. Krautschn", "Krautschn")
    planter.plant(Kind.STAFF, "PreMedication", "given by Nurse Okonkwo", "Okonkwo")
    planter.plant(Kind.STAFF, "PatientState", "told Dr. Ferrowick", "Ferrowick")
    planter.keep("PatientSex", "F")
    return planter.done("aged")


def safe_private(patient: Patient) -> Iterator[Planted]:
    """Every element PS3.15 calls safe, with a name, a date or a number where its VR has room for one."""
    text = (resources.files("imaging_pipeline.deid") / "data" / "safe_private.csv").read_text("ascii")
    planter = start(patient, of.MR)
    with_image(planter)
    digits = "".join(char for char in patient.patient_id if char.isdigit())
    forms: dict[str, tuple[object, str]] = {
        "LO": (f"Dr. Krautschnabel {patient.family}", patient.family), "SH": (patient.family[:16], patient.family[:12]),
        "ST": (f"for {patient.given} {patient.family}", patient.family),
        "LT": (f"for {patient.family}", patient.family),
        "UT": (f"for {patient.family}", patient.family), "CS": (patient.family.upper()[:16], patient.family[:12]),
        "PN": (patient.name, patient.family), "DS": (digits, digits), "IS": (digits, digits),
        "UI": (uid(12, 12), uid(12, 12)), "DA": (STUDY_DAY, STUDY_DAY), "DT": (f"{STUDY_DAY}101530", STUDY_DAY),
        "OB": (patient.name.encode("utf-8")[:26], patient.family),
        "UN": (patient.name.encode("utf-8")[:26], patient.family),
    }  # fmt: skip
    for row in csv.DictReader(text.splitlines()):
        value = forms.get(row["vr"].split(" or ")[-1] or "UN")
        if value is None:
            continue
        block = planter.ds.private_block(int(row["group"], 16), row["creator"], create=True)
        block.add_new(int(row["element"], 16), row["vr"].split(" or ")[-1] or "UN", value[0])
        planter.note(Kind.NAME, f"safe private {row['creator']} {row['element']}", value[1])
    yield planter.done("safe-private-explicit")


def structured_names(patient: Patient) -> Planted:
    """Report items whose concept says that the text is a name, a place or a device, in words that are also ordinary."""
    planter = start(patient, of.SR_COMPREHENSIVE)
    ds = planter.ds
    ds.ContentDate, ds.ContentTime, ds.CompletionFlag, ds.VerificationFlag = (
        "20210106",
        "081500",
        "COMPLETE",
        "UNVERIFIED",
    )
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
    ds.ConceptNameCodeSequence = sequence(coded("18748-4", "LN", "Diagnostic Imaging Report"))
    items = []
    for code, meaning, text, kind in (
        ("121008", "Person Observer Name", "Green Field", Kind.STAFF),
        ("121009", "Person Observer's Organization Name", "Central Chest", Kind.INSTITUTION),
        ("121029", "Subject Name", "Long Head", Kind.NAME),
        ("121030", "Subject ID", "left 12", Kind.NUMBER),
        ("121013", "Device Observer Name", "White Room", Kind.DEVICE),
        ("121016", "Device Observer Serial Number", "normal 7", Kind.DEVICE),
        ("112039", "Tracking Identifier", f"Lesion {patient.family}", Kind.NAME),
        ("121017", "Device Observer Physical Location During Observation", "Upper Lobe", Kind.INSTITUTION),
    ):
        item = Dataset()
        item.RelationshipType, item.ValueType, item.TextValue = "HAS OBS CONTEXT", "TEXT", text
        item.ConceptNameCodeSequence = sequence(coded(code, "DCM", meaning))
        item.ObservationDateTime = "20210105101530"
        items.append(item)
        planter.note(kind, f"TEXT of {code}", patient.family if patient.family in text else text)
    ds.ContentSequence = Sequence(items)
    planter.note(Kind.DATE, "ObservationDateTime", "20210105")
    return planter.done("structured-names")


def drawn_overlay(patient: Patient) -> Planted:
    """An overlay whose bits draw the name."""
    planter = start(patient, of.CT)
    with_image(planter, (64, 256))
    letters = ink((64, 256), Drawn(patient.family.upper(), (20, 8))) > 0.5
    bits = np.packbits(letters.ravel(), bitorder="little").tobytes()
    ds = planter.ds
    for tag, vr, value in (
        (0x60020010, "US", 64), (0x60020011, "US", 256), (0x60020040, "CS", "G"), (0x60020050, "SS", [1, 1]),
        (0x60020100, "US", 1), (0x60020102, "US", 0), (0x60023000, "OW", bits),
    ):  # fmt: skip
        ds.add(DataElement(tag, vr, value))
    return planter.done("drawn-overlay")


def twins(patient: Patient) -> list[Planted]:
    """A second file behind the first, bytes behind a deflated data set, an unknown sequence of undefined length."""
    planter = planter_of(patient)
    data = encode(planter.ds)
    planter.note(Kind.NAME, "second file", patient.family)
    second = planter.file("second-file-behind", data + data)
    planter = planter_of(patient)
    deflated = encode(planter.ds, str(DeflatedExplicitVRLittleEndian)) + patient.name.encode("utf-8") * 2
    planter.note(Kind.NAME, "behind the deflated data", patient.family)
    behind = planter.file("behind-deflated", deflated)
    planter = planter_of(patient)
    inner = patient.name.encode("utf-8")
    inner += b" " * (len(inner) % 2)
    item = b"\x10\x00\x00\x40" + len(inner).to_bytes(4, "little") + inner
    unknown = b"\x40\x00\x75\x02UN\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" + item
    unknown += b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    data = encode(planter.ds)
    at = data.index(b"\xe0\x7f\x10\x00")
    planter.note(Kind.NAME, "unknown sequence", patient.family)
    return [second, behind, planter.file("unknown-sequence", data[:at] + unknown + data[at:])]


def bare(patient: Patient) -> Planted:
    """A data set without preamble and file meta."""
    planter = planter_of(patient)
    data = encode(planter.ds, str(ImplicitVRLittleEndian))
    start_of = data.index(b"\x08\x00\x08\x00")
    return planter.file("bare", data[start_of:])


def places(patient: Patient) -> list[Planted]:
    """All of them."""
    return [
        values_that_go_on(patient), numbers_as_text(patient), device_texts(patient), who_was_there(patient),
        aged(patient), *safe_private(patient), structured_names(patient), drawn_overlay(patient), *twins(patient),
        bare(patient),
    ]  # fmt: skip
