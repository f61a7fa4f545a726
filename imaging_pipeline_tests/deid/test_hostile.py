"""Identifiers planted wherever an object has room for them: none of them comes out."""

from __future__ import annotations

import re
import zlib
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline_tests.deid.corpus import DX, NAME, PATIENT_ID, chest_film, encode, nested, release, released

SECRET = b"zwyntharquist"
TEXT_LIMITS = {"AE": 16, "LO": 64, "SH": 16, "ST": 1024, "LT": 1024, "UC": 64, "UT": 64, "UR": 64, "PN": 64, "CS": 16}
SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def _tokens() -> dict[int, str]:
    """A made-up word for every standard attribute of text, different for each."""
    kept = load_profile().keep_text
    return {
        tag: f"LEAK{tag:08X}Z"
        for tag, (vr, *_, keyword) in DicomDictionary.items()
        if vr in TEXT_LIMITS and keyword not in kept and tag >= 0x00080006 and tag >> 16 < 0x5000
    }


def _plain(output: bytes) -> bytes:
    """The bytes of an output with a deflated data set inflated."""
    meta = dcmread(BytesIO(output)).file_meta
    if meta.TransferSyntaxUID != DeflatedExplicitVRLittleEndian:
        return output
    start = 144 + int(meta.FileMetaInformationGroupLength)
    return output[:start] + zlib.decompress(output[start:], -zlib.MAX_WBITS)


def _full_of_secrets() -> Dataset:
    item = Dataset()
    for tag, token in _tokens().items():
        item.add(DataElement(tag, DicomDictionary[tag][0], token))
    return item


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_no_text_attribute_of_the_dictionary_lets_a_word_through_at_any_depth(syntax: str) -> None:
    ds = chest_film()
    for elem in _full_of_secrets():
        if elem.keyword not in ("Modality", "PhotometricInterpretation", "ImageType", "BurnedInAnnotation"):
            ds[elem.tag] = elem
    ds.SpecificCharacterSet = "ISO_IR 100"
    deep = _full_of_secrets()
    ds.add(nested(deep, 3))
    output = _plain(release(encode(ds, syntax)).data)
    assert len(_tokens()) > 1500
    assert b"LEAK" not in output.upper()


def test_the_patients_name_in_attributes_that_are_kept_is_taken_out() -> None:
    ds = chest_film(
        Manufacturer="Zwyntharquist Imaging", ConvolutionKernel="oberon", BodyPartExamined="OBERON",
        SoftwareVersions=["7731945"], ViewPosition="TIBERIUS", RescaleType="x7731945x", StackID="MRN 7731945",
        SeriesNumber="7731945", AcquisitionNumber="19610412",
    )  # fmt: skip
    out = released(ds)
    for keyword in ("Manufacturer", "ConvolutionKernel", "BodyPartExamined", "SoftwareVersions", "ViewPosition",
                    "RescaleType", "StackID", "SeriesNumber", "AcquisitionNumber"):  # fmt: skip
        assert out[keyword].value in ("", None, "DEIDENTIFIED"), keyword


def test_a_code_string_that_is_no_word_of_the_standard_is_emptied() -> None:
    out = released(chest_film(BodyPartExamined="KRAUTSCHNABEL", ImageType=["ORIGINAL", "PRIMARY", "J DOE", "AXIAL"]))
    assert out.BodyPartExamined == ""
    assert list(out.ImageType) == ["ORIGINAL", "PRIMARY", "", "AXIAL"]


def test_private_elements_are_gone_at_every_depth() -> None:
    ds, item = chest_film(), Dataset()
    for holder in (ds, item):
        block = holder.private_block(0x0029, "ACME ZWYNTHARQUIST", create=True)
        block.add_new(0x01, "LO", NAME)
        block.add_new(0x02, "UN", NAME.encode())
        inner = Dataset()
        inner.PatientComments = NAME
        block.add_new(0x03, "SQ", Sequence([inner]))
    ds.add(nested(item, 3))
    output = release(ds).data
    assert SECRET not in output.lower()
    assert not any(elem.tag.is_private for elem in dcmread(BytesIO(output)).iterall())


