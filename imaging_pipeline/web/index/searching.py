"""Searches over the serving index: which studies, series or instances match, and what is told of each.

Conditions on a level's own attributes and on those above it are joined; a condition on a level below asks for one
that has it. Attributes without a column are looked up in the documents, of instances in their headers.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Any

from imaging_pipeline.web.index.attributes import REQUEST_ATTRIBUTES, Document, attributes_of
from imaging_pipeline.web.matching import UNMATCHED, Condition, Sql, matches, sounds_like


class Level(IntEnum):
    """What a search finds, from the top down."""

    STUDY = 0
    SERIES = 1
    INSTANCE = 2


_TABLES = {Level.STUDY: "study", Level.SERIES: "series", Level.INSTANCE: "instance"}

COLUMNS: Mapping[Level, Mapping[str, str]] = MappingProxyType(
    {
        Level.STUDY: {
            "0020000D": "study.uid", "00100020": "study.patient_id", "00100010": "study.patient_name",
            "00100030": "study.birth_date", "00100040": "study.sex", "00080020": "study.study_date",
            "00080030": "study.study_time", "00080050": "study.accession_number", "00200010": "study.study_id",
            "00080090": "study.referring_physician",
        },
        Level.SERIES: {"0020000E": "series.uid", "00080060": "series.modality", "00200011": "series.number"},
        Level.INSTANCE: {
            "00080018": "instance.uid", "00080016": "instance.sop_class", "00200013": "instance.number",
            "00280008": "instance.stated_frames", "00280010": "instance.rows", "00280011": "instance.columns",
            "00280100": "instance.bits_allocated", "00280002": "instance.samples",
            "00280004": "instance.photometric", "00083002": "instance.transfer_syntax",
        },
    }
)  # fmt: skip
"""Attributes that are compared as columns; the others as parts of documents."""

DERIVED: Mapping[str, Level] = MappingProxyType(
    {
        "00080061": Level.STUDY, "00080062": Level.STUDY, "00201206": Level.STUDY, "00201208": Level.STUDY,
        "00201209": Level.SERIES, REQUEST_ATTRIBUTES: Level.SERIES,
    }
)  # fmt: skip
"""Attributes of documents that are no columns of the lake's tables: what is counted, and sequences."""

ANSWERED: Mapping[Level, Mapping[str, str]] = MappingProxyType(
    {
        Level.STUDY: {
            "00080020": "DA", "00080030": "TM", "00080050": "SH", "00080061": "CS", "00080090": "PN",
            "00100010": "PN", "00100020": "LO", "00100030": "DA", "00100040": "CS", "0020000D": "UI",
            "00200010": "SH", "00201206": "IS", "00201208": "IS",
        },
        Level.SERIES: {"00080060": "CS", "0020000E": "UI", "00200011": "IS", "00201209": "IS"},
        Level.INSTANCE: {"00080016": "UI", "00080018": "UI", "00200013": "IS"},
    }
)  # fmt: skip
"""What is answered for each match, empty where it has no value (PS3.18 Tables 10.6.3-3 to 10.6.3-5)."""

ANSWERED_IF_KNOWN: Mapping[Level, frozenset[str]] = MappingProxyType(
    {
        Level.STUDY: frozenset({"00080201", "00081030"}),
        Level.SERIES: frozenset({"00080201", "0008103E", "00400244", "00400245", REQUEST_ATTRIBUTES}),
        Level.INSTANCE: frozenset({"00083002", "00280008", "00280010", "00280011", "00280100"}),
    }
)
"""What is answered where it has a value: further attributes of these tables, and what viewers ask for always."""

_INSTANCE_VRS = {
    "00080016": "UI", "00080018": "UI", "00083002": "UI", "00200013": "IS", "00280002": "US", "00280004": "CS",
    "00280008": "IS", "00280010": "US", "00280011": "US", "00280100": "US",
}  # fmt: skip

