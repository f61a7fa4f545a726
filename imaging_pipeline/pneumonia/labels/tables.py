"""A label file of any layout → its labels. The layout is told by the columns, never by the file's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from imaging_pipeline.conversion.csv_table import CsvTable, Row
from imaging_pipeline.errors import Issue
from imaging_pipeline.pneumonia.labels import layouts, plain
from imaging_pipeline.pneumonia.labels.model import Label, RowRefused

MOST_COLLECTIONS = 50
"""Different sources one file may name: a column with more holds something else."""


@dataclass(frozen=True, slots=True)
class _Layout:
    name: str
    is_so: Callable[[CsvTable], bool]
    read: Callable[[Row], Iterator[Label]]


_LAYOUTS = (
    _Layout("RSNA", lambda table: table.has(*layouts.RSNA_COLUMNS), layouts.rsna),
    _Layout("RSNA_CLASSES", lambda table: table.has(*layouts.RSNA_CLASS_COLUMNS), layouts.rsna_class),
    _Layout("NIH_BOXES", lambda table: table.has(*layouts.NIH_BOX_COLUMNS), layouts.nih_box),
    _Layout("NIH", lambda table: table.has(*layouts.NIH_COLUMNS), layouts.nih),
    _Layout("CHEXPERT", lambda table: table.has(*layouts.CHEXPERT_COLUMNS), layouts.chexpert),
    _Layout(
        "PLAIN",
        lambda table: any(map(table.has, plain.IMAGE)) and any(map(table.has, plain.LABEL)),
        plain.plain,
    ),
)
"""The first that fits is taken."""


class LabelTable:
    """The labels of a file; a row that cannot be used becomes an issue, and the others are read."""

    __slots__ = ("_layout", "_table")

    def __init__(self, table: CsvTable, layout: _Layout) -> None:
        """Made by :func:`open_label_table`."""
        self._table = table
        self._layout = layout

    @property
    def layout(self) -> str:
        """The name of its layout."""
        return self._layout.name

    def labels(self) -> Iterator[Label]:
        """The labels, in the order of the file. Read them once: the issues are complete after that."""
        collections: set[str] = set()
        for row in self._table.rows():
            try:
                found = list(self._layout.read(row))
            except RowRefused as refusal:
                self._table.refuse(row.line, str(refusal))
                continue
            collections.update(label.collection for label in found)
            if len(collections) > MOST_COLLECTIONS:
                self._table.refuse(row.line, f"expected at most {MOST_COLLECTIONS} different sources in a file")
            else:
                yield from found

    def refuse(self, label: Label, expected: str) -> None:
        """Take a label back; the message must hold no value of it."""
        self._table.refuse(int(label.place), expected)

    @property
    def refused(self) -> int:
        """How many rows could not be used."""
        return self._table.refused

    def issues(self) -> list[Issue]:
        """What is wrong with rows, without any value."""
        return self._table.all_issues()


def open_label_table(data: bytes, renamed: Mapping[str, str] | None = None) -> LabelTable | None:
    """A label file; None when its columns are those of no layout.

    Args:
        data: the file.
        renamed: as of :class:`CsvTable`.
    """
    table = CsvTable(data, renamed)
    layout = next((layout for layout in _LAYOUTS if layout.is_so(table)), None)
    return LabelTable(table, layout) if layout else None
