"""An output folder that is there whole or not at all, and what of it is done already.

Owns the hidden folder beside the output in which a run works, its journal, and the moment they take the output's place.
Contains no de-identification. The journal holds outcomes alone: no original, no name of an input.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from imaging_pipeline.deid.evidence import RUN_FILE
from imaging_pipeline.deid.outcomes import Outcome
from imaging_pipeline.errors import ConfigurationError, TransientError

EVIDENCE: Final = "evidence"
"""Folder of the evidence, below the output."""

_JOURNAL: Final = ".journal"


class Staging:
    """The folder a run works in, locked for it alone.

    Attributes:
        folder: where files go.
        done: outcomes of the run that was stopped, by what they depend on; empty when that was another run.
    """

    __slots__ = ("_journal", "done", "folder")

    def __init__(self, folder: Path, journal: IO[str], done: Mapping[str, Outcome]) -> None:
        self.folder = folder
        self.done = dict(done)
        self._journal = journal

    def record(self, outcomes: Iterable[tuple[str, Outcome]]) -> None:
        """Note outcomes whose files are there; what is noted is not done again after a kill."""
        for depends_on, outcome in outcomes:
            self._journal.write(json.dumps({"depends_on": depends_on, "outcome": outcome.as_json()}) + "\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def keep_only(self, files: Set[str]) -> None:
        """Take away what a stopped run has left and this one does not release, and parts of files.

        Args:
            files: paths below `folder`.
        """
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif str(path.relative_to(self.folder)) not in files | {_JOURNAL}:
                path.unlink()


@contextmanager
def staged(out: Path, run: Mapping[str, object]) -> Iterator[Staging]:
    """Work beside ``out``; the files take its place when the body ends well, and wait for the next run if it does not.

    Args:
        out: the output folder; missing, empty, or the output of an earlier run of the same project and key.
        run: what decides the files; a stopped run of anything else is thrown away.

    Raises:
        ConfigurationError: ``out`` holds something else, or another run is writing it.
        TransientError: the disk refuses.
    """
    refuse_foreign(out, run)
    folder = _beside(out, "partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / _JOURNAL).open("a+", encoding="utf-8") as journal:
            _lock(journal)
            yield Staging(folder, journal, _done(folder, journal, run))
            (folder / _JOURNAL).unlink()
            _replace(out, folder)
    except OSError as error:
        raise TransientError(f"the output folder cannot be written ({error.strerror})") from None


def refuse_foreign(out: Path, run: Mapping[str, object]) -> None:
    """Refuse an output folder that this run may not replace; mend one whose replacement was cut off.

    Raises:
        ConfigurationError: it holds other files, or the release of another project or key.
    """
    previous = _beside(out, "previous")
    if previous.exists() and not out.exists():
        previous.rename(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        before = json.loads((out / EVIDENCE / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigurationError("the output folder holds other files; name a folder that is new or empty") from None
    for name in ("project", "key_id"):
        if before.get(name) != run[name]:
            raise ConfigurationError(
                "the output folder holds the release of another project, key or epoch; name another folder for this one"
            )


def _done(folder: Path, journal: IO[str], run: Mapping[str, object]) -> dict[str, Outcome]:
    """Outcomes of the same run, stopped; the folder is emptied when it was another."""
    journal.seek(0)
    lines = [parsed for line in journal if (parsed := _parsed(line)) is not None]
    if lines and lines[0] == {"run": dict(run)}:
        entries = ((each["depends_on"], Outcome.from_json(each["outcome"])) for each in lines[1:])
        journal.write("\n")  # ends a line that was cut off
        return {key: found for key, found in entries if not found.file or (folder / found.file).is_file()}
    journal.truncate(0)
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != _JOURNAL:
            entry.unlink()
    journal.write(json.dumps({"run": dict(run)}) + "\n")
    return {}


def _parsed(line: str) -> dict[str, Any] | None:
    """A line of the journal; None for the last one of a run that was killed while writing it."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _lock(journal: IO[str]) -> None:
    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConfigurationError("another run is writing this output folder; wait for it, or stop it") from None


def _replace(out: Path, folder: Path) -> None:
    """Put the folder in the place of the output: two renames, between which a kill is mended by the next run."""
    previous = _beside(out, "previous")
    if previous.exists():
        shutil.rmtree(previous)
    if out.exists():
        out.rename(previous)
    folder.rename(out)
    if previous.exists():
        shutil.rmtree(previous)


def _beside(out: Path, what: str) -> Path:
    return out.with_name(f".{out.name}.{what}")
