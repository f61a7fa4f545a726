from __future__ import annotations

import itertools
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from imaging_pipeline.catalog.ledger import Batch, Ledger, Scan, is_batch_id
from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.objects.source import Page
from imaging_pipeline.sources import Deletions, SourceConfig
from imaging_pipeline.sqlite import connect

DAY = date(2026, 1, 31)
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
READER = ObjectReader()


@dataclass
class Listed:
    """A source whose objects are given: URI to version (and, behind a slash, size)."""

    objects: dict[str, str] = field(default_factory=dict)
    config: SourceConfig = field(default_factory=lambda: SourceConfig("site", "/"))
    prefix: str = "file:///"
    page_objects: int = 3
    unsettled: frozenset[str] = frozenset()
    excluded: frozenset[str] = frozenset()
    fails_behind: str | None = None
    listed: list[str] = field(default_factory=list)

    def pages(self, after: str | None, now: datetime) -> Iterator[Page]:
        del now
        uris = sorted(uri for uri in self.objects if self.selects(uri) and (after is None or uri > after))
        for start in range(0, max(len(uris), 1), self.page_objects):
            part = uris[start : start + self.page_objects]
            if self.fails_behind is not None and part and part[0] > self.fails_behind:
                raise TransientError("the source does not answer")
            self.listed += part
            taken = tuple(self._object(uri) for uri in part if uri not in self.unsettled)
            is_last = start + self.page_objects >= len(uris)
            yield Page(taken, self.unsettled & set(part), None if is_last else part[-1])

    def stat(self, uri: str) -> ObjectVersion | None:
        return self._object(uri) if uri in self.objects and self.selects(uri) else None

    def selects(self, uri: str) -> bool:
        return uri.startswith(self.prefix) and uri not in self.excluded

    def _object(self, uri: str) -> ObjectVersion:
        version, _, size = self.objects[uri].partition("/")
        moment = datetime(2026, 1, 1)  # noqa: DTZ001
        return ObjectVersion(uri, version, int(size or 10), moment, self.config.name)


def uri(number: int) -> str:
    return f"file:///{number:05}"


def source(count: int = 0, *, first: int = 0, version: str = "v1") -> Listed:
    return Listed({uri(n): version for n in range(first, first + count)})


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as made:
        yield made


def scan(ledger: Ledger, listed: Listed, **options: bool) -> Scan:
    return ledger.scan(listed, READER, now=NOW, **options)


def cut(ledger: Ledger, max_objects: int = 10, max_bytes: int = 10**9, max_batches: int = 100) -> list[Batch]:
    return ledger.cut(day=DAY, max_objects=max_objects, max_bytes=max_bytes, max_batches=max_batches)


def sizes(batches: list[Batch]) -> list[int]:
    return [batch.objects for batch in batches]


def announced(ledger: Ledger, after: int = 0) -> list[str]:
    return [each.run_key for each in ledger.announcements(after, 100)]


def test_each_version_is_noted_once(ledger: Ledger) -> None:
    assert scan(ledger, source(3)).new == 3
    assert scan(ledger, source(3)).new == 0
    assert scan(ledger, Listed({**source(3).objects, uri(1): "v2"})).new == 1


def test_an_object_whose_name_sorts_first_and_whose_time_is_old_is_found(ledger: Ledger) -> None:
    scan(ledger, source(3, first=10))
    cut(ledger)
    assert scan(ledger, Listed({**source(3, first=10).objects, uri(0): "v1"})).new == 1


def test_nothing_is_written_when_nothing_has_changed(ledger: Ledger, tmp_path: Path) -> None:
    scan(ledger, source(50))
    cut(ledger)
    watcher = connect(tmp_path / "ledger.sqlite")
    watcher.execute("CREATE TEMP TABLE unused (x)")
    before = watcher.execute("SELECT count(*), max(id), sum(length(noted_at)) FROM object").fetchone()
    watcher.execute("BEGIN IMMEDIATE")  # a writer holds the ledger; the pages of a quiet listing need not wait for it
    try:
        pages = list(source(50).pages(None, NOW))
        found = [ledger._take_page(source(50), READER, page, None, NOW) for page in pages[:1]]
    finally:
        watcher.execute("ROLLBACK")
    assert [each.new for each in found] == [0]
    assert watcher.execute("SELECT count(*), max(id), sum(length(noted_at)) FROM object").fetchone() == before
    watcher.close()


