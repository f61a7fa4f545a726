"""Somebody tries to stop the service, or to fill it up: with little effort of theirs, much of its memory and time."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Scope

from imaging_pipeline.errors import TransientError
from imaging_pipeline.web import http as guarded
from imaging_pipeline.web import qido
from imaging_pipeline.web.access import middleware
from imaging_pipeline.web.access.gate import Access
from imaging_pipeline.web.access.oidc import MIN_REFRESH_SECONDS, OidcConfig, OpenIdProvider
from imaging_pipeline.web.access.roles import Role
from imaging_pipeline.web.errors import WebError
from imaging_pipeline.web.http import MAX_HEAD_BYTES, GuardedProtocol
from imaging_pipeline.web.index import Level
from imaging_pipeline.web.index.file import create_index, in_time, open_index
from imaging_pipeline.web.stow import multipart
from imaging_pipeline.web.stow.multipart import MalformedBodyError, MultipartReader, parameters
from imaging_pipeline.web.wado import media
from imaging_pipeline.web.wado.answers import byte_answer
from imaging_pipeline.web.wado.rendered import read_quality
from imaging_pipeline_tests.servers.pacs import free_port, is_open, wait_for

DIGITS = "9" * 5_000
"""More than Python makes a number of."""


def request(query: str = "", **headers: str) -> Request:
    """A request that only its reader sees."""
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "query_string": query.encode(), "headers": raw})


class Ranges:
    """Ten bytes."""

    size = 10

    def __enter__(self) -> Ranges:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def read_at(self, offset: int, length: int) -> bytes:
        """Some of them."""
        return b"0123456789"[offset : offset + length]


def test_of_an_accept_header_of_unclosed_quotes_only_the_beginning_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each match may look at all that follows: all of them took 20 s, and nobody else was answered meanwhile."""
    found: list[re.Match[str]] = []

    def finditer(text: str) -> Iterator[re.Match[str]]:
        for match in part.finditer(text):
            found.append(match)
            yield match

    part = media._PART
    monkeypatch.setattr(media, "_PART", SimpleNamespace(finditer=finditer))
    assert media.accepted(request(accept='"' + '\\"' * 30_000)) == []
    assert 0 < len(found) < 200


def test_numbers_longer_than_python_reads_are_refused_or_ignored() -> None:
    with pytest.raises(WebError, match="quality"):
        read_quality(DIGITS)
    answer = byte_answer(request(range=f"bytes={DIGITS}-"), Ranges(), "a/b", {}, 0, 10)  # type: ignore[arg-type]
    assert (answer.status_code, answer.body) == (200, b"0123456789")


def test_content_types_with_parameters_of_rfc_2231_are_read() -> None:
    kind, values = parameters("multipart/related; boundary*=utf-8''x%20y; type*=us-ascii''application/dicom")
    assert (kind, values) == ("multipart/related", {"boundary": "x y", "type": "application/dicom"})


def test_a_body_of_endless_tiny_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nowhere:
        def write(self, block: memoryview) -> None:
            assert len(block) == 0

        def end(self) -> None:
            return None

    monkeypatch.setattr(multipart, "MAX_PARTS", 100)
    reader = MultipartReader("x", lambda _: Nowhere())
    reader.feed(b"\r\n--x\r\n\r\n" * 100)
    with pytest.raises(MalformedBodyError, match="parts"):
        reader.feed(b"\r\n--x\r\n\r\n")


@pytest.mark.parametrize(
    "query",
    [
        "PatientID=" + "%5C".join(f"a{number}*" for number in range(2_000)),
        "PatientName=" + "%20".join("ab" for _ in range(1_000)) + "&fuzzymatching=true",
        ".".join(["00400275"] * 17) + ".00400009=x",
        "&".join(f"0010{number:04X}=x" for number in range(101)),
    ],
    ids=["alternatives", "words", "levels", "keys"],
)
def test_searches_that_the_database_would_not_take_are_refused(query: str) -> None:
    with pytest.raises(WebError) as refusal:
        qido.search_of(request(query), Level.STUDY)
    assert refusal.value.status == 400
    assert "ab" not in refusal.value.detail


def test_a_search_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    create_index(tmp_path / "index.sqlite")
    connection = open_index(tmp_path / "index.sqlite")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(TransientError, match="too long"), in_time(connection, 0.05) as limited:
        limited.execute(endless).fetchone()
    assert connection.execute("SELECT 1").fetchone() == (1,)
    connection.close()


