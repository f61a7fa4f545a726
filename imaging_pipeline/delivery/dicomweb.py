"""Sending by STOW-RS (PS3.18 10.5).

Owns the streamed request, what its response means, and asking a peer what it has by QIDO-RS.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import httpx

from imaging_pipeline.delivery.dimse import PLAIN, answer_of
from imaging_pipeline.delivery.log import NOT_NAMED, UNREADABLE, Answer, Entry, State
from imaging_pipeline.delivery.sending import Outgoing, PeerFailedError
from imaging_pipeline.dicom.transcoding import transcoded
from imaging_pipeline.errors import ConfigurationError, PoisonInput
from imaging_pipeline.pacs.config import Peer, PeerKind
from imaging_pipeline.pacs.http import open_client

_BLOCK: Final = 1 << 20
_BOUNDARY: Final = "imaging-pipeline-5d41f2c9a8b34e60"
_DICOM_JSON: Final = "application/dicom+json"

_SYNTAX_NOT_SUPPORTED: Final = "C122"
"""Failure reason: the peer does not take this transfer syntax (PS3.18 Table I.2-2)."""

_ABOUT_US: Final = frozenset({401, 403, 404, 405, 407, 408, 421, 425, 429})
"""Statuses that say nothing of what was sent: the peer does not let us, is busy, or is not there."""


class StowSender(AbstractContextManager["StowSender"]):
    """One DICOMweb peer; use as a context manager.

    Args:
        peer: with the address of its service.
        transport: for tests; None: the network.

    Raises:
        ConfigurationError: the peer is no DICOMweb peer, or the variable of its token or user is not set.
    """

    def __init__(self, peer: Peer, transport: httpx.BaseTransport | None = None) -> None:
        if peer.kind is not PeerKind.DICOMWEB:
            raise ConfigurationError(f"peer {peer.name!r}: objects are sent to peers of kind dimse or dicomweb")
        self._peer = peer
        self._client = open_client(peer, transport)
        self._client.headers["Accept"] = _DICOM_JSON

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def send(self, group: Sequence[Outgoing]) -> Iterator[tuple[str, Answer]]:
        """Store some objects; see `Sender`."""
        answers = self._store(group)
        for outgoing in group:
            answer = answers[outgoing.key]
            if answer.code == _SYNTAX_NOT_SUPPORTED and outgoing.item.syntax_uid not in PLAIN:
                answer = self._store_converted(outgoing)
            yield outgoing.key, answer

    def held(self, entries: Sequence[Entry]) -> dict[str, bool] | None:
        """Ask by QIDO-RS (PS3.18 10.6); None: the peer does not answer such questions."""
        found: dict[str, bool] = {}
        for entry in entries:
            place = f"/studies/{entry.study_uid}/series/{entry.series_uid}/instances"
            response = self._request("GET", place, params={"SOPInstanceUID": entry.sop_uid})
            if response.status_code not in (200, 204, 404):
                return None
            found[entry.delivery_key] = any(
                entry.sop_uid in (match.get("00080018") or {}).get("Value", ()) for match in _json(response, [])
            )
        return found

    def _store(self, group: Sequence[Outgoing], plain: bytes | None = None) -> dict[str, Answer]:
        """One request with some objects; where it is refused as a whole, its halves tell whose fault it is.

        Args:
            group: the objects.
            plain: of a single object, what is sent in the place of its file.
        """
        keys = [outgoing.key for outgoing in group]
        header = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}'}
        parts = [plain or each.path for each in group]
        header["Content-Length"] = str(sum(len(_HEAD) + _size(part) for part in parts) + len(_END))
        response = self._request("POST", "/studies", content=_body(parts), headers=header, in_flight=keys)
        status = response.status_code
        if status in (200, 202, 409):
            return _answers(group, response)
        if status in _ABOUT_US or status >= 500:
            raise PeerFailedError(f"peer {self._peer.name!r} answers STOW-RS with {status}", keys)
        if len(group) == 1:
            return {keys[0]: Answer(State.REFUSED, f"http_{status}")}
        half = len(group) // 2
        return self._store(group[:half]) | self._store(group[half:])

    def _store_converted(self, outgoing: Outgoing) -> Answer:
        """Once more, uncompressed."""
        try:
            plain = transcoded(outgoing.path.read_bytes(), PLAIN[0])
        except PoisonInput:
            return Answer(State.REFUSED, UNREADABLE)
        return self._store([outgoing], plain)[outgoing.key]

    def _request(self, method: str, place: str, *, in_flight: Sequence[str] = (), **arguments: Any) -> httpx.Response:
        try:
            return self._client.request(method, self._peer.url + place, **arguments)
        except httpx.ConnectError:
            raise PeerFailedError(f"peer {self._peer.name!r} cannot be reached") from None
        except httpx.HTTPError as error:
            raise PeerFailedError(f"peer {self._peer.name!r} broke off ({type(error).__name__})", in_flight) from None


_HEAD: Final = f"\r\n--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
"""Of each part. Its transfer syntax could stand there too (PS3.18 8.7.3.5.2): Orthanc's plug-in 1.7 then passes the
part over, and answers 200."""

_END: Final = f"\r\n--{_BOUNDARY}--\r\n".encode()


def _size(source: Path | bytes) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def _body(parts: Sequence[Path | bytes]) -> Iterator[bytes]:
    """The parts, files read while they are sent."""
    for source in parts:
        yield _HEAD
        if isinstance(source, bytes):
            yield source
            continue
        with source.open("rb") as stream:
            while block := stream.read(_BLOCK):
                yield block
    yield _END


def _answers(group: Sequence[Outgoing], response: httpx.Response) -> dict[str, Answer]:
    """What a response says of each object (PS3.18 10.5.3.2); no report at all under 200 means that all is well."""
    report = _json(response, {})
    said: dict[str, Answer] = {}
    for name in ("00081199", "00081198"):  # Referenced SOP Sequence, Failed SOP Sequence
        for entry in (report.get(name) or {}).get("Value", ()):
            uid, reason = _value(entry, "00081155"), _value(entry, "00081197")
            said[str(uid)] = answer_of(int(reason or (0 if name == "00081199" else 0x0110)))
    is_all_well = response.status_code == 200 and not response.content
    silent = Answer(State.ACCEPTED, "0000") if is_all_well else Answer(State.WAITING, NOT_NAMED)
    return {outgoing.key: said.get(outgoing.item.sop_uid, silent) for outgoing in group}


def _value(entry: Any, tag: str) -> Any:
    values = (entry.get(tag) or {}).get("Value") or [None]
    return values[0]


def _json(response: httpx.Response, empty: Any) -> Any:
    """The JSON of a response, or ``empty`` where it has none of the expected kind."""
    if not response.content or "json" not in response.headers.get("Content-Type", ""):
        return empty
    try:
        found = response.json()
    except ValueError:
        return empty
    return found if isinstance(found, type(empty)) else empty
