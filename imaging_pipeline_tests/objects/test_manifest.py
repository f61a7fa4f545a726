from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

import imaging_pipeline.objects.source as paging
from imaging_pipeline.errors import ConfigurationError, PoisonInput, Reason, TransientError
from imaging_pipeline.objects.folder import path_to_uri
from imaging_pipeline.objects.manifest import UNKNOWN, Manifest
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.source import ABSENT
from imaging_pipeline.sources import SourceConfig, SourceKind
from imaging_pipeline_tests.conftest import folder

NOW = datetime.now(UTC)


class Store:
    """Objects of buckets by URI."""

    def __init__(self, **objects: bytes) -> None:
        self.objects = {f"s3://{name}": content for name, content in objects.items()}
        self.denied: set[str] = set()

    def stat(self, uri: str) -> ObjectVersion | None:
        if uri in self.denied:
            raise PoisonInput(Reason.ACCESS_DENIED)
        content = self.objects.get(uri)
        return None if content is None else ObjectVersion(uri, "etag", len(content), datetime(2026, 1, 1), "site")  # noqa: DTZ001

    def read(self, uri: str) -> bytes:
        return self.objects[uri]


def no_store(_uri: str) -> NoReturn:
    raise AssertionError


def manifest(location: Path | str, store: Store | None = None, minimum_age_seconds: float = 0.0) -> Manifest:
    config = SourceConfig("site", str(location), SourceKind.MANIFEST, minimum_age_seconds=minimum_age_seconds)
    return Manifest(config, store.stat if store else no_store, store.read if store else no_store)


def listed(source: Manifest) -> list[ObjectVersion]:
    return [entry for page in source.pages(None, NOW) for entry in page.objects]


def write(path: Path, *lines: str) -> Path:
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    return path


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name in ("one.dcm", "two.zip", "sub/ü three!.dcm"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path.resolve()


def test_paths_and_uris_are_the_objects_a_folder_would_list(files: Path) -> None:
    lines = [
        "# a comment", "", "  one.dcm  ", str(files / "two.zip"), path_to_uri(files / "sub" / "ü three!.dcm"),
        "./one.dcm", "sub/../one.dcm", "file://localhost" + str(files / "one.dcm"), "one.dcm\r",
    ]  # fmt: skip
    source = manifest(write(files / "list.txt", *lines))
    assert listed(source) == list(folder(files, exclude=("list.txt",)).list(NOW))
    assert [source.stat(entry.uri) for entry in listed(source)] == listed(source)


def test_an_entry_that_names_nothing_is_still_an_object(files: Path) -> None:
    path = write(files / "list.txt", "gone.dcm", "one.dcm", "sub", "one.dcm/below")
    os.utime(path, (0, 1_000_000_000))
    absent = {entry.name: entry for entry in listed(manifest(path)) if entry.version == ABSENT}
    assert set(absent) == {"gone.dcm", "sub", "below"}
    assert {(entry.size, entry.modified_at) for entry in absent.values()} == {(0, datetime(2001, 9, 9, 1, 46, 40))}  # noqa: DTZ001
    assert manifest(path).stat(absent["gone.dcm"].uri) is None


def test_an_entry_that_appears_is_a_new_version(files: Path) -> None:
    source = manifest(write(files / "list.txt", "late.dcm"))
    (before,) = listed(source)
    (files / "late.dcm").write_bytes(b"x")
    (after,) = listed(source)
    assert before.uri == after.uri
    assert before.version == ABSENT != after.version


def test_links_that_are_named_are_followed(files: Path) -> None:
    (files / "link").symlink_to(files / "one.dcm")
    (entry,) = listed(manifest(write(files / "list.txt", "link")))
    assert (entry.name, entry.size) == ("link", 1)


def test_a_csv_has_a_column_of_uris_or_paths(files: Path) -> None:
    content = '\ufeffpatient,Path\r\n1,one.dcm\r\n"a ""b""\n","sub/ü three!.dcm"\r\n\r\n3,two.zip,more\r\n'
    (files / "list.csv").write_bytes(content.encode())
    assert [entry.name for entry in listed(manifest(files / "list.csv"))] == [
        "one.dcm", "%C3%BC%20three%21.dcm", "two.zip",
    ]  # fmt: skip


def test_a_csv_without_such_a_column_is_said(files: Path) -> None:
    with pytest.raises(ConfigurationError, match="uri or path"):
        listed(manifest(write(files / "list.csv", "name", "one.dcm")))
    with pytest.raises(ConfigurationError, match="uri or path"):
        listed(manifest(write(files / "empty.csv")))


def test_a_list_that_powershell_wrote_is_understood(files: Path) -> None:
    (files / "list.txt").write_bytes("one.dcm\r\ntwo.zip\r\n".encode("utf-16"))
    assert [entry.name for entry in listed(manifest(files / "list.txt"))] == ["one.dcm", "two.zip"]


def test_names_that_are_no_utf8_are_found(files: Path) -> None:
    name = os.fsdecode(b"\xff.dcm")
    (files / name).write_bytes(b"x")
    (entry,) = listed(manifest(write(files / "list.txt", name)))
    assert entry.version != ABSENT


def test_wrong_lines_are_named_by_number_and_not_quoted(files: Path) -> None:
    wrong = ["../SECRET", "sub/../../SECRET", "http://SECRET", "s3://SECRET", "C:\\SECRET", "file://SECRET", "/", ".."]
    path = write(files / "list.txt", "one.dcm", *wrong, "sub/\x07SECRET", "s3://bucket/\udcff", "zip:///SECRET!a")
    with pytest.raises(ConfigurationError, match=r"2, 3, 4, 5, 6 and 6 more") as refusal:
        listed(manifest(path))
    assert "SECRET" not in str(refusal.value)


@pytest.mark.parametrize("row", ["x", "1,", "1,../up"])
def test_a_csv_row_without_an_object_is_wrong(files: Path, row: str) -> None:
    with pytest.raises(ConfigurationError, match="its line 3"):
        listed(manifest(write(files / "list.csv", "id,uri", "1,one.dcm", row)))


def test_a_missing_manifest_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="site"):
        listed(manifest(tmp_path / "none.txt"))
    with pytest.raises(ConfigurationError, match="site"):
        listed(manifest("s3://bucket/none.txt", Store()))


