"""A batch → bronze: inspect its objects in parallel and write all rows in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pydicom

import imaging_pipeline
from imaging_pipeline.catalog.inspection import (
    OUT_OF_REACH,
    PARSER_VERSION,
    ZIP_TYPE,
    ParseStatus,
    crashed_rows,
    gone_rows,
    inspect_objects,
)
from imaging_pipeline.errors import Reason, Severity, Stage, TransientError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.objects.source import ABSENT
from imaging_pipeline.workers import map_chunks

OBJECTS_PER_CHUNK = 64

ISSUE_STAGES = (Stage.LIST, Stage.FETCH, Stage.PARSE)
"""Stages whose issues bronze owns and replaces when a batch is run again."""


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """What became of the objects of a batch (or of several).

    Attributes:
        seen: objects of the manifest.
        parsed: with a header, with or without issues.
        failed: with an error and no header.
        skipped: no DICOM.
        bytes: bytes of all.
        unread: objects whose bytes could not be fetched by this run; a later run may fare better.
    """

    seen: int
    parsed: int
    failed: int
    skipped: int
    bytes: int = 0
    unread: int = 0

    @property
    def is_closed(self) -> bool:
        """Nothing was dropped: ``seen = parsed + failed + skipped``."""
        return self.seen == self.parsed + self.failed + self.skipped

    def __str__(self) -> str:
        return f"seen {self.seen} = parsed {self.parsed} + failed {self.failed} + skipped {self.skipped}"


def load_bronze(
    lake: Lake,
    batch_id: str,
    manifest: Sequence[ObjectVersion],
    reader: ObjectReader,
    *,
    run_id: str,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> BatchCounts:
    """Catalog a batch: every object gets a row; run again, it leaves the same rows.

    What an earlier run has read with the same parser is not read again: only what could not be fetched then. An object
    that has vanished since keeps its rows and is marked as deleted.

    Args:
        lake: the identified lake.
        batch_id: the batch.
        manifest: its object versions.
        reader: reads them.
        run_id: the orchestrator's run, kept in ``ingest_run``.
        workers: processes.
        progress: called with the objects done since the last call, and all there are.

    Raises:
        TransientError: the lake is locked, or most of the objects cannot be read: the source is out of reach.
    """
    started_at = _now()
    _mark_deleted(lake, batch_id, manifest)  # also when the rest fails: what has vanished must not wait for it
    known = {str(key) for (key,) in lake.rows(_KNOWN, [batch_id])}
    gone = {target.key for target in manifest if target.deleted_at is not None}
    kept_anyway = _read_before(lake, batch_id) | (gone & known)
    to_read = [target for target in manifest if target.key not in kept_anyway | gone]
    parts: dict[str, list[pa.Table]] = {}
    never_read = [target for target in manifest if target.key in gone - known]
    _collect(parts, gone_rows(batch_id, never_read))
    for tables in map_chunks(
        partial(inspect_objects, reader, batch_id),
        to_read,
        workers=workers,
        chunk_size=OBJECTS_PER_CHUNK,
        on_crash=partial(crashed_rows, batch_id),
    ):
        _collect(parts, tables)
        if progress:
            progress(tables["object_catalog"].num_rows, len(to_read))
    fresh = {name: pa.concat_tables(rows) for name, rows in parts.items()}
    unread = _unread(fresh["ingest_issue"], manifest)
    if len(unread) * 2 > len(manifest):
        raise TransientError(f"{len(unread)} of {len(manifest)} objects cannot be read: is the source reachable?")
    with lake.transaction():
        kept = _keep_earlier(lake, batch_id, kept_anyway, unread, fresh)
        lake.replace_batch("bronze", "object_catalog", fresh["object_catalog"], batch_id, where=kept)
        lake.replace_batch("bronze", "dicom_header", fresh["dicom_header"], batch_id, where=kept)
        issues = f"{stage_filter(ISSUE_STAGES)} AND {kept}"
        lake.replace_batch("bronze", "ingest_issue", fresh["ingest_issue"], batch_id, where=issues)
        size = sum(target.size for target in manifest)
        counts = replace(_counts_in(lake, batch_id, len(manifest), size), unread=len(unread))
        _record_run(lake, batch_id, manifest, counts, run_id, started_at)
    return counts


def readable_archives(lake: Lake, batch_id: str, manifest: Sequence[ObjectVersion]) -> list[ObjectVersion]:
    """Objects of a batch that are zip archives by their content.

    The ledger may not know their members yet: the name did not tell, or the archive could not be read when it was
    listed.
    """
    rows = lake.rows(
        """SELECT object_key FROM bronze.object_catalog
        WHERE arrival_batch = ? AND media_type = ? AND parent_uri IS NULL AND deleted_at IS NULL""",
        [batch_id, ZIP_TYPE],
    )
    found = {str(key) for (key,) in rows}
    return [target for target in manifest if target.key in found]


def batch_counts(lake: Lake, batch_id: str) -> BatchCounts:
    """The counts of a batch as they stand in the catalog; ``seen`` is what the run was given."""
    seen = lake.rows(
        """SELECT objects_seen, bytes_read FROM bronze.ingest_run
        WHERE arrival_batch = ? ORDER BY finished_at DESC LIMIT 1""",
        [batch_id],
    )
    objects, size = (int(str(n)) for n in seen[0]) if seen else (0, 0)
    return _counts_in(lake, batch_id, objects, size)


_KNOWN = "SELECT object_key FROM bronze.object_catalog WHERE arrival_batch = ?"


def _collect(parts: dict[str, list[pa.Table]], tables: Mapping[str, pa.Table]) -> None:
    for name, rows in tables.items():
        parts.setdefault(name, []).append(rows)


def _read_before(lake: Lake, batch_id: str) -> set[str]:
    """Keys of the batch's objects that an earlier run has fetched and parsed as this one would."""
    rows = lake.rows(
        """SELECT object_key FROM bronze.object_catalog WHERE arrival_batch = $1 AND parser_version = $2
        EXCEPT SELECT object_key FROM bronze.ingest_issue
        WHERE arrival_batch = $1 AND (stage = $3 OR issue_code = $4)""",
        [batch_id, PARSER_VERSION, str(Stage.FETCH), str(Reason.WORKER_CRASHED)],
    )
    return {str(key) for (key,) in rows}


