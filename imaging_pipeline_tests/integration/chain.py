"""Running the chain as a person does, by its command line, and reading back what it left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pydicom

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.console import run_query
from imaging_pipeline.lake.store import attach
from imaging_pipeline.samples.landing import write_sample_landing
from imaging_pipeline.settings import Settings
from imaging_pipeline_tests.conftest import environment

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"

RUN_COLUMNS = frozenset(
    {
        registry.LOADED_AT, "created_at", "snapshot_id", "first_seen_at", "deleted_at", "first_arrival_at",
        "last_arrival_at", "settled_at",
    }
)  # fmt: skip
"""Columns that say when a row was written, not what it is."""

Tables = dict[str, list[tuple[object, ...]]]


def command(home: Path, landing: Path, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Start the command line in a process group of its own."""
    variables = os.environ | environment(home, LANDING=str(landing), **settings)
    # The many processes of these tests compile every module once, also where no bytecode may lie beside the source.
    variables["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parents[2] / ".pytest_cache" / "bytecode")
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.Popen(
        [sys.executable, "-m", "imaging_pipeline.cli", *arguments],
        env=variables,
        stdout=subprocess.PIPE if arguments[0] != "dev" else subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(home: Path, landing: Path, *arguments: str, **settings: str) -> tuple[int, str]:
    """Run a command to its end; exit status and everything it printed."""
    process = command(home, landing, *arguments, **settings)
    output, _ = process.communicate(timeout=600)
    return process.returncode, output


def run_and_kill(home: Path, landing: Path, *arguments: str, when: Callable[[], bool], **settings: str) -> None:
    """Kill a command and its workers without warning as soon as a condition holds."""
    process = command(home, landing, *arguments, **settings)
    deadline = time.monotonic() + 300
    while not when() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.poll() is None, f"it ended before it could be killed: {process.communicate()[0]}"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def small_landing(folder: Path, patients: int = 6) -> Path:
    """Phantoms loose and zipped, labels, and the files of pydicom."""
    write_sample_landing(folder, patients=patients, size=96)
    return folder


def pydicom_landing(folder: Path) -> Path:
    """All test files of pydicom, the broken ones too, and nothing else."""
    shutil.copytree(PYDICOM_FILES, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return folder


def settings_of(home: Path, landing: Path) -> Settings:
    return Settings.from_environment(environment(home, LANDING=str(landing)))


def query(home: Path, landing: Path, sql: str) -> list[dict[str, object]]:
    """Rows of both lakes."""
    settings = settings_of(home, landing)
    rows: list[dict[str, object]] = run_query(sql, [settings.research, settings.identified]).to_pylist()
    return rows


def contents(home: Path, landing: Path) -> Tables:
    """All rows of all tables, without what only says when they were written, and free of the home's own path."""
    found: Tables = {}
    settings = settings_of(home, landing)
    with duckdb.connect(config={"threads": 1}) as connection:
        for location in (settings.identified, settings.research):
            attach(connection, location, read_only=True)
        connection.execute("BEGIN")
        for schema, lake in registry.SCHEMA_LAKES.items():
            for table in registry.tables_of(schema):
                if table.name == "ingest_run":
                    continue  # one row per run by design
                columns = ", ".join(f'"{c.name}"' for c in table.columns if c.name not in RUN_COLUMNS)
                rows = connection.execute(f"SELECT {columns} FROM {lake}.{schema}.{table.name}").fetchall()
                texts = (tuple(str(value).replace(str(home), "HOME") for value in row) for row in rows)
                found[f"{schema}.{table.name}"] = sorted(texts)
    return found


def released_files(home: Path) -> dict[str, bytes]:
    """De-identified files by their path below the release folder; partial files count too."""
    root = home / "research" / "files"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
