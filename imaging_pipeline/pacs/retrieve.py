"""Having a PACS send a study: C-MOVE to our listener, or C-GET on the same association (PS3.4 C.4.2 and C.4.3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom import ALL_TRANSFER_SYNTAXES, StoragePresentationContexts, evt
from pynetdicom.presentation import build_context, build_role
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from imaging_pipeline.errors import TransientError
from imaging_pipeline.pacs.association import open_association
from imaging_pipeline.pacs.config import Method, OwnAe, Peer
from imaging_pipeline.pacs.landing import Landing
from imaging_pipeline.pacs.query import find_studies, instances_of
from imaging_pipeline.pacs.server import Fetched, Offered
from imaging_pipeline.pacs.storing import Store, receiving

_MOVE, _GET = StudyRootQueryRetrieveInformationModelMove, StudyRootQueryRetrieveInformationModelGet
_PENDING = frozenset({0xFF00, 0xFF01})
_DONE = frozenset({0x0000, 0xB000})
"""Success, and done with some sub-operations that failed."""


class Pacs:
    """A PACS as a server of studies.

    Args:
        ae: who we are.
        peer: the PACS.
        method: C-MOVE needs our listener to run, and gives objects as the PACS has them. C-GET needs no listener, but a
            PACS may have to decompress, and sends only classes among the 120 that fit into an association.
        landing: where objects of C-GET land.
        incoming: folder for what is being received.
    """

    def __init__(self, ae: OwnAe, peer: Peer, method: Method, landing: Landing, incoming: Path) -> None:
        self._ae, self._peer, self._method = ae, peer, method
        self._landing, self._incoming = landing, incoming

    def find(self, questions: Iterable[Mapping[str, str]]) -> Iterator[Offered]:
        """See :class:`~imaging_pipeline.pacs.server.StudyServer`."""
        return find_studies(self._ae, self._peer, questions)

    def fetch(self, study_uid: str) -> Fetched:
        """See :class:`~imaging_pipeline.pacs.server.StudyServer`."""
        self._landing.refuse_when_full()
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "STUDY"
        identifier.StudyInstanceUID = study_uid
        return self._move(identifier) if self._method is Method.MOVE else self._get(identifier)

    def _move(self, identifier: Dataset) -> Fetched:
        """What was sent counts when it is here: a PACS may know our AE title by the address of another machine."""
        with open_association(self._ae, self._peer, [build_context(_MOVE)]) as association:
            said = self._outcome(association.send_c_move(identifier, self._ae.title, _MOVE))
        wanted = instances_of(self._ae, self._peer, str(identifier.StudyInstanceUID))
        missing = sum(not self._landing.holds(uid) for uid in wanted)
        return Fetched(max(said.received - missing, 0), said.failed or missing)

    def _get(self, identifier: Dataset) -> Fetched:
        classes = [str(context.abstract_syntax) for context in StoragePresentationContexts]
        contexts = [build_context(_GET), *(build_context(uid, list(ALL_TRANSFER_SYNTAXES)) for uid in classes)]
        roles = [build_role(uid, scp_role=True) for uid in classes]
        store = Store(lambda _: self._landing, unknown_sop_classes=self._ae.unknown_sop_classes)
        handlers = [(evt.EVT_C_STORE, store.handle)]
        with (
            receiving(self._incoming, self._landing.free_bytes),
            open_association(self._ae, self._peer, contexts, roles=roles, handlers=handlers) as association,
        ):
            return self._outcome(association.send_c_get(identifier, _GET))

    def _outcome(self, responses: Iterator[tuple[Dataset, Dataset | None]]) -> Fetched:
        for status, _ in responses:
            code = status.get("Status")
            if code in _DONE:
                sent = (status.get(f"NumberOf{how}Suboperations") or 0 for how in ("Completed", "Warning"))
                return Fetched(sum(map(int, sent)), int(status.get("NumberOfFailedSuboperations") or 0))
            if code not in _PENDING:
                why = "is silent" if code is None else f"refuses with status {code:04X}"
                raise TransientError(f"peer {self._peer.name!r} was asked for a study and {why}")
        raise TransientError(f"peer {self._peer.name!r} was asked for a study and ended without an answer")