def test_file_meta_preamble_and_trailing_bytes_are_written_anew() -> None:
    ds = chest_film(DataSetTrailingPadding=NAME.encode())
    ds.file_meta = FileMetaDataset()
    ds.file_meta.SourceApplicationEntityTitle = "ZWYNTHARQUIST"
    ds.file_meta.ImplementationVersionName = "ZWYNTHARQUIST"
    ds.file_meta.PrivateInformationCreatorUID = UID("1.2.3.4.5")
    ds.file_meta.PrivateInformation = NAME.encode()
    preamble = NAME.encode().ljust(128, b" ")
    output = release(encode(ds, preamble=preamble)).data
    assert output[:128] == bytes(128)
    assert SECRET not in output.lower()
    assert sorted(elem.keyword for elem in dcmread(BytesIO(output)).file_meta) == [
        "FileMetaInformationGroupLength", "FileMetaInformationVersion", "ImplementationClassUID",
        "ImplementationVersionName", "MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID",
    ]  # fmt: skip


def test_bytes_behind_the_data_set_do_not_come_out() -> None:
    content = encode(chest_film(), trailing=b"\xfe\xff\x00\x00" + NAME.encode() * 3)
    try:
        output = release(content).data
    except PoisonInput:
        return
    assert SECRET not in output.lower()


def test_overlays_curves_icons_and_encrypted_attributes_are_gone() -> None:
    icon = Dataset()
    icon.ImageComments = NAME
    ds = chest_film(IconImageSequence=Sequence([icon]), EncryptedAttributesSequence=Sequence([icon]))
    ds.add(DataElement(0x60003000, "OW", NAME.encode()))
    ds.add(DataElement(0x60004000, "LT", NAME))
    ds.add(DataElement(0x60021500, "LO", NAME))
    ds.add(DataElement(0x50002500, "LO", NAME))
    ds.add(DataElement(0x50003000, "OW", NAME.encode()))
    output = release(ds).data
    assert SECRET not in output.lower()
    out = dcmread(BytesIO(output))
    assert not [elem.tag for elem in out if elem.tag.group >> 8 in (0x50, 0x60)]
    assert "IconImageSequence" not in out
    assert "EncryptedAttributesSequence" not in out


def test_an_attribute_with_another_vr_than_the_dictionarys_is_no_hiding_place() -> None:
    ds = chest_film()
    ds.add(DataElement(0x00180060, "LO", NAME))  # KVP
    ds.add(DataElement(0x00189004, "UT", NAME))  # Content Qualification
    ds.add(DataElement(0x00281050, "OB", NAME.encode()))  # Window Center
    ds.add(DataElement(0x00280120, "OB", NAME.encode()))  # Pixel Padding Value
    ds.add(DataElement(0x00082218, "LO", NAME))  # Anatomic Region Sequence
    assert SECRET not in release(ds).data.lower()


def test_unknown_elements_and_group_lengths_are_gone() -> None:
    ds = chest_film()
    ds.add(DataElement(0x0018FFFE, "LO", NAME))
    ds.add(DataElement(0x00100000, "UL", 7731945))
    output = release(ds).data
    assert SECRET not in output.lower()
    assert 0x00100000 not in dcmread(BytesIO(output))


