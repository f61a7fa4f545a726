"""Fixtures shared by all tests: a home of its own with a key, and lakes in it."""

from __future__ import annotations

import base64
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from imaging_pipeline.lake.store import Lake, attach
from imaging_pipeline.objects.folder import Folder
from imaging_pipeline.settings import Settings
from imaging_pipeline.sources import SourceConfig

NOBODY = 65534

MEMORY = Path("/dev/shm")
ENOUGH_BYTES = 6 << 30

_in_memory = pytest.StashKey[str]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Put the folders of tests into memory where there is room: each run of a job syncs hundreds of times to disk.

    They go when the tests end; give ``--basetemp`` to look at them afterwards.
    """
    is_worker = hasattr(config, "workerinput")
    if config.option.basetemp or is_worker or not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < ENOUGH_BYTES:
        return
    config.option.basetemp = config.stash[_in_memory] = tempfile.mkdtemp(prefix="imaging-pipeline-", dir=MEMORY)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give the memory back."""
    if _in_memory in config.stash:
        shutil.rmtree(config.stash[_in_memory], ignore_errors=True)


MASTER_KEY = base64.b64encode(random.Random(1).randbytes(32)).decode()


def environment(home: Path, **settings: str) -> dict[str, str]:
    """Variables of an installation under ``home``."""
    named = {f"IMAGING_PIPELINE_{name}": value for name, value in settings.items()}
    return {
        "IMAGING_PIPELINE_HOME": str(home),
        "IMAGING_PIPELINE_MASTER_KEY": MASTER_KEY,
        "IMAGING_PIPELINE_WORKERS": "2",
        "IMAGING_PIPELINE_MINIMUM_AGE_SECONDS": "0",
        "IMAGING_PIPELINE_EPOCHS": "2",
    } | named


def folder(path: Path, name: str = "site", minimum_age_seconds: float = 0.0, **more: object) -> Folder:
    """A local folder or file as a source."""
    config = SourceConfig(name, str(path), minimum_age_seconds=minimum_age_seconds, **more)  # type: ignore[arg-type]
    return Folder(config)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_environment(environment(tmp_path / "home"))


@pytest.fixture
def identified(settings: Settings) -> Iterator[Lake]:
    with duckdb.connect() as connection:
        yield attach(connection, settings.identified)


@pytest.fixture
def research(settings: Settings) -> Iterator[Lake]:
    with duckdb.connect() as connection:
        yield attach(connection, settings.research)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, to whom no file is unreadable."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
