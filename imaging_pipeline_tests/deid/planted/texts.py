"""Plants in free text: what people write into descriptions and comments, in several languages, forms and encodings."""

from __future__ import annotations

import base64
import codecs
import gzip
import unicodedata
import urllib.parse
import zlib
from collections.abc import Iterator

from pydicom.dataelem import DataElement

from imaging_pipeline_tests.deid.planted.headers import planter_of
from imaging_pipeline_tests.deid.planted.patients import Patient
from imaging_pipeline_tests.deid.planted.plants import Kind, Planted

# text | what must go | what must stay (words, or empty)
STAFF_AND_PLACES = (
    ("Thorax pa, Zuweiser Dr. med. Krautschnabel-Huber", "Krautschnabel|Huber", "Thorax"),
    ("read by: J. Ferrowick MD", "Ferrowick", ""),
    ("Discussed w/ Dr Patel @ 14:30, small pleural effusion left", "Patel", "small pleural effusion left"),
    ("CXR AP portable; RT: Maria Santangelo", "Santangelo|Maria", "AP|portable"),
    ("Tech: Kowalczyk", "Kowalczyk", ""),
    ("ordered by nurse Okonkwo, check NG tube position", "Okonkwo", "NG tube position"),
    ("Chirurgische Klinik Ottobrunn, Kontrolle nach Drainage", "Ottobrunn", "Kontrolle nach Drainage"),
    ("CHU de Bordeaux - scanner thoracique sans injection", "Bordeaux", "scanner thoracique"),
    ("Hôpital Saint-Antoine: radio du thorax de face", "Saint-Antoine", "thorax"),
    ("demandé par le Dr Delacroix pour toux", "Delacroix", "toux"),
    ("Befund an Hr. Szczepanik gefaxt", "Szczepanik", ""),
    ("OA Dr. Wiesengrund / Ass. Birnstingl", "Wiesengrund|Birnstingl", ""),
    ("Massachusetts General Hospital protocol, chest low dose", "Massachusetts", "low dose"),
    ("follow-up for Prof. A. B. von Trottenburg", "Trottenburg", "follow-up"),
    ("seen by Featherstonehaugh on ward round, lungs clear", "Featherstonehaugh", "lungs clear"),
    ("Attending Physician: Samantha K. Whitlock, M.D.", "Whitlock|Samantha", ""),
    ("Signed electronically by Rajesh Venkataraman", "Venkataraman|Rajesh", ""),
    ("cc: Dr. O'Donoghue; Dr. Li", "O'Donoghue", ""),
    ("transfer from Addenbrooke's, query PE", "Addenbrooke", "PE"),
    ("dictated KLM/jfk transcribed Hollowbrook", "Hollowbrook", ""),
    ("LINKS: Hüfte ap nach TEP, Station 4B, Dr. Yıldırım", "Yıldırım", "Hüfte"),  # noqa: RUF001
    ("Dra. Fernández Castellanos solicita control", "Fernández|Castellanos", "control"),
    ("dott. Bartolomeo Quagliarella, torace", "Quagliarella|Bartolomeo", "torace"),
    ("Arzt: WEISSENBERGER", "Weissenberger", ""),
    ("KRAUTSCHNABEL/ILSE", "Krautschnabel", ""),
)