def test_numbers_that_are_no_numbers_are_gone() -> None:
    content = encode(chest_film(KVP="120", Exposure="31"))
    content = content.replace(b"DS\x04\x00120 ", b"DS\x04\x00J Do").replace(b"IS\x02\x0031", b"IS\x02\x00JD")
    out = released(content)
    assert not out.get("KVP")
    assert not out.get("Exposure")


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Zwyntharquäst^Gräfin"),
        ("ISO_IR 192", "Жвинтарквист^Оберон"),
        ("ISO_IR 144", "Жвинтарквист^Оберон"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("GB18030", "王^小东"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ],
)
def test_names_in_any_character_set_are_gone(charset: str | list[str], name: str) -> None:
    ds = chest_film(SpecificCharacterSet=charset, PatientName=name, ImageComments=name, PatientComments=name)
    ds.Manufacturer = name.split("=", maxsplit=1)[0].replace("^", " ")
    spelled = dcmread(BytesIO(encode(ds))).PatientName.original_string
    output = release(ds).data
    assert spelled not in output
    for part in re.split(r"[=^]", name):
        for encoding in ("utf-8", "latin-1", "gb18030", "euc_kr", "iso2022_jp", "iso8859_5"):
            assert len(part) < 2 or part.encode(encoding, "replace").lower() not in output.lower()
    out = dcmread(BytesIO(output))
    assert "SpecificCharacterSet" not in out
    assert out.Manufacturer == "DEIDENTIFIED"


def _coded(**values: str) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def test_code_meanings_come_from_the_dictionary_and_unknown_codes_are_gone() -> None:
    chest = _coded(CodeValue="51185008", CodingSchemeDesignator="SCT", CodeMeaning=NAME)
    chest.add_new(0x00080118, "UI", "1.2.3.4.5.6.7")
    old = _coded(CodeValue="T-D3000", CodingSchemeDesignator="SRT", CodeMeaning=NAME)
    local = _coded(CodeValue="7731945", CodingSchemeDesignator="99ACME", CodeMeaning=NAME)
    unknown = _coded(CodeValue="7731945", CodingSchemeDesignator="SCT", CodeMeaning=NAME)
    ds = chest_film(AnatomicRegionSequence=Sequence([chest, old, local, unknown]), ViewCodeSequence=Sequence([local]))
    out = released(ds)
    assert [item.CodeMeaning for item in out.AnatomicRegionSequence] == ["Thoracic structure (body structure)"] * 2
    assert out.AnatomicRegionSequence[0].MappingResourceUID.startswith("2.25.")
    assert "ViewCodeSequence" not in out


@pytest.mark.parametrize("day", ["19000101", "19700101", "19800101", "20991231", "99991231"])
def test_a_placeholder_date_and_its_midnight_do_not_give_the_shift_away(day: str) -> None:
    out = released(chest_film(AcquisitionDate=day, AcquisitionTime="000000", AcquisitionDateTime=f"{day}000000"))
    assert not out.get("AcquisitionDate")
    assert not out.get("AcquisitionTime")
    assert not out.get("AcquisitionDateTime")
    assert out.StudyDate


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_an_instance_uid_that_would_pass_as_one_of_the_standard_is_replaced(keyword: str) -> None:
    output = release(chest_film(**{keyword: "1.2.840.10008.7731.945.1"})).data
    assert b"7731.945" not in output
    assert dcmread(BytesIO(output))[keyword].value.startswith("2.25.")


@pytest.mark.parametrize(("patient_id", "number"), [("0007731945", "7731945"), ("7731945", "0007731945")])
def test_a_number_filled_up_with_zeros_is_the_same_number(patient_id: str, number: str) -> None:
    out = released(chest_film(PatientID=patient_id, AcquisitionNumber=number, SoftwareVersions=f"V1 {number}"))
    assert not out.get("AcquisitionNumber")
    assert out.SoftwareVersions == "DEIDENTIFIED"


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, on writing such an object
@pytest.mark.parametrize("vr", ["LO", "SH", "CS", "UI", "UN", "OB"])
def test_a_name_under_another_vr_is_still_looked_for(vr: str) -> None:
    ds = chest_film(SoftwareVersions="Zwyntharquist V1")
    del ds.PatientName
    ds.add(DataElement(0x00100010, vr, NAME.encode() if vr in ("UN", "OB") else NAME))
    assert SECRET not in release(ds).data.lower()


