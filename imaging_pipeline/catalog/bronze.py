"""A batch → bronze: inspect its objects in parallel and write all rows in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pydicom

import imaging_pipeline
from imaging_pipeline.catalog.inspection import ParseStatus, crashed_rows, inspect_objects
from imaging_pipeline.errors import Stage, TransientError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.reading import ObjectReader
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
    parts: dict[str, list[pa.Table]] = {}
    for tables in map_chunks(
        partial(inspect_objects, reader, batch_id),
        manifest,
        workers=workers,
        chunk_size=OBJECTS_PER_CHUNK,
        on_crash=partial(crashed_rows, batch_id),
    ):
        for name, rows in tables.items():
            parts.setdefault(name, []).append(rows)
        if progress:
            progress(tables["object_catalog"].num_rows, len(manifest))
    merged = {name: pa.concat_tables(rows) for name, rows in parts.items()}
    unread = _unread(merged["ingest_issue"])
    if len(unread) * 2 > len(manifest):
        raise TransientError(f"{len(unread)} of {len(manifest)} objects cannot be read: is the source reachable?")
    with lake.transaction():
        kept = _keep_earlier(lake, batch_id, unread, merged)
        lake.replace_batch("bronze", "object_catalog", merged["object_catalog"], batch_id, where=kept)
        lake.replace_batch("bronze", "dicom_header", merged["dicom_header"], batch_id, where=kept)
        issues = f"{stage_filter(ISSUE_STAGES)} AND {kept}"
        lake.replace_batch("bronze", "ingest_issue", merged["ingest_issue"], batch_id, where=issues)
        size = sum(target.size for target in manifest)
        counts = replace(_counts_in(lake, batch_id, len(manifest), size), unread=len(unread))
        _record_run(lake, batch_id, manifest, counts, run_id, started_at)
    return counts


def batch_counts(lake: Lake, batch_id: str) -> BatchCounts:
    """The counts of a batch as they stand in the catalog; ``seen`` is what the run was given."""
    seen = lake.rows(
        """SELECT objects_seen, bytes_read FROM bronze.ingest_run
        WHERE arrival_batch = ? ORDER BY finished_at DESC LIMIT 1""",
        [batch_id],
    )
    objects, size = (int(str(n)) for n in seen[0]) if seen else (0, 0)
    return _counts_in(lake, batch_id, objects, size)


def _unread(issues: pa.Table) -> list[str]:
    """Keys of the objects whose bytes could not be fetched."""
    return [str(key) for key in issues.filter(pc.equal(issues["stage"], Stage.FETCH))["object_key"].to_pylist()]


def _keep_earlier(lake: Lake, batch_id: str, unread: list[str], merged: dict[str, pa.Table]) -> str:
    """Condition on rows that may be replaced: an object that was read before and is gone now keeps its rows.

    Takes the new rows of such objects out of ``merged``.
    """
    if not unread:
        return "true"
    lake.connection.register("unread_objects", pa.table({"object_key": unread}))
    lake.connection.execute(
        """CREATE OR REPLACE TEMP TABLE kept_objects AS SELECT object_key FROM bronze.dicom_header
        WHERE arrival_batch = ? AND object_key IN (SELECT object_key FROM unread_objects)""",
        [batch_id],
    )
    lake.connection.unregister("unread_objects")
    kept = [key for (key,) in lake.connection.execute("FROM temp.kept_objects").fetchall()]
    for name, rows in merged.items():
        merged[name] = rows.filter(pc.invert(pc.is_in(rows["object_key"], pa.array(kept, pa.string()))))
    return "object_key NOT IN (SELECT object_key FROM temp.kept_objects)"


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
