"""The results of a batch's predictions: files beside the lake, rows among those of all objects, and which says what.

On the research side they are about released files and hold research identifiers; on the identified side about the
originals, in whose studies a PACS will find them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging_pipeline.catalog.inspection import issue_row
from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.deid.targets import plan_of
from imaging_pipeline.errors import Issue
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.made_objects import MadeObject, add_objects
from imaging_pipeline.metadata.versions import VersionPolicy
from imaging_pipeline.objects.folder import uri_to_path
from imaging_pipeline.pneumonia.prediction import Flag, Predictor
from imaging_pipeline.pneumonia.results.finding import Finding, Kind
from imaging_pipeline.pneumonia.results.making import ISSUE_PREFIX, Maker, Result, Target, crashed
from imaging_pipeline.sources import ElementMode
from imaging_pipeline.tensors.shards import ShardReader
from imaging_pipeline.tensors.storage import open_shard
from imaging_pipeline.workers import map_chunks

KIND = "results"
"""Of the groups of objects this step makes; see `add_objects`."""

TABLE = "result_object"

HEAT_MAPS_AT_ONCE = 256
"""So many are in memory; the images of one call to the pool of processes."""

IMAGES_PER_CHUNK = 8

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where results and their rows go.

    Attributes:
        objects: schema of the rows among those of all objects: ``deid`` or ``silver``.
        results: schema of ``result_object``.
        issues: schema of ``ingest_issue``.
    """

    objects: str
    results: str
    issues: str


RESEARCH = Place("deid", "gold", "gold")
CLINICAL = Place("silver", "silver", "bronze")


@dataclass(slots=True)
class ResultCounts:
    """What became of the predictions of a batch.

    Attributes:
        predictions: of the model, about images that are current.
        reports: structured reports there are now.
        captures: pictures there are now.
        kept: of both, those that an earlier run has made.
        failed: predictions without results; each has an issue.
    """

    predictions: int
    reports: int = 0
    captures: int = 0
    kept: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Options:
    """How the results of a batch are made.

    Attributes:
        predictor: the model, whose predictions are meant and who makes the heat maps.
        maker: makes the files.
        open_shard: opens a shard by its URI.
        workers: processes.
        element_mode: which elements of their headers become rows of ``dicom_element``.
        policy: what is current where a source has sent other bytes under the same UID.
        progress: is told how many predictions were worked on, and of how many.
    """

    predictor: Predictor
    maker: Maker
    open_shard: Callable[[str], ShardReader] = open_shard
    workers: int = 1
    element_mode: ElementMode = ElementMode.ALL
    policy: VersionPolicy = VersionPolicy.KEEP_LAST
    progress: Progress | None = None


def load_research_results(lake: Lake, batch_id: str, options: Options) -> ResultCounts:
    """Make the results of a batch from its released files; run again, it leaves the same files and rows.

    What the predictions of another model version had made is taken back: a study shows what one model says.

    Args:
        lake: the research lake.
        batch_id: the batch.
        options: how they are made.

    Raises:
        TransientError: the lake is locked, or what a result was made from has changed meanwhile.
    """
    return _load(lake, RESEARCH, batch_id, _predictions(lake, batch_id, options), options)


