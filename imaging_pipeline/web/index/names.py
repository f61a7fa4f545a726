"""Words of person names and how they sound, for the fuzzy matching of names (PS3.4 C.2.2.2.1.1)."""

from __future__ import annotations

import re

from imaging_pipeline.web.index.file import folded

_WORDS = re.compile(r"[^\s^=,.*?'-]+").findall

_CODES = {
    letter: digit for digit, letters in enumerate(("bfpv", "cgjkqsxz", "dt", "l", "mn", "r"), 1) for letter in letters
}
_SOUND_CHARACTERS = 4


def words_of(name: str) -> set[tuple[str, str]]:
    """The words of a name in any of its components, folded, each with its sound.

    >>> sorted(words_of("Müller^Anna"))
    [('anna', 'A500'), ('muller', 'M460')]
    """
    return {(word, sound_of(word)) for word in _WORDS(folded(name) or "")}


def sound_of(word: str) -> str:
    """How a word sounds in English: the American Soundex code of the US census; of other scripts, the word itself.

    >>> sound_of("meyer") == sound_of("meier"), sound_of("robert"), sound_of("ashcraft")
    (True, 'R163', 'A261')
    """
    if not (word.isascii() and word.isalpha()):
        return word
    digits, before = "", _CODES.get(word[0])
    for letter in word[1:]:
        code = _CODES.get(letter)
        if code and code != before:
            digits += str(code)
        if letter not in "hw":  # these two do not part letters of one code
            before = code
    return (word[0].upper() + digits).ljust(_SOUND_CHARACTERS, "0")[:_SOUND_CHARACTERS]
