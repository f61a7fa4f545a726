"""What a profile says about pixels: its YAML section ``pixels``.

Owns the section's keys, their defaults and their validation. Contains no reading of pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from imaging_pipeline.deid.pixels.masks import DeviceMask
from imaging_pipeline.errors import ConfigurationError

HOLD: Final = "hold"
BLANK: Final = "blank"
FLAG: Final = "flag"
DEFACE: Final = "deface"

_CHOICES: Final = {"text": (HOLD, BLANK), "heads": (FLAG, HOLD, DEFACE)}
_CALLABLE: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_MARKER: Final = re.compile(r"[A-Z0-9]{1,12}")

MARKERS: Final = (
    "L", "R", "LT", "RT", "LEFT", "RIGHT", "AP", "PA", "LAT", "LATERAL", "LL", "RL", "CC", "MLO", "ML", "LM", "LCC",
    "RCC", "LMLO", "RMLO", "SUPINE", "PRONE", "ERECT", "UPRIGHT", "SITTING", "SEATED", "SEMI", "STANDING", "PORTABLE",
    "MOBILE", "DECUB", "DECUBITUS", "INSP", "EXP", "A", "P", "H", "F", "S", "I",
)  # fmt: skip
"""Words of film markers and of orientation (PS3.3 C.7.6.1.1.1, C.8.7.10.1.2): they say nothing of a person."""

COMMENT_PREFIXES: Final = (
    "JFIF", "Adobe", "SPIFF", "LEAD", "Created by OpenJPEG", "OpenJPH", "Kakadu", "CREATOR: gd-jpeg",
    "Created by GDCM/OpenJPEG version", "Creator: JasPer Version", "Lavc", "Intel(R)", "HP LOCO", "mrfx", "AccuSoft",
    "PICTools",
)  # fmt: skip

RISKY_CONVERSION_TYPES: Final = ("DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN")
RISKY_IMAGE_TYPES: Final = (
    "SCREEN SAVE", "SCREENSHOT", "SCREEN_SAVE", "SCREENSAVE", "DOSE_INFO", "CAPTURE", "PROTOCOL", "SUMMARY",
)  # fmt: skip
PLAIN_PHOTOMETRIC: Final = ("MONOCHROME1", "MONOCHROME2")

FILTERED_SOP_CLASSES: Final = (
    "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2",
    "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.2",
    "1.2.840.10008.5.1.4.1.1.4.4", "1.2.840.10008.5.1.4.1.1.20", "1.2.840.10008.5.1.4.1.1.128",
    "1.2.840.10008.5.1.4.1.1.130", "1.2.840.10008.5.1.4.1.1.128.1", "1.2.840.10008.5.1.4.1.1.30",
    "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.2",
)  # fmt: skip
"""CT, MR, NM, PET, parametric map, segmentation, dose: slices that a machine computed. Each slice passes the stroke
filter, and the detector reads those where it fires; frames of any other class are always read."""

_LISTS: Final = {
    "keep_markers": MARKERS,
    "comment_prefixes": COMMENT_PREFIXES,
    "risky_conversion_types": RISKY_CONVERSION_TYPES,
    "risky_image_types": RISKY_IMAGE_TYPES,
    "photometric_interpretations": PLAIN_PHOTOMETRIC,
    "filtered_sop_classes": FILTERED_SOP_CLASSES,
}
_KEYS: Final = ("text", "heads", "defacer", "max_text_share", "masks", *_LISTS)


@dataclass(frozen=True, slots=True)
class PixelPolicy:
    """What may be in released pixels, and what is done about the rest.

    Attributes:
        text: ``hold``: an object with text in its pixels waits for a person; ``blank``: the text is blanked (the Clean
            Pixel Data Option, PS3.15 E.3.1) and the object held when that cannot be proved.
        heads: head CT, MR and PET: ``flag`` them, ``hold`` them, or ``deface`` them with ``defacer``.
        defacer: ``module:function`` of the defacing hook (`faces.Defacer`), or empty.
        max_text_share: a frame with more of its area under text is a page, not an image: held.
        masks: device masks of the site, before the shipped ones.
        keep_markers: words that stay when the recogniser reads them as they are.
        comment_prefixes: how a comment that an encoder wrote into compressed pixels may begin.
        risky_conversion_types, risky_image_types, photometric_interpretations: values of the header that make an object
            likely to hold text, the last one by not being listed.
        filtered_sop_classes: classes whose frames are read by the detector only where the stroke filter fires.
    """

    text: str = HOLD
    heads: str = FLAG
    defacer: str = ""
    max_text_share: float = 0.4
    masks: tuple[DeviceMask, ...] = ()
    keep_markers: frozenset[str] = frozenset(MARKERS)
    comment_prefixes: tuple[str, ...] = COMMENT_PREFIXES
    risky_conversion_types: frozenset[str] = frozenset(RISKY_CONVERSION_TYPES)
    risky_image_types: frozenset[str] = frozenset(RISKY_IMAGE_TYPES)
    photometric_interpretations: frozenset[str] = frozenset(PLAIN_PHOTOMETRIC)
    filtered_sop_classes: frozenset[str] = frozenset(FILTERED_SOP_CLASSES)

    @property
    def blanks(self) -> bool:
        """Whether found text is blanked."""
        return self.text == BLANK

    @classmethod
    def from_mapping(cls, mapping: object) -> PixelPolicy:
        """Validate the profile's ``pixels`` section; what it does not say keeps its default.

        Raises:
            ConfigurationError: naming the key, what was found there and what is allowed.
        """
        if mapping is None:
            return cls()
        if not isinstance(mapping, Mapping):
            raise _refuse("pixels", mapping, f"a mapping with some of the keys {', '.join(_KEYS)}")
        for key in mapping:
            if key not in _KEYS:
                raise _refuse(f"pixels.{key}", key, f"the keys {', '.join(_KEYS)}")
        lists = {key: _texts(key, mapping.get(key, list(default))) for key, default in _LISTS.items()}
        policy = cls(
            text=_choice("text", mapping.get("text", HOLD)),
            heads=_choice("heads", mapping.get("heads", FLAG)),
            defacer=_callable(mapping.get("defacer", "")),
            max_text_share=_share(mapping.get("max_text_share", 0.4)),
            masks=_masks(mapping.get("masks", [])),
            keep_markers=_markers(lists["keep_markers"]),
            comment_prefixes=tuple(lists["comment_prefixes"]),
            risky_conversion_types=frozenset(lists["risky_conversion_types"]),
            risky_image_types=frozenset(lists["risky_image_types"]),
            photometric_interpretations=frozenset(lists["photometric_interpretations"]),
            filtered_sop_classes=frozenset(lists["filtered_sop_classes"]),
        )
        if (policy.heads == DEFACE) != bool(policy.defacer):
            raise _refuse("pixels.defacer", policy.defacer, "module:function when heads is deface, else nothing")
        return policy


def _choice(key: str, found: object) -> str:
    if found not in _CHOICES[key]:
        raise _refuse(f"pixels.{key}", found, " or ".join(_CHOICES[key]))
    return str(found)


def _callable(found: object) -> str:
    if not isinstance(found, str) or (found and not _CALLABLE.fullmatch(found)):
        raise _refuse("pixels.defacer", found, "module:function")
    return found


def _share(found: object) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found <= 1:
        raise _refuse("pixels.max_text_share", found, "a number above 0 and at most 1")
    return float(found)


def _texts(key: str, found: object) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(item, str) and item.strip() for item in found):
        raise _refuse(f"pixels.{key}", found, "a list of texts (quote words such as NO)")
    return found


def _markers(found: list[str]) -> frozenset[str]:
    for word in found:
        if not _MARKER.fullmatch(word):
            raise _refuse("pixels.keep_markers", word, "words of 1 to 12 capital letters and digits")
    return frozenset(found)


def _masks(found: object) -> tuple[DeviceMask, ...]:
    if not isinstance(found, list):
        raise _refuse("pixels.masks", found, "a list of masks")
    try:
        return tuple(DeviceMask.from_mapping(item) for item in found)
    except ValueError as error:
        raise ConfigurationError(f"profile key pixels.masks: {error}") from error


def _refuse(key: str, found: object, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"profile key {key}: found {found!r}; allowed: {allowed}")