NUMBERS_AND_CONTACTS = (
    ("call back tel 089/5558-1234 fax 5558-1235, no fracture", "5558-1234|5558-1235", "no fracture"),
    ("pager 4571882", "4571882", ""),
    ("MRN#4410293, chest", "4410293", "chest"),
    ("SSN 078-05-1120", "078-05-1120", ""),
    ("NHS 943 476 5919 CXR", "943 476 5919", ""),
    ("AHV 756.1234.5678.97", "756.1234.5678.97", ""),
    ("Versichertennr. A123456789 Thorax", "A123456789", "Thorax"),
    ("mail ilse.krautschnabel@ottilien.example re left hip", "krautschnabel|ottilien", "left hip"),
    ("http://pacs.ottilien.example/q?pid=4410293", "ottilien|4410293", ""),
    (r"\\otthisnas\share\4410293.dcm", "otthisnas|4410293", ""),
    ("C:\\Users\\krautschnabel\\export", "krautschnabel", ""),
    ("/home/krautschnabel/cases/thorax", "krautschnabel", ""),
    ("lives at 12 Elmsworth Avenue, Boston MA 02139", "Elmsworth|02139", ""),
    ("wohnhaft Lindenallee 17, 80331 Musterstadt", "Lindenallee|80331", ""),
    ("8 rue des Lilas, 75011 Paris", "Lilas|75011", ""),
    ("host 10.31.7.22 sent it", "10.31.7.22", ""),
    ("case no 2021/004417/B", "004417", ""),
    ("acc# RAD21-0099817 prior", "0099817", ""),
    ("Room 12B-407 bed 3, supine", "12B-407", "supine"),
    ("IBAN DE89370400440532013000", "DE89370400440532013000", ""),
    ("(617) 555-0142 x22", "555-0142", ""),
    ("VIN 1HGCM82633A004352 MVA driver", "1HGCM82633A004352", ""),
    ("pt is 94 years old, kyphosis", "94 years", "kyphosis"),
    ("93yo F, fall", "93yo", "fall"),
)

DATES = (
    "comparison 04.01.2021, unchanged", "prior of 2021-01-04", "01/04/2021 film", "4 Jan 2021 CT", "January 4, 2021",
    "4. Januar 2021", "le 4 janvier 2021", "20210104 baseline", "20210104101500", "04-JAN-2021", "4.1.21 Kontrolle",
    "1/4/21", "Jan 4th 2021", "2021/01/04 10:15:00", "04.01.2021T10:15", "2021.01.04", "4th of January 2021",
)  # fmt: skip
_DAYS = (
    "04.01.2021", "2021-01-04", "01/04/2021", "4 Jan 2021", "January 4, 2021", "4. Januar 2021", "4 janvier 2021",
    "20210104", "04-JAN-2021", "4.1.21", "1/4/21", "Jan 4th 2021", "2021/01/04", "4th of January 2021",
)  # fmt: skip

CLEAN = (
    "CHEST PA AND LATERAL", "Thorax 2 Ebenen", "Lung 1.25 mm B70f", "Head routine without contrast",
    "T2 TSE axial 3 mm", "AP supine portable", "post contrast arterial phase", "Knie links ap/seitlich",
    "left hand oblique", "Scout",
    "ax T1 FLAIR fat sat", "MPR coronal 2.0", "CT Abdomen/Pelvis with IV contrast", "Abdomen Übersicht", "hip right",
    "no acute findings", "small nodule 4 mm right upper lobe", "DWI b=1000", "Mammography MLO left", "PET WB",
)  # fmt: skip

KEYWORDS = (
    "ImageComments", "PatientComments", "StudyComments", "AdditionalPatientHistory", "VisitComments",
    "AcquisitionComments", "RequestedProcedureComments", "CommentsOnThePerformedProcedureStep",
    "ImagingServiceRequestComments", "InterpretationText", "ResultsComments", "ReasonForStudy", "DerivationDescription",
    "IdentifyingComments",
    "AcquisitionProtocolDescription", "FrameComments", "DetectorDescription", "PixelSpacingCalibrationDescription",
    "DischargeDiagnosisDescription", "SpecialNeeds", "MedicalAlerts", "Allergies",
)  # fmt: skip
SHORT_KEYWORDS = ("StudyDescription", "SeriesDescription", "ProtocolName")


def free_text(patient: Patient, lines: tuple[tuple[str, str, str], ...], name: str) -> Iterator[Planted]:
    """Objects whose text attributes hold ``lines``, a few to an object, each attribute in turn."""
    places = SHORT_KEYWORDS + KEYWORDS
    for first in range(0, len(lines), len(places)):
        planter = planter_of(patient)
        planter.ds.SpecificCharacterSet = "ISO_IR 192"
        for position, (text, gone, kept) in enumerate(lines[first : first + len(places)]):
            kind = Kind.CONTACT if name == "contacts" else Kind.STAFF
            keyword = places[(position + first) % len(places)]
            planter.text(kind, keyword, text[:64] if keyword in SHORT_KEYWORDS else text, gone, kept)
        yield planter.done(f"text-{name}-{first}")


