"""One object's elements, one after the other: what is made of each.

Owns the carrying out of actions on values. Contains no reading or writing of files and no release decision. The output
is built from nothing: only what a rule has made or let through is in it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from pydicom.datadict import dictionary_keyword, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from imaging_pipeline.deid import codes, dates
from imaging_pipeline.deid.pixels import PIXEL_KEYWORDS
from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.deid.reading import MAX_DEPTH, count, element, values
from imaging_pipeline.deid.rules import Action, Rules, is_known, vr_matches
from imaging_pipeline.deid.screen import DUMMY_TEXT, TEXT_VRS, Index
from imaging_pipeline.errors import PoisonInput, Reason

CODE_KEYWORDS: Final = frozenset({"CodeValue", "LongCodeValue", "CodingSchemeDesignator", "CodeMeaning"})
"""What is kept of a coded item; the meaning is the dictionary's."""

_CODE_VALUE_KEYWORDS: Final = ("CodeValue", "LongCodeValue", "URNCodeValue")
_DECIMAL: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INTEGER: Final = re.compile(r"[+-]?\d{1,12}", re.ASCII)
_UNSAFE_TEXT: Final = re.compile(
    r"[^ -~]|[@^]|\d{7}|://|\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}", re.ASCII
)
"""What no released text may hold: other characters, addresses, names in DICOM's form, long numbers, dates."""
_MAX_DECIMAL: Final = 32
_DUMMIES: Final[dict[str, object]] = {
    "DA": "19000101", "TM": "000000", "DT": "19000101", "AS": "000Y", "DS": "0", "IS": "0",
    "OB": b"\0\0", "OW": b"\0\0", "UN": b"\0\0", "US": 0, "SS": 0, "UL": 0, "SL": 0, "FL": 0.0, "FD": 0.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose object it is: the patient before and after."""

    domain: str
    original_id: str
    pseudonym: str
    shift: timedelta


class Cleaner:
    """Builds the de-identified data set of one object and counts what was done.

    Attributes:
        actions: how many source elements ended with each action.
        uid_map: every UID that was replaced, original to new.
        meanings: code meanings written from the dictionary.
    """

    def __init__(self, profile: Profile, rules: Rules, keys: ProjectKeys, subject: Subject, index: Index) -> None:
        self._profile = profile
        self._rules = rules
        self._keys = keys
        self._subject = subject
        self._index = index
        self.actions: Counter[Action] = Counter()
        self.uid_map: dict[str, str] = {}
        self.meanings: set[str] = set()

    def clean(self, ds: Dataset, depth: int = 0) -> Dataset:
        """The de-identified form of ``ds``, with its sequences."""
        if depth > MAX_DEPTH:
            raise PoisonInput(Reason.NOT_DEIDENTIFIABLE, f"sequences nest deeper than {MAX_DEPTH}")
        out = Dataset()
        code = self._code(ds) if depth else {}
        for tag in sorted(ds.keys()):
            decoded = element(ds, tag)
            if decoded is not None and decoded.VR == "SQ":
                action, made = self._sequence(tag, decoded, depth)
            else:
                action, made = self._single(ds, tag, decoded, code, depth)
            self.actions[action] += 1
            if made is not None:
                out[tag] = made
        return out

    def uid(self, original: str) -> str:
        """The research UID of ``original``, remembered in `uid_map` when it differs."""
        if not original:
            return ""
        replaced = self._keys.uid(original)
        if replaced != original:
            self.uid_map[original] = replaced
        return replaced

    def _sequence(self, tag: BaseTag, decoded: DataElement, depth: int) -> tuple[Action, DataElement | None]:
        action = self._rules.action(tag)
        items = list(decoded.value or ())
        if action not in (Action.KEEP, Action.UID) or not vr_matches(tag, "SQ"):
            action = Action.EMPTY if action is Action.EMPTY else Action.REMOVE
            self.actions[action] += sum(count(item) for item in items)
            return action, _empty(tag) if action is Action.EMPTY else None
        kept = [self.clean(item, depth + 1) for item in items if self._is_releasable(item)]
        if items and not kept:
            return Action.REMOVE, None
        return action, DataElement(tag, "SQ", Sequence(kept))

    def _is_releasable(self, item: Dataset) -> bool:
        """Whether an item may stay: a coded one only when its code is known."""
        is_coded = any(keyword in item for keyword in _CODE_VALUE_KEYWORDS)
        if is_coded and not self._code(item):
            self.actions[Action.REMOVE] += count(item)
            return False
        return True

    def _code(self, item: Dataset) -> dict[str, str]:
        """The coded concept of an item with the dictionary's meaning, or nothing when it is not a known code."""
        found = {name: values(element(item, Tag(name))) for name in CODE_KEYWORDS if name in item}
        value_keyword = "CodeValue" if "CodeValue" in found else "LongCodeValue"
        code, scheme = found.get(value_keyword, []), found.get("CodingSchemeDesignator", [])
        if len(code) != 1 or len(scheme) != 1 or scheme[0] not in self._profile.coding_schemes:
            return {}
        meaning = codes.meaning(scheme[0], code[0])
        if meaning is None or self._index.in_text(code[0]):
            return {}
        self.meanings.add(meaning)
        return {value_keyword: code[0], "CodingSchemeDesignator": scheme[0], "CodeMeaning": meaning}

    def _single(
        self, ds: Dataset, tag: BaseTag, decoded: DataElement | None, code: dict[str, str], depth: int
    ) -> tuple[Action, DataElement | None]:
        keyword = dictionary_keyword(tag) if is_known(tag) else ""
        if keyword in code:
            return Action.CLEAN, DataElement(tag, dictionary_VR(tag), code[keyword])
        action = self._rules.action(tag)
        if action is Action.EMPTY:
            return action, _empty(tag)
        if decoded is None or action is Action.REMOVE:
            return Action.REMOVE, None
        if action is Action.DUMMY:
            return self._dummy(tag, keyword, values(decoded), depth)
        if not vr_matches(tag, decoded.VR) or (depth and keyword in PIXEL_KEYWORDS):
            return Action.REMOVE, None  # only the object's own pixels have been reviewed
        return self._fitting(ds, tag, keyword, action, decoded)

    def _fitting(
        self, ds: Dataset, tag: BaseTag, keyword: str, action: Action, decoded: DataElement
    ) -> tuple[Action, DataElement]:
        """An element of the VR it should have: shifted, its UIDs replaced, or kept when its value may be."""
        if action is Action.CLEAN:
            return self._shifted(ds, tag, keyword, decoded)
        if action is Action.UID:
            return action, _filled(tag, "UI", [self.uid(text) for text in values(decoded)])
        made = self._kept(keyword, decoded)
        if made is not None:
            return action, made
        if keyword in self._profile.type1:
            return Action.DUMMY, DataElement(tag, decoded.VR, DUMMY_TEXT)
        return Action.EMPTY, _empty(tag)

    def _dummy(self, tag: BaseTag, keyword: str, texts: list[str], depth: int) -> tuple[Action, DataElement | None]:
        vr = dictionary_VR(tag).split(" or ")[0]
        original = "\\".join(texts)
        made: object = _DUMMIES.get(vr, DUMMY_TEXT)
        if keyword in ("PatientID", "PatientName") and depth == 0:
            made = self._subject.pseudonym
        elif keyword == "PatientID" and original:
            made = self._keys.patient_id(self._subject.domain, original)
        elif keyword == "AccessionNumber":
            if not original:
                return Action.EMPTY, _empty(tag)
            made = self._keys.accession_number(self._subject.domain, original)
        return Action.DUMMY, DataElement(tag, vr, made)

    def _shifted(self, ds: Dataset, tag: BaseTag, keyword: str, decoded: DataElement) -> tuple[Action, DataElement]:
        """A date or time moved by the patient's shift; what is not one is emptied, never kept."""
        texts = values(decoded)
        moved = [self._moved(ds, keyword, decoded.VR, position, text) or "" for position, text in enumerate(texts)]
        if any(moved) or not any(texts):
            return Action.CLEAN, _filled(tag, decoded.VR, moved)
        return Action.EMPTY, _empty(tag)

    def _moved(self, ds: Dataset, keyword: str, vr: str, position: int, text: str) -> str | None:
        shift, earliest = self._subject.shift, self._profile.earliest_date
        if vr == "DT":
            return dates.shift_datetime(text, shift, earliest)
        other = dates.partner(keyword)
        others = values(element(ds, Tag(other))) if other is not None and other in ds else []
        paired = others[position] if position < len(others) else ""
        move = dates.shift_date if vr == "DA" else dates.shift_time
        return move(text, paired, shift, earliest)

    def _kept(self, keyword: str, decoded: DataElement) -> DataElement | None:
        """The element when its value is of the kind that may stay, or None."""
        if decoded.VR == "CS":
            return self._code_strings(keyword, decoded)
        texts = [] if keyword in self._profile.keep_binary else values(decoded)
        if decoded.VR in TEXT_VRS:
            is_fit = not any(_UNSAFE_TEXT.search(text) or self._index.in_text(text) for text in texts)
        elif decoded.VR in ("DS", "IS"):
            pattern = _DECIMAL if decoded.VR == "DS" else _INTEGER
            is_fit = all(not text or (pattern.fullmatch(text) and len(text) <= _MAX_DECIMAL) for text in texts)
            is_fit = is_fit and not any(self._index.in_number(text) for text in texts)
        elif decoded.VR in ("US", "SS", "AT"):
            is_fit = True  # too small for an identifier
        else:
            is_fit = not any(self._index.in_number(text) for text in texts)
        return decoded if is_fit else None

    def _code_strings(self, keyword: str, decoded: DataElement) -> DataElement | None:
        """Defined terms stay in their places; other values, and terms that are a name in this object, are emptied."""
        essential = self._profile.essential.get(keyword, frozenset())
        terms = [codes.defined_term(text) or "" for text in values(decoded)]
        fit = [term if term in essential or (term and not self._index.in_text(term)) else "" for term in terms]
        while fit and not fit[-1]:
            fit.pop()
        if not fit and terms:
            return None
        return _filled(decoded.tag, "CS", fit)


def _filled(tag: BaseTag, vr: str, texts: list[str]) -> DataElement:
    return DataElement(tag, vr, texts if len(texts) > 1 else "".join(texts))


def _empty(tag: BaseTag) -> DataElement:
    vr = dictionary_VR(tag).split(" or ")[0]
    return DataElement(tag, vr, Sequence() if vr == "SQ" else None)
