"""From a peer's configuration to the way it is sent to: the one place that knows which kind is spoken to how."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from imaging_pipeline.delivery.dicomweb import StowSender
from imaging_pipeline.delivery.dimse import DimseSender
from imaging_pipeline.delivery.sending import Sender
from imaging_pipeline.pacs.config import OwnAe, Peer, PeerKind


def sender_to(ae: OwnAe, peer: Peer) -> AbstractContextManager[Sender]:
    """The sender of a peer; nothing is said to it before the first call.

    Args:
        ae: this installation.
        peer: to whom; of kind ``dimse`` or ``dicomweb``.

    Raises:
        ConfigurationError: peers of its kind are not sent to, or a variable with its token is not set.
    """
    return nullcontext(DimseSender(ae, peer)) if peer.kind is PeerKind.DIMSE else StowSender(peer)
