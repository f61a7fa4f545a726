"""The answers in words, for a terminal of 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from imaging_pipeline.describe.answers import (
    Answer,
    AttributeFacts,
    ColumnAnswer,
    Line,
    Place,
    TableAnswer,
    WordsAnswer,
)
from imaging_pipeline.lake.dictionary.attributes import spell
from imaging_pipeline.settings import SITE_COLUMNS

WIDTH = 100
_INDENT = 11

_PHI = {
    "direct": "direct identifier",
    "quasi": "may identify together with other columns",
    "date": "a date or time of the patient",
    "uid": "a UID, which leads back to the patient",
    "text": "free text or a name of people, places or devices: may identify",
    "none": "none expected",
}

_ACTIONS = {"X": "removed", "Z": "emptied", "D": "replaced by a dummy", "U": "replaced by another UID"}
_ACTIONS |= {"C": "cleaned", "K": "kept", "U*": "replaced by another UID"}


def render(answer: Answer) -> str:
    """An answer as text."""
    if isinstance(answer, TableAnswer):
        lines = _table(answer)
    elif isinstance(answer, ColumnAnswer):
        lines = _column(answer)
    else:
        lines = _words(answer)
    return "\n".join(line.rstrip() for line in lines)


def _table(answer: TableAnswer) -> list[str]:
    phi = sum(place.phi != "none" for place in answer.columns)
    held = f"{phi} of {len(answer.columns)} columns may hold some: marked [direct], [date] …; {_twin(answer.schemas)}"
    return [
        f"{answer.name}: a table in {', '.join(answer.schemas)}",
        *_item("", answer.means),
        *_item("Grain", answer.grain),
        *_item("Key", ", ".join(answer.key)),
        *_item("PHI", held.rstrip("; ") if phi else "no column is expected to hold any"),
        *_items("Refers to", answer.relations),
        *_join(answer.join),
        *_block("Try", answer.command.splitlines()),
        "",
        *_grid([_column_cells(place) for place in answer.columns], (46, 16, 30)),
        "",
        "● key  ○ never empty. One column in full: imaging-pipeline describe " + f"{answer.name}.COLUMN",
    ]


def _column_cells(place: Place) -> tuple[str, str, str]:
    mark = "●" if place.is_key else "○" if place.is_required else " "
    unit = f" {place.unit}" if place.unit else ""
    tag = place.tag.rpartition(" > ")[2]
    tag = f" {tag}" if len(tag) == len("(0010,0020)") else ""
    phi = "" if place.phi == "none" else f" [{place.phi}]"
    return f"{mark} {place.column}", f"{_type(place)}{unit}", f"{place.means}{tag}{phi}"


def _column(answer: ColumnAnswer) -> list[str]:
    if not answer.places:
        return _without_column(answer)
    tables = list(dict.fromkeys(place.table for place in answer.places))
    title = f"{answer.name}: {'a column of' if len(tables) == 1 else 'in tables'} {', '.join(tables)}"
    lines = textwrap.wrap(title, WIDTH, subsequent_indent="  ")
    lines += _grid([_place_cells(each) for each in answer.places], (66, 18, 30))
    lines += _items("Means", _differing(answer.places, [place.means for place in answer.places]))
    lines += _items("Attribute", [_facts(facts) for facts in answer.attributes])
    first = answer.places[0]
    lines += _items("PHI", _differing(answer.places, [_phi(place) for place in answer.places]))
    if any(place.phi != "none" for place in answer.places):
        lines += _item("", _twin(first.schemas))
    lines += _join(answer.join)
    lines += _block("Try", answer.command.splitlines())
    if len(answer.places) > 1:
        lines += ["", f"Joins and the query are those of {first.table}; for another: describe TABLE.{first.column}"]
    return lines


def _place_cells(place: Place) -> tuple[str, str, str]:
    unit = f" in {place.unit}" if place.unit else ""
    kind = f"type {place.attribute_type} " if place.attribute_type else ""
    key = "key " if place.is_key else "never empty " if place.is_required else ""
    where = f"{', '.join(place.schemas)}; {key}{kind}{place.tag}".rstrip("; ")
    return f"  {place.table}.{place.column}", f"{_type(place)}{unit}", where


def _without_column(answer: ColumnAnswer) -> list[str]:
    (facts,) = answer.attributes
    lines = [f"{answer.name}: no column shows it; what headers have of it is in dicom_element"]
    if facts.name:
        lines += _item("Attribute", _facts(facts))
    elif answer.creators:
        lines += _item("Attribute", "private: what it means depends on its creator. Known ones, xx is any block:")
        lines += [" " * _INDENT + f"{creator}: {name}" for creator, name in answer.creators]
    elif facts.tag[3] in "13579BDF":
        lines += _item("Attribute", "private: what it means depends on its creator; no creator is known to use it")
    else:
        lines += _item("Attribute", "not in the standard's dictionary (PS3.6) as pydicom has it")
    lines += _item("PHI", _action(facts.ps3_15))
    lines += _block("Try", answer.command.splitlines())
    if answer.promotion:
        advice = f"add this entry under 'columns:' in the file that {SITE_COLUMNS} names, of the table it suits;"
        lines += _item("As column", f"{advice} it is filled from the stored headers, no object is read again:")
        lines += [" " * _INDENT + answer.promotion]
    return lines


def _facts(facts: AttributeFacts) -> str:
    retired = ", retired" if facts.is_retired else ""
    return f"{facts.keyword} {spell(facts.tag)} “{facts.name}”, VR {facts.vr}, VM {facts.vm}{retired}"


def _differing(places: Sequence[Place], texts: Sequence[str]) -> list[str]:
    """One text when it is the same in all places, else one for each place that has any."""
    if len(set(filter(None, texts))) <= 1:
        return [text for text in texts if text][:1]
    is_one_column = len({place.column for place in places}) == 1
    named = zip((each.table if is_one_column else f"{each.table}.{each.column}" for each in places), texts, strict=True)
    return [f"{name}: {text}" for name, text in named if text]


def _phi(place: Place) -> str:
    if place.phi == "none" and not place.ps3_15:
        return _PHI["none"]
    return f"{_PHI[place.phi]}; {_action(place.ps3_15)}"


def _twin(schemas: Sequence[str]) -> str:
    return "in deid is what the profile leaves of it" if {"silver", "deid"} <= set(schemas) else ""


def _action(action: str) -> str:
    if not action:
        return "PS3.15 Basic Profile does not list it"
    return f"PS3.15 Basic Profile: {action} ({' or '.join(_ACTIONS[part] for part in action.split('/'))})"


def _words(answer: WordsAnswer) -> list[str]:
    lines = [f"nothing is called {old!r}: looked for {new!r}" for old, new in answer.corrected.items()]
    if not answer.lines:
        return [*lines, *_nothing(answer)]
    if not answer.words:
        lines += [*_grid([(each.name, _schemas(each), each.means) for each in answer.lines], (32, 12, 50)), ""]
        return [
            *lines,
            "more: imaging-pipeline describe TABLE, COLUMN, TAG, KEYWORD or words (describe slice distance)",
        ]
    lines += _grid([_line_cells(line) for line in answer.lines], (42, 56))
    return [*lines, "", f"more on one of them: imaging-pipeline describe {answer.lines[0].name}"]


def _schemas(line: Line) -> str:
    return ", ".join(table.partition(".")[0] for table in line.tables)


def _line_cells(line: Line) -> tuple[str, str]:
    phi = f" [{line.phi}]" if line.phi not in {"", "none"} else ""
    if line.kind == "column":
        others = f" and {len(line.tables) - 2} more" if len(line.tables) > 2 else ""
        return line.name, f"{line.means}{phi}; in {', '.join(line.tables[:2])}{others}"
    return line.name, f"table: {line.means}" if line.kind == "table" else line.means


def _nothing(answer: WordsAnswer) -> list[str]:
    lines = [f"no table, column or attribute matches: {' '.join(answer.words)}"]
    if answer.nearest:
        lines.append(f"spelt similarly: {', '.join(answer.nearest)}")
    return [
        *lines,
        "try one word, a tag like (0018,0050) or a DICOM keyword; without words all tables are listed:",
        "  imaging-pipeline describe",
    ]


def _type(place: Place) -> str:
    return "list of structs" if place.type.startswith("STRUCT") else place.type


def _join(join: Sequence[str]) -> list[str]:
    return _block("Join", join) if len(join) > 1 else []


def _item(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"{label:{_INDENT}}", subsequent_indent=" " * _INDENT, break_on_hyphens=False
    ) or [label]


def _items(label: str, texts: Sequence[str]) -> list[str]:
    lines = []
    for number, text in enumerate(texts):
        lines += _item("" if number else label, text)
    return lines


def _block(label: str, block: Sequence[str]) -> list[str]:
    """Lines to be copied as they are."""
    return [f"{'' if number else label:{_INDENT}}{line}" for number, line in enumerate(block)]


def _grid(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> list[str]:
    """Cells in columns; columns are as wide as they must, the last one wraps."""
    wide = [min(width, max(len(row[at]) for row in rows)) for at, width in enumerate(widths[:-1])]
    start = sum(wide) + 2 * len(wide)
    lines = []
    for row in rows:
        head = "  ".join(f"{cell:{width}}" for cell, width in zip(row, wide, strict=False)) + "  "
        wrapped = textwrap.wrap(row[-1], max(WIDTH - start, 30)) or [""]
        lines += [head + wrapped[0], *(" " * start + more for more in wrapped[1:])]
    return lines