def _unread(issues: pa.Table, manifest: Sequence[ObjectVersion]) -> list[str]:
    """Keys of the objects whose bytes could not be fetched now and may be later.

    An encrypted or damaged member of an archive is what it is, and what a list names that is not there has another
    version when it comes; trying again cannot help.
    """
    codes = pc.is_in(issues["issue_code"], pa.array([str(reason) for reason in OUT_OF_REACH]))
    lost = issues.filter(pc.and_(codes, pc.equal(issues["severity"], Severity.ERROR)))
    absent = {target.key for target in manifest if target.version == ABSENT}
    members = {target.key for target in manifest if target.parent_uri is not None}
    return [
        str(key)
        for key, code in zip(lost["object_key"].to_pylist(), lost["issue_code"].to_pylist(), strict=True)
        if key not in absent and (code != Reason.UNREADABLE or key not in members)
    ]


def _keep_earlier(
    lake: Lake, batch_id: str, kept_anyway: set[str], unread: list[str], fresh: dict[str, pa.Table]
) -> str:
    """Condition on rows that may be replaced: what is not read again, or cannot be read now, keeps its rows.

    Takes the new rows of such objects out of ``fresh``.
    """
    rows = lake.rows("SELECT object_key FROM bronze.dicom_header WHERE arrival_batch = ?", [batch_id])
    kept = kept_anyway | ({str(key) for (key,) in rows} & set(unread))
    if not kept:
        return "true"
    keys = pa.array(sorted(kept), pa.string())
    for name, table in fresh.items():
        fresh[name] = table.filter(pc.invert(pc.is_in(table["object_key"], keys)))
    lake.connection.register("kept_rows", pa.table({"object_key": keys}))
    lake.connection.execute("CREATE OR REPLACE TEMP TABLE kept_objects AS FROM kept_rows")
    lake.connection.unregister("kept_rows")
    return "object_key NOT IN (SELECT object_key FROM temp.kept_objects)"


def _mark_deleted(lake: Lake, batch_id: str, manifest: Sequence[ObjectVersion]) -> None:
    """Bring the tombstones of a batch up to date; an object that is back loses its own."""
    rows = lake.rows("SELECT object_key, deleted_at FROM bronze.object_catalog WHERE arrival_batch = ?", [batch_id])
    before = {str(key): deleted_at for key, deleted_at in rows}
    changed = [target for target in manifest if before.get(target.key) != target.deleted_at]
    if not changed:
        return
    tombstones = {
        "object_key": pa.array([target.key for target in changed], pa.string()),
        "deleted_at": pa.array([target.deleted_at for target in changed], pa.timestamp("us")),
    }
    with lake.transaction():
        lake.connection.register("tombstones", pa.table(tombstones))
        lake.connection.execute(
            """UPDATE bronze.object_catalog AS catalog SET deleted_at = tombstones.deleted_at FROM tombstones
            WHERE arrival_batch = ? AND catalog.object_key = tombstones.object_key""",
            [batch_id],
        )
        lake.connection.unregister("tombstones")


def stage_filter(stages: Sequence[Stage]) -> str:
    """SQL condition on the stage of an issue."""
    return f"stage IN ({', '.join(repr(str(stage)) for stage in stages)})"


def _counts_in(lake: Lake, batch_id: str, seen: int, size: int) -> BatchCounts:
    rows = lake.query("SELECT parse_status FROM bronze.object_catalog WHERE arrival_batch = ?", [batch_id])
    by_status = Counter(rows["parse_status"].to_pylist())
    return BatchCounts(
        seen=seen,
        parsed=by_status[ParseStatus.PARSED] + by_status[ParseStatus.PARSED_WITH_ISSUES],
        failed=by_status[ParseStatus.FAILED],
        skipped=by_status[ParseStatus.SKIPPED],
        bytes=size,
    )


def _record_run(
    lake: Lake,
    batch_id: str,
    manifest: Sequence[ObjectVersion],
    counts: BatchCounts,
    run_id: str,
    started_at: datetime,
) -> None:
    row = {
        "ingest_run_id": f"{batch_id}/{run_id}",
        "pipeline": "bronze",
        "partition_key": batch_id,
        "arrival_batch": batch_id,
        "orchestrator_run_id": run_id,
        "source_name": ", ".join(sorted({target.source for target in manifest})),
        "code_version": imaging_pipeline.__version__,
        "dicom_dictionary_version": f"pydicom {pydicom.__version__}",
        "started_at": started_at,
        "finished_at": _now(),
        "status": "SUCCESS",
        "objects_seen": counts.seen,
        "objects_parsed": counts.parsed,
        "objects_failed": counts.failed,
        "objects_skipped": counts.skipped,
        "bytes_read": counts.bytes,
    }
    rows = registry.table("ingest_run").rows([row])
    where = "ingest_run_id = ?"
    lake.replace_all("bronze", "ingest_run", rows, where=where, parameters=[row["ingest_run_id"]])


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
