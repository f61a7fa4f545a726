"""Model assets: the pneumonia classifier with its record, unpartitioned, and what it says of each batch."""

from collections.abc import Iterator

import dagster as dg

from imaging_pipeline.defs import reporting
from imaging_pipeline.defs.assets.tensors import SPLIT_FRACTIONS
from imaging_pipeline.defs.automation import when_batch_is_ready, when_dataset_changed
from imaging_pipeline.defs.partitions import arrival_batches
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.pneumonia.label_import import TASK
from imaging_pipeline.pneumonia.learning import CODE_VERSION as LEARNING_VERSION
from imaging_pipeline.pneumonia.learning import learn
from imaging_pipeline.pneumonia.model_tables import record_models, subgroups_of
from imaging_pipeline.pneumonia.scoring import TABLES as BATCH_TABLES
from imaging_pipeline.pneumonia.scoring import score_batch
from imaging_pipeline.tensors.versions import freeze_dataset

MODEL_KEY = reporting.asset_key("gold", "pneumonia_model")

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
    pool="training",
)
def pneumonia_model(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> Iterator[dg.MaterializeResult[None]]:
    """Train on the newest dataset version, evaluate, register, and write down what the registry then holds."""
    tracker, recipe = workspace.tracker(), workspace.recipe()
    with workspace.research() as lake:
        dataset = freeze_dataset(lake, recipe, task=TASK, fractions=SPLIT_FRACTIONS)
        subgroups = subgroups_of(lake, [member.instance_key for member in dataset.members])
    tags = {"dagster/run_id": context.run_id, "dagster/asset_key": MODEL_KEY.to_user_string()}
    config, epoch_done = workspace.training(), workspace.progress_of("train")
    learned = learn(
        dataset,
        tracker,
        config,
        recipe=recipe,
        subgroups=subgroups,
        tags=tags,
        progress=(lambda _: epoch_done(1, config.epochs)) if epoch_done else None,
    )
    shown: reporting.Shown = {name: reporting.picture(name, png) for name, png in learned.figures.items()}
    shown |= {name: value for name, value in learned.metrics.items() if name.startswith("test_")}
    shown |= {
        "mlflow_run_id": learned.model.run_id,
        "mlflow_model": learned.model.uri,
        "dataset_version": dataset.version,
        "is_new": learned.is_new,
        "is_champion": learned.is_champion,
    }
    with workspace.research() as lake:
        record_models(lake, tracker)
        yield dg.MaterializeResult(MODEL_KEY, metadata=shown, data_version=dg.DataVersion(learned.model.version))
        yield from reporting.table_results(lake, "gold", RECORD_TABLES)


@dg.multi_asset(
    name="model_prediction",
    specs=[
        reporting.table_spec(
            "gold",
            table,
            code_version="prediction-2",
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
            lake, batch_id, workspace.recipe().digest, workspace.tracker(), progress=workspace.progress_of("predict")
        )
        shown: reporting.Shown = {"images": counts.images, "model": counts.model}
        metadata = {
            "model_prediction": shown | {"flagged": counts.flagged, "threshold": counts.threshold},
            "image_embedding": shown | {"dimensionality": counts.width},
        }
        yield from reporting.table_results(lake, "gold", BATCH_TABLES, batch_id=batch_id, metadata=metadata)
