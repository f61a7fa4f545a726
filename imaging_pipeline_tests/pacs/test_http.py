"""Connections to web peers: every one goes the way the environment says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from imaging_pipeline.delivery.dicomweb import StowSender
from imaging_pipeline.delivery.log import Entry, State
from imaging_pipeline.pacs.config import OwnAe, Peer, PeerKind
from imaging_pipeline.pacs.reaching import reach

AWAY = "http://pacs.hospital.invalid/dicom-web"


@pytest.fixture
def asked_of_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Addresses that a proxy named in the environment was asked for; it answers each with an empty list."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.server_port}")
        yield asked
        proxy.shutdown()


def _sends(peer: Peer) -> None:
    uids, now = ("1.2", "1.2.3", "1.2.3.4"), datetime.fromisoformat("2026-01-01T12:00")
    entry = Entry("k", peer.name, "d", "i", *uids, "0" * 64, 9, State.ACCEPTED, "", 1, now, None, now)
    with StowSender(peer) as sender:
        sender.held([entry])


@pytest.mark.parametrize("ask", [lambda peer: reach(OwnAe(), peer), _sends], ids=["pull", "send"])
def test_a_proxy_of_the_environment_is_used(asked_of_proxy: list[str], ask: Callable[[Peer], None]) -> None:
    ask(Peer("partner", PeerKind.DICOMWEB, url=AWAY))
    assert asked_of_proxy
    assert all(address.startswith(AWAY) for address in asked_of_proxy)
