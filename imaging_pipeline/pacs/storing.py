"""Taking objects that a peer sends us by C-STORE (PS3.4 B.2), on its association or on ours (C-GET).

Owns the status of each object. pynetdicom has written its bytes to a file by then.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from filelock import FileLock, Timeout
from pynetdicom import dimse_messages
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.sop_class import _STORAGE_CLASSES

from imaging_pipeline.errors import PoisonInput, TransientError
from imaging_pipeline.pacs.landing import Landing

LOG = logging.getLogger(__name__)

SUCCESS = 0x0000
SOP_CLASS_NOT_SUPPORTED = 0x0122
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000

STORAGE_CLASSES = frozenset(map(str, _STORAGE_CLASSES.values()))
"""UIDs of the standard's storage SOP classes, retired ones too."""


class IncomingFile:
    """Where a data set is written while it is being received.

    When there is no room it removes its file and swallows the rest, so that the object gets its status; an error here
    would end the association without a word.

    Args:
        folder: for the file, which only its owner can read.
        free_bytes: with less free space nothing is written.
    """

    def __init__(self, folder: Path, free_bytes: int) -> None:
        self._stream: BinaryIO | None = None
        self.name = str(folder / "not-written")
        try:
            Landing(folder, free_bytes).refuse_when_full()
            descriptor, self.name = tempfile.mkstemp(suffix=".dcm", dir=folder)
        except (OSError, TransientError):
            return
        self._stream = os.fdopen(descriptor, "wb")

    @property
    def file(self) -> IncomingFile:
        """As ``tempfile.NamedTemporaryFile`` has it."""
        return self

    def write(self, data: bytes) -> int:
        """Write all of it, or lose the file."""
        try:
            if self._stream is not None:
                self._stream.write(data)
        except OSError:
            self._lose()
        return len(data)

    def flush(self) -> None:
        """Hand all of it to the operating system, or lose the file."""
        try:
            if self._stream is not None:
                self._stream.flush()
        except OSError:
            self._lose()

    def close(self) -> None:
        """Close the file."""
        self.flush()
        if self._stream is not None:
            self._stream.close()

    def _lose(self) -> None:
        Path(self.name).unlink(missing_ok=True)
        self._stream = None


@contextmanager
def receiving(folder: Path, free_bytes: int) -> Iterator[None]:
    """While this holds, pynetdicom writes what it receives to a folder of ours, as :class:`IncomingFile`.

    It would write to Python's folder for temporary files, where patients' data must not be. What killed processes left
    is removed.

    Args:
        folder: in the identified zone; gets one folder for each process that receives.
        free_bytes: with less free space nothing is written.
    """
    own, lock = _own_folder(folder)
    module: Any = dimse_messages
    before = module.NamedTemporaryFile
    module.NamedTemporaryFile = lambda **_: IncomingFile(own, free_bytes)
    try:
        yield
    finally:
        module.NamedTemporaryFile = before
        lock.release()
        shutil.rmtree(own, ignore_errors=True)


def _own_folder(folder: Path) -> tuple[Path, FileLock]:
    """A new folder below, and the lock that says it is in use; folders whose lock nobody holds are removed."""
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    for private in (folder.parent, folder):
        private.mkdir(mode=0o700, exist_ok=True)
    with FileLock(folder / "lock"):
        for left in filter(Path.is_dir, folder.iterdir()):
            try:
                with FileLock(left / "lock", timeout=0):
                    shutil.rmtree(left, ignore_errors=True)
            except Timeout:
                continue  # its process is receiving
        own = Path(tempfile.mkdtemp(dir=folder))
        lock = FileLock(own / "lock")
        lock.acquire()
    return own, lock


class Store:
    """Answers C-STORE requests and counts what came.

    Args:
        landing_of: the landing folder for the calling AE title.
        unknown_sop_classes: private and unknown storage classes are taken, too.
    """

    def __init__(self, landing_of: Callable[[str], Landing], *, unknown_sop_classes: bool) -> None:
        self._landing_of = landing_of
        self._takes_unknown = unknown_sop_classes
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def handle(self, event: Event) -> int:
        """The status of one object: its file is in the landing folder when this is success."""
        try:
            status, what = self._take(event)
        finally:
            if event.dataset_path is not None:  # on an association that we asked for, pynetdicom leaves it
                event.dataset_path.unlink(missing_ok=True)
        with self._lock:
            self._counts[what] += 1
        return status

    def take_counts(self) -> Counter[str]:
        """How many objects were new, known, refused and turned away since the last call."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return counts

    def _take(self, event: Event) -> tuple[int, str]:
        request = cast(C_STORE, event.request)
        if not self._takes_unknown and str(request.AffectedSOPClassUID) not in STORAGE_CLASSES:
            return SOP_CLASS_NOT_SUPPORTED, "refused"
        try:
            landing = self._landing_of(event.assoc.remote["ae_title"].strip())
            landing.refuse_when_full()
            landed = landing.keep(event.dataset_path, str(request.AffectedSOPInstanceUID))
        except TransientError as error:
            LOG.warning("an object is turned away: %s", error)
            return OUT_OF_RESOURCES, "turned away"
        except PoisonInput as error:
            LOG.warning("an object is refused: %s", error)
            return CANNOT_UNDERSTAND, "refused"
        return SUCCESS, "new" if landed.is_new else "known"
