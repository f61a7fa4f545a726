"""Thumbnails of a batch: of the original objects into the identified lake, of released files into the research lake."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial

from imaging_pipeline.catalog.inspection import issue_row
from imaging_pipeline.errors import Issue, PoisonInput, Reason, Severity, Stage
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.tensors.thumbnails import CODE_VERSION, MIME_TYPE, make_thumbnail
from imaging_pipeline.workers import map_chunks

__all__ = [
    "CODE_VERSION",
    "ThumbnailCounts",
    "load_original_thumbnails",
    "load_released_thumbnails",
    "thumbnails_to_show",
    "withdraw_thumbnails",
]

OBJECTS_PER_CHUNK = 16

ISSUE_PREFIX = "thumbnail: "
"""What messages of this step begin with: only such issues are replaced by it."""

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class ThumbnailCounts:
    """What became of the image instances that a batch has to show.

    Attributes:
        images: instances with pixel data.
        made: thumbnails made by this run.
        kept: thumbnails that an earlier run made of the same bytes.
        failed: instances that cannot be shown; each has an issue.
    """

    images: int
    made: int = 0
    kept: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class _Target:
    """An image to be shown: its instance, and the object it is made from.

    Attributes:
        instance_key: key of the instance.
        sop_instance_uid: its UID.
        arrival_batch: the batch the instance came with.
        content_sha256: digest of the object as the lake has it.
        object_key: the object in issues.
        version: the object, to be read by an `ObjectReader`; None: a released file.
        storage_uri: the released file.
    """

    instance_key: str
    sop_instance_uid: str = field(repr=False)
    arrival_batch: str
    content_sha256: str
    object_key: str
    version: ObjectVersion | None = field(default=None, repr=False)
    storage_uri: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class _Result:
    """A row of ``thumbnail``, or why there is none."""

    target: _Target
    row: dict[str, object] | None = None
    issue: Issue | None = None


def load_original_thumbnails(
    lake: Lake, batch_id: str, reader: ObjectReader, *, workers: int, progress: Progress | None = None
) -> ThumbnailCounts:
    """Bring ``silver.thumbnail`` up to date with what silver says of the batch's instances, of vanished ones too.

    A thumbnail made of the same bytes by the same code is kept and its object not read. So is an object that cannot be
    read now: its issue is written, and the next run tries again.

    Args:
        lake: the identified lake.
        batch_id: the batch.
        reader: reads its objects.
        workers: processes.
        progress: called with the images done since the last call, and all there are to make.

    Raises:
        TransientError: the lake is locked.
    """
    return _load(lake, "silver", batch_id, _originals(lake, batch_id), reader, workers, progress)


def load_released_thumbnails(
    lake: Lake, batch_id: str, *, workers: int, progress: Progress | None = None
) -> ThumbnailCounts:
    """Bring ``gold.thumbnail`` up to date with what the batch has released; opens the research lake only.

    Args:
        lake: the research lake.
        batch_id: the batch.
        workers: processes.
        progress: called with the images done since the last call, and all there are to make.

    Raises:
        TransientError: the lake is locked.
    """
    return _load(lake, "gold", batch_id, _released(lake, batch_id), ObjectReader(), workers, progress)


def withdraw_thumbnails(lake: Lake, instance_keys: Set[str]) -> None:
    """Take the thumbnails of some instances that are not of what is released now out of the research lake.

    Args:
        lake: the research lake.
        instance_keys: instances that may have been withdrawn or released from other content.

    Raises:
        TransientError: the lake is locked.
    """
    keys = sorted(instance_keys)
    rows = f"gold.thumbnail WHERE instance_key IN (SELECT unnest(?)) AND {_OUTDATED['gold']}"
    if keys and lake.rows(f"SELECT 1 FROM {rows} LIMIT 1", [keys]):
        with lake.transaction():
            lake.connection.execute(f"DELETE FROM {rows}", [keys])


def thumbnails_to_show(lake: Lake, batch_id: str, limit: int) -> list[bytes]:
    """Pictures of some released images of a batch, always the same ones."""
    found = lake.query(
        "SELECT image FROM gold.thumbnail WHERE arrival_batch = ? ORDER BY instance_key LIMIT ?", [batch_id, limit]
    )
    pictures: list[bytes] = found["image"].to_pylist()
    return pictures


_OUTDATED = {
    "silver": """(instance_key, source_content_sha256) NOT IN (
        SELECT (instance_key, content_sha256) FROM silver.dicom_instance WHERE version_state <> 'DELETED')""",
    "gold": """(instance_key, source_content_sha256) NOT IN (
        SELECT (instance_key, content_sha256) FROM deid.deid_verification)""",
}
"""Conditions on thumbnails that show another content than the lake has now, or an instance that is gone."""

_ISSUES = {"silver": "bronze", "gold": "gold"}
"""Schema of the issues."""

_TOUCHED = """
SELECT uid_key FROM silver.dicom_file_location WHERE arrival_batch = $1
UNION SELECT location.uid_key FROM silver.thumbnail
    JOIN silver.dicom_file_location AS location USING (instance_key) WHERE silver.thumbnail.arrival_batch = $1
