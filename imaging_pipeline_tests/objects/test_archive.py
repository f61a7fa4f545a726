from __future__ import annotations

import io
import os
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import IO

import pytest

from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.objects import archive as archives
from imaging_pipeline.objects.archive import ArchiveSummary
from imaging_pipeline.objects.folder import file_version, path_to_uri
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.reading import ObjectReader

READER = ObjectReader()


def version_of(path: Path) -> ObjectVersion:
    status = path.stat()
    return ObjectVersion(path_to_uri(path), file_version(status), status.st_size, datetime(2026, 1, 1), "site", True)  # noqa: DTZ001


def zipped(path: Path, members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> ObjectVersion:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return version_of(path)


def members_of(archive: ObjectVersion) -> list[ObjectVersion]:
    return list(READER.list_members(archive))


def refusal_of(read: Callable[[], object]) -> PoisonInput:
    with pytest.raises(PoisonInput) as refusal:
        read()
    return refusal.value


def patched(path: Path, offset: int, data: bytes) -> ObjectVersion:
    whole = bytearray(path.read_bytes())
    whole[offset : offset + len(data)] = data
    path.write_bytes(bytes(whole))
    return version_of(path)


def directory_offset(path: Path, number: int = 0) -> int:
    """Where an entry of the directory of an archive without comments begins."""
    whole = path.read_bytes()
    offset = -1
    for _ in range(number + 1):
        offset = whole.index(b"PK\x01\x02", offset + 1)
    return offset


def test_names_of_any_kind_are_kept_letter_by_letter_and_never_resolved(tmp_path: Path) -> None:
    names = [
        "../../etc/passwd",
        "/etc/shadow",
        "C:\\study\\one.dcm",
        "a/../b.dcm",
        "ü/日本.dcm",
        "a!b",
        "a%2Fb",
        "x\ny",
        "~",
    ]
    (tmp_path / "inner").mkdir()
    archive = zipped(tmp_path / "inner" / "a.zip", [(name, name.encode()) for name in names])
    found = members_of(archive)
    assert [READER.read_all(member).decode() for member in found] == names
    assert all(member.uri.isascii() and member.parent_uri == archive.uri for member in found)
    assert len({member.uri for member in found}) == len(names)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "inner", tmp_path / "inner" / "a.zip"]


