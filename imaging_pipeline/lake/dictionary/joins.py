"""How tables join: references between them, by rule, and the way from each to instance, series, study and patient.

A column ``X_key`` (or ``role_X_key``) refers to the first table of the registry whose whole key is ``X_key``; a column
named like a UID of the main tables to that table; all columns of a table's longer key to that table. What no rule can
see is in ``data/relations.csv``.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.dictionary.data import kept, read_data
from imaging_pipeline.lake.registry import Table

LEVELS = ("dicom_instance", "dicom_series", "dicom_study", "dicom_patient")
"""The tables people start from, from the lowest level to the highest."""

_POSITION = "_index"
"""Ends the name of a position within one sequence: two tables that count in different sequences do not share it."""


@dataclass(frozen=True, slots=True)
class Relation:
    """Columns of one table that name a row of another.

    Attributes:
        table: schema and table.
        columns: its columns.
        to_table: schema and table that is named.
        to_columns: columns there, in the same order.
        is_whole: frame 0 of ``table`` is the whole instance, so it belongs to every frame of ``to_table``.
        note: what else to know.
    """

    table: tuple[str, str]
    columns: tuple[str, ...]
    to_table: tuple[str, str]
    to_columns: tuple[str, ...]
    is_whole: bool = False
    note: str = ""

    @property
    def is_plain(self) -> bool:
        """The columns have the same names on both sides: the table's own object, not another one in some role."""
        return self.columns == self.to_columns

    def __str__(self) -> str:
        """In words, for pages and the dictionary."""
        target = f"{'.'.join(self.to_table)} ({', '.join(self.to_columns)})"
        whole = "frame 0: all its frames" if self.is_whole else ""
        remark = "; ".join(filter(None, (self.note, whole)))
        return f"{', '.join(self.columns)} → {target}" + (f" ({remark})" if remark else "")


@kept
def relations(schema: str, name: str) -> tuple[Relation, ...]:
    """What the columns of a table refer to, in the same lake."""
    table = registry.table(name)
    found = [*_by_key(schema, table), *_by_longer_key(schema, table), *_by_exception(schema, table)]
    reached = {relation.to_table for relation in found if relation.is_plain}
    found += [each for each in _by_uid(schema, table) if not each.is_plain or each.to_table not in reached]
    return tuple(dict.fromkeys(found))


def join_path(schema: str, name: str) -> tuple[Relation, ...]:
    """The steps from a table to the nearest of :data:`LEVELS` and from there up to the patient; empty: there is no way.

    A step may be a reference the wrong way round: its ``table`` is always the one that is there already.
    """
    if name == LEVELS[-1]:
        return ()
    way = _shortest((schema, name))
    if way is None:
        return ()
    place = way[-1].to_table if way else (schema, name)
    for level in LEVELS[LEVELS.index(place[1]) + 1 :]:
        step = next(r for r in relations(*place) if r.is_plain and r.to_table[1] == level)
        way = (*way, step)
        place = step.to_table
    return way


def join_sql(schema: str, name: str, *, up_to: str = LEVELS[-1]) -> list[str]:
    """``FROM`` and ``JOIN`` lines of :func:`join_path`, as far as the table ``up_to`` (all of them without it)."""
    lines = [f"FROM {schema}.{name}"]
    seen = [(schema, name)]
    if name == up_to:
        return lines
    for step in join_path(schema, name):
        lines.append(f"JOIN {'.'.join(step.to_table)} {_condition(step, seen)}")
        seen.append(step.to_table)
        if step.to_table[1] == up_to:
            break
    return lines


def _condition(step: Relation, seen: list[tuple[str, str]]) -> str:
    def holders(column: str) -> int:
        return sum(any(each.name == column for each in registry.table(name).columns) for _, name in seen)

    if step.is_plain and not step.is_whole and all(holders(column) == 1 for column in step.columns):
        return f"USING ({', '.join(step.columns)})"
    here, there = step.table[1], step.to_table[1]
    return "ON " + " AND ".join(
        f"{here}.{column} IN (0, {there}.{other})"
        if step.is_whole and column == "frame_number"
        else f"{here}.{column} = {there}.{other}"
        for column, other in zip(step.columns, step.to_columns, strict=True)
    )


def _by_key(schema: str, table: Table) -> Iterator[Relation]:
    for column in table.columns:
        for key in _single_keys():
            if column.name != key and not column.name.endswith("_" + key):
                continue
            home = _first(schema, (key,))
            if home is not None and (home[1] != table.name or column.name != key):
                yield Relation((schema, table.name), (column.name,), home, (key,))


