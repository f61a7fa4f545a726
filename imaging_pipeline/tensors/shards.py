"""Shards: tensors of one batch and recipe in Arrow IPC files that any Arrow reader maps into memory.

Owns the file's schema, its atomic writing and its zero-copy reading. Must not contain pixels, recipes' meaning, object
stores or torch.
"""

from __future__ import annotations

import enum
import hashlib
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from imaging_pipeline.errors import ImagingError

if TYPE_CHECKING:
    from imaging_pipeline.tensors.recipe import Recipe

ROWS_PER_RECORD_BATCH: Final = 64
"""Most tensors of an Arrow record batch: 3 MB at 224 x 224 bytes, little enough to hold while writing."""

BYTES_PER_RECORD_BATCH: Final = 8 << 20
"""Larger tensors are fewer to a record batch, at least one."""

BATCHES_KEPT: Final = 8
"""Record batches of a compressed shard that a reader keeps after unpacking them."""

FORMAT: Final = b"imaging-pipeline-tensors/2"
"""Value of the metadata key ``format`` of every shard."""

KEY_COLUMNS: Final = ("tensor_key", "series_key", "instance_key", "sop_instance_uid", "frame_number", "patient_id")
"""Columns of a shard beside ``tensor``; a volume has no instance, UID and frame; ``patient_id`` is the pseudonym."""

_NEVER_EMPTY: Final = ("tensor_key", "patient_id")


class Compression(enum.StrEnum):
    """How the record batches of a shard are packed: plain ones are read without a copy."""

    NONE = "none"
    LZ4 = "lz4"


class ShardError(ImagingError):
    """A shard is missing, damaged or no shard at all; building the tensors of its batch again writes it anew."""