def test_batches_close_at_the_count(ledger: Ledger) -> None:
    scan(ledger, source(25))
    assert sizes(cut(ledger, max_objects=10)) == [10, 10, 5]
    assert cut(ledger) == []


def test_batches_close_before_the_bytes_are_passed(ledger: Ledger) -> None:
    bytes_of = [40, 40, 40, 500, 40, 40]
    scan(ledger, Listed({uri(n): f"v1/{size}" for n, size in enumerate(bytes_of)}))
    assert sizes(cut(ledger, max_bytes=100)) == [2, 1, 1, 2]


def test_a_call_cuts_no_more_than_it_may(ledger: Ledger) -> None:
    scan(ledger, source(50))
    assert sizes(cut(ledger, max_batches=2)) == [10, 10]
    assert ledger.waiting() == 30


def test_batches_hold_objects_of_one_source(ledger: Ledger) -> None:
    scan(ledger, source(3))
    north = replace(
        source(), objects={"s3://north/1": "e"}, prefix="s3://north/", config=SourceConfig("north", "s3://")
    )
    scan(ledger, north)
    assert [(batch.source, batch.objects) for batch in cut(ledger)] == [("north", 1), ("site", 3)]
    assert ledger.sources_waiting() == []


def test_batch_names_count_up_within_a_day(ledger: Ledger) -> None:
    listed = source(20)
    scan(ledger, listed)
    first = cut(ledger)
    listed.objects |= source(10, first=100).objects
    scan(ledger, listed)
    second = cut(ledger)
    listed.objects |= source(10, first=200).objects
    scan(ledger, listed)
    third = ledger.cut(day=date(2026, 2, 1), max_objects=10, max_bytes=10**9, max_batches=5)
    ids = [batch.batch_id for batch in first + second + third]
    assert ids == ["2026-01-31.00001", "2026-01-31.00002", "2026-01-31.00003", "2026-02-01.00001"]
    assert all(map(is_batch_id, ids))
    assert [batch.seq for batch in first + second + third] == [1, 2, 3, 4]


def test_a_manifest_keeps_its_objects_when_they_are_overwritten(ledger: Ledger) -> None:
    scan(ledger, source(5))
    (batch,) = cut(ledger)
    before = ledger.manifest(batch.batch_id)
    scan(ledger, source(5, version="v2"))
    cut(ledger)
    after = ledger.manifest(batch.batch_id)
    assert [replace(target, deleted_at=None) for target in after] == before
    assert {target.version for target in after} == {"v1"}
    assert all(target.first_seen_at == NOW.replace(tzinfo=None) for target in after)


def test_an_unknown_batch_is_a_key_error(ledger: Ledger) -> None:
    with pytest.raises(KeyError):
        ledger.manifest("2026-01-31.00099")


def test_only_batches_nobody_took_on_are_announced(ledger: Ledger) -> None:
    listed = source(10)
    scan(ledger, listed)
    cut(ledger)
    listed.objects |= source(10, first=100).objects
    scan(ledger, listed)
    ledger.cut(day=DAY, max_objects=10, max_bytes=10**9, max_batches=5, is_announced=False)
    assert announced(ledger) == ["2026-01-31.00001"]
    assert announced(ledger, after=1) == []
    assert len(ledger.batches()) == 2


def test_announcements_are_told_apart_by_source(ledger: Ledger) -> None:
    scan(ledger, source(3))
    cut(ledger)
    assert [each.batch.source for each in ledger.announcements(0, 10, source="site")] == ["site"]
    assert ledger.announcements(0, 10, source="north") == []
    assert ledger.announcements(0, 10, other_than=["site"]) == []
    assert len(ledger.announcements(0, 10, other_than=["north"])) == 1


# ---- deletions


def test_a_vanished_object_is_gone_and_its_batch_is_announced_anew(ledger: Ledger) -> None:
    listed = source(5)
    scan(ledger, listed)
    (batch,) = cut(ledger)
    del listed.objects[uri(3)]
    assert scan(ledger, listed).gone == 1
    gone = [target.uri for target in ledger.manifest(batch.batch_id) if target.deleted_at]
    assert gone == [uri(3)]
    assert ledger.batch(batch.batch_id).revision == 1
    assert announced(ledger) == [batch.batch_id]
    assert cut(ledger) == []
    assert announced(ledger) == [f"{batch.batch_id}/1"]  # the first announcement is overtaken
    assert scan(ledger, listed) == Scan(listed=4)


