"""The de-identification profile: one YAML file that says what may leave, validated before anything is read.

Owns the profile's shape, its validation and its digest. Contains no actions on data and no keys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import UID

from imaging_pipeline.deid.codes import vocabulary
from imaging_pipeline.deid.table import load_table
from imaging_pipeline.errors import ConfigurationError

MODIFIED_DATES: Final = "retain_longitudinal_modified_dates"
"""PS3.15 E.3.6: dates and times are kept, all moved by the same amount per patient."""

OPTIONS: Final = (MODIFIED_DATES,)
"""Options of PS3.15 Annex E this engine can apply."""

_TEXT_VRS: Final = frozenset({"LO", "SH", "ST", "LT", "UC", "UT"})
_BINARY_VRS: Final = frozenset({"OB", "OW", "OF", "OD", "OL", "OV", "US"})
_TOP_KEYS: Final = (
    "profile", "version", "options", "earliest_date", "release", "type1", "type2", "remove", "never_shifted",
    "keep_text", "keep_binary", "coding_schemes", "essential",
)  # fmt: skip
_RELEASE_KEYS: Final = (
    "sop_classes", "photometric_interpretations", "risky_conversion_types", "risky_image_types",
    "pixel_comment_prefixes",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Profile:
    """A validated profile; see ``data/profiles/basic.yaml`` for what each part means.

    Attributes:
        profile_id: name of the profile, written into De-identification Method.
        version: version of the profile file.
        options: PS3.15 options in force.
        earliest_date: dates before it are emptied, never shifted.
        sop_classes: the only SOP classes that are released.
        type1: keywords that get a dummy value where the table leaves the choice or the value may not be kept.
        type2: keywords the table does not list that are emptied instead of removed.
        remove: keywords removed although the table does not ask for it.
        never_shifted: keywords of dates that are not the patient's.
        keep_text, keep_binary: allow-lists by keyword.
        coding_schemes: schemes whose known codes are kept.
        essential: keyword to values kept even where an identifier of the patient is the same word.
    """

    profile_id: str
    version: str
    options: frozenset[str]
    earliest_date: date
    sop_classes: frozenset[str]
    photometric_interpretations: frozenset[str]
    risky_conversion_types: frozenset[str]
    risky_image_types: frozenset[str]
    pixel_comment_prefixes: tuple[str, ...]
    type1: frozenset[str]
    type2: frozenset[str]
    remove: frozenset[str]
    never_shifted: frozenset[str]
    keep_text: frozenset[str]
    keep_binary: frozenset[str]
    coding_schemes: frozenset[str]
    essential: Mapping[str, frozenset[str]]

    @property
    def shifts_dates(self) -> bool:
        """Whether dates are kept, moved (the Modified Dates Option)."""
        return MODIFIED_DATES in self.options

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical form of the profile, the table and the vocabulary: what decides an output."""
        content = {field.name: _canonical(getattr(self, field.name)) for field in fields(self)}
        content |= {"table": load_table().digest, "vocabulary": sorted(vocabulary())}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load_profile(path: Path | None = None) -> Profile:
    """Read and validate a profile.

    Args:
        path: YAML file; None for the shipped ``basic`` profile.

    Raises:
        ConfigurationError: naming the key, what was found there and what is allowed.
    """
    shipped = resources.files("imaging_pipeline.deid") / "data" / "profiles" / "basic.yaml"
    try:
        document = yaml.safe_load((path or shipped).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"the profile {path or 'basic'} cannot be read as YAML: {error}") from error
    top = _mapping("(top)", document, _TOP_KEYS)
    release = _mapping("release", top["release"], _RELEASE_KEYS)
    return Profile(
        profile_id=_text("profile", top["profile"]),
        version=_text("version", top["version"]),
        options=_options(top["options"]),
        earliest_date=_date("earliest_date", top["earliest_date"]),
        sop_classes=_sop_classes(release["sop_classes"]),
        **{key: frozenset(_texts(f"release.{key}", release[key])) for key in _RELEASE_KEYS[1:4]},
        pixel_comment_prefixes=tuple(_texts("release.pixel_comment_prefixes", release["pixel_comment_prefixes"])),
        type1=_keywords("type1", top["type1"]),
        type2=_keywords("type2", top["type2"]),
        remove=_keywords("remove", top["remove"]),
        never_shifted=_keywords("never_shifted", top["never_shifted"]),
        keep_text=_kept("keep_text", top["keep_text"], _TEXT_VRS),
        keep_binary=_kept("keep_binary", top["keep_binary"], _BINARY_VRS),
        coding_schemes=frozenset(_texts("coding_schemes", top["coding_schemes"])),
        essential=_essential(top["essential"]),
    )


