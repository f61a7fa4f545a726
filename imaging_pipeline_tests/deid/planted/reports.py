"""Plants in objects that are no plain images: reports, presentation states, documents, waveforms, radiotherapy."""

from __future__ import annotations

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from imaging_pipeline_tests.deid.planted import objects as of
from imaging_pipeline_tests.deid.planted.objects import coded, reference, sequence, start, uid, with_image
from imaging_pipeline_tests.deid.planted.patients import Patient
from imaging_pipeline_tests.deid.planted.plants import Kind, Planted, Planter

CONTENT = "ContentSequence"


def _content(kind: str, relation: str, name: Dataset, **values: object) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = relation, kind
    item.ConceptNameCodeSequence = sequence(name)
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def report(patient: Patient) -> Planted:
    """A structured report with a plant in every value type of its content tree, two levels deep (PS3.3 C.17.3)."""
    planter = start(patient, of.SR_COMPREHENSIVE)
    ds, note = planter.ds, planter.note
    ds.ContentDate, ds.ContentTime = "20210106", "081500"
    planter.day("ContentDate", "20210106")
    ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "VERIFIED"
    planter.keep("CompletionFlag", "COMPLETE")
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
    planter.keep("ValueType", "CONTAINER")
    ds.ConceptNameCodeSequence = sequence(coded("18748-4", "LN", "Diagnostic Imaging Report"))
    planter.keep("CodeValue", "18748-4", within=("ConceptNameCodeSequence",))
    observer = coded("121008", "DCM", "Person Observer Name")
    history = coded("121060", "DCM", "History")
    finding = coded("121071", "DCM", "Finding")
    text = f"{patient.given} {patient.family} (MRN {patient.patient_id}) seen by Dr. Birnstingl on 04.01.2021. Clear."
    leaf = _content("TEXT", "CONTAINS", finding, TextValue=text)
    inner = _content("CONTAINER", "CONTAINS", finding, ContinuityOfContent="SEPARATE", ContentSequence=sequence(leaf))
    measured = Dataset()
    measured.NumericValue = "14.5"
    measured.MeasurementUnitsCodeSequence = sequence(coded("mm", "UCUM", f"millimeter {patient.family}"))
    local = coded("ZW-1", "99OTT", f"Status of {patient.family}")
    pneumonia = coded("233604007", "SCT", f"Pneumonia {patient.family}")
    organization = coded("121009", "DCM", "Person Observer's Organization Name")
    image = _content("IMAGE", "CONTAINS", finding)
    image.ReferencedSOPSequence = sequence(reference(of.CT, uid(1, 1, 501)))
    ds.ContentSequence = Sequence([
        _content("PNAME", "HAS OBS CONTEXT", observer, PersonName="Quillfeather^Nora"),
        _content("PNAME", "HAS OBS CONTEXT", coded("121029", "DCM", "Subject Name"), PersonName=patient.name),
        _content("TEXT", "HAS OBS CONTEXT", coded("121030", "DCM", "Subject ID"), TextValue=patient.patient_id),
        _content("DATE", "HAS OBS CONTEXT", coded("121031", "DCM", "Subject Birth Date"), Date=patient.birth_date),
        _content("DATETIME", "HAS OBS CONTEXT", coded("111060", "DCM", "Study Date"), DateTime="20210104093000"),
        _content("TIME", "HAS OBS CONTEXT", coded("111061", "DCM", "Study Time"), Time="093000"),
        _content("UIDREF", "HAS OBS CONTEXT", coded("121012", "DCM", "Device Observer UID"), UID=uid(4, 4, 4)),
        _content("TEXT", "HAS OBS CONTEXT", organization, TextValue="Klinik Ottobrunn"),
        _content("TEXT", "CONTAINS", history, TextValue="Smoker, 40 pack years. Lungs clear."),
        _content("CODE", "CONTAINS", finding, ConceptCodeSequence=sequence(pneumonia)),
        _content("CODE", "CONTAINS", finding, ConceptCodeSequence=sequence(local)),
        _content("NUM", "CONTAINS", coded("103339001", "SCT", "Long axis"), MeasuredValueSequence=sequence(measured)),
        image, inner,
    ])  # fmt: skip
    tree = f"{0x0040A730:08X}"
    note(Kind.STAFF, f"{tree}[0] PNAME", "Quillfeather")
    note(Kind.NAME, f"{tree}[1] PNAME", patient.family)
    note(Kind.NUMBER, f"{tree}[2] TEXT", patient.patient_id)
    note(Kind.DATE, f"{tree}[3] DATE", patient.birth_date)
    note(Kind.DATE, f"{tree}[4] DATETIME", "20210104")
    note(Kind.UID, f"{tree}[6] UIDREF", uid(4, 4, 4))
    note(Kind.INSTITUTION, f"{tree}[7] TEXT", "Ottobrunn")
    note(Kind.NAME, f"{tree}[9] CODE meaning", f"Pneumonia {patient.family}")
    note(Kind.NAME, f"{tree}[10] local CODE", f"Status of {patient.family}")
    note(Kind.NAME, f"{tree}[11] units meaning", f"millimeter {patient.family}")
    note(Kind.UID, f"{tree}[12] IMAGE", uid(1, 1, 501))
    note(Kind.STAFF, f"{tree}[13] nested TEXT", "Birnstingl")
    note(Kind.DATE, f"{tree}[13] nested TEXT date", "04.01.2021")
    _observers(planter)
    return planter.done("report")


