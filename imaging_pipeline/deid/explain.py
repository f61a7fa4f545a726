"""What a profile does with an attribute or with each element of an object, and why; values are never shown.

Owns the putting into words. Contains no decision of its own: it asks the rules the engine asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pydicom.datadict import dictionary_description, dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from imaging_pipeline.deid import private
from imaging_pipeline.deid.options import SAFE_PRIVATE
from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.reading import element, quiet, read, texts_of
from imaging_pipeline.deid.rules import FREE_TEXT_VRS, TEMPORAL_VRS, Action, Rules
from imaging_pipeline.deid.table import load_table
from imaging_pipeline.errors import ConfigurationError

_TAG: Final = re.compile(r"\(?([0-9A-Fa-f]{4})[,_ ]?([0-9A-Fa-f]{4})\)?")
_IN_WORDS: Final = {
    Action.DUMMY: "replaced by a dummy or a pseudonym",
    Action.EMPTY: "emptied",
    Action.REMOVE: "removed",
    Action.KEEP: "kept when its value is fit to be kept",
    Action.CLEAN: "cleaned",
    Action.UID: "replaced by the research UID",
}
_CLEANED: Final = "text cleaned of identifiers, dates, people, places and unknown words"
_SHIFTED: Final = "moved by the patient's shift"
_ITEMS: Final = "kept, each of its items cleaned"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happens to one element.

    Attributes:
        path: tags of the sequences it is in and its own, items numbered: ``00081140[0].00081155``.
        name: the attribute's name; of a private one what the creator's dictionary calls it.
        vr: VR of the dictionary.
        action: action code of PS3.15 Table E.1-1a.
        effect: the action in words.
        why: row of Table E.1-1, option, override or default it comes from.
    """

    path: str
    name: str
    vr: str
    action: str
    effect: str
    why: str


def explain_attribute(attribute: str, profile: Profile, sop_class: str = "", manufacturer: str = "") -> Explanation:
    """What a profile does with an attribute at the top level of an object.

    Args:
        attribute: keyword (``PatientName``) or tag (``00100010``, ``(0010,0010)``).
        profile: the profile.
        sop_class: SOP Class UID of the objects asked about: compound actions and overrides depend on it.
        manufacturer: manufacturer of the objects asked about.

    Raises:
        ConfigurationError: the attribute is neither a keyword of the dictionary nor a tag.
    """
    match = _TAG.fullmatch(attribute.strip())
    number = int(match[1] + match[2], 16) if match else tag_for_keyword(attribute.strip())
    if number is None:
        raise ConfigurationError(f"{attribute!r} is no attribute; give a keyword (PatientName) or a tag (00100010)")
    return _explained(Tag(number), f"{number:08X}", 0, Rules(profile, sop_class, manufacturer), None)


def explain_object(content: bytes, profile: Profile) -> tuple[Explanation, ...]:
    """What a profile does with each element of an object, at every depth, in order.

    A sequence that is removed or emptied is explained as a whole. Whether a value that may be kept is fit to be kept
    (an identifier of the patient in it, a code that no dictionary has) is decided when the object is de-identified.

    Args:
        content: the whole object.
        profile: the profile.

    Raises:
        PoisonInput: NOT_DEIDENTIFIABLE when the object cannot be read.
    """
    with quiet():
        ds = read(content)
        sop_class, manufacturer = ("\\".join(texts_of(ds, name)) for name in ("SOPClassUID", "Manufacturer"))
        return tuple(_elements(ds, Rules(profile, sop_class, manufacturer), profile, "", 0))


def _elements(ds: Dataset, rules: Rules, profile: Profile, path: str, sequence: int) -> Iterator[Explanation]:
    for tag in sorted(ds.keys(), key=int):
        here = f"{path}{tag:08X}"
        found = _explained(tag, here, sequence, rules, ds if SAFE_PRIVATE in profile.options else None)
        yield found
        decoded = element(ds, tag)
        if decoded is not None and decoded.VR == "SQ" and found.action not in ("X", "Z"):
            for number, item in enumerate(decoded.value or ()):
                yield from _elements(item, rules, profile, f"{here}[{number}].", int(tag))


def _explained(tag: BaseTag, path: str, sequence: int, rules: Rules, holder: Dataset | None) -> Explanation:
    """One element; ``holder`` is the data set a private one may be identified in."""
    if tag.is_private:
        return _private(tag, path, rules, holder)
    decision = rules.decide(tag, sequence)
    vr = dictionary_VR(tag) if dictionary_has_tag(tag) else ""
    effect = _IN_WORDS[decision.action]
    if decision.action is Action.CLEAN or (decision.action is Action.KEEP and vr == "SQ"):
        effect = _ITEMS if vr == "SQ" else (_SHIFTED if vr in TEMPORAL_VRS else _CLEANED)
    if decision.action is Action.KEEP and vr == "AS" and rules.max_age is not None:
        effect = f"{effect}; an age above {rules.max_age} years becomes {rules.max_age + 1}"
    return Explanation(path, _name(tag), vr, str(decision.action), effect, decision.why)


def _private(tag: BaseTag, path: str, rules: Rules, holder: Dataset | None) -> Explanation:
    name = "Private Creator" if private.is_creator(tag) else "Private Attribute"
    found = private.identify(holder, tag) if holder is not None else None
    safe = rules.private(found) if found is not None else None
    if found is None or safe is None:
        why = (
            "private, and not listed as safe"
            if holder is not None
            else f"private; option {SAFE_PRIVATE} is not in force"
        )
        if private.is_creator(tag) and holder is not None:
            return Explanation(path, name, "LO", "K", "kept with the elements of its block that are kept", SAFE_PRIVATE)
        return Explanation(path, name, "", "X", _IN_WORDS[Action.REMOVE], f"default deny: {why}")
    vr, why = safe
    cleaned = Action.CLEAN if vr in FREE_TEXT_VRS | TEMPORAL_VRS else Action.KEEP
    action = Action.UID if vr == "UI" else cleaned
    effect = _CLEANED if vr in FREE_TEXT_VRS else _IN_WORDS[action]
    return Explanation(path, private.meaning(found) or name, vr, str(action), effect, why)


def _name(tag: BaseTag) -> str:
    row = load_table().row(tag)
    if dictionary_has_tag(tag):
        return dictionary_description(tag)
    return row.name if row is not None else "Unknown attribute"
