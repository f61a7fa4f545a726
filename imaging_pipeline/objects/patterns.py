"""Glob patterns of the paths below a source's location. Pure: no input or output.

``*`` stands for any characters of one name, ``?`` for one of them, ``**`` for any characters of any names; all else
stands for itself, case counts. A pattern without ``/`` is about the last name of a path, wherever it lies; any other
is about the whole path. Names with a leading dot (temporary files, version control) are never taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_FOLDERS = re.compile(r"(?<![^/])(?:\*\*/)+")
_TOKEN = re.compile(r"(?<![^/])\*\*/|\*\*+|\*|\?|[^*?]+")
_LITERAL_FOLDERS = re.compile(r"(?:[^*?/]+/)*")
_MEANING = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}


class Patterns:
    """What a source takes: the include and exclude patterns of its configuration, compiled once.

    Paths are relative to the location, with ``/`` between names and none in front.
    """

    def __init__(self, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> None:
        include, exclude = tuple(include), tuple(exclude)
        self._include = _any_of(include)
        self._exclude = _any_of(exclude)
        self._exclude_below = _any_of(pattern for pattern in exclude if pattern.endswith("**"))
        self._starts = {_literal_start(pattern) for pattern in include}
        self.is_everything = not include and not exclude

    def takes(self, path: str) -> bool:
        """Whether an object at this path belongs to the source.

        >>> Patterns(["*.dcm"], ["old/**"]).takes("new/1.dcm"), Patterns(["*.dcm"], ["old/**"]).takes("old/1.dcm")
        (True, False)
        """
        if path.startswith(".") or "/." in path:
            return False
        if self._include and not self._include.fullmatch(path):
            return False
        return not (self._exclude and self._exclude.fullmatch(path))

    def enters(self, folder: str) -> bool:
        """Whether a path below this folder may be taken; if not, the folder need not even be readable.

        >>> Patterns(["2026/*/*.dcm"]).enters("2026/01"), Patterns(["2026/*/*.dcm"]).enters("2025")
        (True, False)
        """
        start = folder + "/"
        if start.startswith(".") or "/." in start:
            return False
        if self._exclude_below and self._exclude_below.fullmatch(start):
            return False  # such a pattern ends in "any characters", so it matches all that follows, too
        return not self._starts or any(start.startswith(known) or known.startswith(start) for known in self._starts)


def _any_of(patterns: Iterable[str]) -> re.Pattern[str] | None:
    texts = [_translate(pattern) for pattern in patterns]
    return re.compile("|".join(f"(?:{text})" for text in texts), re.DOTALL) if texts else None


def _translate(pattern: str) -> str:
    whole = pattern if "/" in pattern else "**/" + pattern
    return "".join(_token(match[0]) for match in _TOKEN.finditer(_FOLDERS.sub("**/", whole)))


def _token(token: str) -> str:
    if token.startswith("**") and not token.endswith("/"):
        return ".*"
    return _MEANING.get(token) or re.escape(token)


def _literal_start(pattern: str) -> str:
    """The folders a pattern names without a wildcard; every path it matches starts with them."""
    found = _LITERAL_FOLDERS.match(pattern)
    assert found is not None  # it matches nothing at least
    return found[0]
