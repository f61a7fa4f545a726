"""A batch of de-identified images → tensor shards and their index rows, by several recipes at once.

Opens the research lake only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, groupby
from typing import TypeAlias

from imaging_pipeline.catalog.inspection import issue_row
from imaging_pipeline.errors import Issue, PoisonInput, Reason, Stage, TransientError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.objects.folder import uri_to_path
from imaging_pipeline.tensors.build import Made, TensorFailure, build_tensors, measured, tensor_key
from imaging_pipeline.tensors.recipe import FrameChoice, Recipe
from imaging_pipeline.tensors.shards import TensorRow, shard_schema
from imaging_pipeline.tensors.storage import ShardStore, ShardWriter
from imaging_pipeline.tensors.targets import ImageTarget, VolumeTarget, image_targets, volume_targets
from imaging_pipeline.tensors.volumes import stack_of, volume_tensor
from imaging_pipeline.tensors.withdrawal import ATTEMPTS, BY_TENSOR, copy_tensors, stale_tensors
from imaging_pipeline.workers import map_chunks

OBJECTS_PER_CHUNK = 16
"""Images of one frame that a worker process takes at once; what may make many or large tensors goes alone."""

_Target: TypeAlias = ImageTarget | VolumeTarget
_Result: TypeAlias = "list[tuple[int, Made]]"
"""What a target became: positions of recipes, and what each made of it."""


@dataclass(slots=True)
class RecipeCounts:
    """What became of the images, or series, of a batch that a recipe selects.

    Attributes:
        recipe: the recipe.
        selected: images or series.
        failed: of them, those without a tensor.
        shard_bytes: of its shards.
        index: rows of ``gold.image_tensor``.
        issues: rows of ``gold.ingest_issue``.
    """

    recipe: Recipe
    selected: int = 0
    failed: int = 0
    shard_bytes: int = 0
    index: list[dict[str, object]] = field(default_factory=list, repr=False)
    issues: list[dict[str, object]] = field(default_factory=list, repr=False)

    @property
    def built(self) -> int:
        """Tensors."""
        return len(self.index)


@dataclass(frozen=True, slots=True)
class TensorCounts:
    """The counts of all recipes, in their order, and their sums."""

    by_recipe: tuple[RecipeCounts, ...]

    @property
    def selected(self) -> int:
        """Images and series that recipes select; once for each recipe."""
        return sum(counts.selected for counts in self.by_recipe)

    @property
    def built(self) -> int:
        """Tensors."""
        return sum(counts.built for counts in self.by_recipe)

    @property
    def failed(self) -> int:
        """Images and series without a tensor of a recipe that selects them."""
        return sum(counts.failed for counts in self.by_recipe)

    @property
    def shard_bytes(self) -> int:
        """Bytes of all shards."""
        return sum(counts.shard_bytes for counts in self.by_recipe)


def recipe_folder(recipe: Recipe) -> str:
    """Folder of a recipe's shards; another recipe never touches them."""
    return f"{recipe.name}-{recipe.digest[:12]}"


