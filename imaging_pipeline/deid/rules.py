"""What is done with an attribute, by tag and VR alone.

Owns the resolution of Table E.1-1's actions under a profile and the default for attributes the table does not list.
Contains no values: whether a kept value is fit to be kept is judged in `cleaner`.

Compound actions leave the choice to the type of the attribute in its IOD. They are resolved so that the object stays
valid and nothing is kept: ``X/Z`` and ``X/Z/D`` empty the value, ``X/D`` removes the attribute, ``Z/D`` empties it, and
where the profile lists the attribute as Type 1 a dummy is written instead. Sequences are emptied for ``X/Z`` and
``Z/D`` and removed otherwise, ``D`` and ``X/Z/D`` included: the released IODs require none of those. ``X/Z/U*`` keeps
the references, with their UIDs replaced.
"""

from __future__ import annotations

import enum
from typing import Final

from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VR

from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.table import Row, load_table

TEMPORAL_VRS: Final = frozenset({"DA", "TM", "DT"})
NUMBER_VRS: Final = frozenset({"DS", "IS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT"})
REPLACED: Final = frozenset({"PatientID", "PatientName", "AccessionNumber"})
"""Attributes that always carry a pseudonym, where the table empties them."""


class Action(enum.StrEnum):
    """Action codes of PS3.15 Table E.1-1a."""

    DUMMY = "D"
    EMPTY = "Z"
    REMOVE = "X"
    KEEP = "K"
    CLEAN = "C"
    UID = "U"


class Rules:
    """The actions of one profile; asked once per attribute and remembered."""

    __slots__ = ("_actions", "_profile")

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._actions: dict[int, Action] = {}

    def action(self, tag: int) -> Action:
        """The action for ``tag``, whatever VR the object claims (see `vr_matches`)."""
        action = self._actions.get(tag)
        if action is None:
            action = self._actions[tag] = self._resolve(tag)
        return action

    def _resolve(self, tag: int) -> Action:
        if not is_known(tag):
            return Action.REMOVE
        keyword, vrs = dictionary_keyword(tag), frozenset(dictionary_VR(tag).split(" or "))
        if keyword in self._profile.remove:
            return Action.REMOVE
        if keyword in REPLACED:
            return Action.DUMMY
        if keyword in self._profile.never_shifted or not self._profile.shifts_dates:
            is_shifted = False
        else:
            is_shifted = bool(vrs & TEMPORAL_VRS)
        row = load_table().row(tag)
        if row is not None:
            return self._listed(row, keyword, vrs, is_shifted=is_shifted)
        return self._unlisted(keyword, vrs, is_shifted=is_shifted)

    def _listed(self, row: Row, keyword: str, vrs: frozenset[str], *, is_shifted: bool) -> Action:
        code = row.basic_profile
        if is_shifted and row.options.get("retain_longitudinal_modified_dates") == "C":
            return Action.CLEAN
        if "U" in code or (vrs == {"UI"} and code == "D"):
            return Action.UID
        if code in ("X", "Z", "K"):
            return Action(code)
        if "SQ" in vrs:
            return Action.EMPTY if code in ("X/Z", "Z/D") else Action.REMOVE
        if code == "D" or ("D" in code and keyword in self._profile.type1):
            return Action.DUMMY
        return Action.EMPTY if "Z" in code else Action.REMOVE

    def _unlisted(self, keyword: str, vrs: frozenset[str], *, is_shifted: bool) -> Action:
        if vrs == {"UI"}:
            return Action.UID
        if is_shifted:
            return Action.CLEAN
        is_kept = (
            bool(vrs & {"SQ", "CS"})
            or vrs <= NUMBER_VRS
            or keyword in self._profile.keep_text
            or keyword in self._profile.keep_binary
        )
        if is_kept:
            return Action.KEEP
        if keyword in self._profile.type1:
            return Action.DUMMY
        return Action.EMPTY if keyword in self._profile.type2 else Action.REMOVE


def is_known(tag: int) -> bool:
    """Whether ``tag`` is a standard attribute that may occur in a data set at all.

    Private groups, group lengths, command and file-set groups, curves (50xx) and overlays (60xx) never are.
    """
    group, element = tag >> 16, tag & 0xFFFF
    if group % 2 or group < 0x0008 or element == 0 or 0x5000 <= group <= 0x50FF or 0x6000 <= group <= 0x60FF:
        return False
    return dictionary_has_tag(tag) and bool(dictionary_keyword(tag))


def vr_matches(tag: int, vr: str) -> bool:
    """Whether an element of ``vr`` may be kept as ``tag``: an unexpected VR is a place to hide text in."""
    vrs = dictionary_VR(tag)
    return vr == vrs or vr in vrs.split(" or ") or (vr in ("OB", "OW") and ("OB" in vrs or "OW" in vrs))
