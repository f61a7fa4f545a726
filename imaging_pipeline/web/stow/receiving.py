"""One store transaction: parts of a request become files, files become objects that are kept or refused.

Blocking; the routes run it in a thread, block by block.
"""

from __future__ import annotations

import errno
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol

from imaging_pipeline.errors import PoisonInput, TransientError
from imaging_pipeline.objects.reading import MAX_OBJECT_BYTES
from imaging_pipeline.web.stow.examination import Examined, examine
from imaging_pipeline.web.stow.multipart import MultipartReader, Part, parameters
from imaging_pipeline.web.stow.report import Failure, Fate, Refused

DICOM: Final = "application/dicom"

MOST_WAITING: Final = 16
"""Objects of one request that are written but not settled; the rest of its body waits for them."""

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Receiver(Protocol):
    """Where the objects of a zone are kept.

    Attributes:
        keeps_at_once: how many objects of one request it keeps at the same time, each in a thread of its own.
    """

    keeps_at_once: int

    def refuse_when_full(self, size: int) -> None:
        """Refuse a request before its body is read.

        Raises:
            TransientError: there is no room for so many bytes.
        """
        ...

    def part(self) -> Path:
        """An empty file that no listing sees, for an object that is on its way.

        Raises:
            TransientError: there is no room, or the place is not there.
        """
        ...

    def keep(self, part: Path, examined: Examined, user: str) -> Fate:
        """Keep an object or refuse it; ``part`` is gone afterwards.

        Args:
            part: its file, closed.
            examined: what it says it is.
            user: who has sent it, as the service knows them.

        Raises:
            TransientError: it cannot be written now.
        """
        ...


class Transaction:
    """The objects of one request.

    Args:
        receiver: of the zone.
        user: who sends.
        study: the Study Instance UID all objects must have; None: any.
        boundary: of a multipart body; None: the body is one object.

    Raises:
        MalformedBodyError: the boundary is not one.
    """

    def __init__(self, receiver: Receiver, user: str, study: str | None, boundary: str | None) -> None:
        self.fates: list[Fate] = []
        self._waiting = deque[Future[Fate]]()  # most of the time that an object takes is waiting for the disk
        self._threads = ThreadPoolExecutor(receiver.keeps_at_once, "stow")
        self._receiver = receiver
        self._user = user
        self._study = study
        self._open: _Upload | None = None
        self._reader = MultipartReader(boundary, self._begin) if boundary is not None else None
        self._single = self._begin(DICOM) if boundary is None else None

    def feed(self, block: bytes | bytearray) -> None:
        """Take the next block of the body.

        Raises:
            MalformedBodyError: it is no multipart body.
        """
        if self._reader is not None:
            self._reader.feed(block)
        else:
            assert self._single is not None
            self._single.write(memoryview(block))

    def finish(self) -> list[Fate]:
        """The body is over: the fate of each object, in order.

        Raises:
            MalformedBodyError: it ended too early; what came whole before is kept.
        """
        if self._reader is not None:
            self._reader.finish()
        else:
            assert self._single is not None
            self._single.end()
        self._settle_down_to(0)
        return self.fates

    def abandon(self) -> None:
        """Leave nothing of an object that did not come whole; those that did are settled."""
        if self._open is not None:
            self._open.discard()
        try:
            self._settle_down_to(0)
        finally:
            self._threads.shutdown()

    def _begin(self, content_type: str) -> Part:
        self._open = _Upload(self, self._receiver, is_dicom=parameters(content_type)[0] == DICOM or not content_type)
        return self._open

    def ended(self, outcome: Path | Failure) -> None:
        """An object has come whole, or failed; called once for each, in order."""
        if isinstance(outcome, Path):
            self._waiting.append(self._threads.submit(self._settle, outcome))
        else:
            failed = Future[Fate]()
            failed.set_result(Refused(outcome))
            self._waiting.append(failed)
        self._settle_down_to(MOST_WAITING)

    def _settle_down_to(self, most: int) -> None:
        while len(self._waiting) > most:
            self.fates.append(self._waiting.popleft().result())

    def _settle(self, path: Path) -> Fate:
        """Keep or refuse a file that has come whole."""
        try:
            examined = examine(path)
            if self._study is not None and examined.study_uid != self._study:
                return Refused(Failure.PROCESSING, examined.sop_class_uid, examined.sop_uid)
            try:
                return self._receiver.keep(path, examined, self._user)
            except TransientError:
                return Refused(Failure.OUT_OF_RESOURCES, examined.sop_class_uid, examined.sop_uid)
        except PoisonInput:
            return Refused(Failure.NOT_UNDERSTOOD)
        finally:
            path.unlink(missing_ok=True)


class _Upload:
    """One object on its way to a file."""

    def __init__(self, transaction: Transaction, receiver: Receiver, *, is_dicom: bool) -> None:
        self._transaction = transaction
        self._failure: Failure | None = None if is_dicom else Failure.NOT_UNDERSTOOD
        self._size = 0
        self._path: Path | None = None
        if is_dicom:
            try:
                self._path = receiver.part()
            except TransientError:
                self._failure = Failure.OUT_OF_RESOURCES
        self._stream = self._path.open("wb") if self._path else None

    def write(self, block: memoryview) -> None:
        """Some more of it; after a failure the rest is passed over."""
        if self._stream is None:
            return
        self._size += len(block)
        try:
            if self._size > MAX_OBJECT_BYTES:
                self._fail()
            else:
                self._stream.write(block)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._fail()

    def end(self) -> None:
        """It is whole."""
        try:
            if self._stream is not None:
                self._stream.close()
        except OSError as error:  # the last block is written now
            if error.errno not in _NO_ROOM:
                raise
            self._fail()
        path, self._path = self._path, None
        self._transaction.ended(path or self._failure or Failure.PROCESSING)

    def discard(self) -> None:
        """Leave nothing of it."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None

    def _fail(self) -> None:
        self._failure = Failure.OUT_OF_RESOURCES
        self.discard()
