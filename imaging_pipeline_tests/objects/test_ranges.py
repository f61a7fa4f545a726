from __future__ import annotations

import io
import os
import random
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.objects import ranges
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.objects.source import ABSENT
from imaging_pipeline_tests.conftest import folder

READER = ObjectReader()
CONTENT = random.Random(3).randbytes(300_000) + bytes(700_000) + random.Random(4).randbytes(500_001)
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


def zipped(method: int) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        archive.writestr("first.dcm", b"before")
        archive.writestr("study/image.dcm", CONTENT)
    return target.getvalue()


def objects_in(path: Path) -> dict[str, ObjectVersion]:
    (page,) = folder(path).pages(None, datetime.now(UTC))
    found = [member for each in page.objects if each.is_archive for member in READER.list_members(each)]
    return {each.name: each for each in (*page.objects, *found)}


@pytest.fixture
def image(tmp_path: Path) -> ObjectVersion:
    (tmp_path / "image.dcm").write_bytes(CONTENT)
    return objects_in(tmp_path)["image.dcm"]


@pytest.fixture(params=METHODS)
def member(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectVersion:
    (tmp_path / "scans.zip").write_bytes(zipped(request.param))
    return objects_in(tmp_path)["image.dcm"]


def reason_of(read: Callable[[], object]) -> Reason:
    with pytest.raises(PoisonInput) as refusal:
        read()
    return refusal.value.reason


def assert_reads_anywhere(target: ObjectVersion) -> None:
    places = [(0, 10), (1_000_000, 200_000), (299_990, 20), (len(CONTENT) - 5, 100), (5, 0), (len(CONTENT), 1)]
    with READER.open_ranges(target) as opened:
        assert opened.size == len(CONTENT)
        for offset, length in places:
            assert opened.read_at(offset, length) == CONTENT[offset : offset + length]
        assert b"".join(opened.blocks()) == CONTENT
        assert b"".join(opened.blocks(7, 1_100_000)) == CONTENT[7:1_100_007]


def test_any_part_of_a_file_is_read(image: ObjectVersion) -> None:
    assert_reads_anywhere(image)


def test_any_part_of_a_member_is_read_however_it_is_packed(member: ObjectVersion) -> None:
    assert_reads_anywhere(member)


def test_threads_read_parts_of_one_object_at_once(member: ObjectVersion) -> None:
    with READER.open_ranges(member) as opened, ThreadPoolExecutor(8) as pool:
        offsets = [offset % len(CONTENT) for offset in range(0, 40 * 99_991, 99_991)]
        for offset, found in zip(offsets, pool.map(lambda at: opened.read_at(at, 3_000), offsets), strict=True):
            assert found == CONTENT[offset : offset + 3_000]


def test_a_part_of_a_file_or_stored_member_costs_its_own_bytes_only(
    image: ObjectVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scans.zip").write_bytes(zipped(zipfile.ZIP_STORED))
    archive = objects_in(tmp_path)["scans.zip"]
    member = next(each for each in READER.list_members(archive) if each.name == "image.dcm")
    read = counted_reads(monkeypatch)
    for target in (image, member):
        with READER.open_ranges(target) as opened:
            opened.read_at(1_200_000, 4_000)
    assert sum(read) <= 2 * 4_000 + 64


def test_inflation_goes_on_from_the_nearest_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "CHECKPOINT_BYTES", 100_000)
    (tmp_path / "scans.zip").write_bytes(zipped(zipfile.ZIP_DEFLATED))
    member = objects_in(tmp_path)["image.dcm"]
    with READER.open_ranges(member) as opened:
        opened.read_at(len(CONTENT) - 10, 10)
    inflated = inflated_bytes(monkeypatch)
    with READER.open_ranges(member) as opened:
        assert opened.read_at(1_300_000, 100) == CONTENT[1_300_000:1_300_100]
    assert sum(inflated) < 300_000


def test_few_checkpoints_are_kept_of_a_long_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "CHECKPOINT_BYTES", 1_000)
    monkeypatch.setattr(ranges, "MAX_CHECKPOINTS", 4)
    (tmp_path / "scans.zip").write_bytes(zipped(zipfile.ZIP_DEFLATED))
    member = objects_in(tmp_path)["image.dcm"]
    assert_reads_anywhere(member)
    assert len(next(reversed(ranges._inflations.values()))._states) <= 4


def test_what_changed_or_went_since_it_was_listed_is_refused(image: ObjectVersion, tmp_path: Path) -> None:
    assert reason_of(lambda: READER.open_ranges(replace(image, version=ABSENT))) is Reason.GONE
    (tmp_path / "image.dcm").write_bytes(b"other")
    assert reason_of(lambda: READER.open_ranges(image)) is Reason.CHANGED_WHILE_READ
    (tmp_path / "image.dcm").unlink()
    assert reason_of(lambda: READER.open_ranges(image)) is Reason.GONE


def test_a_file_cut_off_while_it_is_read_is_refused(image: ObjectVersion, tmp_path: Path) -> None:
    with READER.open_ranges(image) as opened:
        os.truncate(tmp_path / "image.dcm", 1_000)
        assert reason_of(lambda: opened.read_at(900, 200)) is Reason.CHANGED_WHILE_READ


def test_a_damaged_member_is_refused(tmp_path: Path) -> None:
    packed = bytearray(zipped(zipfile.ZIP_DEFLATED))
    packed[packed.index(b"study/image.dcm") + 15] = 0x07  # a block of a kind that does not exist
    (tmp_path / "scans.zip").write_bytes(packed)
    member = objects_in(tmp_path)["image.dcm"]

    def read() -> bytes:
        with READER.open_ranges(member) as opened:
            return opened.read_at(1_400_000, 100)

    assert reason_of(read) in (Reason.UNREADABLE, Reason.CHANGED_WHILE_READ)


def test_a_member_of_a_replaced_archive_is_refused(member: ObjectVersion, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        archive.writestr("study/image.dcm", b"other")
    assert reason_of(lambda: READER.open_ranges(member)) is Reason.CHANGED_WHILE_READ


def test_places_before_the_object_are_a_mistake_of_the_caller(image: ObjectVersion) -> None:
    with READER.open_ranges(image) as opened, pytest.raises(ValueError, match="not negative"):
        opened.read_at(-1, 5)


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that each read of a file gives from now on."""
    read: list[int] = []
    pread = os.pread

    def counting(descriptor: int, length: int, offset: int) -> bytes:
        found = pread(descriptor, length, offset)
        read.append(len(found))
        return found

    monkeypatch.setattr(os, "pread", counting)
    return read


def inflated_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Packed bytes that are read from now on, in pieces."""
    read: list[int] = []
    pieces = ranges._pieces

    def counting(*arguments: object) -> object:
        for piece in pieces(*arguments):  # type: ignore[arg-type]
            read.append(len(piece))
            yield piece

    monkeypatch.setattr(ranges, "_pieces", counting)
    return read