def test_what_came_is_announced_before_what_was_taken_back(ledger: Ledger) -> None:
    listed = source(20)
    scan(ledger, listed)
    (first, second) = cut(ledger)
    moved = {f"file:///moved/{n}": "v1" for n in range(30)}
    for number in range(3):
        del listed.objects[uri(number)]
    listed.objects |= moved
    scan(ledger, listed)
    cut(ledger, max_batches=2)
    assert announced(ledger) == [first.batch_id, second.batch_id, "2026-01-31.00003", "2026-01-31.00004"]
    cut(ledger)
    assert announced(ledger)[-2:] == ["2026-01-31.00005", f"{first.batch_id}/1"]


def test_an_object_that_is_back_is_the_same_object_again(ledger: Ledger) -> None:
    listed = source(5)
    scan(ledger, listed)
    (batch,) = cut(ledger)
    del listed.objects[uri(3)]
    scan(ledger, listed)
    listed.objects[uri(3)] = "v1"
    assert scan(ledger, listed).new == 1
    assert cut(ledger) == []
    assert not any(target.deleted_at for target in ledger.manifest(batch.batch_id))
    assert announced(ledger) == [f"{batch.batch_id}/2"]


def test_an_overwritten_object_is_gone_and_its_successor_new(ledger: Ledger) -> None:
    listed = source(2)
    scan(ledger, listed)
    (first,) = cut(ledger)
    listed.objects[uri(0)] = "v2"
    scan(ledger, listed)
    (second,) = cut(ledger)
    assert [bool(target.deleted_at) for target in ledger.manifest(first.batch_id)] == [True, False]
    listed.objects[uri(0)] = "v1"  # and back: no third batch
    scan(ledger, listed)
    assert cut(ledger) == []
    assert [bool(target.deleted_at) for target in ledger.manifest(first.batch_id)] == [False, False]
    assert [bool(target.deleted_at) for target in ledger.manifest(second.batch_id)] == [True]


def test_an_object_that_vanishes_before_it_was_cut_is_never_cut(ledger: Ledger) -> None:
    listed = source(3)
    scan(ledger, listed)
    del listed.objects[uri(1)]
    scan(ledger, listed)
    assert sizes(cut(ledger)) == [2]


@pytest.mark.parametrize(("known", "left"), [(10, 0), (1, 0), (300, 150), (300, 0)])
def test_a_source_that_is_suddenly_all_but_empty_is_not_believed(ledger: Ledger, known: int, left: int) -> None:
    scan(ledger, source(known))
    cut(ledger, max_objects=1000)
    assert scan(ledger, source(left)) == Scan(listed=left, held=known - left)
    assert announced(ledger) == ["2026-01-31.00001"]
    assert ledger.missing("site") == known - left
    assert scan(ledger, source(left), believe_deletions=True).gone == known - left
    assert ledger.missing("site") == 0


def test_other_objects_of_the_source_do_not_make_an_empty_folder_likely(ledger: Ledger) -> None:
    elsewhere = Listed({f"file:///elsewhere/{n}": "v1" for n in range(70)}, prefix="file:///elsewhere/")
    scan(ledger, replace(elsewhere, config=SourceConfig("site", "/elsewhere", deletions=Deletions.IGNORE)))
    watched = Listed({f"file:///watched/{n}": "v1" for n in range(60)}, prefix="file:///watched/")
    scan(ledger, watched)
    watched.objects.clear()
    assert scan(ledger, watched).held == 60


def test_what_is_held_stays_held_until_a_person_or_the_source_says_otherwise(ledger: Ledger) -> None:
    scan(ledger, source(60))
    bare = source(1, first=500)  # somebody drops a film on the bare mount point
    for _ in range(3):
        assert scan(ledger, bare).held == 60
    bare.objects |= source(300, first=1000).objects
    for _ in range(2):
        assert scan(ledger, bare).held == 60
    bare.objects |= source(60).objects
    assert scan(ledger, bare) == Scan(listed=361)
    del bare.objects[uri(3)]
    assert scan(ledger, bare).gone == 1


