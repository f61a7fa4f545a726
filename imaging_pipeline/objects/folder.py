"""Objects in a local folder: an ordered listing with versions. Opens no file."""

from __future__ import annotations

import errno
import os
import re
import stat
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from imaging_pipeline.errors import ConfigurationError, ImagingError, TransientError
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.patterns import Patterns
from imaging_pipeline.objects.source import PAGE_OBJECTS, Page, is_settled
from imaging_pipeline.sources import SourceConfig

ARCHIVE_SUFFIXES = frozenset({".zip"})
"""Names that are looked into. A file so named that is no archive becomes an issue, not an error."""

PAGE_ENTRIES = 20 * PAGE_OBJECTS
"""Names looked at for one page, at most: a tree that holds little of use still gives pages to go on from."""

_SAFE = "/@$&'()*+,;=:~-._"
_needs_no_quoting = re.compile(r"[A-Za-z0-9/@$&'()*+,;=:~\-._]*").fullmatch
_ARCHIVE_ENDINGS = tuple(ARCHIVE_SUFFIXES)
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_FOR_A_PERSON = frozenset({errno.EACCES, errno.EPERM, errno.ENAMETOOLONG})

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - naive UTC, as all times of objects

_Identity = tuple[int, int]


def path_to_uri(path: Path) -> str:
    """``file:///…`` of an absolute path; names that are no UTF-8 survive the round trip, ``!`` is escaped."""
    return "file://" + quote(os.fsencode(path), safe=_SAFE)


def uri_to_path(uri: str) -> Path:
    """The path of a ``file://`` URI made by :func:`path_to_uri`."""
    return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))))


def file_version(status: os.stat_result) -> str:
    """Version of a local file: its size and modification time in nanoseconds."""
    return f"{status.st_size}-{status.st_mtime_ns}"


def file_object(uri: str, status: os.stat_result, source: str) -> ObjectVersion:
    """The object that a regular file is."""
    return ObjectVersion(
        uri, file_version(status), status.st_size, file_time(status), source, uri.lower().endswith(_ARCHIVE_ENDINGS)
    )


def file_time(status: os.stat_result) -> datetime:
    """Modification time, naive UTC; times that no calendar holds become the first or last it does."""
    try:
        return _EPOCH + timedelta(seconds=status.st_mtime)
    except OverflowError:
        return datetime.max if status.st_mtime > 0 else datetime.min  # noqa: DTZ901


def look_below(root: str, names: Sequence[str], *, follow_links: bool) -> os.stat_result | None:
    """Status of the regular file that these names lead to from a folder, or None when there is none.

    Without ``follow_links`` none of the names may be a link; with it, none may lead back to a folder on the way.

    Raises:
        ConfigurationError: access is denied.
        TransientError: the file system does not answer.
    """
    path = root
    seen: set[_Identity] = set()
    try:
        status = os.stat(root)  # noqa: PTH116 - a Path per name would double the cost
        for name in names:
            seen.add(_identity(status))
            path = f"{path}/{name}"
            status = os.stat(path, follow_symlinks=follow_links)  # noqa: PTH116
            if stat.S_ISLNK(status.st_mode) or _identity(status) in seen:
                return None
    except ValueError:
        return None  # no name of a file: it holds a NUL
    except OSError as error:
        if error.errno in _NOT_THERE or error.errno == errno.ENAMETOOLONG:
            return None
        raise refusal(error) from None
    return status if stat.S_ISREG(status.st_mode) else None


def refusal(error: OSError) -> ImagingError:
    """What to raise when the file system says no: passing over the place would take its objects for deleted."""
    if error.errno in _FOR_A_PERSON:
        return ConfigurationError(
            f"a folder of the source cannot be read ({error.strerror}): mend its permissions, or exclude it"
        )
    return TransientError(f"the file system of the source does not answer ({error.strerror})")


