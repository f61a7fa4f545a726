"""Sending by C-STORE (PS3.4 Annex B).

Owns the presentation contexts that are proposed, what a status means, and asking a peer what it has by C-FIND.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Final

from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import _config, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from imaging_pipeline.delivery.log import NOT_TAKEN, UNREADABLE, Answer, Entry, State
from imaging_pipeline.delivery.sending import Outgoing, PeerFailedError
from imaging_pipeline.dicom.transcoding import transcoded
from imaging_pipeline.errors import PoisonInput, TransientError
from imaging_pipeline.pacs.association import open_association
from imaging_pipeline.pacs.config import OwnAe, Peer

MOST_CONTEXTS: Final = 128
"""Presentation contexts of one association: their identifiers are the odd numbers of a byte (PS3.8 9.3.2.2)."""

PLAIN: Final = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
"""What an object is turned into when a peer does not take its own transfer syntax, the better one first; every peer
takes the second (PS3.5 10.1). Nothing is ever compressed."""

_MATCH: Final = 0xFF00


class DimseSender:
    """One DIMSE peer.

    Args:
        ae: this installation.
        peer: to be called.
    """

    def __init__(self, ae: OwnAe, peer: Peer) -> None:
        self._ae = ae
        self._peer = peer
        # A file is read while it is sent, in parts; pynetdicom would parse it and hold it whole.
        _config.STORE_SEND_CHUNKED_DATASET = True

    def send(self, group: Sequence[Outgoing]) -> Iterator[tuple[str, Answer]]:
        """Store some objects; see `Sender`."""
        rest = list(group)
        while rest:
            part, rest = _that_fit(rest)
            try:
                with self._association(_contexts(part)) as association:
                    for outgoing in part:
                        yield outgoing.key, self._store(association, outgoing)
            except _NothingTakenError:
                yield from ((outgoing.key, Answer(State.REFUSED, NOT_TAKEN)) for outgoing in part)

    def held(self, entries: Sequence[Entry]) -> dict[str, bool] | None:
        """Ask by C-FIND at the level of instances (PS3.4 C.6.2.1); None: the peer does not take the question."""
        model = StudyRootQueryRetrieveInformationModelFind
        found: dict[str, bool] = {}
        try:
            with self._association([build_context(model)]) as association:
                for entry in entries:
                    is_there = _is_there(association, entry)
                    if is_there is None:
                        return None
                    found[entry.delivery_key] = is_there
        except _NothingTakenError:
            return None
        return found

    @contextmanager
    def _association(self, contexts: list[PresentationContext]) -> Iterator[Association]:
        """An association with some presentation contexts.

        Raises:
            PeerFailedError: there is none.
            _NothingTakenError: the peer answers, and takes none of the contexts.
        """
        answered: list[Association] = []
        noted = (evt.EVT_ACCEPTED, lambda event: answered.append(event.assoc))
        try:
            with open_association(self._ae, self._peer, contexts, handlers=[noted]) as association:
                yield association
        except PeerFailedError:
            raise
        except TransientError as error:
            if answered and not answered[0].accepted_contexts:
                raise _NothingTakenError from None
            raise PeerFailedError(str(error)) from None

    def _store(self, association: Association, outgoing: Outgoing) -> Answer:
        """Store one object in the best transfer syntax the peer has taken for its class."""
        item = outgoing.item
        accepted = [
            str(context.transfer_syntax[0])
            for context in association.accepted_contexts
            if context.abstract_syntax == item.sop_class_uid
        ]
        syntax = next((one for one in (item.syntax_uid, *PLAIN) if one in accepted), None)
        if syntax is None:
            return Answer(State.REFUSED, NOT_TAKEN)
        sent: Dataset | str = str(outgoing.path)
        if syntax != item.syntax_uid:
            try:
                sent = dcmread(BytesIO(transcoded(outgoing.path.read_bytes(), syntax)))
            except PoisonInput:
                return Answer(State.REFUSED, UNREADABLE)
        status = None
        if association.is_established:
            status = association.send_c_store(sent).get("Status")
        if status is None:
            raise PeerFailedError(f"peer {self._peer.name!r} broke off", [outgoing.key])
        return answer_of(int(status))


class _NothingTakenError(Exception):
    """The peer took none of the presentation contexts."""


def answer_of(status: int) -> Answer:
    """What a C-STORE status means (PS3.4 B.2.3, PS3.7 Annex C), or a failure reason of a STOW-RS response.

    Out of resources, and failures that say nothing of the object, may pass; what is wrong with the object will not.
    """
    code = f"{status:04X}"
    if status in (0x0000, 0x0001, 0x0107, 0x0116) or 0xB000 <= status <= 0xBFFF:
        return Answer(State.ACCEPTED, code)
    is_about_peer = 0xA700 <= status <= 0xA7FF or status in (0x0110, 0x0124, 0x0213)
    return Answer(State.WAITING if is_about_peer else State.REFUSED, code)


def _contexts(group: Sequence[Outgoing]) -> list[PresentationContext]:
    """One context for each class and transfer syntax, so that the peer cannot choose another than the object's own."""
    wanted = dict.fromkeys(
        (outgoing.item.sop_class_uid, str(syntax))
        for outgoing in group
        for syntax in (outgoing.item.syntax_uid, *PLAIN)
    )
    return [build_context(sop_class, syntax) for sop_class, syntax in wanted]


def _that_fit(group: Sequence[Outgoing]) -> tuple[list[Outgoing], list[Outgoing]]:
    """The first objects of a group, as many as one association can carry, and the others."""
    count = len(group)
    while len(_contexts(group[:count])) > MOST_CONTEXTS:
        count //= 2
    return list(group[:count]), list(group[count:])


def _is_there(association: Association, entry: Entry) -> bool | None:
    wanted = Dataset()
    wanted.QueryRetrieveLevel = "IMAGE"
    wanted.StudyInstanceUID, wanted.SeriesInstanceUID = entry.study_uid, entry.series_uid
    wanted.SOPInstanceUID = entry.sop_uid
    found = False
    for status, identifier in association.send_c_find(wanted, StudyRootQueryRetrieveInformationModelFind):
        code = status.get("Status")
        if code is None:
            raise PeerFailedError("the peer broke off while it was asked what it has")
        if code in (_MATCH, _MATCH + 1):
            found |= identifier is not None and identifier.get("SOPInstanceUID") == entry.sop_uid
        elif code != 0:
            return None
    return found
