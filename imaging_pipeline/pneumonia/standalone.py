"""What a model says of files that are in no lake, as a table of CSV.

Owns the listing of files, their way through worker processes to the model, and the table. One bad file is a row with
its reason. Memory does not grow with the number of files.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from imaging_pipeline.errors import ConfigurationError, PoisonInput, Reason
from imaging_pipeline.objects.folder import path_to_uri, uri_to_path
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.opening import open_source
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.objects.source import PAGE_OBJECTS
from imaging_pipeline.pneumonia.film import NOT_SELECTED, Film, NoFilm, films_of
from imaging_pipeline.pneumonia.prediction import UNLIKE_TRAINING, Flag, Predictor
from imaging_pipeline.sources import one_time_source
from imaging_pipeline.tensors.recipe import Recipe
from imaging_pipeline.workers import map_chunks

COLUMNS = ("path", "frame", "score", "flag", "reason", "uncertainty", "model_version")

FILES_PER_CHUNK = 8

FILMS_AT_ONCE = 64

ANSWERS_ABOUT_CONTENT = frozenset({UNLIKE_TRAINING, NOT_SELECTED})
"""Reasons that say something of an image; all others say that a file could not be read as one."""

_Found: TypeAlias = "tuple[str, Film | NoFilm]"
"""A file as it is named in the table, and one of its frames."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """How many rows of the table say what.

    Attributes:
        flags: rows by what is said.
        reasons: rows without an answer by their reason.
    """

    flags: Counter[str]
    reasons: Counter[str]

    @property
    def rows(self) -> int:
        """All of them."""
        return self.flags.total()

    @property
    def unreadable(self) -> int:
        """Files, or frames, that could not be read as an image."""
        return sum(count for reason, count in self.reasons.items() if reason not in ANSWERS_ABOUT_CONTENT)


def predict_files(
    places: Sequence[str],
    out: Path,
    predictor: Predictor,
    model_version: str,
    *,
    workers: int,
    reader: ObjectReader | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Predicted:
    """Score all files at some places, and write the table whole or not at all.

    Args:
        places: folders, files, zip archives, DICOMDIRs, manifests or s3://bucket/prefix.
        out: CSV with the columns `COLUMNS`, one row for each frame the model's recipe takes; overwritten.
        predictor: the model.
        model_version: what the table calls it.
        workers: processes that read and decode.
        reader: reads the files.
        progress: is told of the files done since the last call, and of those known so far.

    Raises:
        ConfigurationError: a place is not there, ``out`` cannot be written, or the model has no recipe.
        TransientError: a place does not answer.
    """
    recipe = predictor.recipe
    if recipe is None:
        raise ConfigurationError("the model was stored without the recipe of its images: train it anew")
    reader = reader or ObjectReader()
    counts = Predicted(Counter(), Counter())
    with _table(out) as writer:
        found = _films_at(places, path_to_uri(out.absolute()), recipe, reader, workers, progress)
        while batch := list(islice(found, FILMS_AT_ONCE)):
            for row in _rows(batch, predictor, model_version):
                counts.flags[row["flag"]] += 1
                if row["reason"]:
                    counts.reasons[row["reason"]] += 1
                writer.writerow(row)
    return counts


def _films_at(
    places: Sequence[str],
    out: str,
    recipe: Recipe,
    reader: ObjectReader,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[_Found]:
    known = 0
    objects = _objects_at(places, out, reader)
    while page := list(islice(objects, PAGE_OBJECTS)):
        known += len(page)
        yield from (found for found in page if isinstance(found, tuple))
        targets = [found for found in page if isinstance(found, ObjectVersion)]
        function = partial(_films_of_targets, recipe, reader)
        for films in map_chunks(function, targets, workers=workers, chunk_size=FILES_PER_CHUNK, on_crash=_crashed):
            yield from films
            if progress:
                progress(len({name for name, _ in films}), known)


def _objects_at(places: Sequence[str], out: str, reader: ObjectReader) -> Iterator[ObjectVersion | _Found]:
    """Every file, with the members of archives in their place; an archive that cannot be opened is no film."""
    for number, place in enumerate(places, start=1):
        source = open_source(one_time_source(place, f"path_{number}"), reader.access)
        for page in source.pages(None, datetime.now(UTC)):
            for target in page.objects:
                if target.uri == out:
                    continue
                if not target.is_archive:
                    yield target
                    continue
                try:
                    yield from reader.list_members(target)
                except PoisonInput as refusal:
                    yield _name(target), NoFilm(str(refusal.reason), refusal.message)


def _films_of_targets(recipe: Recipe, reader: ObjectReader, targets: Sequence[ObjectVersion]) -> list[_Found]:
    return [(_name(target), film) for target in targets for film in _films_of_target(target, recipe, reader)]


def _films_of_target(target: ObjectVersion, recipe: Recipe, reader: ObjectReader) -> list[Film | NoFilm]:
    try:
        return films_of(reader.read_all(target), recipe)
    except PoisonInput as refusal:
        return [NoFilm(str(refusal.reason), refusal.message)]


def _crashed(target: ObjectVersion) -> list[_Found]:
    return [(_name(target), NoFilm(Reason.WORKER_CRASHED, "decoding it killed the process"))]


def _name(target: ObjectVersion) -> str:
    """A file by its path, a member of an archive by the archive's path and its own."""
    if target.uri.startswith("file://"):
        return str(uri_to_path(target.uri))
    if target.uri.startswith("zip://"):
        archive, _, member = target.uri.rpartition("!")
        return f"{uri_to_path('file' + archive.removeprefix('zip'))}!{uri_to_path('file://' + member)}"
    return target.uri


def _rows(batch: Sequence[_Found], predictor: Predictor, model_version: str) -> Iterator[dict[str, Any]]:
    images = [film.image for _, film in batch if isinstance(film, Film)]
    said = predictor.predict(np.stack(images)) if images else None
    flags = said.flags(predictor.threshold) if said else []
    position = 0
    for name, film in batch:
        row: dict[str, Any] = {"path": name, "frame": film.frame, "model_version": model_version}
        if isinstance(film, NoFilm):
            yield row | {"flag": str(Flag.NO_ANSWER), "reason": str(film.reason)}
            continue
        assert said is not None
        flag = flags[position]
        reason = UNLIKE_TRAINING if flag is Flag.NO_ANSWER else ""
        score, uncertainty = (_text(each[position]) for each in (said.probabilities, said.uncertainties))
        yield row | {"score": score, "flag": str(flag), "reason": reason, "uncertainty": uncertainty}
        position += 1


def _text(figure: np.float64) -> str:
    return f"{figure:.8f}" if np.isfinite(figure) else ""


@contextmanager
def _table(out: Path) -> Iterator[csv.DictWriter[str]]:
    """A CSV file that takes its place when the block has ended well."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        # A name that is no UTF-8 is shown with escapes: it must not cost the table.
        with part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
            writer.writeheader()
            yield writer
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(out)
    except OSError as error:
        raise ConfigurationError(f"the table cannot be written ({error.strerror})") from None
    finally:
        part.unlink(missing_ok=True)
