"""Running text without what identifies anybody: clinical words stay, the rest goes (PS3.15 E.3.9, Clean Descriptors).

Owns the order of things: a text with an encoding in it is removed; what has the form of an identifier goes; dates move;
the patient's own identifiers go; and of what is left only words that are known to be clinical or ordinary stay. That
last step is a default deny: a name nobody thought of is not in the vocabulary. Contains no elements and no files.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from typing import Final

from imaging_pipeline.deid import text_patterns as patterns
from imaging_pipeline.deid.disguises import readings
from imaging_pipeline.deid.screen import Index
from imaging_pipeline.deid.text_dates import moments
from imaging_pipeline.deid.text_names import institution, people
from imaging_pipeline.deid.vocabulary import is_clinical, is_likely_name, is_name_word, name_words, plain, visible

MAX_TEXT: Final = 100_000
"""Longer texts (characters) are no descriptions; they are removed whole."""
_MAX_REMEMBERED: Final = 256
"""Longer texts are not remembered: they hardly come twice."""
MAX_DIGITS: Final = 4
"""Digits in a row that a measurement or a protocol's name may have; longer numbers identify."""

_TOKEN: Final = re.compile(r"[^\W_]+")
_POWERS: Final = str.maketrans("\u00b2\u00b3\u00b9", "231")
"""``mm\u00b2`` is a unit and its power."""
_PIECE: Final = re.compile(r"[^\W\d_]+|\d+")
_DECIMAL: Final = re.compile(r"(?<![\w.])\d{1,4}[.,]\d+(?![\w.])|(?<![\w.])0?\.\d+(?![\w.])")
_QUANTITY: Final = re.compile(
    r"(?<![\w.])(\d{1,7})(?=\s*(?:ms|msec|µs|us|mm|cm|ml|mg|mAs|mA|kV|kVp|Hz|MHz|MBq|kBq|rad|cGy|mGy|HU|x\s*\d|\xd7)\b)"
)
_XRAY: Final = patterns.caseless(r"\bX[- ]?Ray(?![^\W_])")
_CHAIN: Final = re.compile(r"[^\W\d_]*\d[^\W_]*(?:[-/._][^\W\d_]*\d[^\W_]*)+")
"""Numbers that are joined to one."""
_SPINE: Final = frozenset("cthls")
"""Letters of vertebrae, which stand between numbers: ``T12L1S1``."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A text that may be released.

    Attributes:
        text: what is left, its lines kept.
        removed: kind (IDENTIFIER, PERSON, INSTITUTION, CONTACT, NUMBER, ADDRESS, AGE, DATE, STRUCTURED, UNKNOWN) to how
            many places something of it was taken out.
        shifted: dates and times moved in place.
    """

    text: str = field(repr=False)
    removed: Counter[str]
    shifted: int = 0


