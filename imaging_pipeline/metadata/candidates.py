"""Candidate rows of many headers, gathered table by table.

Each object gives rows to the tables of its instance. Of a series, study, patient or device only the object with the
greatest ``row_version`` among those gathered gives them: no other can be the one they are made from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from imaging_pipeline.errors import Issue, Reason, Stage
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.table import Table
from imaging_pipeline.metadata.elements import ElementRows, Origin
from imaging_pipeline.metadata.entities import candidate_rows
from imaging_pipeline.metadata.merging import DRIVERS, ENTITY_TABLES, INSTANCE_TABLES, SHARED_TABLES
from imaging_pipeline.metadata.placing import Placed, StoredObject, place
from imaging_pipeline.metadata.projection import Row

_ROWS_PER_CHUNK = 10_000
"""Rows that are kept as Python objects; more are kept as Arrow tables."""

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
    """Rows gathered so far.

    Attributes:
        refused: objects that were taken out again because a value did not fit.
    """

    _rows: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in _OWN_TABLES})
    _parts: dict[str, list[pa.Table]] = field(default_factory=lambda: {name: [] for name in _OWN_TABLES})
    _best: dict[tuple[str, ...], _Best] = field(default_factory=dict)
    _elements: ElementRows = field(default_factory=ElementRows)
    _notes: list[Note] = field(default_factory=list)
    _waiting: int = 0
    _objects: dict[str, str] = field(default_factory=dict)
    refused: int = 0
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
        self._objects[stored.row_version] = stored.object_key
        for name, (rows, issues) in own.items():
            self._rows[name] += rows
            self._waiting += len(rows)
            self._notes += [(stored.object_key, issue) for issue in issues]
        if self._waiting >= _ROWS_PER_CHUNK:
            self._settle()

    def finish(self) -> tuple[Mapping[str, pa.Table], list[Note]]:
        """All rows by table name, for all of ``ENTITY_TABLES``, and what was wrong with the objects they are from.

        An object with a value that does not fit its column, against all declarations, is refused: it has an ERROR.
        """
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
            for table in tables:
                table.rows(rows[table.name])  # one that does not fit is refused now, not with all others
            notes = [(stored.object_key, issue) for _, issues in made.values() for issue in issues]
            found[key] = _Best(stored.row_version, rows, notes)
        return found

    def _settle(self) -> None:
        try:
            parts = self._converted()
        except ValueError:
            self._refuse_misfits()
            parts = self._converted()
        for name, part in parts.items():
            self._parts[name].append(part)
            self._rows[name].clear()
        self._objects.clear()
        self._waiting = 0

    def _converted(self) -> dict[str, pa.Table]:
        return {name: registry.table(name).rows(rows) for name, rows in self._rows.items() if rows}

    def _refuse_misfits(self) -> None:
        """Take out all rows of the objects whose rows do not fit; the others of the chunk stay."""
        for row_version, object_key in self._objects.items():
            own = {name: [r for r in rows if r["row_version"] == row_version] for name, rows in self._rows.items()}
            try:
                for name, rows in own.items():
                    registry.table(name).rows(rows)
            except ValueError:
                for rows in self._rows.values():
                    rows[:] = [row for row in rows if row["row_version"] != row_version]
                message = "a value does not fit its column"
                self._notes.append((object_key, Issue(Reason.MALFORMED, Stage.MAP, message=message)))
                self.refused += 1


def _empty(name: str) -> pa.Table:
    return registry.table(name).arrow_schema.empty_table()
