"""The parts of a multipart/related body (PS3.18 8.6.1.2), each streamed to a file of the landing folder."""

from __future__ import annotations

from email.message import Message
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from imaging_pipeline.errors import PoisonInput, TransientError
from imaging_pipeline.pacs.landing import Landing


class PartFiles:
    """Takes a body block by block; a part that is no DICOM object is counted, and the rest goes on.

    A context manager: what is not whole at its end is removed.

    Args:
        content_type: of the answer, with the boundary.
        landing: where the parts land.

    Attributes:
        new: objects that were not there.
        known: objects that were.
        refused: parts that are no DICOM object.

    Raises:
        TransientError: the content type is no multipart, or names no boundary.
    """

    def __init__(self, content_type: str, landing: Landing) -> None:
        message = Message()
        message["Content-Type"] = content_type
        boundary = message.get_boundary()
        if message.get_content_type() != "multipart/related" or not boundary:
            raise TransientError("the server was asked for multipart/related and answers with something else")
        self.new = self.known = self.refused = 0
        self._landing = landing
        self._part: Path | None = None
        self._stream: BinaryIO | None = None
        self._is_whole = False
        self._parser = MultipartParser(
            boundary.encode("latin_1", "replace"),
            {
                "on_part_begin": self._begin,
                "on_part_data": self._write,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
        )

    def __enter__(self) -> PartFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def write(self, block: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            TransientError: they are no multipart, or there is no room.
        """
        try:
            self._parser.write(block)
        except MultipartParseError:
            raise TransientError("the server's answer is no multipart body") from None
        except OSError as error:
            raise TransientError(f"an object cannot be written to the landing folder ({error.strerror})") from None

    def close(self) -> int:
        """How many objects came in a body that is whole.

        Raises:
            TransientError: the body ended before its last boundary.
        """
        if not self._is_whole:
            raise TransientError("the server's answer ends in its middle")
        return self.new + self.known

    def _begin(self) -> None:
        self._part = self._landing.part()
        self._stream = self._part.open("wb")

    def _write(self, data: bytes, start: int, end: int) -> None:
        assert self._stream is not None
        self._stream.write(memoryview(data)[start:end])

    def _end(self) -> None:
        assert self._part is not None
        assert self._stream is not None
        self._stream.close()
        try:
            landed = self._landing.keep(self._part)
        except PoisonInput:
            self.refused += 1
        else:
            self.new += landed.is_new
            self.known += not landed.is_new
        self._part = None

    def _finish(self) -> None:
        self._is_whole = True

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.close()
        if self._part is not None:
            self._part.unlink(missing_ok=True)
            self._part = None