def test_half_a_manifest_is_not_taken_for_a_whole_one(files: Path) -> None:
    path = write(files / "list.txt", "one.dcm")
    with pytest.raises(TransientError, match="site"):
        list(manifest(path, minimum_age_seconds=60).pages(None, datetime.now(UTC)))
    os.utime(path, (0, NOW.timestamp() - 100))
    (page,) = manifest(path, minimum_age_seconds=60).pages(None, datetime.now(UTC))
    assert page.unsettled == {path_to_uri(files / "one.dcm")}
    assert page.objects == ()


def test_a_manifest_that_changed_is_read_again(files: Path) -> None:
    path = write(files / "list.txt", "one.dcm")
    source = manifest(path)
    uri = path_to_uri(files / "two.zip")
    assert not source.selects(uri)
    write(path, "one.dcm", "two.zip")
    assert source.selects(uri)
    assert len(listed(source)) == 2


def test_objects_of_buckets_are_looked_at_in_their_store(files: Path) -> None:
    store = Store(**{"b/key": b"12", "b/a%20!": b"1"})
    path = write(files / "list.txt", "s3://b/key", "one.dcm", "s3://b/a%20!", "s3://b/none", "s3://b/closed")
    store.denied = {"s3://b/closed"}
    found = listed(manifest(path, store))
    assert [(entry.uri, entry.version) for entry in found[1:]] == [
        ("s3://b/a%20!", "etag"), ("s3://b/closed", UNKNOWN), ("s3://b/key", "etag"), ("s3://b/none", ABSENT),
    ]  # fmt: skip


def test_a_manifest_in_a_bucket_names_objects_of_buckets_only() -> None:
    store = Store(**{"b/in/x": b"1", "c/y": b"1", "b/in/list.csv": b"uri\nx\ns3://c/y\n./x\n"})
    assert [entry.uri for entry in listed(manifest("s3://b/in/list.csv", store))] == ["s3://b/in/x", "s3://c/y"]
    for line in (b"/etc/passwd", b"file:///etc/passwd", b"../up", b"\xff"):
        store.objects["s3://b/in/list.txt"] = line
        with pytest.raises(ConfigurationError, match="its line 1"):
            listed(manifest("s3://b/in/list.txt", store))


def test_a_manifest_that_may_not_be_read_is_said() -> None:
    store = Store()
    store.denied = {"s3://b/list.txt"}
    with pytest.raises(ConfigurationError, match="site"):
        listed(manifest("s3://b/list.txt", store))


@given(st.sets(st.text("ab-/ .é", min_size=1, max_size=4), max_size=30), st.integers(1, 7))
def test_pages_hold_every_entry_once_in_order_and_resume_anywhere(keys: set[str], size: int) -> None:
    uris = sorted(f"s3://b/k{key}".rstrip() for key in keys)
    store = Store(**{"b/list.txt": "\n".join(uris + uris[::-1]).encode()})
    source = manifest("s3://b/list.txt", store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paging, "PAGE_OBJECTS", size)
        pages = list(source.pages(None, NOW))
        assert [entry.uri for page in pages for entry in page.objects] == sorted(set(uris))
        assert max(len(page.objects) for page in pages) <= size
        for page in pages[:-1]:
            rest = [entry.uri for later in source.pages(page.upto, NOW) for entry in later.objects]
            assert page.upto is not None
            assert rest == [uri for uri in sorted(set(uris)) if uri > page.upto]
