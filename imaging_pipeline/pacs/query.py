"""Asking a PACS what it has: C-FIND at the levels study, series and image (PS3.4 C.4.1, Study Root)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from imaging_pipeline.errors import TransientError
from imaging_pipeline.pacs.association import open_association
from imaging_pipeline.pacs.config import OwnAe, Peer
from imaging_pipeline.pacs.server import Offered, answers, stated_count

_MODEL = StudyRootQueryRetrieveInformationModelFind
_PENDING = frozenset({0xFF00, 0xFF01})
_LEVEL_KEYS = {
    "STUDY": ("StudyInstanceUID", "NumberOfStudyRelatedInstances", "ModalitiesInStudy"),
    "SERIES": ("SeriesInstanceUID", "NumberOfSeriesRelatedInstances"),
    "IMAGE": ("SOPInstanceUID",),
}


def find_studies(ae: OwnAe, peer: Peer, questions: Iterable[Mapping[str, str]]) -> Iterator[Offered]:
    """Studies of a PACS; see :meth:`~imaging_pipeline.pacs.server.StudyServer.find`.

    A PACS need not count instances (the attribute is optional); then they are counted by asking for them.

    Raises:
        TransientError: it does not answer, or ends the search with a failure.
    """
    with open_association(ae, peer, [build_context(_MODEL)]) as association:
        for matching in questions:
            for found in _find(association, peer, "STUDY", matching):
                if answers(matching, {key: _text(found, key) for key in matching}):
                    yield _offered(association, peer, found)


def _offered(association: Association, peer: Peer, found: Dataset) -> Offered:
    uid, count = _text(found, "StudyInstanceUID"), _text(found, "NumberOfStudyRelatedInstances")
    instances = stated_count(count) or _count(association, peer, uid)
    return Offered(uid, instances, frozenset(_text(found, "ModalitiesInStudy").split("\\")) - {""})


def _count(association: Association, peer: Peer, study_uid: str) -> int:
    total, study = 0, {"StudyInstanceUID": study_uid}
    for series in _find(association, peer, "SERIES", study):
        count = stated_count(_text(series, "NumberOfSeriesRelatedInstances"))
        total += count or len(_find(association, peer, "IMAGE", _only(study_uid, series)))
    return total


def instances_of(ae: OwnAe, peer: Peer, study_uid: str) -> list[str]:
    """SOP Instance UIDs of a study, as a PACS tells them.

    Raises:
        TransientError: it does not answer, or ends the search with a failure.
    """
    with open_association(ae, peer, [build_context(_MODEL)]) as association:
        return [
            _text(image, "SOPInstanceUID")
            for series in _find(association, peer, "SERIES", {"StudyInstanceUID": study_uid})
            for image in _find(association, peer, "IMAGE", _only(study_uid, series))
        ]


def _only(study_uid: str, series: Dataset) -> dict[str, str]:
    return {"StudyInstanceUID": study_uid, "SeriesInstanceUID": _text(series, "SeriesInstanceUID")}


def _find(association: Association, peer: Peer, level: str, matching: Mapping[str, str]) -> list[Dataset]:
    """All answers to one question: another question may only be asked when they are all there."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword in _LEVEL_KEYS[level]:
        setattr(identifier, keyword, "")
    for keyword, value in matching.items():
        setattr(identifier, keyword, value)
    if not all(value.isascii() for value in matching.values()):
        identifier.SpecificCharacterSet = "ISO_IR 192"
    found = []
    for status, answer in association.send_c_find(identifier, _MODEL):
        code = status.get("Status")
        if code in _PENDING and answer is not None:
            found.append(answer)
        elif code != 0:
            why = "is silent" if code is None else f"ends it with status {code:04X}"
            raise TransientError(f"peer {peer.name!r} was asked for its studies and {why}")
    return found


def _text(ds: Dataset, keyword: str) -> str:
    """A value as text; several are joined by backslashes."""
    value = ds.get(keyword)
    if value is None:
        return ""
    return "\\".join(map(str, value)) if not isinstance(value, str) and hasattr(value, "__iter__") else str(value)