def test_default_dates_do_not_give_the_shift_away() -> None:
    out = released(chest_film(AcquisitionDate="19000101", ContentDate="00010101", DateOfLastCalibration="20210101"))
    assert not out.get("AcquisitionDate")
    assert not out.get("ContentDate")
    assert not out.get("DateOfLastCalibration")


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"BurnedInAnnotation": "YES"}, "Burned In Annotation"),
        ({"BurnedInAnnotation": "MAYBE"}, "Burned In Annotation"),
        ({"RecognizableVisualFeatures": "YES"}, "Recognizable"),
        ({"ConversionType": "DF"}, "Conversion Type"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "Image Type"),
        ({"PhotometricInterpretation": "RGB"}, "colour"),
        ({"PixelData": bytes(32) + NAME.encode() + b" "}, "longer than the image"),
    ],
)
def test_pixels_that_may_hold_text_wait_for_review(attributes: dict[str, object], why: str) -> None:
    ds = chest_film(**attributes)
    ds["PixelData"].VR = "OW"
    with pytest.raises(PoisonInput, match=why) as caught:
        release(ds)
    assert caught.value.reason is Reason.PIXEL_REVIEW_REQUIRED


def test_burned_in_annotation_no_releases_a_digitised_film() -> None:
    assert released(chest_film(BurnedInAnnotation="NO", ConversionType="DF")).BurnedInAnnotation == "NO"


def test_an_overlay_in_unused_pixel_bits_is_cleared() -> None:
    ds = chest_film()
    ds["PixelData"].value = b"\x34\xf2" * 16
    ds.add(DataElement(0x60000010, "US", 4))
    ds.add(DataElement(0x60000100, "US", 16))
    ds.add(DataElement(0x60000102, "US", 12))
    out = released(ds)
    assert out.PixelData == b"\x34\x02" * 16
    assert not [elem.tag for elem in out if elem.tag.group >> 8 == 0x60]


def _segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload


@pytest.mark.parametrize(
    "stream",
    [
        _segment(0xFE, b"no encoder") + b"\xff\xda\0\2scan\xff\xd9",
        _segment(0xFE, b"LEAD " + NAME.encode()) + b"\xff\xda\0\2scan\xff\xd9",
        b"\xff\xda\0\2scan" + _segment(0xFE, b"between scans") + b"\xff\xda\0\2scan\xff\xd9",
        _segment(0xE1, b"Exif\0\0something") + b"\xff\xda\0\2scan\xff\xd9",
        b"\xff\xda\0\2scan\xff\xd9 and more",
        b"\xff\xda\0\2scan\xff\xd9 between images \xff\xd8\xff\xda\0\2scan\xff\xd9",
        b"\xff\xda\0\2scan\xff\xd9\xff\xd8 without end",
        _segment(0xF0, b"an extension") + b"\xff\xda\0\2scan\xff\xd9",
    ],
)
def test_what_travels_inside_compressed_pixels_is_held(stream: bytes) -> None:
    ds = chest_film()
    del ds.PixelData
    ds.add(DataElement(0x7FE00010, "OB", encapsulate([b"\xff\xd8" + stream])))
    ds["PixelData"].is_undefined_length = True
    content = encode(ds, JPEGBaseline8Bit)
    with pytest.raises(PoisonInput) as caught:
        release(content)
    assert caught.value.reason is Reason.PIXEL_REVIEW_REQUIRED


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, Reason.SOP_CLASS_NOT_RELEASED),
        ({"StudyInstanceUID": None}, Reason.MISSING_UID),
        ({"SeriesInstanceUID": ""}, Reason.MISSING_UID),
        ({"StudyInstanceUID": ["1.2.3", "1.2.4"]}, Reason.MISSING_UID),
    ],
)
def test_what_cannot_be_released_is_refused(attributes: dict[str, object], reason: Reason) -> None:
    with pytest.raises(PoisonInput) as caught:
        release(chest_film(**attributes))
    assert caught.value.reason is reason
    assert PATIENT_ID not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"DICM", bytes(132), b"PK\3\4" * 100, NAME.encode() * 50])
