"""The de-identification profile: one YAML file that says what may leave, validated before anything is read.

Owns the profile's shape, its digest, and how one profile extends another. The checks of single keys are in
`profile_keys`. Contains no actions on data and no keys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from datetime import date
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

from imaging_pipeline.deid import iod, private, profile_keys
from imaging_pipeline.deid.codes import vocabulary
from imaging_pipeline.deid.options import (
    BASIC_CODE,
    FULL_DATES,
    MODIFIED_DATES,
    OPTION_CODES,
    OPTIONS,
    PIXEL_DATA,
)
from imaging_pipeline.deid.pixels.policy import PixelPolicy
from imaging_pipeline.deid.profile_keys import Override
from imaging_pipeline.deid.table import load_table
from imaging_pipeline.yaml_files import read_yaml

__all__ = ["MODIFIED_DATES", "OPTIONS", "SHIPPED", "Override", "Profile", "load_profile"]

SHIPPED: Final = ("basic", "research", "limited")
"""Profiles that come with the package, by name."""

_MERGED: Final = ("essential", "pixels")
"""Keys whose parts are merged one by one with those of the profile that is extended; other keys are replaced."""

_TOP_KEYS: Final = (
    "profile", "version", "options", "identifiers", "earliest_date", "max_age", "sop_classes", "pixels",
    "encapsulated_documents", "type1", "type2", "remove", "never_shifted", "keep_text", "keep_words", "keep_binary",
    "coding_schemes", "essential", "overrides",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Profile:
    """A validated profile; see ``docs/reference/profile.md`` for what each part means.

    Attributes:
        profile_id: name of the profile, written into De-identification Method.
        version: version of the profile file.
        options: PS3.15 options in force.
        identifiers: ``pseudonym`` or ``ff1``, how patient and accession identifiers are replaced.
        earliest_date: dates before it are emptied, never shifted.
        max_age: ages above it, in years, become one year more than it; None keeps every age.
        sop_classes: the only SOP classes that are released.
        pixels: what may be in pixels, and what is done about text in them.
        encapsulated_documents: ``hold`` or ``placeholder``, what becomes of a document inside an object.
        type1: keywords that get a dummy value where the table leaves the choice or the value may not be kept.
        type2: keywords the table does not list that are emptied instead of removed.
        remove: keywords removed although the table does not ask for it.
        never_shifted: keywords of dates that are not the patient's.
        keep_text, keep_binary: allow-lists by keyword.
        keep_words: words the cleaning of texts leaves where they are.
        coding_schemes: schemes whose known codes are kept.
        essential: keyword to values kept even where an identifier of the patient is the same word.
        overrides: decisions of the site; the first that applies to an element wins over everything else.
    """

    profile_id: str
    version: str
    options: frozenset[str]
    identifiers: str
    earliest_date: date
    max_age: int | None
    sop_classes: frozenset[str]
    pixels: PixelPolicy
    encapsulated_documents: str
    type1: frozenset[str]
    type2: frozenset[str]
    remove: frozenset[str]
    never_shifted: frozenset[str]
    keep_text: frozenset[str]
    keep_words: frozenset[str]
    keep_binary: frozenset[str]
    coding_schemes: frozenset[str]
    essential: Mapping[str, frozenset[str]]
    overrides: tuple[Override, ...]

    @property
    def shifts_dates(self) -> bool:
        """Whether dates are kept, moved (the Modified Dates Option)."""
        return MODIFIED_DATES in self.options

    @property
    def keeps_dates(self) -> bool:
        """Whether dates are kept as they are (the Full Dates Option)."""
        return FULL_DATES in self.options

    @property
    def codes(self) -> tuple[str, ...]:
        """CID 7050 codes an object released under this profile may claim, that of clean pixel data left out.

        An option that an override takes an attribute from is not claimed.
        """
        broken = {
            option
            for override in self.overrides
            if override.action in ("X", "Z", "D") and override.creator is None
            for row in (load_table().row(override.tag),)
            if row is not None
            for option in row.options
        }
        claimed = (OPTION_CODES[name] for name in self.options - broken if name != PIXEL_DATA)
        return (BASIC_CODE, *sorted(claimed))

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical form of the profile and the shipped tables: what decides an output."""
        content = {field.name: _canonical(getattr(self, field.name)) for field in fields(self)}
        types = iod.load_types()
        content |= {
            "table": load_table().digest,
            "vocabulary": sorted(vocabulary()),
            "types": [_canonical(types.iods), _canonical(types.top), _canonical(types.nested)],
            "safe_private": sorted(
                (found.creator, found.group, found.element, vr) for found, vr in private.safe_elements().items()
            ),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load_profile(profile: Path | str | None = None) -> Profile:
    """Read and validate a profile.

    Args:
        profile: name of a shipped profile (``basic``, ``research``, ``limited``) or a YAML file; None for ``basic``.

    Raises:
        ConfigurationError: naming the key, what was found there and what is allowed.
    """
    top = profile_keys.mapping("(top)", _document(profile or SHIPPED[0], ()), _TOP_KEYS)
    policy, options = PixelPolicy.from_mapping(top["pixels"]), profile_keys.options(top["options"])
    if policy.blanks != (PIXEL_DATA in options):
        raise profile_keys.refuse("pixels.text", policy.text, f"blank with the option {PIXEL_DATA}, hold without it")
    return Profile(
        profile_id=profile_keys.text("profile", top["profile"]),
        version=profile_keys.text("version", top["version"]),
        options=options,
        identifiers=profile_keys.choice("identifiers", top["identifiers"], ("pseudonym", "ff1")),
        earliest_date=profile_keys.day("earliest_date", top["earliest_date"]),
        max_age=profile_keys.age("max_age", top["max_age"]),
        sop_classes=profile_keys.sop_classes(top["sop_classes"]),
        pixels=policy,
        encapsulated_documents=profile_keys.choice(
            "encapsulated_documents", top["encapsulated_documents"], ("hold", "placeholder")
        ),
        type1=profile_keys.keywords("type1", top["type1"]),
        type2=profile_keys.keywords("type2", top["type2"]),
        remove=profile_keys.keywords("remove", top["remove"]),
        never_shifted=profile_keys.keywords("never_shifted", top["never_shifted"]),
        keep_text=profile_keys.kept("keep_text", top["keep_text"], profile_keys.TEXT_VRS),
        keep_words=frozenset(profile_keys.texts("keep_words", top["keep_words"])),
        keep_binary=profile_keys.kept("keep_binary", top["keep_binary"], profile_keys.BINARY_VRS),
        coding_schemes=frozenset(profile_keys.texts("coding_schemes", top["coding_schemes"])),
        essential=profile_keys.essential(top["essential"]),
        overrides=profile_keys.overrides(top["overrides"], top["options"]),
    )


def _document(profile: Path | str, seen: tuple[str, ...]) -> object:
    """The YAML document, with what it extends beneath it."""
    document = read_yaml(_file(profile), f"the profile {profile}")
    if not isinstance(document, dict) or "extends" not in document:
        return document
    base = document.pop("extends")
    if base not in SHIPPED or base in seen:
        raise profile_keys.refuse("extends", base, f"the shipped profiles {', '.join(SHIPPED)}, none of them twice")
    found = _document(base, (*seen, base))
    assert isinstance(found, dict)  # a shipped profile is a mapping
    return _merged(found, document)


def _merged(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    for key in _MERGED:
        if isinstance(base.get(key), dict) and isinstance(top.get(key), dict):
            top[key] = base[key] | top[key]
    return base | top


def _file(profile: Path | str) -> Traversable:
    if isinstance(profile, str) and profile in SHIPPED:
        return resources.files("imaging_pipeline.deid") / "data" / "profiles" / f"{profile}.yaml"
    return Path(profile)


def _canonical(value: object) -> object:
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_canonical(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return _canonical(asdict(value))
    return str(value) if isinstance(value, date) else value