def test_what_came_back_during_a_long_listing_is_not_gone(tmp_path: Path) -> None:
    times = ticking(1.0)
    with Ledger(tmp_path / "l.sqlite", clock=lambda: next(times)) as ledger:
        listed = source(12)
        while not ledger.scan(listed, READER, now=NOW, budget_seconds=2).is_complete:
            pass
        del listed.objects[uri(1)]
        ledger.scan(listed, READER, now=NOW, budget_seconds=2)
        listed.objects[uri(1)] = "v1"
        assert ledger.scan(listed, READER, now=NOW, budget_seconds=2).gone == 0
        assert ledger.missing("site") == 0


def test_a_source_that_is_whole_again_has_lost_nothing(ledger: Ledger) -> None:
    scan(ledger, source(10))
    cut(ledger)
    scan(ledger, source(0))
    assert scan(ledger, source(10)) == Scan(listed=10)
    assert ledger.missing("site") == 0
    assert ledger.batches()[0].revision == 0


def test_unsettled_and_excluded_objects_are_neither_new_nor_gone(ledger: Ledger) -> None:
    listed = source(6)
    scan(ledger, listed)
    cut(ledger)
    hidden = replace(listed, unsettled=frozenset({uri(1), uri(9)}), excluded=frozenset({uri(2)}))
    hidden.objects[uri(9)] = "v1"
    assert scan(ledger, hidden) == Scan(listed=4)


def test_deletions_can_be_ignored(ledger: Ledger) -> None:
    listed = replace(source(5), config=SourceConfig("site", "/", deletions=Deletions.IGNORE))
    scan(ledger, listed)
    cut(ledger)
    listed.objects.popitem()
    assert scan(ledger, listed) == Scan(listed=4)


def test_where_deletions_are_ignored_an_overwritten_object_keeps_what_was_made_of_it(ledger: Ledger) -> None:
    listed = replace(source(3), config=SourceConfig("site", "/", deletions=Deletions.IGNORE))
    scan(ledger, listed)
    (first,) = cut(ledger)
    listed.objects |= source(3, version="another CD").objects
    assert scan(ledger, listed).new == 3
    (second,) = cut(ledger)
    assert not any(target.deleted_at for target in ledger.manifest(first.batch_id))
    assert ledger.batch(first.batch_id).revision == 0
    listed.objects |= source(3).objects  # the first CD again
    assert scan(ledger, listed).new == 3
    assert cut(ledger) == []
    assert ledger.batch(second.batch_id).revision == 0


def test_an_object_belongs_to_the_source_that_named_it_first(ledger: Ledger) -> None:
    scan(ledger, source(3))
    other = replace(source(3), config=SourceConfig("other", "/"))
    assert scan(ledger, other) == Scan(listed=3)
    assert {target.source for batch in cut(ledger) for target in ledger.manifest(batch.batch_id)} == {"site"}


# ---- time budget and resuming


def ticking(seconds: float) -> Iterator[float]:
    return (seconds * n for n in itertools.count())


def test_a_listing_that_runs_out_of_time_goes_on_where_it_stopped(tmp_path: Path) -> None:
    times = ticking(1.0)
    with Ledger(tmp_path / "l.sqlite", clock=lambda: next(times)) as ledger:
        listed = source(20)
        found = [ledger.scan(listed, READER, now=NOW, budget_seconds=2) for _ in range(4)]
        assert [(each.listed, each.is_complete) for each in found] == [(6, False), (6, False), (6, False), (2, True)]
        assert listed.listed == sorted(listed.objects)  # each was listed once
        assert sizes(cut(ledger)) == [10, 10]


def test_deletions_are_found_by_a_listing_in_several_parts(tmp_path: Path) -> None:
    times = ticking(1.0)
    with Ledger(tmp_path / "l.sqlite", clock=lambda: next(times)) as ledger:
        listed = source(12)
        while not ledger.scan(listed, READER, now=NOW, budget_seconds=2).is_complete:
            pass
        cut(ledger)
        del listed.objects[uri(1)], listed.objects[uri(11)]
        first, second = (ledger.scan(listed, READER, now=NOW, budget_seconds=2) for _ in range(2))
        assert (first.gone, second.gone) == (0, 2)