def test_what_is_no_object_is_refused(content: bytes) -> None:
    with pytest.raises(PoisonInput) as caught:
        release(content)
    assert caught.value.reason in (Reason.NOT_DEIDENTIFIABLE, Reason.MISSING_UID)


def test_a_private_transfer_syntax_is_refused() -> None:
    content = encode(chest_film()).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.113619.5.2\0\0")
    with pytest.raises(PoisonInput) as caught:
        release(content)
    assert caught.value.reason is Reason.NOT_DEIDENTIFIABLE


def test_pixels_below_the_top_level_are_gone() -> None:
    photo = Dataset()
    photo.add(DataElement(0x7FE00010, "OW", b"a face, unreviewed"))
    ds = chest_film()
    ds.add(nested(photo, 2))
    assert b"unreviewed" not in release(ds).data


def test_numbers_that_spell_a_text_are_gone() -> None:
    ds = chest_film()
    spelled = [int.from_bytes(NAME.encode()[at : at + 2], "little") for at in range(0, 24, 2)]
    ds.add(DataElement(0x00281101, "US", [256, 0, 16]))  # descriptors of palettes
    ds.add(DataElement(0x00281201, "OW", bytes(range(65, 91)) * 2 + NAME.encode("utf-16-le")))
    ds.add(DataElement(0x00281202, "OW", bytes(range(256))))
    ds.add(DataElement(0x00280120, "US", spelled))  # Pixel Padding Value has one value
    ds.add(DataElement(0x00189310, "FD", [1.5]))
    out = released(ds)
    assert list(out.RedPaletteColorLookupTableDescriptor) == [256, 0, 16]
    assert not out.get("RedPaletteColorLookupTableData")
    assert out.GreenPaletteColorLookupTableData == bytes(range(256))
    assert out.get("PixelPaddingValue") is None


def test_endless_nesting_is_refused() -> None:
    ds = chest_film()
    ds.add(nested(_coded(PatientComments=NAME), 40))
    with pytest.raises(PoisonInput) as caught:
        release(ds)
    assert caught.value.reason is Reason.NOT_DEIDENTIFIABLE


def test_no_warning_log_line_or_message_holds_a_value(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    ds = chest_film(SpecificCharacterSet="NO SUCH SET")
    content = encode(ds).replace(b"20210105", b"ZWYNTHAR").replace(b"1.2.826.0.1.3680043.9.7433.1", b"x" * 28)
    caplog.clear()
    recwarn.clear()
    release(content)
    assert not caplog.records
    assert not list(recwarn)


def test_the_corpus_itself_is_released() -> None:
    assert released(chest_film()).SOPClassUID == DX
    assert keyword_for_tag(0x00100010) == "PatientName"


def test_an_unknown_element_of_the_file_meta_is_left_behind() -> None:
    ds = chest_film()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.add(DataElement(0x00020200, "LO", "Zwyntharquist"))
    out = released(encode(ds))
    assert 0x00020200 not in out.file_meta


def test_a_length_that_counts_bytes_of_another_message_is_no_place_for_a_number() -> None:
    ds = chest_film()
    ds.add(DataElement(0x00080001, "UL", 77319455))
    assert 0x00080001 not in released(ds)


@pytest.mark.parametrize("text", ["March 2016", "call 065-636 2442", "asked for by the ward", "5 pm, 12 May 2016"])
def test_a_kept_device_text_is_no_place_for_dates_phones_and_sentences(text: str) -> None:
    assert released(chest_film(Manufacturer=text)).get("Manufacturer", "") != text
    assert released(chest_film(Manufacturer="Acme 3000 v2.1")).Manufacturer == "Acme 3000 v2.1"
