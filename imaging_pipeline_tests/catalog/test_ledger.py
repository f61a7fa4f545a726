from __future__ import annotations

import zipfile
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging_pipeline.catalog.ledger import Ledger, is_batch_id
from imaging_pipeline.objects.folder import Folder
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.reading import ObjectReader

DAY = date(2026, 1, 31)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as made:
        yield made


def objects(count: int, size: int = 10, first: int = 0, version: str = "v1") -> list[ObjectVersion]:
    moment = datetime(2026, 1, 1)  # noqa: DTZ001
    return [ObjectVersion(f"file:///{n:05}", version, size, moment, "site") for n in range(first, first + count)]


def cut(ledger: Ledger, *, max_objects: int = 10, max_bytes: int = 10**9, max_batches: int = 100) -> list[int]:
    batches = ledger.cut(day=DAY, max_objects=max_objects, max_bytes=max_bytes, max_batches=max_batches)
    return [batch.objects for batch in batches]


def test_each_version_is_noted_once(ledger: Ledger) -> None:
    assert ledger.record(objects(3), ObjectReader()).new == 3
    assert ledger.record(objects(3), ObjectReader()).new == 0
    assert ledger.record(objects(1, version="v2"), ObjectReader()).new == 1


def test_an_object_whose_name_sorts_first_and_whose_time_is_old_is_found(ledger: Ledger) -> None:
    ledger.record(objects(3, first=10), ObjectReader())
    cut(ledger)
    assert ledger.record(objects(1, first=0), ObjectReader()).new == 1


def test_batches_close_at_the_count(ledger: Ledger) -> None:
    ledger.record(objects(25), ObjectReader())
    assert cut(ledger, max_objects=10) == [10, 10, 5]
    assert cut(ledger) == []


def test_batches_close_before_the_bytes_are_passed(ledger: Ledger) -> None:
    ledger.record(
        [*objects(3, size=40), *objects(1, size=500, first=10), *objects(2, size=40, first=20)], ObjectReader()
    )
    assert cut(ledger, max_bytes=100) == [2, 1, 1, 2]


def test_a_call_cuts_no_more_than_it_may(ledger: Ledger) -> None:
    ledger.record(objects(50), ObjectReader())
    assert cut(ledger, max_batches=2) == [10, 10]
    assert ledger.waiting() == 30


def test_batch_names_count_up_within_a_day(ledger: Ledger) -> None:
    ledger.record(objects(20), ObjectReader())
    first = ledger.cut(day=DAY, max_objects=10, max_bytes=10**9, max_batches=5)
    ledger.record(objects(10, first=100), ObjectReader())
    second = ledger.cut(day=DAY, max_objects=10, max_bytes=10**9, max_batches=5)
    ledger.record(objects(10, first=200), ObjectReader())
    third = ledger.cut(day=date(2026, 2, 1), max_objects=10, max_bytes=10**9, max_batches=5)
    ids = [batch.batch_id for batch in first + second + third]
    assert ids == ["2026-01-31.00001", "2026-01-31.00002", "2026-01-31.00003", "2026-02-01.00001"]
    assert all(map(is_batch_id, ids))
    assert [batch.seq for batch in first + second + third] == [1, 2, 3, 4]


def test_a_manifest_never_changes(ledger: Ledger) -> None:
    listing = objects(5)
    ledger.record(listing, ObjectReader())
    (batch,) = ledger.cut(day=DAY, max_objects=10, max_bytes=10**9, max_batches=5)
    before = ledger.manifest(batch.batch_id)
    ledger.record(objects(5, version="v2"), ObjectReader())
    cut(ledger)
    assert ledger.manifest(batch.batch_id) == before == listing


def test_an_unknown_batch_is_a_key_error(ledger: Ledger) -> None:
    with pytest.raises(KeyError):
        ledger.manifest("2026-01-31.00099")


def test_only_batches_nobody_took_on_are_announced(ledger: Ledger) -> None:
    ledger.record(objects(10), ObjectReader())
    cut(ledger)
    ledger.record(objects(10, first=100), ObjectReader())
    ledger.cut(day=DAY, max_objects=10, max_bytes=10**9, max_batches=5, is_announced=True)
    assert [batch.seq for batch in ledger.batches_to_announce(0, 10)] == [1]
    assert ledger.batches_to_announce(1, 10) == []
    assert len(ledger.batches()) == 2


def test_a_failed_listing_leaves_nothing_behind(ledger: Ledger) -> None:
    def listing() -> Iterator[ObjectVersion]:
        yield from objects(3)
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        ledger.record(listing(), ObjectReader())
    assert ledger.waiting() == 0


def test_members_of_a_new_archive_are_noted_with_it(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "a.zip", "w") as archive:
        archive.writestr("one", b"1")
        archive.writestr("two", b"2")
    (tmp_path / "in" / "broken.zip").write_bytes(b"PK nothing")
    source = Folder(tmp_path / "in", "site")
    scan = ledger.record(source.list(datetime.now(UTC)), ObjectReader())
    assert (scan.listed, scan.new) == (4, 4)
    assert ledger.record(source.list(datetime.now(UTC)), ObjectReader()).new == 0


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 7), st.integers(10, 100))
def test_every_object_is_in_exactly_one_batch_within_the_limits(sizes: list[int], count: int, size: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "l.sqlite") as ledger:
        listing = [entry for n, each in enumerate(sizes) for entry in objects(1, size=each, first=n)]
        ledger.record(listing, ObjectReader())
        batches = ledger.cut(day=DAY, max_objects=count, max_bytes=size, max_batches=1000)
        manifests = [ledger.manifest(batch.batch_id) for batch in batches]
        assert [entry for manifest in manifests for entry in manifest] == listing
        for manifest in manifests:
            assert len(manifest) <= count
            assert len(manifest) == 1 or sum(entry.size for entry in manifest) <= size


@pytest.mark.parametrize(
    "text", ["", "2026-01-31", "2026-01-31.1", "2026-01-31.00001,2026", "a...b", "2026-01-31.00001\n"]
)
def test_texts_that_are_no_batch_id(text: str) -> None:
    assert not is_batch_id(text)