"""


def _originals(lake: Lake, batch_id: str) -> list[_Target]:
    """Live image instances that the batch has, or had, an object of: another batch's may have taken its place."""
    rows = lake.rows(
        f"""SELECT instance.instance_key, instance.sop_instance_uid, instance.arrival_batch, instance.content_sha256,
            catalog.storage_uri, object_version, length, modification_time, source_name
        FROM silver.dicom_instance AS instance
        JOIN silver.dicom_file_location AS location USING (instance_key, object_key)
        JOIN bronze.object_catalog AS catalog USING (object_key)
        WHERE location.uid_key IN ({_TOUCHED}) AND has_pixel AND version_state <> 'DELETED'
        ORDER BY instance.instance_key""",
        [batch_id],
    )
    targets = []
    for key, uid, batch, content, *object_fields in rows:
        version = ObjectVersion(*object_fields)  # type: ignore[arg-type]
        targets.append(_Target(str(key), str(uid), str(batch), str(content), version.key, version))
    return targets


def _released(lake: Lake, batch_id: str) -> list[_Target]:
    rows = lake.rows(
        """SELECT instance_key, sop_instance_uid, instance.arrival_batch, proof.content_sha256, storage_uri
        FROM deid.dicom_instance AS instance
        JOIN deid.dicom_file_location USING (instance_key)
        JOIN deid.deid_verification AS proof USING (instance_key)
        WHERE instance.arrival_batch = ? AND has_pixel ORDER BY instance_key""",
        [batch_id],
    )
    return [
        _Target(str(key), str(uid), str(batch), str(content), str(key), storage_uri=str(uri))
        for key, uid, batch, content, uri in rows
    ]


def _load(
    lake: Lake,
    schema: str,
    batch_id: str,
    targets: Sequence[_Target],
    reader: ObjectReader,
    workers: int,
    progress: Progress | None,
) -> ThumbnailCounts:
    counts = ThumbnailCounts(images=len(targets))
    known = {
        str(key): (content, version)
        for key, content, version in lake.rows(
            f"""SELECT instance_key, source_content_sha256, renderer_version FROM {schema}.thumbnail
            WHERE instance_key IN (SELECT unnest(?))""",
            [[target.instance_key for target in targets]],
        )
    }
    due = [target for target in targets if known.get(target.instance_key) != (target.content_sha256, CODE_VERSION)]
    counts.kept = len(targets) - len(due)
    results: list[_Result] = []
    for chunk in map_chunks(
        partial(_make, reader), due, workers=workers, chunk_size=OBJECTS_PER_CHUNK, on_crash=_crashed
    ):
        results += chunk
        if progress:
            progress(len(chunk), len(due))
    made = [result.row for result in results if result.row is not None]
    failed = [(result.target, result.issue) for result in results if result.issue is not None]
    counts.made, counts.failed = len(made), len(failed)
    _write(lake, schema, batch_id, targets, made, failed)
    return counts


def _make(reader: ObjectReader, targets: Sequence[_Target]) -> list[_Result]:
    return [_make_one(reader, target) for target in targets]


def _make_one(reader: ObjectReader, target: _Target) -> _Result:
    try:
        made = make_thumbnail(reader.read_stored(target.version, target.storage_uri, target.content_sha256))
    except PoisonInput as refusal:
        issue = replace(refusal.issue(Stage.PIXEL), severity=Severity.WARNING)
        return _Result(target, issue=replace(issue, message=ISSUE_PREFIX + issue.message))
    row: dict[str, object] = {
        "instance_key": target.instance_key,
        "sop_instance_uid": target.sop_instance_uid,
        "frame_number": made.frame_number,
        "number_of_frames": made.number_of_frames,
        "image_rows": made.rows,
        "image_columns": made.columns,
        "mime_type": MIME_TYPE,
        "image": made.image,
        "image_sha256": made.sha256,
        "source_content_sha256": target.content_sha256,
        "renderer_version": CODE_VERSION,
        "arrival_batch": target.arrival_batch,
    }
    return _Result(target, row)


def _crashed(target: _Target) -> list[_Result]:
    message = f"{ISSUE_PREFIX}decoding it killed the process"
    return [_Result(target, issue=Issue(Reason.WORKER_CRASHED, Stage.PIXEL, Severity.WARNING, message=message))]


def _write(
    lake: Lake,
    schema: str,
    batch_id: str,
    targets: Iterable[_Target],
    made: list[dict[str, object]],
    failed: list[tuple[_Target, Issue]],
) -> None:
    """Put the rows in the place of earlier ones, and take out what the lake has changed meanwhile, or has no more."""
    table = registry.table("thumbnail")
    issues = [issue_row(target.arrival_batch, target.object_key, issue) for target, issue in failed]
    touched = [target.instance_key for target in targets]
    with lake.transaction():
        replaced = "instance_key IN (SELECT instance_key FROM staged_rows)"
        lake.replace_all(schema, table.name, table.rows(made), where=replaced, parameters=[])
        lake.connection.execute(
            f"""DELETE FROM {schema}.thumbnail
            WHERE (arrival_batch = ? OR instance_key IN (SELECT unnest(?))) AND {_OUTDATED[schema]}""",
            [batch_id, touched],
        )
        lake.replace_all(
            _ISSUES[schema],
            "ingest_issue",
            registry.table("ingest_issue").rows(issues),
            where=f"""starts_with(message, '{ISSUE_PREFIX}')
                AND (arrival_batch = ? OR object_key IN (SELECT unnest(?)))""",
            parameters=[batch_id, [target.object_key for target in targets]],
        )
