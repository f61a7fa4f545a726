"""Tables in CSV files that people make: any delimiter, any damage; good rows come out, bad ones become issues.

Owns the form of such files alone. What the columns mean is said elsewhere.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from imaging_pipeline.errors import Issue, Reason, Severity, Stage

DELIMITERS = ",;\t|"

LINE_BYTES = 65_536
"""A first line that is longer is no header of a table."""

MAX_ROW_ISSUES = 100
"""Rows told of one by one; of more there is the count."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        line: number of its last line in the file, from 1.
        cells: values without outer blanks, by the name of their column in lower case.
    """

    line: int
    cells: Mapping[str, str]


class CsvTable:
    """A CSV file with a header line; columns are named in lower case, columns without a name are passed over."""

    __slots__ = ("_data", "_delimiter", "columns", "issues", "refused")

    def __init__(self, data: bytes, renamed: Mapping[str, str] | None = None) -> None:
        """Read the header line.

        Args:
            data: the file; UTF-8, a byte order mark is passed over.
            renamed: other names for columns, by the name in the file; case does not matter.
        """
        self._data = data
        first = data[:LINE_BYTES].split(b"\n", 1)[0].decode("utf-8-sig", "replace").strip()
        self._delimiter = max(DELIMITERS, key=first.count)
        names = {old.casefold(): new.casefold() for old, new in (renamed or {}).items()}
        try:
            header = next(csv.reader([first], delimiter=self._delimiter), [])
        except csv.Error:
            header = []
        found = (cell.strip().casefold() for cell in header)
        self.columns = tuple(names.get(name, name) for name in found)
        self.issues: list[Issue] = []
        self.refused = 0

    def has(self, *names: str) -> bool:
        """Whether all these columns are there."""
        return set(names) <= set(self.columns)

    def rows(self) -> Iterator[Row]:
        """The rows below the header that have its form; the others go to :attr:`issues`."""
        text = io.StringIO(self._data.decode("utf-8-sig", "replace"), newline="")
        reader = csv.reader(text, delimiter=self._delimiter, strict=True)
        next(reader, None)
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error:
                self.refuse(reader.line_num, "expected separated values with closed quotes")
                continue
            if any(cell.strip() for cell in cells):
                row = self._row(reader.line_num, [cell.strip() for cell in cells])
                if row is not None:
                    yield row

    def refuse(self, line: int, expected: str) -> None:
        """Note that the row on a line cannot be used; the message must hold no value of it."""
        self.refused += 1
        if self.refused <= MAX_ROW_ISSUES:
            self.issues.append(
                Issue(Reason.MALFORMED, Stage.LOAD, Severity.WARNING, message=f"line {line}: {expected}")
            )

    def all_issues(self) -> list[Issue]:
        """The issues met so far, with one that says how many more there are."""
        more = self.refused - MAX_ROW_ISSUES
        if more <= 0:
            return list(self.issues)
        return [*self.issues, _issue(f"{more} more rows cannot be used")]

    def _row(self, line: int, cells: list[str]) -> Row | None:
        wanted = max((index + 1 for index, name in enumerate(self.columns) if name), default=0)
        if len(cells) < wanted or any(cells[len(self.columns) :]):
            self.refuse(line, f"expected {wanted} fields, found {len(cells)}")
            return None
        if any("\ufffd" in cell for cell in cells):
            self.refuse(line, "expected UTF-8 text")
            return None
        return Row(line, {name: cell for name, cell in zip(self.columns, cells, strict=False) if name})


def _issue(message: str) -> Issue:
    return Issue(Reason.MALFORMED, Stage.LOAD, Severity.WARNING, message=message)
