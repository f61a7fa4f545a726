from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import imaging_pipeline.objects.folder as module
from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.objects.folder import Folder, path_to_uri
from imaging_pipeline.objects.source import Page
from imaging_pipeline_tests.conftest import as_nobody, folder

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
NAMES = st.one_of(
    st.sampled_from(
        [b"a", b"a.b", b"a-", b"a0", b"a b", b"a%", b"a!", b"A", "ä".encode(), b"\xff", b".a", b"%41", b"Z"]
    ),
    st.binary(min_size=1, max_size=3).filter(lambda name: not {b"/"[0], 0} & set(name) and name not in {b".", b".."}),
)
TREES = st.recursive(st.none(), lambda inner: st.dictionaries(NAMES, inner, max_size=5), max_leaves=25).filter(bool)
Tree = dict[bytes, "Tree | None"]


def grow(tree: Tree, root: bytes) -> None:
    Path(os.fsdecode(root)).mkdir()
    for name, inner in tree.items():
        path = root + b"/" + name
        if inner is None:
            Path(os.fsdecode(path)).write_bytes(b"x")
        else:
            grow(inner, path)


def all_files(root: Path) -> list[str]:
    """The same by other means: every file without a hidden name on its way, by URI."""
    return sorted(
        path_to_uri(path)
        for path in root.rglob("*")
        if path.is_file() and not any(name.startswith(".") for name in path.relative_to(root).parts)
    )


def uris(pages: list[Page]) -> list[str]:
    return [entry.uri for page in pages for entry in page.objects]


def names(source: Folder) -> list[str]:
    return [entry.uri.removeprefix(source.prefix) for entry in source.list(NOW)]


def make(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can reach; those of `tmp_path` are their owner's."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_OBJECTS", 2)
    monkeypatch.setattr(module, "PAGE_ENTRIES", 5)


@given(TREES)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_hold_every_file_in_the_order_of_uris_and_resume_anywhere(small_pages: None, tree: Tree) -> None:
    with tempfile.TemporaryDirectory() as made:
        root = Path(made, "in").resolve()
        grow(tree, os.fsencode(root))
        source, expected = folder(root), all_files(root)
        pages = list(source.pages(None, NOW))
        assert uris(pages) == expected
        assert all(source.selects(uri) for uri in expected)
        assert [source.stat(uri) for uri in expected] == [entry for page in pages for entry in page.objects]
        assert [page.upto is None for page in pages] == [False] * (len(pages) - 1) + [True]
        after: str | None = None
        for page in pages:
            assert all((after or "") < uri and (page.upto is None or uri <= page.upto) for uri in uris([page]))
            assert page.upto is None or after is None or after < page.upto
            after = page.upto
        for start in [*(page.upto for page in pages), *expected, "file:///", "file:///\x7f", source.prefix]:
            rest = [uri for uri in expected if start is None or uri > start]
            assert uris(list(source.pages(start, NOW))) == rest


def test_a_folder_sorts_by_its_name_and_a_slash(tmp_path: Path) -> None:
    source = folder(make(tmp_path, "a/x", "a.b", "a-", "a0", "a b", "b/c/d", "b.c"))
    assert names(source) == ["a%20b", "a-", "a.b", "a/x", "a0", "b.c", "b/c/d"]


def test_a_page_is_full_at_a_thousand_objects(tmp_path: Path) -> None:
    make(tmp_path, *(f"{number:04}" for number in range(2_000)))
    pages = list(folder(tmp_path).pages(None, NOW))
    assert [len(page.objects) for page in pages] == [1_000, 1_000, 0]
    assert [page.upto for page in pages] == [pages[0].objects[-1].uri, pages[1].objects[-1].uri, None]


def test_folders_that_were_finished_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder(make(tmp_path, "a/1", "a/2", "b/1", "b/c/1", "b/d/1", "e/1"))
    read = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: read.append(str(path)) or real(path))  # type: ignore[func-returns-value]
    found = uris(list(source.pages(source.prefix + "b/c/1", NOW)))
    assert [uri.removeprefix(source.prefix) for uri in found] == ["b/d/1", "e/1"]
    assert [path.removeprefix(str(tmp_path)) for path in read] == ["/", "/b/", "/b/c/", "/b/d/", "/e/"]


def test_a_tree_that_holds_nothing_still_gives_pages_to_go_on_from(tmp_path: Path, small_pages: None) -> None:
    for number in range(12):
        (tmp_path / f"{number:02}" / "x").mkdir(parents=True)
    pages = list(folder(tmp_path).pages(None, NOW))
    assert len(pages) == 5
    assert uris(pages) == []


