"""DICOM attributes as people name them: tags in any spelling, dictionary entries, the attributes behind a column."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydicom._private_dict import private_dictionaries
from pydicom.datadict import get_entry, keyword_dict

from imaging_pipeline.lake.registry import Column, Table

_SPELLING = re.compile(r"\(?\s*(?:0x)?([0-9a-fx]{4})\s*[,|: ]?\s*(?:0x)?([0-9a-fx]{4})\s*\)?", re.IGNORECASE)
_LONGEST_WORD = 8
"""A keyword of more letters is taken for one in whatever case."""

_TAG = re.compile(r"[0-9A-F]{4}[0-9A-Fx]{4}")
_STEP = re.compile(r"\.(?![^\[]*\])")  # a private creator, in brackets, may have dots
_FIRST_PRIVATE = 0x1000
"""Private elements below reserve blocks (PS3.5 7.8)."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """One entry of the data dictionary (PS3.6).

    Attributes:
        tag: eight hexadecimal digits.
        keyword: its keyword.
        name: its name.
        vr: value representation.
        vm: value multiplicity.
        is_retired: retired from the standard.
    """

    tag: str
    keyword: str
    name: str
    vr: str
    vm: str
    is_retired: bool


def read_tag(text: str) -> str | None:
    """A tag as eight digits, from any of its spellings; ``x`` stands for a digit that may vary. None: it is no tag.

    >>> read_tag("(0010,0020)"), read_tag("0010,0020"), read_tag("0x00100020"), read_tag("60xx,3000")
    ('00100020', '00100020', '00100020', '60xx3000')
    """
    match = _SPELLING.fullmatch(text.strip())
    return None if match is None else (match[1] + match[2]).upper().replace("X", "x")


def spell(tag: str) -> str:
    """A tag as the standard prints it.

    >>> spell("00100020")
    '(0010,0020)'
    """
    return f"({tag[:4]},{tag[4:]})"


def attribute(tag: str) -> Attribute | None:
    """What the standard's dictionary says of a tag; repeating groups are found too."""
    try:
        vr, vm, name, retired, keyword = get_entry(int(tag.replace("x", "0"), 16))
    except KeyError:
        return None
    return Attribute(tag, keyword, name, vr, vm, bool(retired))


def attribute_by_keyword(keyword: str) -> Attribute | None:
    """An attribute by its keyword; a longer one in letters of either case (``date`` is a word, ``Date`` a keyword)."""
    found = keyword_dict.get(keyword)
    if found is None and len(keyword) > _LONGEST_WORD:
        found = _lowered().get(keyword.lower())
    return None if found is None else attribute(f"{found:08X}")


def private_names(tag: str) -> list[tuple[str, str]]:
    """Creators that are known to use a private tag, each with the attribute's name."""
    pattern = without_block(tag)
    return sorted(
        (creator, entries[key][2])
        for creator, entries in private_dictionaries.items()
        for key in entries
        if key.upper().replace("X", "x") == pattern and entries[key][2] not in {"", "Unknown"}
    )


def is_private(tag: str) -> bool:
    """The group is odd."""
    return tag[3] in "13579BDF"


def without_block(tag: str) -> str:
    """A private attribute whatever block its creator has reserved, as the registry and ``dicom_element`` name it.

    >>> without_block("0019100C"), without_block("00100020")
    ('0019xx0C', '00100020')
    """
    is_reserving = int(tag[4:].replace("x", "F"), 16) < _FIRST_PRIVATE
    return f"{tag[:4]}xx{tag[6:]}" if is_private(tag) and not is_reserving else tag


def tags_of(table: Table, column: Column) -> tuple[str, ...]:
    """Tags of the attributes a column shows: that of the attribute itself, its alternatives, the members of a list."""
    if column.tag == ".":
        return (item_tag(table),) if item_tag(table) else ()
    found: list[str] = []
    for alternative in column.tag.split("|"):
        path, _, members = alternative.partition("{")
        found += [_STEP.split(path.strip("/"))[-1].partition("[")[0], *members.rstrip("}").split()]
    return tuple(dict.fromkeys(tag for tag in found if _TAG.fullmatch(tag)))


def item_tag(table: Table) -> str:
    """Tag of the sequence whose items are the rows of a table, or empty."""
    words = table.made_from.split()
    return words[1] if words[:1] == ["items"] else ""


def path_of(table: Table, column: Column) -> str:
    """Where a column is found, from the top level of the object, or empty; tags as in the registry."""
    sequence = item_tag(table)
    if column.tag == ".":
        return sequence
    if not sequence or not column.tag or column.tag.startswith("/") or table.made_from.endswith(" over object"):
        return column.tag
    return "|".join(f"{sequence}.{each}" for each in column.tag.split("|"))


def spell_path(path: str) -> str:
    """Where a column is found, tags as the standard prints them.

    >>> spell_path("00081111.00081155")
    '(0008,1111) > (0008,1155)'
    """
    steps = " > ".join(_STEP.split(path.lstrip("/")))
    spelled = _TAG.sub(lambda match: spell(match[0]), steps)
    return spelled.replace("|", " or ").replace("{", " of each item: ").replace("}", "")


def spell_attribute(column: Column) -> str:
    """The attribute a column shows, with keyword and tags, or empty."""
    keyword = column.keyword.partition(".")[0] if "{" in column.tag else column.keyword.replace(".", " > ")
    return " ".join(filter(None, (keyword, spell_path(column.tag) if column.tag != "." else "")))


def meaning(table: Table, column: Column) -> str:
    """What a column means: its description, else the name of its attribute."""
    if column.description:
        return column.description
    names = [found.name for tag in tags_of(table, column)[:1] if (found := attribute(tag))]
    return names[0] if names else ""


def _lowered() -> dict[str, int]:
    return {keyword.lower(): tag for keyword, tag in keyword_dict.items()}
