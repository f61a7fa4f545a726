"""Reading multipart/related bodies block by block (RFC 2046 5.1, RFC 2387): nothing is held but a part's header."""

from __future__ import annotations

from collections.abc import Callable
from email.message import Message
from email.utils import collapse_rfc2231_value
from enum import Enum
from typing import Final, Protocol

MAX_HEADER_BYTES: Final = 16_384
"""Longest header of a part; DICOM's have about a hundred bytes."""

MAX_PARTS: Final = 100_000
"""Of one body: what becomes of each is told at its end."""

MAX_PADDING: Final = 1_024
"""White space that may follow a boundary."""


class MalformedBodyError(ValueError):
    """The body is not what its Content-Type says."""


class Part(Protocol):
    """Where the content of one part goes."""

    def write(self, block: memoryview) -> None:
        """Some more of the content."""
        ...

    def end(self) -> None:
        """The content is whole."""
        ...


def parameters(content_type: str) -> tuple[str, dict[str, str]]:
    """Media type and parameters of a Content-Type, in lower case but for the values."""
    message = Message()
    message["Content-Type"] = content_type
    found = message.get_params() or [("", "")]
    return message.get_content_type(), {name.lower(): collapse_rfc2231_value(value) for name, value in found[1:]}


class _State(Enum):
    PREAMBLE = 0
    BOUNDARY = 1
    HEADER = 2
    CONTENT = 3
    EPILOGUE = 4


class MultipartReader:
    """Divides a body that comes in blocks of any size.

    Args:
        boundary: from the Content-Type.
        begin: called with the Content-Type of each part; gives where its content goes.

    Raises:
        MalformedBodyError: the boundary is not one (RFC 2046 5.1.1).
    """

    def __init__(self, boundary: str, begin: Callable[[str], Part]) -> None:
        if not 1 <= len(boundary) <= 70 or not boundary.isascii() or not boundary.isprintable():
            raise MalformedBodyError("the boundary must have 1 to 70 printable characters")
        self._delimiter = b"\r\n--" + boundary.encode()
        self._begin = begin
        self._rest = bytearray(b"\r\n")  # the first boundary may stand at the very start
        self._state = _State.PREAMBLE
        self._part: Part | None = None
        self._parts = 0

    def feed(self, block: bytes | bytearray) -> None:
        """Take the next block.

        Raises:
            MalformedBodyError: a part's header is none, or too long, or there are too many parts.
        """
        self._rest += block
        while self._step():
            pass

    def finish(self) -> None:
        """The body is over.

        Raises:
            MalformedBodyError: it ended before its last boundary.
        """
        if self._state is not _State.EPILOGUE:
            raise MalformedBodyError("the body ends before its last boundary")

    def _step(self) -> bool:
        """Go on by one boundary, header or content; False: more bytes are needed."""
        match self._state:
            case _State.PREAMBLE | _State.CONTENT:
                return self._pass_content()
            case _State.BOUNDARY:
                return self._pass_boundary()
            case _State.HEADER:
                return self._pass_header()
            case _State.EPILOGUE:
                self._rest.clear()
                return False

    def _pass_content(self) -> bool:
        at = self._rest.find(self._delimiter)
        # What may be the begin of a delimiter waits for the next block.
        upto = at if at >= 0 else max(0, len(self._rest) - len(self._delimiter) + 1)
        if self._part is not None and upto:
            with memoryview(self._rest) as view:
                self._part.write(view[:upto])
        if at < 0:
            del self._rest[:upto]
            return False
        del self._rest[: at + len(self._delimiter)]
        if self._part is not None:
            part, self._part = self._part, None
            part.end()
        self._state = _State.BOUNDARY
        return True

    def _pass_boundary(self) -> bool:
        if len(self._rest) < 2:
            return False
        if self._rest.startswith(b"--"):
            self._state = _State.EPILOGUE
            return True
        end = self._rest.find(b"\r\n")
        if end < 0 and len(self._rest) <= MAX_PADDING:
            return False
        if end < 0 or self._rest[:end].strip(b" \t"):
            raise MalformedBodyError("a boundary is followed by something else")
        del self._rest[:end]  # its line end also begins the header, which may be empty
        self._state = _State.HEADER
        return True

    def _pass_header(self) -> bool:
        end = self._rest.find(b"\r\n\r\n")
        if end < 0 and len(self._rest) <= MAX_HEADER_BYTES:
            return False
        if not 0 <= end <= MAX_HEADER_BYTES:
            raise MalformedBodyError("the header of a part is too long")
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise MalformedBodyError(f"it has more than {MAX_PARTS} parts: send fewer at once")
        lines = bytes(self._rest[:end]).decode("latin-1").split("\r\n")
        del self._rest[: end + 4]
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._part = self._begin(fields.get("content-type", ""))
        self._state = _State.CONTENT
        return True
