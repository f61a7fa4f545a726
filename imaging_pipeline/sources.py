"""Where objects come from, as configured: one entry for each source.

A source is also a patient domain: the same PatientID in two sources is two patients. Holds no secret.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.yaml_files import read_yaml

MANIFEST_SUFFIXES = (".txt", ".csv", ".lst")
"""Files so named may be lists of objects."""

MINIMUM_AGE_SECONDS = 2.0


class SourceKind(StrEnum):
    """How a location is listed."""

    FOLDER = "folder"
    BUCKET = "bucket"
    MANIFEST = "manifest"
    DICOMDIR = "dicomdir"


class Deletions(StrEnum):
    """What it means that an object has vanished from its source."""

    TOMBSTONE = "tombstone"
    IGNORE = "ignore"


class ElementMode(StrEnum):
    """Which elements of a header become rows of ``dicom_element``: all, those of the standard, or none."""

    ALL = "all"
    STANDARD = "standard"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One source.

    Attributes:
        name: letters, digits and underscores; the patient domain of its objects, and part of its sensor's name.
        location: an absolute path, or ``s3://bucket/prefix``; of a folder, a bucket, a manifest or a DICOMDIR.
        kind: how it is listed.
        include: glob patterns of the path below the location; empty: everything.
        exclude: glob patterns of what is left out, also when it is included.
        minimum_age_seconds: a younger object may still be being written and waits for the next listing.
        follow_links: symbolic links are followed; otherwise neither linked files nor linked folders are taken.
        deletions: whether a vanished object is taken back everywhere.
        elements: which elements of its headers become rows of ``dicom_element``; None: as the installation says.
        endpoint_url: of an S3-compatible server; None: AWS, or the installation's endpoint.
        region: of the bucket and the queue.
        profile: a profile of the shared AWS configuration.
        queue_url: SQS queue of the bucket's notifications; with it, listing is left to the nightly reconcile.
    """

    name: str
    location: str
    kind: SourceKind = SourceKind.FOLDER
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    minimum_age_seconds: float = MINIMUM_AGE_SECONDS
    follow_links: bool = False
    deletions: Deletions = Deletions.TOMBSTONE
    elements: ElementMode | None = None
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    queue_url: str | None = None


_KEYS = frozenset(SourceConfig.__dataclass_fields__)
_KINDS_OF_KEY = {
    "include": (SourceKind.FOLDER, SourceKind.BUCKET),
    "exclude": (SourceKind.FOLDER, SourceKind.BUCKET),
    "follow_links": (SourceKind.FOLDER, SourceKind.DICOMDIR),
    "endpoint_url": (SourceKind.BUCKET, SourceKind.MANIFEST),
    "region": (SourceKind.BUCKET, SourceKind.MANIFEST),
    "profile": (SourceKind.BUCKET, SourceKind.MANIFEST),
    "queue_url": (SourceKind.BUCKET,),
}
_NAME = re.compile(r"[A-Za-z0-9_]+")
_S3 = re.compile(r"s3://[A-Za-z0-9][A-Za-z0-9._-]*(/.*)?", re.DOTALL)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SECRET = re.compile(r"secret|passw|token|credential|access_?key", re.IGNORECASE)
_HEAD_BYTES = 65_536
_DICOMDIR_SOP_CLASS = b"\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10"
"""File meta element (0002,0002) with Media Storage Directory Storage; PS3.10 section 7.1, always little endian."""


def load_sources(path: Path) -> tuple[SourceConfig, ...]:
    """The sources of a YAML file: ``sources:`` and a list of entries with the keys of :class:`SourceConfig`.

    ``name`` and ``location`` are needed. A relative location is taken from the file's folder, ``~`` is the home
    folder, and the kind follows from what is there when it is not given.

    Raises:
        ConfigurationError: naming the source and the key, and what is allowed there.
    """
    entries = _entries(path)
    if not entries:
        raise ConfigurationError("the sources file lists no source: give at least one, with name and location")
    sources = tuple(
        _Entry(entry, f"source {number} of the sources file", path.absolute().parent).source()
        for number, entry in enumerate(entries, start=1)
    )
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"source {name!r}: its name is used twice; each source is a patient domain")
    queues = [source.queue_url for source in sources if source.queue_url]
    if len(set(queues)) < len(queues):
        raise ConfigurationError("two sources share a queue_url: each would take the other's messages")
    _refuse_overlap(sources)
    return sources


