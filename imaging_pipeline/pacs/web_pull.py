"""Studies of a DICOMweb service: QIDO-RS to find them, WADO-RS to fetch them (PS3.18 10.6 and 10.4)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import httpx

from imaging_pipeline.errors import TransientError
from imaging_pipeline.pacs.config import Peer
from imaging_pipeline.pacs.http import BLOCK, answer, open_client
from imaging_pipeline.pacs.landing import Landing
from imaging_pipeline.pacs.parts import PartFiles
from imaging_pipeline.pacs.server import Fetched, Offered, answers, stated_count

PAGE = 500
"""Studies asked for at once."""

AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
"""Whole objects in the transfer syntax in which the service keeps them (PS3.18 8.7.3.5.2)."""

_JSON = "application/dicom+json"
_STUDY_INSTANCE_UID = "0020000D"
_TAGS = {
    "StudyInstanceUID": _STUDY_INSTANCE_UID,
    "StudyDate": "00080020",
    "PatientID": "00100020",
    "AccessionNumber": "00080050",
}
_MODALITIES, _INSTANCES, _SOP_INSTANCE_UID = "00080061", "00201208", "00080018"


class WebStudies:
    """A DICOMweb service as a server of studies.

    Args:
        peer: the service.
        landing: where objects land.
    """

    def __init__(self, peer: Peer, landing: Landing) -> None:
        self._peer, self._landing = peer, landing

    def find(self, questions: Iterable[Mapping[str, str]]) -> Iterator[Offered]:
        """See :class:`~imaging_pipeline.pacs.server.StudyServer`."""
        included = {"includefield": ",".join((*_TAGS.values(), _MODALITIES, _INSTANCES))}
        with open_client(self._peer) as client:
            for matching in questions:
                wanted = {_TAGS[key]: value for key, value in matching.items()}
                for study in self._search(client, "/studies", _STUDY_INSTANCE_UID, wanted | included):
                    if answers(matching, {key: _first(study, _TAGS[key]) for key in matching}):
                        yield self._offered(client, study)

    def fetch(self, study_uid: str) -> Fetched:
        """See :class:`~imaging_pipeline.pacs.server.StudyServer`."""
        self._landing.refuse_when_full()
        with (
            open_client(self._peer) as client,
            answer(client, self._peer, f"/studies/{study_uid}", accept=AS_STORED) as response,
            PartFiles(response.headers.get("Content-Type", ""), self._landing) as parts,
        ):
            for block in response.iter_bytes(BLOCK):
                parts.write(block)
            return Fetched(parts.close(), parts.refused)

    def _offered(self, client: httpx.Client, study: Mapping[str, Any]) -> Offered:
        uid, count = _first(study, _STUDY_INSTANCE_UID), _first(study, _INSTANCES)
        instances = stated_count(count) or self._count(client, uid)
        return Offered(uid, instances, frozenset(_values(study, _MODALITIES)))

    def _count(self, client: httpx.Client, study_uid: str) -> int:
        return sum(1 for _ in self._search(client, f"/studies/{study_uid}/instances", _SOP_INSTANCE_UID, {}))

    def _search(
        self, client: httpx.Client, path: str, key: str, params: Mapping[str, str]
    ) -> Iterator[Mapping[str, Any]]:
        """All results, page by page, until a page brings nothing new: a service may cap its pages, or know none.

        Raises:
            TransientError: it caps its answers and gives the same page again, so that the rest cannot be had.
        """
        seen: set[str] = set()
        while True:
            paging = {"limit": PAGE, "offset": len(seen)}
            with answer(client, self._peer, path, accept=_JSON, **params, **paging) as response:
                found = _results(response, self._peer)
                is_cut = len(found) == PAGE or "additional results" in response.headers.get("Warning", "")
            fresh = {_first(result, key): result for result in found if _first(result, key) not in seen}
            if not fresh:
                if found and is_cut:
                    raise TransientError(
                        f"peer {self._peer.name!r} cuts its answers after {len(seen)} and knows no offset: ask for less"
                    )
                return
            seen.update(fresh)
            yield from fresh.values()


def _results(response: httpx.Response, peer: Peer) -> list[Mapping[str, Any]]:
    if response.status_code == 204:
        return []
    try:
        found = json.loads(response.read())
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(result, dict) for result in found):
        raise TransientError(f"peer {peer.name!r} answers a search with something that is no list of DICOM JSON")
    return found


def _values(result: Mapping[str, Any], tag: str) -> list[str]:
    element = result.get(tag)
    values = element.get("Value", []) if isinstance(element, dict) else []
    return [str(value) for value in values if value is not None]


def _first(result: Mapping[str, Any], tag: str) -> str:
    return next(iter(_values(result, tag)), "")
