from __future__ import annotations

import errno
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import pytest

from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.objects import reading
from imaging_pipeline.objects.folder import file_version, path_to_uri
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.objects.source import ABSENT

READER = ObjectReader()


@pytest.fixture
def target(tmp_path: Path) -> ObjectVersion:
    path = tmp_path / "Doe^Jane.dcm"
    path.write_bytes(b"bytes")
    status = path.stat()
    return ObjectVersion(path_to_uri(path), file_version(status), status.st_size, datetime(2026, 1, 1), "site")  # noqa: DTZ001


def refusal_of(read: Callable[[], object]) -> PoisonInput:
    with pytest.raises(PoisonInput) as refusal:
        read()
    assert "Doe" not in str(refusal.value)
    return refusal.value


def test_a_file_that_vanished_is_gone(target: ObjectVersion, tmp_path: Path) -> None:
    (tmp_path / "Doe^Jane.dcm").unlink()
    assert refusal_of(lambda: READER.read_all(target)).reason is Reason.GONE


def test_a_file_whose_folder_vanished_or_became_a_file_is_gone(target: ObjectVersion, tmp_path: Path) -> None:
    moved = replace(target, uri=target.uri + "/below")
    assert refusal_of(lambda: READER.read_all(moved)).reason is Reason.GONE
    (tmp_path / "Doe^Jane.dcm").unlink()
    (tmp_path / "Doe^Jane.dcm").mkdir()
    assert refusal_of(lambda: READER.read_all(target)).reason is Reason.GONE


def test_an_announced_object_that_never_came_is_gone_and_nothing_is_opened(target: ObjectVersion) -> None:
    assert refusal_of(lambda: READER.read_all(replace(target, version=ABSENT))).reason is Reason.GONE


def test_a_file_that_may_not_be_read_says_so(target: ObjectVersion, tmp_path: Path) -> None:
    (tmp_path / "Doe^Jane.dcm").chmod(0)
    if os.access(tmp_path / "Doe^Jane.dcm", os.R_OK):
        pytest.skip("this user can read everything")
    refusal = refusal_of(lambda: READER.read_all(target))
    assert refusal.reason is Reason.ACCESS_DENIED
    assert "permissions" in refusal.message


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EACCES, Reason.ACCESS_DENIED),
        (errno.EPERM, Reason.ACCESS_DENIED),
        (errno.ESTALE, Reason.UNAVAILABLE),
        (errno.ETIMEDOUT, Reason.UNAVAILABLE),
        (errno.EIO, Reason.UNREADABLE),
    ],
)
def test_what_the_file_system_says_decides_the_reason(
    target: ObjectVersion, monkeypatch: pytest.MonkeyPatch, number: int, reason: Reason
) -> None:
    def fails(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number), "Doe^Jane.dcm")

    monkeypatch.setattr(os, "open", fails)
    assert refusal_of(lambda: READER.read_all(target)).reason is reason


def test_a_file_that_grows_or_shrinks_while_it_is_read_is_refused(
    target: ObjectVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 2)
    for size in (1, 100):
        (tmp_path / "Doe^Jane.dcm").write_bytes(bytes(size))
        assert refusal_of(lambda: READER.read_all(target)).reason is Reason.CHANGED_WHILE_READ


def test_an_object_at_an_unknown_kind_of_uri_is_refused(target: ObjectVersion) -> None:
    unknown = replace(target, uri="ftp://host/Doe^Jane.dcm")
    assert refusal_of(lambda: READER.read_all(unknown)).reason is Reason.UNREADABLE


def test_an_object_too_large_to_be_held_is_refused_before_it_is_read(target: ObjectVersion) -> None:
    large = replace(target, size=reading.MAX_OBJECT_BYTES + 1)
    assert refusal_of(lambda: READER.read_all(large)).reason is Reason.TOO_LARGE


def test_a_member_is_read_like_any_object(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("one", b"123456")
    status = path.stat()
    target = ObjectVersion(path_to_uri(path), file_version(status), status.st_size, datetime(2026, 1, 1), "site", True)  # noqa: DTZ001
    (member,) = READER.list_members(target)
    content = READER.read_content(member, keep=3)
    assert (content.prefix, content.size) == (b"123", 6)
    assert READER.describe_archive(target).members == 1
