"""Builders of hostile objects and archives, and of what a listing says of them."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGBaseline8Bit

from imaging_pipeline.errors import PoisonInput
from imaging_pipeline.objects.folder import ARCHIVE_SUFFIXES, file_version, path_to_uri
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline_tests.dicom.test_header import element, file_of, implicit, item

SECRET = b"Zzyzx^Quux "
"""A name in the objects that no issue may repeat."""

PREAMBLE_BYTES = 132
UNDEFINED = 0xFFFFFFFF


def file_object(path: Path) -> ObjectVersion:
    """What a listing says of a file."""
    status = path.stat()
    return ObjectVersion(
        uri=path_to_uri(path),
        version=file_version(status),
        size=status.st_size,
        modified_at=datetime.fromtimestamp(status.st_mtime, UTC).replace(tzinfo=None),
        source="site",
        is_archive=path.suffix.lower() in ARCHIVE_SUFFIXES,
    )


def objects_in(folder: Path, reader: ObjectReader) -> list[ObjectVersion]:
    """The regular files below a folder, each archive followed by its members."""
    found = []
    for path in sorted(Path(root, name) for root, _, names in os.walk(folder) for name in names):
        if path.is_file():
            entry = file_object(path)
            found.append(entry)
            if entry.is_archive:
                found += members_of(entry, reader)
    return found


def members_of(archive: ObjectVersion, reader: ObjectReader) -> list[ObjectVersion]:
    """The members of an archive; none when it cannot be read, for its own issue says so."""
    try:
        return list(reader.list_members(archive))
    except PoisonInput:
        return []


# DICOM objects


def uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def good(number: int = 0) -> bytes:
    """A small object that reads without an issue and can be placed."""
    content = element(0x00080016, "UI", uid("1.2.840.10008.5.1.4.1.1.7"))
    content += element(0x00080018, "UI", uid(f"1.2.3.4.{number}"))
    content += element(0x00080060, "CS", b"OT")
    content += element(0x00100010, "PN", SECRET)
    content += element(0x0020000D, "UI", uid("1.2.3.5")) + element(0x0020000E, "UI", uid("1.2.3.6"))
    return file_of(content)


def before(content: bytes, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """A file whose last elements are hostile, behind a name that must not get out."""
    return file_of(element(0x00080060, "CS", b"CT") + element(0x00080080, "LO", SECRET) + content, syntax)


def deflated(content: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return file_of(deflater.compress(content) + deflater.flush(), DeflatedExplicitVRLittleEndian)


def nested(depth: int, length: int | None) -> bytes:
    """Sequences in each other, of stated or of undefined length."""
    content = element(0x00080100, "SH", b"deep")
    ends = (b"", b"") if length is None else (implicit(0xFFFEE00D, b""), implicit(0xFFFEE0DD, b""))
    for _ in range(depth):
        content = element(0x00081032, "SQ", item(content + ends[0], length) + ends[1], length)
    return content


def many_empty(count: int) -> bytes:
    """Empty private elements, all different, in the order of their tags."""
    tags = ((0x0011 + 2 * (n >> 15), 0x1000 + (n & 0x7FFF)) for n in range(count))
    return b"".join(struct.pack("<HH2sH", group, number, b"LO", 0) for group, number in tags)


def undefined_everywhere() -> bytes:
    """A sequence, an item, an unknown value and pixel data, all of undefined length, and all closed."""
    stop, end = implicit(0xFFFEE00D, b""), implicit(0xFFFEE0DD, b"")
    inner = item(element(0x00080100, "SH", b"inside") + stop, UNDEFINED)
    unknown = item(implicit(0x00080100, b"inside") + stop, UNDEFINED)
    content = element(0x00081032, "SQ", inner + end, UNDEFINED)
    content += element(0x00091010, "UN", unknown + end, UNDEFINED)
    return before(content + element(0x7FE00010, "OB", item(b"") + item(b"\1\2") + end, UNDEFINED), JPEGBaseline8Bit)


def never_closed() -> bytes:
    """A sequence in an item in a sequence, of undefined length, without any delimiter."""
    return before(
        element(
            0x00081032, "SQ", item(element(0x00081032, "SQ", item(b"", UNDEFINED), UNDEFINED), UNDEFINED), UNDEFINED
        )
    )


def lying_group_length(length: int) -> bytes:
    """File meta information that states a wrong length of itself."""
    data = good()
    at = PREAMBLE_BYTES + 8
    return data[:at] + struct.pack("<L", length) + data[at + 4 :]


def without_meta() -> bytes:
    """A data set behind a preamble, without file meta information."""
    data = good()
    return data[:PREAMBLE_BYTES] + data_set()


def data_set() -> bytes:
    """A bare data set."""
    data = good()
    return data[data.index(struct.pack("<HH", 0x0008, 0x0016)) :]


# Archives


def zipped(members: Iterable[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # two members of one name
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def zip64(members: Iterable[tuple[str, bytes]]) -> bytes:
    """An archive whose members have 64-bit sizes though they need none."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members:
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as stream:
                stream.write(content)
    return buffer.getvalue()


def encrypted(name: str, content: bytes) -> bytes:
    """An archive that says of its only member that it is encrypted, in both headers."""
    data = bytearray(zipped([(name, content)]))
    for magic, flag_at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(magic) + flag_at] |= 1
    return bytes(data)


def wrong_crc(name: str, content: bytes) -> bytes:
    """An archive with one stored member, of which one byte was changed afterwards."""
    data = bytearray(zipped([(name, content)], zipfile.ZIP_STORED))
    data[data.index(content) + len(content) - 1] ^= 0xFF
    return bytes(data)


def overlapping(count: int, content: bytes) -> bytes:
    """An archive whose directory names the same compressed bytes again and again (a bomb without recursion)."""
    data = zipped([("00000.dcm", content)])
    start, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    record = data[start:end]
    directory = b"".join(record.replace(b"00000.dcm", f"{n:05}.dcm".encode()) for n in range(count))
    tail = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, count, count, len(directory), start, 0)
    return data[:start] + directory + tail


def raw_name(name: bytes, content: bytes, *, is_utf8: bool) -> bytes:
    """An archive with one member whose name is any bytes."""
    place = "n" * len(name)
    data = zipped([(place, content)]).replace(place.encode(), name)
    flagged = bytearray(data)
    for magic, flag_at in ((b"PK\3\4", 7), (b"PK\1\2", 9)):
        flagged[flagged.index(magic) + flag_at] |= 8 if is_utf8 else 0
    return bytes(flagged)
