from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging_pipeline.objects.patterns import Patterns

PATHS = st.lists(st.text("ab.[\n", min_size=1, max_size=3), min_size=1, max_size=4).map("/".join)
PATTERNS = st.lists(st.text("ab*?.[", min_size=1, max_size=3), min_size=1, max_size=4).map("/".join)


@pytest.mark.parametrize(
    ("pattern", "taken", "left_out"),
    [
        ("*.dcm", ["a.dcm", "x/y/a.dcm"], ["a.DCM", "a.dcm/b", "a.dcm.bak"]),
        ("report", ["report", "x/report"], ["report/x", "reports"]),
        ("a/*", ["a/b"], ["a/b/c", "x/a/b", "a"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab/c", "x/a/b"]),
        ("**/a/*", ["a/b", "x/a/b", "x/y/a/b"], ["xa/b", "a/b/c"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["a/bz", "az"]),
        ("IM?", ["IM1", "x/IM2"], ["IM", "IM10", "IM/1"]),
        ("**", ["a", "a/b"], []),
        ("a**z/1", ["az/1", "ab/cz/1"], ["a/1"]),
        ("[0-9]+", ["[0-9]+"], ["1", "0-9"]),
        ("a b%ü", ["x/a b%ü"], ["a b%u"]),
    ],
)
def test_what_a_pattern_takes(pattern: str, taken: list[str], left_out: list[str]) -> None:
    patterns = Patterns([pattern])
    assert [path for path in taken if not patterns.takes(path)] == []
    assert [path for path in left_out if patterns.takes(path)] == []


def test_without_patterns_everything_is_taken_but_hidden_names() -> None:
    patterns = Patterns()
    assert patterns.is_everything
    assert patterns.takes("a/b.c")
    assert not any(patterns.takes(path) for path in (".a", "a/.b", ".a/b", "a/.b/c"))


def test_exclude_goes_before_include() -> None:
    patterns = Patterns(["a/**"], ["*.txt"])
    assert patterns.takes("a/1")
    assert not patterns.takes("a/1.txt")
    assert not patterns.takes("b/1")


def test_folders_in_which_nothing_can_be_taken_are_not_entered() -> None:
    patterns = Patterns(["2026/*/*.dcm", "new/**"], ["**/closed/**"])
    assert [folder for folder in ("2026", "2026/01", "new", "new/x", "2025", ".git", "new/closed", "2026/.x")
            if patterns.enters(folder)] == ["2026", "2026/01", "new", "new/x"]  # fmt: skip


@given(st.lists(PATTERNS, max_size=3), st.lists(PATTERNS, max_size=3), PATHS)
def test_every_folder_above_a_taken_path_is_entered(include: list[str], exclude: list[str], path: str) -> None:
    patterns = Patterns(include, exclude)
    if patterns.takes(path):
        parts = path.split("/")
        assert all(patterns.enters("/".join(parts[:depth])) for depth in range(1, len(parts)))


@given(PATHS.filter(lambda path: not any(name.startswith(".") for name in path.split("/"))))
def test_a_path_without_wildcards_is_a_pattern_of_itself(path: str) -> None:
    assert Patterns([path]).takes(path)
    assert not Patterns([], [path]).takes(path)
    assert not Patterns(["*/" + path]).takes(path)


@given(PATTERNS, PATHS)
def test_include_and_exclude_mean_the_same_by_a_pattern(pattern: str, path: str) -> None:
    if Patterns().takes(path):
        assert Patterns([pattern]).takes(path) is not Patterns([], [pattern]).takes(path)
