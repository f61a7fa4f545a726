"""A header does not depend on what was read before, on how much of the object came first, or on who reads it."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from imaging_pipeline.dicom._memo import MEMO_DEPTH
from imaging_pipeline.dicom.header import Header, HeaderReader, read_header
from imaging_pipeline.errors import PoisonInput
from imaging_pipeline_tests.dicom.headers import (
    FILES,
    PIXEL_DATA,
    document,
    element,
    every_vr,
    file_of,
    implicit,
    issues_of,
    item,
    saved,
)

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
ITEM_END, SEQUENCE_END = implicit(0xFFFEE00D, b""), implicit(0xFFFEE0DD, b"")
SMALL = [path.read_bytes() for path in FILES if path.stat().st_size < 40_000]


def outcome(reader: HeaderReader, data: bytes) -> Header | str:
    try:
        return reader.read(data)
    except PoisonInput as refusal:
        return refusal.reason


def without_memo(data: bytes) -> Header | str:
    return outcome(HeaderReader(memo_bytes=0), data)


def of_series(number: int, series: int) -> Dataset:
    """One object of a series: some values are its own, some its series', some sequences of undefined length."""
    ds = every_vr()
    ds.SOPInstanceUID, ds.SeriesInstanceUID = f"1.2.{series}.{number}", f"1.2.{series}"
    ds.InstanceNumber, ds.ImageComments = str(number), f"slice {number % 3}"
    ds.Manufacturer = f"maker {series % 2}"
    inner = Dataset()
    inner.CodeValue, inner.CodeMeaning = f"T-{series}", "Ä" * (number % 2)
    inner.ReferencedStudySequence = [Dataset(), Dataset()]
    inner.ReferencedStudySequence[0].ReferencedSOPInstanceUID = f"1.{number % 2}"
    ds.AnatomicRegionSequence = [inner, inner]
    ds["AnatomicRegionSequence"].is_undefined_length = bool(series % 2)
    ds.add_new(0x00090011, "LO", f"GEMS_{'IDEN' if number % 3 else 'PARM'}_01")
    ds.add_new(0x00091101, "LO", "text")
    return ds


def test_a_series_read_by_one_reader_is_what_a_new_reader_reads() -> None:
    objects = [
        saved(of_series(number, series), syntax)
        for syntax, series, number in itertools.product(SYNTAXES, range(3), range(5))
    ]
    reader = HeaderReader()
    for data in objects * 2:
        assert reader.read(data) == without_memo(data)


def test_every_real_header_is_the_same_with_and_without_memory() -> None:
    reader = HeaderReader()
    for data in SMALL * 2:
        assert outcome(reader, data) == without_memo(data)


@pytest.mark.parametrize("memo_bytes", [0, 1, 400, 3_000, 50_000])
def test_a_memo_that_keeps_starting_anew_changes_nothing(memo_bytes: int) -> None:
    reader = HeaderReader(memo_bytes=memo_bytes)
    for data in [saved(of_series(number, number % 3)) for number in range(12)] * 2:
        assert reader.read(data) == read_header(data)


def test_what_the_memo_keeps_is_bounded() -> None:
    reader = HeaderReader(memo_bytes=200_000)

    def read(numbers: range) -> int:
        for number in numbers:
            content = b"".join(element(0x00091000 + n, "LO", f"{number} {n}".ljust(200).encode()) for n in range(30))
            reader.read(file_of(content))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    early, late = read(range(100)), read(range(100, 1000))
    tracemalloc.stop()
    assert late < early + 300_000


@pytest.mark.parametrize("length", [None, 0xFFFFFFFF])
def test_the_limit_on_nesting_does_not_depend_on_the_memo(length: int | None) -> None:
    def nested(depth: int, content: bytes) -> bytes:
        ends = (b"", b"") if length is None else (ITEM_END, SEQUENCE_END)
        for _ in range(depth):
            content = element(0x00081032, "SQ", item(content + ends[0], length) + ends[1], length)
        return content

    deep = element(0x00080100, "SH", b"deep")
    reader = HeaderReader()
    for depth in (1, MEMO_DEPTH - 1, MEMO_DEPTH, MEMO_DEPTH + 1, 40, 64, 65, 70, 64, 30):
        data = file_of(nested(depth, deep))
        header = reader.read(data)
        assert header == without_memo(data)
        assert bool(header.issues) == (depth > 64)


def test_a_remembered_sequence_does_not_reach_out_of_a_shorter_item() -> None:
    code = item(element(0x00080100, "SH", b"code") + ITEM_END, 0xFFFFFFFF)
    inner = element(0x00081032, "SQ", code + SEQUENCE_END, 0xFFFFFFFF)
    reader = HeaderReader()
    for cut in (0, 0, 4, 8, 16, 0, 8):
        content = item(inner, len(inner) - cut)
        data = file_of(element(0x00400100, "SQ", content + element(0x00080060, "CS", b"CT")))
        assert reader.read(data) == without_memo(data)


