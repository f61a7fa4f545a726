"""The engine's last word: nothing leaves that holds an identifier, or what no rule lets through.

Owns what the screen is told to let pass: the words the engine writes itself and the attributes a profile releases text
in. Contains no search of its own, that is `screen`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_keyword
from pydicom.tag import Tag

from imaging_pipeline.deid import private, screen
from imaging_pipeline.deid.content import CODE_KEYWORDS, DUMMY_CODE
from imaging_pipeline.deid.documents import PLACEHOLDERS
from imaging_pipeline.deid.options import DESCRIPTORS, METHOD_CODES, SAFE_PRIVATE, UIDS
from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.rules import REPLACED, Action, Rules, is_known
from imaging_pipeline.deid.screen import TEXT_VRS
from imaging_pipeline.deid.writing import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from imaging_pipeline.dicom.header import Header, read_header
from imaging_pipeline.errors import PoisonInput, Reason

OWN_TEXTS: Final = (
    "PS3.15 Basic Profile",
    "YES",
    "MODIFIED",
    "UNMODIFIED",
    "REMOVED",
    screen.DUMMY_TEXT,
    IMPLEMENTATION_VERSION_NAME,
)
"""Texts the engine writes into released objects: no leak, even where a source has them as a name."""

_WRITTEN_TEXTS: Final = (
    REPLACED | CODE_KEYWORDS | {"DeidentificationMethod", "ImplementationVersionName", "MIMETypeOfEncapsulatedDocument"}
)


class Proof:
    """Proves the written objects of one profile."""

    __slots__ = ("_keeps_private", "_profile", "_texts", "_words")

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._keeps_private = SAFE_PRIVATE in profile.options
        cleans_all = not profile.options.isdisjoint((DESCRIPTORS, SAFE_PRIVATE))
        self._texts = None if cleans_all else _WRITTEN_TEXTS | _released_texts(profile)
        terms = {term for values_of in profile.essential.values() for term in values_of}
        own = (*OWN_TEXTS, *METHOD_CODES.values(), profile.profile_id, profile.version, *DUMMY_CODE.values())
        placeholders = (document.decode("ascii", "replace") for document in PLACEHOLDERS.values())
        self._words = _words((*own, *terms, *profile.coding_schemes, *placeholders))

    def check(
        self,
        output: bytes,
        identifiers: frozenset[screen.Identifier],
        patient_id: str,
        meanings: set[str],
        rules: Rules,
    ) -> Header:
        """Refuse an object whose written form holds an identifier of its source or what no rule lets through.

        Args:
            output: the object as it would be released.
            identifiers: what must not be in it.
            patient_id: the pseudonym.
            meanings: code meanings the engine wrote into it.
            rules: the rules it was cleaned under: they say which private elements may be in it.

        Returns:
            The header of ``output``.

        Raises:
            PoisonInput: RESIDUAL_IDENTIFIER, with the places and kinds of what was found.
        """
        wanted = (
            found for found in identifiers if found.text != IMPLEMENTATION_CLASS_UID
        )  # re-released objects have it
        header = read_header(output)
        found = screen.prove(
            output,
            wanted,
            patient_id=patient_id,
            texts=self._texts,
            harmless=self._words | _words(meanings),
            keeps_uids=UIDS in self._profile.options,
            is_allowed=partial(self._is_allowed, rules) if self._keeps_private else screen.is_standard,
            header=header,
        )
        if found:
            raise PoisonInput(Reason.RESIDUAL_IDENTIFIER, f"{len(found)} finding(s): {', '.join(found[:8])}")
        return header

    def _is_allowed(self, rules: Rules, holder: Mapping[str, Any], tag: int) -> bool:
        """Whether an element may be in a released object under the option for private ones: a standard one, or safe."""
        if not tag >> 16 & 1:
            return is_known(tag)
        if private.is_creator(Tag(tag)):
            return True
        found = private.identified(holder, tag)
        return found is not None and rules.private(found) is not None


def _words(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(screen.fold(" ".join(texts)).split())


def _released_texts(profile: Profile) -> frozenset[str]:
    """Keywords of text attributes that may hold a value under the profile, whatever the object."""
    rules = Rules(profile)
    released = {
        keyword
        for tag, (vr, *_, keyword) in DicomDictionary.items()
        if keyword and vr in TEXT_VRS and rules.action(tag) in (Action.KEEP, Action.CLEAN)
    }
    decided = {
        dictionary_keyword(found.tag) for found in profile.overrides if found.action in ("K", "C") and not found.creator
    }
    return profile.keep_text | released | decided