def test_a_resumed_listing_never_goes_back(tmp_path: Path, small_pages: None) -> None:
    source = folder(make(tmp_path, "a/b/c/d/e/f/1", "a/b/c/d/e/f/2"))
    start = source.prefix + "a/b/c/d/e/f/1"
    pages = list(source.pages(start, NOW))
    assert all(page.upto is None or page.upto > start for page in pages)
    assert uris(pages) == [source.prefix + "a/b/c/d/e/f/2"]


def test_files_of_about_now_are_unsettled_and_others_are_taken(tmp_path: Path) -> None:
    ages = {"now": 0.0, "young": 29.0, "soon": -29.0, "old": 31.0, "ahead": -31.0, "far-ahead": -1e9, "1901": 3.9e9}
    for name, age in ages.items():
        make(tmp_path, name)
        os.utime(tmp_path / name, (0, NOW.timestamp() - age))
    source = folder(tmp_path, minimum_age_seconds=30)
    (page,) = source.pages(None, NOW)
    assert {uri.removeprefix(source.prefix) for uri in page.unsettled} == {"now", "young", "soon"}
    assert [entry.name for entry in page.objects] == ["1901", "ahead", "far-ahead", "old"]


def test_unsettled_files_count_for_a_page(tmp_path: Path, small_pages: None) -> None:
    make(tmp_path, *"abcdef")
    pages = list(folder(tmp_path, minimum_age_seconds=1e9).pages(None, datetime.now(UTC)))
    assert max(len(page.unsettled) for page in pages) == 2
    assert len(frozenset().union(*(page.unsettled for page in pages))) == 6


def test_a_time_that_no_calendar_holds_is_listed(tmp_path: Path) -> None:
    make(tmp_path, "late", "early")
    for name, seconds in (("late", 1 << 40), ("early", -(1 << 40))):
        try:
            os.utime(tmp_path / name, (0, seconds))
        except OSError:
            pytest.skip("the file system keeps no such time")
    early, late = folder(tmp_path).list(NOW)
    assert early.modified_at < late.modified_at


def test_links_are_passed_over_unless_they_are_followed(tmp_path: Path) -> None:
    make(tmp_path, "out/deep/file", "in/own")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "out" / "deep" / "file")
    (tmp_path / "in" / "way").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "in" / "self").symlink_to("self")
    plain, following = folder(tmp_path / "in"), folder(tmp_path / "in", follow_links=True)
    assert names(plain) == ["own"]
    assert names(following) == ["linked", "own", "way/deep/file"]
    for uri in ("linked", "way/deep/file", "broken", "self", "way"):
        assert plain.stat(plain.prefix + uri) is None
        found = following.stat(plain.prefix + uri)
        assert (found.uri if found else None) == (plain.prefix + uri if uri in names(following) else None)


def test_loops_of_links_end(tmp_path: Path) -> None:
    make(tmp_path, "a/1", "b/2")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "side").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "back").symlink_to(tmp_path / "a")
    source = folder(tmp_path, follow_links=True)
    assert names(source) == ["a/1", "a/side/2", "b/2", "b/back/1"]
    assert source.stat(source.prefix + "a/side/2") is not None
    assert source.stat(source.prefix + "a/up/b/2") is None


def test_a_linked_root_is_where_it_leads_to(tmp_path: Path) -> None:
    make(tmp_path, "real/1")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert folder(tmp_path / "link").prefix == folder(tmp_path / "real").prefix
    assert names(folder(tmp_path / "link")) == ["1"]


def test_what_is_no_regular_file_is_no_object(tmp_path: Path) -> None:
    make(tmp_path, "file")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(tmp_path / "socket"))
        source = folder(tmp_path)
        assert names(source) == ["file"]
        assert source.stat(source.prefix + "pipe") is None
    if os.geteuid() == 0:
        try:
            os.mknod(tmp_path / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        except PermissionError:
            return
        assert names(source) == ["file"]


def test_a_pipe_as_a_source_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="site"):
        list(folder(tmp_path / "pipe").pages(None, NOW))


def test_patterns_choose_files_and_stat_agrees(tmp_path: Path) -> None:
    make(tmp_path, "a/1.dcm", "a/2.txt", "old/3.dcm", "a b/ü.dcm", "4.dcm")
    source = folder(tmp_path, include=("*.dcm",), exclude=("old/**", "4.dcm"))
    assert names(source) == ["a%20b/%C3%BC.dcm", "a/1.dcm"]
    chosen = [uri for uri in all_files(tmp_path) if source.selects(uri)]
    assert chosen == [entry.uri for entry in source.list(NOW)]
    assert [uri for uri in all_files(tmp_path) if source.stat(uri)] == chosen