@dataclass(slots=True)
class _Visit:
    """A folder on the way: what is left of it, and where it is.

    Attributes:
        path: ends with a slash, as ``uri`` and (unless empty) ``below`` do.
        below: path from the root.
        keys: quoted names in order, those of folders with a slash: so a walk gives URIs in order.
        names: the name of each key that had to be quoted.
        line: identities of the folder and of those above it, when links are followed.
    """

    path: str
    uri: str
    below: str
    keys: Iterator[str] = field(default_factory=lambda: iter(()))
    names: dict[str, str] = field(default_factory=dict)
    line: frozenset[_Identity] = frozenset()


class Folder:
    """A folder (or one file) as a source of objects.

    Regular files are objects; FIFOs, sockets and devices are none. Links are passed over or followed as the
    configuration says; an object found through a link keeps the link's path, and a link back to a folder above it is
    not entered. Memory is bounded by the names of the folders from the root down to the one being listed.
    """

    def __init__(self, config: SourceConfig) -> None:
        self.config = config
        self._root = os.path.realpath(config.location)
        self._is_file = os.path.isfile(self._root)  # noqa: PTH113 - Path.is_file raises when access is denied
        self._patterns = Patterns(config.include, config.exclude)
        uri = path_to_uri(Path(self._root))
        self.prefix = uri if self._is_file else uri.removesuffix("/") + "/"

    def pages(self, after: str | None, now: datetime) -> Iterator[Page]:
        """See :class:`~imaging_pipeline.objects.source.Source`; folders that lie before ``after`` are not read again.

        Raises:
            ConfigurationError: the root is missing, or a folder cannot be read: its objects would be taken for deleted.
            TransientError: the file system does not answer, or the root was replaced meanwhile (a disk unmounted).
        """
        objects: list[ObjectVersion] = []
        unsettled: set[str] = set()
        seconds, age, source = now.timestamp(), self.config.minimum_age_seconds, self.config.name
        for entries, (uri, status) in enumerate(self._files(after), start=1):
            if status is None:
                pass
            elif is_settled(status.st_mtime, seconds, age):
                objects.append(file_object(uri, status, source))
            else:
                unsettled.add(uri)
            if len(objects) + len(unsettled) == PAGE_OBJECTS or entries % PAGE_ENTRIES == 0:
                yield Page(tuple(objects), frozenset(unsettled), uri)
                objects, unsettled = [], set()
        yield Page(tuple(objects), frozenset(unsettled), None)

    def list(self, now: datetime) -> Iterator[ObjectVersion]:
        """The settled objects of all pages."""
        for page in self.pages(None, now):
            yield from page.objects

    def stat(self, uri: str) -> ObjectVersion | None:
        """See :class:`~imaging_pipeline.objects.source.Source`."""
        if not self.selects(uri):
            return None
        self._root_identity()
        if self._is_file:
            folder, _, name = self._root.rpartition("/")
            status = look_below(folder or "/", [name], follow_links=False)
        else:
            status = look_below(self._root, self._below(uri).split("/"), follow_links=self.config.follow_links)
        return file_object(uri, status, self.config.name) if status else None

    def selects(self, uri: str) -> bool:
        """See :class:`~imaging_pipeline.objects.source.Source`; a URI must be spelt as :func:`path_to_uri` does."""
        if self._is_file:
            return uri == self.prefix and self._takes_root()
        if not uri.startswith(self.prefix) or path_to_uri(uri_to_path(uri)) != uri:
            return False
        return self._patterns.takes(self._below(uri))

    def _below(self, uri: str) -> str:
        return os.fsdecode(unquote_to_bytes(uri.removeprefix(self.prefix)))

    def _takes_root(self) -> bool:
        """A file that is a source by itself may have a hidden name: somebody named it."""
        return self._patterns.is_everything or self._patterns.takes(Path(self._root).name)

    def _files(self, after: str | None) -> Iterator[tuple[str, os.stat_result | None]]:
        """Every name behind ``after`` in the order of URIs, with its status when the source takes it."""
        root = self._root_identity()
        if after is not None and after >= self.prefix and not after.startswith(self.prefix):
            return
        if self._is_file:
            if (after is None or after < self.prefix) and self._takes_root():
                yield self.prefix, self._status(self._root, root)
            return
        top = _Visit(os.path.join(self._root, ""), self.prefix, "")  # noqa: PTH118
        visits = [top] if self._begin(top, after, root) else []
        while visits:
            visit = visits[-1]
            for key in visit.keys:
                uri, name = visit.uri + key, visit.names.get(key, key)
                if not key.endswith("/"):
                    is_taken = self._patterns.is_everything or self._patterns.takes(visit.below + name)
                    yield uri, self._status(visit.path + name, root) if is_taken else None
                    continue
                if after is None or uri > after:
                    yield uri, None
                inner = _Visit(visit.path + name, uri, visit.below + name, line=visit.line)
                if self._patterns.enters(inner.below[:-1]) and self._begin(inner, after, root):
                    visits.append(inner)
                    break
            else:
                visits.pop()

    def _begin(self, visit: _Visit, after: str | None, root: _Identity) -> bool:
        """Read a folder's names; False when it is not entered: it has vanished, or is a link back."""
        try:
            if self.config.follow_links:
                identity = _identity(os.stat(visit.path))  # noqa: PTH116
                if identity in visit.line:
                    return False
                visit.line |= {identity}
            keys = self._keys(visit)
        except OSError as error:
            self._pass_over(error, root)
            return False
        visit.keys = iter(keys[_first_behind(keys, visit.uri, after) :])
        return True

    def _keys(self, visit: _Visit) -> Sequence[str]:
        keys = []
        with os.scandir(visit.path) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                end = "/" if self._is_folder(entry) else ""
                key = name + end
                if not _needs_no_quoting(name):
                    key = quote(os.fsencode(name), safe=_SAFE) + end
                    visit.names[key] = name + end
                keys.append(key)
        keys.sort()
        return keys

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir(follow_symlinks=self.config.follow_links)
        except OSError:
            return False  # a link that leads nowhere; looking at it as at a file tells what is wrong

    def _status(self, path: str, root: _Identity) -> os.stat_result | None:
        """Status of a regular file, or None when there is none (any more)."""
        try:
            status = os.stat(path, follow_symlinks=self.config.follow_links)  # noqa: PTH116
        except OSError as error:
            self._pass_over(error, root)
            return None
        return status if stat.S_ISREG(status.st_mode) else None

    def _pass_over(self, error: OSError, root: _Identity) -> None:
        """What has vanished since its folder was read may be passed over, unless the root went with it."""
        if error.errno not in _NOT_THERE:
            raise refusal(error) from None
        if self._root_identity() != root:
            raise TransientError(f"the folder of source {self.config.name!r} was replaced while it was being listed")

    def _root_identity(self) -> _Identity:
        try:
            status = os.stat(self._root)  # noqa: PTH116
        except OSError as error:
            if error.errno in _NOT_THERE | _FOR_A_PERSON:
                raise self._missing() from None
            raise refusal(error) from None
        if not (stat.S_ISREG(status.st_mode) if self._is_file else stat.S_ISDIR(status.st_mode)):
            raise self._missing()
        return _identity(status)

    def _missing(self) -> ConfigurationError:
        return ConfigurationError(f"cannot read the source {self.config.name!r}: is its folder there and readable?")


def _first_behind(keys: Sequence[str], uri: str, after: str | None) -> int:
    """Index of the first key of a folder whose URIs are not all up to ``after``."""
    if after is None or not after.startswith(uri):
        return 0
    rest = after[len(uri) :]
    first = bisect_right(keys, rest)
    is_inside = first > 0 and keys[first - 1].endswith("/") and rest.startswith(keys[first - 1])
    return first - 1 if is_inside else first


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino
