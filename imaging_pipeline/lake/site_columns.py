"""The site's own columns: attributes promoted from the stored headers to columns of shipped tables.

Owns the reading of the file. Knows no lake; filling a column is ``metadata.promotion``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import keyword_dict

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake.table import Column, Table
from imaging_pipeline.yaml_files import read_yaml

TYPES = ("VARCHAR", "DOUBLE", "FLOAT", "INTEGER", "BIGINT", "DATE", "TIME", "TIMESTAMP", "BOOLEAN", "CODE", "JSON")
"""Types a column may have; each but BOOLEAN and JSON also as a list (``VARCHAR[]``)."""

PHI_CLASSES = ("direct", "quasi", "date", "uid", "text", "none")

DECLARED = ("object", "frames", "items")
"""How the rows of a table must be made for it to take a column."""

_KEYS = frozenset({"table", "name", "attribute", "type", "phi", "unit", "description"})
_NEEDED = ("table", "name", "attribute", "type", "phi")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?")
_PRIVATE = re.compile(r"\(?([0-9A-Fa-f]{4}),?xx([0-9A-Fa-f]{2})\)?\[([^\[\]]+)\]")
_STEP = re.compile(r"\.(?![^\[]*\])")


def load_site_columns(path: Path, tables: Mapping[str, Table]) -> list[tuple[str, Column]]:
    """The columns of a YAML file, each with the name of its table.

    ``columns:`` is a list of entries with ``table``, ``name``, ``attribute``, ``type``, ``phi`` and, if wanted,
    ``unit`` and ``description``. An attribute is a DICOM keyword, a tag ``(gggg,eeee)`` or a private one
    ``(gggg,xxee)[CREATOR]``; through sequences it is a path of them with dots.

    Args:
        path: the file.
        tables: the tables that may be added to, by name.

    Raises:
        ConfigurationError: naming the entry and what is allowed there.
    """
    content = read_yaml(path, "the file of the site's columns")
    entries = content.get("columns") if isinstance(content, dict) and set(content) == {"columns"} else None
    if not isinstance(entries, list):
        raise ConfigurationError("the file of the site's columns must be 'columns:' and a list of entries")
    found: list[tuple[str, Column]] = []
    for number, entry in enumerate(entries, 1):
        name, column = _Entry(entry, f"site column {number}").read(tables)
        if (name, column.name) in {(table, known.name) for table, known in found}:
            raise ConfigurationError(f"site column {number}: {name}.{column.name} is given twice")
        found.append((name, column))
    return found


@functools.cache
def _reserved_words() -> frozenset[str]:
    """Words that cannot be a column's name without quotes."""
    with duckdb.connect() as connection:
        words = connection.execute(
            "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category IN ('reserved', 'type_function')"
        ).fetchall()
    return frozenset(word for (word,) in words) | {"rowid"}


class _Entry:
    """One entry of the file, and what to call it in an error."""

    def __init__(self, values: Any, who: str) -> None:
        self._who = who
        self._values: dict[str, Any] = values if isinstance(values, dict) else {}
        missing = [key for key in _NEEDED if not isinstance(self._values.get(key), str)]
        unknown = sorted(str(key) for key in self._values if key not in _KEYS)
        if missing or unknown:
            what = f"needs {', '.join(missing)}" if missing else f"does not know {', '.join(unknown)}"
            raise ConfigurationError(f"{who}: {what}; its keys are {', '.join(sorted(_KEYS))}")

    def read(self, tables: Mapping[str, Table]) -> tuple[str, Column]:
        values = self._values
        table = tables.get(values["table"])
        if table is None or table.made_from.split()[:1] not in [[kind] for kind in DECLARED]:
            names = ", ".join(name for name, t in tables.items() if t.made_from.split()[:1] in [[k] for k in DECLARED])
            raise ConfigurationError(f"{self._who}: no column can be added to {values['table']!r}; to these: {names}")
        if not _NAME.fullmatch(values["name"]):
            raise ConfigurationError(f"{self._who}: the name must be like series_mood: a-z, 0-9 and _, 63 at most")
        if values["name"] in _reserved_words():
            raise ConfigurationError(f"{self._who}: {values['name']!r} is a word of SQL: choose another name")
        holder = next((t.name for t in tables.values() for c in t.columns if c.name.lower() == values["name"]), None)
        if holder is not None:  # also of another table: joins and views would not know which is meant
            raise ConfigurationError(
                f"{self._who}: {holder} has a column {values['name']!r} already: choose another name"
            )
        self._one_of("type", (*TYPES, *(f"{kind}[]" for kind in TYPES if kind not in ("BOOLEAN", "JSON"))))
        self._one_of("phi", PHI_CLASSES)
        tags, keywords = zip(*self._steps(), strict=True)
        last = DicomDictionary.get(int(tags[-1], 16)) if len(tags[-1]) == 8 else None
        column = Column(
            name=values["name"],
            type=values["type"],
            is_key=False,
            is_required=False,
            keyword=".".join(keywords),
            tag=".".join(tags),
            vr=last[0] if last else "",
            vm="",
            attribute_type="",
            unit=str(values.get("unit") or ""),
            ps3_15="",
            phi=values["phi"],
            description=str(values.get("description") or "added by this site"),
        )
        return table.name, column

    def _one_of(self, key: str, allowed: tuple[str, ...]) -> None:
        if self._values[key] not in allowed:
            raise ConfigurationError(f"{self._who}: {key} must be one of {', '.join(allowed)}")

    def _steps(self) -> Iterator[tuple[str, str]]:
        for step in _STEP.split(self._values["attribute"]):
            if (private := _PRIVATE.fullmatch(step)) and int(private[1], 16) % 2:
                yield f"{private[1].upper()}xx{private[2].upper()}[{private[3].upper()}]", private[3]
            elif tag := _TAG.fullmatch(step):
                number = int(tag[1] + tag[2], 16)
                known = DicomDictionary.get(number)
                yield f"{number:08X}", known[4] if known else f"{number:08X}"
            elif step in keyword_dict:
                yield f"{keyword_dict[step]:08X}", step
            else:
                allowed = "a DICOM keyword, (gggg,eeee) or (gggg,xxee)[CREATOR]"
                raise ConfigurationError(f"{self._who}: every step of the attribute must be {allowed}")