_ORDER = {
    Level.STUDY: "study.study_date DESC, study.study_time DESC, study.uid",
    Level.SERIES: "series.number, series.uid",
    Level.INSTANCE: "instance.number, instance.uid",
}


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for.

    Attributes:
        level: what is found.
        study: Study Instance UID it must belong to, or None.
        series: Series Instance UID it must belong to, or None.
        conditions: all must match.
        fields: tags of the top level that are answered too, where they have a value.
        has_all_fields: everything that is known of its level is answered.
        is_fuzzy: person names match by their sound.
        limit: most matches.
        offset: matches to leave out at the beginning.
        counts_rest: the matches behind the last are counted, which may cost more than the search.
    """

    level: Level
    study: str | None = None
    series: str | None = None
    conditions: tuple[Condition, ...] = ()
    fields: frozenset[str] = field(default_factory=frozenset)
    has_all_fields: bool = False
    is_fuzzy: bool = False
    limit: int = 100
    offset: int = 0
    counts_rest: bool = False

    @property
    def needs_headers(self) -> bool:
        """A condition is on an attribute that only headers have."""
        return any(level_of(condition.path) is None for condition in self.conditions)

    @property
    def answers_headers(self) -> bool:
        """An attribute is to be answered that only headers have."""
        return self.level is Level.INSTANCE and (
            self.has_all_fields or any(level_of((tag,)) is None for tag in self.fields)
        )


@dataclass(frozen=True, slots=True)
class Match:
    """One study, series or instance.

    Attributes:
        uids: its UIDs, from the study down.
        document: what is told of it.
    """

    uids: tuple[str, ...]
    document: Document


@dataclass(frozen=True, slots=True)
class Answer:
    """What a search has found.

    Attributes:
        matches: in order, at most the limit.
        remaining: further matches behind them, where they were to be counted; else 0.
    """

    matches: list[Match]
    remaining: int


def level_of(path: tuple[str, ...]) -> Level | None:
    """The level at which an attribute can be compared without headers; None: it cannot."""
    tag = path[0]
    if len(path) > 1 and tag != REQUEST_ATTRIBUTES and _vr_in_documents(tag) != "SQ":
        return None
    if tag in DERIVED:
        return DERIVED[tag]
    return next((level for level in Level if tag in COLUMNS[level] or tag in _document_tags(level)), None)


def run_search(connection: sqlite3.Connection, search: Search) -> Answer:
    """Run a search on the index's file. Headers it needs must be in the file."""
    where, values = _where(search)
    table, order = _TABLES[search.level], _order(search)
    found = f"SELECT * FROM {table} WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?"
    most = search.limit + search.counts_rest  # one more tells that there is a rest
    rows = connection.execute(
        f"{_SELECT[search.level].format(found=found)} ORDER BY {order}", [*values, most, search.offset]
    ).fetchall()
    remaining = 0
    if len(rows) > search.limit and search.counts_rest:
        ((total,),) = connection.execute(f"SELECT count(*) FROM {table} WHERE {where}", values).fetchall()
        remaining = total - search.offset - search.limit
    return Answer([_match(search, row) for row in rows[: search.limit]], remaining)


_SELECT = {
    Level.STUDY: "SELECT study.uid, document FROM ({found}) AS study",
    Level.SERIES: """SELECT study.uid, series.uid, study.document, series.document
        FROM ({found}) AS series JOIN study ON study.id = series.study""",
    Level.INSTANCE: """SELECT study.uid, series.uid, instance.uid, study.document, series.document,
        """
    + ", ".join(COLUMNS[Level.INSTANCE][tag] for tag in sorted(_INSTANCE_VRS))
    + """ FROM ({found}) AS instance
        JOIN series ON series.id = instance.series JOIN study ON study.id = series.study""",
}


def _order(search: Search) -> str:
    """Within a study or series by their numbers, over everything by UID: the order in which an index has them."""
    is_wide = search.series is None if search.level is Level.INSTANCE else search.study is None
    if search.level is Level.STUDY or not is_wide:
        return _ORDER[search.level]
    return f"{_TABLES[search.level]}.uid"


def _where(search: Search) -> Sql:
    """The condition on rows of the search's own table."""
    by_level: dict[Level, list[Sql]] = {level: [] for level in Level}
    for level, uid in ((Level.STUDY, search.study), (Level.SERIES, search.series)):
        if uid is not None:
            by_level[level].append((f"{_TABLES[level]}.uid = ?", [uid]))
    for condition in search.conditions:
        if not condition.is_universal:
            own = level_of(condition.path)
            by_level[Level.INSTANCE if own is None else own].append(_condition(condition, search))
    parts = list(by_level[search.level])
    if search.level > Level.STUDY and (above := _above(search.level, by_level)):
        parts.append(above)
    if search.level < Level.INSTANCE:
        parts += _below(search.level, by_level)
    return _all(parts)


def _above(level: Level, by_level: Mapping[Level, list[Sql]]) -> Sql | None:
    """A row's parent must match, and the parent's parent."""
    parent = Level(level - 1)
    parts = list(by_level[parent])
    if parent > Level.STUDY and (further := _above(parent, by_level)):
        parts.append(further)
    if not parts:
        return None
    where, values = _all(parts)
    name = _TABLES[parent]
    return f"{_TABLES[level]}.{name} IN (SELECT {name}.id FROM {name} WHERE {where})", values


