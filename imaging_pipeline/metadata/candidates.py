"""Candidate rows of many headers, gathered table by table.

Each object gives rows to the tables of its instance. Of a series, study, patient or device only the object with the
greatest ``row_version`` among those gathered gives them: no other can be the one they are made from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from imaging_pipeline.errors import Issue
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.table import Table
from imaging_pipeline.metadata.elements import ElementRows, Origin
from imaging_pipeline.metadata.entities import candidate_rows
from imaging_pipeline.metadata.merging import DRIVERS, ENTITY_TABLES, INSTANCE_TABLES, SHARED_TABLES
from imaging_pipeline.metadata.placing import Placed, StoredObject, place
from imaging_pipeline.metadata.projection import Row

_OBJECTS_PER_CHUNK = 500
"""Objects whose rows are kept as Python objects; those of more are kept as Arrow tables."""

_OWN_TABLES = ("dicom_file_location", *(name for name in INSTANCE_TABLES if name not in ElementRows.TABLES))
"""Tables to which every object gives rows."""

Note = tuple[str, Issue]
"""The key of an object and what is wrong with it."""


@dataclass(slots=True)
class _Best:
    """The rows of one shared entity, from the best object so far."""

    row_version: str
    rows: dict[str, list[Row]]
    notes: list[Note]


@dataclass(slots=True)
class Candidates:
    """Rows gathered so far."""

    _rows: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in _OWN_TABLES})
    _parts: dict[str, list[pa.Table]] = field(default_factory=lambda: {name: [] for name in _OWN_TABLES})
    _best: dict[tuple[str, ...], _Best] = field(default_factory=dict)
    _elements: ElementRows = field(default_factory=ElementRows)
    _notes: list[Note] = field(default_factory=list)
    _waiting: int = 0
    _own: Sequence[Table] = field(default_factory=lambda: [registry.table(name) for name in _OWN_TABLES])
    _shared: Mapping[str, Sequence[Table]] = field(
        default_factory=lambda: {driver: [registry.table(n) for n in names] for driver, names in SHARED_TABLES.items()}
    )

    def add(self, stored: StoredObject) -> None:
        """Gather the rows of one object; all of them, or none when it fails.

        Raises:
            PoisonInput: it cannot be placed.
        """
        placed = place(stored)
        own = {table.name: candidate_rows(placed, table) for table in self._own}
        better = self._better(placed)
        origin = Origin(placed.keys["instance_key"], stored.arrival_batch, stored.row_version)
        self._elements.add(placed.elements, origin, stored.element_mode)
        self._best |= better
        for name, (rows, issues) in own.items():
            self._rows[name] += rows
            self._notes += [(stored.object_key, issue) for issue in issues]
        self._waiting += 1
        if self._waiting >= _OBJECTS_PER_CHUNK:
            self._settle()

    def finish(self) -> tuple[Mapping[str, pa.Table], list[Note]]:
        """All rows by table name, for all of ``ENTITY_TABLES``, and what was wrong with the objects they are from."""
        self._settle()
        notes = self._notes + [note for best in self._best.values() for note in best.notes]
        tables = {name: pa.concat_tables([_empty(name), *parts]) for name, parts in self._parts.items()}
        for names in SHARED_TABLES.values():
            for name in names:
                rows = [row for best in self._best.values() for row in best.rows.get(name, ())]
                tables[name] = registry.table(name).rows(rows)
        tables |= self._elements.tables()
        return {name: tables[name] for name in ENTITY_TABLES}, list(dict.fromkeys(notes))

    def _better(self, placed: Placed) -> dict[tuple[str, ...], _Best]:
        """The shared entities of an object that no better object has given rows to."""
        stored = placed.stored
        found: dict[tuple[str, ...], _Best] = {}
        for driver, tables in self._shared.items():
            key = (driver, *[placed.keys[column] for column in DRIVERS[driver]])
            known = self._best.get(key)
            if known is not None and known.row_version >= stored.row_version:
                continue
            made = {table.name: candidate_rows(placed, table) for table in tables}
            rows = {name: rows for name, (rows, _) in made.items()}
            notes = [(stored.object_key, issue) for _, issues in made.values() for issue in issues]
            found[key] = _Best(stored.row_version, rows, notes)
        return found

    def _settle(self) -> None:
        for name, rows in self._rows.items():
            if rows:
                self._parts[name].append(registry.table(name).rows(rows))
                rows.clear()
        self._waiting = 0


def _empty(name: str) -> pa.Table:
    return registry.table(name).arrow_schema.empty_table()
