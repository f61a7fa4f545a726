"""A folder of pictures and a table → a folder of DICOM objects, in parallel, each written whole or not at all.

A second run makes the same objects and writes what is missing. What only an earlier run has made, goes.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from imaging_pipeline.conversion.csv_table import CsvTable
from imaging_pipeline.conversion.header import Origin, instance_uid, to_dicom
from imaging_pipeline.conversion.names import NameIndex
from imaging_pipeline.conversion.picture import read_picture
from imaging_pipeline.conversion.picture_table import Facts, read_facts
from imaging_pipeline.errors import ConfigurationError, Issue, PoisonInput, Reason, Severity, Stage
from imaging_pipeline.objects.writing import write_atomically
from imaging_pipeline.workers import map_chunks

SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})

REPORT = "pictures.csv"
"""Written last: each picture, the object it has become, and what was wrong."""

PICTURES_PER_CHUNK = 32

MOST_BYTES = 500_000_000
"""Of a picture file."""

_HEAD_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Stated:
    """What the caller knows of all pictures; where the table says something of a picture, the table counts.

    Attributes:
        modality: as :attr:`Facts.modality`.
        body_part: as :attr:`Facts.body_part`.
        view: as :attr:`Facts.view`.
        collection: as :attr:`Facts.collection`.
        burned_in: YES or NO, for Burned In Annotation; empty: not known.
    """

    modality: str = ""
    body_part: str = ""
    view: str = ""
    collection: str = ""
    burned_in: str = ""


@dataclass(frozen=True, slots=True)
class Converted:
    """What has become of one picture.

    Attributes:
        name: its path below the folder, with ``/``.
        uid: SOP Instance UID of the object; empty when there is none.
        issues: what was wrong.
    """

    name: str
    uid: str = ""
    issues: tuple[Issue, ...] = ()


@dataclass(frozen=True, slots=True)
class Conversion:
    """What has become of a folder.

    Attributes:
        pictures: in the order of their names.
        table_issues: rows of the table that could not be used.
        missing: rows of the table that name no picture of the folder, or more than one.
        unlisted: pictures that the table does not name; they are left out.
        removed: objects of an earlier run that are not made any more.
    """

    pictures: tuple[Converted, ...]
    table_issues: tuple[Issue, ...] = ()
    missing: int = 0
    unlisted: int = 0
    removed: int = 0

    @property
    def made(self) -> int:
        """Pictures that have become an object."""
        return sum(bool(picture.uid) for picture in self.pictures)

    @property
    def is_complete(self) -> bool:
        """No picture and no row was lost to what is wrong with it."""
        return not self.table_issues and not any(
            issue.severity is Severity.ERROR for picture in self.pictures for issue in picture.issues
        )

    def uids(self) -> NameIndex[str]:
        """The SOP Instance UIDs, found by what a table calls the pictures."""
        index: NameIndex[str] = NameIndex()
        for picture in self.pictures:
            if picture.uid:
                index.add(picture.name, picture.uid)
        return index


@dataclass(frozen=True, slots=True)
class _Task:
    name: str
    source: Path
    target: Path
    facts: Facts
    burned_in: str


def convert_folder(
    folder: Path,
    out: Path,
    table: CsvTable | None,
    stated: Stated,
    *,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Make DICOM objects of the PNG and JPEG files below a folder.

    Args:
        folder: the pictures.
        out: where the objects go, each under the path of its picture with ``.dcm`` behind it.
        table: says whose pictures they are; None: nobody does.
        stated: what is known of all of them.
        workers: processes.
        progress: called with the pictures done since the last call, and all there are.

    Raises:
        ConfigurationError: there is no picture, the table names none, or ``out`` lies within ``folder``.
    """
    if out.resolve().is_relative_to(folder.resolve()):
        raise ConfigurationError("the objects must not go into the folder of the pictures: name another folder")
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if _is_picture(path)}
    if not found:
        raise ConfigurationError("there is no PNG or JPEG file below the folder")
    facts, missing = ({name: Facts(name) for name in found}, 0) if table is None else _facts_by_name(table, found)
    tasks = [
        _Task(name, found[name], out / f"{name}.dcm", _with_stated(facts[name], stated), stated.burned_in)
        for name in sorted(facts)
    ]
    done: list[Converted] = []
    chunks = map_chunks(_convert, tasks, workers=workers, chunk_size=PICTURES_PER_CHUNK, on_crash=_crashed)
    for chunk in chunks:
        done += chunk
        if progress:
            progress(len(chunk), len(tasks))
    removed = _remove_earlier(out, done)
    _write_report(out, done, [name for name in found if name not in facts])
    issues = tuple(table.all_issues()) if table else ()
    return Conversion(tuple(done), issues, missing, len(found) - len(facts), removed)


