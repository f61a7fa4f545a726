"""Words that are clinical or ordinary, and words that are also names of people.

Owns the shipped word lists and the question whether a word is known. Contains no patient's identifiers and no policy: a
word that is known here may still be somebody's name, which `text` and `screen` decide from its surroundings.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from importlib import resources
from typing import Final

CLINICAL_FILE: Final = "clinical_words.txt"
"""Clinical, technical and ordinary words, below ``deid/data``."""
NAMES_FILE: Final = "name_words.txt"
"""Known words that are also given or family names, below ``deid/data``."""

MIN_COMPOUND: Final = 8
"""Shorter words are no compounds: too many family names are made of two short words."""
_UNDECOMPOSED: Final = str.maketrans(
    {"ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ð": "d", "þ": "th", "æ": "ae", "Æ": "AE", "œ": "oe",
     "Œ": "OE", "\u0131": "i", "\u00b5": "u", "\u03bc": "u"}
)  # fmt: skip
"""Letters that Unicode does not take apart into a letter and a mark."""
_MIN_PART: Final = 4
_MIN_STEM: Final = 4
_MAX_WORD: Final = 48
_PRINTABLE: Final = re.compile(r"[ -~\r\n\t\f]*")

_ENDINGS: Final = (
    ("s", ""), ("es", ""), ("ies", "y"), ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e"), ("ly", ""), ("ally", ""),
    ("ity", ""), ("ness", ""), ("al", ""), ("ic", ""), ("ization", "ize"), ("ised", "ized"), ("isation", "ization"),
    ("ae", "a"), ("i", "us"), ("x", ""), ("aux", "al"),
)  # fmt: skip
"""Ending and what stands in its place in the word list: plurals and simple derivations."""
_ANY_ENDING: Final = tuple(ending for ending, _ in _ENDINGS)
_OTHER_ENDINGS: Final = ("en", "e", "n", "em", "es")
"""Endings of German and French words only: an English word with them looks like a name."""

_PREFIXES: Final = (
    "non", "un", "pre", "post", "peri", "para", "intra", "inter", "sub", "supra", "infra", "retro", "anti", "hyper",
    "hypo", "micro", "macro", "pseudo", "multi", "poly", "endo", "epi", "extra", "trans", "ultra", "over", "under",
    "re", "tele", "neuro", "cardio", "osteo", "spondylo", "thoraco", "abdomino", "broncho", "hepato", "gastro", "cysto",
    "vaso", "veno", "arterio", "angio", "cholangio", "pyelo", "chondro", "arthro", "fibro", "lympho", "myelo", "radio",
    "sono", "echo", "electro", "costo", "sterno", "pleuro", "pneumo", "hemi", "semi", "bi", "tri", "mid", "antero",
    "postero", "latero", "medio", "supero", "infero", "cranio", "cervico", "lumbo", "ilio", "femoro", "tibio", "naso",
    "oro", "vesico", "recto", "utero", "gynako", "nephro", "uretero", "haemo", "hemo", "immuno", "encephalo",
)  # fmt: skip

_MEDICAL_END: Final = re.compile(
    r"(itis|ectomy|ektomie|ectomie|ostomy|otomy|otomie|ography|ographie|ogram|ogramm|ogramme|oscopy|oskopie|oscopie"
    r"|opathy|opathie|oplasty|oplastie|plastik|emia|aemia|emie|amie|megaly|megalie|sclerosis|sklerose|sclerose"
    r"|stenosis|stenose|trophy|trophie|phagia|plegia|plegie|paresis|parese|uria|urie|rrhea|rrhoe|carcinoma|karzinom"
    r"|carcinome|sarcoma|sarkom|blastoma|blastom|adenoma|adenom|lymphoma|lymphom|fibroma|osteoma|angioma|angiom|cele"
    r"|ectasia|ektasie|ectasis|ectasie|ptosis|malacia|lysis|lyse|listhesis|listhese|arthrosis|arthrose|phyte|phyten"
    r"|zele|ismus|pathologisch|ographisch|oskopisch)$"
)
"""Endings that make a long word a medical one whatever it begins with."""
_MIN_MEDICAL: Final = 9


@lru_cache(maxsize=2)
def _sections(name: str) -> dict[str, frozenset[str]]:
    """The lists of a file, each line of which is ``section: word word``; several lines of one section are one list."""
    text = (resources.files("imaging_pipeline.deid") / "data" / name).read_text("utf-8")
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            section, _, words = line.partition(":")
            found.setdefault(section, set()).update(words.split())
    return {section: frozenset(words) for section, words in found.items()}


@lru_cache(maxsize=1)
def clinical_words() -> frozenset[str]:
    """Every word of the shipped vocabulary, folded with `plain`."""
    return frozenset().union(*_sections(CLINICAL_FILE).values())


@lru_cache(maxsize=8)
def _words_of(section: str) -> frozenset[str]:
    return _sections(CLINICAL_FILE)[section]


@lru_cache(maxsize=8)
def name_words(kind: str) -> frozenset[str]:
    """Words that are names as well as words, folded with `plain`.

    Args:
        kind: ``given`` and ``family`` names; ``clinical``: words far more often than names; ``short``: abbreviations;
            ``never``: names that look like built words and are none.
    """
    return _sections(NAMES_FILE).get(kind, frozenset())


@lru_cache(maxsize=4096)
def is_name_word(word: str) -> bool:
    """Whether a known word is also a person's name."""
    return word in _name_words()


