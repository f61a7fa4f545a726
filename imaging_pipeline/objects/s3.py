"""Objects in S3 and S3-compatible stores: listing, looking at one, and reading it in one pass or by ranges.

Every request for bytes names the ETag it expects, so that bytes of two versions are never mixed.
"""

from __future__ import annotations

import io
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import IO, TYPE_CHECKING, Any

from imaging_pipeline.errors import ConfigurationError, PoisonInput, Reason, TransientError
from imaging_pipeline.objects.folder import ARCHIVE_SUFFIXES
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.patterns import Patterns
from imaging_pipeline.objects.s3_access import (
    BROKEN,
    FAILURES,
    SOURCE_ADVICE,
    S3Access,
    error_code,
    split_uri,
    translate,
)
from imaging_pipeline.objects.source import PAGE_OBJECTS, Page, is_settled
from imaging_pipeline.sources import SourceConfig

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["S3Access", "S3Bucket", "S3RangeFile", "open_s3", "open_s3_range", "read_s3", "split_uri", "stat_s3"]

MAX_RESUMES = 5
"""How often a body that broke off is taken up again before :data:`PROGRESS_BYTES` more of it have come."""

PROGRESS_BYTES = 1 << 20

RESUME_SECONDS = 0.2
"""Pause before a body is taken up again, doubled each time."""

RANGE_BYTES = 256 << 10
"""Least bytes of one request of a :class:`S3RangeFile`; each request that goes straight on asks for twice as many."""

MAX_RANGE_BLOCKS = 16
CACHED_BLOCKS = 32


@dataclass(frozen=True, slots=True)
class S3Bucket:
    """The objects of a bucket below a prefix, as a source.

    The prefix names a folder: ``s3://bucket/site1`` holds nothing of ``s3://bucket/site10``. When there is nothing
    below it, it may name one object, such as an archive. Empty objects whose keys end in ``/`` are the folder markers
    of some tools, and no objects.

    Attributes:
        config: the source; its location is ``s3://bucket/prefix``.
        access: how its store is reached.
    """

    config: SourceConfig
    access: S3Access

    @property
    def prefix(self) -> str:
        """What the URIs of all its objects start with."""
        return self.config.location.rstrip("/") + "/"

    def pages(self, after: str | None, now: datetime) -> Iterator[Page]:
        """The listing behind the URI ``after``, page by page, in the order of UTF-8 bytes; see :class:`Source`.

        Raises:
            ConfigurationError: the bucket is missing, access to it is denied, or it lists in another order.
            TransientError: the store does not answer; a later call may go on from the last page.
        """
        bucket, folder = split_uri(self.prefix)
        root, age = f"s3://{bucket}/", self.config.minimum_age_seconds
        last = after or root
        start = {"StartAfter": last.removeprefix(root)}
        patterns = Patterns(self.config.include, self.config.exclude)
        while True:
            answer = _list(self.access, {"Bucket": bucket, "Prefix": folder, "MaxKeys": PAGE_OBJECTS} | start)
            entries = answer.get("Contents", [])
            uris = [root + entry["Key"] for entry in entries]
            if not entries and after is None and "ContinuationToken" not in start:
                yield self._single_object()
                return
            _check_order([last, *uris])
            last = uris[-1] if uris else last
            found = [
                (
                    _object(uri, entry, self.config.name),
                    is_settled(entry["LastModified"].timestamp(), now.timestamp(), age),
                )
                for uri, entry in zip(uris, entries, strict=True)
                if patterns.takes(uri.removeprefix(self.prefix)) and not _is_marker(entry)
            ]
            yield Page(
                objects=tuple(version for version, is_settled in found if is_settled),
                unsettled=frozenset(version.uri for version, is_settled in found if not is_settled),
                upto=last if answer["IsTruncated"] else None,
            )
            if not answer["IsTruncated"]:
                return
            start = {"ContinuationToken": answer["NextContinuationToken"]}

    def _single_object(self) -> Page:
        """What the location itself names, when nothing lies below it."""
        _, key = split_uri(self.config.location)
        is_name = key and not key.endswith("/")
        found = stat_s3(self.access, self.config.location, self.config.name) if is_name else None
        return Page((found,) if found else (), frozenset(), None)

    def stat(self, uri: str) -> ObjectVersion | None:
        """The object at a URI as it is now, however young, or None; see :class:`Source`.

        Raises:
            ConfigurationError: as :meth:`pages`.
            TransientError: as :meth:`pages`.
        """
        if not self.selects(uri):
            return None
        try:
            return stat_s3(self.access, uri, self.config.name)
        except PoisonInput as denied:
            raise ConfigurationError(SOURCE_ADVICE["AccessDenied"]) from denied

    def selects(self, uri: str) -> bool:
        """Whether the listing would hold this URI if an object were there."""
        patterns = Patterns(self.config.include, self.config.exclude)
        return uri.startswith(self.prefix) and patterns.takes(uri.removeprefix(self.prefix))


