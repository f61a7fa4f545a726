"""Model assets: the pneumonia classifier with its record, unpartitioned, and what it says of each batch."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import dagster as dg
import numpy as np
from numpy.typing import NDArray

from imaging_pipeline.defs import reporting
from imaging_pipeline.defs.automation import when_batch_is_ready, when_dataset_changed
from imaging_pipeline.defs.links import study_links
from imaging_pipeline.defs.partitions import arrival_batches
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.pneumonia.facts import facts_of
from imaging_pipeline.pneumonia.learning import CODE_VERSION as LEARNING_VERSION
from imaging_pipeline.pneumonia.learning import Learned, Material, learn
from imaging_pipeline.pneumonia.model_tables import record_models
from imaging_pipeline.pneumonia.scoring import TABLES as BATCH_TABLES
from imaging_pipeline.pneumonia.scoring import score_batch
from imaging_pipeline.tensors.frozen import load_version
from imaging_pipeline.tensors.splits import Split

MODEL_KEY = reporting.asset_key("gold", "pneumonia_model")

TRAINING_POOL = "training"
"""One training at a time: it takes all there is of the machine."""

PROMOTION_CHECK = "challenger_may_become_champion"

RECORD_TABLES = ("embedding_model", "embedding_evaluation")

_DATASET = [reporting.asset_key("gold", "dataset_version"), reporting.asset_key("gold", "dataset_member")]
"""What every part of the training step depends on: they are requested together or not at all."""


@dg.multi_asset(
    name="pneumonia_model",
    specs=[
        dg.AssetSpec(
            key=MODEL_KEY,
            deps=_DATASET,
            description=(
                "A torchvision network trained on the newest dataset version, evaluated by patient, registered in "
                "MLflow."
            ),
            group_name="model",
            kinds={"pytorch", "mlflow"},
            owners=list(reporting.OWNERS),
            code_version=f"model-{LEARNING_VERSION}",
            automation_condition=when_dataset_changed,
        ),
        *(
            reporting.table_spec(
                "gold",
                table,
                code_version=f"model-{LEARNING_VERSION}",
                deps=_DATASET,
                automation_condition=when_dataset_changed,  # type: ignore[arg-type]  # typed for checks, too
                kinds=("mlflow", "duckdb"),
                is_partitioned=False,
            )
            for table in RECORD_TABLES
        ),
    ],
    check_specs=[
        dg.AssetCheckSpec(
            PROMOTION_CHECK,
            asset=MODEL_KEY,
            description=(
                "It is better than the champion on the same test images, no subgroup gets worse, and no shortcut alarm "
                "is raised that was not waived. Else the champion stays."
            ),
        )
    ],
    pool=TRAINING_POOL,
)
def pneumonia_model(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Train on the newest dataset version, evaluate, register, and write down what the registry then holds."""
    tracker, config, epoch_done = workspace.tracker(), workspace.training(), workspace.progress_of("train")
    material = _material(workspace, config.external)
    learned = learn(
        material,
        tracker,
        config,
        tags={"dagster/run_id": context.run_id, "dagster/asset_key": MODEL_KEY.to_user_string()},
        checkpoints=workspace.settings.home / "research" / "checkpoints",
        progress=(lambda _: epoch_done(1, config.epochs)) if epoch_done else None,
    )
    shown: reporting.Shown = {name: reporting.picture(name, png) for name, png in learned.figures.items()}
    shown |= {name: value for name, value in learned.metrics.items() if name.startswith(("test_", "alarm_"))}
    shown |= {
        "report": dg.MetadataValue.md(learned.report),
        "mlflow_run_id": learned.model.run_id,
        "mlflow_model": learned.model.uri,
        "dataset_version": material.dataset.version,
        "dataset_digest": material.dataset.manifest_sha256,
        "lake_snapshot": material.dataset.snapshot_id,
        "is_new": learned.is_new,
        "is_champion": learned.is_champion,
    }
    with workspace.research() as lake:
        record_models(lake, tracker)
        yield dg.MaterializeResult(MODEL_KEY, metadata=shown, data_version=dg.DataVersion(learned.model.version))
        yield _promotion(learned)
        yield from reporting.table_results(lake, "gold", RECORD_TABLES)


def _material(workspace: Workspace, external: Iterable[str]) -> Material:
    """The newest dataset version, external ones, and what is known of their images."""
    recipe, shards, definition = workspace.recipe(), workspace.shards(), workspace.datasets()[0]
    with workspace.research() as lake:
        dataset = workspace.freeze(lake, definition)
        others = [load_version(lake, name) for name in external]
        keys = {member.instance_key for version in (dataset, *others) for member in version.members}
        facts = facts_of(lake, sorted(keys), definition.task)
    material = Material(dataset, recipe, facts, others, open_shard=shards.open)
    return replace(material, lung_masks=_lung_masks(workspace, material))


def _lung_masks(workspace: Workspace, material: Material) -> dict[str, NDArray[np.bool_]]:
    """Lungs of the test images, as the recipe shows them: what the heat maps are held against."""
    from imaging_pipeline.segmentation.lungs import plausible_masks  # noqa: PLC0415 - these load torch
    from imaging_pipeline.segmentation.models import load_lung_model  # noqa: PLC0415

    members = material.dataset.side(Split.TEST)
    images = material.images(members)
    films = ((member.instance_key, images[number][0][0].numpy()) for number, member in enumerate(members))
    return plausible_masks(load_lung_model(workspace.settings.lung_model).segmenter, films)


def _promotion(learned: Learned) -> dg.AssetCheckResult:
    """What the promotion gate said; a refusal is a warning, as the champion stays and predicts."""
    alarms = [
        (each.name, "" if each.figure is None else f"{each.figure:.3f}", f"{each.limit:g}", each.verdict, each.note)
        for each in learned.alarms
    ]
    return dg.AssetCheckResult(
        passed=learned.decision.is_promoted,
        asset_key=MODEL_KEY,
        check_name=PROMOTION_CHECK,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "reasons": dg.MetadataValue.md("\n".join(f"- {reason}" for reason in learned.decision.reasons)),
            "alarms": reporting.markdown_table(("alarm", "figure", "limit", "verdict", "note"), alarms),
        },
    )


@dg.multi_asset(
    name="model_prediction",
    specs=[
        reporting.table_spec(
            "gold",
            table,
            code_version="prediction-3",
            deps=[reporting.asset_key("gold", "image_tensor"), MODEL_KEY],
            automation_condition=when_batch_is_ready,
            kinds=("pytorch", "duckdb"),
        )
        for table in BATCH_TABLES
    ],
    partitions_def=arrival_batches,
)
def model_prediction(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> Iterator[dg.MaterializeResult[None]]:
    """Score and embed the batch's tensors with the champion."""
    batch_id = context.partition_key
    with workspace.research() as lake:
        counts = score_batch(
            lake,
            batch_id,
            workspace.recipe().digest,
            workspace.tracker(),
            open_shard=workspace.shards().open,
            progress=workspace.progress_of("predict"),
        )
        shown: reporting.Shown = {"images": counts.images, "model": counts.model}
        links = study_links(lake, batch_id, workspace.settings.serve_url)
        metadata = {
            "model_prediction": shown
            | {"flagged": counts.flagged, "unanswered": counts.unanswered, "threshold": counts.threshold}
            | links,
            "image_embedding": shown | {"dimensionality": counts.width},
        }
        yield from reporting.table_results(lake, "gold", BATCH_TABLES, batch_id=batch_id, metadata=metadata)
