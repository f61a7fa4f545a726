"""Labels that people keep in the research lake: every table and view of the schema ``label_source``.

Their columns are those of the plain layout, images named by research SOP Instance UID or ``instance_key``. They are
read with nothing else attached and no file in reach: whoever may write the research lake gets no more by this.
"""

from __future__ import annotations

from collections.abc import Iterator

from imaging_pipeline.conversion.csv_table import Row
from imaging_pipeline.errors import ImagingError
from imaging_pipeline.lake.console import run_query
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.pneumonia.labels.model import Label, RowRefused
from imaging_pipeline.pneumonia.labels.plain import plain
from imaging_pipeline.settings import LakeLocation

SCHEMA = "label_source"


def view_names(research: Lake) -> list[str]:
    """Names of the tables and views with labels, in order."""
    rows = research.rows(
        "SELECT table_name FROM information_schema.tables WHERE table_catalog = ? AND table_schema = ? ORDER BY 1",
        [research.name, SCHEMA],
    )
    return [str(name) for (name,) in rows]


class LabelView:
    """The labels of one view."""

    __slots__ = ("_location", "name", "refused")

    def __init__(self, location: LakeLocation, name: str) -> None:
        """Name a view; nothing is read yet."""
        self._location = location
        self.name = name
        self.refused = 0

    def labels(self) -> Iterator[Label]:
        """Its labels; rows that cannot be used are counted.

        Raises:
            ImagingError: the view cannot be read, or would read something else than the research lake.
        """
        quoted = self.name.replace('"', '""')
        try:
            rows = run_query(f'SELECT * FROM {SCHEMA}."{quoted}"', [self._location]).to_pylist()
        except ImagingError:
            raise ImagingError(f"view {SCHEMA}.{self.name} cannot be read: try it with imaging-pipeline sql") from None
        for line, row in enumerate(rows, start=1):
            cells = {name.casefold(): "" if value is None else str(value).strip() for name, value in row.items()}
            try:
                yield from plain(Row(line, cells))
            except RowRefused:
                self.refused += 1

    def refuse(self, _label: Label, _expected: str) -> None:
        """Take a label back."""
        self.refused += 1
