"""What is done with an attribute, by tag, place and VR alone, and why.

Owns the resolution of Table E.1-1's actions under a profile and the default for attributes the table does not list.
Contains no values: whether a kept value is fit to be kept is judged in `cleaner`.

The order: an override of the site; what no data set should hold; the options in force; the Basic Profile's own action;
for attributes the table does not list, their VR. A compound action is resolved by the attribute's type in its IOD
(PS3.3, see `iod`) so that the object stays valid and no more is kept than must be: Type 1 takes the last letter
(``X/Z/D`` is D), Type 2 is emptied, Type 3 takes the first letter. Where the IOD is not known, ``X/Z`` and ``X/Z/D``
empty the value, ``X/D`` removes it and ``Z/D`` empties it. ``X/Z/U*`` keeps the references, with their UIDs replaced. A
sequence that must not be empty is kept with its items cleaned.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VR

from imaging_pipeline.deid.iod import load_types
from imaging_pipeline.deid.options import CLEANING, DESCRIPTORS, DEVICE, FULL_DATES, MODIFIED_DATES, PATIENT, RETAINING
from imaging_pipeline.deid.private import PrivateElement, safe_elements
from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.table import Row, load_table

TEMPORAL_VRS: Final = frozenset({"DA", "TM", "DT"})
NUMBER_VRS: Final = frozenset({"DS", "IS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT"})
FREE_TEXT_VRS: Final = frozenset({"LO", "SH", "ST", "LT", "UC", "UT"})
"""Representations of text that people write and that can be cleaned."""
REPLACED: Final = frozenset({"PatientID", "PatientName", "AccessionNumber"})
"""Attributes that always carry a pseudonym, where the table empties them."""

OVERRIDE: Final = "override"
"""Stands in `Decision.option` where a site has decided."""

_KEEPING: Final = frozenset({*RETAINING, FULL_DATES, OVERRIDE})
_KEPT_BY_VR: Final = (
    (frozenset({"SQ"}), "a sequence, its items are judged one by one"),
    (frozenset({"CS"}), "defined terms"),
)

_LENGTH_TO_END: Final = 0x00080001
_MANDATORY: Final = ("1", "1C")
_MAY_BE_EMPTY: Final = ("2", "2C")


class Action(enum.StrEnum):
    """Action codes of PS3.15 Table E.1-1a."""

    DUMMY = "D"
    EMPTY = "Z"
    REMOVE = "X"
    KEEP = "K"
    CLEAN = "C"
    UID = "U"


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done with an attribute.

    Attributes:
        action: the one action that is left after all choices.
        why: the row, option, override or default it comes from, in words.
        option: the option of PS3.15 E.3 that asked for it, or `OVERRIDE`; empty when none did.
    """

    action: Action
    why: str
    option: str = ""