@lru_cache(maxsize=1)
def _name_words() -> frozenset[str]:
    return frozenset().union(*map(name_words, ("given", "family", "clinical", "short")))


def is_likely_name(word: str) -> bool:
    """Whether a known word beside another name is rather a name than a word."""
    return word in name_words("given") or word in name_words("family")


def plain(text: str) -> str:
    """``text`` in lower case, without accents and with compatible characters (NFKD) instead of special ones."""
    if text.isascii():
        return text.casefold()
    spread = unicodedata.normalize("NFKD", text.translate(_UNDECOMPOSED))
    return "".join(char for char in spread if not unicodedata.combining(char)).casefold()


def visible(text: str) -> str:
    """The text composed, without characters that only hide something (zero width, direction, control)."""
    if _PRINTABLE.fullmatch(text):
        return text
    composed = unicodedata.normalize("NFC", text)
    return "".join(
        char
        for char in composed
        if char in "\r\n\t\f" or unicodedata.category(char) not in ("Cf", "Cc", "Co", "Cs", "Cn")
    )


@lru_cache(maxsize=32768)
def is_clinical(word: str) -> bool:
    """Whether a folded word is one of the vocabulary, an inflection of one, or built of clinical parts.

    >>> is_clinical("hepatomegaly"), is_clinical("zwyntharquist")
    (True, False)
    """
    if len(word) > _MAX_WORD or not word.isalpha():
        return False
    words = clinical_words()
    if word in name_words("never"):
        return False
    if word in words or _is_inflected(word):
        return True
    if len(word) >= _MIN_MEDICAL and _MEDICAL_END.search(word):
        return True
    for prefix in _PREFIXES if word.startswith(_PREFIXES) else ():
        rest = word.removeprefix(prefix)
        if rest is not word and len(rest) >= _MIN_STEM and (rest in words or _is_inflected(rest)):
            return not is_name_word(rest)
    return len(word) >= MIN_COMPOUND and _is_compound(word)


def _is_inflected(word: str) -> bool:
    for ending, instead in _ENDINGS if word.endswith(_ANY_ENDING) else ():
        if word.endswith(ending):
            stem = word[: -len(ending)]
            if len(stem) >= _MIN_STEM and stem + instead in clinical_words():
                return True
            is_doubled = ending in ("ed", "ing") and len(stem) > _MIN_STEM and stem[-1] == stem[-2]
            if is_doubled and stem[:-1] in clinical_words():
                return True
    stems = (word[: -len(ending)] for ending in _OTHER_ENDINGS if word.endswith(ending))
    return any(len(stem) > _MIN_STEM and (stem in _words_of("german") or stem in _words_of("french")) for stem in stems)


def _is_compound(word: str) -> bool:
    """Whether a word is made of German words (``Thoraxaufnahme``, ``Rippenserienfraktur``)."""
    words = _words_of("german")
    for end in range(_MIN_PART, len(word) - _MIN_PART + 1):
        head = word[:end]
        if head not in words or is_name_word(head):
            continue
        for link in ("", "s", "o", "n", "en", "es"):
            tail = word[end:]
            if not tail.startswith(link):
                continue
            tail = tail[len(link) :]
            if len(tail) < _MIN_PART or is_name_word(tail):
                continue
            if tail in words or _is_inflected(tail) or (len(tail) >= 2 * _MIN_PART and _is_compound(tail)):
                return True
    return False