def stat_s3(access: S3Access, uri: str, source: str) -> ObjectVersion | None:
    """The object at ``s3://bucket/key`` as it is now, or None when there is none.

    It is listed, since a HEAD answers without a code: that the bucket is gone would look as if the object were.
    Where listing is denied, HEAD has to do.

    Raises:
        ConfigurationError: the bucket is missing, or the credentials are refused.
        TransientError: the store does not answer.
        PoisonInput: ACCESS_DENIED to this object.
    """
    bucket, key = split_uri(uri)
    try:
        answer = access.send("list_objects_v2", {"Bucket": bucket, "Prefix": key, "MaxKeys": 1})
    except FAILURES as error:
        if error_code(error) != "AccessDenied":
            raise translate(error) from None
        return _stat_by_head(access, uri, source)
    entry = next((entry for entry in answer.get("Contents", []) if entry["Key"] == key), None)
    return None if entry is None or _is_marker(entry) else _object(uri, entry, source)


def read_s3(access: S3Access, uri: str) -> bytes:
    """All bytes of an object that a source's own configuration names, such as a manifest.

    Raises:
        ConfigurationError: it is not there, or access to it is denied.
        TransientError: the store does not answer, or the object was replaced meanwhile.
    """
    try:
        target = stat_s3(access, uri, source="")
        if target is None:
            raise ConfigurationError("the object that the source's location names is not there")
        with open_s3(access, target) as stream:
            return stream.read()
    except PoisonInput as refusal:
        if refusal.reason in {Reason.UNAVAILABLE, Reason.CHANGED_WHILE_READ, Reason.GONE}:
            raise TransientError(refusal.message) from None
        raise ConfigurationError(refusal.message) from None


def open_s3(access: S3Access, target: ObjectVersion) -> IO[bytes]:
    """A stream of all bytes of one version of an object, taken up again where a connection breaks.

    Raises:
        PoisonInput: here or while it is read: GONE, CHANGED_WHILE_READ, ACCESS_DENIED, UNAVAILABLE or UNREADABLE.
    """
    body = _Body(access, target.uri, target.version, 0, target.size, is_part=False)
    return io.BufferedReader(body, buffer_size=RANGE_BYTES)


def open_s3_range(access: S3Access, target: ObjectVersion, start: int, stop: int) -> IO[bytes]:
    """A stream of the bytes from ``start`` to ``stop`` of one version of an object, by one request.

    Raises:
        PoisonInput: as :func:`open_s3`.
    """
    body = _Body(access, target.uri, target.version, start, stop, is_part=True)
    return io.BufferedReader(body, buffer_size=RANGE_BYTES)