class TextCleaner:
    """Cleans texts of one object; the same text, index and shift give the same result.

    Args:
        index: identifiers of the patient.
        shift: how far dates move; None takes them out.
        earliest: dates before it are taken out.
        keep: words of the site that are clinical although the vocabulary lacks them. A word of the index still goes.
    """

    __slots__ = ("_done", "_earliest", "_index", "_keep", "_shift")

    def __init__(self, index: Index, *, shift: timedelta | None, earliest: date, keep: Collection[str] = ()) -> None:
        self._index = index
        self._shift = shift
        self._earliest = earliest
        self._keep = _kept_words(frozenset(keep))
        self._done: dict[str, Cleaned] = {}

    def clean(self, text: str) -> Cleaned:
        """The text without identifiers; empty when nothing of it may stay. Short texts are remembered."""
        text = visible(text)
        if len(text) > _MAX_REMEMBERED:
            return self.cleaned_anew(text)
        done = self._done.get(text)
        if done is None:
            anybody = _of_anybody(text, self._keep)
            is_own = anybody is None or self._names_patient(text) or self._names_patient(anybody.text)
            done = self._done[text] = self.cleaned_anew(text) if anybody is None or is_own else anybody
        return done

    def _names_patient(self, text: str) -> bool:
        return next(self._own(patterns.Seen(text)), None) is not None

    def _own(self, seen: patterns.Seen) -> Iterator[tuple[int, int]]:
        """Where identifiers of the patient stand, as they are or written in another way."""
        yield from self._index.spans(seen.text)
        for start, end, reading in readings(seen.low):
            if reading not in self._index.days and self._index.in_text(reading):
                yield start, end

    def cleaned_anew(self, text: str) -> Cleaned:
        """As `clean`, of a text without hidden characters, nothing remembered."""
        if not text.strip():
            return Cleaned("", Counter())
        seen = patterns.Seen(text) if len(text) <= MAX_TEXT else None
        if seen is None or any(form.spans(seen) for form in patterns.STRUCTURED):
            return Cleaned("", Counter({"STRUCTURED": 1}))
        work = _Work(seen)
        self._mark_forms(work)
        shifted = self._mark_dates(work)
        work.mark_all("IDENTIFIER", (span for span in self._own(work.seen) if not work.is_replaced(*span)))
        work.mark_all("PERSON", people(work.seen, self._keep))
        self._mark_institutions(work)
        self._mark_unknown(work)
        self._mark_neighbours(work)
        if not work.removed and not shifted:
            return Cleaned(text.strip(), work.removed)
        result = work.result()
        if self._names_patient(result):
            return Cleaned("", work.removed + Counter({"IDENTIFIER": 1}))  # what was taken out stood between its parts
        return Cleaned(result, work.removed, shifted)

    def _mark_forms(self, work: _Work) -> None:
        for form in patterns.PATTERNS:
            work.mark_all(form.kind, form.spans(work.seen))

    def _mark_dates(self, work: _Work) -> int:
        shifted = 0
        for moment in moments(work.text, self._shift, self._earliest, self._index.days):
            if not moment.instead or work.is_touched(moment.start, moment.end):
                work.mark("DATE", moment.start, moment.end)
            else:
                work.replace(moment.start, moment.end, moment.instead)
                shifted += 1
        return shifted

    def _mark_institutions(self, work: _Work) -> None:
        for match in patterns.INSTITUTION.finditer(work.seen.low):
            start, end = institution(work.text, *match.span())
            if (start, end) != match.span() or work.is_touched(start - 2, end + 2):
                work.mark("INSTITUTION", start, end)

    def _mark_unknown(self, work: _Work) -> None:
        kept = {match.span() for match in _XRAY.finditer(work.seen.low)}
        if work.seen.digits:
            kept |= {match.span() for match in _DECIMAL.finditer(work.text)}
            kept |= {match.span(1) for match in _QUANTITY.finditer(work.text)}
        for start, end in _tokens(work.text):
            if work.is_touched(start, end) or any(begin <= start and end <= stop for begin, stop in kept):
                continue
            token = work.text[start:end]
            if not self._is_fit(token):
                work.mark("UNKNOWN", start, end)
        for match in _CHAIN.finditer(work.text) if "UNKNOWN" in work.removed else ():
            if any(work.is_gone(*part) for part in _tokens(work.text, *match.span())):
                work.mark("NUMBER", *match.span())  # -1234 of 241056-1234

    def _is_fit(self, token: str) -> bool:
        """Whether a token may stay: a known word, a short number, or a mixture of both."""
        folded = plain(token)
        if folded in self._keep:
            return True
        if is_clinical(folded):
            return not (token.istitle() and len(token) > 1 and folded in name_words("short"))
        pieces = _PIECE.findall(token.translate(_POWERS))
        digits = [piece for piece in pieces if piece.isdigit()]
        letters = [piece for piece in pieces if not piece.isdigit()]
        if set(map(plain, letters)) == {"x"} and all(len(run) <= MAX_DIGITS for run in digits) and token.isascii():
            return True  # 512x512x128
        total = sum(map(len, digits))
        is_short = total <= MAX_DIGITS + bool(letters) and all(len(run) <= MAX_DIGITS for run in digits)
        is_mixed = len(set(letters)) > 2 and len(digits) > 2 and not _SPINE.issuperset("".join(letters).casefold())
        is_long = not is_short or (len(digits) > 2 and total > MAX_DIGITS)
        if is_mixed or is_long or not all(piece.isascii() for piece in digits):
            return False
        if not digits:
            parts = _camel(token)
            return len(parts) > 1 and all(is_clinical(plain(part)) for part in parts)
        return all(len(part) == 1 or is_clinical(plain(part)) for part in letters)

    def _mark_neighbours(self, work: _Work) -> None:
        """Words that are names too go beside something that went: ``Young`` of ``Oberon Young``."""
        tokens = list(_tokens(work.text))
        for position, (start, end) in enumerate(tokens):
            word = work.text[start:end]
            folded = plain(word)
            if folded in patterns.NAME_PARTICLES:
                self._mark_particle(work, tokens, position)
            if not is_name_word(folded) or word.islower() or work.is_touched(start, end):
                continue
            if not is_likely_name(folded) and not self._ends_name(work, tokens, position):
                continue
            for other in (position - 1, position + 1):
                if 0 <= other < len(tokens) and _is_beside(work, tokens[other], (start, end)):
                    work.mark("PERSON", start, end)
                    break

    def _mark_particle(self, work: _Work, tokens: list[tuple[int, int]], position: int) -> None:
        """A name's small word goes with the name behind it, and with what stands behind when a name went before."""
        here, behind = tokens[position], tokens[position + 1 : position + 2]
        if not behind:
            return
        if _is_beside(work, behind[0], here):
            work.mark("PERSON", *here)
            return
        is_known_name = plain(work.text[slice(*here)]) in patterns.SURE_PARTICLES
        is_after_name = position > 0 and _is_beside(work, tokens[position - 1], here)
        if (is_known_name or is_after_name) and work.text[slice(*behind[0])].istitle():
            work.mark("PERSON", here[0], behind[0][1])

    def _ends_name(self, work: _Work, tokens: list[tuple[int, int]], position: int) -> bool:
        """Whether a word stands like a family name behind a given name that went (``Grace Long``)."""
        if not position:
            return False
        (begin, stop), (start, end) = tokens[position - 1], tokens[position]
        is_name = work.text[begin:stop].istitle() and work.text[start:end].istitle()
        return is_name and work.text[stop:start] in (" ", ". ") and work.is_gone(begin, stop)


