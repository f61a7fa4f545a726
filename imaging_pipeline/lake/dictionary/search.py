"""Full-text search over the registry and the standard's dictionary, with the words people use.

An index in memory (SQLite FTS5, Porter stems, BM25), made in some milliseconds; needs no lake.
"""

from __future__ import annotations

import difflib
import functools
import re
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom._dicom_dict import DicomDictionary

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.dictionary.attributes import attribute, meaning, tags_of
from imaging_pipeline.lake.dictionary.data import kept, read_data
from imaging_pipeline.lake.registry import Column, Table

_SCORES = "SELECT kind, id, -bm25(entry, 0, 0, 8, 5, 8, 2, 1) FROM entry(?)"
"""Weights: name, name of the attribute, words of people, description, tables."""

_SMALL = (
    "a all an and are as at be been by did do does done for from get had has have how i in is it its me my of on or "
    "show that the their there these this to was we were what when where which whose why will with"
)
_SMALL_WORDS = frozenset(_SMALL.split())
"""Words that say nothing about what is looked for (unless there are no others)."""

_LEAST_SHARE = 0.25
"""Hits whose score is less than this share of the best one's are left out."""

_MOST_ATTRIBUTES = 5
"""Attributes without a column that are shown."""


@dataclass(frozen=True, slots=True)
class Hit:
    """Something found by words.

    Attributes:
        kind: ``table``, ``column`` (by its name, in whatever tables) or ``attribute`` (one that has no column).
        name: of the table or column; of an attribute its tag, eight digits.
        score: greater is better.
    """

    kind: str
    name: str
    score: float


@dataclass(frozen=True, slots=True)
class Found:
    """Result of a search.

    Attributes:
        hits: best first.
        words: the words that were looked for, spelling corrected.
        corrected: words that nothing knows, and what was looked for in their place.
    """

    hits: tuple[Hit, ...]
    words: tuple[str, ...]
    corrected: dict[str, str]


def find(text: str, limit: int = 10) -> Found:
    """Tables, columns and attributes that match some words, best first; unknown words are replaced by similar ones."""
    index = _index()
    words = _words(text)
    corrected = {word: near for word in words if not index.knows(word) and (near := index.similar(word))}
    words = [corrected.get(word, word) for word in words]
    return Found(tuple(index.hits(words, phrases_of(" ".join(words)))[:limit]), tuple(words), corrected)


def nearest(text: str, limit: int = 5) -> list[str]:
    """Names of tables and columns that are spelt similarly."""
    names = [*registry.tables(), *columns_by_name()]
    return difflib.get_close_matches(text.lower().replace(" ", "_"), names, limit, 0.6)


@kept
def columns_by_name() -> dict[str, list[tuple[Table, Column]]]:
    """Every column name with the tables that have it, in the registry's order; views where no table has it."""
    found: dict[str, list[tuple[Table, Column]]] = {}
    for table in sorted(registry.tables().values(), key=lambda table: table.is_view):
        for column in table.columns:
            places = found.setdefault(column.name, [])
            if not table.is_view or not places or places[0][0].is_view:
                places.append((table, column))
    return found


@functools.cache
def synonyms() -> dict[str, tuple[str, ...]]:
    """Phrases of people for a table or column."""
    return {row["name"]: tuple(row["phrases"].split("; ")) for row in read_data("synonyms.csv")}


def search_text(table: Table, column: Column) -> str:
    """All words by which a column is found, for a search in SQL."""
    names = [found.name for tag in tags_of(table, column) if (found := attribute(tag))]
    parts = [
        column.name.replace("_", " "),
        *names,
        *synonyms().get(column.name, ()),
        meaning(table, column),
        table.name,
    ]
    return "; ".join(dict.fromkeys(part for part in parts if part))


def phrases_of(text: str) -> tuple[str, ...]:
    """Names for which a text is one of the phrases of people, whatever its small words and endings."""
    wanted = _stems(text)
    return tuple(n for n, phrases in synonyms().items() if any(_stems(phrase) == wanted for phrase in phrases))


def _stems(text: str) -> frozenset[str]:
    return frozenset(re.sub(r"(?<=[a-z]{3})s$", "", word) for word in _words(text))


def _words(text: str) -> list[str]:
    words = re.findall(r"[a-z0-9]+", text.lower().replace("'s", ""))
    return [word for word in words if word not in _SMALL_WORDS] or words