def load_clinical_results(
    identified: Lake, research: Lake, keys: ProjectKeys, batch_id: str, options: Options
) -> ResultCounts:
    """Make the results of a batch for its originals, under their own identifiers, to be sent back to where they are.

    Only of originals whose current content is what was released and predicted.

    Args:
        identified: the identified lake; results go there.
        research: the research lake; read only.
        keys: of the project: they lead from originals to predictions.
        batch_id: the batch.
        options: how they are made.

    Raises:
        TransientError: as `load_research_results`.
    """
    predicted = {target.instance_key: target for target in _predictions(research, batch_id, options)}
    plan = plan_of(identified, research, keys, batch_id)
    current = {key: plan.current[key] for key in predicted if key in plan.current and plan.is_released(key)}
    instance_keys = {
        str(object_key): str(instance_key)
        for object_key, instance_key in identified.rows(
            "SELECT object_key, instance_key FROM silver.dicom_instance WHERE object_key IN (SELECT unnest(?))",
            [[original.version.key for original in current.values()]],
        )
    }
    targets = [
        Target(
            prediction_key=predicted[key].prediction_key,
            instance_key=instance_keys[original.version.key],
            object_key=original.version.key,
            arrival_batch=batch_id,
            content_sha256=original.sha256,
            finding=predicted[key].finding,
            tensor_uri=predicted[key].tensor_uri,
            shard_row=predicted[key].shard_row,
            version=original.version,
        )
        for key, original in current.items()
        if original.version.key in instance_keys
    ]
    return _load(identified, CLINICAL, batch_id, targets, options)


def withdraw_results(lake: Lake, place: Place) -> None:
    """Take out the rows of results whose objects are gone, with what they were made from; run again, nothing is left.

    Raises:
        TransientError: the lake is locked.
    """
    rows = f"{place.results}.{TABLE} WHERE instance_key NOT IN (SELECT instance_key FROM {place.objects}.made_object)"
    if lake.rows(f"SELECT 1 FROM {rows} LIMIT 1"):
        with lake.transaction():
            lake.connection.execute(f"DELETE FROM {rows}")


def _predictions(lake: Lake, batch_id: str, options: Options) -> list[Target]:
    """The model's predictions about released files that are as they were when they were predicted from."""
    model = options.predictor.model
    assert model is not None, "predictions are of registered models"
    rows = lake.rows(
        """SELECT prediction_key, prediction.instance_key, proof.content_sha256, location.storage_uri, tensor_uri,
            shard_row, coalesce(flag, CASE WHEN probability >= threshold THEN 'POSITIVE' ELSE 'NEGATIVE' END),
            threshold, probability, uncertainty,
            coalesce(no_answer_reason, ''), coalesce(weights_sha256, ''), coalesce(frame_number, 1)
        FROM gold.model_prediction AS prediction
        JOIN gold.image_tensor AS tensor USING (tensor_key)
        JOIN deid.deid_verification AS proof ON proof.instance_key = prediction.instance_key
            AND proof.content_sha256 = tensor.source_content_sha256
        JOIN deid.dicom_file_location AS location ON location.instance_key = prediction.instance_key
        LEFT JOIN gold.embedding_model USING (model_name, model_version)
        WHERE prediction.arrival_batch = ? AND model_name = ? AND model_version = ? AND recipe_id = ?
        ORDER BY prediction_key""",
        [batch_id, model.name, model.version, options.maker.recipe.digest],
    )
    return [_target(batch_id, model.name, model.version, row) for row in rows]


def _target(batch_id: str, name: str, version: str, row: tuple[Any, ...]) -> Target:
    prediction, instance, sha256, uri, shard, shard_row, flag, threshold, score, spread, reason, weights, frame = row
    finding = Finding(name, version, Flag(flag), threshold, score, spread, reason, weights, frame)
    return Target(
        prediction_key=prediction,
        instance_key=instance,
        object_key=instance,
        arrival_batch=batch_id,
        content_sha256=sha256,
        finding=finding,
        tensor_uri=shard,
        shard_row=shard_row,
        storage_uri=uri,
    )