class Clock:
    """Seconds that pass when a test says so."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_an_openid_provider_that_is_away_is_not_waited_for_by_each_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, asked = Clock(), []

    def away(provider: OpenIdProvider) -> dict[str | None, object]:
        asked.append(provider)
        raise TransientError("away")

    monkeypatch.setattr(OpenIdProvider, "_fetch", away)
    provider = OpenIdProvider(OidcConfig("https://issuer.example", "us"), clock)
    token = "eyJhbGciOiJSUzI1NiJ9.e30.AAAA"  # {"alg":"RS256"}, {}
    for _ in range(3):
        with pytest.raises(TransientError):
            provider.principal(token)
    assert len(asked) == 1
    clock.now += MIN_REFRESH_SECONDS + 1
    with pytest.raises(TransientError):
        provider.principal(token)
    assert len(asked) == 2


@pytest.fixture
def access(tmp_path: Path) -> Access:
    return Access("research", tmp_path / "access", project="p")


async def stored(request: Request) -> Response:
    """Reads a body to its end."""
    return PlainTextResponse(str(len(await request.body())))


@pytest.fixture
def app(access: Access) -> FastAPI:
    found = FastAPI()
    found.add_route("/dicom-web/studies", stored, methods=["POST"])
    access.install(found)
    return found


def token_of(access: Access) -> str:
    access.accounts.add_user("anna", {Role.RESEARCH, Role.ANNOTATOR}, {"p"})
    return access.accounts.create_token("anna").text


def call(app: FastAPI, scope: Scope, messages: list[Message]) -> int:
    """The status of an answer to somebody who sends some messages, and then nothing more."""
    found: list[int] = []

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        await asyncio.sleep(60)
        raise AssertionError("waited for ever")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            found.append(message["status"])

    asyncio.run(app(scope, receive, send))
    return found[0]


def scope_of(method: str, path: str, **headers: str) -> Scope:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": raw, "scheme": "http", "server": ("testserver", 80), "root_path": "", "http_version": "1.1",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/login", "/dicom-web/studies"])
def test_a_body_that_stops_coming_is_not_waited_for(
    app: FastAPI, access: Access, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "BODY_SECONDS", 0.05)
    scope = scope_of("POST", path, authorization=f"Bearer {token_of(access)}")
    assert 400 <= call(app, scope, [{"type": "http.request", "body": b"a", "more_body": True}]) <= 500


def test_a_stranger_who_asks_for_many_made_up_studies_fills_no_log(app: FastAPI, access: Access) -> None:
    for number in range(50):
        path = f"/dicom-web/studies/1.2.{number}"
        assert call(app, scope_of("GET", path), [{"type": "http.request", "body": b""}]) == 401
    assert len(list(access.audit.rows())) == 1


def test_each_zone_has_a_cookie_of_its_own(tmp_path: Path) -> None:
    cookies = {Access(zone, tmp_path / zone).cookie for zone in ("research", "clinical")}
    assert len(cookies) == 2


@contextmanager
def served(app: FastAPI) -> Iterator[int]:
    """The port of a service as ``imaging-pipeline serve`` runs it."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical", http=GuardedProtocol, ws="none"))
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_for(lambda: is_open(port))
        yield port
    finally:
        server.should_exit = True
        thread.join(30)


def closed(connection: socket.socket, deadline: float = 30.0) -> bool:
    """Whether the other side ends a connection."""
    connection.settimeout(deadline)
    try:
        while connection.recv(65_536):
            continue
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def test_heads_without_end_are_not_kept_and_whole_ones_are_answered(
    app: FastAPI, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded, "HEAD_SECONDS", 1.0)
    with served(app) as port:
        long, slow = (socket.create_connection(("127.0.0.1", port)) for _ in range(2))
        slow.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        with pytest.raises(OSError):  # noqa: PT012, PT011 - whichever write meets the closed end
            long.sendall(b"GET /")
            for _ in range(200):
                long.sendall(b"a" * MAX_HEAD_BYTES)
        assert closed(slow)
        headers = {"Authorization": f"Bearer {token_of(access)}", "X-Long": "a" * (MAX_HEAD_BYTES // 2)}
        url = f"http://127.0.0.1:{port}/dicom-web/studies"
        with httpx.Client(headers=headers) as client:
            for body in (b"", b"b" * (4 * MAX_HEAD_BYTES), b"c"):
                assert client.post(url, content=body).text == str(len(body))
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
        assert httpx.get(f"http://127.0.0.1:{port}/ws", headers=upgrade).status_code == 401
        long.close()
        slow.close()
