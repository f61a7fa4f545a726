"""A retrieval of the configuration, run once: the one place that knows which kind of peer is which class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from filelock import FileLock, Timeout

from imaging_pipeline.errors import TransientError
from imaging_pipeline.pacs.config import PacsConfig, PeerKind, Retrieval
from imaging_pipeline.pacs.fetching import Clock, Round, fetch_round, may_go_on
from imaging_pipeline.pacs.landing import landing_of
from imaging_pipeline.pacs.orthanc import Followed, follow
from imaging_pipeline.pacs.retrieve import Pacs
from imaging_pipeline.pacs.server import StudyServer
from imaging_pipeline.pacs.studies import StudyLedger
from imaging_pipeline.pacs.web_pull import WebStudies
from imaging_pipeline.settings import Settings


def run_retrieval(retrieval: Retrieval, config: PacsConfig, settings: Settings, clock: Clock) -> Round | Followed:
    """Fetch what a peer has and we have not; the objects land in the folder of the peer's source.

    Raises:
        ConfigurationError: something is missing or wrong in the configuration.
        TransientError: the peer does not answer, there is no room, or the retrieval is running already.
    """
    peer = config.peer(retrieval.peer)
    landing = landing_of(str(peer.source), settings, config.ae.free_bytes)
    landing.refuse_when_full()
    landing.clear()
    with open_studies(settings) as ledger, _alone(retrieval, settings):
        if peer.kind is PeerKind.ORTHANC:
            return follow(
                peer,
                landing,
                ledger.progress(retrieval.name).cursor,
                lambda cursor: ledger.set_cursor(retrieval.name, cursor),
                lambda: may_go_on(retrieval, clock),
            )
        return fetch_round(retrieval, server_of(retrieval, config, settings), ledger, clock)


def open_studies(settings: Settings) -> closing[StudyLedger]:
    """What retrievals know; a context manager."""
    return closing(StudyLedger(settings.home / "identified" / "retrievals.sqlite"))


def server_of(retrieval: Retrieval, config: PacsConfig, settings: Settings) -> StudyServer:
    """The server of studies that a retrieval's peer is.

    Raises:
        ConfigurationError: its source is no folder.
    """
    peer = config.peer(retrieval.peer)
    landing = landing_of(str(peer.source), settings, config.ae.free_bytes)
    if peer.kind is PeerKind.DICOMWEB:
        return WebStudies(peer, landing)
    return Pacs(config.ae, peer, retrieval.method, landing, settings.home / "identified" / "incoming")


@contextmanager
def _alone(retrieval: Retrieval, settings: Settings) -> Iterator[None]:
    """One round at a time: the sensor's and a person's would fetch the same studies."""
    lock = FileLock(settings.home / "identified" / f"retrieval-{retrieval.name}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TransientError(f"retrieval {retrieval.name!r} is running already") from None
    try:
        yield
    finally:
        lock.release()
