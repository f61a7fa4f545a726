"""Taking tensors back: what is not made from what is released now leaves shards, index, predictions and labels.

Opens the research lake only. Must not contain pixels or the building of tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final

from imaging_pipeline.errors import TransientError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.tensors.shards import ShardError, ShardReader, TensorRow
from imaging_pipeline.tensors.storage import ShardStore
from imaging_pipeline.tensors.targets import NOT_AS_RELEASED, PROOFS

ATTEMPTS: Final = 5
"""How often rows that other runs change meanwhile are looked at again."""

BY_TENSOR: Final = ("model_prediction", "image_embedding")
"""Tables whose rows go with their tensor."""

_BY_INSTANCE: Final = (
    *((table, "instance_key") for table in (*BY_TENSOR, "lung_segmentation")),
    ("label", "subject_key"),
)

_IS_OUT: Final = "is_taken_out"

_VOLUMES_OF: Final = """
    SELECT DISTINCT series_key FROM gold.image_tensor
    WHERE instance_key IS NULL AND (list_has_any(source_instance_keys, $keys) OR series_key IN (
        SELECT series_key FROM deid.dicom_instance WHERE instance_key IN (SELECT unnest($keys))))
"""

_ABOUT: Final = """
    (instance_key IN (SELECT unnest($keys)) OR (instance_key IS NULL AND series_key IN (SELECT unnest($series))))
