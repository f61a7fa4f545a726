"""Headers of real, synthetic, damaged and hostile objects."""

from __future__ import annotations

import io
import pickle
import random
import struct
import time
import tracemalloc
import zlib
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from imaging_pipeline.dicom.header import HeaderReader, read_header
from imaging_pipeline.errors import PoisonInput, Reason, Severity
from imaging_pipeline_tests.dicom.headers import (
    DATA,
    FILES,
    PIXEL_DATA,
    by_pydicom,
    document,
    element,
    every_vr,
    file_of,
    implicit,
    issues_of,
    item,
    normal,
    saved,
    values_of,
    without_meta,
)

# Equality with pydicom


def test_the_file_meta_information_is_in_the_document() -> None:
    data = (DATA / "test_files" / "CT_small.dcm").read_bytes()
    attributes = document(read_header(data))
    meta = pydicom.dcmread(io.BytesIO(data)).file_meta
    assert attributes["00020010"] == {"vr": "UI", "Value": [meta.TransferSyntaxUID]}
    assert attributes["00020003"]["Value"] == [meta.MediaStorageSOPInstanceUID]
    assert "00020000" not in attributes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_every_representation_is_read_in_every_syntax(syntax: str) -> None:
    data = saved(every_vr(), syntax)
    header = read_header(data)
    attributes = document(header)
    assert header.transfer_syntax_uid == syntax
    assert header.issues == ()
    assert attributes["00409225"]["Value"] == ["NaN"]
    assert attributes["00409212"]["Value"] == [1.5, "inf", "-inf"]
    assert attributes["00280030"] == {"vr": "DS", "Value": [0.5, 0.5]}
    assert '"00280030":{"vr":"DS","Value":[0.5,0.50]}' in header.json
    assert attributes["00280106"] == {"vr": "SS", "Value": [-5]}
    assert attributes["00189810"] == {"vr": "SS", "Value": [-7]}
    assert attributes["00080008"]["Value"] == ["ORIGINAL", None, "AXIAL"]
    assert attributes["00081032"]["Value"][1] == {}
    assert attributes["00091001"] == {"vr": "LO", "Value": ["GE_GENESIS_FF"]}
    assert attributes["00100010"]["Value"] == [
        {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}
    ]
    assert header.private_element_count == 3
    assert header.element_count == len(attributes) + 2
    ours, theirs = normal(without_meta(attributes)), normal(by_pydicom(data))
    for tag in ("00409225", "00409212"):  # NaN and infinities
        del ours[tag], theirs[tag]
    assert ours == theirs


# Recognition


@pytest.mark.parametrize(
    "data",
    [
        b"patient,date\n1,2024-01-01\n" * 40,
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4,
        b"PK\x03\x04" + b"\0" * 400,
        b"{}",
        b"\0" * 1000,
        b"\xff" * 1000,
        random.Random(1).randbytes(5000),
        b"DICM" * 3,
    ],
    ids=["csv", "png", "zip", "json", "zeros", "ones", "random", "word"],
)
def test_other_files_are_not_dicom(data: bytes) -> None:
    with pytest.raises(PoisonInput) as caught:
        read_header(data)
    assert caught.value.reason is Reason.NOT_DICOM


def test_an_empty_object_is_refused_as_empty() -> None:
    with pytest.raises(PoisonInput) as caught:
        read_header(b"")
    assert caught.value.reason is Reason.EMPTY


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0" * 128 + b"DICM", Reason.TRUNCATED),
        (b"\0" * 128 + b"DICM\2\0\0", Reason.TRUNCATED),
        (b"\0" * 128 + b"DICM" + b"\2\0\2\0UI\x1a\0001.2", Reason.TRUNCATED),
        (b"\0" * 128 + b"DICM" + b"\xff" * 100, Reason.MALFORMED),
    ],
)
def test_a_preamble_without_elements_is_refused(data: bytes, reason: Reason) -> None:
    with pytest.raises(PoisonInput) as caught:
        read_header(data)
    assert caught.value.reason is reason


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_bare_data_set_is_recognised(syntax: str) -> None:
    data = saved(every_vr(), syntax)
    start = 144 + struct.unpack_from("<L", data, 140)[0]
    header = read_header(data[start:])
    assert header.transfer_syntax_uid == syntax
    assert not header.has_preamble
    assert issues_of(header) == [("missing_preamble", "INFO", None), ("missing_file_meta", "INFO", None)]
    assert normal(document(header)) == normal(without_meta(document(read_header(data))))