def dates_in_text(patient: Patient) -> Planted:
    planter = planter_of(patient)
    planter.ds.SpecificCharacterSet = "ISO_IR 192"
    for keyword, text in zip(SHORT_KEYWORDS + KEYWORDS, DATES, strict=False):
        planter.plant(Kind.DATE, keyword, text, *(day for day in _DAYS if day in text))
    return planter.done("text-dates")


def clean_texts(patient: Patient) -> Iterator[Planted]:
    """Descriptions with nothing to remove: each must stay word by word."""
    for number, text in enumerate(CLEAN):
        planter = planter_of(patient)
        planter.ds.SpecificCharacterSet = "ISO_IR 192"
        keyword = ("SeriesDescription", "StudyDescription", "ProtocolName", "ImageComments")[number % 4]
        planter.keep(keyword, text)
        yield planter.done(f"text-clean-{number}")


def name_variants(patient: Patient) -> Iterator[Planted]:
    """The patient's own name and number in the forms people and systems give them, one attribute each."""
    variants = list(_variants(patient))
    places = SHORT_KEYWORDS + KEYWORDS
    for first in range(0, len(variants), len(places)):
        planter = planter_of(patient)
        planter.ds.SpecificCharacterSet = "ISO_IR 192"
        for (text, needle), keyword in zip(variants[first : first + len(places)], places, strict=False):
            planter.plant(Kind.NAME, keyword, text, needle)
        yield planter.done(f"text-variants-{patient.family}-{first}")