class Rules:
    """The actions of one profile for one kind of object; asked once per attribute and place, and remembered."""

    __slots__ = ("_actions", "_bases", "_overrides", "_private", "_profile", "_sop_class", "_spared")

    def __init__(self, profile: Profile, sop_class: str = "", manufacturer: str = "") -> None:
        self._profile = profile
        self._sop_class = sop_class
        valid = [found for found in profile.overrides if found.applies(sop_class, manufacturer)]
        self._overrides = {found.tag: found for found in reversed(valid) if found.creator is None}
        self._private = {
            PrivateElement(found.creator, found.tag >> 16, found.tag & 0xFF): found
            for found in reversed(valid)
            if found.creator is not None
        }
        self._actions: dict[tuple[int, int], Decision] = {}
        self._bases: dict[tuple[int, int], Action] = {}
        self._spared: dict[tuple[int, int], bool] = {}

    @property
    def max_age(self) -> int | None:
        """Ages above it, in years, are capped; None keeps every age."""
        return self._profile.max_age

    def action(self, tag: int, sequence: int = 0) -> Action:
        """The action for ``tag``, whatever VR the object claims (see `vr_matches`).

        Args:
            tag: the attribute.
            sequence: tag of the sequence it is in; 0 at the top level.
        """
        return self.decide(tag, sequence).action

    def decide(self, tag: int, sequence: int = 0) -> Decision:
        """The action for ``tag`` and the reason for it."""
        place = (int(tag), int(sequence))
        decision = self._actions.get(place)
        if decision is None:
            decision = self._actions[place] = self._resolve(tag, sequence)
        return decision

    def keeps(self, tag: int, sequence: int = 0) -> bool:
        """Whether an option, or the site, keeps an attribute as it is: what it holds is then no leak."""
        decision = self.decide(tag, sequence)
        return decision.action is Action.KEEP and decision.option in _KEEPING

    def spares(self, tag: int, sequence: int) -> bool:
        """Whether a value is kept on purpose, or is a description that is cleaned: as a whole it is no identifier."""
        place = (tag, sequence)
        found = self._spared.get(place)
        if found is None:
            decision = self.decide(tag, sequence)
            is_cleaned = decision.action is Action.CLEAN and decision.option in _KEEPING | {*CLEANING}
            found = self.keeps(tag, sequence) or (is_cleaned and load_table().row(tag) is not None)
            self._spared[place] = found
        return found

    def fallback(self, tag: int, sequence: int = 0) -> Action:
        """The action when nothing of a cleaned or kept value may stay: without any option or allow-list."""
        place = (int(tag), int(sequence))
        action = self._bases.get(place)
        if action is None:
            row = load_table().row(tag)
            keyword, vrs = _known(tag)
            found = self._basic(row, keyword, vrs, sequence).action if row else self._default(keyword, sequence).action
            action = self._bases[place] = found if found in (Action.DUMMY, Action.EMPTY) else Action.REMOVE
        return action

    def private(self, found: PrivateElement) -> tuple[str, str] | None:
        """VR and reason when a private element may be released, or None.

        Returns:
            The VR it must have (``OW or OB`` where either may be) and why it is safe.
        """
        override = self._private.get(found)
        if override is not None:
            return (override.vr, f"override: {override.reason}") if override.action == "K" else None
        vr = safe_elements().get(found, "")
        return (vr, "option retain_safe_private: PS3.15 Table E.3.10-1") if vr else None

    def _resolve(self, tag: int, sequence: int) -> Decision:
        override = self._overrides.get(tag)
        if override is not None:
            return Decision(Action(override.action), f"override: {override.reason}", OVERRIDE)
        if not is_known(tag):
            return Decision(Action.REMOVE, "default deny: no standard attribute of a data set")
        keyword, vrs = _known(tag)
        if keyword in self._profile.remove:
            return Decision(Action.REMOVE, "the profile's list remove")
        if keyword in REPLACED:
            return Decision(Action.DUMMY, "always replaced by a pseudonym")
        row = load_table().row(tag)
        if vrs & TEMPORAL_VRS:
            decision = self._temporal(row, keyword)
        else:
            decision = self._optional(row, vrs) if row is not None else self._unlisted(keyword, vrs)
        if decision is not None:
            return decision
        return self._basic(row, keyword, vrs, sequence) if row is not None else self._default(keyword, sequence)

    def _temporal(self, row: Row | None, keyword: str) -> Decision | None:
        """Dates and times follow the two options for them, and no other: one real date gives the shift away."""
        options = row.options if row is not None else {MODIFIED_DATES: "C", FULL_DATES: "K"}
        if self._profile.keeps_dates and FULL_DATES in options:
            return Decision(Action.KEEP, f"option {FULL_DATES}", FULL_DATES)
        if not self._profile.shifts_dates or MODIFIED_DATES not in options:
            return None
        if keyword in self._profile.never_shifted:
            return None
        return Decision(Action.CLEAN, f"option {MODIFIED_DATES}", MODIFIED_DATES)

    def _optional(self, row: Row, vrs: frozenset[str]) -> Decision | None:
        """What an option in force asks for; to keep goes before to clean."""
        asked = [name for name in (*RETAINING, *CLEANING) if name in self._profile.options and name in row.options]
        for name in asked:
            if row.options[name] == "K":
                return Decision(Action.KEEP, f"option {name}", name)
        for name in asked:
            if "SQ" in vrs or vrs & FREE_TEXT_VRS:
                return Decision(Action.CLEAN, f"option {name}", name)
            if vrs == {"AE"} and name == DEVICE:
                return Decision(Action.DUMMY, f"option {name}: a title that is cleaned is a dummy", name)
            if name == PATIENT and vrs <= {"CS"}:
                return Decision(Action.KEEP, f"option {name}", name)
        return None

    def _unlisted(self, keyword: str, vrs: frozenset[str]) -> Decision | None:
        """Attributes PS3.15 does not list: by VR, and only what cannot hold an identifier or can be cleaned."""
        if vrs == {"UI"}:
            return Decision(Action.UID, "not in Table E.1-1: a UID")
        kept = next((words for kinds, words in _KEPT_BY_VR if vrs & kinds), "numbers" if vrs <= NUMBER_VRS else "")
        if kept:
            return Decision(Action.KEEP, f"not in Table E.1-1: {kept}")
        if keyword in self._profile.keep_binary or keyword in self._profile.keep_text:
            name = "keep_binary" if keyword in self._profile.keep_binary else "keep_text"
            return Decision(Action.KEEP, f"not in Table E.1-1: the profile's list {name}")
        if DESCRIPTORS in self._profile.options and vrs <= FREE_TEXT_VRS:
            return Decision(Action.CLEAN, f"not in Table E.1-1: text, option {DESCRIPTORS}", DESCRIPTORS)
        return None

    def _basic(self, row: Row, keyword: str, vrs: frozenset[str], sequence: int) -> Decision:
        """The Basic Profile's action, a compound one resolved by the attribute's type."""
        code = row.basic_profile
        kind = self._type(keyword, sequence)
        why = f"Basic Profile {code}" + (f", Type {kind}" if kind and ("/" in code or code == "X") else "")
        if "U" in code or (vrs == {"UI"} and code == "D"):
            return Decision(Action.UID, why)
        if "SQ" in vrs and "D" in code:
            return Decision(_sequence_action(code, kind), why)
        return Decision(_single_action(code, kind, is_sequence="SQ" in vrs), why)

    def _default(self, keyword: str, sequence: int) -> Decision:
        kind = self._type(keyword, sequence)
        if kind in _MANDATORY:
            return Decision(Action.DUMMY, f"default deny: not in Table E.1-1, Type {kind}")
        if kind in _MAY_BE_EMPTY:
            return Decision(Action.EMPTY, f"default deny: not in Table E.1-1, Type {kind}")
        return Decision(Action.REMOVE, "default deny: not in Table E.1-1")

    def _type(self, keyword: str, sequence: int) -> str:
        """The attribute's type in its IOD, where the profile's own lists do not say it."""
        if keyword in self._profile.type1:
            return "1"
        within = _known(sequence)[0] if sequence else ""
        kind = load_types().type_of(keyword, self._sop_class, within) if within or not sequence else ""
        return "2" if kind in ("", "3") and keyword in self._profile.type2 else kind


