"""What one service serves: a zone, with the ways to its lake, its objects and its folder.

A process serves one zone. That of the research zone is made without any way to the identified one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from imaging_pipeline.deid.clearance import Clearance
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.pacs.config import ZoneName

__all__ = ["OpenLake", "Zone", "ZoneName"]

OpenLake = Callable[[], AbstractContextManager[Lake]]
"""Opens the zone's lake on a connection of its own; any thread may call it."""


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone as a service sees it.

    Attributes:
        name: ``research`` (released files under pseudonyms) or ``clinical`` (the original objects).
        schema: the schema of its ``dicom_*`` tables: ``deid`` or ``silver``.
        open_lake: its lake, read-only.
        write_lake: the same lake, to be written.
        reader: reads its objects.
        folder: the zone's folder; of the research zone all files that are served lie below it.
        landing: where objects that are sent here are put.
        project: the research project, the patient domain of released objects.
        clearance: which batches may be shown; None: all.
    """

    name: ZoneName
    schema: str
    open_lake: OpenLake
    write_lake: OpenLake
    reader: ObjectReader
    folder: Path
    landing: Path
    project: str
    clearance: Clearance | None

    @property
    def cache(self) -> Path:
        """A folder for what can be made again from lake and files, for its owner alone; made when it is not there."""
        folder = self.folder / "serving"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    @property
    def index_path(self) -> Path:
        """The SQLite file of the serving index."""
        return self.cache / "index.sqlite"
