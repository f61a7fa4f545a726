"""DIMSE associations: with TLS where configured, with nothing of patients in logs (PS3.8, PS3.15 B.12)."""

from __future__ import annotations

import logging
import socket
import ssl
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.pacs.config import OwnAe, Peer, PeerKind, Tls

PDU_BYTES = 1 << 18
"""The longest PDU we ask peers to send: longer ones are copied more often, shorter ones are more work."""

_CONNECT_SECONDS = 15.0


def application_entity(ae: OwnAe) -> AE:
    """An application entity that keeps silent, takes objects as they come and writes them to disk while they come.

    pynetdicom has these as switches of the process: storage of any class in any transfer syntax, the first proposed
    (also on C-GET), and a file instead of memory for each received data set, in Python's folder of temporary files.
    """
    _config.LOG_HANDLER_LEVEL = "none"
    _config.UNRESTRICTED_STORAGE_SERVICE = True
    _config.STORE_RECV_CHUNKED_DATASET = True
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)  # its errors show data sets and addresses
    warnings.filterwarnings("ignore", module="pydicom")  # they show values
    entity = AE(ae_title=ae.title)
    entity.maximum_pdu_size = PDU_BYTES
    entity.connection_timeout = _CONNECT_SECONDS
    return entity


@contextmanager
def open_association(
    ae: OwnAe,
    peer: Peer,
    contexts: Sequence[PresentationContext],
    *,
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    handlers: Sequence[EventHandlerType] = (),
) -> Iterator[Association]:
    """An association with a DIMSE peer; released at the end, aborted on an error.

    Args:
        ae: who we are; its TLS is used when the peer has ``tls``.
        peer: whom we call.
        contexts: what we ask for, 128 at most.
        roles: SCP roles, for C-GET.
        handlers: pynetdicom's event handlers.

    Raises:
        ConfigurationError: the peer is no DIMSE peer with a port, or has TLS and we have no certificates.
        TransientError: it does not answer, or refuses the association.
    """
    if peer.kind is not PeerKind.DIMSE or peer.port is None:
        raise ConfigurationError(f"peer {peer.name!r} cannot be called: it needs 'kind: dimse' and a port")
    entity = application_entity(ae)
    entity.dimse_timeout = entity.acse_timeout = entity.network_timeout = peer.timeout_seconds
    association = entity.associate(
        peer.host,
        peer.port,
        list(contexts),
        ae_title=peer.ae_title,
        ext_neg=list(roles),
        max_pdu=PDU_BYTES,
        tls_args=(client_context(ae, peer), peer.tls_name or peer.host) if peer.tls else None,
        evt_handlers=[(evt.EVT_CONN_OPEN, send_at_once), *handlers],
    )
    if not association.is_established:
        raise TransientError(
            f"peer {peer.name!r} {'refuses us: does it know our AE title?' if association.is_rejected else 'is silent'}"
        )
    _leave_answers_to_who_asks(association)
    try:
        yield association
    except BaseException:
        association.abort()
        raise
    if association.is_established:
        association.release()


def _leave_answers_to_who_asks(association: Association) -> None:
    """Keep the association's own thread from taking messages; as the one who called, we are only ever answered.

    pynetdicom pauses that thread while a question is open, but it may be past the point where it pauses; the answer it
    takes then is gone without an error: a study that is never fetched (pynetdicom issue 875). That thread looks without
    waiting, who asks waits.
    """
    take = association.dimse.get_msg
    association.dimse.get_msg = lambda block=False: take(block=True) if block else (None, None)  # type: ignore[method-assign]


def send_at_once(event: Event) -> None:
    """Do not let TCP hold back small packets (Nagle): a request is two of them, and each would cost 40 ms."""
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def echo(ae: OwnAe, peer: Peer) -> None:
    """C-ECHO (PS3.7 9.1.5).

    Raises:
        TransientError: the peer does not answer, or not with success.
    """
    context = PresentationContext()
    context.abstract_syntax = Verification
    context.transfer_syntax = ["1.2.840.10008.1.2"]
    with open_association(ae, peer, [context]) as association:
        if not association.accepted_contexts or association.send_c_echo().get("Status") != 0:
            raise TransientError(f"peer {peer.name!r} does not answer C-ECHO with success")


def client_context(ae: OwnAe, peer: Peer) -> ssl.SSLContext:
    """TLS towards a peer: its certificate is checked, ours is shown.

    Raises:
        ConfigurationError: we have no certificates, or they cannot be used.
    """
    if ae.tls is None:
        raise ConfigurationError(f"peer {peer.name!r} has 'tls: true': name our certificates below ae, tls")
    return _with_certificates(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ae.tls)


def server_context(tls: Tls) -> ssl.SSLContext:
    """TLS of the listener: nobody without a certificate of our authorities gets in.

    Raises:
        ConfigurationError: the certificates cannot be used.
    """
    context = _LateHandshake(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _with_certificates(context, tls)


class _LateHandshake(ssl.SSLContext):
    """Leaves the handshake to the association's thread: in that of the listener, one silent caller would block all."""

    def wrap_socket(self, sock: socket.socket, server_side: bool = False, **_: object) -> ssl.SSLSocket:  # type: ignore[override]  # noqa: FBT001, FBT002 - as in ssl
        return super().wrap_socket(sock, server_side=server_side, do_handshake_on_connect=False)


def _with_certificates(context: ssl.SSLContext, tls: Tls) -> ssl.SSLContext:
    try:
        if stat.S_IMODE(tls.key.stat().st_mode) & 0o077:
            raise ConfigurationError(
                "the private key of our TLS certificate can be read by others: run chmod 600 on it"
            )
        context.load_verify_locations(cafile=tls.authorities)
        context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:  # ssl.SSLError is one
        why = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigurationError(f"the PEM files of the PACS file below ae, tls cannot be used ({why})") from None
    return context
