"""What a service sets in an annotation that was sent to it: whose study it is of, who made it, and nothing private."""

from __future__ import annotations

import copy
from typing import Final

from pydicom import DataElement, Dataset

STUDY_TAGS: Final = frozenset(
    {
        0x00080020, 0x00080030, 0x00080050, 0x00080051, 0x00080090, 0x00080096, 0x0008009C, 0x0008009D, 0x00081030,
        0x00081032, 0x00081048, 0x00081049, 0x00081060, 0x00081062, 0x00081080, 0x00081084, 0x00081110, 0x00200010,
        0x00321033, 0x00321060, 0x00380060, 0x00400275, 0x00401012,
    }
)  # fmt: skip
"""Attributes of study and request beside groups 0010 and 0012 (PS3.3 C.7.2): an annotation has those of its study."""

DROPPED_TAGS: Final = frozenset(
    {0x00080080, 0x00080081, 0x00080082, 0x00080092, 0x00080094, 0x00081010, 0x00081040, 0x00081111, 0x04000561}
)
"""Institution, station, department, procedure step and original attributes: an annotation does not need them."""

_PATIENT_GROUPS: Final = (0x0010, 0x0012)

_CREATORS: Final = frozenset({0x00700084, 0x0040A123, 0x0040A075})
"""Content Creator's Name, Person Name, Verifying Observer Name."""

_REFERENCED_SOP, _STUDY_UID, _SERIES_UID = 0x00081155, 0x0020000D, 0x0020000E


def references(ds: Dataset) -> dict[str, None]:
    """UIDs of studies, series and instances an annotation refers to, in their order.

    What is said of its study is left out: that is replaced (:func:`stamp`).
    """
    found: dict[str, None] = {}

    def look(level: Dataset, *, is_top: bool) -> None:
        for element in level:
            if element.tag in DROPPED_TAGS or (is_top and element.tag in STUDY_TAGS):
                continue
            if element.VR == "SQ":
                for item in element.value:
                    look(item, is_top=False)
            elif element.tag == _REFERENCED_SOP or (not is_top and element.tag in (_STUDY_UID, _SERIES_UID)):
                found[str(element.value)] = None

    look(ds, is_top=True)
    return found


def stamp(ds: Dataset, source: Dataset, kind: str, user: str) -> None:
    """Set what does not depend on who sends it.

    Args:
        ds: the annotation, changed in place.
        source: the header of what it is about: patient and study are what it says.
        kind: ``SEG``, ``SR``, ``KO``, ``PR`` or ``RTSTRUCT``.
        user: who has sent it; every name of a maker or observer becomes theirs, other names go.
    """
    name = "".join("_" if character in "\\^=" else character for character in user)[:64]
    _clean(ds, name, is_top=True)
    for element in source:
        if element.tag.group in _PATIENT_GROUPS or element.tag in STUDY_TAGS:
            ds[element.tag] = copy.deepcopy(element)
    ds.SpecificCharacterSet = "ISO_IR 192"
    if kind == "SR":
        observer = Dataset()
        observer.ObserverType = "PSN"
        observer.PersonName = name
        observer.PersonIdentificationCodeSequence = []
        observer.InstitutionName = ""
        observer.InstitutionCodeSequence = []
        ds.AuthorObserverSequence = [observer]
    elif kind == "RTSTRUCT":
        ds.OperatorsName = name
    elif kind != "KO":  # its people are in its content
        ds.ContentCreatorName = name


def _clean(level: Dataset, name: str, *, is_top: bool) -> None:
    for element in list(level):
        is_of_study = is_top and element.tag in STUDY_TAGS
        if is_of_study or element.tag.is_private or element.tag in DROPPED_TAGS or element.tag.group in _PATIENT_GROUPS:
            del level[element.tag]
        elif element.VR == "SQ":
            for item in element.value:
                _clean(item, name, is_top=False)
        elif element.VR == "PN":
            level[element.tag] = DataElement(element.tag, "PN", name if element.tag in _CREATORS else "")
