"""Other ways of writing a name or a number in a text: letter by letter, digit by digit, in words, in codes.

Owns the ways and how each is read. Contains no patient's identifiers: whether what is read is one is asked elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_WORDS: Final = (
    "zero one two three four five six seven eight nine",
    "null eins zwei drei vier fünf sechs sieben acht neun",
    "zéro un deux trois quatre cinq six sept huit neuf",
)
_DIGIT_OF: Final = {"oh": "0"} | {word: str(number) for words in _WORDS for number, word in enumerate(words.split())}
_COUNT: Final = "(?:" + "|".join(sorted(_DIGIT_OF, key=len, reverse=True)) + ")"
_IN_WORDS: Final = re.compile(rf"\b{_COUNT}(?:[\s,.-]+{_COUNT}){{3,}}\b")
_IN_GROUPS: Final = re.compile(r"(?<![\w.])\d+(?:[ ._/,-]{1,2}\d+)+(?!\w)")
_IN_HEX: Final = re.compile(r"\b0x[0-9a-f]{4,16}\b")
_IN_CODES: Final = re.compile(r"(?<![\d.])\d{2,3}(?:[ ,;]{1,2}\d{2,3}){2,}(?![\d.])")
_MIXED: Final = re.compile(r"[^\W_]*[@$]?[^\W\d_]+[\d@$][^\W_]*")
_LETTER_OF: Final = str.maketrans("013457@8$", "oieastabs")
_NUMBER: Final = re.compile(r"\d+")


def readings(low: str) -> Iterator[tuple[int, int, str]]:
    """Where something may be written in another way, and what it says then.

    Args:
        low: a text in lower case.

    >>> [reading for _, _, reading in readings("id 4 9 1 5 2, four nine one five, 0x1f4a, 114 97 121, r4y")]
    ['4915', '49152', '8010', 'ray', 'ray']
    """
    for match in _IN_WORDS.finditer(low):
        yield *match.span(), "".join(_DIGIT_OF[word] for word in re.split(r"[\s,.-]+", match[0]))
    for match in _IN_GROUPS.finditer(low):
        yield *match.span(), "".join(_NUMBER.findall(match[0]))
    for match in _IN_HEX.finditer(low):
        yield *match.span(), str(int(match[0], 16))
    for match in _IN_CODES.finditer(low):
        codes = [int(code) for code in _NUMBER.findall(match[0])]
        if all(0x20 <= code < 0x7F for code in codes):
            yield *match.span(), bytes(codes).decode("ascii")
    for match in _MIXED.finditer(low):
        yield *match.span(), match[0].translate(_LETTER_OF)