def _load(lake: Lake, place: Place, batch_id: str, targets: Sequence[Target], options: Options) -> ResultCounts:
    kept = _kept(lake, place, batch_id, targets, options.maker)
    due = [target for target in targets if target.prediction_key not in kept and options.maker.kinds_of(target.finding)]
    rows = [row for rows in kept.values() for row in rows]
    made = [MadeObject(uri_to_path(row["storage_uri"]), (row["source_instance_key"],)) for row in rows]
    counts = ResultCounts(len(targets), kept=len(rows))
    issues: list[tuple[Target, Issue]] = []
    for result in _made(due, options):
        rows += result.rows
        made += result.made
        issues += [(result.target, result.issue)] if result.issue else []
    added = add_objects(
        lake,
        place.objects,
        batch_id,
        KIND,
        made,
        folder=options.maker.folder_of(batch_id),
        element_mode=options.element_mode,
        policy=options.policy,
    )
    by_instance = {target.instance_key: target for target in targets}
    for each in (each for each in made if each.path in added.refused):
        refused = added.refused[each.path]
        issues.append((by_instance[each.sources[0]], replace(refused, message=ISSUE_PREFIX + refused.message)))
    known = set(added.instance_keys)
    rows = [row for row in rows if row["instance_key"] in known]
    _write(lake, place, batch_id, rows, issues)
    of_kind = [row["kind"] for row in rows]
    counts.reports, counts.captures = (of_kind.count(kind) for kind in (Kind.REPORT, Kind.CAPTURE))
    counts.failed = len({target.prediction_key for target, _ in issues})
    return counts


def _kept(
    lake: Lake, place: Place, batch_id: str, targets: Sequence[Target], maker: Maker
) -> Mapping[str, list[dict[str, Any]]]:
    """Rows of results that would be made the same again, by the prediction they state."""
    wanted = {
        (target.prediction_key, kind.value, maker.made_from(target))
        for target in targets
        for kind in maker.kinds_of(target.finding)
    }
    found = lake.query(
        f"SELECT * EXCLUDE ({registry.LOADED_AT}) FROM {place.results}.{TABLE} WHERE arrival_batch = ? ORDER BY 1",
        [batch_id],
    )
    kept: dict[str, list[dict[str, Any]]] = {}
    for row in found.to_pylist():
        is_wanted = (row["prediction_key"], row["kind"], row["made_from"]) in wanted
        if is_wanted and uri_to_path(row["storage_uri"]).is_file():
            kept.setdefault(row["prediction_key"], []).append(row)
    whole = {target.prediction_key: len(maker.kinds_of(target.finding)) for target in targets}
    return {key: rows for key, rows in kept.items() if len(rows) == whole[key]}


def _made(due: Sequence[Target], options: Options) -> Iterator[Result]:
    """The results of predictions, in their order; heat maps are made here, the rest in processes."""
    for start in range(0, len(due), HEAT_MAPS_AT_ONCE):
        part = due[start : start + HEAT_MAPS_AT_ONCE]
        heat = np.rint(options.predictor.heat_maps(_tensors(part, options.open_shard)) * 255).astype(np.uint8)
        jobs = list(zip(part, heat, strict=True))
        for results in map_chunks(
            partial(Maker.make, options.maker),
            jobs,
            workers=options.workers,
            chunk_size=IMAGES_PER_CHUNK,
            on_crash=crashed,
        ):
            yield from results
            if options.progress:
                options.progress(len(results), len(due))


def _tensors(targets: Sequence[Target], opened: Callable[[str], ShardReader]) -> NDArray[Any]:
    """The tensors some predictions were made from (n, channels, height, width)."""
    shards = {uri: opened(uri) for uri in {target.tensor_uri for target in targets}}
    return np.stack([shards[target.tensor_uri].tensor(target.shard_row) for target in targets])


def _write(
    lake: Lake, place: Place, batch_id: str, rows: list[dict[str, Any]], issues: list[tuple[Target, Issue]]
) -> None:
    result_rows = registry.table(TABLE).rows(rows)
    issue_rows = [issue_row(target.arrival_batch, target.object_key, issue) for target, issue in issues]
    with lake.transaction():
        lake.replace_batch(place.results, TABLE, result_rows, batch_id)
        where = f"starts_with(message, '{ISSUE_PREFIX}')"
        staged = registry.table("ingest_issue").rows(issue_rows)
        lake.replace_batch(place.issues, "ingest_issue", staged, batch_id, where=where)