def test_file_meta_without_preamble_is_recognised() -> None:
    data = saved(every_vr())
    header = read_header(data[132:])
    assert issues_of(header) == [("missing_preamble", "INFO", None)]
    assert header.json == read_header(data).json


@pytest.mark.parametrize("declared", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("real", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_the_encoding_found_wins_over_the_declared_one(declared: str, real: str) -> None:
    data = saved(every_vr(), real)
    start = 144 + struct.unpack_from("<L", data, 140)[0]
    header = read_header(file_of(data[start:], declared))
    reasons = [reason for reason, _, _ in issues_of(header)]
    assert reasons == ([] if declared == real else ["wrong_transfer_syntax"])
    assert header.transfer_syntax_uid == declared
    assert without_meta(document(header)) == without_meta(document(read_header(data)))


# Pixel data and what is fetched


def test_pixel_data_are_placed_but_never_read() -> None:
    content = element(0x00080060, "CS", b"CT") + PIXEL_DATA + element(0xFFFCFFFC, "OB", b"\0\0")
    data = file_of(content)
    at = data.index(PIXEL_DATA)
    header = read_header(data)
    assert (header.has_pixel, header.pixel_offset, header.pixel_length) == (True, at + 12, 4)
    assert header.header_bytes == at
    assert document(header)["7FE00010"]["BulkDataURI"] == f"?offset={at + 12}&length=4"
    assert "FFFCFFFC" in document(header)

    def refuse(upto: int) -> bytes:
        pytest.fail(f"{upto} bytes were asked for")

    part = read_header(data[: at + 12], size=len(data), more=refuse)
    assert part.pixel_offset == at + 12
    assert "FFFCFFFC" not in document(part)


def test_a_long_header_is_fetched_in_few_steps() -> None:
    content = b"".join(element(0x00091000 + n, "LO", b"x" * 60) for n in range(40_000))
    data = file_of(b"".join((element(0x00080060, "CS", b"CT"), content[: 40_000 * 68], PIXEL_DATA)))
    asked: list[int] = []

    def more(upto: int) -> bytes:
        asked.append(upto)
        return data[:upto]

    header = read_header(data[:1000], size=len(data), more=more)
    assert header.json == read_header(data).json
    assert len(asked) < 12


def test_encapsulated_pixel_data_end_at_their_delimiter() -> None:
    fragments = item(b"") + item(b"\xfe\xff\xdd\xe0\0\0\0\0") + implicit(0xFFFEE0DD, b"")
    content = element(0x7FE00010, "OB", fragments, 0xFFFFFFFF) + element(0xFFFCFFFC, "OB", b"\0\0")
    header = read_header(file_of(content, "1.2.840.10008.1.2.4.50"))
    assert header.has_pixel
    assert header.pixel_length is None
    assert header.issues == ()
    assert "FFFCFFFC" in document(header)
    cut = read_header(file_of(content[:30], "1.2.840.10008.1.2.4.50"))
    assert issues_of(cut) == [("truncated", "WARNING", "7FE00010")]


def test_pixel_data_shorter_than_declared_are_an_issue() -> None:
    header = read_header(file_of(element(0x00080060, "CS", b"CT") + PIXEL_DATA[:-1]))
    assert issues_of(header) == [("truncated", "WARNING", "7FE00010")]


def test_an_icon_is_not_the_pixel_data() -> None:
    icon = element(0x00880200, "SQ", item(PIXEL_DATA))
    header = read_header(file_of(icon))
    assert not header.has_pixel
    assert document(header)["00880200"]["Value"][0]["7FE00010"] == {"vr": "OW", "InlineBinary": "AQIDBA=="}


def test_long_binary_values_stay_in_the_object() -> None:
    data = file_of(element(0x00091001, "OB", b"A" * 1024) + element(0x00091002, "OB", b"B" * 1026))
    attributes = document(read_header(data))
    assert "InlineBinary" in attributes["00091001"]
    assert attributes["00091002"]["BulkDataURI"] == f"?offset={data.index(b'BBBB')}&length=1026"


def test_a_deflated_data_set_is_inflated_only_up_to_the_pixel_data() -> None:
    content = element(0x00080060, "CS", b"CT") + element(0x7FE00010, "OW", b"\0" * 50_000_000)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = file_of(deflater.compress(content) + deflater.flush(), "1.2.840.10008.1.2.1.99")
    tracemalloc.start()
    header = read_header(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert document(header)["00080060"]["Value"] == ["CT"]
    assert (header.has_pixel, header.pixel_offset, header.pixel_length) == (True, None, 50_000_000)
    assert header.issues == ()
    assert header.header_bytes == 10
    assert peak < 5_000_000


def test_a_deflated_bomb_is_too_large() -> None:
    content = element(0x00080060, "CS", b"CT") + (element(0x00091001, "UN", b"\0" * 60_000)) * 1000
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = file_of(deflater.compress(content) + deflater.flush(), "1.2.840.10008.1.2.1.99")
    with pytest.raises(PoisonInput) as caught:
        read_header(data)
    assert caught.value.reason is Reason.TOO_LARGE


def test_a_broken_deflated_stream_keeps_the_beginning() -> None:
    content = b"".join(element(0x00091000 + n, "LO", str(n).zfill(8).encode()) for n in range(3000))
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = deflater.compress(element(0x00080060, "CS", b"CT") + content) + deflater.flush()
    header = read_header(file_of(stream[: len(stream) // 2], "1.2.840.10008.1.2.1.99"))
    assert document(header)["00080060"]["Value"] == ["CT"]
    assert "truncated" in [reason for reason, _, _ in issues_of(header)]


# Character sets


@pytest.mark.parametrize(
    ("term", "value", "text"),
    [
        (b"ISO_IR 100", "Müller".encode("latin-1"), "Müller"),
        (b"ISO_IR 144", "Жук".encode("iso8859_5"), "Жук"),
        (b"ISO_IR 192", "王".encode(), "王"),
        (b"GB18030 ", "王\\小".encode("gb18030"), "王"),
        (b"GBK ", "東".encode("gbk"), "東"),
        (b"ISO_IR 13", b"\xd4\xcf", "ﾔﾏ"),
        (b"ISO 2022 IR 6\\ISO 2022 IR 87", b"\x1b$B;3ED\x1b(B", "山田"),
        (b"\\ISO 2022 IR 149", b"\x1b$)C\xfb\xf3", "洪"),
        (b"\\ISO 2022 IR 58", b"\x1b$)A\xcd\xf5", "王"),
        (b"ISO-IR 100", b"\xe4", "ä"),
        (b"UTF-8 ", b"\xc3\xa4", "ä"),
    ],
)
def test_declared_character_sets_are_decoded(term: bytes, value: bytes, text: str) -> None:
    content = element(0x00080005, "CS", term) + element(0x00080080, "LO", value)
    header = read_header(file_of(content))
    assert document(header)["00080080"]["Value"][0] == text
    assert header.issues == ()


@pytest.mark.parametrize(
    ("term", "value", "text", "path"),
    [
        (None, b"M\xfcller", "Müller", "00080080"),
        (b"ISO_IR 192", b"M\xfcller", "M\ufffdller", "00080080"),
        (b"KLINGON ", b"Mueller ", "Mueller", "00080005"),
        (b"ISO_IR 6", b"\x1b$B;3ED\x1b(B", "山田", "00080080"),
        (b"\\ISO 2022 IR 87", b"a\x1b$Xb", "a\x1b$Xb", "00080080"),
    ],
)
def test_wrong_character_sets_are_an_issue_each_time(term: bytes | None, value: bytes, text: str, path: str) -> None:
    declaration = b"" if term is None else element(0x00080005, "CS", term)
    data = file_of(declaration + element(0x00080080, "LO", value))
    for _ in range(2):
        header = read_header(data)
        assert document(header)["00080080"]["Value"] == [text]
        assert issues_of(header) == [("charset_unknown", "WARNING", path)]


def test_an_item_has_its_own_character_set_and_gives_it_to_its_items() -> None:
    inner = element(0x00401101, "SQ", item(element(0x00080104, "LO", "ж".encode("iso8859_5"))))
    own = item(element(0x00080005, "CS", b"ISO_IR 144") + element(0x00080104, "LO", b"\xb6") + inner)
    plain = item(element(0x00080104, "LO", b"\xe4"))
    content = element(0x00080005, "CS", b"ISO_IR 100") + element(0x00081032, "SQ", own + plain)
    first, second = values_of(content + element(0x00104000, "LT", b"\xe4"), "00081032")
    assert first["00080104"]["Value"] == ["Ж"]
    assert first["00401101"]["Value"][0]["00080104"]["Value"] == ["ж"]
    assert second["00080104"]["Value"] == ["ä"]


# Values that do not fit


@pytest.mark.parametrize(
    ("vr", "value", "expected", "fits"),
    [
        ("DS", b"1.50\\-0\\+1\\.5\\1.\\1e3 ", "[1.50,-0,1.0,0.5,1.0,1000.0]", True),
        ("DS", b"1\\\\2 ", "[1,null,2]", True),
        ("DS", b"1,5", '["1,5"]', False),
        ("DS", b"nan ", '["nan"]', False),
        ("DS", b"1_0 ", '["1_0"]', False),
        ("DS", b"1e999 ", '["1e999"]', False),
        ("DS", b"9" * 5000, f'["{"9" * 5000}"]', False),
        ("IS", b"007 ", "[7]", True),
        ("IS", b"12.0", "[12]", True),
        ("IS", b"1.5 ", '["1.5"]', False),
        ("IS", b"5\\1A", '[5,"1A"]', False),
    ],
)
def test_numeric_text_becomes_numbers_or_stays_text(vr: str, value: bytes, expected: str, *, fits: bool) -> None:
    header = read_header(file_of(element(0x00091001, vr, value)))
    document(header)
    assert f'"00091001":{{"vr":"{vr}","Value":{expected}}}' in header.json
    assert issues_of(header) == ([] if fits else [("vr_invalid", "WARNING", "00091001")])


@pytest.mark.parametrize("vr", ["US", "FL", "FD", "AT", "SL", "UV"])
def test_binary_values_of_a_wrong_length_are_kept_as_unknown(vr: str) -> None:
    header = read_header(file_of(element(0x00091001, vr, b"abc")))
    assert document(header)["00091001"] == {"vr": "UN", "InlineBinary": "YWJj"}
    assert issues_of(header) == [("vr_invalid", "WARNING", "00091001")]


def test_an_undefined_representation_is_kept_as_unknown() -> None:
    header = read_header(file_of(element(0x00091001, "ZZ", b"ab") + element(0x00091002, "LO", b"ok")))
    assert document(header)["00091001"] == {"vr": "UN", "InlineBinary": "YWI="}
    assert document(header)["00091002"]["Value"] == ["ok"]
    assert issues_of(header) == [("vr_invalid", "WARNING", "00091001")]


def test_the_first_value_of_a_lut_descriptor_is_unsigned() -> None:
    content = element(0x00281101, "SS", struct.pack("<Hhh", 40_000, -5, 16))
    assert values_of(content, "00281101") == [40_000, -5, 16]


@pytest.mark.parametrize(("representation", "expected"), [(0, ("US", 65_531)), (1, ("SS", -5))])
def test_pixel_representation_decides_wherever_it_stands(representation: int, expected: tuple[str, int]) -> None:
    signed = struct.pack("<h", -5)
    items = implicit(0x00289110, item(implicit(0x00280106, signed)))
    content = implicit(0x00080060, b"CT") + implicit(0x00189810, signed)
    content += implicit(0x00280103, struct.pack("<H", representation)) + implicit(0x00280106, signed) + items
    attributes = document(read_header(file_of(content, ImplicitVRLittleEndian)))
    inner = attributes["00289110"]["Value"][0]["00280106"]
    for attribute in (attributes["00189810"], attributes["00280106"], inner):
        assert (attribute["vr"], attribute["Value"][0]) == expected


# Structure


def test_private_elements_are_named_by_the_creator_of_their_block() -> None:
    def private(block: int, creator: bytes) -> bytes:
        return implicit(0x00090000 | block, creator) + implicit(0x00090001 | block << 8, b"text")

    attributes = document(read_header(file_of(private(0x10, b"GEMS_IDEN_01"), ImplicitVRLittleEndian)))
    assert attributes["00091001"] == {"vr": "LO", "Value": ["text"]}
    attributes = document(read_header(file_of(private(0x21, b"NOBODY"), ImplicitVRLittleEndian)))
    assert attributes["00092101"]["vr"] == "UN"
    explicit = element(0x00090010, "LO", b"GEMS_IDEN_01") + element(0x00091001, "UN", b"text")
    assert values_of(explicit, "00091001") == ["text"]


def test_a_creator_does_not_reach_into_items() -> None:
    nested = implicit(0x00081032, item(implicit(0x00091001, b"text")))
    content = implicit(0x00080060, b"CT") + nested
    content += implicit(0x00090010, b"GEMS_IDEN_01") + implicit(0x00091001, b"text")
    attributes = document(read_header(file_of(content, ImplicitVRLittleEndian)))
    assert attributes["00091001"]["vr"] == "LO"
    assert attributes["00081032"]["Value"][0]["00091001"]["vr"] == "UN"


def test_implicit_items_inside_an_explicit_data_set_are_read() -> None:
    content = element(0x00081032, "SQ", item(implicit(0x00080100, b"T-D3")))
    unknown = element(0x00091001, "UN", item(implicit(0x00080100, b"T-D3")) + implicit(0xFFFEE0DD, b""), 0xFFFFFFFF)
    attributes = document(read_header(file_of(content + unknown + element(0x00100020, "LO", b"id"))))
    assert attributes["00081032"]["Value"] == [{"00080100": {"vr": "SH", "Value": ["T-D3"]}}]
    assert attributes["00091001"] == {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["T-D3"]}}]}
    assert attributes["00100020"]["Value"] == ["id"]


def test_elements_out_of_order_are_sorted_and_of_two_the_last_is_kept() -> None:
    a, b = element(0x00080060, "CS", b"CT"), element(0x00080070, "LO", b"ACME")
    header = read_header(file_of(b + a))
    assert issues_of(header) == [("malformed", "INFO", None)]
    assert header.json == read_header(file_of(a + b)).json
    header = read_header(file_of(a + element(0x00080060, "CS", b"MR") + b))
    assert document(header)["00080060"]["Value"] == ["MR"]
    assert issues_of(header) == [("malformed", "WARNING", None)]


def nested(depth: int, length: int | None) -> bytes:
    """Sequences in each other, of stated or of undefined length."""
    content = element(0x00080100, "SH", b"deep")
    ends = (b"", b"") if length is None else (implicit(0xFFFEE00D, b""), implicit(0xFFFEE0DD, b""))
    for _ in range(depth):
        content = element(0x00081032, "SQ", item(content + ends[0], length) + ends[1], length)
    return content


@pytest.mark.parametrize("length", [None, 0xFFFFFFFF])
def test_nesting_is_followed_to_a_limit(length: int | None) -> None:
    data = file_of(element(0x00080060, "CS", b"CT") + nested(64, length))
    assert read_header(data).issues == ()
    header = read_header(file_of(element(0x00080060, "CS", b"CT") + nested(3000, length)))
    assert document(header)["00080060"]["Value"] == ["CT"]
    assert [(reason, severity) for reason, severity, _ in issues_of(header)] == [("malformed", "WARNING")]


@pytest.mark.parametrize("length", [0xFFFFFFFE, 0x7FFFFFFF, 100])
@pytest.mark.parametrize("vr", ["OB", "UN", "UT", "SQ"])
def test_a_lying_length_costs_no_memory_and_not_what_came_before(vr: str, length: int) -> None:
    data = file_of(element(0x00080060, "CS", b"CT") + element(0x00091001, vr, b"abcdefgh", length))
    tracemalloc.start()
    header = read_header(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
    assert document(header)["00080060"]["Value"] == ["CT"]
    assert "truncated" in [reason for reason, _, _ in issues_of(header)] or vr == "SQ"
    assert any(path == "00091001" and severity == "WARNING" for _, severity, path in issues_of(header))


def test_a_header_beyond_the_limit_is_not_fetched() -> None:
    data = file_of(element(0x00080060, "CS", b"CT") + element(0x00091001, "OB", b"", 1 << 30))

    def refuse(upto: int) -> bytes:
        pytest.fail(f"{upto} bytes were asked for")

    header = read_header(data, size=1 << 33, more=refuse)
    assert document(header)["00091001"]["BulkDataURI"] == f"?offset={len(data)}&length={1 << 30}"
    assert issues_of(header) == [("too_large", "WARNING", None)]


def test_a_value_longer_than_its_item_costs_only_the_item() -> None:
    bad = item(element(0x00080100, "SH", b"ok") + element(0x00080104, "LO", b"abc", 4000))
    content = element(0x00081032, "SQ", bad + item(element(0x00080100, "SH", b"next")))
    header = read_header(file_of(content + element(0x00091001, "OB", b"\0" * 5000)))
    first, second = document(header)["00081032"]["Value"]
    assert first == {"00080100": {"vr": "SH", "Value": ["ok"]}}
    assert second["00080100"]["Value"] == ["next"]
    assert issues_of(header) == [("malformed", "WARNING", "00081032[0].00080104")]


def test_trailing_garbage_is_told() -> None:
    header = read_header(file_of(element(0x00080060, "CS", b"CT") + b"\0\0\0\0"))
    assert issues_of(header) == [("truncated", "INFO", None)]


def test_issues_carry_no_values_and_are_bounded() -> None:
    content = b"".join(element(0x00091000 + n, "DS", b"SECRET") for n in range(1000))
    header = read_header(file_of(content))
    assert len(header.issues) == 200
    assert "SECRET" not in repr(header.issues)


# The memo


def test_the_memo_changes_nothing_but_time() -> None:
    reader = HeaderReader()
    for path in FILES[::3]:
        data = path.read_bytes()
        try:
            first = reader.read(data)
        except PoisonInput:
            continue
        assert reader.read(data) == first == HeaderReader().read(data)


def test_headers_are_the_same_in_threads_and_processes() -> None:
    blobs = [path.read_bytes() for path in FILES[:60:4]]
    expected = [read_header(blob) for blob in blobs]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read_header, blobs * 3)) == expected * 3
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert list(pool.map(read_header, blobs)) == expected


def test_refusals_and_headers_can_be_pickled() -> None:
    header = read_header(file_of(element(0x00080060, "CS", b"CT")))
    assert pickle.loads(pickle.dumps(header)) == header


# Damage of any kind

SEEDS = [
    path.read_bytes()
    for path in FILES
    if path.name
    in {
        "rtplan.dcm",
        "test-SR.dcm",
        "chrH32.dcm",
        "chrSQEncoding.dcm",
        "nested_priv_SQ.dcm",
        "UN_sequence.dcm",
        "image_dfl.dcm",
        "MR_small_bigendian.dcm",
        "JPEGLSNearLossless_08.dcm",
        "rtdose_1frame.dcm",
    }
]


def assert_read_or_refused(data: bytes) -> None:
    begin = time.process_time()
    try:
        header = read_header(data)
    except PoisonInput:
        pass
    else:
        document(header)
        assert all(issue.severity in (Severity.WARNING, Severity.INFO) for issue in header.issues)
    assert time.process_time() - begin < 2


def test_mutated_files_are_read_or_refused() -> None:
    chance = random.Random(20_240_229)
    for round_number in range(2000):
        data = bytearray(SEEDS[round_number % len(SEEDS)])
        for _ in range(chance.randint(1, 12)):
            at = chance.randrange(min(len(data), 3000))
            data[at] = chance.choice((0, 1, 0xFF, 0x5C, 0x1B, 0x41, chance.randrange(256)))
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        if chance.random() < 0.2:
            at = chance.randrange(len(data) + 1)
            del data[at : at + chance.randrange(1, 9)]
        assert_read_or_refused(bytes(data))


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_files_cut_anywhere_are_read_or_refused(seed: int) -> None:
    data = SEEDS[seed]
    for end in range(0, min(len(data), 4000), 37):
        assert_read_or_refused(data[:end])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SEEDS), st.integers(0, 3000), st.integers(300, 5000))
