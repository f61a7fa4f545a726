"""Finding things by the names that tables give them: a path, its end, with or without the extension."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable
from typing import Generic, TypeVar

Thing = TypeVar("Thing", bound=Hashable)

_EXTENSION = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,4}$")
"""Letters first: the last number of a UID is no extension."""


class NameIndex(Generic[Thing]):
    """Things by the paths they have, found by the end of a path."""

    __slots__ = ("_by_name",)

    def __init__(self) -> None:
        self._by_name: defaultdict[str, set[tuple[str, Thing]]] = defaultdict(set)

    def add(self, path: str, thing: Thing) -> None:
        """Note a thing under a path with ``/`` between its parts."""
        for form in _forms(_parts(path)[-1]):
            self._by_name[form].add((path, thing))

    def find(self, name: str) -> set[Thing]:
        """Things whose path ends with the folders and the name that are given.

        A name with an extension is looked for as it is first, then without: ``film.png`` finds ``film.png.dcm`` and,
        where there is none such, ``film.dcm``. A path longer than that of a thing finds it when it ends with it.
        """
        *folders, last = _parts(name) or [""]
        for form in _forms(last):
            found = {thing for path, thing in self._by_name.get(form, ()) if _ends_alike(_parts(path)[:-1], folders)}
            if found:
                return found
        return set()


def _parts(path: str) -> list[str]:
    return [part for part in path.replace("\\", "/").split("/") if part not in {"", "."}]


def _forms(name: str) -> list[str]:
    """A name, without its extension, and without one before that: at most three forms."""
    forms = [name]
    for _ in range(2):
        shorter = _EXTENSION.sub("", forms[-1])
        if shorter in {"", forms[-1]}:
            break
        forms.append(shorter)
    return forms


def _ends_alike(one: list[str], other: list[str]) -> bool:
    shared = min(len(one), len(other))
    return not shared or one[-shared:] == other[-shared:]
