"""Identifiers of a patient from all of their headers, so that a name given in one object is found in the others.

Owns what is collected of a header and which headers are one patient's. Reads headers as documents of the DICOM JSON
Model, as bronze keeps them; contains no reading of objects. What is collected is as secret as the headers themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.reading import name_text, quiet
from imaging_pipeline.deid.rules import Rules
from imaging_pipeline.deid.screen import TEXT_VRS, Identifier, Kind, identifiers_of
from imaging_pipeline.errors import PoisonInput, Reason

_VRS: Final = TEXT_VRS | {"PN"}
_SHARED: Final = frozenset({Kind.PERSON, Kind.NUMBER, Kind.TEXT})
"""Kinds that are looked for in other objects of the patient: their UIDs and dates are theirs alone."""
_PATIENT, _ISSUER, _STUDY, _INSTANCE = "00100020", "00100021", "0020000D", "00080018"

Text = tuple[str, str, str]
"""Tag, value representation and one value."""


@dataclass(frozen=True, slots=True)
class HeaderFacts:
    """What is collected of one header; its representation shows nothing of it.

    Attributes:
        domain: Issuer of Patient ID, or the domain that the caller gave.
        patient_id: Patient ID, or ``NO_PID:`` and the study's UID, as the engine has it.
        study_uid: Study Instance UID.
        instance_uid: SOP Instance UID.
        texts: names and texts at every depth.
        uids: all UIDs.
    """

    domain: str = field(repr=False)
    patient_id: str = field(repr=False)
    study_uid: str = field(repr=False)
    instance_uid: str = field(repr=False)
    texts: frozenset[Text] = field(repr=False)
    uids: frozenset[str] = field(repr=False)


def facts_of(header_json: str, patient_domain: str) -> HeaderFacts:
    """Collect from one header.

    Args:
        header_json: as `imaging_pipeline.dicom.header` gives it.
        patient_domain: who gave the Patient ID its meaning, unless the object says it.

    Raises:
        PoisonInput: MISSING_UID where study or object have no UID.
    """
    header = json.loads(header_json)
    study, instance = _first(header, _STUDY), _first(header, _INSTANCE)
    if not study or not instance:
        raise PoisonInput(Reason.MISSING_UID, "Study Instance UID or SOP Instance UID is missing")
    texts = {found for found in values_of(header) if found[2]}
    return HeaderFacts(
        domain=_first(header, _ISSUER) or patient_domain,
        patient_id=_first(header, _PATIENT) or f"NO_PID:{study}",
        study_uid=study,
        instance_uid=instance,
        texts=frozenset(found for found in texts if found[1] in _VRS),
        uids=frozenset(text for _, vr, text in texts if vr == "UI"),
    )


def values_of(header: Mapping[str, Any]) -> Iterator[Text]:
    """Every value of a parsed header at every depth; names with their component groups as in a file."""
    for tag, element in header.items():
        vr = element["vr"]
        for value in element.get("Value") or ():
            if vr == "SQ":
                yield from values_of(value or {})
            elif isinstance(value, Mapping):
                yield tag, vr, name_text(value)
            elif value is not None:
                yield tag, vr, str(value).strip(" \0")


def shared_identifiers(texts: Iterable[Text], profile: Profile) -> frozenset[Identifier]:
    """What of these values is an identifier, by the rules of `screen.identifiers_of`.

    Values of attributes that an option of the profile keeps are none. Overrides for one SOP class or manufacturer are
    not looked at: what only they keep counts as an identifier.
    """
    rules = Rules(profile)
    by_tag: dict[tuple[str, str], set[str]] = {}
    for tag, vr, text in texts:
        by_tag.setdefault((tag, vr), set()).add(text)
    found: set[Identifier] = set()
    with quiet():
        for (tag, vr), values in by_tag.items():
            ds = Dataset()
            ds.add(DataElement(int(tag, 16), vr, sorted(values)))
            found |= identifiers_of(ds, rules.spares)
    return frozenset(each for each in found if each.kind in _SHARED)


class Patients:
    """Headers brought together by patient: those of one identifier, and those of one study, are one person's."""

    __slots__ = ("_parents", "_texts")

    def __init__(self) -> None:
        self._parents: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._texts: dict[tuple[str, ...], set[Text]] = {}

    def add(self, facts: HeaderFacts) -> None:
        """Take in a header."""
        patient, study = self._root(_patient(facts)), self._root(_study(facts))
        if patient != study:
            self._parents[study] = patient
            self._texts.setdefault(patient, set()).update(self._texts.pop(study, ()))
        self._texts.setdefault(patient, set()).update(facts.texts)

    def identifiers(self, profile: Profile) -> dict[tuple[str, str], frozenset[Identifier]]:
        """By domain and Patient ID: the identifiers of the person, from all their headers."""
        shared = {root: shared_identifiers(texts, profile) for root, texts in self._texts.items()}
        return {(key[1], key[2]): shared[self._root(key)] for key in list(self._parents) if key[0] == "patient"}

    def _root(self, key: tuple[str, ...]) -> tuple[str, ...]:
        parent = self._parents.setdefault(key, key)
        while parent != self._parents[parent]:
            parent = self._parents[parent] = self._parents[self._parents[parent]]
        self._parents[key] = parent
        return parent


def _patient(facts: HeaderFacts) -> tuple[str, ...]:
    return "patient", facts.domain, facts.patient_id


def _study(facts: HeaderFacts) -> tuple[str, ...]:
    return "study", facts.study_uid


def _first(header: Mapping[str, Any], tag: str) -> str:
    """The text of an element of the top level, several values as in a file."""
    values = (header.get(tag) or {}).get("Value") or ()
    return "\\".join("" if value is None else str(value).strip(" \0\t\r\n") for value in values)