@dataclass(frozen=True, slots=True, eq=False)
class TensorRow:
    """One tensor, what it was made from, and figures about it.

    Attributes:
        tensor_key: 32 hex digits, from the key of the instance or series, the frame and the recipe digest.
        series_key: the series in the research lake.
        instance_key: the instance in the research lake; None: a volume.
        sop_instance_uid: its research SOP Instance UID; None: a volume.
        frame_number: its frame, from 1; None: a volume.
        patient_id: its patient's research pseudonym.
        array: C-contiguous (channels, height, width), of a volume (channels, slices, height, width).
        minimum, maximum, mean, standard_deviation: of the elements, in the array's own scale.
        tensor_sha256: hex, over the array's bytes.
        source_content_sha256: hex, over the object's bytes; of a volume over the digests of its series' objects.
        source_instance_keys: instances a volume is made of, in the order of their keys.
    """

    tensor_key: str
    series_key: str | None
    instance_key: str | None
    sop_instance_uid: str | None
    frame_number: int | None
    patient_id: str
    array: npt.NDArray[Any]
    minimum: float
    maximum: float
    mean: float
    standard_deviation: float
    tensor_sha256: str
    source_content_sha256: str
    source_instance_keys: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height, width; of a volume channels, slices, height, width."""
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


def shard_schema(recipe: Recipe, compression: Compression = Compression.NONE) -> pa.Schema:
    """Columns of a shard: the keys, then ``tensor`` as fixed_shape_tensor; recipe and digest in the metadata."""
    tensor_type = pa.fixed_shape_tensor(pa.from_numpy_dtype(np.dtype(recipe.dtype.value)), recipe.shape)
    columns = [
        pa.field(name, pa.int32() if name == "frame_number" else pa.string(), nullable=name not in _NEVER_EMPTY)
        for name in KEY_COLUMNS
    ]
    metadata = {
        b"format": FORMAT,
        b"recipe": recipe.to_json().encode(),
        b"recipe_digest": recipe.digest.encode(),
        b"compression": compression.encode(),
    }
    return pa.schema([*columns, pa.field("tensor", tensor_type, nullable=False)], metadata=metadata)


class ShardFile:
    """A shard that is being written: a context manager, behind which the whole file is at its path, or nothing is.

    The same rows in the same order give the same bytes.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        """Begin; the folder is made when missing, an older file stays until the new one is whole.

        Args:
            path: the file.
            schema: from `shard_schema`, or of another shard.
        """
        self.path, self.schema, self.rows = path, schema, 0
        tensor_type = schema.field("tensor").type
        self._shape, self._dtype = tuple(tensor_type.shape), str(np.dtype(tensor_type.value_type.to_pandas_dtype()))
        row_bytes = int(np.prod(self._shape)) * np.dtype(self._dtype).itemsize
        self._most = max(1, min(ROWS_PER_RECORD_BATCH, BYTES_PER_RECORD_BATCH // row_bytes))
        self._waiting: list[TensorRow] = []

    def __enter__(self) -> ShardFile:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        self._file = self._partial.open("wb")
        compression = self.schema.metadata[b"compression"].decode()
        options = pa.ipc.IpcWriteOptions(compression=None if compression == Compression.NONE else compression)
        self._writer = pa.ipc.new_file(self._file, self.schema, options=options)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._file.close()
            self._partial.unlink(missing_ok=True)

    def add(self, row: TensorRow) -> None:
        """One more tensor.

        Raises:
            ValueError: it has another shape or dtype than the shard.
        """
        if row.shape != self._shape or row.dtype != self._dtype:
            raise ValueError(f"expected {self._shape} {self._dtype}, found {row.shape} {row.dtype}")
        self._waiting.append(row)
        if len(self._waiting) == self._most:
            self._write()

    @property
    def info(self) -> ShardInfo:
        """What was written, once the file is there."""
        return ShardInfo(self.path, self.rows, self._sha256, self.path.stat().st_size)

    def _write(self) -> None:
        self._writer.write_batch(_record_batch(self._waiting, self.schema))
        self.rows += len(self._waiting)
        self._waiting.clear()

    def _finish(self) -> None:
        if self._waiting:
            self._write()
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._sha256 = file_sha256(self._partial)
        self._partial.replace(self.path)
        sync_folder(self.path.parent)


def write_shard(
    path: Path, rows: Iterable[TensorRow], recipe: Recipe, compression: Compression = Compression.NONE
) -> ShardInfo:
    """Write all rows as one shard, one record batch in memory at a time.

    Raises:
        ValueError: a row has another shape or dtype than the recipe.
    """
    with ShardFile(path, shard_schema(recipe, compression)) as file:
        for row in rows:
            file.add(row)
    return file.info


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hex, to compare with `ShardInfo.sha256`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ShardReader:
    """Random access to the tensors of a shard, straight from the memory map where it is plain.

    Views stay valid as long as they are referenced, also after the reader is gone. Picklable: a copy in another
    process maps the file again. Of a compressed shard each record batch is unpacked when first used.
    """

    def __init__(self, path: Path | str) -> None:
        """Map the file.

        Raises:
            ShardError: it is missing, damaged or no shard.
        """
        self.path = Path(path)
        self._file = _mapped(self.path)
        self.schema: pa.Schema = self._file.schema
        is_plain = self.schema.metadata.get(b"compression") == Compression.NONE.encode()
        # Asked for some columns only, Arrow copies the whole of a plain batch, but unpacks no tensor of a packed one.
        keys = self._file if is_plain else _mapped(self.path, len(KEY_COLUMNS))
        self._keys = [self._batch(keys, position) for position in range(keys.num_record_batches)]
        self._ends = list(accumulate(batch.num_rows for batch in self._keys))
        self._kept: OrderedDict[int, npt.NDArray[Any]] = OrderedDict()
        if is_plain:
            self._kept |= {position: _tensors_of(batch) for position, batch in enumerate(self._keys)}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __reduce__(self) -> tuple[type[ShardReader], tuple[Path]]:
        return ShardReader, (self.path,)

    @property
    def recipe_digest(self) -> str:
        """Digest of the recipe the tensors were made with."""
        return str(self.schema.metadata[b"recipe_digest"], "ascii", "replace")

    def tensor(self, row: int) -> npt.NDArray[Any]:
        """Read-only view (channels, height, width) of one tensor; of a plain shard no byte is copied.

        Raises:
            IndexError: there is no such row.
            ShardError: a compressed shard is damaged.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"expected a row below {len(self)}, found {row}")
        batch = bisect_right(self._ends, row)
        # Counted from the end of the batch, so the index is negative.
        view: npt.NDArray[Any] = self._tensors(batch)[row - self._ends[batch]]
        return view

    def column(self, name: str) -> list[Any]:
        """All values of a key column, in row order."""
        return [value for batch in self._keys for value in batch.column(name).to_pylist()]

    def _tensors(self, position: int) -> npt.NDArray[Any]:
        if position not in self._kept:
            self._kept[position] = _tensors_of(self._batch(self._file, position))
            if len(self._kept) > BATCHES_KEPT:
                self._kept.popitem(last=False)
        return self._kept[position]

    def _batch(self, file: pa.RecordBatchFileReader, position: int) -> pa.RecordBatch:
        try:
            batch = file.get_batch(position)
            # Damaged offsets of a text column would let a later access leave the map.
            batch.validate(full=True)
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise _unreadable(self.path) from error
        return batch


def _tensors_of(batch: pa.RecordBatch) -> npt.NDArray[Any]:
    tensors: npt.NDArray[Any] = batch.column("tensor").to_numpy_ndarray()
    return tensors


def _record_batch(rows: list[TensorRow], schema: pa.Schema) -> pa.RecordBatch:
    elements = pa.array(np.stack([row.array for row in rows]).reshape(-1))
    storage = pa.FixedSizeListArray.from_arrays(elements, type=schema.field("tensor").type.storage_type)
    tensors = pa.ExtensionArray.from_storage(schema.field("tensor").type, storage)
    keys = [pa.array([getattr(row, name) for row in rows], schema.field(name).type) for name in KEY_COLUMNS]
    return pa.record_batch([*keys, tensors], schema=schema)


def _mapped(path: Path, columns: int | None = None) -> pa.RecordBatchFileReader:
    """A shard in the memory map, or the first of its columns."""
    options = pa.ipc.IpcReadOptions(included_fields=list(range(columns or 0)))
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)), options=options)
        is_shard = columns is not None or _is_shard(reader.schema)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise _unreadable(path) from error
    if not is_shard:
        raise ShardError(f"expected a tensor shard, found another or a damaged Arrow file: {path.name}")
    return reader


def _unreadable(path: Path) -> ShardError:
    return ShardError(f"expected a readable shard, found a missing or damaged file: {path.name}")


def _is_shard(schema: pa.Schema) -> bool:
    metadata = schema.metadata or {}
    return (
        metadata.get(b"format") == FORMAT
        and b"recipe_digest" in metadata
        and schema.names == [*KEY_COLUMNS, "tensor"]
        and isinstance(schema.field("tensor").type, pa.FixedShapeTensorType)
    )


def sync_folder(folder: Path) -> None:
    """Make a new name itself survive a power cut; folders cannot be opened where os.O_DIRECTORY is missing."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
