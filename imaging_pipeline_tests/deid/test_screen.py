from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Callable
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian

from imaging_pipeline.deid import engine
from imaging_pipeline.deid.cleaner import Cleaner
from imaging_pipeline.deid.screen import Identifier, Index, Kind, identifiers_of, prove, residual, violations
from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline_tests.deid.corpus import chest_film, encode, release

TEXTS = frozenset({"Manufacturer", "PatientID", "PatientName", "AccessionNumber", "DeidentificationMethod"})


def _texts(ds: Dataset) -> set[str]:
    return {found.text for found in identifiers_of(ds)}


def test_names_numbers_uids_and_dates_are_identifiers() -> None:
    texts = _texts(
        chest_film(OtherPatientNames="Alias^Ann", InstitutionAddress="5 Elm Row", PatientTelephoneNumbers="555-0177")
    )
    assert {
        "Zwyntharquist",
        "Oberon",
        "Tiberius",
        "Krautschnabel",
        "Alias",
        "MRN-7731945",
        "7731945",
    } <= texts
    assert {"acc992817", "19610412", "20210105", "5 Elm Row", "5550177", "St. Ottilien Hospital"} <= texts
    assert not any(text.startswith("1.2.840.10008.") for text in texts)


def test_identifiers_do_not_show_their_text() -> None:
    assert "Oberon" not in repr(identifiers_of(chest_film()))


@pytest.mark.parametrize(
    "text", ["OBERON", "x Oberon-y", "oberon's", "öberon", "ZWYNTHARQUISTOBERON1", "id7731945", "MRN 7731945"]
)
def test_an_identifier_is_found_in_a_text(text: str) -> None:
    assert Index(identifiers_of(chest_film())).in_text(text)


@pytest.mark.parametrize("text", ["", "chest", "Ober", "773194", "Acme Imaging", "57731945"])
def test_other_texts_are_left_alone(text: str) -> None:
    assert not Index(identifiers_of(chest_film())).in_text(text)


def test_numbers_are_compared_as_a_whole() -> None:
    index = Index([Identifier(Kind.NUMBER, "12345")])
    assert index.in_number("12345")
    assert index.in_number("+12345.0")
    assert index.in_number("0012345")
    assert not index.in_number("0.12345")
    assert not index.in_number("123456")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["oberon", "OBERON", "Zwyntharquist"])
def test_bytes_that_spell_an_identifier_are_found(encoding: str, text: str) -> None:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "2.25.1"
    ds.add(DataElement(0x00282000, "OB", b"\0\0" + text.encode(encoding) + b"\0\0"))
    assert residual(encode(ds), identifiers_of(chest_film())) == ("bytes:PERSON",)


def test_pixels_are_not_searched_and_shifted_dates_are_not_findings() -> None:
    ds = chest_film(PatientName="P1", PatientID="P1", StudyDate="20210105")
    ds["PixelData"].value = b"Oberon Tiberius Zwyntharquist   "
    wanted = [Identifier(Kind.PERSON, "Oberon"), Identifier(Kind.DATE, "20210105")]
    assert residual(encode(ds), wanted) == ()
    assert residual(encode(ds), [Identifier(Kind.DATE, "19610413")]) == ()


def test_short_names_are_found_where_words_have_borders() -> None:
    found = residual(encode(chest_film(Manufacturer="Xu Imaging")), [Identifier(Kind.PERSON, "Xu")])
    assert found == ("00080070:TEXT",)


def test_findings_never_hold_values() -> None:
    found = residual(encode(chest_film()), identifiers_of(chest_film()))
    assert found
    assert not any(text.lower() in " ".join(found).lower() for text in ("oberon", "7731945", "ottilien"))


def test_the_second_judgement_needs_no_source() -> None:
    ds = chest_film(PatientName="P1", PatientID="P1", ReferringPhysicianName=None)
    ds.private_block(0x0029, "ACME", create=True).add_new(1, "LO", "x")
    ds.PatientComments = "x"
    found = violations(encode(ds, preamble=b"x" * 128), patient_id="P1", texts=TEXTS)
    assert {"preamble:NOT_ZERO", "00290010:UNKNOWN_OR_PRIVATE", "00104000:TEXT", "0020000D:UID"} <= set(found)
    assert "00100010:NAME" not in found
    assert "00100010:NAME" in violations(encode(ds), patient_id="P2", texts=TEXTS)


def test_a_released_object_passes_both() -> None:
    result = release(chest_film())
    texts = TEXTS | {"CodeValue", "CodingSchemeDesignator", "CodeMeaning", "ImplementationVersionName"}
    assert violations(result.data, patient_id=result.patient_id, texts=texts) == ()
    assert residual(result.data, identifiers_of(chest_film())) == ()


def test_a_cleaner_that_forgets_something_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(Cleaner):
        def clean(self, ds: Dataset) -> Dataset:
            out = super().clean(ds)
            out.ImageComments = "seen by Dr. Krautschnabel"
            return out

    monkeypatch.setattr(engine, "Cleaner", Forgetful)
    with pytest.raises(PoisonInput) as caught:
        release(chest_film())
    assert caught.value.reason is Reason.RESIDUAL_IDENTIFIER
    assert "00204000" in str(caught.value)
    assert "krautschnabel" not in str(caught.value).lower()


def test_patients_called_like_a_defined_term_are_released() -> None:
    output = release(chest_film(PatientName="MR^Primary^Yes", PatientID="12"))
    assert dcmread(BytesIO(output.data)).Modality == "DX"