def test_a_header_does_not_depend_on_how_much_comes_at_first(data: bytes, first: int, end: int) -> None:
    data = data[:end]
    whole = document(read_header(data))
    part = document(read_header(data[:first], size=len(data), more=lambda upto: data[:upto]))
    assert part == {tag: attribute for tag, attribute in whole.items() if tag in part or tag < "7FE00011"}


CHUNKS = st.one_of(
    st.binary(max_size=40),
    st.builds(
        element,
        st.sampled_from(
            [0x00080005, 0x00080060, 0x00081032, 0x00090010, 0x00091001, 0x00280103, 0x00280106, 0x7FE00010]
        ),
        st.sampled_from(["SQ", "UN", "OB", "LO", "PN", "DS", "FD", "US", "UT", "ZZ", "\0\0"]),
        st.binary(max_size=30),
        st.sampled_from([None, None, 0, 4, 0xFFFF]),
    ),
    st.builds(item, st.binary(max_size=20), st.sampled_from([None, 0, 0xFFFFFFFF, 12])),
    st.sampled_from([implicit(0xFFFEE00D, b""), implicit(0xFFFEE0DD, b""), element(0x00081032, "SQ", b"", 0xFFFFFFFF)]),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(CHUNKS, max_size=25),
    st.sampled_from([ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, "1.2.840.10008.1.2.1.99"]),
)
def test_any_bytes_after_a_preamble_are_read_or_refused(chunks: list[bytes], syntax: str) -> None:
    assert_read_or_refused(file_of(b"".join(chunks), syntax))
    assert_read_or_refused(b"".join(chunks))