def _canonical(value: object) -> object:
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return {key: _canonical(item) for key, item in value.items()}
    return str(value) if isinstance(value, date) else value


def _refuse(key: str, found: object, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"profile key {key}: found {found!r}; allowed: {allowed}")


def _mapping(key: str, found: object, keys: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        raise _refuse(key, found, f"a mapping with the keys {', '.join(keys)}")
    for name in found:
        if name not in keys:
            raise _refuse(key, name, f"the keys {', '.join(keys)}")
    for name in keys:
        if name not in found:
            raise _refuse(key, f"no key {name}", f"the keys {', '.join(keys)}")
    return found


def _text(key: str, found: object) -> str:
    if not isinstance(found, str) or not found.strip() or not found.isascii() or len(found) > 32:
        raise _refuse(key, found, "a text in quotes, 1 to 32 ASCII characters")
    return found


def _texts(key: str, found: object) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(item, str) and item for item in found):
        raise _refuse(key, found, "a list of texts (quote words such as NO)")
    return found


def _date(key: str, found: object) -> date:
    try:
        return date.fromisoformat(str(found))
    except ValueError as error:
        raise _refuse(key, found, "a date as YYYY-MM-DD") from error


def _options(found: object) -> frozenset[str]:
    names = _texts("options", found)
    for name in names:
        if name not in OPTIONS:
            raise _refuse("options", name, ", ".join(OPTIONS))
    return frozenset(names)


def _sop_classes(found: object) -> frozenset[str]:
    if not isinstance(found, dict) or not found:
        raise _refuse("release.sop_classes", found, "SOP Class UIDs, each with its name")
    for uid, name in found.items():
        if not isinstance(uid, str) or UID(uid).name != name:
            raise _refuse(f"release.sop_classes.{uid}", name, f"the registered name, {UID(str(uid)).name!r}")
    return frozenset(found)


def _keywords(key: str, found: object) -> frozenset[str]:
    names = _texts(key, found)
    for name in names:
        if tag_for_keyword(name) is None:
            raise _refuse(key, name, "keywords of the DICOM dictionary")
    return frozenset(names)


def _kept(key: str, found: object, vrs: frozenset[str]) -> frozenset[str]:
    """Keywords that may be kept: of the right VR, and not an attribute the table names (those need an option)."""
    names = _keywords(key, found)
    for name in names:
        tag = tag_for_keyword(name)
        assert tag is not None  # _keywords has checked it
        if not vrs.intersection(dictionary_VR(tag).split(" or ")):
            raise _refuse(key, name, f"attributes with a VR of {', '.join(sorted(vrs))}")
        if load_table().row(tag) is not None:
            raise _refuse(key, name, "attributes that PS3.15 Table E.1-1 does not list")
    return names


def _essential(found: object) -> Mapping[str, frozenset[str]]:
    if not isinstance(found, dict):
        raise _refuse("essential", found, "keywords, each with a list of values")
    _kept("essential", list(found), frozenset({"CS"}))
    values = {keyword: frozenset(_texts(f"essential.{keyword}", items)) for keyword, items in found.items()}
    for keyword, terms in values.items():
        for term in sorted(terms - vocabulary()):
            raise _refuse(f"essential.{keyword}", term, "defined terms of the shipped vocabulary")
    return values
