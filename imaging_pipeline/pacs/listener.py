"""The listener: a Storage and Verification SCP (PS3.4 A and B) whose objects land in the folders of sources.

Owns who may call. Only peers of the configuration may: by AE title and address, and with TLS by certificate.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pynetdicom import evt
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pacs.association import PDU_BYTES, application_entity, server_context
from imaging_pipeline.pacs.config import PacsConfig, Peer, PeerKind
from imaging_pipeline.pacs.landing import Landing, landing_of
from imaging_pipeline.pacs.storing import Store, receiving
from imaging_pipeline.settings import Settings

LOG = logging.getLogger(__name__)

DRAIN_SECONDS = 30.0
"""How long associations that are under way may go on after a stop."""

_SILENT_SECONDS = 10.0
"""How long somebody may be connected without asking for an association."""

_PDU_SECONDS = 30.0
"""How long one PDU may take to come: pynetdicom would wait for its end for ever."""

_MOST_PDU_BYTES = 4 * PDU_BYTES
"""Longest PDU that is read: what we ask peers to keep to, and room for long association requests. pynetdicom would read
up to 4 GB into memory for somebody who has not said yet who they are."""

_BLOCK = 1 << 16

_PAUSE_SECONDS = 0.05

_CALLING_TITLE_UNKNOWN = (0x01, 0x01, 0x03)
"""Rejected permanently, by the service user: calling AE title not recognized (PS3.8 9.3.4)."""


@contextmanager
def listening(config: PacsConfig, settings: Settings) -> Iterator[int]:
    """A running listener; gives its port. Associations that are under way at the end may finish for a while.

    Raises:
        ConfigurationError: nobody may send, the address cannot be used, or a peer's source is no folder.
    """
    door = _Door(config, _landings(config, settings))
    entity = application_entity(config.ae)
    entity.require_called_aet = True
    entity.acse_timeout = _SILENT_SECONDS
    entity.maximum_associations = config.ae.associations
    entity.add_supported_context(Verification)
    with receiving(settings.home / "identified" / "incoming", config.ae.free_bytes):
        try:
            server = entity.start_server(
                (config.ae.host, config.ae.port),
                block=False,
                ssl_context=server_context(config.ae.tls) if config.ae.tls else None,
                evt_handlers=door.handlers(),
            )
        except OSError as error:
            raise ConfigurationError(f"the listener cannot use its host and port ({error.strerror})") from None
        assert isinstance(server, ThreadedAssociationServer)
        try:
            yield int(server.server_address[1])
        finally:
            _stop(server)


class _Door:
    """Who comes in, and what becomes of what they bring."""

    def __init__(self, config: PacsConfig, landings: Mapping[str, Landing]) -> None:
        self._peers = {peer.ae_title: peer for peer in config.peers if peer.ae_title in landings}
        self._store = Store(landings.__getitem__, unknown_sop_classes=config.ae.unknown_sop_classes)

    def handlers(self) -> list[evt.EventHandlerType]:
        return [
            (evt.EVT_CONN_OPEN, self._open),
            (evt.EVT_REQUESTED, self._judge),
            (evt.EVT_C_STORE, self._store.handle),
            (evt.EVT_CONN_CLOSE, self._close),
        ]

    def _open(self, event: Event) -> None:
        """Bound what a connection may take, and close those from where no peer calls: their number is limited."""
        connection: Any = event.assoc.dul.socket  # its method is replaced
        plain: socket.socket = connection.socket
        caller: tuple[Any, ...] = event.address  # type: ignore[attr-defined]

        def receive(count: int) -> bytearray:
            return _received(plain, count, _PDU_SECONDS if event.assoc.is_established else _SILENT_SECONDS)

        connection.recv = receive
        if not any(caller[0] in _addresses(peer) for peer in self._peers.values()):
            LOG.warning("a connection was closed: no peer has this address")
            plain.shutdown(socket.SHUT_RDWR)

    def _judge(self, event: Event) -> None:
        """Reject strangers (PS3.8 9.3.4)."""
        request = event.assoc.requestor.primitive
        title = request.calling_ae_title.strip() if request else ""
        peer = self._peers.get(title)
        if peer is None or event.assoc.requestor.address not in _addresses(peer):
            LOG.warning("an association was rejected: no peer has this AE title at this address")
            event.assoc.acse.send_reject(*_CALLING_TITLE_UNKNOWN)
            event.assoc.is_rejected = True
            event.assoc.kill()

    def _close(self, event: Event) -> None:
        """Remove the file of an object whose association ended in its middle, and say what came."""
        message = event.assoc.dimse.message
        part = getattr(message, "_data_set_path", None)
        if isinstance(part, Path):
            part.unlink(missing_ok=True)
        counts = self._store.take_counts()
        if counts:
            LOG.info("received: %s", ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))


def _received(connection: socket.socket, count: int, seconds: float) -> bytearray:
    """So many bytes, or fewer where the connection ends.

    Raises:
        OSError: they are too many, or do not come in time; pynetdicom then takes the connection for broken.
    """
    if count > _MOST_PDU_BYTES:
        connection.close()
        raise OSError("the PDU is too long")
    until = time.monotonic() + seconds
    data = bytearray()
    while len(data) < count:
        connection.settimeout(max(until - time.monotonic(), _PAUSE_SECONDS))
        block = connection.recv(min(count - len(data), _BLOCK))
        if not block:
            break
        data += block
        if time.monotonic() > until:
            connection.close()
            raise TimeoutError
    connection.settimeout(_PDU_SECONDS)
    return data


def _landings(config: PacsConfig, settings: Settings) -> dict[str, Landing]:
    """The landing folder of each AE title that may send."""
    senders = [peer for peer in config.peers if peer.kind is PeerKind.DIMSE and peer.source is not None]
    if not senders:
        raise ConfigurationError(
            "nobody may send: the PACS file (IMAGING_PIPELINE_PACS) has no DIMSE peer with a source"
        )
    return {peer.ae_title: landing_of(str(peer.source), settings, config.ae.free_bytes) for peer in senders}


def _addresses(peer: Peer) -> set[str]:
    """From where a peer may call; names are looked up each time, since addresses change."""
    found: set[str] = set()
    for name in peer.addresses or (peer.host,):
        try:
            found.update(str(entry[4][0]) for entry in socket.getaddrinfo(name, None))
        except OSError:
            LOG.warning("an address of peer %s cannot be found", peer.name)
    return found


def _stop(server: ThreadedAssociationServer) -> None:
    """Take no more associations; those under way may finish, then they are aborted."""
    server.shutdown()
    deadline = time.monotonic() + DRAIN_SECONDS
    while any(each.is_established for each in server.active_associations) and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)
    for association in server.active_associations:
        if association.is_established:
            association.abort()
        else:  # somebody who has connected and said nothing
            association.kill()