def one_time_source(location: str, name: str) -> SourceConfig:
    """The source that a path or ``s3://`` URI given on the command line is: taken as it is, nothing taken back.

    Args:
        location: a folder, a single file, a manifest, a DICOMDIR or a bucket with an optional prefix.
        name: the patient domain.

    Raises:
        ConfigurationError: there is nothing at the location, or the name cannot be used.
    """
    who = f"source {name!r}"
    if not _NAME.fullmatch(name):
        raise ConfigurationError("the name of a source is made of letters, digits and underscores (A-Z a-z 0-9 _)")
    place = _place(location, Path.cwd(), who)
    if not place.startswith("s3://") and not os.path.exists(place):  # noqa: PTH110 - Path.exists raises when denied
        raise ConfigurationError(f"{who}: there is nothing at its location, or it may not be read")
    return SourceConfig(name, place, _kind_of(place), minimum_age_seconds=0.0, deletions=Deletions.IGNORE)


def _entries(path: Path) -> list[object]:
    document = read_yaml(path, "the sources file")
    if not isinstance(document, dict) or set(document) != {"sources"} or not isinstance(document["sources"], list):
        raise ConfigurationError("the sources file must hold one key, 'sources', with a list of sources")
    return list(document["sources"])


class _Entry:
    """One entry of the file, being checked."""

    def __init__(self, entry: object, who: str, folder: Path) -> None:
        if not isinstance(entry, dict):
            raise ConfigurationError(f"{who} must be a mapping with at least name and location")
        self._values: dict[object, object] = entry
        self._who = who
        self._folder = folder

    def source(self) -> SourceConfig:
        name = self._text("name")
        if not _NAME.fullmatch(name):
            raise self._wrong("name", "letters, digits and underscores (A-Z a-z 0-9 _)")
        self._who = f"source {name!r}"
        self._refuse_unknown_keys()
        location = _place(self._text("location"), self._folder, self._who)
        kind = SourceKind(self._choice("kind", SourceKind, "")) if self._has("kind") else _kind_of(location)
        if kind is not SourceKind.MANIFEST and (kind is SourceKind.BUCKET) != location.startswith("s3://"):
            raise self._wrong("location", "s3://bucket/prefix for a bucket, and a path for a folder or dicomdir")
        for key, kinds in _KINDS_OF_KEY.items():
            if self._has(key) and kind not in kinds:
                raise ConfigurationError(f"{self._who}: {key} is only for {' and '.join(kinds)} sources, not a {kind}")
        return SourceConfig(
            name=name,
            location=location,
            kind=kind,
            include=self._patterns("include"),
            exclude=self._patterns("exclude"),
            minimum_age_seconds=self._seconds("minimum_age_seconds", MINIMUM_AGE_SECONDS),
            follow_links=self._flag("follow_links"),
            deletions=Deletions(self._choice("deletions", Deletions, Deletions.TOMBSTONE)),
            elements=ElementMode(self._choice("elements", ElementMode, "")) if self._has("elements") else None,
            endpoint_url=self._url("endpoint_url"),
            region=self._optional_text("region"),
            profile=self._optional_text("profile"),
            queue_url=self._url("queue_url"),
        )

    def _refuse_unknown_keys(self) -> None:
        for key in self._values:
            if isinstance(key, str) and key not in _KEYS and _SECRET.search(key):
                raise ConfigurationError(
                    f"{self._who}: remove {key!r}; credentials come from the environment, a profile or the machine"
                )
            if key not in _KEYS:
                raise ConfigurationError(f"{self._who}: unknown key {key!r}; known are {', '.join(sorted(_KEYS))}")

    def _has(self, key: str) -> bool:
        return key in self._values

    def _text(self, key: str) -> str:
        value = self._values.get(key)
        if value is None:
            raise ConfigurationError(f"{self._who}: {key} is missing")
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise self._wrong(key, "a text (put it in quotes if YAML takes it for something else)")
        return value

    def _optional_text(self, key: str) -> str | None:
        return self._text(key) if self._has(key) else None

    def _choice(self, key: str, allowed: type[StrEnum], default: str) -> str:
        value = self._values.get(key, default)
        if value not in [item.value for item in allowed]:
            raise self._wrong(key, " or ".join(allowed))
        return str(value)

    def _flag(self, key: str) -> bool:
        value = self._values.get(key, False)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def _seconds(self, key: str, default: float) -> float:
        value = self._values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not (value >= 0 and math.isfinite(value)):
            raise self._wrong(key, "a number of seconds, 0 or more")
        return float(value)

    def _url(self, key: str) -> str | None:
        if not self._has(key):
            return None
        value = self._text(key)
        try:
            parts = urlsplit(value)
        except ValueError:
            raise self._wrong(key, "an http:// or https:// address") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise self._wrong(key, "an http:// or https:// address")
        if "@" in parts.netloc:
            raise self._wrong(key, "an address without user or password: credentials come from the environment")
        return value

    def _patterns(self, key: str) -> tuple[str, ...]:
        value = self._values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "a list of patterns")
        for number, pattern in enumerate(value, start=1):
            if not _is_pattern(pattern):
                raise ConfigurationError(
                    f"{self._who}: pattern {number} of {key} must be a path below the location with the wildcards "
                    "*, ** and ?; without [ ] { } \\, a leading / or !, a trailing /, and names . and .."
                )
        return tuple(value)

    def _wrong(self, key: str, allowed: str) -> ConfigurationError:
        return ConfigurationError(f"{self._who}: {key} must be {allowed}")