"""


def withdraw_tensors(lake: Lake, instance_keys: Set[str], store: ShardStore) -> None:
    """Take what is not made from what is released now out of shards and every table; run again, nothing is left.

    A volume goes when any image of its series has come, gone or changed: the batch of the latest makes it anew. What
    another batch has released since goes too: that batch makes its tensor, so that it is in one shard only. Labels go
    with an instance that is not released at all. Members of frozen dataset versions stay: they say what a model was
    trained on.

    Args:
        lake: the research lake.
        instance_keys: instances that may have been withdrawn or released from other content.
        store: how shards are reached; those of all recipes are looked at, wherever they are.

    Raises:
        TransientError: the lake is locked, a store does not answer, or tensors keep changing.
    """
    if not instance_keys:
        return
    keys = sorted(instance_keys)
    _take_out(lake, keys, store)
    not_released = f"""SELECT instance_key FROM (SELECT unnest(?) AS instance_key)
        WHERE instance_key NOT IN (SELECT instance_key FROM {PROOFS})"""
    left_over = {table: f"gold.{table} WHERE {column} IN ({not_released})" for table, column in _BY_INSTANCE}
    if any(lake.rows(f"SELECT 1 FROM {rows} LIMIT 1", [keys]) for rows in left_over.values()):
        with lake.transaction():
            for rows in left_over.values():
                lake.connection.execute(f"DELETE FROM {rows}", [keys])


def _take_out(lake: Lake, keys: list[str], store: ShardStore) -> None:
    """Take the tensors about some instances that are not as released out of shards, index and what goes with them.

    Their shards are written anew without them. A kill is mended by running again: the rows of the tensors that stay
    move to the new shard first; then the old one goes; the rows of what is taken out, by which it is found, go last.

    Raises:
        TransientError: the lake is locked, or tensors keep changing.
    """
    for _ in range(ATTEMPTS):
        about = _About(keys, [str(key) for (key,) in lake.rows(_VOLUMES_OF, {"keys": keys})])
        before = about.rows_of_shards(lake)
        if not before:
            return
        uris = sorted({str(row["tensor_uri"]) for row in before})
        kept = [row for uri in uris for row in _rewritten(uri, before, store)]
        rows = registry.table("image_tensor").rows(kept)
        with lake.transaction():
            if about.rows_of_shards(lake) != before:
                continue  # another run has written them meanwhile
            stay = [str(row["tensor_key"]) for row in kept]
            is_moved = "tensor_uri IN (SELECT unnest(?)) AND tensor_key IN (SELECT unnest(?))"
            lake.replace_all("gold", "image_tensor", rows, where=is_moved, parameters=[uris, stay])
        store.remove(uris)
        dropped = {str(row["tensor_key"]) for row in before} - {str(row["tensor_key"]) for row in kept}
        with lake.transaction():
            lake.connection.execute("DELETE FROM gold.image_tensor WHERE tensor_uri IN (SELECT unnest(?))", [uris])
            for table in BY_TENSOR:
                lake.connection.execute(
                    f"""DELETE FROM gold.{table} WHERE tensor_key IN (SELECT unnest(?))
                    AND tensor_key NOT IN (SELECT tensor_key FROM gold.image_tensor)""",
                    [sorted(dropped)],
                )
        return
    raise TransientError("tensors keep changing: run the batch again")


@dataclass(frozen=True, slots=True)
class _About:
    """Some instances, and the series of volumes they belong to or belonged to."""

    keys: list[str]
    series: list[str]

    def rows_of_shards(self, lake: Lake) -> list[dict[str, Any]]:
        """Index rows of all shards in which a tensor about them is not as released, each with whether it is so."""
        is_out = f"({_ABOUT} AND {NOT_AS_RELEASED})"
        found = lake.connection.execute(
            f"""SELECT * EXCLUDE ({registry.LOADED_AT}), {is_out} AS {_IS_OUT} FROM gold.image_tensor
            WHERE tensor_uri IN (SELECT tensor_uri FROM gold.image_tensor WHERE {is_out})
            ORDER BY tensor_uri, shard_row, tensor_key""",
            {"keys": self.keys, "series": self.series},
        )
        rows: list[dict[str, Any]] = found.to_arrow_table().to_pylist()
        return rows


def _rewritten(uri: str, rows: Sequence[dict[str, Any]], store: ShardStore) -> list[dict[str, object]]:
    """Write a shard anew without what is taken out; its new index rows, none when nothing is left of it."""
    kept = [row for row in rows if row["tensor_uri"] == uri and not row[_IS_OUT]]
    try:
        moved = copy_tensors(uri, kept, store)
    except ShardError:
        return []  # what cannot be read cannot stay: the batch makes its tensors again
    return [{name: value for name, value in row.items() if name != _IS_OUT} for row in moved]


def copy_tensors(uri: str, rows: Sequence[Mapping[str, Any]], store: ShardStore) -> list[dict[str, object]]:
    """Copy some tensors of a shard into a new one beside it.

    Args:
        uri: the shard.
        rows: index rows of what is copied, all of one batch.
        store: how it is reached.

    Returns:
        The rows with their new places, in the same order.

    Raises:
        ShardError: the shard is missing or damaged.
    """
    if not rows:
        return []
    reader = store.open(uri)
    beside, folder = store.beside(uri)
    with beside.write(folder, str(rows[0]["arrival_batch"]), reader.schema) as writer:
        for row in rows:
            writer.add(_stored_tensor(row, reader))
    return [dict(row) | place for row, place in zip(rows, writer.places(), strict=True)]


def _stored_tensor(row: Mapping[str, Any], reader: ShardReader) -> TensorRow:
    return TensorRow(
        tensor_key=row["tensor_key"],
        series_key=row["series_key"],
        instance_key=row["instance_key"],
        sop_instance_uid=row["sop_instance_uid"],
        frame_number=row["frame_number"],
        patient_id=row["patient_pseudonym"],
        array=reader.tensor(row["shard_row"]),
        minimum=row["min_value"],
        maximum=row["max_value"],
        mean=row["mean_value"],
        standard_deviation=row["std_value"],
        tensor_sha256=row["tensor_sha256"],
        source_content_sha256=row["source_content_sha256"],
    )


def stale_tensors(lake: Lake, rows: list[dict[str, object]]) -> set[str]:
    """Keys of tensors that are no longer made from what is released; ask inside the transaction that writes them."""
    made = registry.table("image_tensor").rows(rows)
    series = {str(row["series_key"]) for row in made.to_pylist() if row["instance_key"] is None}
    lake.connection.register("made_tensors", made)
    try:
        stale = lake.rows(f"SELECT tensor_key FROM made_tensors WHERE {NOT_AS_RELEASED}", {"series": sorted(series)})
    finally:
        lake.connection.unregister("made_tensors")
    return {str(key) for (key,) in stale}


def count_proved(lake: Lake, batch_id: str) -> tuple[int, int]:
    """Tensors of a batch, by whatever recipe, and how many of them are made from what is released now."""
    volumes = lake.rows(
        "SELECT DISTINCT series_key FROM gold.image_tensor WHERE arrival_batch = ? AND instance_key IS NULL", [batch_id]
    )
    ((tensors, proved),) = lake.rows(
        f"""SELECT count(*), count(*) FILTER (is_deidentified AND NOT {NOT_AS_RELEASED})
        FROM gold.image_tensor WHERE arrival_batch = $batch""",
        {"batch": batch_id, "series": [str(key) for (key,) in volumes]},
    )
    return int(str(tensors)), int(str(proved))