def load_tensors(
    lake: Lake,
    batch_id: str,
    recipes: Sequence[Recipe],
    store: ShardStore,
    *,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> TensorCounts:
    """Make the tensors of a batch; run again, it leaves the same shards and rows.

    Each image is decoded once for all recipes. What another run takes back, or releases anew, while its tensor is made
    is left out.

    Raises:
        ConfigurationError: a recipe's condition does not fit the tables, or the place of shards cannot be used.
        TransientError: the lake is locked, a store does not answer, or what is released keeps changing.
    """
    counts = TensorCounts(tuple(RecipeCounts(recipe) for recipe in recipes))
    _make(lake, batch_id, counts, store, workers, progress)
    for _ in range(ATTEMPTS):
        stale = _write(lake, batch_id, counts)
        if not stale:
            break
        for one in counts.by_recipe:
            _leave_out(one, stale, store)
    else:
        raise TransientError("what is released keeps changing: run the batch again")
    for one in counts.by_recipe:
        one.shard_bytes = _tidy(one, batch_id, store)
    return counts


def _make(
    lake: Lake,
    batch_id: str,
    counts: TensorCounts,
    store: ShardStore,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write the shards, and note the index rows and issues."""
    recipes = [one.recipe for one in counts.by_recipe]
    images, volumes = image_targets(lake, batch_id, recipes), volume_targets(lake, batch_id, recipes)
    total = len(images) + len(volumes)
    with ExitStack() as stack:
        writers = [stack.enter_context(_writer(store, batch_id, recipe)) for recipe in recipes]
        for results in chain(_mapped(recipes, images, workers), _mapped(recipes, volumes, workers)):
            for position, made in chain.from_iterable(results):
                _collect(counts.by_recipe[position], writers[position], made, batch_id)
            if progress:
                progress(len(results), total)
    for one, writer in zip(counts.by_recipe, writers, strict=True):
        one.index = [row | place for row, place in zip(one.index, writer.places(), strict=True)]


def _writer(store: ShardStore, batch_id: str, recipe: Recipe) -> ShardWriter:
    return store.write(recipe_folder(recipe), batch_id, shard_schema(recipe, store.compression))


def _mapped(recipes: Sequence[Recipe], targets: Sequence[_Target], workers: int) -> Iterator[list[_Result]]:
    is_small = all(recipe.volume is None and recipe.frames is not FrameChoice.ALL for recipe in recipes)
    return map_chunks(
        partial(_build, recipes),
        targets,
        workers=workers,
        chunk_size=OBJECTS_PER_CHUNK if is_small else 1,
        on_crash=_crashed,
    )


def _build(recipes: Sequence[Recipe], targets: Sequence[_Target]) -> list[_Result]:
    return [
        _build_volume(target, recipes[target.recipe])
        if isinstance(target, VolumeTarget)
        else _build_images(target, [recipes[position] for position in target.recipes])
        for target in targets
    ]


def _build_images(target: ImageTarget, recipes: Sequence[Recipe]) -> _Result:
    try:
        made = build_tensors(target.source, _released_bytes(target.storage_uri), recipes)
    except PoisonInput as refusal:
        made = [TensorFailure(target.source.instance_key, refusal.issue(Stage.FETCH)) for _ in recipes]
    return list(zip(target.recipes, made, strict=True))


def _build_volume(target: VolumeTarget, recipe: Recipe) -> _Result:
    assert recipe.volume is not None
    try:
        stack = stack_of(target.slices, recipe.volume)
        array = volume_tensor(stack, recipe, lambda key: _proved_bytes(*target.files[key]))
    except PoisonInput as refusal:
        stage = Stage.FETCH if refusal.reason is Reason.UNREADABLE else Stage.PIXEL
        return [(target.recipe, TensorFailure(target.series_key, refusal.issue(stage)))]
    row = TensorRow(
        tensor_key=tensor_key(target.series_key, recipe.digest),
        series_key=target.series_key,
        instance_key=None,
        sop_instance_uid=None,
        frame_number=None,
        patient_id=target.patient_id,
        source_content_sha256=target.content_sha256,
        source_instance_keys=tuple(sorted(target.files)),
        **measured(array),
    )
    return [(target.recipe, [row])]


def _released_bytes(uri: str) -> bytes:
    try:
        return uri_to_path(uri).read_bytes()
    except OSError:
        raise PoisonInput(Reason.UNREADABLE, "the de-identified file cannot be read") from None


def _proved_bytes(uri: str, sha256: str) -> bytes:
    """The bytes of a released file, when they are those its proof is about."""
    data = _released_bytes(uri)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise PoisonInput(Reason.UNREADABLE, "the de-identified file is not the one that was proved")
    return data


def _crashed(target: _Target) -> list[_Result]:
    issue = Issue(Reason.WORKER_CRASHED, Stage.PIXEL, message="decoding it killed the process")
    if isinstance(target, VolumeTarget):
        return [[(target.recipe, TensorFailure(target.series_key, issue))]]
    return [[(position, TensorFailure(target.source.instance_key, issue)) for position in target.recipes]]


def _collect(counts: RecipeCounts, writer: ShardWriter, made: Made, batch_id: str) -> None:
    """Write the tensors of a target and note their index rows, or its issue."""
    counts.selected += 1
    if isinstance(made, TensorFailure):
        counts.failed += 1
        issue = replace(made.issue, message=f"recipe {counts.recipe.name}: {made.issue.message}")
        counts.issues.append(issue_row(batch_id, made.subject_key, issue))
        return
    for row in made:
        writer.add(row)
        counts.index.append(_index_row(row, batch_id, counts.recipe))


def _index_row(tensor: TensorRow, batch_id: str, recipe: Recipe) -> dict[str, object]:
    return {
        "tensor_key": tensor.tensor_key,
        "instance_key": tensor.instance_key,
        "frame_number": tensor.frame_number,
        "series_key": tensor.series_key,
        "source_instance_keys": list(tensor.source_instance_keys),
        "sop_instance_uid": tensor.sop_instance_uid,
        "patient_pseudonym": tensor.patient_id,
        "recipe_id": recipe.digest,
        "recipe_json": recipe.to_json(),
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "tensor_sha256": tensor.tensor_sha256,
        "min_value": tensor.minimum,
        "max_value": tensor.maximum,
        "mean_value": tensor.mean,
        "std_value": tensor.standard_deviation,
        "source_content_sha256": tensor.source_content_sha256,
        "is_deidentified": True,
        "arrival_batch": batch_id,
    }


def _leave_out(counts: RecipeCounts, stale: Set[str], store: ShardStore) -> None:
    """Take tensors out of the counts, and out of the shards that were written."""
    kept = [row for row in counts.index if row["tensor_key"] not in stale]
    counts.selected -= len(_subjects(counts.index) - _subjects(kept))
    counts.index = [
        row
        for uri, rows in groupby(kept, key=lambda row: str(row["tensor_uri"]))
        for row in _copied(uri, list(rows), counts.index, store)
    ]


def _copied(
    uri: str, kept: list[dict[str, object]], before: Sequence[Mapping[str, object]], store: ShardStore
) -> list[dict[str, object]]:
    is_whole = len(kept) == sum(row["tensor_uri"] == uri for row in before)
    return kept if is_whole else copy_tensors(uri, kept, store)


def _subjects(index: Sequence[Mapping[str, object]]) -> set[object]:
    return {row["instance_key"] or row["series_key"] for row in index}


def _write(lake: Lake, batch_id: str, counts: TensorCounts) -> set[str]:
    """Write the rows, unless tensors are no longer made from what is released: the keys of those, then."""
    index = [row for one in counts.by_recipe for row in one.index]
    tensors = registry.table("image_tensor").rows(index)
    issues = registry.table("ingest_issue").rows([row for one in counts.by_recipe for row in one.issues])
    with lake.transaction():
        if stale := stale_tensors(lake, index):
            return stale
        lake.replace_all(
            "gold",
            "image_tensor",
            tensors,
            where="""recipe_id IN (SELECT unnest(?))
                AND (arrival_batch = ? OR tensor_key IN (SELECT tensor_key FROM staged_rows))""",
            parameters=[[one.recipe.digest for one in counts.by_recipe], batch_id],
        )
        for table in BY_TENSOR:
            lake.connection.execute(
                f"""DELETE FROM gold.{table}
                WHERE arrival_batch = ? AND tensor_key NOT IN (SELECT tensor_key FROM gold.image_tensor)""",
                [batch_id],
            )
        lake.replace_batch("gold", "ingest_issue", issues, batch_id, where="message LIKE 'recipe %'")
    return set()


def _tidy(counts: RecipeCounts, batch_id: str, store: ShardStore) -> int:
    """Remove shards of the batch that no row names any more; the bytes of those that stay."""
    named = {str(row["tensor_uri"]) for row in counts.index}
    there = store.shards(recipe_folder(counts.recipe), batch_id)
    store.remove(there.keys() - named)
    return sum(there[uri] for uri in named)
