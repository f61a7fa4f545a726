"""Where shards are: a local folder, or a prefix of a bucket with a local copy of what is read.

Shards have their digest in their names and never change: an index row never points into a newer file, and a local copy
never goes stale. Must not contain pixels, recipes or the lake.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Final

import pyarrow as pa

from imaging_pipeline.errors import ConfigurationError, PoisonInput, Reason, TransientError
from imaging_pipeline.objects.folder import path_to_uri, uri_to_path
from imaging_pipeline.objects.model import KEY_HEX_DIGITS
from imaging_pipeline.objects.s3 import S3Access, open_s3, split_uri, stat_s3
from imaging_pipeline.objects.s3_access import FAILURES, translate
from imaging_pipeline.tensors.shards import (
    Compression,
    ShardError,
    ShardFile,
    ShardReader,
    TensorRow,
    file_sha256,
    sync_folder,
)

SHARD_BYTES: Final = 256 << 20
"""Tensors of about so many bytes make one shard: few requests to an object store, and still many at once."""

_BUCKET: Final = "s3://"
_BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredShard:
    """A shard at its place: its URI, its rows, and its size in bytes."""

    uri: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ShardStore:
    """A place for shards. Picklable; holds no secret.

    Attributes:
        location: a folder, or ``s3://bucket/prefix``.
        cache: folder for local copies of shards in a bucket, and for those being written.
        access: how a bucket is reached.
        shard_bytes: of tensors in one shard, about.
        compression: how new shards are packed.
    """

    location: str
    cache: Path | None = None
    access: S3Access = field(default_factory=S3Access)
    shard_bytes: int = SHARD_BYTES
    compression: Compression = Compression.NONE

    def open(self, uri: str) -> ShardReader:
        """A shard by its URI; see `open_shard`."""
        return open_shard(uri, self.cache, self.access)

    def beside(self, uri: str) -> tuple[ShardStore, str]:
        """The place a shard is at, wherever this store is, and its folder there."""
        home, folder, _ = uri.rsplit("/", 2)
        return replace(self, location=home if uri.startswith(_BUCKET) else str(uri_to_path(home))), folder

    def write(self, folder: str, stem: str, schema: pa.Schema) -> ShardWriter:
        """Begin to write tensors into shards ``folder/stem-DIGEST.arrow``."""
        return ShardWriter(self, folder, stem, schema)

    def put(self, path: Path, folder: str, name: str) -> str:
        """Move a finished local file to its place; its URI.

        Raises:
            ConfigurationError: the bucket is missing or may not be written.
            TransientError: the store does not answer.
        """
        if not self.location.startswith(_BUCKET):
            place = Path(self.location) / folder / name
            path.replace(place)
            sync_folder(place.parent)
            return path_to_uri(place)
        uri = f"{self.location.rstrip('/')}/{folder}/{name}"
        with path.open("rb") as body:
            _send(self.access, "put_object", uri, {"Body": body})
        path.unlink()
        return uri

    def shards(self, folder: str, stem: str) -> dict[str, int]:
        """URI and bytes of the shards ``folder/stem-*`` that are there.

        Raises:
            ConfigurationError: the bucket is missing or may not be listed.
            TransientError: the store does not answer.
        """
        if not self.location.startswith(_BUCKET):
            paths = (Path(self.location) / folder).glob(f"{stem}-*.arrow")
            return {path_to_uri(path): path.stat().st_size for path in paths}
        bucket, prefix = split_uri(f"{self.location.rstrip('/')}/{folder}/{stem}-")
        return {f"{_BUCKET}{bucket}/{key}": size for key, size in _listed(self.access, bucket, prefix)}

    def remove(self, uris: Iterable[str]) -> None:
        """Remove shards, and local copies of them; those that are gone already are fine.

        Raises:
            ConfigurationError: the bucket may not be written.
            TransientError: the store does not answer.
        """
        for uri in uris:
            if not uri.startswith(_BUCKET):
                uri_to_path(uri).unlink(missing_ok=True)
                continue
            _send(self.access, "delete_object", uri, {})
            if self.cache is not None:
                _copy_of(uri, self.cache).unlink(missing_ok=True)

    def scratch(self, folder: str) -> Path:
        """Where files of a folder are written before they are put into place.

        Raises:
            ConfigurationError: shards go to a bucket, and there is no local folder.
        """
        if not self.location.startswith(_BUCKET):
            return Path(self.location) / folder
        if self.cache is None:
            raise ConfigurationError("shards in a bucket need a local folder: give ShardStore a cache")
        return self.cache / folder


class ShardWriter:
    """Writes tensors in their order into as many shards as their size needs; a context manager.

    Shards that are full are in place at once. When it ends with an error, the one being written is discarded; those in
    place are named by no index row, and are removed when the batch is run again.
    """

    def __init__(self, store: ShardStore, folder: str, stem: str, schema: pa.Schema) -> None:
        self.shards: list[StoredShard] = []
        self._store, self._folder, self._stem, self._schema = store, folder, stem, schema
        self._file: ShardFile | None = None
        self._open = ExitStack()
        self._bytes = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._finish()
        else:
            self._open.__exit__(kind, error, at)

    def add(self, row: TensorRow) -> None:
        """One more tensor.

        Raises:
            ValueError: it has another shape or dtype than the shards.
        """
        if self._file is not None and self._bytes + row.array.nbytes > self._store.shard_bytes:
            self._finish()
        if self._file is None:
            path = self._store.scratch(self._folder) / f".{self._stem}.{os.getpid()}.{len(self.shards)}"
            self._file, self._bytes = self._open.enter_context(ShardFile(path, self._schema)), 0
        self._file.add(row)
        self._bytes += row.array.nbytes

    def places(self) -> Iterator[dict[str, object]]:
        """``tensor_uri`` and ``shard_row`` of all tensors in their order, once the writer has ended."""
        for shard in self.shards:
            yield from ({"tensor_uri": shard.uri, "shard_row": row} for row in range(shard.rows))

    def _finish(self) -> None:
        if self._file is None:
            return
        self._open.close()
        info = self._file.info
        self._file = None
        name = f"{self._stem}-{info.sha256[:KEY_HEX_DIGITS]}.arrow"
        self.shards.append(StoredShard(self._store.put(info.path, self._folder, name), info.rows, info.bytes))


def open_shard(uri: str, cache: Path | None = None, access: S3Access | None = None) -> ShardReader:
    """A shard by its URI, mapped into memory. One in a bucket is fetched whole, once, and proved by its digest.

    Args:
        uri: ``file:///…`` or ``s3://bucket/…``, as in ``gold.image_tensor.tensor_uri``.
        cache: folder for local copies; needed for a bucket.
        access: how the bucket is reached.

    Raises:
        ShardError: it is missing, damaged or no shard.
        ConfigurationError: the bucket may not be read, or there is no folder for its copy.
        TransientError: the store does not answer.
    """
    if not uri.startswith(_BUCKET):
        return ShardReader(uri_to_path(uri))
    if cache is None:
        raise ConfigurationError("shards in a bucket need a local folder for their copies: give a cache")
    copy = _copy_of(uri, cache)
    if not copy.is_file():
        _fetch(uri, copy, access or S3Access())
    return ShardReader(copy)


def _copy_of(uri: str, cache: Path) -> Path:
    """Named by folder and name of the shard, in which the digest of its recipe and its own are."""
    folder, name = uri.rsplit("/", 2)[-2:]
    return cache / folder / name


def _fetch(uri: str, copy: Path, access: S3Access) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    partial = copy.with_name(f".{copy.name}.{os.getpid()}.partial")
    try:
        _download(uri, partial, access)
        if f"-{file_sha256(partial)[:KEY_HEX_DIGITS]}.arrow" not in copy.name:
            raise ShardError(f"expected the bytes that the name stands for, found others: {copy.name}")
        partial.replace(copy)
    finally:
        partial.unlink(missing_ok=True)


def _download(uri: str, path: Path, access: S3Access) -> None:
    try:
        target = stat_s3(access, uri, source="")
        if target is None:
            raise ShardError(f"expected a shard, found none: {uri.rpartition('/')[2]}")
        with open_s3(access, target) as stream, path.open("wb") as file:
            shutil.copyfileobj(stream, file, _BLOCK_BYTES)
    except PoisonInput as refusal:
        if refusal.reason in {Reason.UNAVAILABLE, Reason.CHANGED_WHILE_READ, Reason.GONE}:
            raise TransientError(refusal.message) from None
        raise ConfigurationError(refusal.message) from None


def _send(access: S3Access, operation: str, uri: str, parameters: dict[str, object]) -> None:
    bucket, key = split_uri(uri)
    try:
        access.send(operation, parameters | {"Bucket": bucket, "Key": key})
    except FAILURES as error:
        raise translate(error) from None


def _listed(access: S3Access, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
    more: dict[str, object] = {}
    while True:
        try:
            answer = access.send("list_objects_v2", {"Bucket": bucket, "Prefix": prefix} | more)
        except FAILURES as error:
            raise translate(error) from None
        yield from ((entry["Key"], entry["Size"]) for entry in answer.get("Contents", ()))
        if not answer["IsTruncated"]:
            return
        more = {"ContinuationToken": answer["NextContinuationToken"]}
