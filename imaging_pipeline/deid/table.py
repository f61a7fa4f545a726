"""PS3.15 Table E.1-1 as data: which action each attribute asks for.

Owns the reading of the table and the look-up by tag, repeating groups included. Contains no policy of its own: how a
compound action is resolved is decided in `rules`.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from types import MappingProxyType

TABLE_FILE = "ps315_table_e1_1.csv"
"""The table, below ``deid/data``; its README names edition and source."""

BASIC_PROFILE_CODES = frozenset({"D", "Z", "X", "K", "C", "U", "X/Z", "X/D", "Z/D", "X/Z/D", "X/Z/U*"})
"""Every action code the Basic Profile column may hold (PS3.15 Table E.1-1a)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One attribute of Table E.1-1.

    Attributes:
        tag: eight hexadecimal digits, or a pattern (``50xxxxxx``, ``60xx3000``, ``60xx4000``, ``private``).
        keyword: DICOM keyword, empty where the dictionary does not have one yet.
        name: the attribute's name.
        vr: value representation, empty where not known.
        basic_profile: action of the Basic Profile, possibly compound (``X/Z/D``).
        options: option column to its action (``C`` or ``K``), only the columns that are filled.
    """

    tag: str
    keyword: str
    name: str
    vr: str
    basic_profile: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Table:
    """The whole table.

    Attributes:
        rows: every row, patterns included, in the order of the standard.
        digest: SHA-256 of the file the rows were read from.
    """

    rows: tuple[Row, ...]
    by_tag: Mapping[int, Row]
    by_pattern: Mapping[str, Row]
    digest: str

    def row(self, tag: int) -> Row | None:
        """The row that governs ``tag`` (PS3.15 E.1), or None when the standard does not list it."""
        group, element = tag >> 16, tag & 0xFFFF
        if group % 2:
            return self.by_pattern["private"]
        if 0x5000 <= group <= 0x50FF:
            return self.by_pattern["50xxxxxx"]
        if 0x6000 <= group <= 0x60FF:
            return self.by_pattern.get(f"60xx{element:04X}")
        return self.by_tag.get(tag)


@lru_cache(maxsize=1)
def load_table() -> Table:
    """Read the shipped table once per process."""
    raw = (resources.files("imaging_pipeline.deid") / "data" / TABLE_FILE).read_bytes()
    rows = tuple(_row(fields) for fields in csv.DictReader(raw.decode("ascii").splitlines()))
    patterns = {row.tag: row for row in rows if "x" in row.tag or row.tag == "private"}
    tags = {int(row.tag, 16): row for row in rows if row.tag not in patterns}
    return Table(rows, MappingProxyType(tags), MappingProxyType(patterns), hashlib.sha256(raw).hexdigest())


def _row(fields: Mapping[str, str]) -> Row:
    columns = ("tag", "keyword", "name", "vr", "basic_profile")
    options = {column: code for column, code in fields.items() if column not in columns and code}
    return Row(
        fields["tag"], fields["keyword"], fields["name"], fields["vr"], fields["basic_profile"],
        MappingProxyType(options),
    )  # fmt: skip