def test_names_in_an_old_code_page_are_read(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", [("Aufnahme_?.dcm", b"x")])
    whole = (tmp_path / "a.zip").read_bytes().replace(b"Aufnahme_?", b"Aufnahme_\x81")
    (tmp_path / "a.zip").write_bytes(whole)
    (member,) = members_of(version_of(tmp_path / "a.zip"))
    assert member.uri.endswith("!Aufnahme_%C3%BC.dcm")
    assert READER.read_all(member) == b"x"


def test_a_zip64_archive_of_more_members_than_16_bits_count_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(65_600):
            archive.writestr(zipfile.ZipInfo(f"{number:05d}"), b"%d" % number)
        with archive.open(zipfile.ZipInfo("large"), "w", force_zip64=True) as stream:
            stream.write(b"large")
    found = members_of(version_of(path))
    assert len(found) == 65_601
    assert READER.read_all(found[-2]) == b"65599"
    assert READER.read_all(found[-1]) == b"large"


def test_earlier_members_of_a_name_are_counted_and_the_last_one_is_read(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        archive = zipped(tmp_path / "a.zip", [("one", b"first"), ("two", b"2"), ("one", b"second"), ("one", b"third")])
    found = {member.name: READER.read_all(member) for member in members_of(archive)}
    assert found == {"one": b"third", "two": b"2"}
    assert READER.describe_archive(archive) == ArchiveSummary(2, duplicates=2, hidden=0, encrypted=0, nested=0)


def test_everything_in_an_archive_is_accounted_for(tmp_path: Path) -> None:
    zipped(tmp_path / "inner.zip", [("one", b"1")])
    members = [("a/", b""), ("a/b.dcm", b"1"), ("a/.DS_Store", b"2"), ("in.ZIP", (tmp_path / "inner.zip").read_bytes())]
    archive = zipped(tmp_path / "a.zip", [*members, ("locked", b"3")])
    offset = directory_offset(tmp_path / "a.zip", 4)
    archive = patched(tmp_path / "a.zip", offset + 8, b"\1\0")
    assert READER.describe_archive(archive) == ArchiveSummary(3, duplicates=0, hidden=1, encrypted=1, nested=1)
    found = {member.name: member for member in members_of(archive)}
    assert list(found) == ["b.dcm", "in.ZIP", "locked"]
    assert refusal_of(lambda: READER.read_all(found["locked"])).reason is Reason.UNREADABLE
    assert not found["in.ZIP"].is_archive
    assert READER.read_all(found["in.ZIP"]) == (tmp_path / "inner.zip").read_bytes()


def test_members_that_share_bytes_make_a_bomb_that_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    zipped(path, [("one", bytes(10_000)), ("two", bytes(10_000))])
    bomb = patched(path, directory_offset(path, 1) + 42, struct.pack("<L", 0))  # both begin where the first begins
    assert refusal_of(lambda: members_of(bomb)).reason is Reason.TOO_LARGE
    assert refusal_of(lambda: READER.describe_archive(bomb)).reason is Reason.TOO_LARGE


def test_a_member_that_reaches_into_the_next_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    zipped(path, [("one", os.urandom(100)), ("two", os.urandom(100))], zipfile.ZIP_STORED)
    offset = directory_offset(path)
    bomb = patched(path, offset + 20, struct.pack("<LL", 200, 200))
    assert refusal_of(lambda: members_of(bomb)).reason is Reason.TOO_LARGE


def test_a_member_stops_at_its_declared_size_however_much_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    zipped(path, [("liar", bytes(40_000_000))])
    liar = patched(path, directory_offset(path) + 24, struct.pack("<L", 1_000))
    (member,) = members_of(liar)
    assert member.size == 1_000
    tracemalloc.start()
    try:
        assert refusal_of(lambda: READER.read_all(member)).reason is Reason.UNREADABLE
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_bomb_of_another_method_does_not_fill_the_memory(tmp_path: Path, method: int) -> None:
    path = tmp_path / "a.zip"
    zipped(path, [("liar", bytes(20_000_000))], method)
    assert path.stat().st_size < 20_000
    (member,) = members_of(patched(path, directory_offset(path) + 24, struct.pack("<L", 10_000)))
    tracemalloc.start()
    try:
        assert refusal_of(lambda: READER.read_all(member)).reason is Reason.UNREADABLE
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_damaged_member_of_another_method_is_unreadable(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = tmp_path / f"{method}.zip"
        zipped(path, [("one", os.urandom(5_000)), ("two", b"2")], method)
        for start, damage in ((33, b"\xff" * 14), (60, bytes(400)), (4_000, b"x")):
            first, second = members_of(patched(path, start, damage))
            assert refusal_of(lambda member=first: READER.read_all(member)).reason is Reason.UNREADABLE
            assert READER.read_all(second) == b"2"


def test_members_of_every_method_are_read_whole(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(100_000) + bytes(100_000)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        archive = zipped(tmp_path / f"{method}.zip", [("one", content)], method)
        assert [READER.read_all(member) for member in members_of(archive)] == [content]


def test_a_method_that_is_not_known_costs_its_member_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    zipped(path, [("deflate64", b"1"), ("two", b"2")], zipfile.ZIP_STORED)
    patched(path, directory_offset(path) + 10, struct.pack("<H", 9))
    first, second = members_of(version_of(path))
    assert refusal_of(lambda: READER.read_all(first)).reason is Reason.UNREADABLE
    assert READER.read_all(second) == b"2"


def test_too_many_members_and_too_long_directories_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(tmp_path / "a.zip", [(str(number), b"") for number in range(20)])
    monkeypatch.setattr(archives, "MAX_MEMBERS", 19)
    assert refusal_of(lambda: members_of(archive)).reason is Reason.TOO_LARGE
    monkeypatch.undo()
    monkeypatch.setattr(archives, "MAX_DIRECTORY_BYTES", 500)
    assert refusal_of(lambda: members_of(archive)).reason is Reason.TOO_LARGE
    monkeypatch.undo()
    assert len(members_of(archive)) == 20


def test_a_member_that_claims_to_be_enormous_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (member,) = members_of(zipped(tmp_path / "a.zip", [("one", os.urandom(100))]))
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 99)
    assert refusal_of(lambda: READER.read_all(member)).reason is Reason.TOO_LARGE


def test_an_archive_that_vanished_takes_its_members_along(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", [("one", b"1")])
    (member,) = members_of(archive)
    (tmp_path / "a.zip").unlink()
    assert refusal_of(lambda: READER.read_all(member)).reason is Reason.GONE
    assert refusal_of(lambda: members_of(archive)).reason is Reason.GONE


def test_archives_read_in_turn_are_each_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = [
        zipped(tmp_path / f"{number}.zip", [(str(member), b"x") for member in range(50)])
        for number in range(archives.OPEN_ARCHIVES)
    ]
    opened: list[object] = []
    real = archives._directory

    def counted(file: IO[bytes]) -> zipfile.ZipFile:
        opened.append(file)
        return real(file)

    monkeypatch.setattr(archives, "_directory", counted)
    for members in zip(*map(members_of, batch), strict=True):
        for member in members:
            assert READER.read_all(member) == b"x"
    assert len(opened) == archives.OPEN_ARCHIVES


def test_reading_members_leaves_nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(tmp_path / "a.zip", [("one.dcm", os.urandom(3_000_000))])
    real, written = io.open, []

    def watched(file: object, mode: str = "r", *args: object, **options: object) -> object:
        if set(mode) & set("wax+"):
            written.append(file)
        return real(file, mode, *args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", watched)
    monkeypatch.setattr("io.open", watched)
    (member,) = members_of(archive)
    assert len(READER.read_all(member)) == 3_000_000
    assert not written


def reads_of(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths that are asked for, from now on, of the archive itself."""
    lengths: list[int] = []
    real = os.pread

    def counted(descriptor: int, length: int, offset: int, /) -> bytes:
        assert os.path.samestat(os.fstat(descriptor), path.stat())
        lengths.append(length)
        return real(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", counted)
    return lengths


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_small_member_is_read_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: int) -> None:
    content = [(f"ü/{number}.dcm", os.urandom(number * 100)) for number in range(20)]
    members = members_of(zipped(tmp_path / "a.zip", content, method))
    lengths = reads_of(tmp_path / "a.zip", monkeypatch)
    assert [READER.read_all(member) for member in members] == [data for _, data in content]
    assert len(lengths) == 20


def test_a_member_behind_a_long_extra_field_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("one", "n" * 60_000):
            member = zipfile.ZipInfo(name)
            member.extra = struct.pack("<HH", 0xCAFE, 60_000) + bytes(60_000)
            archive.writestr(member, name)
    lengths = reads_of(path, monkeypatch)
    assert [READER.read_all(member) for member in members_of(version_of(path))] == [b"one", b"n" * 60_000]
    assert len(lengths) == 4
    assert max(lengths) < 2 * 65_536 + 60_000


def test_a_large_member_is_read_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = random.Random(3).randbytes(archives.AT_ONCE_BYTES) + b"\0"
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = tmp_path / f"{method}.zip"
        (member,) = members_of(zipped(path, [("one", content)], method))
        lengths = reads_of(path, monkeypatch)
        assert READER.read_all(member) == content
        assert not lengths
        monkeypatch.undo()


def test_an_archive_that_was_replaced_is_not_taken_for_the_one_that_was_listed(tmp_path: Path) -> None:
    listed = zipped(tmp_path / "a.zip", [("one", b"1")])
    now = zipped(tmp_path / "a.zip", [("two", b"22")])
    assert refusal_of(lambda: members_of(listed)).reason is Reason.CHANGED_WHILE_READ
    assert refusal_of(lambda: READER.describe_archive(listed)).reason is Reason.CHANGED_WHILE_READ
    assert [member.name for member in members_of(now)] == ["two"]


def test_an_archive_behind_something_else_says_so(tmp_path: Path) -> None:
    assert READER.describe_archive(zipped(tmp_path / "none.zip", [])).is_whole_file
    assert READER.describe_archive(zipped(tmp_path / "a.zip", [("one", b"1")])).is_whole_file
    (tmp_path / "program.zip").write_bytes(b"a program" + (tmp_path / "a.zip").read_bytes())
    archive = version_of(tmp_path / "program.zip")
    assert not READER.describe_archive(archive).is_whole_file
    assert [READER.read_all(member) for member in members_of(archive)] == [b"1"]


def damaged_archives(folder: Path, count: int) -> list[Path]:
    """Archives of stored and deflated members with bytes changed or their end cut off."""
    chance, paths = random.Random(7), []
    for number in range(count):
        method = chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
        path = folder / f"{number}.zip"
        zipped(path, [(f"{member}", b"%d " % number * chance.randrange(60) + b"end") for member in range(4)], method)
        damaged = bytearray(path.read_bytes())
        for _ in range(chance.choice([1, 3, 40])):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(bytes(damaged[: chance.choice([len(damaged), chance.randrange(len(damaged))])]))
        paths.append(path)
    return paths


def told_of(path: Path) -> list[str]:
    """What reading everything in an archive gives: a digest or the refusal, for each member or for all."""
    found = []
    try:
        for member in members_of(version_of(path)):
            try:
                found.append(READER.read_content(member, keep=10).sha256)
            except PoisonInput as refusal:
                found.append(f"{refusal.reason} {refusal.message}")
    except PoisonInput as refusal:
        found.append(f"{refusal.reason} {refusal.message}")
    return found


def test_damaged_archives_are_refused_alike_whether_read_in_one_go_or_in_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = damaged_archives(tmp_path, 500)
    at_once = [told_of(path) for path in paths]
    monkeypatch.setattr(archives, "AT_ONCE_BYTES", -1)
    assert [told_of(path) for path in paths] == at_once
    reasons = {text.partition(" ")[0] for texts in at_once for text in texts if " " in text}
    assert reasons >= {Reason.UNREADABLE, Reason.ARCHIVE_UNREADABLE, Reason.TOO_LARGE}
    assert sum(" " not in text for texts in at_once for text in texts) > 300
