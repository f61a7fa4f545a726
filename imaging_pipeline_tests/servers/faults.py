"""An HTTP proxy in front of a server that fails on request, and keeps count of what was asked.

The Host header goes through as the client sent it, so that signatures hold; the server behind must accept it.
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

_SLOW_DOWN = b'<?xml version="1.0"?><Error><Code>SlowDown</Code></Error>'
_PER_CONNECTION = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"})


@dataclass(frozen=True, slots=True)
class Request:
    """One request that came through.

    Attributes:
        method: GET, HEAD, PUT, …
        key: bucket and key, unquoted, as ``bucket/key``.
        is_listing: a GET of a bucket's listing.
        range: the Range header, or an empty text.
        body_bytes: bytes of the answer's body that were passed on.
    """

    method: str
    key: str
    is_listing: bool
    range: str
    body_bytes: int


@dataclass(slots=True)
class Fault:
    """What happens to the requests that match.

    Attributes:
        matches: by method and path with query, as they come over the wire.
        times: how many requests it happens to; a negative number: all.
        status: answered instead of the server, with the body of a SlowDown.
        body_bytes: only so many bytes of the body are passed on, and then the connection is closed.
        is_reset: it is closed by a reset, where a missing rest would be noticed by the length alone.
        stall_seconds: how long nothing is sent after the body's bytes.
        change: called with the request once its answer has been fetched, before it is passed on.
    """

    matches: Callable[[str, str], bool]
    times: int = 1
    status: int | None = None
    body_bytes: int | None = None
    is_reset: bool = False
    stall_seconds: float = 0.0
    change: Callable[[], None] | None = None


@dataclass(slots=True)
class FaultyProxy:
    """A running proxy.

    Attributes:
        port: on 127.0.0.1.
        requests: all that came through; each is noted before its asker can have all of its answer.
        faults: tried in their order; the first that matches and is not used up happens.
    """

    port: int
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, fault: Fault) -> None:
        with self._lock:
            self.faults.append(fault)

    def reset(self) -> None:
        """Forget all faults and requests."""
        with self._lock:
            self.faults.clear()
            self.requests.clear()

    def reads(self, key: str | None = None) -> list[Request]:
        """The GETs of objects' bytes so far, of one ``bucket/key`` or of all."""
        with self._lock:
            gets = [request for request in self.requests if request.method == "GET" and not request.is_listing]
        return [request for request in gets if key is None or request.key == key]

    def listings(self) -> list[Request]:
        with self._lock:
            return [request for request in self.requests if request.is_listing]

    def note(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)

    def take(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times != 0 and fault.matches(method, path):
                    fault.times -= 1
                    return fault
        return None


def of_key(key: str) -> Callable[[str, str], bool]:
    """Matches the GETs of one ``bucket/key``."""
    return lambda method, path: method == "GET" and unquote(urlsplit(path).path) == f"/{key}"


def of_listing(method: str, path: str) -> bool:
    """Matches the listings of buckets."""
    return method == "GET" and "list-type" in parse_qs(urlsplit(path).query)


@contextmanager
def faulty_proxy(upstream_port: int) -> Iterator[FaultyProxy]:
    """A proxy on a free port in front of ``127.0.0.1:upstream_port``; ends with this context."""
    proxy = FaultyProxy(0)

    class Handler(_Handler):
        state = proxy
        upstream = upstream_port

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: FaultyProxy
    upstream: int

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):
            super().handle_one_request()

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.state.take(self.command, self.path)
        if fault is not None and fault.status is not None:
            self._note(0)
            self._answer(fault.status, {"Content-Type": "application/xml"}, _SLOW_DOWN)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _PER_CONNECTION | {"expect"}:
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            content = answer.read()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in _PER_CONNECTION}
            connection.close()
            if fault is not None and fault.change is not None:
                fault.change()
            self._note(len(_passed_on(content, fault)))
            self._answer(answer.status, headers, content, fault)

    def _note(self, body_bytes: int) -> None:
        key, is_listing = unquote(urlsplit(self.path).path).removeprefix("/"), of_listing(self.command, self.path)
        self.state.note(Request(self.command, key, is_listing, self.headers.get("Range") or "", body_bytes))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward  # noqa: N815 - the base class looks for these names

    def _answer(self, status: int, headers: dict[str, str], content: bytes, fault: Fault | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        part = _passed_on(content, fault)
        self.wfile.write(part)
        self.wfile.flush()
        if fault is not None:
            time.sleep(fault.stall_seconds)
            if len(part) < len(content) or fault.is_reset:
                self._hang_up(is_reset=fault.is_reset)

    def _hang_up(self, *, is_reset: bool) -> None:
        self.close_connection = True
        if is_reset:  # with a linger of 0 s, closing sends RST instead of FIN
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


def _passed_on(content: bytes, fault: Fault | None) -> bytes:
    return content if fault is None or fault.body_bytes is None else content[: fault.body_bytes]
