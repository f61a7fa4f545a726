"""The identifiers of a cohort, from a CSV file."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from imaging_pipeline.errors import ConfigurationError


def read_cohort(path: Path) -> dict[str, tuple[str, ...]]:
    """The identifiers of a cohort's CSV file by column: PatientID, AccessionNumber, StudyInstanceUID.

    Of each row the most precise one counts: the study's UID before the accession number before the patient.

    Raises:
        ConfigurationError: the file cannot be read, has none of the columns, or names nobody.
    """
    order = ("StudyInstanceUID", "AccessionNumber", "PatientID")
    found: dict[str, dict[str, None]] = {column: {} for column in order}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream)
            rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
            if not set(order) & set(rows.fieldnames):
                raise ConfigurationError(f"the cohort must have one of the columns {', '.join(order)}")
            for row in rows:
                given = ((column, (row.get(column) or "").strip()) for column in order)
                column, value = next((pair for pair in given if pair[1]), ("", ""))
                if value:
                    found[column][value] = None
    except (OSError, UnicodeDecodeError, csv.Error):
        raise ConfigurationError("the cohort cannot be read: it must be a CSV file in UTF-8") from None
    if not any(found.values()):
        raise ConfigurationError("the cohort names nobody: none of its rows has an identifier")
    for values in found.values():
        if any(re.search(r"[*?\\]", value) for value in values):
            raise ConfigurationError("the cohort holds a wildcard (* ? \\): name each patient, accession or study")
    return {column: tuple(values) for column, values in found.items()}
