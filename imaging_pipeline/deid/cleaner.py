"""One object's elements, one after the other: what is made of each.

Owns the carrying out of actions on values. Contains no reading or writing of files and no release decision. The output
is built from nothing: only what a rule has made or let through is in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Final

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from imaging_pipeline.deid import content, dates, documents, private
from imaging_pipeline.deid.content import CODE_KEYWORDS, DUMMY_CODE, Codes
from imaging_pipeline.deid.element_values import LEGAL_UID, dummy, empty, filled, fitted
from imaging_pipeline.deid.fitness import Judge
from imaging_pipeline.deid.options import CLEANING, DESCRIPTORS, PATIENT, SAFE_PRIVATE, UIDS
from imaging_pipeline.deid.pixels import PIXEL_KEYWORDS
from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.deid.reading import MAX_DEPTH, attribute, decoded_of, element, elements, tag_of, values
from imaging_pipeline.deid.rules import (
    FREE_TEXT_VRS,
    NUMBER_VRS,
    TEMPORAL_VRS,
    Action,
    Decision,
    Rules,
    known_keyword,
    vr_matches,
)
from imaging_pipeline.deid.screen import DUMMY_TEXT, TEXT_VRS, Index
from imaging_pipeline.deid.text import TextCleaner
from imaging_pipeline.errors import PoisonInput, Reason

CONTENT_SEQUENCES: Final = frozenset(
    {"ContentSequence", "AcquisitionContextSequence", "SpecimenPreparationStepContentItemSequence",
     "SpecimenDescriptionContentItemSequence", "SpecimenLocalizationContentItemSequence"}
)  # fmt: skip
"""Sequences of content items (PS3.3 10.2, C.17.3)."""
_ACTIONS: Final = {str(action): action for action in Action}


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose object it is: the patient before and after.

    Attributes:
        shift: how far dates move; None where they are removed.
    """

    domain: str
    original_id: str
    pseudonym: str
    shift: timedelta | None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the object a data set is.

    Attributes:
        sequence: tag of the sequence it is an item of; 0 at the top level.
        path: tags of the sequences it is in, each with a dot behind it.
        depth: number of those sequences.
        code: the coded concept as it is released, for an item that is one.
        is_masked: a content item whose values name somebody or something.
    """

    sequence: int = 0
    path: str = ""
    depth: int = 0
    code: Mapping[str, str] | None = None
    is_masked: bool = False


class Cleaner:
    """Builds the de-identified data set of one object and counts what was done.

    Attributes:
        attribute_actions: number of source elements by place and action (``00081140.00081155 U``).
        uid_map: every UID that was replaced, original to new.
        accession_map: the same of accession numbers.
        meanings: code meanings written into the output.
    """

    def __init__(self, profile: Profile, rules: Rules, keys: ProjectKeys, subject: Subject, index: Index) -> None:
        self._profile = profile
        self._rules = rules
        self._keys = keys
        self._subject = subject
        self._index = index
        self._text: TextCleaner | None = None
        if not profile.options.isdisjoint((*CLEANING, PATIENT, SAFE_PRIVATE)) or any(
            o.action == "C" for o in profile.overrides
        ):
            shift = timedelta(0) if profile.keeps_dates else subject.shift
            self._text = _text_cleaner(index, shift, profile.earliest_date, profile.keep_words)
        self._judge = Judge(profile, index)
        self._codes = Codes(profile, index, self._text)
        self.attribute_actions: dict[str, int] = {}
        self.uid_map: dict[str, str] = {}
        self.accession_map: dict[str, str] = {}
        self.meanings = self._codes.meanings

    @property
    def actions(self) -> Counter[Action]:
        """Number of source elements by action."""
        found: Counter[Action] = Counter()
        for name, number in self.attribute_actions.items():
            found[_ACTIONS[name[-1]]] += number
        return found

    def clean(self, ds: Dataset) -> Dataset:
        """The de-identified form of ``ds``, with its sequences."""
        return self._data_set(ds, _Place())

    def count(self, path: str, action: Action) -> None:
        """Note what became of one source element."""
        name = f"{path} {action}"
        self.attribute_actions[name] = self.attribute_actions.get(name, 0) + 1

    def uid(self, original: str) -> str:
        """The research UID of ``original``, remembered in `uid_map` when it differs."""
        if not original:
            return ""
        if UIDS in self._profile.options and LEGAL_UID.fullmatch(original):
            return original
        replaced = self._keys.uid(original)
        if replaced != original:
            self.uid_map[original] = replaced
        return replaced

    def _data_set(self, ds: Dataset, place: _Place) -> Dataset:
        if place.depth > MAX_DEPTH:
            raise PoisonInput(Reason.NOT_DEIDENTIFIABLE, f"sequences nest deeper than {MAX_DEPTH}")
        fields: dict[BaseTag, DataElement | RawDataElement] = {}
        out = Dataset(fields)
        blocks: dict[BaseTag, bool] = {}
        for tag, found in sorted(ds.items(), key=lambda pair: int(pair[0])):
            is_private = bool(tag >> 16 & 1)
            if is_private and private.is_creator(tag):
                blocks[tag] = False
                continue
            action, made = self._private(ds, tag, place) if is_private else self._element(ds, tag, found, place)
            self.count(f"{place.path}{tag:08X}", action)
            if made is None:
                continue
            if is_private or made.VR == "SQ":
                out[tag] = made
            else:
                fields[made.tag] = made  # as `out[tag]` does, which takes longer
            if is_private:
                blocks[private.creator_tag(tag)] = True
        for tag, is_used in blocks.items():
            self._removed(ds, tag, f"{place.path}{tag:08X}", Action.KEEP if is_used else Action.REMOVE)
            if is_used:
                out[tag] = DataElement(tag, "LO", values(element(ds, tag))[0])
        return out

    def _element(
        self, ds: Dataset, tag: BaseTag, found: DataElement | RawDataElement, place: _Place
    ) -> tuple[Action, DataElement | None]:
        decision = self._rules.decide(tag, place.sequence)
        is_gone = decision.action is Action.REMOVE and place.code is None and not place.is_masked
        if is_gone and found.VR not in (None, "SQ", "UN"):
            return Action.REMOVE, None  # most of what is removed need not be read at all
        decoded = decoded_of(ds, tag, found)
        if decoded is not None and decoded.VR == "SQ":
            return self._sequence(tag, decoded, decision, place)
        return self._single(ds, tag, decoded, decision, place)

    def _removed(self, ds: Dataset, tag: BaseTag, path: str, action: Action) -> None:
        """Count an element that is gone with all that was in it."""
        self.count(path, action)
        decoded = element(ds, tag)
        if decoded is not None and decoded.VR == "SQ":
            self._removed_items(list(decoded.value or ()), path)

    def _removed_items(self, items: list[Dataset], path: str) -> None:
        for item in items:
            for inner, *_ in elements(item):
                self.count(f"{path}.{_without_numbers(inner)}", Action.REMOVE)

    def _sequence(
        self, tag: BaseTag, decoded: DataElement, decision: Decision, place: _Place
    ) -> tuple[Action, DataElement | None]:
        action, items, path = decision.action, list(decoded.value or ()), f"{place.path}{tag:08X}"
        if action not in (Action.KEEP, Action.UID, Action.CLEAN) or not vr_matches(int(tag), "SQ"):
            action = Action.EMPTY if action is Action.EMPTY else Action.REMOVE
            self._removed_items(items, path)
            return action, empty(tag) if action is Action.EMPTY else None
        kept = self._items(tag, items, _Place(tag, f"{path}.", place.depth + 1, is_masked=place.is_masked), decision)
        if items and not kept:
            action = self._rules.fallback(tag, place.sequence)
            if action is Action.DUMMY and content.is_coded(items[0]):
                return action, DataElement(tag, "SQ", Sequence([content.dummy_item()]))
            return (action, empty(tag)) if action is Action.EMPTY else (Action.REMOVE, None)
        return action, DataElement(tag, "SQ", Sequence(kept))

    def _items(self, tag: BaseTag, items: list[Dataset], place: _Place, decision: Decision) -> list[Dataset]:
        """The items that may stay, cleaned; a sequence kept for its type alone holds no code of its own."""
        is_content = known_keyword(int(tag)) in CONTENT_SEQUENCES
        is_kept_for_type = decision.action is Action.CLEAN and not decision.option
        kept = []
        for item in items:
            code: Mapping[str, str] | None = None
            if content.is_coded(item):
                is_replaced = is_kept_for_type or (place.is_masked and tag == tag_of("ConceptCodeSequence"))
                code = DUMMY_CODE if is_replaced else self._codes.of(item)
            is_named = not is_content or (content.may_stay(item, self._profile) and self._has_concepts(item))
            if code == {} or not is_named:
                self._removed_items([item], place.path[:-1])
                continue
            is_masked = content.is_identifying(item) if is_content else place.is_masked
            kept.append(self._data_set(item, _Place(place.sequence, place.path, place.depth, code, is_masked)))
        return kept

    def _has_concepts(self, item: Dataset) -> bool:
        """Whether the concepts a content item is made of may stay: without them it is no content item."""
        for keyword in ("ConceptNameCodeSequence", "ConceptCodeSequence"):
            named = attribute(item, keyword)
            if named is not None and named.VR == "SQ" and named.value and not self._codes.of(named.value[0]):
                return keyword == "ConceptCodeSequence" and content.is_identifying(item)
        return True

    def _single(
        self, ds: Dataset, tag: BaseTag, decoded: DataElement | None, decision: Decision, place: _Place
    ) -> tuple[Action, DataElement | None]:
        keyword = known_keyword(int(tag))
        replaced = self._replaced(tag, keyword, place) if place.code is not None or place.is_masked else None
        if replaced is not None:
            return replaced
        if decision.action is Action.EMPTY:
            return Action.EMPTY, empty(tag)
        if decoded is None or decision.action is Action.REMOVE:
            return Action.REMOVE, None
        if decision.action is Action.DUMMY:
            return self._dummy(ds, tag, keyword, values(decoded), place.depth)
        if not vr_matches(int(tag), decoded.VR) or (place.depth and keyword in PIXEL_KEYWORDS):
            return Action.REMOVE, None  # only the object's own pixels have been reviewed
        return self._fitting(ds, decoded, keyword, decision, place)

    @staticmethod
    def _replaced(tag: BaseTag, keyword: str, place: _Place) -> tuple[Action, DataElement | None] | None:
        """What stands in a coded concept, and for the text of a content item that names somebody; None elsewhere."""
        if place.code is not None and keyword in place.code:
            return Action.CLEAN, DataElement(tag, dictionary_VR(tag), place.code[keyword])
        if place.code is not None and keyword in CODE_KEYWORDS:
            return Action.REMOVE, None
        if place.is_masked and keyword == "TextValue":
            return Action.DUMMY, DataElement(tag, "UT", DUMMY_TEXT)
        return None

    def _fitting(
        self, ds: Dataset, decoded: DataElement, keyword: str, decision: Decision, place: _Place
    ) -> tuple[Action, DataElement | None]:
        """An element of the VR it should have: shifted, cleaned, its UIDs replaced, or kept when its value may be."""
        tag, action = decoded.tag, decision.action
        if action is Action.CLEAN and decoded.VR in TEMPORAL_VRS:
            return self._shifted(ds, decoded, keyword)
        if decoded.VR == "UI":
            return action, filled(tag, "UI", [self.uid(text) for text in values(decoded)])
        made = self._cleaned(decoded) if action is Action.CLEAN else self._judge.kept(keyword, decoded, decision)
        if made is None and decision.action is Action.KEEP and self._may_be_cleaned(keyword, decoded.VR):
            action, made = Action.CLEAN, self._cleaned(decoded)
        if made is not None:
            return action, made
        fallback = self._rules.fallback(tag, place.sequence)
        if fallback is Action.DUMMY and decoded.VR in TEXT_VRS | {"CS"}:
            return Action.DUMMY, DataElement(tag, decoded.VR, DUMMY_TEXT)
        if action is Action.CLEAN and fallback is Action.REMOVE:
            return Action.REMOVE, None
        return Action.EMPTY, empty(tag)

    def _may_be_cleaned(self, keyword: str, vr: str) -> bool:
        """Whether a text that may not stay as it is can be cleaned instead; names of makers and programs cannot."""
        return DESCRIPTORS in self._profile.options and vr in FREE_TEXT_VRS and keyword not in self._profile.type1

    def _dummy(
        self, ds: Dataset, tag: BaseTag, keyword: str, texts: list[str], depth: int
    ) -> tuple[Action, DataElement | None]:
        vr = dictionary_VR(tag).split(" or ")[0]
        original = "\\".join(texts)
        is_reversible = self._profile.identifiers == "ff1"
        made = dummy(vr)
        if keyword in ("PatientID", "PatientName") and depth == 0:
            made = self._subject.pseudonym
        elif keyword == "PatientID" and original:
            made = self._keys.patient_id(self._subject.domain, original, reversible=is_reversible)
        elif keyword == "AccessionNumber":
            if not original:
                return Action.EMPTY, empty(tag)
            made = self._keys.accession_number(self._subject.domain, original, reversible=is_reversible)
            self.accession_map[original] = made
        elif keyword == "EncapsulatedDocument":
            made = documents.placeholder(ds)
        return Action.DUMMY, DataElement(tag, vr, made)

    def _shifted(self, ds: Dataset, decoded: DataElement, keyword: str) -> tuple[Action, DataElement]:
        """A date or time moved by the patient's shift; what is not one is emptied, never kept."""
        texts, tag = values(decoded), decoded.tag
        moved = [self._moved(ds, keyword, decoded.VR, position, text) or "" for position, text in enumerate(texts)]
        if any(moved) or not any(texts):
            return Action.CLEAN, filled(tag, decoded.VR, moved)
        return Action.EMPTY, DataElement(tag, decoded.VR, None)

    def _moved(self, ds: Dataset, keyword: str, vr: str, position: int, text: str) -> str | None:
        shift, earliest = self._subject.shift, self._profile.earliest_date
        if shift is None:
            return None
        if vr == "DT":
            return dates.shift_datetime(text, shift, earliest)
        other = dates.partner(keyword) if keyword else None
        others = values(element(ds, other)) if other is not None else []
        paired = others[position] if position < len(others) else ""
        move = dates.shift_date if vr == "DA" else dates.shift_time
        return move(text, paired, shift, earliest)

    def _cleaned(self, decoded: DataElement) -> DataElement | None:
        """A text without what identifies anybody, or None when nothing of it is left."""
        if self._text is None or decoded.VR not in FREE_TEXT_VRS:
            return None
        texts = values(decoded)
        made = [fitted(self._text.clean(text).text, decoded.VR) if text else "" for text in texts]
        if any(texts) and not any(made):
            return None
        return filled(decoded.tag, decoded.VR, made)

    def _private(self, ds: Dataset, tag: BaseTag, place: _Place) -> tuple[Action, DataElement | None]:
        """A private element PS3.15 or the site lists as safe, when its value is of the VR it should have."""
        path = f"{place.path}{tag:08X}"
        found = private.identify(ds, tag) if SAFE_PRIVATE in self._profile.options else None
        safe = self._rules.private(found) if found is not None else None
        decoded = element(ds, tag)
        if decoded is None or safe is None or (found is not None and self._index.in_text(found.creator)):
            is_sequence = decoded is not None and decoded.VR == "SQ"
            self._removed_items(list(decoded.value or ()) if decoded is not None and is_sequence else [], path)
            return Action.REMOVE, None
        vr, _ = safe
        decoded = _as(ds, decoded, vr) if decoded.VR == "UN" else decoded
        if decoded is None or vr != decoded.VR:
            return Action.REMOVE, None
        if vr == "SQ":
            inner = _Place(tag, f"{path}.", place.depth + 1)
            kept = self._items(tag, list(decoded.value or ()), inner, Decision(Action.KEEP, ""))
            return (Action.KEEP, DataElement(tag, "SQ", Sequence(kept))) if kept else (Action.REMOVE, None)
        return self._private_value(decoded)

    def _private_value(self, decoded: DataElement) -> tuple[Action, DataElement | None]:
        """Numbers and code strings stay, texts are cleaned, UIDs replaced, dates moved; bulk cannot be searched."""
        tag, vr, texts = decoded.tag, decoded.VR, values(decoded)
        if vr == "UI":
            return Action.UID, filled(tag, vr, [self.uid(text) for text in texts])
        if vr in TEMPORAL_VRS:
            action, made = self._shifted(Dataset(), decoded, "")
            return (action, made) if action is Action.CLEAN else (Action.REMOVE, None)
        if vr in FREE_TEXT_VRS:
            cleaned = self._cleaned(decoded)
            return (Action.CLEAN, cleaned) if cleaned is not None else (Action.REMOVE, None)
        if vr != "CS" and vr not in NUMBER_VRS:
            return Action.REMOVE, None
        kept = self._judge.kept("", decoded, Decision(Action.KEEP, ""))
        return (Action.KEEP, kept) if kept is not None else (Action.REMOVE, None)


@lru_cache(maxsize=16)
def _text_cleaner(
    index: Index, shift: timedelta | None, earliest: date, keep: frozenset[str]
) -> TextCleaner:  # the objects of a patient share it, and what it remembers
    return TextCleaner(index, shift=shift, earliest=earliest, keep=keep)


def _as(ds: Dataset, decoded: DataElement, vr: str) -> DataElement | None:
    """A private element that was read without its VR, as the VR its creator gives it."""
    if not isinstance(decoded.value, bytes) or vr == "SQ" or " or " in vr:
        return None
    is_little = ds.is_little_endian if ds.original_encoding[1] is None else ds.original_encoding[1]
    raw = RawDataElement(decoded.tag, vr, len(decoded.value), decoded.value, 0, False, is_little is not False)  # noqa: FBT003
    try:
        return DataElement(decoded.tag, vr, convert_raw_data_element(raw, ds=ds).value)
    except Exception:  # noqa: BLE001  # hostile bytes make pydicom raise anything, values in the text
        return None


def _without_numbers(path: str) -> str:
    """``00081140[2].00081155`` without the numbers of items."""
    if "[" not in path:
        return path
    return ".".join(part.partition("[")[0] for part in path.split("."))