def _by_uid(schema: str, table: Table) -> Iterator[Relation]:
    for level in LEVELS:
        home = _place(schema, level)
        if home is None or level == table.name:
            continue
        for uid in (c.name for c in registry.table(level).columns if c.is_required and c.name.endswith("instance_uid")):
            for column in table.columns:
                if column.name == uid or column.name.endswith("_" + uid):
                    yield Relation((schema, table.name), (column.name,), home, (uid,))


def _by_longer_key(schema: str, table: Table) -> Iterator[Relation]:
    names = {column.name for column in table.columns}
    for key in dict.fromkeys(each.key for each in registry.tables().values()):
        if len(key) < 2 or not names.issuperset(key) or any(part.endswith(_POSITION) for part in key):
            continue
        home = _first(schema, key)
        if home is not None and home[1] != table.name and not _is_summary(registry.table(home[1])):
            is_whole = table.made_from == "frames or object" and "frame_number" in key
            yield Relation((schema, table.name), key, home, key, is_whole)


def _is_summary(table: Table) -> bool:
    """Its rows count others by day, modality and the like; columns of such names elsewhere do not refer to it."""
    return table.is_view and not any(part.endswith("_key") for part in table.key)


def _by_exception(schema: str, table: Table) -> Iterator[Relation]:
    for row in read_data("relations.csv"):
        home = _place(schema, row["to_table"])
        if row["table"] == table.name and home is not None:
            columns, to_columns = tuple(row["columns"].split()), tuple(row["to_columns"].split())
            yield Relation((schema, table.name), columns, home, to_columns, note=row["note"])


@kept
def _single_keys() -> tuple[str, ...]:
    keys = (table.key[0] for table in registry.tables().values() if len(table.key) == 1)
    return tuple(dict.fromkeys(key for key in keys if key.endswith("_key")))


def _first(schema: str, key: tuple[str, ...]) -> tuple[str, str] | None:
    """The first table of the registry with a key that can be reached from a schema."""
    homes = (_place(schema, table.name) for table in registry.tables().values() if table.key == key)
    return next((home for home in homes if home is not None), None)


def _place(schema: str, name: str) -> tuple[str, str] | None:
    """Where a table is in the lake of a schema: in the same schema if it can be."""
    lake = registry.SCHEMA_LAKES[schema]
    near = [each for each in registry.table(name).schemas if registry.SCHEMA_LAKES[each] == lake]
    return ((schema if schema in near else near[0]), name) if near else None


def _shortest(start: tuple[str, str]) -> tuple[Relation, ...] | None:
    """The cheapest steps to one of the levels.

    Cheapest is a reference that no row lacks, to the table's own object; then one that may be empty (its rows would be
    lost), one to another object in some role, and the way back from a table that refers to this one.
    """
    number = itertools.count()  # keeps equal costs in the order in which they were found
    waiting: list[tuple[int, int, int, tuple[str, str], tuple[Relation, ...]]] = [(0, 0, next(number), start, ())]
    done = set()
    while waiting:
        cost, _, _, place, way = heapq.heappop(waiting)
        if place[1] in LEVELS:
            return way
        if place in done:
            continue
        done.add(place)
        for extra, step in _steps(place):
            if step.to_table not in done:
                target = step.to_table
                heapq.heappush(waiting, (cost + extra, _rank(target), next(number), target, (*way, step)))
    return None


def _steps(place: tuple[str, str]) -> Iterator[tuple[int, Relation]]:
    for relation in relations(*place):
        required = {column.name for column in registry.table(place[1]).columns if column.is_required}
        yield (1 if relation.is_plain else 3) + (not required.issuperset(relation.columns)), relation
    for relation in _all_relations(registry.SCHEMA_LAKES[place[0]]):
        if relation.to_table == place and relation.is_plain and not relation.is_whole:
            is_of_key = set(relation.columns) <= set(registry.table(relation.table[1]).key)
            yield 2 if is_of_key else 3, replace(relation, table=place, to_table=relation.table)


@kept
def _all_relations(lake: str) -> tuple[Relation, ...]:
    schemas = [schema for schema, owner in registry.SCHEMA_LAKES.items() if owner == lake]
    return tuple(r for schema in schemas for table in registry.tables_of(schema) for r in relations(schema, table.name))


def _rank(place: tuple[str, str]) -> int:
    return LEVELS.index(place[1]) if place[1] in LEVELS else len(LEVELS)