class S3RangeFile(io.RawIOBase):
    """One version of an object as a file that can be read anywhere; keeps few blocks, in memory only.

    Args:
        access: how the store is reached.
        uri: ``s3://bucket/key``.
        etag: of the version, without quotes.
        size: bytes.

    Reading raises:
        PoisonInput: as :func:`open_s3`.
    """

    def __init__(self, access: S3Access, uri: str, etag: str, size: int) -> None:
        super().__init__()
        self._access, self._uri, self._etag, self._size = access, uri, etag, size
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._next_block, self._run = -1, 1

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to an offset from the start, the position or the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("a file has no bytes before its start")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer, but for the end of the file."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self._position < self._size:
            number, start = divmod(self._position, RANGE_BYTES)
            part = self._block(number)[start : start + len(view) - done]
            view[done : done + len(part)] = part
            done += len(part)
            self._position += len(part)
        return done

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            self._fetch(number)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _fetch(self, first: int) -> None:
        self._run = min(2 * self._run, MAX_RANGE_BLOCKS) if first == self._next_block else 1
        run = next((run for run in range(1, self._run) if first + run in self._blocks), self._run)
        self._next_block = first + run
        start, stop = first * RANGE_BYTES, min(self._next_block * RANGE_BYTES, self._size)
        with _Body(self._access, self._uri, self._etag, start, stop, is_part=True) as body:
            data = body.readall()
        for offset in range(0, stop - start, RANGE_BYTES):
            self._blocks[first + offset // RANGE_BYTES] = data[offset : offset + RANGE_BYTES]
        while len(self._blocks) > CACHED_BLOCKS:
            self._blocks.popitem(last=False)


class _Body(io.RawIOBase):
    """The bytes from ``start`` to ``stop`` of one version of an object, once."""

    def __init__(self, access: S3Access, uri: str, etag: str, start: int, stop: int, *, is_part: bool) -> None:
        super().__init__()
        self._access, self._etag = access, etag
        self._bucket, self._key = split_uri(uri)
        self._offset, self._stop = start, stop
        self._breaks, self._offset_of_break = 0, start
        self._stream = self._connect(is_part=is_part)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        while True:
            try:
                block = self._stream.read(len(view))
            except BROKEN:
                block = b""
            if block:
                view[: len(block)] = block
                self._offset += len(block)
                return len(block)
            if self._offset >= self._stop:
                return 0
            self._resume()

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()

    def _connect(self, *, is_part: bool) -> Any:
        request = {"Bucket": self._bucket, "Key": self._key, "IfMatch": f'"{self._etag}"'}
        if is_part:
            request["Range"] = f"bytes={self._offset}-{self._stop - 1}"
        try:
            answer = self._access.send("get_object", request)
        except FAILURES as error:
            raise translate(error, one_object=True) from None
        if answer["ETag"].strip('"') != self._etag:
            raise PoisonInput(Reason.CHANGED_WHILE_READ, "the store gave another version than was asked for")
        if is_part and answer["ResponseMetadata"]["HTTPStatusCode"] != 206:
            raise PoisonInput(Reason.UNREADABLE, "the store gives whole objects only, where a part was asked for")
        return answer["Body"]

    def _resume(self) -> None:
        self._stream.close()
        if self._offset - self._offset_of_break >= PROGRESS_BYTES:
            self._breaks = 0
        if self._breaks == MAX_RESUMES:
            raise PoisonInput(Reason.UNAVAILABLE, "the store breaks off while it is read; run the batch again later")
        time.sleep(RESUME_SECONDS * 2**self._breaks)
        self._breaks, self._offset_of_break = self._breaks + 1, self._offset
        self._stream = self._connect(is_part=True)


def _list(access: S3Access, parameters: Mapping[str, object]) -> Any:
    try:
        return access.send("list_objects_v2", parameters)
    except FAILURES as error:
        raise translate(error) from None


def _check_order(uris: Sequence[str]) -> None:
    if any(first >= second for first, second in pairwise(uris)):
        raise ConfigurationError(
            "the store does not list in the order of UTF-8 bytes (a directory bucket?): use another bucket"
        )


def _is_marker(entry: Mapping[str, Any]) -> bool:
    return bool(entry["Size"] == 0 and entry["Key"].endswith("/"))


def _object(uri: str, entry: Mapping[str, Any], source: str) -> ObjectVersion:
    return ObjectVersion(
        uri=uri,
        version=entry["ETag"].strip('"'),
        size=entry["Size"],
        modified_at=entry["LastModified"].astimezone(UTC).replace(tzinfo=None),
        source=source,
        is_archive=uri.lower().endswith(tuple(ARCHIVE_SUFFIXES)),
    )


def _stat_by_head(access: S3Access, uri: str, source: str) -> ObjectVersion | None:
    bucket, key = split_uri(uri)
    try:
        answer = access.send("head_object", {"Bucket": bucket, "Key": key})
    except FAILURES as error:
        refusal = translate(error, one_object=True)
        assert isinstance(refusal, PoisonInput)
        if refusal.reason is Reason.GONE:
            return None
        raise (refusal if refusal.reason is Reason.ACCESS_DENIED else translate(error)) from None
    return _object(uri, answer | {"Key": key, "Size": answer["ContentLength"]}, source)
