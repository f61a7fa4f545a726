"""Attribute matching of searches (PS3.4 C.2.2.2, PS3.18 8.3.4) as SQL conditions on values of the serving index.

Knows value representations and no resource. Every value of a request travels as a parameter of the query.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from imaging_pipeline.web.index.file import folded
from imaging_pipeline.web.index.names import words_of

Sql = tuple[str, list[object]]
"""A condition and its parameters."""

NUMBERS = frozenset({"IS", "DS", "US", "SS", "UL", "SL", "FL", "FD", "SV", "UV"})
TIMES = frozenset({"DA", "TM", "DT"})
NO_WILDCARDS = NUMBERS | TIMES | {"UI", "AT"}
MULTIPLE_BY_COMMA = NO_WILDCARDS | {"CS"}
"""Representations whose values hold no comma: a comma then parts several values, one of which must match."""

UNMATCHED = frozenset({"OB", "OW", "OD", "OF", "OL", "OV", "UN"})
"""Representations of bytes: they cannot be searched."""

EMPTY = '""'
"""With ``emptyvaluematching=true`` this value finds what has none (PS3.18 8.3.4.5)."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?").fullmatch
_UID = re.compile(r"[0-9.]{1,64}").fullmatch
_PATTERNS = {
    "DA": re.compile(r"\d{4}(\d{2}(\d{2})?)?").fullmatch,
    "TM": re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?").fullmatch,
    "DT": re.compile(r"\d{4}(\d{2}){0,5}(\.\d{1,6})?").fullmatch,
}
_FIRST = {"DA": "00000101", "TM": "000000", "DT": "00000101000000"}
_LAST = {"DA": "99991231", "TM": "235959.999999", "DT": "99991231235959.999999"}
_PUNCTUATION = str.maketrans("", "", ":")
_ZONE = re.compile(r"(?<=\d{4})[+-]\d{4}$")


class UnmatchableValue(ValueError):
    """The value of a key cannot be read under its representation."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One key of a search.

    Attributes:
        path: tags from the top level down; several: into the items of sequences.
        vr: value representation of the last.
        value: what was asked for; empty or ``*``: anything (universal matching), the attribute is only answered.
        is_multiple: commas part values also where representations may hold them (PS3.18 8.3.4.6).
        finds_empty: the attribute must have no value.
    """

    path: tuple[str, ...]
    vr: str
    value: str
    is_multiple: bool = False
    finds_empty: bool = False

    @property
    def is_universal(self) -> bool:
        """It matches everything (PS3.4 C.2.2.2.3)."""
        return not self.finds_empty and self.value.strip("* ") == ""

    @property
    def values(self) -> list[str]:
        """The values of which one must match."""
        text = self.value.strip()
        separators = "\\,"[: 2 if self.vr in MULTIPLE_BY_COMMA or self.is_multiple else 1]
        return [one.strip() for one in re.split(f"[{re.escape(separators)}]", text) if one.strip()]


def matches(condition: Condition, operand: str, *, is_folded: bool = False) -> Sql:
    """A condition on one value.

    Args:
        condition: the key; not universal and not looking for empty values.
        operand: SQL of the value, as text or number; NULL does not match.
        is_folded: a person name's operand is folded already.

    Raises:
        UnmatchableValue: a value cannot be read under its representation.
    """
    name = operand if is_folded or condition.vr != "PN" else f"folded({operand})"
    found = [_one(condition.vr, value, name) for value in condition.values]
    if len(found) > 1 and all(sql == f"{name} = ?" for sql, _ in found):
        return f"{name} IN ({', '.join('?' * len(found))})", [value for _, (value,) in found]
    return f"({' OR '.join(sql for sql, _ in found)})", [value for _, values in found for value in values]


def sounds_like(condition: Condition, table: str) -> Sql:
    """A condition on the id of a study whose names are in ``name_word``: fuzzy matching of person names.

    Each word asked for must begin a word of the name, or sound like one, in whatever order, case and accents.
    """
    clauses: list[str] = []
    values: list[object] = []
    for word, sound in sorted(words_of(condition.value)):
        clauses.append(
            f"{table}.id IN (SELECT study FROM name_word WHERE tag = ? AND word >= ? AND word < ?"
            " UNION ALL SELECT study FROM name_word WHERE tag = ? AND sound = ?)"
        )
        values += [condition.path[0], word, word + "\U0010ffff", condition.path[0], sound]
    return " AND ".join(clauses) or "true", values


def _one(vr: str, value: str, operand: str) -> Sql:
    if vr in TIMES:
        return _in_range(vr, value, operand)
    if vr in NUMBERS:
        if not _NUMBER(value):
            raise UnmatchableValue
        return f"CAST({operand} AS REAL) = ?", [float(value)]
    if vr == "UI" and not _UID(value):
        raise UnmatchableValue
    if vr == "PN":
        value = folded(value) or ""
    if vr not in NO_WILDCARDS and ("*" in value or "?" in value):
        return f"{operand} GLOB ?", [value.replace("[", "[[]")]
    return f"{operand} = ?", [value]


def _in_range(vr: str, value: str, operand: str) -> Sql:
    """Dates and times: ``from-to``, ``-to``, ``from-``, or one value, which stands for all it does not say further."""
    text = _ZONE.sub("", value) if vr == "DT" else value
    first, dash, last = text.translate(_PUNCTUATION).replace(".", "" if vr == "DA" else ".").partition("-")
    if not dash:
        last = first
    clauses: list[str] = []
    bounds: list[object] = []
    for bound, comparison, rest in ((first.strip(), ">=", _FIRST[vr]), (last.strip(), "<=", _LAST[vr])):
        if bound:
            if not _PATTERNS[vr](bound):
                raise UnmatchableValue
            clauses.append(f"{operand} {comparison} ?")
            bounds.append(_filled(bound, rest))
    if not clauses:
        raise UnmatchableValue
    return f"({' AND '.join(clauses)})", bounds


def _filled(bound: str, rest: str) -> str:
    """A date or time with what it leaves out: up to the first moment, or to the last."""
    if "." not in bound:
        return bound + rest[len(bound) :]
    return bound.ljust(len(rest), "9") if "." in rest else bound
