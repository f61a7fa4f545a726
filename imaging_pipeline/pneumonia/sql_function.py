"""``predict_pneumonia(...)`` as a function of DuckDB's SQL, over the tensors of the research lake or over files.

The argument is the research key of an instance: it is the key by which ``deid`` and ``gold`` are joined, it leads to
the tensor that is made already, and it names nothing outside the research lake. A path would let whoever may ask a
question read any file of the machine, so the function of paths is one of its own, for one's own connection; the
command line's ``sql`` does not have it. The model is loaded with the first row that is asked for, once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from duckdb.func import ARROW, SPECIAL

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.tensors.storage import open_shard

if TYPE_CHECKING:
    import duckdb

    from imaging_pipeline.pneumonia.prediction import Predictor
    from imaging_pipeline.tensors.recipe import Recipe
    from imaging_pipeline.tensors.shards import ShardReader

OF_INSTANCE, OF_FILE = "predict_pneumonia", "predict_pneumonia_file"

_FIRST_TENSORS = """
SELECT instance_key, tensor_uri, shard_row FROM gold.image_tensor
WHERE recipe_id = ? AND instance_key IN (SELECT unnest(?))
QUALIFY row_number() OVER (PARTITION BY instance_key ORDER BY frame_number, tensor_key) = 1
ORDER BY tensor_uri, shard_row
"""


def register_functions(
    connection: duckdb.DuckDBPyConnection,
    load: Callable[[], Predictor],
    *,
    lake: str = "research",
    open_shard: Callable[[str], ShardReader] = open_shard,
    with_files: bool = False,
) -> None:
    """Add the functions to a connection; nothing is loaded yet.

    ``predict_pneumonia(instance_key VARCHAR) -> DOUBLE`` is the probability for an instance's first tensor, NULL where
    there is none, or where the model gives no answer. ``predict_pneumonia_file(path VARCHAR) -> DOUBLE`` is the same
    for a DICOM, PNG or JPEG file, NULL also where it cannot be read.

    Args:
        connection: with the research lake attached, for ``predict_pneumonia``.
        load: the model; an error it raises is an error of the query.
        lake: under which name the research lake is attached.
        open_shard: opens a shard by its URI.
        with_files: add ``predict_pneumonia_file``, which reads any file this process may read.
    """
    model = _Model(load)
    scorer = _OfInstances(model, connection, lake, open_shard)
    functions: dict[str, Callable[[list[str | None]], list[float | None]]] = {OF_INSTANCE: scorer.scores}
    if with_files:
        functions[OF_FILE] = _OfFiles(model).scores
    for name, function in functions.items():
        connection.create_function(name, _of_column(function), ["VARCHAR"], "DOUBLE", type=ARROW, null_handling=SPECIAL)


def _of_column(function: Callable[[list[str | None]], list[float | None]]) -> Callable[[Any], Any]:
    def column(arguments: Any) -> Any:
        return pa.array(function(arguments.to_pylist()), pa.float64())

    return column


@dataclass
class _Model:
    """The model, loaded when first asked for. Queries run in several threads; the model in one at a time."""

    load: Callable[[], Predictor]
    lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def predictor(self) -> Predictor:
        return self.load()

    @property
    def recipe(self) -> Recipe:
        """How its images are made."""
        if self.predictor.recipe is None:
            raise ConfigurationError("the model was stored without the recipe of its images: train it anew")
        return self.predictor.recipe

    def scores(self, images: Sequence[np.ndarray[Any, Any]]) -> list[float | None]:
        said = self.predictor.predict(np.stack(images), with_uncertainty=False)
        return [float(each) if np.isfinite(each) else None for each in said.probabilities]


@dataclass
class _OfInstances:
    model: _Model
    connection: duckdb.DuckDBPyConnection
    lake: str
    open_shard: Callable[[str], ShardReader]

    def scores(self, keys: list[str | None]) -> list[float | None]:
        wanted = sorted({key for key in keys if key})
        if not wanted:
            return [None] * len(keys)
        with self.model.lock:
            known = self._scores_of(wanted)
        return [known.get(key) if key else None for key in keys]

    def _scores_of(self, keys: list[str]) -> dict[str, float | None]:
        with self.connection.cursor() as cursor:  # the connection itself is busy with the query
            cursor.execute(f"USE {self.lake}")
            rows = cursor.execute(_FIRST_TENSORS, [self.model.recipe.digest, keys]).fetchall()
        found: dict[str, float | None] = {}
        for uri, group in groupby(rows, key=lambda row: row[1]):
            shard, members = self.open_shard(uri), list(group)
            scores = self.model.scores([shard.tensor(row) for *_, row in members])
            found |= {key: score for (key, *_), score in zip(members, scores, strict=True)}
        return found


@dataclass
class _OfFiles:
    model: _Model

    def scores(self, paths: list[str | None]) -> list[float | None]:
        from imaging_pipeline.pneumonia.film import Film, films_of_file  # noqa: PLC0415

        with self.model.lock:
            recipe = self.model.recipe
            films = [films_of_file(Path(path), recipe)[0] if path else None for path in paths]
            images = [film.image for film in films if isinstance(film, Film)]
            scores = iter(self.model.scores(images) if images else [])
            return [next(scores) if isinstance(film, Film) else None for film in films]