def test_only_the_spelling_of_the_listing_is_selected(tmp_path: Path) -> None:
    source = folder(make(tmp_path, "a/b", "file"))
    assert source.selects(source.prefix + "a/b")
    for odd in ("a//b", "a/./b", "a/../file", "%61/b", "a/b/", "", ".x", "a/.x", "a/b?", "\u00fc"):
        assert not source.selects(source.prefix + odd), odd
    assert not source.selects("s3://bucket/a/b")
    assert not source.selects(path_to_uri(tmp_path.parent / "other"))


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    source = folder(make(tmp_path, "file", "folder/x"))
    for uri in ("none", "file/below", "folder", "n" * 300, "%00"):
        assert source.stat(source.prefix + uri) is None


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o311])
def test_a_folder_that_cannot_be_read_is_said_not_taken_for_empty(open_folder: Path, mode: int) -> None:
    source = folder(make(open_folder, "a/1", "closed/1", "z/1"))
    (open_folder / "closed").chmod(mode)
    try:
        with as_nobody(), pytest.raises(ConfigurationError, match="permissions"):
            list(source.pages(None, NOW))
        with as_nobody():
            assert names(folder(open_folder, exclude=("closed/**",))) == ["a/1", "z/1"]
        if mode != 0o311:
            with as_nobody(), pytest.raises(ConfigurationError, match="permissions"):
                source.stat(source.prefix + "closed/1")
    finally:
        (open_folder / "closed").chmod(0o755)


def test_a_root_that_cannot_be_read_is_said(open_folder: Path) -> None:
    source = folder(make(open_folder, "in/1") / "in")
    open_folder.chmod(0)
    try:
        with as_nobody(), pytest.raises(ConfigurationError, match="site"):
            list(source.pages(None, NOW))
        with as_nobody(), pytest.raises(ConfigurationError, match="site"):
            source.stat(source.prefix + "1")
    finally:
        open_folder.chmod(0o755)


def test_a_missing_root_is_said_by_listing_and_by_stat(tmp_path: Path) -> None:
    source = folder(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="site"):
        list(source.pages(None, NOW))
    with pytest.raises(ConfigurationError, match="site"):
        source.stat(source.prefix + "file")


def test_what_vanishes_meanwhile_is_passed_over(tmp_path: Path, small_pages: None) -> None:
    source = folder(make(tmp_path, "a/1", "a/2", "a/3", "b/1", "c/1"))
    pages = source.pages(None, NOW)
    first = next(pages)
    (tmp_path / "a" / "3").unlink()
    (tmp_path / "b" / "1").unlink()
    (tmp_path / "b").rmdir()
    found = uris([first, *pages])
    assert [uri.removeprefix(source.prefix) for uri in found] == ["a/1", "a/2", "c/1"]


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_root_that_goes_away_meanwhile_does_not_look_empty(
    tmp_path: Path, small_pages: None, is_replaced: bool
) -> None:
    source = folder(make(tmp_path / "in", "a/1", "a/2", "a/3", "b/1"))
    pages = source.pages(None, NOW)
    next(pages)
    (tmp_path / "in").rename(tmp_path / "unmounted")
    if is_replaced:
        (tmp_path / "in").mkdir()
    with pytest.raises(TransientError if is_replaced else ConfigurationError, match="site"):
        list(pages)


def test_a_single_file_is_one_page_and_may_be_resumed(tmp_path: Path) -> None:
    make(tmp_path, "one.zip", "one.zip2")
    source = folder(tmp_path / "one.zip")
    (page,) = source.pages(None, NOW)
    (entry,) = page.objects
    assert entry.uri == source.prefix == path_to_uri(tmp_path.resolve() / "one.zip")
    assert entry.is_archive
    assert source.stat(entry.uri) == entry
    assert not source.selects(entry.uri + "2")
    assert uris(list(source.pages(entry.uri, NOW))) == []
    assert uris(list(source.pages("file:///", NOW))) == [entry.uri]
    (young,) = folder(tmp_path / "one.zip", minimum_age_seconds=60).pages(
        None, datetime.now(UTC) + timedelta(seconds=9)
    )
    assert young.unsettled == {entry.uri}
    (tmp_path / "one.zip").unlink()
    with pytest.raises(ConfigurationError, match="site"):
        list(source.pages(None, NOW))
