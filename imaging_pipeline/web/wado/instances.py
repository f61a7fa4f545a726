"""Whole objects as answers: as they are stored or in another transfer syntax, part by part or as a zip archive."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Sequence

from imaging_pipeline.dicom.transcoding import transcoded
from imaging_pipeline.errors import PoisonInput
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.web.index.model import Instance
from imaging_pipeline.web.wado import multipart
from imaging_pipeline.web.wado.frames import DECODING
from imaging_pipeline.web.wado.media import DICOM

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of members: the first a zip archive can hold, so that the same objects give the same bytes."""


def object_blocks(instance: Instance, reader: ObjectReader) -> Iterator[bytes]:
    """The bytes of one object as they are stored.

    Raises:
        PoisonInput: it cannot be read.
    """
    with reader.open_ranges(instance.target) as ranges:
        yield from ranges.blocks()


def object_bytes(instance: Instance, reader: ObjectReader, syntax: str) -> bytes:
    """One object in a transfer syntax that is not its own.

    Raises:
        PoisonInput: it cannot be read, or not be brought to that transfer syntax.
    """
    with DECODING:
        return transcoded(reader.read_all(instance.target), syntax)


def multipart_blocks(
    instances: Iterable[Instance], reader: ObjectReader, syntax: str | None, boundary: str
) -> Iterator[bytes]:
    """Objects as ``multipart/related``.

    Raises:
        PoisonInput: as `object_blocks`.
    """
    return multipart.write(boundary, (_part(each, reader, syntax, boundary) for each in instances))


def _part(instance: Instance, reader: ObjectReader, syntax: str | None, boundary: str) -> tuple[bytes, Iterable[bytes]]:
    own = instance.transfer_syntax_uid
    if syntax in (None, own):
        head = multipart.head(boundary, multipart.part_type(DICOM, own), length=instance.size)
        return head, object_blocks(instance, reader)
    data, given = _best(instance, reader, syntax or own)
    return multipart.head(boundary, multipart.part_type(DICOM, given), length=len(data)), [data]


def _best(instance: Instance, reader: ObjectReader, syntax: str) -> tuple[bytes, str]:
    """One of several objects in the transfer syntax asked for, or as stored when it cannot be had: its part says so."""
    try:
        return object_bytes(instance, reader, syntax), syntax
    except PoisonInput:
        return reader.read_all(instance.target), instance.transfer_syntax_uid


def readable(instances: Sequence[Instance], reader: ObjectReader) -> list[Instance]:
    """Those of some objects whose bytes are there; objects in buckets are taken to be, since asking costs a request.

    Raises:
        PoisonInput: none of them is; what the first one said.
    """
    found, refusals = [], []
    for instance in instances:
        try:
            if "s3://" not in instance.uri[:9]:
                reader.open_ranges(instance.target).close()
            found.append(instance)
        except PoisonInput as refusal:
            refusals.append(refusal)
    if refusals and not found:
        raise refusals[0]
    return found


def zip_blocks(instances: Iterable[Instance], reader: ObjectReader, syntax: str | None) -> Iterator[bytes]:
    """Objects as a zip archive, written while it is sent; members are named by series and SOP Instance UID.

    Raises:
        PoisonInput: as `object_blocks`.
    """
    target = _Written()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for instance in instances:
            name = f"{instance.series_instance_uid}/{instance.sop_instance_uid}.dcm"
            with archive.open(zipfile.ZipInfo(name, _EPOCH), "w", force_zip64=instance.size >= 1 << 31) as member:
                for block in _blocks_of(instance, reader, syntax):
                    member.write(block)
                    yield target.taken()
    yield target.taken()


def _blocks_of(instance: Instance, reader: ObjectReader, syntax: str | None) -> Iterable[bytes]:
    if syntax in (None, instance.transfer_syntax_uid):
        return object_blocks(instance, reader)
    return [_best(instance, reader, syntax or "")[0]]


class _Written(io.RawIOBase):
    """A stream that cannot be sought in, of which what was written is taken away."""

    def __init__(self) -> None:
        super().__init__()
        self._pending = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        block = bytes(data)  # type: ignore[call-overload]
        self._pending += block
        return len(block)

    def taken(self) -> bytes:
        taken, self._pending = bytes(self._pending), bytearray()
        return taken