def _hidden(value: bytes) -> bytes:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "2.25.1"
    ds.add(DataElement(0x00282000, "OB", value + b"\0" * (len(value) % 2)))
    return encode(ds)


@pytest.mark.parametrize(
    "value",
    [
        base64.b64encode(b"patient Zwyntharquist"),
        b"x=" + base64.b64encode(b"\0".join(bytes([char]) for char in b"Zwyntharquist ")),
        base64.b64encode(base64.b64encode(b"patient Zwyntharquist")),
        b"prefix" + base64.urlsafe_b64encode(b"Zwyntharquist, Oberon"),
        b"Zwyntharquist".hex().encode(),
        b"Zwyntharquist".hex(" ").upper().encode(),
        b"".join(b"%%%02X" % char for char in b"Zwyntharquist"),
        b"".join(b"&#%d;" % char for char in b"Zwyntharquist"),
        zlib.compress(b"patient Zwyntharquist " * 3),
        gzip.compress(b"patient Zwyntharquist " * 3, mtime=0),
        "Zwyntharquist".encode("utf-32-le"),
    ],
)
def test_an_identifier_inside_an_encoding_is_found(value: bytes) -> None:
    assert residual(_hidden(b"\0\0" + value if value[:1] == b"Z" else value), identifiers_of(chest_film())) == (
        "bytes:PERSON",
    )


SCRIPTS = {
    "Жвинтарквист": ("utf-8", "utf-16-le", "cp1251", "iso8859_5"),
    "山田": ("utf-8", "utf-16-be", "shift_jis", "iso2022_jp", "gb18030"),
    "Λόντου": ("utf-8", "iso8859_7"),
    "Müller-Lüdenscheid": ("utf-8", "latin-1", "utf-16-le"),
}


@pytest.mark.parametrize(("name", "encoding"), [(name, code) for name, codes in SCRIPTS.items() for code in codes])
def test_names_of_other_scripts_are_found_in_their_encodings(name: str, encoding: str) -> None:
    found = residual(_hidden(b"\1\2" + name.encode(encoding)), [Identifier(Kind.PERSON, name)])
    assert found == ("bytes:PERSON",)


@pytest.mark.parametrize(
    "text", ["jsmythe", "SmytheJ", "johnsmythe", "smythejohn", "Mueller", "Muller", "MÜLLER", "oshaughnessy", "Soren"]
)
def test_the_forms_people_write_a_name_in_are_found(text: str) -> None:
    people = chest_film(PatientName="Smythe^John", OtherPatientNames="Müller^Søren", PatientBirthName="O'Shaughnessy^A")
    assert Index(identifiers_of(people)).in_text(f"seen {text} today")


@pytest.mark.parametrize("patient_id", ["MR70329669", "PAT0070329669X", "70329669"])
def test_the_digits_of_a_number_are_found_without_its_letters(patient_id: str) -> None:
    index = Index(identifiers_of(chest_film(PatientID=patient_id)))
    assert index.in_text("id 70329669")
    assert index.in_number("70329669")
    assert list(index.spans("id 0070329669 knee")) == [(3, 13)]


def test_a_description_is_no_identifier() -> None:
    index = Index(identifiers_of(chest_film(StudyDescription="CT of the chest with contrast")))
    assert not index.in_text("CT of the chest with contrast")


def test_one_reading_finds_what_both_looks_find() -> None:
    output = encode(chest_film())
    identifiers = identifiers_of(chest_film())
    both = set(residual(output, identifiers)) | set(violations(output, patient_id="P1", texts=TEXTS))
    assert set(prove(output, identifiers, patient_id="P1", texts=TEXTS)) == both
    assert {"00100010:NAME", "0020000D:UID", "00080080:TEXT", "bytes:PERSON"} <= both


def test_the_proof_follows_the_options_of_the_profile() -> None:
    ds = chest_film(PatientName="P1", PatientID="P1", ReferringPhysicianName=None, StudyComments="clear")
    ds.private_block(0x0029, "ACME", create=True).add_new(1, "LO", "x")
    found = prove(encode(ds), [], patient_id="P1", texts=TEXTS)
    assert {"0020000D:UID", "00324000:TEXT", "00290010:UNKNOWN_OR_PRIVATE", "00291001:UNKNOWN_OR_PRIVATE"} <= set(found)
    assert prove(encode(ds), [], patient_id="P1", texts=None, keeps_uids=True, is_allowed=lambda *_: True) == ()


@pytest.mark.parametrize("packed", [zlib.compress, gzip.compress])
def test_a_packed_text_is_found_wherever_it_begins(packed: Callable[[bytes], bytes]) -> None:
    hidden = _hidden(b"\1\2\3 and then " + packed(b"patient Zwyntharquist " * 3))
    assert residual(hidden, identifiers_of(chest_film())) == ("bytes:PERSON",)


def test_what_another_reader_cannot_read_is_not_released() -> None:
    output = encode(chest_film(PatientName="P1", PatientID="P1"))
    assert any(found.endswith(":UNREADABLE") for found in violations(output[:-5], patient_id="P1", texts=TEXTS))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_pixels_alone_are_not_searched_in_any_transfer_syntax(syntax: str) -> None:
    wanted = [Identifier(Kind.PERSON, "Oberon")]
    ds = chest_film(PatientName="P1", PatientID="P1")
    ds["PixelData"].value = b"Oberon Tiberius Zwyntharquist   "
    assert residual(encode(ds, syntax), wanted) == ()
    ds.add(DataElement(0x00282000, "OB", b"\0\0Oberon\0\0"))
    assert residual(encode(ds, syntax), wanted) == ("bytes:PERSON",)