def _single_action(code: str, kind: str, *, is_sequence: bool) -> Action:
    """The action for a code and a type; sequences come here only with codes that need no dummy."""
    if code in ("Z", "D", "K"):
        return Action(code)
    if kind in _MAY_BE_EMPTY:
        return Action.EMPTY
    if code == "X":
        return Action.DUMMY if kind == "1" and not is_sequence else Action.REMOVE
    if kind in _MANDATORY:
        return Action.DUMMY if "D" in code else Action.EMPTY
    if kind == "3":
        return Action(code[0])
    return Action.EMPTY if "Z" in code else Action.REMOVE


def _sequence_action(code: str, kind: str) -> Action:
    if kind in _MANDATORY:
        return Action.CLEAN
    if kind in _MAY_BE_EMPTY or code == "Z/D":
        return Action.EMPTY
    return Action.REMOVE


@lru_cache(maxsize=8192)
def _known(tag: int) -> tuple[str, frozenset[str]]:
    """Keyword and possible VRs of a standard attribute; empty for others."""
    if not dictionary_has_tag(tag):
        return "", frozenset()
    return dictionary_keyword(tag), frozenset(dictionary_VR(tag).split(" or "))


@lru_cache(maxsize=8192)
def known_keyword(tag: int) -> str:
    """The keyword of an attribute of a data set; empty for all others."""
    return _known(tag)[0] if is_known(tag) else ""


@lru_cache(maxsize=8192)
def is_known(tag: int) -> bool:
    """Whether ``tag`` is a standard attribute that may occur in a data set at all.

    Private groups, group lengths, Length to End (retired: it counts bytes of a message), command and file-set groups,
    curves (50xx) and overlays (60xx) never are.
    """
    group, element = tag >> 16, tag & 0xFFFF
    if group % 2 or group < 0x0008 or 0x5000 <= group <= 0x50FF or 0x6000 <= group <= 0x60FF:
        return False
    if element == 0 or tag == _LENGTH_TO_END:
        return False
    return dictionary_has_tag(tag) and bool(dictionary_keyword(tag))


@lru_cache(maxsize=8192)
def vr_matches(tag: int, vr: str) -> bool:
    """Whether an element of ``vr`` may be kept as ``tag``: an unexpected VR is a place to hide text in."""
    vrs = dictionary_VR(tag)
    return vr == vrs or vr in vrs.split(" or ") or (vr in ("OB", "OW") and ("OB" in vrs or "OW" in vrs))
