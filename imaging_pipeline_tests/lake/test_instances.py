"""Instances that a process keeps: one for each lake, none for a lake that is gone, and no more than a few."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake import instances
from imaging_pipeline.lake.instances import MOST_KEPT, open_lake
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.settings import LakeLocation, Settings


class Opener:
    """Opens lakes, and counts the instances made and those that looked at the tables."""

    def __init__(self) -> None:
        self.made = self.looked = 0

    @contextmanager
    def _connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        self.made += 1
        with duckdb.connect() as connection:
            yield connection

    def _looked(self, _: Lake) -> None:
        self.looked += 1

    @contextmanager
    def __call__(self, location: LakeLocation, *, read_only: bool = False, threads: int | None = 1) -> Iterator[Lake]:
        with open_lake(location, self._connect, read_only=read_only, threads=threads, on_open=self._looked) as lake:
            yield lake


@pytest.fixture
def opened() -> Iterator[Opener]:
    instances._close_all()
    yield Opener()
    instances._close_all()


def _write(lake: Lake, batch: str | None = "b") -> None:
    lake.rows("INSERT INTO bronze.ingest_issue (issue_key, object_key, arrival_batch) VALUES ('i', 'k', ?)", [batch])


def _issues(lake: Lake) -> list[tuple[object, ...]]:
    return lake.rows("SELECT count(*) FROM bronze.ingest_issue")


def test_a_lake_is_attached_once_for_all_steps_of_a_process(settings: Settings, opened: Opener) -> None:
    for _ in range(3):
        with opened(settings.identified) as lake:
            assert _issues(lake) == [(0,)]
            assert lake.rows("SELECT current_setting('threads')") == [(1,)]
    assert (opened.made, opened.looked) == (1, 1)


def test_what_one_step_wrote_another_instance_reads(settings: Settings, opened: Opener) -> None:
    with opened(settings.identified) as lake, opened(settings.identified, read_only=True) as reader:
        assert _issues(reader) == [(0,)]
        with lake.transaction():
            _write(lake)
        assert _issues(reader) == [(1,)]
        assert "bronze.ingest_issue" in reader.written_tables()
        assert "bronze.dicom_header" not in reader.written_tables()


def test_a_lake_that_was_removed_is_made_anew(settings: Settings, opened: Opener) -> None:
    location = settings.identified
    with opened(location) as lake, lake.transaction():
        _write(lake)
    assert location.sqlite_path is not None
    shutil.rmtree(location.sqlite_path.parent)
    with pytest.raises(ConfigurationError, match="no identified lake yet"), opened(location, read_only=True):
        pass
    with opened(location) as lake:
        assert _issues(lake) == [(0,)]


def test_temporary_tables_and_settings_of_one_step_are_not_seen_by_the_next(settings: Settings, opened: Opener) -> None:
    with opened(settings.identified) as lake:
        lake.rows("CREATE TEMP TABLE mine AS SELECT 1")
    with opened(settings.identified) as lake, pytest.raises(duckdb.CatalogException):
        lake.rows("SELECT * FROM temp.mine")


def test_an_error_in_one_step_leaves_the_instance_usable(settings: Settings, opened: Opener) -> None:
    with pytest.raises(duckdb.ConstraintException), opened(settings.identified) as lake, lake.transaction():
        _write(lake, batch=None)
    with opened(settings.identified) as lake:
        assert _issues(lake) == [(0,)]
    assert opened.made == 1


def test_no_more_than_a_few_are_kept(settings: Settings, opened: Opener, tmp_path: Path) -> None:
    for number in range(MOST_KEPT + 2):
        home = tmp_path / f"home{number}"
        location = replace(
            settings.identified, catalog=f"sqlite:{home / 'catalog.sqlite'}", data_path=str(home / "data")
        )
        with opened(location) as lake:
            assert _issues(lake) == [(0,)]
    assert len(instances._kept) == MOST_KEPT
