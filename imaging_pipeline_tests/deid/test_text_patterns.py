"""The short cuts of the patterns of running text: whatever a pattern finds, its short cut lets through."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imaging_pipeline.deid.text_patterns import INITIALS, PATTERNS, STRUCTURED, Form, Seen, lowered

FORMS = (*PATTERNS, *STRUCTURED, INITIALS)


def places(form: Form, text: str) -> list[tuple[int, int]]:
    """Where a form stands, found without its short cut."""
    return [match.span() for match in form.pattern.finditer(text if form.is_cased else lowered(text))]


@pytest.mark.parametrize("form", FORMS, ids=range(len(FORMS)))
def test_no_text_with_a_form_is_taken_for_one_without(form: Form) -> None:
    @settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.from_regex(form.pattern), st.sampled_from((str, str.upper, str.lower)))
    def check(text: str, cased: object) -> None:
        text = cased(text)  # type: ignore[operator]
        assert form.spans(Seen(text)) == places(form, text)

    check()


def test_lower_case_keeps_every_character_in_its_place_and_what_it_is() -> None:
    kinds = [re.compile(kind) for kind in (r"\w", r"\d", r"\s", r"[^\W\d_]")]
    for char in map(chr, range(sys.maxunicode + 1)):
        low = lowered(char)
        assert low == char or [len(low), *map(bool, (kind.match(low) for kind in kinds))] == [
            1,
            *map(bool, (kind.match(char) for kind in kinds)),
        ]


@pytest.mark.parametrize("letter", "abcdefghijklmnopqrstuvwxyzäéöüß")
def test_lower_case_has_the_letters_that_a_search_without_case_would_take(letter: str) -> None:
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    found = {match[0] for match in re.compile(letter, re.IGNORECASE).finditer(every)}
    assert found == {char for char in every if lowered(char) == letter}
