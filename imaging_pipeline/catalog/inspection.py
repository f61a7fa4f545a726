"""One object → its rows in bronze: what it is, its digest, its header, and what is wrong with it.

Each object is read once, but for archives, of which the directory is enough. Runs in worker processes; writes nothing.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import pyarrow as pa

from imaging_pipeline.dicom.header import Header, read_header
from imaging_pipeline.errors import Issue, PoisonInput, Reason, Severity, Stage
from imaging_pipeline.lake import registry
from imaging_pipeline.objects.archive import ArchiveSummary
from imaging_pipeline.objects.model import Content, ObjectVersion, key_of
from imaging_pipeline.objects.reading import ObjectReader

PARSER_VERSION = "3"
"""Part of the code version of bronze: raise it when the same bytes would give other rows."""

ZIP_TYPE = "application/zip"
"""Media type of zip archives."""

OUT_OF_REACH = (Reason.GONE, Reason.ACCESS_DENIED, Reason.UNAVAILABLE, Reason.UNREADABLE)
"""Why an object cannot be fetched now and may be later."""

_DIRECTORY_UNUSABLE = (Reason.ARCHIVE_UNREADABLE, Reason.TOO_LARGE)

PREFIX_BYTES = 16 << 20
"""Bytes kept of an object while it is digested; headers end far before, and a longer one is read again."""

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima"})
"""A file so named that holds no DICOM has failed; any other that holds none is skipped."""

_MAGIC: Mapping[bytes, str] = {
    b"PK\x03\x04": ZIP_TYPE,
    b"PK\x05\x06": ZIP_TYPE,
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"%PDF-": "application/pdf",
    b"\x1f\x8b": "application/gzip",
}


class ParseStatus(StrEnum):
    """What became of an object; the counts of a batch close over these."""

    PARSED = "PARSED"
    PARSED_WITH_ISSUES = "PARSED_WITH_ISSUES"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


@dataclass(slots=True)
class BronzeRows:
    """Rows of the bronze tables, as mappings of column to value."""

    catalog: list[dict[str, object]] = field(default_factory=list)
    headers: list[dict[str, object]] = field(default_factory=list)
    issues: list[dict[str, object]] = field(default_factory=list)

    def tables(self) -> dict[str, pa.Table]:
        """The rows as Arrow tables by table name."""
        return {
            "object_catalog": registry.table("object_catalog").rows(self.catalog),
            "dicom_header": registry.table("dicom_header").rows(self.headers),
            "ingest_issue": registry.table("ingest_issue").rows(self.issues),
        }


def inspect_objects(reader: ObjectReader, batch_id: str, targets: Sequence[ObjectVersion]) -> dict[str, pa.Table]:
    """Bronze rows of some objects of a batch, as Arrow tables by table name."""
    rows = BronzeRows()
    for target in targets:
        inspect_object(reader, batch_id, target, rows)
    return rows.tables()


def inspect_object(reader: ObjectReader, batch_id: str, target: ObjectVersion, rows: BronzeRows) -> None:
    """Add the rows of one object; whatever is wrong with it becomes an issue, never an exception."""
    content: Content | None = None
    header: Header | None = None
    try:
        if _inspect_archive(reader, batch_id, target, rows):
            return
        content = reader.read_content(target, keep=PREFIX_BYTES)
        header = _read_header(reader, target, content)
        issues = list(header.issues)
    except PoisonInput as refusal:
        issues = [_refusal(reader, target, content, refusal)]
    except Exception as error:  # noqa: BLE001 - whatever a hostile object provokes costs that object, not its batch
        header, message = None, f"reading it failed unexpectedly ({type(error).__name__})"
        issues = [Issue(Reason.MALFORMED, Stage.PARSE, message=message)]
    status = _status(header, issues)
    rows.catalog.append(_catalog_row(batch_id, target, content, header, status))
    if header is not None:
        rows.headers.append(_header_row(batch_id, target, header))
    rows.issues.extend(issue_row(batch_id, target.key, issue) for issue in issues)


def _inspect_archive(reader: ObjectReader, batch_id: str, target: ObjectVersion, rows: BronzeRows) -> bool:
    """Add the rows of an archive whose directory can be used; False: it must be read like any other object.

    Its own bytes are not read, and it has no digest: its members have theirs, and its version says whether it changed.
    """
    if not target.is_archive or target.parent_uri is not None:
        return False
    try:
        summary = reader.describe_archive(target)
    except PoisonInput:
        return False
    if not summary.is_whole_file:
        return False  # what lies before its first member may be a DICOM object
    row = _catalog_row(batch_id, target, None, None, ParseStatus.SKIPPED)
    rows.catalog.append(row | {"is_dicom": False, "media_type": ZIP_TYPE})
    rows.issues.append(issue_row(batch_id, target.key, _told_of(summary)))
    return True


def crashed_rows(batch_id: str, target: ObjectVersion) -> dict[str, pa.Table]:
    """Bronze rows of an object whose inspection killed its process."""
    rows = BronzeRows()
    issue = Issue(Reason.WORKER_CRASHED, Stage.PARSE, message="reading it killed the process")
    rows.catalog.append(_catalog_row(batch_id, target, None, None, ParseStatus.FAILED))
    rows.issues.append(issue_row(batch_id, target.key, issue))
    return rows.tables()


def gone_rows(batch_id: str, targets: Sequence[ObjectVersion]) -> dict[str, pa.Table]:
    """Bronze rows of objects that vanished before they could be read."""
    rows = BronzeRows()
    issue = Issue(Reason.GONE, Stage.FETCH, Severity.INFO, message="it had vanished before it could be read")
    for target in targets:
        rows.catalog.append(_catalog_row(batch_id, target, None, None, ParseStatus.SKIPPED))
        rows.issues.append(issue_row(batch_id, target.key, issue))
    return rows.tables()


def issue_row(batch_id: str, object_key: str, issue: Issue, ordinal: int = 0) -> dict[str, object]:
    """A row of ``ingest_issue``; the same issue of the same object always has the same key."""
    path = issue.dicom_path or ""
    return {
        "issue_key": key_of(object_key, issue.stage, issue.reason, path, issue.message, str(ordinal)),
        "object_key": object_key,
        "stage": issue.stage,
        "severity": issue.severity,
        "issue_code": issue.reason,
        "dicom_path": issue.dicom_path,
        "message": issue.message,
        "arrival_batch": batch_id,
    }


def _read_header(reader: ObjectReader, target: ObjectVersion, content: Content) -> Header:
    return read_header(
        content.prefix,
        size=content.size,
        more=lambda upto: reader.read_content(target, keep=upto).prefix,
    )


def _refusal(reader: ObjectReader, target: ObjectVersion, content: Content | None, refusal: PoisonInput) -> Issue:
    """The issue of an object without a header: harmless when it never claimed to be DICOM."""
    if content is None:
        return refusal.issue(Stage.FETCH)
    if target.is_archive or _media_type(content) == ZIP_TYPE:
        return _archive_issue(reader, target)
    if refusal.reason is Reason.NOT_DICOM and not _claims_dicom(target):
        return Issue(Reason.NOT_DICOM, Stage.PARSE, Severity.INFO, message=f"looks like {_media_type(content)}")
    return refusal.issue(Stage.PARSE)


def _archive_issue(reader: ObjectReader, target: ObjectVersion) -> Issue:
    if target.parent_uri is not None:
        message = "an archive in an archive is not looked into: unpack the outer one"
        return Issue(Reason.ARCHIVE_NESTED, Stage.LIST, message=message)
    try:
        summary = reader.describe_archive(target)
    except PoisonInput as refusal:
        # Out of reach is not unreadable: as a matter of fetching it, it is tried again.
        return refusal.issue(Stage.LIST if refusal.reason in _DIRECTORY_UNUSABLE else Stage.FETCH)
    return _told_of(summary)


def _told_of(summary: ArchiveSummary) -> Issue:
    message = f"its {summary.members} members are objects of their own"
    if summary.duplicates:
        message += f"; {summary.duplicates} entries are hidden behind later ones of the same name and are not read"
    severity = Severity.WARNING if summary.duplicates else Severity.INFO
    return Issue(Reason.ARCHIVE, Stage.LIST, severity, message=message)


def _status(header: Header | None, issues: Sequence[Issue]) -> ParseStatus:
    if header is None:
        is_lost = any(issue.severity is Severity.ERROR for issue in issues)
        return ParseStatus.FAILED if is_lost else ParseStatus.SKIPPED
    is_clean = all(issue.severity is Severity.INFO for issue in issues)
    return ParseStatus.PARSED if is_clean else ParseStatus.PARSED_WITH_ISSUES


def _catalog_row(
    batch_id: str, target: ObjectVersion, content: Content | None, header: Header | None, status: ParseStatus
) -> dict[str, object]:
    path = target.uri.partition("://")[2]
    return {
        "object_key": target.key,
        "storage_uri": target.uri,
        "object_version": target.version,
        "storage_provider": target.uri.partition("://")[0],
        "relative_path": path.lstrip("/"),
        "extension": posixpath.splitext(target.name)[1].lower(),
        "length": target.size,
        "modification_time": target.modified_at,
        "sha256": content.sha256 if content else None,
        "is_dicom": header is not None if content else None,
        "has_preamble": header.has_preamble if header else None,
        "media_type": "application/dicom" if header else _media_type(content) if content else None,
        "parse_status": status,
        "parser_version": PARSER_VERSION,
        "is_anon": '"00120062":{"vr":"CS","Value":["YES"]}' in header.json if header else None,
        "source_name": target.source,
        "parent_uri": target.parent_uri,
        "first_seen_at": target.first_seen_at,
        "deleted_at": target.deleted_at,
        "arrival_batch": batch_id,
    }


def _header_row(batch_id: str, target: ObjectVersion, header: Header) -> dict[str, object]:
    elements = json.loads(header.json)
    return {
        "object_key": target.key,
        "sop_instance_uid": _first(elements, "00080018"),
        "sop_class_uid": _first(elements, "00080016"),
        "study_instance_uid": _first(elements, "0020000D"),
        "series_instance_uid": _first(elements, "0020000E"),
        "transfer_syntax_uid": header.transfer_syntax_uid,
        "specific_character_set": [str(name) for name in elements.get("00080005", {}).get("Value") or []] or None,
        "header_json": header.json,
        "header_sha256": hashlib.sha256(header.json.encode()).hexdigest(),
        "has_pixel": header.has_pixel,
        "header_bytes": header.header_bytes,
        "element_count": header.element_count,
        "private_element_count": header.private_element_count,
        "pixel_data_offset": header.pixel_offset,
        "arrival_batch": batch_id,
    }


def _first(elements: Mapping[str, dict[str, list[str]]], tag: str) -> str | None:
    values = elements.get(tag, {}).get("Value")
    return values[0] if values and isinstance(values[0], str) and values[0] else None


def _claims_dicom(target: ObjectVersion) -> bool:
    return posixpath.splitext(target.name)[1].lower() in DICOM_SUFFIXES


def _media_type(content: Content) -> str:
    for magic, media_type in _MAGIC.items():
        if content.prefix.startswith(magic):
            return media_type
    return "text/plain" if _is_text(content.prefix[:4096]) else "application/octet-stream"


def _is_text(sample: bytes) -> bool:
    if b"\0" in sample:
        return False
    try:
        sample.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(sample) - 4  # cut in the middle of a character
    return True