def _observers(planter: Planter) -> None:
    note = planter.note
    verifier = planter.inside("VerifyingObserverSequence")
    verifier.VerifyingOrganization = "Ottobrunner Radiologieverbund"
    verifier.VerifyingObserverName = "Wiesengrund^Theodor"
    verifier.VerificationDateTime = "20210106100000"
    verifier.VerifyingObserverIdentificationCodeSequence = sequence(coded("EMP40072", "99STAFF", "Wiesengrund"))
    note(Kind.STAFF, "verifying observer", "Wiesengrund")
    note(Kind.NUMBER, "verifying observer code", "EMP40072")
    note(Kind.INSTITUTION, "verifying organization", "Radiologieverbund")
    planter.plant(Kind.STAFF, "PersonName", "Birnstingl^Eva", "Birnstingl", within=("AuthorObserverSequence",))
    planter.plant(Kind.NUMBER, "AccessionNumber", "REQ5512093", within=("ReferencedRequestSequence",))
    planter.plant(
        Kind.NUMBER, "PlacerOrderNumberImagingServiceRequest", "PLC5512093", within=("ReferencedRequestSequence",)
    )
    evidence = planter.inside("CurrentRequestedProcedureEvidenceSequence", "ReferencedSeriesSequence")
    evidence.ReferencedSOPSequence = sequence(reference(of.CT, uid(1, 1, 501)))
    within = ("CurrentRequestedProcedureEvidenceSequence", "ReferencedSeriesSequence")
    planter.uid("SeriesInstanceUID", uid(1, 2, 0), within=within)
    planter.uid("StudyInstanceUID", uid(1, 3, 0), within=within[:1])
    planter.uid("ReferencedSOPInstanceUID", uid(1, 1, 501), within=(*within, "ReferencedSOPSequence"))


def clean_report(patient: Patient) -> Planted:
    """A report whose tree names nobody: text, numbers and codes must stay where they are."""
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
    planter.inside(CONTENT).update(_content("TEXT", "CONTAINS", coded("121071", "DCM", "Finding"), TextValue=""))
    planter.keep("TextValue", "Lungs clear. Heart size normal. No pneumothorax.", within=(CONTENT,))
    planter.keep("CodeValue", "121071", within=(CONTENT, "ConceptNameCodeSequence"))
    planter.keep("RelationshipType", "CONTAINS", within=(CONTENT,))
    ds.PerformedProcedureCodeSequence = Sequence()
    return planter.done("report-clean")


