"""Whether a peer answers at all, whatever its kind."""

from __future__ import annotations

from imaging_pipeline.pacs.association import echo
from imaging_pipeline.pacs.config import OwnAe, Peer, PeerKind
from imaging_pipeline.pacs.http import answer, open_client


def reach(ae: OwnAe, peer: Peer) -> None:
    """C-ECHO, a search for one study, or Orthanc's description of itself.

    Raises:
        ConfigurationError: it does not let us in.
        TransientError: it does not answer.
    """
    if peer.kind is PeerKind.DIMSE:
        echo(ae, peer)
        return
    path, params = ("/system", {}) if peer.kind is PeerKind.ORTHANC else ("/studies", {"limit": 1})
    with open_client(peer) as client, answer(client, peer, path, accept="application/json", **params):
        pass