def test_a_source_that_stops_answering_is_listed_on_from_there(ledger: Ledger) -> None:
    listed = replace(source(12), fails_behind=uri(5))
    with pytest.raises(TransientError):
        scan(ledger, listed)
    assert ledger.waiting() == 6  # what was listed is noted
    listed.fails_behind, listed.listed = None, []
    assert scan(ledger, listed).is_complete
    assert listed.listed == [uri(n) for n in range(6, 12)]
    assert ledger.waiting() == 12


def test_a_listing_rests_in_proportion_to_what_it_took(tmp_path: Path) -> None:
    times = ticking(10.0)
    with Ledger(tmp_path / "l.sqlite", clock=lambda: next(times)) as ledger:
        listed = source(1)
        assert ledger.is_listing_due(listed, NOW)
        ledger.scan(listed, READER, now=NOW)
        assert not ledger.is_listing_due(listed, NOW + timedelta(seconds=80))
        assert ledger.is_listing_due(listed, NOW + timedelta(seconds=400))


def test_a_source_that_has_moved_is_listed_from_its_start(tmp_path: Path) -> None:
    times = ticking(1.0)
    with Ledger(tmp_path / "l.sqlite", clock=lambda: next(times)) as ledger:
        ledger.scan(source(20), READER, now=NOW, budget_seconds=2)
        moved = Listed({"file:///0/a": "v1"}, prefix="file:///0/")
        assert ledger.scan(moved, READER, now=NOW) == Scan(listed=1, new=1)


# ---- events


def test_what_an_event_names_is_looked_at_as_it_is_now(ledger: Ledger) -> None:
    listed = source(2)
    assert ledger.look_at(listed, [uri(0), uri(0), uri(1), uri(7)], READER, now=NOW) == Scan(listed=2, new=2)
    (batch,) = cut(ledger)
    assert ledger.look_at(listed, [uri(0)], READER, now=NOW) == Scan(listed=1)  # the same event again
    del listed.objects[uri(0)]
    assert ledger.look_at(listed, [uri(0)], READER, now=NOW) == Scan(gone=1)
    assert ledger.look_at(listed, [uri(0)], READER, now=NOW) == Scan()
    assert ledger.batch(batch.batch_id).revision == 1
    assert scan(ledger, listed) == Scan(listed=1)  # the listing has nothing to add


# ---- archives


def zipped(path: Path, *names: str) -> ObjectVersion:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    moment = datetime(2026, 1, 1)  # noqa: DTZ001
    size, changed = path.stat().st_size, path.stat().st_mtime_ns
    return ObjectVersion(f"file://{path}", f"{size}-{changed}", size, moment, "site", is_archive=True)


@dataclass
class Archives(Listed):
    """A source of the archives in a folder."""

    folder: Path = Path()

    def _object(self, uri: str) -> ObjectVersion:
        path = Path(uri.removeprefix("file://"))
        found = super()._object(uri)
        status = path.stat()
        return replace(found, version=f"{status.st_size}-{status.st_mtime_ns}", size=status.st_size, is_archive=True)


def archives(folder: Path) -> Archives:
    found = {f"file://{path}": "" for path in folder.glob("*.zip")}
    return Archives(found, prefix=f"file://{folder}/", folder=folder)


def members(ledger: Ledger, batch: Batch) -> dict[str, bool]:
    """Names of a batch's objects, and whether they are there."""
    return {target.name: target.deleted_at is None for target in ledger.manifest(batch.batch_id)}


