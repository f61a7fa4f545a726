"""Labels of all sources → rows of ``gold.label`` on the research side.

Label files and reports name images by original names or UIDs, so the join happens on the identified side; only research
keys, keyed tokens and vetted words go out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import islice
from typing import Protocol

import pyarrow as pa

from imaging_pipeline.catalog.bronze import stage_filter
from imaging_pipeline.catalog.inspection import issue_row
from imaging_pipeline.deid.dates import LATEST
from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.errors import Issue, PoisonInput, Reason, Severity, Stage, TransientError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.model import ObjectVersion, key_of
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.pneumonia.labels.matching import Subject, Subjects
from imaging_pipeline.pneumonia.labels.model import TASK, Box, Label, Method
from imaging_pipeline.pneumonia.labels.reports import read_reports
from imaging_pipeline.pneumonia.labels.tables import open_label_table
from imaging_pipeline.pneumonia.labels.vetting import Vetting
from imaging_pipeline.pneumonia.labels.views import LabelView, view_names
from imaging_pipeline.settings import LakeLocation

__all__ = ["CODE_VERSION", "TASK", "LabelCounts", "import_labels", "row_token"]

CODE_VERSION = "4"
"""Raise it when the same sources would give other rows."""

MAX_LABEL_FILE_BYTES = 500_000_000

ROWS_AT_ONCE = 10_000

INSTANCE, REGION = "INSTANCE", "REGION"

ROW = "label row"
"""What tells the tokens of rows from other tokens."""


@dataclass(slots=True)
class LabelCounts:
    """What an import found.

    Attributes:
        files: label files read.
        reports: structured reports with findings.
        views: views of the research lake.
        refused: rows that could not be used, as issues say.
        images: what sources name as images, each once in a source.
        matched: those that are a released image.
        ambiguous: those that several images are called.
        labels: rows about images, of all tasks.
        positive: those with the finding of the model's task.
    """

    files: int = 0
    reports: int = 0
    views: int = 0
    refused: int = 0
    images: int = 0
    matched: int = 0
    ambiguous: int = 0
    labels: int = 0
    positive: int = 0


class _Source(Protocol):
    """Where labels come from."""

    def refuse(self, label: Label, expected: str) -> None:
        """Take a label back; the message holds no value of it."""


@dataclass(slots=True)
class _Said:
    """What one source says about one image and task, by one annotator."""

    label: Label
    origin: _Origin
    subject: Subject
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class _Origin:
    """One file, report or view.

    Attributes:
        layout: of the file, or REPORT or QUERY.
        sha256: digest of its bytes.
        is_research: it names images and times as the research side does.
    """

    layout: str
    sha256: str
    is_research: bool = False


_Key = tuple[str, str, str, str]
"""Research key of the image, task, source, annotator."""


def import_labels(
    identified: Lake,
    research: Lake,
    keys: ProjectKeys,
    reader: ObjectReader,
    profile: Profile,
    views: LakeLocation | None = None,
) -> LabelCounts:
    """Bring ``gold.label`` up to date with label files, reports and views; run again, it leaves the same rows.

    Of two files that say something of the same image, task, source and annotator the later one counts. What different
    sources say stays side by side. A file that has vanished from its source takes its labels with it.

    Args:
        identified: the identified lake; gets the issues.
        research: the research lake.
        keys: of the project.
        reader: reads label files.
        profile: says whether times are shifted, kept or left out.
        views: where the research lake is, to read the views in it; None: views are not read.

    Raises:
        TransientError: the lake is locked, or a label file is out of reach.
        ImagingError: a view cannot be read.
    """
    collected = _Collected(identified, research, keys, profile)
    for target, batch in _candidates(identified):
        data = _read(reader, target)
        table = open_label_table(data)
        if table is None:
            continue
        origin = _Origin(table.layout, hashlib.sha256(data).hexdigest())
        collected.take(table.labels(), origin, f"CSV:{table.layout}", table)
        collected.counts.files += 1
        collected.note(batch, target.key, table.issues(), table.refused)
    for report in read_reports(identified):
        problems = _ReportProblems()
        collected.take(report.labels, _Origin(Method.REPORT, report.sha256), "SR", problems)
        collected.counts.reports += 1
        collected.note(report.batch, report.object_key, problems.issues, len(problems.issues))
    for name in view_names(research) if views else ():
        assert views is not None
        view = LabelView(views, name)
        collected.take(view.labels(), _Origin(Method.QUERY, name, is_research=True), f"SQL:{name}", view)
        collected.counts.views += 1
        collected.counts.refused += view.refused
    _write(identified, research, collected, with_views=views is not None)
    return collected.counts


def row_token(keys: ProjectKeys, sha256: str, place: str) -> str:
    """What stands in ``gold.label`` for a row of a label file: the key holder finds the row by it, nobody else.

    Args:
        keys: of the project.
        sha256: digest of the file's bytes, hexadecimal.
        place: number of the row's last line, from 1; in a report, the position of the content item.
    """
    return keys.token(ROW, sha256, place)


class _Collected:
    """The labels of all sources that are about released images, and what was wrong with the others."""

    def __init__(self, identified: Lake, research: Lake, keys: ProjectKeys, profile: Profile) -> None:
        self.counts = LabelCounts()
        self.issues: list[dict[str, object]] = []
        self._token = lru_cache(maxsize=256)(keys.token)  # the tasks of one row follow each other
        self._keys = keys
        self._profile = profile
        self._subjects = Subjects(identified, keys)
        self._vetting = Vetting(identified)
        released = research.rows("SELECT instance_key, sop_instance_uid FROM deid.dicom_instance")
        self._released = {str(key) for key, _ in released}
        self._by_research_uid = {str(uid): str(key) for key, uid in released}
        self._said: dict[_Key, _Said] = {}

    def take(self, labels: Iterable[Label], origin: _Origin, source: str, said_by: _Source) -> None:
        """Take the labels of a source; those that contradict each other go back to it."""
        subjects: dict[str, Subject | None] = {}
        refused: set[_Key] = set()
        for label in labels:
            if objection := self._vetting.objection(label):
                said_by.refuse(label, objection)
                continue
            if label.image not in subjects:
                subjects[label.image] = self._subject(label.image, origin)
            subject = subjects[label.image]
            if subject is None:
                continue
            name = f"{source.partition(':')[0]}:{label.collection}" if label.collection else source
            key = (subject.key, label.task, name, label.annotator)
            known = self._said.get(key)
            if known is None or known.origin is not origin:
                known = self._said[key] = _Said(label, origin, subject)
            elif (known.label.value, known.label.number) != (label.value, label.number):
                refused.add(key)
                said_by.refuse(label, "expected the same label on all rows of an image")
            if label.box:
                known.boxes += (label.box,)
        for key in refused:
            del self._said[key]

    def note(self, batch: str, object_key: str, issues: Iterable[Issue], refused: int) -> None:
        """Keep what was wrong with a file or report."""
        self.issues += [issue_row(batch, object_key, issue) for issue in issues]
        self.counts.refused += refused

    def rows(self) -> Iterator[dict[str, object]]:
        """Rows of ``gold.label``: one for each label of an image, one for each of its boxes."""
        for (_, _, source, _), said in self._said.items():
            self.counts.labels += 1
            self.counts.positive += said.label.task == TASK and said.label.number == 1.0
            yield self._row(said, source, INSTANCE)
            for ordinal, box in enumerate(said.boxes):
                yield self._row(said, source, REGION, ordinal) | {"bbox": list(box)}

    def _subject(self, image: str, origin: _Origin) -> Subject | None:
        """The released image something is the name of; None when there is none, or more than one: no guess is made."""
        self.counts.images += 1
        if origin.is_research:
            key = self._by_research_uid.get(image, image)
            found = {Subject(key, ("", ""))}
        else:
            found = self._subjects.find(image)
        self.counts.ambiguous += len(found) > 1
        if len(found) != 1 or next(iter(found)).key not in self._released:
            return None
        self.counts.matched += 1
        return next(iter(found))

    def _row(self, said: _Said, source: str, level: str, ordinal: int = 0) -> dict[str, object]:
        label, origin = said.label, said.origin
        annotator = self._token("annotator", label.annotator) if label.annotator else None
        named = (source, annotator) if annotator else (source,)
        return {
            "label_key": key_of(said.subject.key, label.task, *named, level, str(ordinal)),
            "subject_level": level,
            "subject_key": said.subject.key,
            "task": label.task,
            "label_value": label.value,
            "label_numeric": label.number,
            "source": source,
            "layout": origin.layout,
            "method": label.method,
            "annotator": annotator,
            "confidence": label.confidence,
            "is_consensus": label.is_consensus,
            "labelled_at": label.labelled_at if origin.is_research else self._moved(label.labelled_at, said.subject),
            "official_split": label.split if level == INSTANCE else None,
            "source_token": self._token("label source", origin.sha256),
            "row_token": self._token(ROW, origin.sha256, label.place),
        }

    def _moved(self, at: datetime | None, subject: Subject) -> datetime | None:
        """A time as the profile releases it: moved as all dates of the patient, as it is, or not at all."""
        if at is None or self._profile.keeps_dates:
            return at
        if not self._profile.shifts_dates or not self._profile.earliest_date <= at.date() <= LATEST:
            return None  # a placeholder, moved, would give the shift away
        return at + self._keys.date_shift(*subject.patient)


class _ReportProblems:
    """Contradictions within one report."""

    def __init__(self) -> None:
        self.issues: list[Issue] = []

    def refuse(self, label: Label, expected: str) -> None:
        message = f"content item {label.place}: {expected}"
        self.issues.append(Issue(Reason.MALFORMED, Stage.LOAD, Severity.WARNING, message=message))


def _read(reader: ObjectReader, target: ObjectVersion) -> bytes:
    try:
        return reader.read_all(target)
    except PoisonInput:
        raise TransientError("a label file that was taken in cannot be read: put it back; no label changed") from None


def _candidates(identified: Lake) -> Iterator[tuple[ObjectVersion, str]]:
    """CSV files of the catalog that are there, with their batch: the newest version of each, oldest file first."""
    rows = identified.rows(
        """SELECT storage_uri, object_version, length, modification_time, source_name, arrival_batch
        FROM bronze.object_catalog
        WHERE extension = '.csv' AND parse_status = 'SKIPPED' AND deleted_at IS NULL AND length <= ?
        QUALIFY row_number() OVER (PARTITION BY storage_uri ORDER BY modification_time DESC, object_version DESC) = 1
        ORDER BY modification_time, storage_uri""",
        [MAX_LABEL_FILE_BYTES],
    )
    for *target, batch in rows:
        yield ObjectVersion(*target), str(batch)  # type: ignore[arg-type]


def _write(identified: Lake, research: Lake, collected: _Collected, *, with_views: bool) -> None:
    rows = _arrow(collected.rows())
    owned = "source = 'SR' OR starts_with(source, 'CSV:')" + (" OR starts_with(source, 'SQL:')" if with_views else "")
    with research.transaction():
        research.replace_all("gold", "label", rows, where=owned, parameters=[])
        released = "SELECT instance_key FROM deid.dicom_instance"  # less than before, if one was withdrawn meanwhile
        research.connection.execute(f"DELETE FROM gold.label WHERE ({owned}) AND subject_key NOT IN ({released})")
    stage = stage_filter([Stage.LOAD])
    known = {key for (key,) in identified.rows(f"SELECT issue_key FROM bronze.ingest_issue WHERE {stage}")}
    if known != {issue["issue_key"] for issue in collected.issues}:
        issues = registry.table("ingest_issue").rows(collected.issues)
        with identified.transaction():
            identified.replace_all("bronze", "ingest_issue", issues, where=stage, parameters=[])


def _arrow(rows: Iterator[dict[str, object]]) -> pa.Table:
    """Rows of ``label`` as a table, a part of them at a time in memory as Python objects."""
    table = registry.table("label")
    parts = [table.rows([])]
    while part := list(islice(rows, ROWS_AT_ONCE)):
        parts.append(table.rows(part))
    return pa.concat_tables(parts)
