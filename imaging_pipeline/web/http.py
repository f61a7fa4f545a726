"""The HTTP server's side that meets strangers first: how long the head of a request may be, and how long it may take.

uvicorn's parser keeps a head of any length in memory, and waits for its end for ever.
"""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 131_072
"""Request line and headers; a list of a thousand UIDs takes half of it."""

HEAD_SECONDS: Final = 20.0
"""From the connection, or the end of the request before, to the end of the head."""

MAX_CONNECTIONS: Final = 500
"""At once; more are told to come again. Fewer than the files a process may usually have open."""


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, which closes connections that send no head in time, or one without end."""

    _head_bytes = 0
    _is_in_head = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody has come, and should say what they want."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """They have gone."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes of a head or body."""
        if self._is_in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        """It is whole."""
        self._is_in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        self._stop_timer()
        self._head_bytes, self._is_in_head = 0, True
        self._timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
