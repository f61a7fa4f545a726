"""Objects in a local folder: an ordered listing with versions. Opens no file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.objects.model import ObjectVersion

ARCHIVE_SUFFIXES = frozenset({".zip"})
"""Names that are looked into. A file so named that is no archive becomes an issue, not an error."""

_SAFE = "/@$&'()*+,;=:~-._"


def path_to_uri(path: Path) -> str:
    """``file:///…`` of an absolute path; names that are no UTF-8 survive the round trip, ``!`` is escaped."""
    return "file://" + quote(os.fsencode(path), safe=_SAFE)


def uri_to_path(uri: str) -> Path:
    """The path of a ``file://`` URI made by :func:`path_to_uri`."""
    return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))))


def file_version(status: os.stat_result) -> str:
    """Version of a local file: its size and modification time in nanoseconds."""
    return f"{status.st_size}-{status.st_mtime_ns}"


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder (or one file) as a source of objects.

    Attributes:
        root: the folder watched, or a single file.
        name: source name, the patient domain of its objects.
        minimum_age_seconds: younger files may still be being written and are left for the next listing.
    """

    root: Path
    name: str
    minimum_age_seconds: float = 0.0

    def list(self, now: datetime) -> Iterator[ObjectVersion]:
        """Regular files below the root, folder by folder in the order of their names.

        Names with a leading dot (temporary files, version control) are left out; folders that are links are
        not entered, so that a listing ends and stays below its root.

        Raises:
            ConfigurationError: the root, or a folder below it, cannot be read: its objects would be missed unnoticed.
        """
        youngest = now.replace(tzinfo=UTC).timestamp() - self.minimum_age_seconds
        if not os.access(self.root, os.R_OK):
            raise ConfigurationError(f"cannot read the source {self.name!r}: is its folder there and readable?")
        if self.root.is_file():
            yield from self._object(self.root.resolve(), youngest)
            return
        for folder, subfolders, files in os.walk(self.root.resolve(), onerror=_refuse):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in sorted(files):
                if not name.startswith("."):
                    yield from self._object(Path(folder, name), youngest)

    def _object(self, path: Path, youngest: float) -> Iterator[ObjectVersion]:
        try:
            status = path.stat()
        except OSError:
            return  # gone since its folder was read: the next listing will tell
        if stat.S_ISREG(status.st_mode) and status.st_mtime <= youngest:
            yield ObjectVersion(
                uri=path_to_uri(path),
                version=file_version(status),
                size=status.st_size,
                modified_at=datetime.fromtimestamp(status.st_mtime, UTC).replace(tzinfo=None),
                source=self.name,
                is_archive=path.suffix.lower() in ARCHIVE_SUFFIXES,
            )


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # removed since its parent was read: the next listing will tell
        raise ConfigurationError(f"a folder of the source cannot be read ({error.strerror}): mend its permissions")