def key_object(patient: Patient) -> Planted:
    planter = start(patient, of.KO)
    ds = planter.ds
    ds.ContentDate, ds.ContentTime, ds.ValueType, ds.ContinuityOfContent = "20210106", "081500", "CONTAINER", "SEPARATE"
    ds.ConceptNameCodeSequence = sequence(coded("113000", "DCM", "Of Interest"))
    words = coded("113012", "DCM", "Key Object Description")
    ds.ContentSequence = Sequence([
        _content("TEXT", "CONTAINS", words, TextValue=f"{patient.family}: please show Dr. Ferrowick the nodule"),
        _content("PNAME", "HAS OBS CONTEXT", coded("121008", "DCM", "Person Observer Name"), PersonName="Ferrowick^J"),
    ])  # fmt: skip
    planter.note(Kind.NAME, "key object TEXT", patient.family)
    planter.note(Kind.STAFF, "key object TEXT", "Ferrowick")
    within = ("CurrentRequestedProcedureEvidenceSequence", "ReferencedSeriesSequence", "ReferencedSOPSequence")
    planter.inside(*within).update(reference(of.CT, uid(1, 1, 501)))
    planter.uid("ReferencedSOPInstanceUID", uid(1, 1, 501), within=within)
    planter.uid("SeriesInstanceUID", uid(1, 2, 0), within=within[:2])
    planter.uid("StudyInstanceUID", uid(1, 3, 0), within=within[:1])
    return planter.done("key-object")


def presentation_state(patient: Patient) -> Planted:
    """A presentation state with text on the image, a creator, and an overlay (PS3.3 A.33)."""
    planter = start(patient, of.GSPS)
    plant = planter.plant
    plant(Kind.NAME, "ContentLabel", f"{patient.family.upper()[:12]}", patient.family[:12])
    plant(Kind.NAME, "ContentDescription", f"Markup for {patient.given} {patient.family}", patient.family)
    plant(Kind.STAFF, "ContentCreatorName", "Vanderbloom^Piet", "Vanderbloom")
    planter.day("PresentationCreationDate", "20210106")
    planter.ds.PresentationCreationTime = "101010"
    plant(
        Kind.NAME,
        "UnformattedTextValue",
        f"{patient.name} {patient.birth_date}",
        patient.family,
        patient.birth_date,
        within=("GraphicAnnotationSequence", "TextObjectSequence"),
    )
    plant(Kind.NAME, "GraphicLayer", "ZWYNTLAYER", within=("GraphicLayerSequence",))
    plant(Kind.STAFF, "GraphicLayerDescription", "drawn by Okonkwo", "Okonkwo", within=("GraphicLayerSequence",))
    within = ("ReferencedSeriesSequence", "ReferencedImageSequence")
    planter.inside(*within).update(reference(of.DX, uid(1, 1, 1)))
    planter.uid("SeriesInstanceUID", uid(1, 2, 0), within=within[:1])
    planter.uid("ReferencedSOPInstanceUID", uid(1, 1, 1), within=within)
    area = planter.inside("DisplayedAreaSelectionSequence")
    area.DisplayedAreaTopLeftHandCorner, area.DisplayedAreaBottomRightHandCorner = [1, 1], [64, 64]
    area.PresentationSizeMode = "SCALE TO FIT"
    planter.ds.PresentationLUTShape = "IDENTITY"
    _overlay(planter, patient)
    return planter.done("presentation-state")