def test_private_elements_follow_their_creator_whatever_was_read_before() -> None:
    def private(creator: bytes) -> bytes:
        content = implicit(0x00080060, b"CT") + implicit(0x00090010, creator) + implicit(0x00091001, b"text")
        return file_of(content, ImplicitVRLittleEndian)

    reader = HeaderReader()
    for creator, vr in [(b"GEMS_IDEN_01", "LO"), (b"NOBODY", "UN"), (b"GEMS_IDEN_01", "LO"), (b"NOBODY", "UN")] * 2:
        assert document(reader.read(private(creator)))["00091001"]["vr"] == vr


def test_a_fault_is_told_each_time_even_when_no_more_issues_are_kept() -> None:
    faulty = element(0x00081032, "SQ", item(element(0x00080100, "SH", b"ok") + element(0x00180050, "DS", b"thick ")))
    many = b"".join(element(0x00091000 + n, "DS", b"thick ") for n in range(300))
    reader = HeaderReader()
    for _ in range(2):
        assert len(reader.read(file_of(many + faulty)).issues) == 200
    assert issues_of(reader.read(file_of(faulty))) == [("vr_invalid", "WARNING", "00081032[0].00180050")]


def test_elements_out_of_order_are_noticed_whatever_was_read_before() -> None:
    a, b, c = (element(tag, "CS", b"CT") for tag in (0x00080060, 0x00080068, 0x00180015))
    creator = element(0x00090010, "LO", b"NOBODY")
    reader = HeaderReader()
    for parts in [(a, b, c), (a, c), (c, a), (a, b), (b, a), (a, creator, b), (a, b, creator), (a, a, b)] * 3:
        data = file_of(b"".join(parts))
        assert reader.read(data) == without_memo(data)
        attributes = document(reader.read(data))
        assert list(attributes) == sorted(attributes)


def test_threads_that_share_a_small_memo_read_what_one_reads() -> None:
    objects = [saved(of_series(number, number % 4)) for number in range(24)] * 6
    expected = [without_memo(data) for data in objects]
    reader = HeaderReader(memo_bytes=20_000)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(reader.read, objects)) == expected


def test_mutated_headers_are_the_same_with_and_without_memory() -> None:
    chance, reader = random.Random(4), HeaderReader(memo_bytes=200_000)
    for _ in range(1500):
        data = bytearray(chance.choice(SMALL))
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(min(len(data), 3000))] = chance.choice((0, 1, 0xFF, 0x5C, chance.randrange(256)))
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        assert outcome(reader, bytes(data)) == without_memo(bytes(data))


PIECES = st.one_of(
    st.builds(
        element,
        st.sampled_from([0x00080005, 0x00080060, 0x00081032, 0x00090010, 0x00091001, 0x00280103, 0x00280106]),
        st.sampled_from(["SQ", "UN", "LO", "CS", "DS", "US"]),
        st.sampled_from([b"", b"\1\0", b"ISO_IR 192", b"GEMS_IDEN_01", b"\xc3\xa4", b"1.5\\2"]),
    ),
    st.builds(
        lambda content: element(0x00081032, "SQ", item(content)),
        st.sampled_from([b"", element(0x00080100, "SH", b"code"), element(0x00280106, "UN", b"\xff\xff")]),
    ),
    st.just(
        element(
            0x00081032,
            "SQ",
            item(element(0x00080100, "SH", b"code") + implicit(0xFFFEE00D, b""), 0xFFFFFFFF)
            + implicit(0xFFFEE0DD, b""),
            0xFFFFFFFF,
        )
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(PIECES, max_size=7), min_size=2, max_size=6), st.sampled_from(SYNTAXES))
def test_headers_made_of_the_same_pieces_do_not_leak_into_each_other(objects: list[list[bytes]], syntax: str) -> None:
    reader = HeaderReader()
    for pieces in [*objects, *objects]:
        data = file_of(b"".join(pieces), syntax)
        assert outcome(reader, data) == without_memo(data)


# How much is read


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_an_object_may_be_split_at_any_byte(syntax: str) -> None:
    data = saved(of_series(1, 1), syntax)
    whole, reader = read_header(data), HeaderReader()
    for first in range(len(data)):
        assert reader.read(data[:first], size=len(data), more=lambda upto: data[:upto]) == whole


def test_any_prefix_of_an_object_is_read_the_same_with_and_without_memory() -> None:
    data, reader = saved(of_series(1, 1)), HeaderReader()
    reader.read(data)
    for end in range(1, len(data)):
        assert outcome(reader, data[:end]) == without_memo(data[:end])


def test_no_more_of_a_remote_object_is_asked_for_than_the_header_takes() -> None:
    header_part = file_of(b"".join(element(0x00091000 + n, "LO", b"x" * 60) for n in range(20_000)))
    data = header_part + PIXEL_DATA[:8] + (50_000_000).to_bytes(4, "little")
    size = len(data) + 50_000_000
    asked: list[int] = []

    def more(upto: int) -> bytes:
        asked.append(upto)
        return (data + bytes(max(0, upto - len(data))))[:upto]

    header = read_header(data[:65536], size=size, more=more)
    assert header.header_bytes == len(header_part)
    assert header.pixel_length == 50_000_000
    assert max(asked) <= 2 * len(header_part) + 65536
    assert len(asked) <= 6
    short = file_of(element(0x00080060, "CS", b"CT")) + data[len(header_part) :]
    asked.clear()
    assert read_header(short, size=size, more=more).has_pixel
    assert asked == []
