"""Which values an option or a site keeps on purpose, so that they count neither as identifiers nor as leaks.

Owns the picking of those values. Contains no judgement of them: the cleaner still refuses one that holds a name.
"""

from __future__ import annotations

from typing import Final

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from imaging_pipeline.deid.options import CLEANING, FULL_DATES, RETAINING
from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.reading import MAX_DEPTH, element
from imaging_pipeline.deid.rules import OVERRIDE, Action, Decision, Rules
from imaging_pipeline.deid.table import load_table
from imaging_pipeline.errors import PoisonInput, Reason

_KEEPING: Final = frozenset({*RETAINING, FULL_DATES, OVERRIDE})
_CONCERNED: Final = frozenset({*_KEEPING, *CLEANING})


def keeps_values(profile: Profile) -> bool:
    """Whether the profile keeps, or cleans, values that otherwise count as identifiers."""
    return not profile.options.isdisjoint(_CONCERNED) or any(found.action == "K" for found in profile.overrides)


def keeps_tag(profile: Profile, tag: int) -> bool:
    """Whether an option, or the site, keeps an attribute that otherwise counts as an identifier."""
    decision = Rules(profile).decide(tag)
    return decision.action is Action.KEEP and decision.option in _KEEPING


def without_kept(ds: Dataset, rules: Rules, sequence: int = 0, depth: int = 0) -> Dataset:
    """A copy of ``ds`` without the elements that are kept on purpose or cleaned, at any depth."""
    if depth > MAX_DEPTH:
        raise PoisonInput(Reason.NOT_DEIDENTIFIABLE, f"sequences nest deeper than {MAX_DEPTH}")
    kept: dict[BaseTag, DataElement | RawDataElement] = {}
    for tag in sorted(ds.keys(), key=int):
        decoded = element(ds, tag)
        if decoded is not None and decoded.VR == "SQ":
            items = [without_kept(item, rules, tag, depth + 1) for item in decoded.value or ()]
            kept[tag] = DataElement(tag, "SQ", Sequence(items))
            continue
        if not _is_wanted(rules.decide(tag, sequence), tag):
            kept[tag] = ds.get_item(tag)
    out = Dataset(kept)
    is_implicit, is_little_endian = ds.original_encoding
    out.set_original_encoding(is_implicit, is_little_endian, ds.original_character_set)
    return out


def _is_wanted(decision: Decision, tag: BaseTag) -> bool:
    """Whether a value is kept on purpose, or is a description that is cleaned: as a whole it is then no identifier."""
    if decision.action is Action.KEEP:
        return decision.option in _KEEPING
    return decision.action is Action.CLEAN and decision.option in _CONCERNED and load_table().row(tag) is not None
