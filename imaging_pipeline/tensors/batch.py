"""A batch of de-identified images → one tensor shard and its index rows. Opens the research lake only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from imaging_pipeline.catalog.inspection import issue_row
from imaging_pipeline.errors import Issue, PoisonInput, Reason, Stage, TransientError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.folder import path_to_uri, uri_to_path
from imaging_pipeline.tensors.build import TensorFailure, TensorSource, build_tensor
from imaging_pipeline.tensors.recipe import Recipe
from imaging_pipeline.tensors.shards import ShardInfo, ShardReader, TensorRow, write_shard
from imaging_pipeline.workers import map_chunks

OBJECTS_PER_CHUNK = 16

ATTEMPTS = 5
"""How often rows that other runs change meanwhile are looked at again."""


@dataclass(frozen=True, slots=True)
class TensorTarget:
    """A de-identified image: whose tensor it becomes, and where its file is."""

    source: TensorSource
    storage_uri: str


@dataclass(slots=True)
class TensorCounts:
    """What became of the images of a batch that the recipe selects."""

    selected: int
    built: int = 0
    failed: int = 0
    shard_bytes: int = 0
    index: list[dict[str, object]] = field(default_factory=list, repr=False)
    issues: list[dict[str, object]] = field(default_factory=list, repr=False)


def shard_folder(folder: Path, recipe: Recipe) -> Path:
    """Where a recipe's shards are; another recipe never touches them."""
    return folder / f"{recipe.name}-{recipe.digest[:12]}"


