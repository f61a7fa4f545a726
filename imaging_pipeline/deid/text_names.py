"""Where names of people and institutions stand in running text, by what stands around them.

Owns the reading of the patterns of `text_patterns` that end in a name. Contains no identifiers of a patient: any name
is found. Changes no text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final

from imaging_pipeline.deid import text_patterns as patterns
from imaging_pipeline.deid.vocabulary import is_clinical, is_likely_name, is_name_word, name_words, plain

_TOKEN: Final = re.compile(r"[^\W_]+")
_NAME_WORD: Final = re.compile(rf"{patterns.NAME_PART}[.'\u2019]?s?")
_NAME_STEP: Final = re.compile(rf"({patterns.NAME_PART}|[A-Z]\.?)([\s.,^-]{{0,2}})")
_MODALITIES: Final = frozenset({"MR", "DR", "SR", "PD", "CA", "M", "FR", "OA", "HR", "ST", "NAME"})
_MAX_INITIALS: Final = 3
_NO_NAMES: Final = patterns.words(
    "the for to of on in at and or not with is was will has had im der die das am le la les"
)


def people(seen: patterns.Seen, keep: Collection[str]) -> Iterator[tuple[int, int]]:
    """Where people are named.

    Args:
        seen: the text.
        keep: folded words of the site that are clinical although the vocabulary lacks them.
    """
    yield from _titled(seen)
    yield from _with_degree(seen)
    for match in (*patterns.ACTOR.finditer(seen.low), *patterns.NAME_INITIAL.finditer(seen.text)):
        word = seen.text[slice(*match.span(1))]
        if word[0].isupper() and is_name_word(plain(word)):
            yield match.span(1)
    for form in (patterns.GENITIVE, patterns.INITIAL_NAME):
        for start, end in form.spans(seen):
            if any(is_likely_name(plain(word)) for word in _TOKEN.findall(seen.text, start, end)):
                yield start, end
    for match in patterns.NAME_COMMA.finditer(seen.text) if ", " in seen.text else ():
        family, given = plain(match[1]), plain(match[2])
        if is_name_word(family) and not is_clinical(given) and given not in keep:
            yield match.span()
    yield from patterns.INITIALS.spans(seen)


def _titled(seen: patterns.Seen) -> Iterator[tuple[int, int]]:
    """Names behind a title, with it, and behind a role or a word like ``read by``."""
    for pattern in (patterns.TITLE, patterns.ROLE, patterns.BY):
        for match in pattern.finditer(seen.low):
            title = seen.text[slice(*match.span())]
            said = title.strip().casefold()
            is_sure = pattern is patterns.TITLE or said.endswith((":", "=", " by", " von", " par"))
            end = _name_end(seen.text, match.end(), title=title, is_sure=is_sure)
            if end > match.end():
                yield (match.start() if pattern is patterns.TITLE else match.end()), end


def _with_degree(seen: patterns.Seen) -> Iterator[tuple[int, int]]:
    """Names with a degree behind them."""
    for match in patterns.DEGREE.finditer(seen.text) if patterns.DEGREE_END.search(seen.low) else ():
        words = [plain(word) for word in _TOKEN.findall(match[1])]
        if any(not is_clinical(word) or is_name_word(word) for word in words):
            yield match.span()


def _name_end(text: str, start: int, *, title: str, is_sure: bool) -> int:
    """Where the name that begins at ``start`` ends; ``start`` when no name stands there.

    The first word behind a title is a name unless it is a plain word in lower case; further words are while they are
    not clinical, or are names too.
    """
    end, is_first, position = start, True, start
    while match := _NAME_STEP.match(text, position):
        word = match[1]
        folded = plain(word.strip("."))
        is_particle = folded in patterns.PARTICLES
        is_known = is_clinical(re.sub(r"[^\w]", "", folded)) and not is_particle
        if is_first and not is_particle:
            is_name = _begins_name(word, folded, title=title, is_sure=is_sure, is_known=is_known)
        else:
            is_name = is_particle or not is_known or is_name_word(folded) or len(word.strip(".")) == 1
        if not is_name:
            break
        position = match.end()
        if not is_particle:
            is_first, end = False, match.end(1)
            if "," in match[2]:
                break
    if is_first and is_sure and text[start:position].istitle():
        return len(text[:position].rstrip(" .,"))  # ``Dr. Van``: nothing but a name's small words
    return end


def _begins_name(word: str, folded: str, *, title: str, is_sure: bool, is_known: bool) -> bool:
    """Whether the first word behind a title is a name; ``MR`` and ``DR`` are modalities as well."""
    if ":" in title and word.isupper() and len(word) <= _MAX_INITIALS:
        return True
    if not is_known:
        return is_sure or not word.islower()
    bare = title.strip(" .:,_=-")
    if bare in _MODALITIES and "." not in title:
        return is_likely_name(folded) and not word.islower()
    if is_name_word(folded) and not word.islower():
        return is_sure or folded not in name_words("clinical") or word.istitle()
    return is_sure and word.istitle() and len(bare) > 1 and folded not in _NO_NAMES


def institution(text: str, start: int, end: int) -> tuple[int, int]:
    """The name of the institution around the word for its kind; that word alone where nothing belongs to it."""
    begin, offset = start, max(0, start - 80)
    for match in reversed(list(_NAME_WORD.finditer(text, offset, start))):
        between = text[match.end() : begin]
        if between.strip(" .-'\u2019&") or "\n" in between:
            break
        bare = re.sub(r"[^\w]", "", plain(match[0]))
        if is_clinical(bare) and bare not in patterns.INSTITUTION_WORDS and not is_likely_name(bare):
            break
        begin = match.start()
    while begin < start and (first := _TOKEN.match(text, begin)) and plain(first[0]) in patterns.SMALL_WORDS:
        begin = first.end() + len(text[first.end() :]) - len(text[first.end() :].lstrip(" .'\u2019-"))
    tail = patterns.INSTITUTION_TAIL.match(text, end)
    if tail and not tail["name"].islower():
        end = tail.end()
    return min(begin, start), end
