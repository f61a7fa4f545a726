"""A header as rows of a table: every attribute, in items of sequences too, by group."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from pydicom.datadict import dictionary_description, private_dictionary_description
from pydicom.uid import UID

MOST_ROWS: Final = 5_000
"""Of one page; enhanced objects have tens of thousands."""

MOST_CHARACTERS: Final = 4_096
"""Of one value."""

SHORT_CHARACTERS: Final = 240
"""Longer values are folded."""

MOST_VALUES: Final = 256

_GROUPS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "0002": "File", "0008": "Study, series and object", "0010": "Patient", "0012": "De-identification and trial",
        "0018": "Acquisition", "0020": "Place and order", "0028": "Image", "0032": "Request", "0040": "Procedure",
        "0062": "Segmentation", "0070": "Presentation", "7FE0": "Pixel data",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One element.

    Attributes:
        depth: 0 at the top level.
        tag: as ``(gggg,eeee)``.
        name: of the attribute.
        vr: value representation.
        text: its value, at most :data:`MOST_CHARACTERS`.
        note: what is not shown, in words.
    """

    depth: int
    tag: str
    name: str
    vr: str
    text: str
    note: str

    @property
    def is_long(self) -> bool:
        """Whether the value is folded."""
        return len(self.text) > SHORT_CHARACTERS


@dataclass(frozen=True, slots=True)
class Group:
    """Elements of one group.

    Attributes:
        title: in words.
        rows: in the order of their tags.
    """

    title: str
    rows: list[Row]


def groups_of(header: str, wanted: str = "") -> tuple[list[Group], bool]:
    """The elements of a header by group, and whether all are there.

    Args:
        header: document of the DICOM JSON Model.
        wanted: a part of a tag or name, or nothing. Of elements that have it, and of all within or above them, rows
            are made.
    """
    document: Mapping[str, Any] = json.loads(header)
    found: dict[str, list[Row]] = {}
    left = MOST_ROWS
    for tag, element in sorted(document.items()):
        rows = _filtered(_rows(tag, element, document, 0, left), wanted) if left else []
        if rows:
            found.setdefault(_title(tag), []).extend(rows)
            left -= min(left, len(rows))
    return [Group(title, rows) for title, rows in found.items()], left > 0


def _rows(tag: str, element: Mapping[str, Any], around: Mapping[str, Any], depth: int, most: int) -> list[Row]:
    made: list[Row] = []
    for row in _walk(tag, element, around, depth):
        made.append(row)
        if len(made) == most:
            break
    return made


def _walk(tag: str, element: Mapping[str, Any], around: Mapping[str, Any], depth: int) -> Iterator[Row]:
    vr = str(element.get("vr", ""))
    text, note = ("", _items(element)) if vr == "SQ" else _text(vr, element)
    yield Row(depth, f"({tag[:4]},{tag[4:]})", name_of(tag, around), vr, text, note)
    if vr != "SQ":
        return
    items = element.get("Value") or []
    is_numbered = len(items) > 1
    for number, item in enumerate(items, 1):
        if is_numbered:
            yield Row(depth + 1, "", f"Item {number}", "", "", "")
        for inner, value in sorted((item or {}).items()):
            yield from _walk(inner, value, item, depth + 1 + is_numbered)


def name_of(tag: str, around: Mapping[str, Any]) -> str:
    """Name of an attribute; of a private one by its creator, which is an element beside it (PS3.5 7.8)."""
    try:
        return dictionary_description(int(tag, 16))
    except KeyError:
        pass
    if int(tag[:4], 16) % 2 == 0:
        return "Unknown attribute"
    if tag[4:6] == "00":
        return "Private Creator"
    creator = str(next(iter(around.get(f"{tag[:4]}00{tag[4:6]}", {}).get("Value") or []), ""))
    try:
        return f"{creator}: {private_dictionary_description(int(tag, 16), creator)}"
    except KeyError:
        return f"{creator}: private" if creator else "Private, of an unknown creator"


def _filtered(rows: list[Row], wanted: str) -> list[Row]:
    """The rows that match, what is within them, and the way to them."""
    words = _folded(wanted).split()
    if not words:
        return rows
    hits: set[int] = set()
    kept: set[int] = set()
    above: list[int] = []
    for place, row in enumerate(rows):
        while above and rows[above[-1]].depth >= row.depth:
            above.pop()
        text = _folded(f"{row.tag} {row.tag.replace(',', '').strip('()')} {row.name}")
        if all(word in text for word in words):
            hits.add(place)
            kept.update((*above, place))
        elif not hits.isdisjoint(above):
            kept.add(place)
        above.append(place)
    return [row for place, row in enumerate(rows) if place in kept]


def _text(vr: str, element: Mapping[str, Any]) -> tuple[str, str]:
    """A value as text, and what of it is left out."""
    if "BulkDataURI" in element or "InlineBinary" in element:
        return "", "bytes, not shown"
    values = element.get("Value") or []
    text = "\\".join(_one(vr, value) for value in values[:MOST_VALUES])
    notes = [f"{len(values)} values"] if len(values) > MOST_VALUES else []
    notes += [f"{len(text)} characters, the beginning is shown"] if len(text) > MOST_CHARACTERS else []
    return text[:MOST_CHARACTERS], "; ".join(notes)


def _one(vr: str, value: object) -> str:
    if value is None:
        return ""
    if vr == "PN" and isinstance(value, dict):
        return "=".join(str(value.get(form, "")) for form in ("Alphabetic", "Ideographic", "Phonetic")).rstrip("=")
    text = str(value)
    name = UID(text).name if vr == "UI" else text
    return text if name == text else f"{text} ({name})"


def _items(element: Mapping[str, Any]) -> str:
    count = len(element.get("Value") or [])
    return f"{count} item{'' if count == 1 else 's'}"


def _title(tag: str) -> str:
    if tag[:4] in _GROUPS:
        return _GROUPS[tag[:4]]
    return f"Private group {tag[:4]}" if int(tag[:4], 16) % 2 else f"Group {tag[:4]}"


def _folded(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in plain.casefold() if not unicodedata.combining(letter))
