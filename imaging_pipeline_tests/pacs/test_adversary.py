"""Somebody on the network tries to stop the listener, or to fill its memory, before they have said who they are."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace

import pytest

from imaging_pipeline.errors import TransientError
from imaging_pipeline.pacs import listener
from imaging_pipeline.pacs.association import echo
from imaging_pipeline.pacs.config import OwnAe, PacsConfig, Peer, PeerKind
from imaging_pipeline.pacs.listener import listening
from imaging_pipeline.settings import Settings
from imaging_pipeline_tests.servers.pacs import free_port, wait_for

ASSOCIATE, DATA = 1, 4
MODALITY = Peer("modality", PeerKind.DIMSE, source="landing", ae_title="MODALITY", host="127.0.0.1")


@pytest.fixture
def config(settings: Settings) -> PacsConfig:
    settings.landing.mkdir(parents=True)
    return PacsConfig(OwnAe(port=free_port(), free_bytes=0, associations=1), (MODALITY,))


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side ends a connection within a while."""
    connection.settimeout(20)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def answers(port: int) -> None:
    """A known peer is served, at the latest when the one place is free again."""
    us = Peer("us", PeerKind.DIMSE, ae_title="PIPELINE", host="127.0.0.1", port=port)

    def is_served() -> bool:
        try:
            echo(OwnAe(title="MODALITY"), us)
        except TransientError:
            return False
        return True

    wait_for(is_served)


@pytest.mark.parametrize("kind", [ASSOCIATE, DATA])
def test_a_pdu_that_says_it_has_four_gigabytes_is_not_read(config: PacsConfig, settings: Settings, kind: int) -> None:
    with listening(config, settings) as port:
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(struct.pack(">BBL", kind, 0, 0xFFFFFFF0))
            assert is_closed(stranger)
        answers(port)


def test_half_a_header_holds_no_place_for_long(
    config: PacsConfig, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_SILENT_SECONDS", 0.5)
    with listening(config, settings) as port:
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(b"\1\0\0")
            assert is_closed(stranger)
        answers(port)


def test_a_connection_from_where_no_peer_calls_is_closed_before_a_byte_is_read(
    config: PacsConfig, settings: Settings
) -> None:
    elsewhere = replace(config, peers=(replace(MODALITY, host="192.0.2.1"),))
    with (
        listening(elsewhere, settings) as port,
        socket.create_connection(("127.0.0.1", port)) as stranger,
    ):
        assert is_closed(stranger)