def load_tensors(
    lake: Lake,
    batch_id: str,
    recipe: Recipe,
    folder: Path,
    *,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> TensorCounts:
    """Make the tensors of a batch; run again, it leaves the same shard and rows.

    An image that another run takes back, or releases anew, while its tensor is made is left out.

    Raises:
        TransientError: the lake is locked, or what is released keeps changing.
    """
    targets = _targets(lake, batch_id, recipe)
    counts = TensorCounts(selected=len(targets))
    results = map_chunks(
        partial(_build, recipe), targets, workers=workers, chunk_size=OBJECTS_PER_CHUNK, on_crash=_crashed
    )
    shards = shard_folder(folder, recipe)
    rows = _collect(results, counts, batch_id, recipe, progress)
    shard = _write_shard(shards, batch_id, rows, recipe) if targets else None
    for _ in range(ATTEMPTS):
        if shard is not None:
            counts.shard_bytes = shard.bytes
            for row in counts.index:
                row["tensor_uri"] = path_to_uri(shard.path)
        lost = _write(lake, batch_id, recipe, counts)
        if not lost:
            break
        kept = _kept_tensors(counts, lost)
        shard = _write_shard(shards, batch_id, kept, recipe) if kept else None
    else:
        raise TransientError("what is released keeps changing: run the batch again")
    for old in shards.glob(f"{batch_id}-*.arrow"):
        if shard is None or old != shard.path:
            old.unlink(missing_ok=True)
    return counts


def _kept_tensors(counts: TensorCounts, lost: Set[str]) -> list[TensorRow]:
    """Take instances out of the counts; the tensors left, from the shard written before."""
    kept = [row for row in counts.index if row["instance_key"] not in lost]
    counts.selected -= len(counts.index) - len(kept)
    counts.index, counts.built, counts.shard_bytes = kept, len(kept), 0
    if not kept:
        return []
    reader = ShardReader(uri_to_path(str(kept[0]["tensor_uri"])))
    tensors = [_stored_tensor(row, reader) for row in kept]
    for position, row in enumerate(kept):
        row["shard_row"] = position
    return tensors


def _write_shard(shards: Path, batch_id: str, rows: Iterable[TensorRow], recipe: Recipe) -> ShardInfo:
    """Write a shard under a name that holds its digest: index rows of an older one never point into a newer."""
    unnamed = write_shard(shards / f".{batch_id}.{os.getpid()}", rows, recipe)
    path = shards / f"{batch_id}-{unnamed.sha256[:12]}.arrow"
    unnamed.path.replace(path)
    return replace(unnamed, path=path)


def withdraw_tensors(lake: Lake, instance_keys: Set[str], recipe: Recipe) -> None:
    """Take what is not made from what is released now out of shards and every table; run again, nothing is left.

    What another batch has released since goes too: that batch makes its tensor, so that it is in one shard only. Labels
    go with an instance that is not released at all. Members of frozen dataset versions stay: they say what a model was
    trained on.

    Args:
        lake: the research lake.
        instance_keys: instances that may have been withdrawn or released from other content.
        recipe: the current recipe; tensors of all recipes are looked at.

    Raises:
        TransientError: the lake is locked, or tensors keep changing.
    """
    if not instance_keys:
        return
    keys = sorted(instance_keys)
    _take_out(lake, keys, recipe)
    not_released = f"""SELECT instance_key FROM (SELECT unnest(?) AS instance_key)
        WHERE instance_key NOT IN (SELECT instance_key FROM {_PROOFS})"""
    left_over = {table: f"gold.{table} WHERE {column} IN ({not_released})" for table, column in _BY_INSTANCE}
    if any(lake.rows(f"SELECT 1 FROM {rows} LIMIT 1", [keys]) for rows in left_over.values()):
        with lake.transaction():
            for rows in left_over.values():
                lake.connection.execute(f"DELETE FROM {rows}", [keys])


_PROOFS = "deid.deid_verification"

_BY_TENSOR = ("model_prediction", "image_embedding")
"""Tables whose rows go with their tensor."""

_BY_INSTANCE = (*((table, "instance_key") for table in _BY_TENSOR), ("label", "subject_key"))

_NOT_AS_RELEASED = f"""
    instance_key IN (SELECT unnest(?)) AND (instance_key, source_content_sha256, arrival_batch)
        NOT IN (SELECT (instance_key, content_sha256, arrival_batch) FROM {_PROOFS})
"""


def _take_out(lake: Lake, keys: list[str], recipe: Recipe) -> None:
    """Take the tensors of some instances that are not as released out of shards, index, predictions and embeddings.

    A shard of the current recipe is written anew without them; one of an older recipe is removed whole. A kill is
    mended by running again: the rows of the tensors that stay move to the new shard first; then the old one goes; the
    rows of what is taken out, by which it is found, go last.

    Raises:
        TransientError: the lake is locked, or tensors keep changing.
    """
    for _ in range(ATTEMPTS):
        before = _rows_of_shards(lake, keys)
        if not before:
            return
        uris = sorted({str(row["tensor_uri"]) for row in before})
        kept = [row for uri in uris for row in _rewrite_shard(uri, before, recipe)]
        rows = registry.table("image_tensor").rows(kept)
        with lake.transaction():
            if _rows_of_shards(lake, keys) != before:
                continue  # another run has written them meanwhile
            stays = f"tensor_uri IN (SELECT unnest(?)) AND NOT coalesce({_NOT_AS_RELEASED}, false)"
            lake.replace_all("gold", "image_tensor", rows, where=stays, parameters=[uris, keys])
        for uri in uris:
            uri_to_path(uri).unlink(missing_ok=True)
        dropped = {str(row["tensor_key"]) for row in before} - {str(row["tensor_key"]) for row in kept}
        with lake.transaction():
            lake.connection.execute("DELETE FROM gold.image_tensor WHERE tensor_uri IN (SELECT unnest(?))", [uris])
            for table in _BY_TENSOR:
                lake.connection.execute(
                    f"""DELETE FROM gold.{table} WHERE tensor_key IN (SELECT unnest(?))
                    AND tensor_key NOT IN (SELECT tensor_key FROM gold.image_tensor)""",
                    [sorted(dropped)],
                )
        return
    raise TransientError("tensors keep changing: run the batch again")


def _rows_of_shards(lake: Lake, keys: list[str]) -> list[dict[str, Any]]:
    """Index rows of all shards in which a tensor of these instances is not as released, each with whether it is so."""
    rows: list[dict[str, Any]] = lake.query(
        f"""SELECT * EXCLUDE ({registry.LOADED_AT}), coalesce({_NOT_AS_RELEASED}, false) AS {_IS_OUT}
        FROM gold.image_tensor
        WHERE tensor_uri IN (SELECT tensor_uri FROM gold.image_tensor WHERE {_NOT_AS_RELEASED})
        ORDER BY tensor_uri, shard_row, tensor_key""",
        [keys, keys],
    ).to_pylist()
    return rows


_IS_OUT = "is_taken_out"


def _rewrite_shard(uri: str, rows: Sequence[dict[str, Any]], recipe: Recipe) -> list[dict[str, object]]:
    """Write a shard anew without what is taken out; its new index rows, none when nothing is left of it."""
    kept = [row for row in rows if row["tensor_uri"] == uri and not row[_IS_OUT] and row["recipe_id"] == recipe.digest]
    if not kept:
        return []
    path = uri_to_path(uri)
    reader = ShardReader(path)
    tensors = (_stored_tensor(row, reader) for row in kept)
    shard = _write_shard(path.parent, str(kept[0]["arrival_batch"]), tensors, recipe)
    moved = {"tensor_uri": path_to_uri(shard.path)}
    return [
        {name: value for name, value in row.items() if name != _IS_OUT} | moved | {"shard_row": position}
        for position, row in enumerate(kept)
    ]


def _stored_tensor(row: Mapping[str, Any], reader: ShardReader) -> TensorRow:
    return TensorRow(
        tensor_key=row["tensor_key"],
        instance_key=row["instance_key"],
        sop_instance_uid=row["sop_instance_uid"],
        patient_id=row["patient_pseudonym"],
        array=reader.tensor(row["shard_row"]),
        minimum=row["min_value"],
        maximum=row["max_value"],
        mean=row["mean_value"],
        standard_deviation=row["std_value"],
        tensor_sha256=row["tensor_sha256"],
        source_content_sha256=row["source_content_sha256"],
    )


def _targets(lake: Lake, batch_id: str, recipe: Recipe) -> list[TensorTarget]:
    rows = lake.rows(
        """SELECT instance_key, sop_instance_uid, patient_id, storage_uri, modality, body_part_examined
        FROM deid.dicom_instance
        JOIN deid.dicom_series USING (series_key)
        JOIN deid.dicom_study USING (study_key)
        JOIN deid.dicom_patient USING (patient_key)
        JOIN deid.dicom_file_location USING (instance_key)
        WHERE dicom_instance.arrival_batch = ? AND has_pixel ORDER BY instance_key""",
        [batch_id],
    )
    return [
        TensorTarget(TensorSource(str(key), str(uid), str(patient)), str(uri))
        for key, uid, patient, uri, modality, body_part in rows
        if recipe.selects(_text(modality), _text(body_part))
    ]


def _build(recipe: Recipe, targets: Sequence[TensorTarget]) -> list[TensorRow | TensorFailure]:
    return [_build_one(target, recipe) for target in targets]


def _build_one(target: TensorTarget, recipe: Recipe) -> TensorRow | TensorFailure:
    try:
        data = uri_to_path(target.storage_uri).read_bytes()
    except OSError:
        refusal = PoisonInput(Reason.UNREADABLE, "the de-identified file cannot be read")
        return TensorFailure(target.source.instance_key, refusal.issue(Stage.FETCH))
    return build_tensor(target.source, data, recipe)


def _crashed(target: TensorTarget) -> list[TensorRow | TensorFailure]:
    issue = Issue(Reason.WORKER_CRASHED, Stage.PIXEL, message="decoding it killed the process")
    return [TensorFailure(target.source.instance_key, issue)]


def _collect(
    results: Iterator[list[TensorRow | TensorFailure]],
    counts: TensorCounts,
    batch_id: str,
    recipe: Recipe,
    progress: Callable[[int, int], None] | None,
) -> Iterator[TensorRow]:
    """Pass the tensors on, one chunk in memory at a time, and note the index rows and issues."""
    for chunk in results:
        for result in chunk:
            if isinstance(result, TensorFailure):
                counts.failed += 1
                counts.issues.append(issue_row(batch_id, result.instance_key, result.issue))
                continue
            counts.index.append(_index_row(result, counts.built, batch_id, recipe))
            counts.built += 1
            yield result
        if progress:
            progress(len(chunk), counts.selected)


def _index_row(tensor: TensorRow, row: int, batch_id: str, recipe: Recipe) -> dict[str, object]:
    return {
        "tensor_key": tensor.tensor_key,
        "instance_key": tensor.instance_key,
        "sop_instance_uid": tensor.sop_instance_uid,
        "patient_pseudonym": tensor.patient_id,
        "recipe_id": recipe.digest,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "shard_row": row,
        "tensor_sha256": tensor.tensor_sha256,
        "min_value": tensor.minimum,
        "max_value": tensor.maximum,
        "mean_value": tensor.mean,
        "std_value": tensor.standard_deviation,
        "source_content_sha256": tensor.source_content_sha256,
        "is_deidentified": True,
        "arrival_batch": batch_id,
    }


def _write(lake: Lake, batch_id: str, recipe: Recipe, counts: TensorCounts) -> set[str]:
    """Write the rows, unless instances are no longer released by the batch as their tensors say: those, then."""
    tensors = registry.table("image_tensor").rows(counts.index)
    issues = registry.table("ingest_issue").rows(counts.issues)
    made_from = {str(row["instance_key"]): row["source_content_sha256"] for row in counts.index}
    with lake.transaction():
        proofs = lake.rows(
            f"""SELECT instance_key, content_sha256 FROM {_PROOFS}
            WHERE arrival_batch = ? AND instance_key IN (SELECT unnest(?))""",
            [batch_id, list(made_from)],
        )
        if lost := made_from.keys() - {str(key) for key, sha256 in proofs if made_from[str(key)] == sha256}:
            return lost
        lake.replace_all(
            "gold",
            "image_tensor",
            tensors,
            where="recipe_id = ? AND (arrival_batch = ? OR tensor_key IN (SELECT tensor_key FROM staged_rows))",
            parameters=[recipe.digest, batch_id],
        )
        for table in _BY_TENSOR:
            lake.connection.execute(
                f"""DELETE FROM gold.{table}
                WHERE arrival_batch = ? AND tensor_key NOT IN (SELECT tensor_key FROM gold.image_tensor)""",
                [batch_id],
            )
        lake.replace_batch("gold", "ingest_issue", issues, batch_id)
    return set()


def _text(value: object) -> str | None:
    return None if value is None else str(value)
