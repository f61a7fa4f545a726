"""Values that are words of a standard: defined terms of CS attributes, and coded concepts.

Owns the shipped vocabulary and the look-up of codes in pydicom's concept dictionary (PS3.16). Contains no policy: which
schemes and attributes are released is the profile's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any, Final

VOCABULARY_FILE: Final = "code_values.txt"
"""Defined terms, below ``deid/data``."""

_CODE_STRING: Final = re.compile(r"[A-Z0-9_ ]{1,16}")
_UNIT: Final = (
    r"(?:(?:[YZEPTGMkhdcmunpfazy]|da)?(?:m|s|g|L|l|V|A|Hz|Pa|W|J|N|K|F|Ohm|S|Wb|T|H|Bq|Gy|Sv|mol|cd|lm|lx|eq|osm|bar|cal|rad"
    r"|eV|B|m\[Hg\]|m\[H2O\])|Cel|deg|min|h|d|wk|mo|a|%|1|10\*-?\d{1,2})(?:-?\d)?"
)
_UCUM: Final = re.compile(rf"(?:{{SUV(?:bw|lbm|bsa|ibw)}})?/?{_UNIT}(?:[./]{_UNIT}){{0,4}}")
"""Units of measurement built from prefixes and units of the UCUM. Annotations in braces could hold any text, so only
those of standardized uptake values (PS3.16 CID 85) stay."""
_SNOMED_RT: Final = frozenset({"SRT", "SNM3", "99SDM"})


@lru_cache(maxsize=1)
def vocabulary() -> frozenset[str]:
    """Every CS value that is a word of the standard rather than of a person."""
    text = (resources.files("imaging_pipeline.deid") / "data" / VOCABULARY_FILE).read_text("ascii")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return frozenset(term.strip() for line in lines for term in line.split(",") if term.strip())


def defined_term(value: str) -> str | None:
    """``value`` as the standard writes it (upper case, no padding), or None when it is not in the vocabulary."""
    term = value.strip(" \0").upper()
    return term if _CODE_STRING.fullmatch(term) and term in vocabulary() else None


def meaning(scheme: str, code: str) -> str | None:
    """The meaning of a coded concept from the dictionary, or None when scheme or code is not known.

    SNOMED-RT codes (``SRT``) are found through their SNOMED CT successors. A unit of the UCUM means itself where the
    dictionary lacks it (``uV``).
    """
    if scheme in _SNOMED_RT:
        successor = _snomed_successors().get(code)
        return _meanings("SCT").get(successor) if successor else None
    found = _meanings(scheme).get(code)
    return code if found is None and scheme == "UCUM" and _UCUM.fullmatch(code) else found


@lru_cache(maxsize=32)
def _meanings(scheme: str) -> dict[str, str]:
    # 0.1 s: only objects with coded items pay for it; pydicom's public way to the table takes as long again
    from pydicom.sr._concepts_dict import concepts  # noqa: PLC0415

    table: Mapping[str, Any] = concepts.get(scheme, {})
    found = (item for codes in table.values() for item in codes.items())
    return {code: meaning for code, (meaning, _) in found if meaning.isascii() and len(meaning) <= 64}


@lru_cache(maxsize=1)
def _snomed_successors() -> dict[str, str]:
    from pydicom.sr._snomed_dict import mapping  # noqa: PLC0415  # no public name in pydicom 3.0 gives the table

    return dict(mapping["SRT"])