def _overlay(planter: Planter, patient: Patient) -> None:
    ds = planter.ds
    ds.add(DataElement(0x60000010, "US", 16))
    ds.add(DataElement(0x60000011, "US", 64))
    ds.add(DataElement(0x60000022, "LO", f"Overlay of {patient.family}"))
    ds.add(DataElement(0x60000040, "CS", "G"))
    ds.add(DataElement(0x60000050, "SS", [1, 1]))
    ds.add(DataElement(0x60000100, "US", 1))
    ds.add(DataElement(0x60000102, "US", 0))
    ds.add(DataElement(0x60001500, "LO", f"Label {patient.family}"))
    ds.add(DataElement(0x60003000, "OW", patient.name.encode("utf-8").ljust(128, b" ")[:128]))
    ds.add(DataElement(0x50002500, "LO", f"Curve {patient.family}"))
    ds.add(DataElement(0x50003000, "OW", patient.name.encode("utf-8").ljust(64, b" ")[:64]))
    for place in ("overlay description", "overlay label", "overlay data", "curve label", "curve data"):
        planter.note(Kind.NAME, place, patient.family)


def overlays(patient: Patient) -> Planted:
    """An image with overlays, curves and an icon."""
    planter = start(patient, of.CT)
    with_image(planter)
    _overlay(planter, patient)
    icon = planter.inside("IconImageSequence")
    icon.Rows, icon.Columns, icon.BitsAllocated, icon.BitsStored, icon.HighBit = 8, 8, 8, 8, 7
    icon.SamplesPerPixel, icon.PixelRepresentation, icon.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    icon.add_new(0x7FE00010, "OB", patient.name.encode("utf-8").ljust(64, b" ")[:64])
    icon.ImageComments = f"icon {patient.family}"
    planter.note(Kind.NAME, "icon pixels", patient.family)
    planter.note(Kind.NAME, "icon comments", patient.family)
    planter.plant(Kind.NAME, "TextComments", f"see {patient.family}", patient.family)
    planter.plant(Kind.NAME, "TextString", patient.family)
    return planter.done("overlays")


def waveform(patient: Patient) -> Planted:
    """An ECG whose annotations and channel labels name people (PS3.3 C.10.10)."""
    planter = start(patient, of.ECG)
    group = planter.inside("WaveformSequence")
    group.WaveformOriginality, group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = "ORIGINAL", 1, 200
    group.SamplingFrequency, group.WaveformBitsAllocated, group.WaveformSampleInterpretation = "500", 16, "SS"
    group.add_new(0x54001010, "OW", np.arange(200, dtype=np.int16).tobytes())
    within = ("WaveformSequence", "ChannelDefinitionSequence")
    planter.plant(Kind.NAME, "ChannelLabel", f"Lead I {patient.family}", patient.family, within=within)
    channel = planter.inside(*within)
    channel.ChannelSourceSequence = sequence(coded("2:1", "MDC", "Lead I"))
    channel.WaveformBitsStored = 16
    note = ("WaveformAnnotationSequence",)
    planter.plant(Kind.NAME, "UnformattedTextValue", f"Sinus rhythm. {patient.name}", patient.family, within=note)
    planter.plant(Kind.STAFF, "PersonName", "Quillfeather^Nora", "Quillfeather", within=note)
    planter.day("AcquisitionDateTime", "20210105101530")
    planter.keep("SamplingFrequency", "500", within=("WaveformSequence",))
    return planter.done("waveform")


def document(patient: Patient, kind: str) -> Planted:
    """An encapsulated PDF or CDA document that names the patient inside (PS3.3 A.45)."""
    planter = start(patient, of.PDF if kind == "pdf" else of.CDA)
    if kind == "pdf":
        page = f"BT ({patient.patient_id}) Tj ET"
        text = f"%PDF-1.4\n1 0 obj<</Title({patient.name})>>endobj\nstream\n{page}\nendstream\n%%EOF"
        planter.ds.MIMETypeOfEncapsulatedDocument = "application/pdf"
    else:
        text = f"<ClinicalDocument><patient><name>{patient.given} {patient.family}</name></patient></ClinicalDocument>"
        planter.ds.MIMETypeOfEncapsulatedDocument = "text/XML"
    data = text.encode("utf-8")
    planter.ds.add(DataElement(0x00420011, "OB", data + b"\0" * (len(data) % 2)))
    planter.ds.EncapsulatedDocumentLength = len(data)
    planter.note(Kind.NAME, f"inside the {kind}", patient.family)
    planter.plant(Kind.NAME, "DocumentTitle", f"Letter about {patient.family}", patient.family)
    planter.ds.BurnedInAnnotation = "YES"
    return planter.done(f"document-{kind}")


def structure_set(patient: Patient) -> Planted:
    planter = start(patient, of.RTSTRUCT)
    planter.plant(Kind.NAME, "StructureSetLabel", f"{patient.family[:12]}", patient.family[:12])
    planter.plant(Kind.NAME, "StructureSetName", f"{patient.given} {patient.family} lung", patient.family)
    planter.plant(Kind.STAFF, "StructureSetDescription", "contoured by Dr. Featherstonehaugh", "Featherstonehaugh")
    planter.day("StructureSetDate", "20210106")
    planter.uid("FrameOfReferenceUID", uid(1, 9, 1), within=("ReferencedFrameOfReferenceSequence",))
    within = ("StructureSetROISequence",)
    planter.plant(Kind.NAME, "ROIName", f"GTV {patient.family}", patient.family, within=within)
    planter.plant(Kind.NAME, "ROIDescription", f"for {patient.given} {patient.family}", patient.family, within=within)
    planter.uid("ReferencedFrameOfReferenceUID", uid(1, 9, 1), within=within)
    planter.keep("ROINumber", 1, within=within)
    planter.keep("ROIGenerationAlgorithm", "MANUAL", within=within)
    within = ("RTROIObservationsSequence",)
    planter.plant(Kind.STAFF, "ROIInterpreter", "Vanderbloom^P", "Vanderbloom", within=within)
    planter.plant(Kind.NAME, "ROIObservationLabel", f"{patient.family[:10]}", patient.family[:10], within=within)
    within = ("ROIContourSequence", "ContourSequence")
    planter.keep("ContourData", ["1.5", "2.5", "-3.0", "4.0", "5.0", "6.0"], within=within)
    planter.keep("ContourGeometricType", "CLOSED_PLANAR", within=within)
    planter.uid("ReferencedSOPInstanceUID", uid(1, 1, 501), within=(*within, "ContourImageSequence"))
    planter.inside(*within, "ContourImageSequence").ReferencedSOPClassUID = of.CT
    planter.plant(Kind.STAFF, "ReviewerName", "Okonkwo-Reyes^Ada", "Okonkwo")
    return planter.done("structure-set")


def plan_and_dose(patient: Patient) -> list[Planted]:
    plan = start(patient, of.RTPLAN)
    plan.plant(Kind.NAME, "RTPlanLabel", patient.family[:12])
    plan.plant(Kind.NAME, "RTPlanName", f"Lung {patient.family}", patient.family)
    plan.plant(Kind.STAFF, "RTPlanDescription", "approved Dr Wiesengrund 06.01.2021", "Wiesengrund", "06.01.2021")
    plan.day("RTPlanDate", "20210106")
    plan.plant(Kind.DEVICE, "TreatmentMachineName", "OTTLINAC2", within=("BeamSequence",))
    plan.plant(Kind.NAME, "BeamName", f"AP {patient.family}", patient.family, within=("BeamSequence",))
    plan.keep("BeamNumber", 1, within=("BeamSequence",))
    plan.keep("RadiationType", "PHOTON", within=("BeamSequence",))
    plan.plant(Kind.NAME, "PrescriptionDescription", f"60 Gy for {patient.family}", patient.family)
    dose = start(patient, of.RTDOSE)
    with_image(dose, bits=16)
    dose.keep("DoseUnits", "GY")
    dose.keep("DoseGridScaling", "0.001")
    dose.plant(Kind.NAME, "DoseComment", f"dose of {patient.family}", patient.family)
    dose.uid("ReferencedSOPInstanceUID", uid(1, 1, 601), within=("ReferencedRTPlanSequence",))
    dose.inside("ReferencedRTPlanSequence").ReferencedSOPClassUID = of.RTPLAN
    return [plan.done("plan"), dose.done("dose")]