@lru_cache(maxsize=8)
def _kept_words(texts: frozenset[str]) -> frozenset[str]:
    return frozenset(plain(word) for text in texts for word in _TOKEN.findall(text))


@lru_cache(maxsize=4096)
def _of_anybody(text: str, keep: frozenset[str]) -> Cleaned | None:
    """What a text becomes of which nothing is its patient's own; None where it has a date, which moves with theirs."""
    if next(moments(text, None, date.min, frozenset()), None):
        return None
    return TextCleaner(Index(()), shift=None, earliest=date.min, keep=keep).cleaned_anew(text)


class _Work:
    """A text and which of its characters go or are replaced."""

    __slots__ = ("_gone", "_instead", "removed", "seen", "text")

    def __init__(self, seen: patterns.Seen) -> None:
        self.seen = seen
        self.text = seen.text
        self.removed: Counter[str] = Counter()
        self._gone = bytearray(len(seen.text))
        self._instead: dict[int, tuple[int, str]] = {}

    def mark_all(self, kind: str, spans: Iterable[tuple[int, int]]) -> None:
        for start, end in spans:
            self.mark(kind, start, end)

    def mark(self, kind: str, start: int, end: int) -> None:
        """Take out; a replacement that was planned there falls away."""
        if start >= end or self.is_gone(start, end):
            return
        for begin in [begin for begin, (stop, _) in self._instead.items() if begin < end and stop > start]:
            stop, _ = self._instead.pop(begin)
            self._gone[begin:stop] = b"\1" * (stop - begin)
        self._gone[start:end] = b"\1" * (end - start)
        self.removed[kind] += 1

    def replace(self, start: int, end: int, instead: str) -> None:
        self._instead[start] = (end, instead)

    def is_touched(self, start: int, end: int) -> bool:
        """Whether any of it is gone or replaced."""
        if 1 in self._gone[start:end]:
            return True
        return any(begin < end and stop > start for begin, (stop, _) in self._instead.items())

    def is_replaced(self, start: int, end: int) -> bool:
        """Whether all of it is replaced."""
        return any(begin <= start and end <= stop for begin, (stop, _) in self._instead.items())

    def is_gone(self, start: int, end: int) -> bool:
        return 0 not in self._gone[start:end]

    def result(self) -> str:
        left = ["\0" if is_gone else char for char, is_gone in zip(self.text, self._gone, strict=True)]
        for start, (end, instead) in self._instead.items():
            left[start:end] = [instead, *[""] * (end - start - 1)]
        return _tidy("".join(left))


def _tokens(text: str, start: int = 0, end: int = sys.maxsize) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _TOKEN.finditer(text, start, end))


def _camel(token: str) -> list[str]:
    """``SmartScore`` as ``Smart`` and ``Score``."""
    return re.findall(r"[^\W\d_a-zß-ÿ]+(?![^\W\d_A-ZÀ-Þ])|[^\W\d_]?[a-zß-ÿ]+", token)


def _is_beside(work: _Work, other: tuple[int, int], word: tuple[int, int]) -> bool:
    """Whether ``other`` is the next word on the same line and either gone or, with ``word``, a full name."""
    left, right = sorted((other, word))
    if work.text[left[1] : right[0]].strip(" ,.^-'\u2019") or "\n" in work.text[left[1] : right[0]]:
        return False
    text = work.text[other[0] : other[1]]
    if work.is_gone(*other):
        return text[:1].isalpha()
    both = {plain(text), plain(work.text[word[0] : word[1]])}
    is_title = all(part.istitle() for part in (text, work.text[word[0] : word[1]]))
    return is_title and all(map(is_name_word, both)) and not both.isdisjoint(name_words("given"))


def _tidy(text: str) -> str:
    """The text with its holes closed: no separators without words between them, one blank, no blank lines added."""
    lines = []
    for line in re.split(r"(\r\n|\r|\n|\f)", text):
        if "\0" not in line:
            lines.append(line)
            continue
        closed = re.sub(r"[\s,;:/^_&+=@#*|~(\[<{\"'\u2019-]*\0[\0\s,;:/^_&+=@#*|~)\]>}\"'\u2019-]*", "\0", line)
        closed = re.sub(r"\0+(?=[.!?;,])", "", closed)
        closed = re.sub(r"\0+", " ", closed)
        lines.append(re.sub(r"[ \t]{2,}", " ", closed).strip(" \t,;:/^_-"))
    return "".join(lines).strip()