def _is_picture(path: Path) -> bool:
    is_hidden = path.name.startswith(".")  # macOS puts a file of its own beside each
    return not is_hidden and path.suffix.lower() in SUFFIXES and path.is_file()


def _facts_by_name(table: CsvTable, found: Mapping[str, Path]) -> tuple[dict[str, Facts], int]:
    """What the table says of each picture it names, and how many of its rows name none.

    Several rows of one picture (one for each box) say the same of its patient; the first counts.
    """
    listed = read_facts(table)
    if listed is None:
        raise ConfigurationError("the table has no column that names pictures: give one with --column image=NAME")
    index: NameIndex[str] = NameIndex()
    for name in found:
        index.add(name, name)
    facts: dict[str, Facts] = {}
    missing = 0
    for each in listed:
        names = index.find(each.image)
        if len(names) == 1:
            facts.setdefault(next(iter(names)), each)
        else:
            missing += 1  # a name that several pictures share is no name: no guess is made
    if not facts:
        raise ConfigurationError("the table names none of the pictures: is it the right folder?")
    return facts, missing


def _with_stated(facts: Facts, stated: Stated) -> Facts:
    return replace(
        facts,
        modality=facts.modality or stated.modality,
        body_part=facts.body_part or stated.body_part,
        view=facts.view or stated.view,
        collection=facts.collection or stated.collection,
    )


def _convert(tasks: Sequence[_Task]) -> list[Converted]:
    return [_convert_one(task) for task in tasks]


def _convert_one(task: _Task) -> Converted:
    doubts = tuple(Issue(Reason.MALFORMED, Stage.LOAD, Severity.WARNING, message=doubt) for doubt in task.facts.doubts)
    try:
        data = _read(task.source)
        origin = Origin(task.facts, hashlib.sha256(data).hexdigest(), task.burned_in)
        uid = instance_uid(origin)
        if not _is_there(task.target, uid):
            write_atomically(task.target, to_dicom(read_picture(data), origin))
    except PoisonInput as refusal:
        return Converted(task.name, issues=(refusal.issue(Stage.PIXEL), *doubts))
    return Converted(task.name, uid, doubts)


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise PoisonInput(Reason.TOO_LARGE, f"larger than {MOST_BYTES:,} bytes")
        data = path.read_bytes()
    except OSError:
        raise PoisonInput(Reason.UNREADABLE, "the picture file cannot be read") from None
    if not data:
        raise PoisonInput(Reason.EMPTY, "the picture file is empty")
    return data


def _is_there(target: Path, uid: str) -> bool:
    """Whether the object is written already: files appear whole, and a UID stands for its bytes."""
    try:
        with target.open("rb") as stream:
            return uid.encode() in stream.read(_HEAD_BYTES)
    except FileNotFoundError:
        return False


def _crashed(task: _Task) -> list[Converted]:
    return [Converted(task.name, issues=(Issue(Reason.WORKER_CRASHED, Stage.PIXEL, message="decoding it crashed"),))]


def _remove_earlier(out: Path, done: Sequence[Converted]) -> int:
    """Remove the objects that an earlier run has reported and this one has not made."""
    try:
        rows = list(CsvTable((out / REPORT).read_bytes()).rows())
    except FileNotFoundError:
        return 0
    made = {picture.name for picture in done if picture.uid}
    removed = 0
    for row in rows:
        target = out / f"{row.cells.get('picture', '')}.dcm"
        is_own = row.cells.get("sop_instance_uid") and row.cells["picture"] not in made
        if is_own and target.resolve().is_relative_to(out.resolve()) and target.is_file():
            target.unlink()
            removed += 1
    return removed


def _write_report(out: Path, done: Sequence[Converted], unlisted: Sequence[str]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("picture", "sop_instance_uid", "issues"))
    for picture in done:
        issues = "; ".join(f"{issue.severity} {issue.reason}: {issue.message}" for issue in picture.issues)
        writer.writerow((picture.name, picture.uid, issues))
    writer.writerows((name, "", "the table does not name it") for name in unlisted)
    write_atomically(out / REPORT, text.getvalue().encode("utf-8", "surrogateescape"))


def issue_counts(conversion: Conversion) -> Iterator[tuple[int, Severity, Reason, str]]:
    """How often each issue was met, the most frequent first."""
    counts = Counter(
        (issue.severity, issue.reason, issue.message) for picture in conversion.pictures for issue in picture.issues
    )
    for (severity, reason, message), count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        yield count, severity, reason, message
