"""The keys of a profile, each checked on its own.

Owns what a key may hold and the error that says so. Contains no reading of files and no policy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VR, tag_for_keyword
from pydicom.uid import UID

from imaging_pipeline.deid.codes import vocabulary
from imaging_pipeline.deid.options import FULL_DATES, MODIFIED_DATES, OPTIONS, SAFE_PRIVATE
from imaging_pipeline.deid.table import load_table
from imaging_pipeline.errors import ConfigurationError

TEXT_VRS: Final = frozenset({"LO", "SH", "ST", "LT", "UC", "UT"})
BINARY_VRS: Final = frozenset({"OB", "OW", "OF", "OD", "OL", "OV", "US"})

_OVERRIDE_KEYS: Final = ("tag", "keyword", "private_creator", "vr", "sop_class", "manufacturer", "action", "reason")
_ACTIONS: Final = ("D", "Z", "X", "K", "C", "U")
_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}")
_PRIVATE_TAG: Final = re.compile(r"[0-9A-Fa-f]{3}[13579BDFbdf]xx[0-9A-Fa-f]{2}")
_WRITTEN: Final = frozenset(
    {
        "PatientID", "PatientName", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID",
        "AccessionNumber", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
        "LongitudinalTemporalInformationModified", "PixelData", "FloatPixelData", "DoubleFloatPixelData",
        "SpecificCharacterSet",
    }
)  # fmt: skip
"""Attributes the engine decides on itself."""


@dataclass(frozen=True, slots=True)
class Override:
    """A site's decision on one attribute.

    Attributes:
        tag: the attribute; of a private one the group and the last byte of the element, as ``gggg00ee``.
        action: action code of PS3.15 Table E.1-1a.
        reason: why, in words; shown by ``deid explain``.
        sop_class: SOP Class UID it is for; None for all.
        manufacturer: manufacturer it is for, compared without case; None for all.
        creator: private creator, for a private attribute.
        vr: the VR of a private attribute.
    """

    tag: int
    action: str
    reason: str
    sop_class: str | None
    manufacturer: str | None
    creator: str | None
    vr: str

    def applies(self, sop_class: str, manufacturer: str) -> bool:
        """Whether it is for objects of this class and manufacturer."""
        return self.sop_class in (None, sop_class) and (
            self.manufacturer is None or self.manufacturer.casefold() == manufacturer.strip().casefold()
        )


def refuse(key: str, found: object, allowed: str) -> ConfigurationError:
    """The error for a key: what was found there and what is allowed."""
    return ConfigurationError(f"profile key {key}: found {found!r}; allowed: {allowed}")


def mapping(key: str, found: object, keys: tuple[str, ...]) -> Mapping[str, Any]:
    """A mapping with exactly ``keys``.

    Raises:
        ConfigurationError: as every function of this module.
    """
    if not isinstance(found, dict):
        raise refuse(key, found, f"a mapping with the keys {', '.join(keys)}")
    for name in found:
        if name not in keys:
            raise refuse(key, name, f"the keys {', '.join(keys)}")
    for name in keys:
        if name not in found:
            raise refuse(key, f"no key {name}", f"the keys {', '.join(keys)}")
    return found


def text(key: str, found: object) -> str:
    """A short text that can stand in De-identification Method."""
    if not isinstance(found, str) or not found.strip() or not found.isascii() or len(found) > 32:
        raise refuse(key, found, "a text in quotes, 1 to 32 ASCII characters")
    return found


def texts(key: str, found: object) -> list[str]:
    """A list of texts."""
    if not isinstance(found, list) or not all(isinstance(item, str) and item for item in found):
        raise refuse(key, found, "a list of texts (quote words such as NO)")
    return found


def choice(key: str, found: object, choices: tuple[str, ...]) -> str:
    """One of ``choices``."""
    if found not in choices:
        raise refuse(key, found, ", ".join(choices))
    return str(found)


def day(key: str, found: object) -> date:
    """A date."""
    try:
        return date.fromisoformat(str(found))
    except ValueError as error:
        raise refuse(key, found, "a date as YYYY-MM-DD") from error


def age(key: str, found: object) -> int | None:
    """An age in years, or ``none``."""
    if found == "none":
        return None
    if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= 120:
        raise refuse(key, found, "years from 1 to 120, or none")
    return found


def options(found: object) -> frozenset[str]:
    """Options of PS3.15 E.3."""
    names = texts("options", found)
    for name in names:
        if name not in OPTIONS:
            raise refuse("options", name, ", ".join(reversed(OPTIONS)))
    if FULL_DATES in names and MODIFIED_DATES in names:
        raise refuse("options", [FULL_DATES, MODIFIED_DATES], "one of the two: dates cannot be kept and moved at once")
    return frozenset(names)


def sop_classes(found: object) -> frozenset[str]:
    """SOP Class UIDs, each with its registered name beside it so that a person can read the list."""
    if not isinstance(found, dict) or not found:
        raise refuse("sop_classes", found, "SOP Class UIDs, each with its name")
    for uid, name in found.items():
        if not isinstance(uid, str) or UID(uid).name != name:
            raise refuse(f"sop_classes.{uid}", name, f"the registered name, {UID(str(uid)).name!r}")
    return frozenset(found)


def keywords(key: str, found: object) -> frozenset[str]:
    """Keywords of the dictionary."""
    names = texts(key, found)
    for name in names:
        if tag_for_keyword(name) is None:
            raise refuse(key, name, "keywords of the DICOM dictionary")
    return frozenset(names)


def kept(key: str, found: object, vrs: frozenset[str]) -> frozenset[str]:
    """Keywords that may be kept: of the right VR, and not an attribute the table names (those need an option)."""
    names = keywords(key, found)
    for name in names:
        tag = tag_for_keyword(name)
        assert tag is not None  # keywords() has checked it
        if not vrs.intersection(dictionary_VR(tag).split(" or ")):
            raise refuse(key, name, f"attributes with a VR of {', '.join(sorted(vrs))}")
        if load_table().row(tag) is not None:
            raise refuse(key, name, "attributes that PS3.15 Table E.1-1 does not list")
    return names


def essential(found: object) -> Mapping[str, frozenset[str]]:
    """Defined terms that are kept whatever a patient is called."""
    if not isinstance(found, dict):
        raise refuse("essential", found, "keywords, each with a list of values")
    kept("essential", list(found), frozenset({"CS"}))
    values = {keyword: frozenset(texts(f"essential.{keyword}", items)) for keyword, items in found.items()}
    for keyword, terms in values.items():
        for term in sorted(terms - vocabulary()):
            raise refuse(f"essential.{keyword}", term, "defined terms of the shipped vocabulary")
    return values


def overrides(found: object, in_force: object) -> tuple[Override, ...]:
    """Overrides of the site, in their order."""
    if not isinstance(found, list):
        raise refuse("overrides", found, f"a list of mappings with the keys {', '.join(_OVERRIDE_KEYS)}")
    return tuple(_override(f"overrides[{number}]", item, in_force) for number, item in enumerate(found))


def _override(key: str, found: object, in_force: object) -> Override:
    if not isinstance(found, dict) or not set(found) <= set(_OVERRIDE_KEYS):
        raise refuse(key, found, f"a mapping with the keys {', '.join(_OVERRIDE_KEYS)}")
    for name, value in found.items():
        if not isinstance(value, str) or not value.strip():
            raise refuse(f"{key}.{name}", value, "a text (quote tags)")
    if not found.get("reason"):
        raise refuse(key, "no reason", "a reason in words: why this site decides otherwise")
    action = choice(f"{key}.action", found.get("action"), _ACTIONS)
    if "sop_class" in found and UID(found["sop_class"]).type != "SOP Class":
        raise refuse(f"{key}.sop_class", found["sop_class"], "a registered SOP Class UID")
    creator = found.get("private_creator")
    tag = _private_tag(key, found, action, in_force) if creator else _standard_tag(key, found, action)
    where = (found.get("sop_class"), found.get("manufacturer"))
    return Override(tag, action, found["reason"], *where, creator, found.get("vr", ""))


def _standard_tag(key: str, found: Mapping[str, str], action: str) -> int:
    if ("tag" in found) == ("keyword" in found):
        raise refuse(key, sorted(found), "either tag or keyword")
    if "keyword" in found:
        known = tag_for_keyword(found["keyword"])
    else:
        known = int(found["tag"], 16) if _TAG.fullmatch(found["tag"]) else None
        known = known if known is not None and dictionary_has_tag(known) else None
    if known is None:
        raise refuse(key, found.get("keyword", found.get("tag")), "a keyword or tag (eight digits) of the dictionary")
    keyword, vrs = dictionary_keyword(known), set(dictionary_VR(known).split(" or "))
    if keyword in _WRITTEN or known >> 16 < 0x0008:
        raise refuse(key, keyword, "attributes the engine does not write itself")
    _fitting_action(key, action, vrs)
    return known


def _fitting_action(key: str, action: str, vrs: set[str]) -> None:
    if action == "K" and "PN" in vrs:
        raise refuse(f"{key}.action", action, "D, Z or X: names are never kept")
    if action == "U" and vrs != {"UI"}:
        raise refuse(f"{key}.action", action, "U for UIDs only")
    if action == "C" and not vrs & (TEXT_VRS | {"DA", "TM", "DT", "SQ"}):
        raise refuse(f"{key}.action", action, "C for texts, dates, times and sequences only")
    if action == "D" and "SQ" in vrs:
        raise refuse(f"{key}.action", action, "C, Z, X or K for sequences")


def _private_tag(key: str, found: Mapping[str, str], action: str, in_force: object) -> int:
    """The tag of a private override: a further safe element, or one the site does not take for safe."""
    if not isinstance(in_force, list) or SAFE_PRIVATE not in in_force:
        raise refuse(key, found["private_creator"], f"private attributes only with the option {SAFE_PRIVATE}")
    if not _PRIVATE_TAG.fullmatch(found.get("tag", "")):
        raise refuse(f"{key}.tag", found.get("tag"), "the private tag as ggggxxee, gggg odd")
    if action not in ("K", "X") or (action == "K" and not re.fullmatch(r"[A-Z]{2}", found.get("vr", ""))):
        raise refuse(key, action, "K with the element's vr, or X")
    return int(found["tag"].replace("x", "0"), 16)