def _below(level: Level, by_level: Mapping[Level, list[Sql]]) -> Iterable[Sql]:
    """Some series, or instance, of a row must match."""
    child = Level(level + 1)
    name = _TABLES[child]
    parts = list(by_level[child])
    if child < Level.INSTANCE:
        parts += _below(child, by_level)
    if parts:
        where, values = _all(parts)
        yield f"{_TABLES[level]}.id IN (SELECT {name}.{_TABLES[level]} FROM {name} WHERE {where})", values


def _all(parts: list[Sql]) -> Sql:
    if not parts:
        return "true", []
    return " AND ".join(sql for sql, _ in parts), [value for _, values in parts for value in values]


def _condition(condition: Condition, search: Search) -> Sql:
    tag = condition.path[0]
    level = level_of(condition.path)
    if search.is_fuzzy and condition.vr == "PN" and level is Level.STUDY and tag in COLUMNS[level]:
        return sounds_like(condition, "study")
    if level is None:
        return _in_header(condition)
    column = COLUMNS[level].get(tag)
    if tag == "00080061" and not condition.finds_empty:
        sql, values = matches(condition, "series.modality")
        return f"study.id IN (SELECT series.study FROM series WHERE {sql})", values
    if column is None:
        return _in_document(condition, f"{_TABLES[level]}.document")
    if condition.finds_empty:
        return f"coalesce({column}, '') = ''", []
    return matches(condition, column, is_folded=condition.vr == "PN")


def _in_header(condition: Condition) -> Sql:
    sql, values = _in_document(condition, "inflated(header.document)")
    return f"instance.id IN (SELECT header.instance FROM header WHERE header.instance = instance.id AND {sql})", values


def _in_document(condition: Condition, document: str) -> Sql:
    """A value at a path of a document of the DICOM JSON Model, in any item and at any place."""
    *sequences, tag = condition.path
    source, joined = document, []
    for number, sequence in enumerate(sequences):
        joined.append(f"""json_each({source}, '$."{sequence}".Value') AS item{number}""")
        source = f"item{number}.value"
    if condition.finds_empty:
        leaf = f"""coalesce(json_extract({source}, '$."{tag}".Value[0]'), '') = ''"""
        return (f"EXISTS (SELECT 1 FROM {', '.join(joined)} WHERE {leaf})" if joined else leaf), []
    joined.append(f"""json_each({source}, '$."{tag}".Value') AS leaf""")
    value = "json_extract(leaf.value, '$.Alphabetic')" if condition.vr == "PN" else "leaf.value"
    sql, values = matches(condition, value)
    return f"EXISTS (SELECT 1 FROM {', '.join(joined)} WHERE {sql})", values


def _match(search: Search, row: tuple[Any, ...]) -> Match:
    depth = search.level + 1
    uids = row[:depth]
    documents: dict[Level, Document] = {Level.STUDY: json.loads(row[depth])}
    if search.level > Level.STUDY:
        documents[Level.SERIES] = json.loads(row[depth + 1])
    if search.level is Level.INSTANCE:
        documents[Level.INSTANCE] = {
            tag: {"vr": _INSTANCE_VRS[tag], "Value": [value]}
            for tag, value in zip(sorted(_INSTANCE_VRS), row[depth + 2 :], strict=True)
            if value not in (None, "")
        }
    found: Document = {}
    for level, document in documents.items():
        found |= _told(search, level, document)
    for tag, uid in zip(("0020000D", "0020000E"), uids, strict=False):
        found[tag] = {"vr": "UI", "Value": [uid]}
    return Match(uids, found)


def _told(search: Search, level: Level, document: Document) -> Document:
    """The part of a level's document that is answered."""
    is_given = (level is Level.STUDY and search.study) or (level is Level.SERIES and search.series)
    if level is search.level or not is_given:
        if search.has_all_fields and level is search.level:
            return {tag: {"vr": vr} for tag, vr in ANSWERED[level].items()} | document
        answered = {tag: document.get(tag, {"vr": vr}) for tag, vr in ANSWERED[level].items()}
        wanted = ANSWERED_IF_KNOWN[level] | search.fields
    else:
        answered, wanted = {}, search.fields
    return answered | {tag: document[tag] for tag in wanted if tag in document}


def _document_tags(level: Level) -> frozenset[str]:
    return frozenset() if level is Level.INSTANCE else frozenset(one.tag for one in attributes_of(_TABLES[level]))


def _vr_in_documents(tag: str) -> str | None:
    every = (one for name in ("study", "series") for one in attributes_of(name))
    return next((one.vr for one in every if one.tag == tag), None)


def can_compare(condition: Condition) -> bool:
    """Whether values of this attribute can be compared at all: bytes and whole sequences cannot."""
    return condition.is_universal or condition.vr not in UNMATCHED | {"SQ"}
