"""The command ``imaging-pipeline import-images``: pictures with a table become DICOM objects with labels beside them.

Reads arguments and prints counts and reasons; what became of each picture is in the report it names.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.settings import Settings

if TYPE_CHECKING:
    from imaging_pipeline.conversion.folder import Conversion
    from imaging_pipeline.pneumonia.labels.model import Label
    from imaging_pipeline.pneumonia.labels.tables import LabelTable

COMPLETE, SOMETHING_LOST = 0, 1

LABELS = "labels.csv"
"""Written beside the objects: the labels of the table in the plain layout, images named by SOP Instance UID."""

ROWS_TOLD = 10
"""Rows of the table told of on the screen, at most."""

Bars = Callable[[], AbstractContextManager[Callable[[str], Callable[[int, int], None]]]]
"""Opens progress bars; inside, a bar is made by the name of its step."""


def add_import(commands: Any, bars: Bars) -> None:
    """Add ``import-images`` to the commands of the program."""
    command = commands.add_parser("import-images", help="make DICOM objects of PNG and JPEG files, with their labels")
    command.add_argument("folder", metavar="FOLDER", type=Path, help="where the pictures are, at any depth")
    command.add_argument("--csv", type=Path, default=None, metavar="FILE", help="says whose they are, and the labels")
    command.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder for the objects")
    command.add_argument(
        "--column", action="append", default=[], metavar="NAME=COLUMN", help="where the table has another name for it"
    )
    command.add_argument(
        "--modality", default="", type=_code_string, help="of all pictures, e.g. DX, where the table does not say it"
    )
    command.add_argument("--body-part", default="", type=_code_string, help="likewise, e.g. CHEST")
    command.add_argument("--view", default="", choices=("PA", "AP", "LL", "RL"), help="likewise")
    command.add_argument(
        "--collection", default="", type=_name, metavar="NAME", help="who gave the patients their numbers"
    )
    command.add_argument("--burned-in", default="", choices=("YES", "NO"), help="whether text is burned in, if known")
    command.add_argument("--workers", type=int, default=None, help="processes (default: as configured)")
    command.set_defaults(run=lambda options, settings: _run(options, settings, bars))


def _run(options: argparse.Namespace, settings: Settings, bars: Bars) -> int:
    from imaging_pipeline.conversion.csv_table import CsvTable  # noqa: PLC0415 - only this command pays for it
    from imaging_pipeline.conversion.folder import REPORT, Stated, convert_folder  # noqa: PLC0415

    folder, out = (path.expanduser().absolute() for path in (options.folder, options.out))
    renamed = dict(_renamed(options.column))
    data = _read(options.csv) if options.csv else None
    stated = Stated(options.modality, options.body_part, options.view, options.collection, options.burned_in)
    with bars() as bar:
        conversion = convert_folder(
            folder,
            out,
            CsvTable(data, renamed) if data else None,
            stated,
            workers=options.workers or settings.workers,
            progress=bar("import images"),
        )
    _print(conversion)
    lost = dict.fromkeys(issue.message for issue in conversion.table_issues)
    if data is not None:
        lost |= dict.fromkeys(_write_labels(out / LABELS, data, renamed, conversion, options.collection))
    for message in list(lost)[:ROWS_TOLD]:
        print(f"  table: {message}")
    if len(lost) > ROWS_TOLD:
        print(f"  table: and {len(lost) - ROWS_TOLD} more like these")
    print(f"report: {out / REPORT}")
    print(f"next: imaging-pipeline ingest {out}")
    return COMPLETE if conversion.is_complete and not lost else SOMETHING_LOST


def _code_string(text: str) -> str:
    """A legal CS (PS3.5 6.2), in upper case."""
    if not re.fullmatch(r"[A-Z0-9 _]{0,16}", text.upper()):
        raise argparse.ArgumentTypeError("must be letters, digits, blanks and _, 16 at most")
    return text.upper()


def _name(text: str) -> str:
    if not re.fullmatch(r"([^\W_][\w .-]{0,31})?", text):
        raise argparse.ArgumentTypeError("must be a short word")
    return text


def _read(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise ConfigurationError(f"the table cannot be read: {error.strerror}") from None


def _renamed(pairs: list[str]) -> Iterator[tuple[str, str]]:
    """``NAME=COLUMN`` as column of the file and the name it gets."""
    for pair in pairs:
        name, _, column = pair.partition("=")
        if not name or not column:
            raise ConfigurationError("--column is NAME=COLUMN: image, patient_id, label … and the column of the table")
        yield column, name


def _print(conversion: Conversion) -> None:
    from imaging_pipeline.conversion.folder import issue_counts  # noqa: PLC0415

    found = len(conversion.pictures) + conversion.unlisted
    failed = len(conversion.pictures) - conversion.made
    print(f"pictures {found} = made {conversion.made} + failed {failed} + not in the table {conversion.unlisted}")
    for count, severity, reason, message in issue_counts(conversion):
        print(f"  {count:>6}  {severity:8}  {reason}: {message}")
    if conversion.missing:
        print(f"  {conversion.missing:>6}  rows of the table name no picture of the folder, or more than one")
    if conversion.removed:
        print(f"  {conversion.removed:>6}  objects of an earlier run removed: they are not made any more")


def _write_labels(
    path: Path, data: bytes, renamed: dict[str, str], conversion: Conversion, collection: str
) -> list[str]:
    """Write the labels of the pictures that were made; what is wrong with rows of the table."""
    from imaging_pipeline.objects.writing import write_atomically  # noqa: PLC0415
    from imaging_pipeline.pneumonia.labels.plain import write_plain  # noqa: PLC0415
    from imaging_pipeline.pneumonia.labels.tables import open_label_table  # noqa: PLC0415

    table = open_label_table(data, renamed)
    if table is None:
        path.unlink(missing_ok=True)
        print("the table has no column with labels: name one with --column label=COLUMN")
        return []
    labels = list(_labels(table, conversion, collection))
    write_atomically(path, write_plain(labels))
    print(f"labels: {len(labels)} of {len({label.image for label in labels})} images, in {path}")
    return [issue.message for issue in table.issues()]


def _labels(table: LabelTable, conversion: Conversion, collection: str) -> Iterator[Label]:
    """The labels of a table about pictures that were made, under their new names."""
    index = conversion.uids()
    own = "" if table.layout == "PLAIN" else table.layout
    for label in table.labels():
        uids = index.find(label.image)
        if len(uids) == 1:
            yield replace(label, image=next(iter(uids)), collection=label.collection or own or collection)
