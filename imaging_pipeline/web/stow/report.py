"""What a store transaction answers: each object's fate, and the status that follows from all (PS3.18 10.5.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final


class Failure(IntEnum):
    """Failure Reason (0008,1197), PS3.18 Table I.2-2 and the general statuses of PS3.7 Annex C."""

    PROCESSING = 0x0110
    DUPLICATE = 0x0111
    UNKNOWN_REFERENCE = 0x0112
    CLASS_NOT_SUPPORTED = 0x0122
    OUT_OF_RESOURCES = 0xA700
    CLASS_MISMATCH = 0xA900
    NOT_UNDERSTOOD = 0xC000
    SYNTAX_NOT_SUPPORTED = 0xC122


COERCED: Final = 0xB000
"""Warning Reason (0008,1196): elements were changed when it was stored."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object that is kept.

    Attributes:
        sop_class_uid: its kind.
        study_uid: Study Instance UID.
        series_uid: Series Instance UID.
        sop_uid: SOP Instance UID.
        is_changed: elements were set by the service.
    """

    sop_class_uid: str
    study_uid: str
    series_uid: str
    sop_uid: str
    is_changed: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """An object that is not kept.

    Attributes:
        failure: why.
        sop_class_uid: its kind; empty where it could not be read.
        sop_uid: SOP Instance UID; empty where it could not be read.
    """

    failure: Failure
    sop_class_uid: str = ""
    sop_uid: str = ""


Fate = Stored | Refused


def status_of(fates: Sequence[Fate]) -> int:
    """The status of the whole transaction: PS3.18 Table 10.5.3-1, and 507 when there was no room for anything."""
    stored = [fate for fate in fates if isinstance(fate, Stored)]
    if stored:
        return 200 if len(stored) == len(fates) and not any(fate.is_changed for fate in stored) else 202
    is_full = any(isinstance(fate, Refused) and fate.failure is Failure.OUT_OF_RESOURCES for fate in fates)
    return 507 if is_full else 409


def report(fates: Sequence[Fate], base_url: str) -> dict[str, Any]:
    """The Store Instances Response Module (PS3.18 Annex I.2) in the DICOM JSON Model.

    Args:
        fates: of all objects.
        base_url: of the service, before ``/studies``.
    """
    stored = [fate for fate in fates if isinstance(fate, Stored)]
    refused = [fate for fate in fates if isinstance(fate, Refused)]
    found: dict[str, Any] = {}
    studies = {fate.study_uid for fate in stored}
    if len(studies) == 1:
        found["00081190"] = _value("UR", f"{base_url}/studies/{studies.pop()}")
    sequences = {
        "00081198": [_failed(fate) for fate in refused if fate.sop_uid],
        "00081199": [_referenced(fate, base_url) for fate in stored],
        "0008119A": [{"00081197": _value("US", fate.failure)} for fate in refused if not fate.sop_uid],
    }
    return found | {tag: {"vr": "SQ", "Value": items} for tag, items in sequences.items() if items}


def _referenced(fate: Stored, base_url: str) -> dict[str, Any]:
    place = f"{base_url}/studies/{fate.study_uid}/series/{fate.series_uid}/instances/{fate.sop_uid}"
    item = _named(fate.sop_class_uid, fate.sop_uid) | {"00081190": _value("UR", place)}
    return item | ({"00081196": _value("US", COERCED)} if fate.is_changed else {})


def _failed(fate: Refused) -> dict[str, Any]:
    return _named(fate.sop_class_uid, fate.sop_uid) | {"00081197": _value("US", fate.failure)}


def _named(sop_class_uid: str, sop_uid: str) -> dict[str, Any]:
    return {"00081150": _value("UI", sop_class_uid), "00081155": _value("UI", sop_uid)}


def _value(vr: str, value: str | int) -> dict[str, Any]:
    return {"vr": vr, "Value": [int(value) if vr == "US" else value]}
