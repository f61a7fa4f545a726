"""Putting what comes from outside into the folder of a source: whole or not at all, each content once.

Owns the names of landed files and what is refused: no DICOM, no room. Knows nothing of how the bytes came.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import BaseTag

from imaging_pipeline.errors import ConfigurationError, PoisonInput, Reason, TransientError
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.objects.patterns import Patterns
from imaging_pipeline.settings import Settings
from imaging_pipeline.sources import SourceKind

_BLOCK = 1 << 20
_LEFT_SECONDS = 86_400.0
_TRANSFER_SYNTAX_UID = 0x00020010
_SOP_CLASS_UID = 0x00080016
_SOP_INSTANCE_UID = 0x00080018
_DIGEST_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Landed:
    """What became of one object.

    Attributes:
        path: its file.
        is_new: False: the same bytes were there already.
        sop_class_uid: of the object.
        sop_instance_uid: of the object.
        size: bytes of the file that came.
    """

    path: Path
    is_new: bool
    sop_class_uid: str
    sop_instance_uid: str
    size: int


class Landing:
    """The folder of a source, as the place where objects arrive.

    A file's name is made of a key of the SOP Instance UID and the digest of its data set. So the same object that comes
    again, by whatever way, changes nothing, and other bytes under the same UID are kept beside it, for the version
    policy to judge. Names that begin with a dot are seen by no listing.

    Args:
        folder: of the source; it must be there: one that is gone is a disk that is not mounted.
        free_bytes: with less free space nothing is taken.
    """

    def __init__(self, folder: Path, free_bytes: int) -> None:
        self.folder = folder
        self.free_bytes = free_bytes

    def refuse_when_full(self, size: int = 0) -> None:
        """Refuse an object before its bytes come.

        Args:
            size: bytes it is known to have.

        Raises:
            TransientError: there is no room for it, or the folder is gone.
        """
        try:
            free = shutil.disk_usage(self.folder).free
        except OSError:
            raise self._gone() from None
        if free - size < self.free_bytes:
            raise TransientError(f"the disk of the landing folder is nearly full ({free >> 20} MiB free)")

    def part(self) -> Path:
        """An empty hidden file in the folder, readable by its owner alone; it is for :meth:`keep` or to be unlinked.

        Raises:
            TransientError: there is no room, or the folder is gone.
        """
        self.refuse_when_full()
        try:
            descriptor, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=self.folder)
        except OSError:
            raise self._gone() from None
        os.close(descriptor)
        return Path(name)

    def clear(self) -> None:
        """Remove parts that a killed process left a day ago or longer."""
        for part in self.folder.glob(".*.part"):
            if time.time() - part.stat().st_mtime > _LEFT_SECONDS:
                part.unlink(missing_ok=True)

    def keep(self, part: Path, announced: str | None = None) -> Landed:
        """Move a written file to its place, safe from power failure; ``part`` is gone afterwards, whatever happens.

        Args:
            part: a closed file, of :meth:`part` or on another disk.
            announced: the SOP Instance UID it was sent under.

        Raises:
            PoisonInput: it is no DICOM file (PS3.10 7.1), lacks its UIDs, or is not what was announced.
            TransientError: it cannot be written.
        """
        try:
            with part.open("rb") as stream:
                sop_class, sop_instance, digest = _examine(stream)
                size = os.fstat(stream.fileno()).st_size
                if announced is not None and sop_instance != announced:
                    raise PoisonInput(Reason.MALFORMED, "its SOP Instance UID is not the one it was announced with")
                path = self.folder / self.name_of(sop_instance, digest)
                is_new = not path.exists()
                if is_new:
                    os.fsync(stream.fileno())
                    self._move(part, path)
        except OSError as error:
            raise TransientError(f"an object cannot be written to the landing folder ({error.strerror})") from None
        finally:
            part.unlink(missing_ok=True)
        return Landed(path, is_new, sop_class, sop_instance, size)

    def holds(self, sop_instance_uid: str) -> bool:
        """Whether some version of an instance has landed here and is still there."""
        key = key_of(sop_instance_uid)
        return any((self.folder / key[:2]).glob(f"{key}-*.dcm"))

    @staticmethod
    def name_of(sop_instance_uid: str, digest: str) -> str:
        """Name of a landed file below the folder."""
        key = key_of(sop_instance_uid)
        return f"{key[:2]}/{key}-{digest}.dcm"

    def _move(self, part: Path, path: Path) -> None:
        if not self.folder.is_dir():
            raise self._gone()
        if not path.parent.is_dir():
            path.parent.mkdir(exist_ok=True)
            _sync_folder(self.folder)
        if part.stat().st_dev != path.parent.stat().st_dev:
            part = self._copy(part)
        part.replace(path)
        _sync_folder(path.parent)

    def _copy(self, part: Path) -> Path:
        """The part on the disk of the folder; the listener writes all that comes to one place first."""
        copy = self.part()
        try:
            shutil.copyfile(part, copy)
            with copy.open("rb") as stream:
                os.fsync(stream.fileno())
        except BaseException:
            copy.unlink(missing_ok=True)
            raise
        return copy

    def _gone(self) -> TransientError:
        return TransientError("the landing folder is not there or cannot be written to: is its disk mounted?")


def landing_of(source: str, settings: Settings, free_bytes: int) -> Landing:
    """Where the objects of a peer land: the folder of the source that its configuration names.

    Raises:
        ConfigurationError: there is no such source, or it is no folder, or leaves out what lands in it.
    """
    for config in settings.sources:
        if config.name == source:
            folder = Path(config.location)
            if config.kind is not SourceKind.FOLDER or folder.is_file():
                raise ConfigurationError(f"source {source!r} must be a folder: what peers send lands in it")
            landing, taken = Landing(folder, free_bytes), Patterns(config.include, config.exclude)
            if not all(taken.takes(landing.name_of(f"2.25.{number}", "0" * _DIGEST_DIGITS)) for number in range(64)):
                raise ConfigurationError(
                    f"source {source!r} leaves out what peers send: objects land as XX/KEY-DIGEST.dcm; "
                    "mend its include and exclude"
                )
            return landing
    raise ConfigurationError(
        f"there is no source {source!r}, which the PACS file names: add a folder with this name to the file of sources"
    )


def _examine(stream: BinaryIO) -> tuple[str, str, str]:
    """SOP class, SOP instance and digest of the data set with its transfer syntax.

    The file meta information (PS3.10 7.1) is not in the digest: it says who wrote the file, and differs by the way an
    object came.
    """
    try:
        start = read_partial(stream, stop_when=_is_behind_uids)
        stream.seek(132)
        read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=_is_data_set)
    except InvalidDicomError:
        raise PoisonInput(Reason.NOT_DICOM, "the bytes are no DICOM file") from None
    except OSError:
        raise
    except Exception:  # noqa: BLE001 - a parser of foreign bytes; its messages may hold values
        raise PoisonInput(Reason.MALFORMED, "its first elements cannot be read") from None
    syntax = _text(start.file_meta, _TRANSFER_SYNTAX_UID)
    sop_class, sop_instance = _text(start, _SOP_CLASS_UID), _text(start, _SOP_INSTANCE_UID)
    if not (syntax and sop_class and sop_instance):
        raise PoisonInput(Reason.MISSING_UID, "it lacks its SOP class, SOP instance or transfer syntax")
    digest = hashlib.sha256(f"{syntax}\0".encode())
    while block := stream.read(_BLOCK):
        digest.update(block)
    return sop_class, sop_instance, digest.hexdigest()[:_DIGEST_DIGITS]


def _text(ds: Dataset, tag: int) -> str:
    """A UID as it stands; pydicom would warn of one it does not like, and show it."""
    element = ds.get_item(tag)
    value = element.value if element is not None else ""
    text = value.decode("latin_1") if isinstance(value, bytes) else str(value or "")
    return text.strip(" \0")


def _is_data_set(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group != 2


def _is_behind_uids(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) > _SOP_INSTANCE_UID


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
