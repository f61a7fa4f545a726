from __future__ import annotations

import hashlib
import os
import time
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging_pipeline.errors import ConfigurationError, PoisonInput, Reason
from imaging_pipeline.objects.folder import path_to_uri, uri_to_path
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline_tests.conftest import folder

READER = ObjectReader()


def listed(root: Path, minimum_age_seconds: float = 0.0) -> list[ObjectVersion]:
    return list(folder(root, minimum_age_seconds=minimum_age_seconds).list(datetime.now(UTC)))


def names(objects: list[ObjectVersion]) -> list[str]:
    return [found.name for found in objects]


def zipped(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_files_are_listed_in_order_and_hidden_ones_left_out(tmp_path: Path) -> None:
    for name in ("b/2", "a/1", ".git/config", "c", "a/.partial"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert names(listed(tmp_path)) == ["1", "2", "c"]


def test_a_file_still_being_written_waits(tmp_path: Path) -> None:
    (tmp_path / "young").write_bytes(b"x")
    (tmp_path / "old").write_bytes(b"x")
    os.utime(tmp_path / "old", (time.time() - 60, time.time() - 60))
    assert names(listed(tmp_path, minimum_age_seconds=30)) == ["old"]


def test_links_to_folders_are_not_entered(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "file").write_bytes(b"x")
    assert names(listed(tmp_path / "in")) == ["file"]


def test_a_single_file_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x")
    assert names(listed(tmp_path / "one")) == ["one"]


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="site"):
        listed(tmp_path / "nowhere")


@given(st.binary(min_size=1, max_size=40).filter(lambda name: b"/" not in name and b"\0" not in name))
def test_any_file_name_survives_the_uri(name: bytes) -> None:
    path = Path("/data") / os.fsdecode(name)
    uri = path_to_uri(path)
    assert uri_to_path(uri) == path
    assert uri.isascii()
    assert "!" not in uri


def test_changed_content_is_a_new_version(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"one")
    (before,) = listed(tmp_path)
    (tmp_path / "file").write_bytes(b"two")
    (after,) = listed(tmp_path)
    assert before.uri == after.uri
    assert before.version != after.version
    assert before.key != after.key


def test_an_object_that_changed_since_it_was_listed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"before")
    (target,) = listed(tmp_path)
    (tmp_path / "file").write_bytes(b"after!")
    with pytest.raises(PoisonInput) as refusal:
        READER.read_all(target)
    assert refusal.value.reason is Reason.CHANGED_WHILE_READ


def test_one_pass_gives_digest_size_and_prefix(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 8192)
    (target,) = listed(tmp_path)
    content = READER.read_content(target, keep=10)
    assert content.sha256 == hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()
    assert content.prefix == bytes(range(10))
    assert content.size == target.size == 2_097_152


def test_members_of_a_zip_are_objects_read_in_place(tmp_path: Path) -> None:
    members = {"study/ü one.dcm": b"first", "study/two!.dcm": b"second", "study/.hidden": b"", "study/": b""}
    zipped(tmp_path / "a b!.zip", members)
    (archive,) = listed(tmp_path)
    found = list(READER.list_members(archive))
    assert [READER.read_all(member) for member in found] == [b"first", b"second"]
    assert all(member.parent_uri == archive.uri for member in found)
    assert {member.source for member in found} == {"site"}


def test_a_member_keeps_its_version_when_the_zip_is_written_again(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", {"one": b"1"})
    (before,) = READER.list_members(listed(tmp_path)[0])
    zipped(tmp_path / "a.zip", {"one": b"1", "two": b"2"})
    after = {member.name: member for member in READER.list_members(listed(tmp_path)[0])}
    assert after["one"].version == before.version
    assert READER.read_all(after["two"]) == b"2"


def test_a_member_that_was_replaced_is_refused_not_misread(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", {"one": b"1"})
    (member,) = READER.list_members(listed(tmp_path)[0])
    zipped(tmp_path / "a.zip", {"one": b"other"})
    with pytest.raises(PoisonInput) as refusal:
        READER.read_all(member)
    assert refusal.value.reason is Reason.CHANGED_WHILE_READ


def test_a_damaged_zip_is_unreadable_not_fatal(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(PoisonInput) as refusal:
        list(READER.list_members(listed(tmp_path)[0]))
    assert refusal.value.reason is Reason.ARCHIVE_UNREADABLE


def test_a_damaged_member_is_unreadable(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"one": os.urandom(5000)})
    damaged = bytearray(path.read_bytes())
    damaged[100:200] = bytes(100)
    path.write_bytes(bytes(damaged))
    (member,) = READER.list_members(listed(tmp_path)[0])
    with pytest.raises(PoisonInput) as refusal:
        READER.read_all(member)
    assert refusal.value.reason is Reason.UNREADABLE


def test_a_folder_that_cannot_be_read_is_said_not_skipped(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed").chmod(0)
    try:
        if os.access(tmp_path / "closed", os.R_OK):
            pytest.skip("this user can read everything")
        with pytest.raises(ConfigurationError, match="permissions"):
            listed(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_a_damaged_lzma_member_is_unreadable(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"one": os.urandom(5000)}, zipfile.ZIP_LZMA)
    damaged = bytearray(path.read_bytes())
    damaged[60:400] = bytes(340)
    path.write_bytes(bytes(damaged))
    (member,) = READER.list_members(listed(tmp_path)[0])
    with pytest.raises(PoisonInput) as refusal:
        READER.read_all(member)
    assert refusal.value.reason is Reason.UNREADABLE


def test_an_object_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (target,) = listed(tmp_path)
    (tmp_path / "file").unlink()
    with pytest.raises(PoisonInput) as refusal:
        READER.read_all(target)
    assert refusal.value.reason is Reason.GONE


def test_a_bomb_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", {"bomb": bytes(50_000_000)})
    (member,) = READER.list_members(listed(tmp_path)[0])
    with pytest.raises(PoisonInput) as refusal:
        READER.read_content(member, keep=10)
    assert refusal.value.reason is Reason.TOO_LARGE
