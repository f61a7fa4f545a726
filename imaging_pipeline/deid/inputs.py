"""What a folder run has to go through: every object of a location, those in its zip archives too.

Owns the list and the tokens by which evidence names objects. Opens archives, reads no object.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from imaging_pipeline.deid.outcomes import Outcome, Verdict, refused
from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.errors import ConfigurationError, PoisonInput
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.opening import open_source
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.sources import SourceKind, one_time_source


@dataclass(frozen=True, slots=True)
class Item:
    """An object and the keyed token that stands for its place below the location; the place is not shown."""

    target: ObjectVersion = field(repr=False)
    token: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is at a location.

    Attributes:
        items: the objects.
        outcomes: archives that cannot be opened.
        passed_over: names that are no objects, by kind.
    """

    items: tuple[Item, ...]
    outcomes: tuple[Outcome, ...]
    passed_over: dict[str, int]


def list_inputs(location: str, out: Path | None, keys: ProjectKeys, reader: ObjectReader, domain: str) -> Inputs:
    """List a location.

    Args:
        location: a folder, zip archive, file, DICOMDIR, manifest, or s3://bucket/prefix.
        out: where output goes, which must be apart from the location.
        keys: of the project; they make the tokens.
        reader: opens archives.
        domain: patient domain of the objects.

    Raises:
        ConfigurationError: there is nothing at the location, it may not be read, or ``out`` lies in it or around it.
        TransientError: it does not answer.
    """
    config = replace(one_time_source(location, domain), minimum_age_seconds=0.0)
    place = Path(config.location)
    is_local = config.kind is not SourceKind.BUCKET and not config.location.startswith("s3://")
    if is_local and out is not None:
        _refuse_overlap(place.resolve(), out.resolve())
    source = open_source(config, reader.access)
    items: list[Item] = []
    outcomes: list[Outcome] = []
    passed_over: Counter[str] = Counter(_passed_over(place) if is_local else {})
    for page in source.pages(None, datetime.now(UTC)):
        for target in page.objects:
            if not target.is_archive:
                items.append(_item(target, source.prefix, keys))
                continue
            try:
                summary = reader.describe_archive(target)
                items += (_item(member, source.prefix, keys) for member in reader.list_members(target))
            except PoisonInput as refusal:
                outcomes.append(refused(_item(target, source.prefix, keys).token, refusal, Verdict.FAILED))
            else:
                passed_over.update({"hidden": summary.hidden, "replaced in its archive": summary.duplicates})
                if not summary.is_whole_file:  # what lies before its first member may be a DICOM object
                    items.append(_item(target, source.prefix, keys))
    return Inputs(tuple(items), tuple(outcomes), {kind: number for kind, number in passed_over.items() if number})


def place_of(item: Item) -> str:
    """Where an object is, as the key holder may read it on a screen; never written down."""
    return item.target.uri


def _item(target: ObjectVersion, prefix: str, keys: ProjectKeys) -> Item:
    """The token depends on the place below the location alone: a copy of the location has the same."""
    return Item(target, keys.token("object", target.uri.partition("://")[2].removeprefix(prefix.partition("://")[2])))


def _refuse_overlap(place: Path, out: Path) -> None:
    if place == out or place in out.parents or out in place.parents:
        raise ConfigurationError("input and output must lie apart: originals would get among released files")


def _passed_over(place: Path) -> Counter[str]:
    """Names that a listing leaves out: hidden ones, with all below them, and links."""
    found: Counter[str] = Counter()
    for folder, folders, files in os.walk(place):
        is_hidden = any(part.startswith(".") for part in Path(folder).relative_to(place).parts)
        for name in files:
            if is_hidden or name.startswith("."):
                found["hidden"] += 1
            elif (Path(folder) / name).is_symlink():
                found["links"] += 1
        found["links"] += sum((Path(folder) / name).is_symlink() for name in folders)
    return found