def _is_pattern(pattern: str) -> bool:
    """Other tools' notations are refused: taken as plain text they would leave out, or take in, the wrong objects."""
    is_foreign = pattern.startswith("!") or any(character in pattern for character in "[]{}\\\0")
    return not is_foreign and all(name not in {"", ".", ".."} for name in pattern.split("/"))


def _place(location: str, folder: Path, who: str) -> str:
    """A location as the configuration holds it: an absolute path, or an S3 URI."""
    if location.startswith("s3://"):
        if not _S3.fullmatch(location):
            raise ConfigurationError(f"{who}: location must name a bucket, as s3://bucket or s3://bucket/prefix")
        return location
    if not location or "\0" in location or _SCHEME.match(location):
        raise ConfigurationError(f"{who}: location must be a path or s3://bucket/prefix")
    try:
        return os.path.abspath(folder / Path(location).expanduser())  # noqa: PTH100 - links stay as they are written
    except RuntimeError:
        raise ConfigurationError(f"{who}: location begins with ~ and a user that is not known here") from None


def _kind_of(location: str) -> SourceKind:
    is_list = location.lower().endswith(MANIFEST_SUFFIXES)
    if location.startswith("s3://"):
        return SourceKind.MANIFEST if is_list else SourceKind.BUCKET
    path = Path(location)
    if os.path.isdir(location):  # noqa: PTH112 - Path.is_dir raises when access is denied
        return SourceKind.FOLDER
    head = _head(path)
    if head is None:  # not there yet, or not to be read: what its name says; listing it will tell what is wrong
        if path.name.upper() == "DICOMDIR":
            return SourceKind.DICOMDIR
        return SourceKind.MANIFEST if is_list else SourceKind.FOLDER
    if head[128:132] == b"DICM" and _DICOMDIR_SOP_CLASS in head[132:1024]:
        return SourceKind.DICOMDIR
    return SourceKind.MANIFEST if is_list and _is_list_of_objects(head, path.parent) else SourceKind.FOLDER


def _head(path: Path) -> bytes | None:
    if not os.path.isfile(path):  # noqa: PTH113 - a FIFO would be waited for
        return None
    try:
        with path.open("rb") as stream:
            return stream.read(_HEAD_BYTES)
    except OSError:
        return None


def _is_list_of_objects(head: bytes, folder: Path) -> bool:
    """Whether a text file is a manifest rather than an object itself: one line at least must name an object."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True  # UTF-16, as PowerShell writes lists; its lines are judged when it is read
    lines = [line.strip() for line in head.decode("utf-8", "surrogateescape").removeprefix("\ufeff").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if lines and {name.strip(' "').lower() for name in lines[0].split(",")} & {"uri", "path"}:
        return True
    return any(_names_object(line, folder) for line in lines)


def _names_object(line: str, folder: Path) -> bool:
    if line.startswith(("s3://", "file:///", "/")):
        return True
    return "\0" not in line and os.path.lexists(folder / line)


def _refuse_overlap(sources: tuple[SourceConfig, ...]) -> None:
    """An object of two sources would belong to two patients' domains, by luck the one or the other."""
    for outer in sources:
        for inner in sources:
            if outer is not inner and _area(inner).startswith(_area(outer)):
                raise ConfigurationError(
                    f"source {inner.name!r}: its location lies inside that of source {outer.name!r}; an object must "
                    "belong to one source (a link counts as what it points to)"
                )


def _area(source: SourceConfig) -> str:
    """What the paths of a source's objects start with; a manifest's own path stands for it."""
    if source.location.startswith("s3://"):
        return source.location if source.kind is SourceKind.MANIFEST else source.location.rstrip("/") + "/"
    path = os.path.realpath(source.location)
    return os.path.join(Path(path).parent if source.kind is SourceKind.DICOMDIR else path, "")  # noqa: PTH118
