"""What every server of studies can do, and what it says of a study."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

STUDY_UID = "StudyInstanceUID"
STUDY_DATE = "StudyDate"


@dataclass(frozen=True, slots=True)
class Offered:
    """A study a server has.

    Attributes:
        study_uid: Study Instance UID.
        instances: how many.
        modalities: in the study; empty when the server does not say.
    """

    study_uid: str
    instances: int
    modalities: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of one study.

    Attributes:
        received: instances that came, or that the server says it has sent.
        failed: instances that did not.
    """

    received: int
    failed: int = 0


class StudyServer(Protocol):
    """A server of studies: a PACS, or a DICOMweb service."""

    def find(self, questions: Iterable[Mapping[str, str]]) -> Iterator[Offered]:
        """Studies that answer one of the questions; one that answers two may come twice.

        Args:
            questions: values by keyword: of StudyDate, PatientID, AccessionNumber or StudyInstanceUID.

        Raises:
            TransientError: the server does not answer, or refuses.
        """
        ...

    def fetch(self, study_uid: str) -> Fetched:
        """Have a study sent to the landing folder.

        Raises:
            TransientError: the server does not answer or refuses, or there is no room.
        """
        ...


def stated_count(text: str) -> int | None:
    """A number of instances as a server states it; None where it does not: none at all is no number of a study's.

    >>> stated_count("12"), stated_count("0"), stated_count("")
    (12, None, None)
    """
    return int(text) or None if text.isdecimal() else None


def answers(matching: Mapping[str, str], given: Mapping[str, str]) -> bool:
    """Whether an answer has what was asked for, as far as it says.

    A server that does not know a key ignores it and offers everything it has (PS3.4 C.2.2.1.3): without this look, a
    cohort of one would fetch a whole archive.

    >>> answers({"AccessionNumber": "7"}, {"AccessionNumber": "8"})
    False
    """
    return all(given.get(key, "").strip() == value for key, value in matching.items())