class _Index:
    def __init__(self) -> None:
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.execute(
            "CREATE VIRTUAL TABLE entry USING fts5 (kind UNINDEXED, id UNINDEXED, "
            "name, attribute, people, description, tables, tokenize = 'porter unicode61')"
        )
        rows = [*_table_entries(), *_column_entries(), *_attribute_entries()]
        self._database.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self._database.execute("CREATE VIRTUAL TABLE word USING fts5vocab(entry, row)")
        plain = " ".join(" ".join(row[2:]) for row in rows if row[0] != "attribute")
        self._vocabulary = sorted(set(_words(plain)))

    def knows(self, word: str) -> bool:
        return bool(self._database.execute("SELECT 1 FROM entry(?) LIMIT 1", [f'"{word}"']).fetchone())

    def similar(self, word: str) -> str | None:
        """The word of the registry spelt most like an unknown one, if any is."""
        longer = [known for known in self._vocabulary if len(word) > 3 and known.startswith(word)]
        near = longer[:1] or (difflib.get_close_matches(word, self._vocabulary, 1, 0.8) if len(word) > 4 else [])
        return near[0] if near else None

    def hits(self, words: list[str], meant: tuple[str, ...]) -> list[Hit]:
        """Entries by the sum of their words' scores, best first.

        ``meant`` are names people use the words for: they come first. Then columns that have all words, attributes
        that have all words, columns that have some.
        """
        first = dict.fromkeys(map(_entry_of, meant))
        sums: dict[tuple[str, str], float] = {}
        counts: dict[tuple[str, str], int] = {}
        for word in words:
            for kind, name, score in self._database.execute(_SCORES, [f'"{word}"']):
                sums[kind, name] = sums.get((kind, name), 0.0) + score
                counts[kind, name] = counts.get((kind, name), 0) + 1
        whole = {e: score for e, score in sums.items() if counts[e] == len(words) and e not in first}
        parts = {e: score * counts[e] for e, score in sums.items() if counts[e] < len(words) and e[0] != "attribute"}
        return [
            *_best((e, sums.get(e, 0.0)) for e in first),
            *_best(e for e in whole.items() if e[0][0] != "attribute"),
            *_best(e for e in whole.items() if e[0][0] == "attribute")[:_MOST_ATTRIBUTES],
            *_best(e for e in parts.items() if e[0] not in first),
        ]


def _best(entries: Iterable[tuple[tuple[str, str], float]]) -> list[Hit]:
    """Hits from the best to the last that is not much worse."""
    ranked = sorted(entries, key=lambda entry: -entry[1])
    return [Hit(kind, name, score) for (kind, name), score in ranked if score >= ranked[0][1] * _LEAST_SHARE]


@kept
def _index() -> _Index:
    return _Index()


def _entry_of(name: str) -> tuple[str, str]:
    return ("table" if name in registry.tables() else "column", name)


def _table_entries() -> Iterable[tuple[str, ...]]:
    for table in registry.tables().values():
        name = table.name.replace("_", " ").removeprefix("dicom ")
        words = "; ".join(synonyms().get(table.name, ()))
        yield "table", table.name, name, "", words, f"{table.description} {table.grain}", ""


def _column_entries() -> Iterable[tuple[str, ...]]:
    for name, places in columns_by_name().items():
        tags = dict.fromkeys(tag for table, column in places for tag in tags_of(table, column))
        attributes = [found for tag in tags if (found := attribute(tag))]
        descriptions = dict.fromkeys(column.description for _, column in places if column.description)
        yield (
            "column",
            name,
            name.replace("_", " "),
            " ".join(f"{found.name} {found.keyword}" for found in attributes),
            "; ".join(synonyms().get(name, ())) if name not in registry.tables() else "",
            "; ".join(descriptions),
            " ".join(dict.fromkeys(" ".join(table.name for table, _ in places).replace("_", " ").split())),
        )


def _attribute_entries() -> Iterable[tuple[str, ...]]:
    """The standard's attributes that no column shows."""
    shown = {tag for places in columns_by_name().values() for place in places for tag in tags_of(*place)}
    for number, (_, _, name, _, keyword) in DicomDictionary.items():
        tag = f"{number:08X}"
        if keyword and tag not in shown:
            yield "attribute", tag, name, keyword, "", "", ""