def segmentation(patient: Patient) -> Planted:
    planter = start(patient, of.SEG)
    with_image(planter, bits=8, frames=2)
    planter.plant(Kind.NAME, "SegmentLabel", f"Lung {patient.family}", patient.family, within=("SegmentSequence",))
    planter.plant(Kind.STAFF, "SegmentDescription", "drawn by Okonkwo", "Okonkwo", within=("SegmentSequence",))
    planter.keep("SegmentNumber", 1, within=("SegmentSequence",))
    planter.plant(Kind.NAME, "ContentLabel", f"{patient.family.upper()[:12]}", patient.family[:12])
    planter.plant(Kind.STAFF, "ContentCreatorName", "Vanderbloom^Piet", "Vanderbloom")
    planter.uid("TrackingUID", uid(1, 99, 1), within=("SegmentSequence",))
    planter.plant(Kind.NAME, "TrackingID", f"Lesion 1 {patient.family}", patient.family, within=("SegmentSequence",))
    within = ("ReferencedSeriesSequence", "ReferencedInstanceSequence")
    planter.inside(*within).update(reference(of.CT, uid(1, 1, 501)))
    planter.uid("ReferencedSOPInstanceUID", uid(1, 1, 501), within=within)
    planter.uid("SeriesInstanceUID", uid(1, 2, 0), within=within[:1])
    return planter.done("segmentation")


def enhanced(patient: Patient) -> Planted:
    """An enhanced CT with plants in the functional groups of its frames."""
    planter = start(patient, of.ENHANCED_CT)
    with_image(planter, bits=16, frames=2)
    groups = "PerFrameFunctionalGroupsSequence"
    planter.plant(
        Kind.NAME,
        "FrameComments",
        f"frame of {patient.family}",
        patient.family,
        within=(groups, "FrameContentSequence"),
    )
    planter.plant(
        Kind.NAME, "FrameLabel", f"{patient.family} 1", patient.family, within=(groups, "FrameContentSequence")
    )
    planter.day("FrameAcquisitionDateTime", "20210105101530", within=(groups, "FrameContentSequence"))
    planter.uid("IrradiationEventUID", uid(1, 77, 1), within=(groups, "IrradiationEventIdentificationSequence"))
    planter.keep("ImagePositionPatient", ["-100.5", "20", "33.25"], within=(groups, "PlanePositionSequence"))
    planter.plant(Kind.NAME, "StackID", patient.family[:16], within=(groups, "FrameContentSequence"))
    planter.uid("ReferencedSOPInstanceUID", uid(1, 1, 502), within=(groups, "ReferencedImageSequence"))
    planter.inside(groups, "ReferencedImageSequence").ReferencedSOPClassUID = of.CT
    return planter.done("enhanced")


def raw_data(patient: Patient) -> Planted:
    """Raw data, which no tool can look into."""
    planter = start(patient, of.RAW)
    block = planter.ds.private_block(0x7FE1, "ACME RAW", create=True)
    block.add_new(0x10, "OB", patient.name.encode("utf-8") * 8)
    planter.note(Kind.NAME, "raw data", patient.family)
    return planter.done("raw-data")


def reports(patient: Patient) -> list[Planted]:
    """All of them."""
    return [
        report(patient), clean_report(patient), key_object(patient), presentation_state(patient), overlays(patient),
        waveform(patient), document(patient, "pdf"), document(patient, "cda"), structure_set(patient),
        *plan_and_dose(patient), segmentation(patient), enhanced(patient), raw_data(patient),
    ]  # fmt: skip
