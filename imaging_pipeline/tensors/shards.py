"""Shards: the tensors of one batch in one Arrow IPC file that any Arrow reader maps into memory.

Owns the file's schema, its atomic writing and its zero-copy reading. Must not contain pixels, recipes' meaning or
torch.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from imaging_pipeline.errors import ImagingError

if TYPE_CHECKING:
    from imaging_pipeline.tensors.recipe import Recipe

ROWS_PER_RECORD_BATCH: Final = 64
"""Tensors per Arrow record batch: 3 MB at 224 x 224 bytes, little enough to hold while writing."""

FORMAT: Final = b"imaging-pipeline-tensors/1"
"""Value of the metadata key ``format`` of every shard."""

KEY_COLUMNS: Final = ("tensor_key", "instance_key", "sop_instance_uid", "patient_id")
"""Text columns of a shard; ``patient_id`` is the research pseudonym."""


class ShardError(ImagingError):
    """A shard is missing, damaged or no shard at all; building the tensors of its batch again writes it anew."""


@dataclass(frozen=True, slots=True, eq=False)
class TensorRow:
    """One tensor, what it was made from, and figures about it.

    Attributes:
        tensor_key: 32 hex digits, from the instance key and the recipe digest.
        instance_key: the instance in the research lake.
        sop_instance_uid: its research SOP Instance UID.
        patient_id: its patient's research pseudonym.
        array: C-contiguous (channels, height, width).
        minimum, maximum, mean, standard_deviation: of the elements, in the array's own scale.
        tensor_sha256: hex, over the array's bytes.
        source_content_sha256: hex, over the object's bytes.
    """

    tensor_key: str
    instance_key: str
    sop_instance_uid: str
    patient_id: str
    array: npt.NDArray[Any]
    minimum: float
    maximum: float
    mean: float
    standard_deviation: float
    tensor_sha256: str
    source_content_sha256: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height, width."""
        return self.array.shape

    @property
    def dtype(self) -> str:
        """Element type by its numpy name."""
        return str(self.array.dtype)


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """A written shard: where it is, its rows, the SHA-256 of the file in hex, and its size in bytes."""

    path: Path
    rows: int
    sha256: str
    bytes: int


def shard_schema(recipe: Recipe) -> pa.Schema:
    """Columns of a shard: the keys, then ``tensor`` as fixed_shape_tensor; recipe and digest in the metadata."""
    tensor_type = pa.fixed_shape_tensor(pa.from_numpy_dtype(np.dtype(recipe.dtype.value)), recipe.shape)
    columns = [pa.field(name, pa.string(), nullable=False) for name in KEY_COLUMNS]
    metadata = {b"format": FORMAT, b"recipe": recipe.to_json().encode(), b"recipe_digest": recipe.digest.encode()}
    return pa.schema([*columns, pa.field("tensor", tensor_type, nullable=False)], metadata=metadata)


def write_shard(path: Path, rows: Iterable[TensorRow], recipe: Recipe) -> ShardInfo:
    """Write a shard: the whole file appears at ``path`` at once, or nothing does.

    The same rows in the same order give the same bytes. Tensors are not compressed, so that readers need no copy.

    Args:
        path: the file; its folder is made when missing, an older file is replaced.
        rows: consumed one record batch at a time.
        recipe: the recipe all rows were made with.

    Raises:
        ValueError: a row has another shape or dtype than the recipe.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            count = _write_batches(file, rows, recipe)
            file.flush()
            os.fsync(file.fileno())
        info = ShardInfo(path, count, file_sha256(partial), partial.stat().st_size)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return info


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hex, to compare with `ShardInfo.sha256`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ShardReader:
    """Random access to the tensors of a shard, straight from the memory map.

    Views stay valid as long as they are referenced, also after the reader is gone. Picklable: a copy in another
    process maps the file again.
    """

    def __init__(self, path: Path | str) -> None:
        """Map the file.

        Raises:
            ShardError: it is missing, damaged or no shard.
        """
        self.path = Path(path)
        self.schema, self._batches = _mapped(self.path)
        self._ends = list(accumulate(batch.num_rows for batch in self._batches))
        self._tensors = [batch.column("tensor").to_numpy_ndarray() for batch in self._batches]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __reduce__(self) -> tuple[type[ShardReader], tuple[Path]]:
        return ShardReader, (self.path,)

    @property
    def recipe_digest(self) -> str:
        """Digest of the recipe the tensors were made with."""
        return str(self.schema.metadata[b"recipe_digest"], "ascii", "replace")

    def tensor(self, row: int) -> npt.NDArray[Any]:
        """Read-only view (channels, height, width) of one tensor; no byte is copied.

        Raises:
            IndexError: there is no such row.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"expected a row below {len(self)}, found {row}")
        batch = bisect_right(self._ends, row)
        # Counted from the end of the batch, so the index is negative.
        view: npt.NDArray[Any] = self._tensors[batch][row - self._ends[batch]]
        return view

    def column(self, name: str) -> list[str]:
        """All values of a key column, in row order."""
        return [value for batch in self._batches for value in batch.column(name).to_pylist()]


def _write_batches(file: Any, rows: Iterable[TensorRow], recipe: Recipe) -> int:
    schema = shard_schema(recipe)
    count = 0
    iterator = iter(rows)
    with pa.ipc.new_file(file, schema) as writer:
        while chunk := list(islice(iterator, ROWS_PER_RECORD_BATCH)):
            writer.write_batch(_record_batch(chunk, schema, recipe))
            count += len(chunk)
    return count


def _record_batch(rows: list[TensorRow], schema: pa.Schema, recipe: Recipe) -> pa.RecordBatch:
    for row in rows:
        if row.shape != recipe.shape or row.dtype != recipe.dtype.value:
            raise ValueError(f"expected {recipe.shape} {recipe.dtype}, found {row.shape} {row.dtype}")
    elements = pa.array(np.stack([row.array for row in rows]).reshape(-1))
    storage = pa.FixedSizeListArray.from_arrays(elements, type=schema.field("tensor").type.storage_type)
    tensors = pa.ExtensionArray.from_storage(schema.field("tensor").type, storage)
    keys = [pa.array([getattr(row, name) for row in rows], pa.string()) for name in KEY_COLUMNS]
    return pa.record_batch([*keys, tensors], schema=schema)


def _mapped(path: Path) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """Schema and record batches of a shard, their buffers in the memory map."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = [reader.get_batch(position) for position in range(reader.num_record_batches)]
        for batch in batches:
            # Damaged offsets of a text column would let a later access leave the map.
            batch.validate(full=True)
        is_shard = _is_shard(reader.schema)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise ShardError(f"expected a readable shard, found a missing or damaged file: {path.name}") from error
    if not is_shard:
        raise ShardError(f"expected a tensor shard, found another or a damaged Arrow file: {path.name}")
    return reader.schema, batches


def _is_shard(schema: pa.Schema) -> bool:
    metadata = schema.metadata or {}
    return (
        metadata.get(b"format") == FORMAT
        and b"recipe_digest" in metadata
        and schema.names == [*KEY_COLUMNS, "tensor"]
        and isinstance(schema.field("tensor").type, pa.FixedShapeTensorType)
    )


def _sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut; folders cannot be opened where os.O_DIRECTORY is missing."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