def test_members_of_a_new_archive_are_noted_with_it(ledger: Ledger, tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", "one", "two")
    (tmp_path / "broken.zip").write_bytes(b"PK nothing")
    assert scan(ledger, archives(tmp_path)) == Scan(listed=2, new=4)
    assert scan(ledger, archives(tmp_path)) == Scan(listed=2)
    (batch,) = cut(ledger)
    assert members(ledger, batch) == {"a.zip": True, "broken.zip": True, "one": True, "two": True}


def test_a_changed_archive_keeps_what_is_still_in_it(ledger: Ledger, tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", "one", "two")
    scan(ledger, archives(tmp_path))
    (first,) = cut(ledger)
    zipped(tmp_path / "a.zip", "two", "three", "four")
    assert scan(ledger, archives(tmp_path)).new == 3  # the archive, three and four
    (second,) = cut(ledger)
    assert members(ledger, first) == {"a.zip": False, "one": False, "two": True}
    assert members(ledger, second) == {"a.zip": True, "three": True, "four": True}


def test_with_an_archive_its_members_are_gone(ledger: Ledger, tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", "one", "two")
    zipped(tmp_path / "b.zip", "three")
    scan(ledger, archives(tmp_path))
    (batch,) = cut(ledger)
    (tmp_path / "a.zip").unlink()
    assert scan(ledger, archives(tmp_path)).gone == 3
    assert members(ledger, batch) == {"a.zip": False, "one": False, "two": False, "b.zip": True, "three": True}


def test_an_archive_that_cannot_be_read_any_more_keeps_its_members(ledger: Ledger, tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", "one")
    scan(ledger, archives(tmp_path))
    (batch,) = cut(ledger)
    (tmp_path / "a.zip").write_bytes(b"PK half written")
    scan(ledger, archives(tmp_path))
    assert members(ledger, batch)["one"]


def test_members_of_an_archive_known_by_its_content_are_noted_once(ledger: Ledger, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "export", "one", "two")
    plain = replace(archive, is_archive=False)
    assert ledger.add_members(plain, READER, now=NOW) == 2
    assert ledger.add_members(plain, READER, now=NOW) == 0


def test_members_of_an_archive_that_could_not_be_read_at_first_are_found_later(ledger: Ledger, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", "one", "two")
    whole = (tmp_path / "a.zip").rename(tmp_path / "elsewhere")  # a share that does not answer
    ledger._seen.note_all([archive], ledger._expanded([archive], READER), NOW, Deletions.TOMBSTONE)
    (batch,) = cut(ledger)
    whole.rename(tmp_path / "a.zip")
    (target,) = ledger.manifest(batch.batch_id)
    assert ledger.add_members(target, READER, now=NOW) == 2


@dataclass(frozen=True, slots=True)
class Looking(ObjectReader):
    """Notes into which archives it looks; ``is_dying``: its process is killed there."""

    looks: list[str] = field(default_factory=list)
    is_dying: bool = False

    def list_members(self, archive: ObjectVersion) -> Iterator[ObjectVersion]:
        if self.is_dying:
            raise KeyboardInterrupt
        self.looks.append(archive.name)
        return ObjectReader.list_members(self, archive)


def test_an_archive_that_was_looked_into_when_it_was_listed_is_not_opened_again(ledger: Ledger, tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", "one", "two")
    (tmp_path / "broken.zip").write_bytes(b"PK nothing")
    scan(ledger, archives(tmp_path))
    (batch,) = cut(ledger)
    reader = Looking()
    for target in ledger.manifest(batch.batch_id):
        if target.is_archive:
            assert ledger.add_members(target, reader, now=NOW) == 0
    assert reader.looks == ["broken.zip"]
    assert members(ledger, batch)["one"]


def test_an_archive_found_by_its_content_is_opened_once(ledger: Ledger, tmp_path: Path) -> None:
    export = replace(zipped(tmp_path / "export", "one", "two"), is_archive=False)
    ledger._seen.note_all([export], [], NOW, Deletions.TOMBSTONE)
    reader = Looking()
    assert [ledger.add_members(export, reader, now=NOW) for _ in range(3)] == [2, 0, 0]
    assert reader.looks == ["export"]


def test_a_kill_while_an_archive_is_looked_into_leaves_it_to_be_looked_into(ledger: Ledger, tmp_path: Path) -> None:
    export = replace(zipped(tmp_path / "export", "one", "two"), is_archive=False)
    ledger._seen.note_all([export], [], NOW, Deletions.TOMBSTONE)
    with pytest.raises(KeyboardInterrupt):
        ledger.add_members(export, Looking(is_dying=True), now=NOW)
    connection = ledger._connection
    connection.execute(
        "CREATE TEMP TRIGGER kill BEFORE UPDATE OF members_noted ON object BEGIN SELECT RAISE(ABORT, ''); END"
    )
    with pytest.raises(sqlite3.IntegrityError):
        ledger.add_members(export, READER, now=NOW)
    connection.execute("DROP TRIGGER kill")
    assert ledger.waiting() == 1  # the export alone: members and the note that they are there come together
    assert ledger.add_members(export, READER, now=NOW) == 2
    assert ledger.waiting() == 3


def test_an_archive_that_comes_back_is_looked_into_again(ledger: Ledger, tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", "one", "two")
    zipped(tmp_path / "b.zip", "three")
    scan(ledger, archives(tmp_path))
    (batch,) = cut(ledger)
    whole = (tmp_path / "a.zip").rename(tmp_path / "elsewhere")
    assert scan(ledger, archives(tmp_path)).gone == 3
    archive = ledger.manifest(batch.batch_id)[0]
    ledger._seen.note_all([archive], [], NOW, Deletions.TOMBSTONE)  # it is back, and its share does not answer
    assert members(ledger, batch) == {"a.zip": True, "b.zip": True, "one": False, "two": False, "three": True}
    whole.rename(tmp_path / "a.zip")
    assert ledger.add_members(archive, READER, now=NOW) == 2
    assert all(members(ledger, batch).values())


# ---- any history


class AnyHistory(RuleBasedStateMachine):
    """Objects come, change, vanish and come back between listings; the ledger always ends up with what is there."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger(Path(self.folder.name) / "l.sqlite")
        self.listed = Listed()

    @rule(number=st.integers(0, 8), version=st.sampled_from(["a", "b", "c"]))
    def write(self, number: int, version: str) -> None:
        self.listed.objects[uri(number)] = version

    @rule(number=st.integers(0, 8))
    def remove(self, number: int) -> None:
        self.listed.objects.pop(uri(number), None)

    @rule(numbers=st.lists(st.integers(0, 8), max_size=4))
    def hear(self, numbers: list[int]) -> None:
        self.ledger.look_at(self.listed, [uri(n) for n in numbers], READER, now=NOW)

    @rule(parts=st.integers(1, 3))
    def list_in_part(self, parts: int) -> None:
        for _ in range(parts):
            self.ledger.scan(self.listed, READER, now=NOW, budget_seconds=0, believe_deletions=True)

    @rule(count=st.integers(1, 3))
    def cut(self, count: int) -> None:
        self.ledger.cut(day=DAY, max_objects=count, max_bytes=10**9, max_batches=2)

    @invariant()
    def a_full_listing_makes_it_true(self) -> None:
        self.ledger.restart_listing(self.listed)
        self.ledger.scan(self.listed, READER, now=NOW, believe_deletions=True)
        cut(self.ledger)
        assert {each.batch.batch_id for each in self.ledger.announcements(0, 1000)} == {
            batch.batch_id for batch in self.ledger.batches()
        }
        there: dict[str, str] = {}
        seen: list[tuple[str, str]] = []
        for batch in self.ledger.batches():
            for target in self.ledger.manifest(batch.batch_id):
                seen.append((target.uri, target.version))
                if target.deleted_at is None:
                    assert target.uri not in there
                    there[target.uri] = target.version
        assert there == self.listed.objects
        assert len(seen) == len(set(seen))  # no version is ever in two batches

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 7), st.integers(10, 100))
@settings(deadline=None)
def test_every_object_is_in_exactly_one_batch_within_the_limits(bytes_of: list[int], count: int, limit: int) -> None:
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "l.sqlite") as ledger:
        listed = Listed({uri(n): f"v1/{size}" for n, size in enumerate(bytes_of)})
        scan(ledger, listed)
        manifests = [ledger.manifest(batch.batch_id) for batch in cut(ledger, count, limit, 1000)]
        assert [target.uri for manifest in manifests for target in manifest] == sorted(listed.objects)
        for manifest in manifests:
            assert len(manifest) <= count
            assert len(manifest) == 1 or sum(target.size for target in manifest) <= limit


@pytest.mark.parametrize(
    "text", ["", "2026-01-31", "2026-01-31.1", "2026-01-31.00001,2026", "a...b", "2026-01-31.00001\n"]
)
def test_texts_that_are_no_batch_id(text: str) -> None:
    assert not is_batch_id(text)


def test_a_ledger_of_another_layout_is_refused_with_advice(tmp_path: Path) -> None:
    connection = connect(tmp_path / "l.sqlite")
    connection.execute("CREATE TABLE object (id INTEGER)")
    connection.close()
    with pytest.raises(ConfigurationError, match="IMAGING_PIPELINE_HOME"):
        Ledger(tmp_path / "l.sqlite")