def _variants(patient: Patient) -> Iterator[tuple[str, str]]:
    family, given, number = patient.family, patient.given.split()[0], patient.patient_id
    ascii_family = _ascii(family)
    yield f"{given} {family} thorax", family
    yield f"{family}, {given}", family
    yield f"{family.upper()}_{given.upper()}", family
    yield f"{given[0]}. {family}", family
    yield f"{family}^{given}", family
    yield f"pt {family.lower()} ap", family
    yield f"{ascii_family} chest", ascii_family
    yield f"{family}{given}", f"{family}{given}"
    yield f"{given}{family}1961", f"{given}{family}"
    yield f"{family}'s film", family
    yield f"x{number}y", number
    yield number.replace("-", " "), number
    yield f"#{number}#", number
    yield f"name={family};id={number}", family
    yield f"<patient>{family}</patient>", family
    yield f'{{"pn": "{family}"}}', family
    yield " ".join(family), family
    yield "-".join(family.upper()), family
    yield unicodedata.normalize("NFD", family), family
    yield (
        family.translate(
            {ord(char): ord(char) + 0xFEE0 for char in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"}
        ),
        family,
    )
    yield family[:2] + "\u200b" + family[2:], family
    yield family[:2] + "\u00ad" + family[2:], family
    yield family[::-1], family
    yield urllib.parse.quote(family + " " + given), family
    yield "".join(f"&#{ord(char)};" for char in family), family


def _ascii(text: str) -> str:
    umlauts = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"})
    plain = unicodedata.normalize("NFKD", text.translate(umlauts))
    return "".join(char for char in plain if not unicodedata.combining(char)) or text


def encoded(patient: Patient) -> Planted:
    """The name packed or spelled in other encodings inside text and binary attributes."""
    planter = planter_of(patient)
    planter.ds.SpecificCharacterSet = "ISO_IR 192"
    name = f"{patient.given} {patient.family} {patient.patient_id}"
    data = name.encode("utf-8")
    spelled = {
        "ImageComments": base64.b64encode(data).decode(), "PatientComments": data.hex(),
        "StudyComments": base64.urlsafe_b64encode(data).decode(), "AdditionalPatientHistory": data.hex(" ").upper(),
        "AcquisitionComments": base64.b64encode(zlib.compress(data)).decode(),
        "VisitComments": base64.b64encode(gzip.compress(data, mtime=0)).decode(),
        "RequestedProcedureComments": base64.b32encode(data).decode(),
        "ResultsComments": codecs.encode(name, "rot13"),
        "ReasonForStudy": "data:text/plain;base64," + base64.b64encode(data).decode(),
        "DerivationDescription": " ".join(str(byte) for byte in data),
        "SeriesDescription": base64.b64encode(patient.family.encode("utf-8")).decode(),
        "ImagingServiceRequestComments": base64.b64encode(name.encode("utf-16-le")).decode(),
    }  # fmt: skip
    for keyword, text in spelled.items():
        planter.plant(Kind.NAME, keyword, text, patient.family, text)
    return planter.done("encoded")


def encoded_binary(patient: Patient) -> Planted:
    """The name inside binary attributes, some of which are kept: an object that holds it there must be held."""
    planter = planter_of(patient)
    name = f"{patient.given} {patient.family} {patient.patient_id}"
    data = name.encode("utf-8")
    wide = name.encode("utf-16-le")
    planter.ds.add(DataElement(0x00420011, "OB", wide))
    planter.ds.add(DataElement(0x00281201, "OW", wide))
    planter.ds.add(DataElement(0x04000520, "OB", data + b"\0" * (len(data) % 2)))
    planter.ds.add(DataElement(0x00282000, "OB", _icc(data)))
    for place in ("EncapsulatedDocument", "RedPaletteColorLookupTableData", "EncryptedContent", "ICCProfile"):
        planter.note(Kind.NAME, place, patient.family)
    return planter.done("encoded-binary")


def _icc(text: bytes) -> bytes:
    """A small colour profile with a description of its own (ICC.1 7.2, 10.24)."""
    description = b"desc" + bytes(4) + (len(text) + 1).to_bytes(4, "big") + text + bytes(79)
    table = (1).to_bytes(4, "big") + b"desc" + (144).to_bytes(4, "big") + len(description).to_bytes(4, "big")
    body = bytes(12) + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(88) + table + description
    data = (len(body) + 4).to_bytes(4, "big") + body
    return data + b"\0" * (len(data) % 2)


CHARSETS: tuple[tuple[str | list[str], str, tuple[str, ...]], ...] = (
    ("ISO_IR 100", "Zwyntharquäst^Gräfin", ("Zwyntharquäst",)),
    ("ISO_IR 101", "Szczepański^Łukasz", ("Szczepański",)),
    ("ISO_IR 144", "Жвинтарквист^Оберон", ("Жвинтарквист",)),
    ("ISO_IR 126", "Παπαδημητρίου^Γιώργος", ("Παπαδημητρίου",)),
    (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞｺ^ﾀﾛｳ=山田子^太郎", ("ﾔﾏﾀﾞｺ", "山田子")),
    (["", "ISO 2022 IR 87"], "Yamadakko^Tarou=山田子^太郎=やまだっこ^たろう", ("Yamadakko", "山田子", "やまだっこ")),
    (["", "ISO 2022 IR 149"], "Honggg^Gildong=洪^吉洞=홍길동^길동", ("Honggg", "홍길동")),
    ("GB18030", "王小东^小东", ("王小东",)),
    ("GBK", "王小东^小东", ("王小东",)),
    ("ISO_IR 192", "Νίκος王^ß", ("Νίκος",)),
)  # fmt: skip


def character_sets() -> Iterator[Planted]:
    """A name in each character set, in its own attribute and in free text of the same set."""
    for number, (charset, name, needles) in enumerate(CHARSETS):
        family, _, given = name.partition("^")
        patient = Patient(
            family,
            given.split("=")[0],
            "",
            f"CH{number}55817",
            "19610412",
            f"ACH{number}7718",
            "1 Long St",
            "Elyton",
            "5550144",
        )
        planter = planter_of(patient)
        planter.ds.SpecificCharacterSet = charset
        planter.plants = [plant for plant in planter.plants if plant.place != "00100010"]
        for keyword in ("PatientName", "ImageComments", "SeriesDescription", "ProtocolName", "PatientComments"):
            planter.plant(Kind.NAME, keyword, name, *needles)
        yield planter.done(f"charset-{number}")
