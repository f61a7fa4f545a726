"""Whether a value that may be kept is fit to be kept.

Owns the judgement of kept values by VR, the patient's identifiers and the profile. Contains no actions.
"""

from __future__ import annotations

import re
from datetime import date
from struct import pack
from typing import Final

from pydicom.dataelem import DataElement

from imaging_pipeline.deid import codes
from imaging_pipeline.deid.element_values import (
    NAMING_TEXT,
    UNSAFE_TEXT,
    capped_age,
    filled,
    hides_text,
    is_characteristic,
    is_moment,
    is_number,
    most_values,
)
from imaging_pipeline.deid.options import PATIENT
from imaging_pipeline.deid.pixels import PIXEL_KEYWORDS
from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.reading import values
from imaging_pipeline.deid.rules import TEMPORAL_VRS, Decision
from imaging_pipeline.deid.screen import TEXT_VRS, Index
from imaging_pipeline.deid.text_dates import moments
from imaging_pipeline.deid.vocabulary import is_clinical, plain

_STRUCTS: Final = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_LONG_WORDS: Final = re.compile(r"[^\W\d_]{7,}")
_MAKERS: Final = re.compile("Manufacturer|Version")
"""Attributes whose words nobody can list."""
_LARGE: Final = frozenset({*PIXEL_KEYWORDS, "WaveformData", "SpectroscopyData"})


def _is_color_profile(content: bytes) -> bool:
    """Whether bytes are an ICC profile by its header: its length and its signature (ICC.1, 7.2)."""
    return len(content) - int.from_bytes(content[:4], "big") in (0, 1) and content[36:40] == b"acsp"


class Judge:
    """Judges the values of one object."""

    __slots__ = ("_index", "_profile")

    def __init__(self, profile: Profile, index: Index) -> None:
        self._profile = profile
        self._index = index

    def kept(self, keyword: str, decoded: DataElement, decision: Decision) -> DataElement | None:
        """The element when its value is of the kind that may stay, or None."""
        vr = decoded.VR
        if vr == "CS":
            return self._code_strings(keyword, decoded)
        texts = [] if keyword in self._profile.keep_binary else values(decoded)
        if vr == "AS":
            ages = [capped_age(text, self._profile.max_age) for text in texts]
            return None if None in ages else filled(decoded.tag, vr, [age or "" for age in ages])
        if vr in TEMPORAL_VRS:
            is_fit = all(not text or is_moment(vr, text) for text in texts)
        elif vr in TEXT_VRS:
            is_fit = all(self._is_fit_text(text, decision) for text in texts)
            is_fit = is_fit and (bool(decision.option) or _MAKERS.search(keyword) is not None or self._is_known(texts))
        elif vr in ("DS", "IS"):
            is_fit = all(is_number(vr, text) and not self._index.in_number(text) for text in texts)
        else:
            is_fit = self._is_fit_binary(keyword, decoded, texts)
        return decoded if is_fit else None

    def _is_fit_binary(self, keyword: str, decoded: DataElement, texts: list[str]) -> bool:
        """Whether numbers are numbers: no more of them than the attribute has, none an identifier, no text in them."""
        if keyword == "ICCProfile":
            return _is_color_profile(decoded.value)
        if keyword in _LARGE:
            return True  # pixels are judged elsewhere
        value, most = decoded.value, most_values(int(decoded.tag)) if keyword else None
        if decoded.VR in _STRUCTS and value is not None:
            numbers = [value] if isinstance(value, int | float) else list(value)
            if most is not None and len(numbers) > most:
                return False
            value = pack(f"<{len(numbers)}{_STRUCTS[decoded.VR]}", *numbers)
        if isinstance(value, bytes) and hides_text(value):
            return False
        is_small = decoded.VR in ("US", "SS", "AT")  # too small for an identifier
        return is_small or not any(self._index.in_number(text) for text in texts)

    def _is_fit_text(self, text: str, decision: Decision) -> bool:
        """Whether a text may stay as it is: a plain one, or any that a site or an option keeps."""
        if self._index.in_text(text):
            return False
        if decision.option == PATIENT:
            return is_characteristic(text)
        if decision.option:
            return True
        has_moment = next(moments(text, None, date.min, frozenset()), None) is not None
        return not (has_moment or UNSAFE_TEXT.search(text) or NAMING_TEXT.search(text))

    @staticmethod
    def _is_known(texts: list[str]) -> bool:
        """Whether the long words of technical texts are known: sequences, kernels and filters are short or words."""
        return all(is_clinical(plain(word)) for text in texts for word in _LONG_WORDS.findall(text))

    def _code_strings(self, keyword: str, decoded: DataElement) -> DataElement | None:
        """Defined terms stay in their places; other values, and terms that are a name in this object, are emptied."""
        essential = self._profile.essential.get(keyword, frozenset())
        terms = [codes.defined_term(text) or "" for text in values(decoded)]
        fit = [term if term in essential or (term and not self._index.in_text(term)) else "" for term in terms]
        while fit and not fit[-1]:
            fit.pop()
        if not fit and terms:
            return None
        return filled(decoded.tag, "CS", fit)
