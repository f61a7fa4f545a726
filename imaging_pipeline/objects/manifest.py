"""A list of objects as a source: paths and URIs in a text or CSV file, itself local or in a bucket."""

from __future__ import annotations

import csv
import io
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from imaging_pipeline.errors import ConfigurationError, PoisonInput
from imaging_pipeline.objects.folder import file_object, file_time, look_below, path_to_uri, refusal, uri_to_path
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.source import ABSENT, Page, pages_of, refuse_unsettled_list, seconds_of
from imaging_pipeline.sources import SourceConfig

NAMED_LINES = 5
"""Wrong lines that an error names by their numbers."""

REQUESTS_AT_ONCE = 16
"""Objects of a bucket looked at side by side: one answer takes tens of milliseconds."""

UNKNOWN = "unknown"
"""Version of an object that a manifest names and that access is denied to."""

_COLUMNS = ("uri", "path")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//|\\)")
_OBJECT_IN_BUCKET = re.compile(r"s3://[A-Za-z0-9][A-Za-z0-9._-]*/.+", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class _List:
    """A manifest as it was read: its version, its time (naive UTC) and the URIs it names, ascending, each once."""

    version: str
    modified_at: datetime
    uris: tuple[str, ...]


class Manifest:
    """The objects that a manifest names.

    A text file holds one URI or path on each line, with blank lines and comments after ``#`` at a line's start; a CSV
    file has a header with a column ``uri`` or ``path``. A relative path is taken from the manifest's folder and must
    not leave it. A manifest in a bucket names objects of buckets only. Links are followed: whoever wrote a path named
    what it leads to.

    An entry that leads to no object is listed all the same, as a version :data:`ABSENT`, and one that may not be
    looked at as a version :data:`UNKNOWN`: reading it says why.
    """

    def __init__(
        self,
        config: SourceConfig,
        stat: Callable[[str], ObjectVersion | None],
        read: Callable[[str], bytes],
    ) -> None:
        """A manifest and the ways to its buckets.

        Args:
            config: with the manifest's path or URI as location.
            stat: looks at an ``s3://`` URI; safe to call from threads.
            read: all bytes of an ``s3://`` URI.
        """
        self.config = config
        self.prefix = ""
        self._stat_s3 = stat
        self._read_s3 = read
        self._list: _List | None = None

    def pages(self, after: str | None, now: datetime) -> Iterator[Page]:
        """See :class:`~imaging_pipeline.objects.source.Source`.

        Raises:
            ConfigurationError: the manifest is missing, or has lines that name nothing that could be an object.
            TransientError: a store does not answer, or the manifest itself is still being written.
        """
        listed = self._listed()
        refuse_unsettled_list(seconds_of(listed.modified_at), now, self.config)
        yield from pages_of(
            listed.uris,
            lambda uris: self._look(uris, listed.modified_at),
            after,
            now,
            self.config.minimum_age_seconds,
        )

    def stat(self, uri: str) -> ObjectVersion | None:
        """See :class:`~imaging_pipeline.objects.source.Source`."""
        listed = self._listed()
        return self._find(uri, listed.modified_at) if uri in listed.uris else None

    def selects(self, uri: str) -> bool:
        """Whether the manifest names it."""
        return uri in self._listed().uris

    def _look(self, uris: Sequence[str], listed_at: datetime) -> Iterator[ObjectVersion]:
        find = partial(self._find, listed_at=listed_at)
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            in_buckets = [uri for uri in uris if uri.startswith("s3://")]
            answers = dict(zip(in_buckets, pool.map(find, in_buckets), strict=True))
        for uri in uris:
            found = answers[uri] if uri in answers else find(uri)
            yield found or ObjectVersion(uri, ABSENT, 0, listed_at, self.config.name)

    def _find(self, uri: str, listed_at: datetime) -> ObjectVersion | None:
        try:
            if uri.startswith("s3://"):
                return self._stat_s3(uri)
            status = look_below("/", str(uri_to_path(uri)).strip("/").split("/"), follow_links=True)
        except (PoisonInput, ConfigurationError) as denied:
            if isinstance(denied, ConfigurationError) and uri.startswith("s3://"):
                raise  # the bucket, not this one object
            return ObjectVersion(uri, UNKNOWN, 0, listed_at, self.config.name)
        return file_object(uri, status, self.config.name) if status else None

    def _listed(self) -> _List:
        """The manifest, read again when it has another version than the one read before."""
        version, modified_at, base = self._itself()
        if self._list is None or self._list.version != version:
            uris = _uris(self._bytes(), base, is_csv=self.config.location.lower().endswith(".csv"), who=self._who)
            self._list = _List(version, modified_at, tuple(uris))
        return self._list

    def _itself(self) -> tuple[str, datetime, str]:
        """Version and time of the manifest, and the start of the URIs that relative paths become."""
        location = self.config.location
        if location.startswith("s3://"):
            try:
                found = self._stat_s3(location)
            except PoisonInput as denied:
                raise ConfigurationError(f"{self._who} cannot be looked at: {denied.message}") from None
            if found is None:
                raise ConfigurationError(f"{self._who} is not in its bucket")
            return found.version, found.modified_at, location.rpartition("/")[0]
        path = Path(location)
        try:
            status = path.stat()
        except OSError as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
                raise ConfigurationError(f"{self._who} cannot be read ({error.strerror})") from None
            raise refusal(error) from None
        version = f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
        return version, file_time(status), path_to_uri(Path(os.path.realpath(path.parent)))

    def _bytes(self) -> bytes:
        location = self.config.location
        if location.startswith("s3://"):
            return self._read_s3(location)
        try:
            return Path(location).read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{self._who} cannot be read ({error.strerror})") from None

    @property
    def _who(self) -> str:
        return f"the manifest of source {self.config.name!r}"


def _uris(content: bytes, base: str, *, is_csv: bool, who: str) -> Iterable[str]:
    """The URIs a manifest names, ascending, each once.

    Raises:
        ConfigurationError: some lines cannot be used; their numbers are told, their text is not.
    """
    text = _decode(content, who)
    uris: set[str] = set()
    wrong: list[int] = []
    for number, entry in _csv_entries(text, who) if is_csv else _text_entries(text):
        uri = _uri_of(entry, base)
        if uri is None:
            wrong.append(number)
        else:
            uris.add(uri)
    if wrong:
        numbers = ", ".join(str(number) for number in wrong[:NAMED_LINES])
        more = f" and {len(wrong) - NAMED_LINES:,} more" if len(wrong) > NAMED_LINES else ""
        raise ConfigurationError(
            f"{who} cannot be used because of its line {numbers}{more}. Each must be an s3://bucket/key or "
            "file:///path URI, or a path; a relative one must stay in the manifest's folder"
            + ("; a manifest in a bucket names objects of buckets only" if base.startswith("s3://") else "")
        )
    return sorted(uris)


def _decode(content: bytes, who: str) -> str:
    """UTF-8, with names that are not; or UTF-16 with its mark, as PowerShell writes lists."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError:
            raise ConfigurationError(f"{who} is damaged: it begins as UTF-16 and does not go on so") from None
    return content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")


def _text_entries(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            yield number, entry


def _csv_entries(text: str, who: str) -> Iterator[tuple[int, str]]:
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        column = next((header.index(name) for name in _COLUMNS if name in header), None)
        if column is None:
            raise ConfigurationError(f"{who} needs a header line with a column named uri or path")
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row[column].strip() if column < len(row) else ""
    except csv.Error:
        raise ConfigurationError(f"{who} is no CSV near line {reader.line_num}") from None


def _uri_of(entry: str, base: str) -> str | None:
    """The URI an entry stands for, in the one spelling that listings use; None when it stands for none."""
    if not entry or _CONTROL.search(entry):
        return None
    if entry.startswith("s3://"):
        return entry if _OBJECT_IN_BUCKET.fullmatch(entry) and _is_utf8(entry) else None
    if not entry.startswith(("file://", "/")):
        return None if _SCHEME.match(entry) else _uri_below(entry, base)
    path = str(uri_to_path(entry.replace("file://localhost/", "file:///", 1))) if entry.startswith("file:") else entry
    is_local = path.startswith("/") and not base.startswith("s3://")
    return _uri_of_path(path) if is_local else None


def _uri_below(entry: str, base: str) -> str | None:
    below = posixpath.normpath(entry)
    if below in {".", ".."} or below.startswith("../"):
        return None
    if base.startswith("s3://"):
        return f"{base}/{below}" if _is_utf8(below) else None
    return _uri_of_path(str(uri_to_path(base) / below))


def _uri_of_path(path: str) -> str | None:
    if "\0" in path or os.path.normpath(path) in {"/", "//"}:
        return None
    return path_to_uri(Path("/" + os.path.normpath(path).lstrip("/")))


def _is_utf8(text: str) -> bool:
    """Whether it could be a key of a bucket; bytes that are no UTF-8 were kept as surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
