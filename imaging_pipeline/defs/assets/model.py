"""Model assets: the pneumonia classifier, unpartitioned, and its predictions for each batch."""

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
from imaging_pipeline.pneumonia.scoring import score_batch
from imaging_pipeline.tensors.versions import freeze_dataset

MODEL_KEY = reporting.asset_key("gold", "pneumonia_model")


@dg.asset(
    key=MODEL_KEY,
    group_name="model",
    kinds={"pytorch", "mlflow"},
    owners=list(reporting.OWNERS),
    code_version=f"model-{LEARNING_VERSION}",
    deps=[reporting.asset_key("gold", "dataset_version"), reporting.asset_key("gold", "dataset_member")],
    automation_condition=when_dataset_changed,
    pool="training",
)
def pneumonia_model(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult[None]:
    """A torchvision network trained on the newest dataset version, evaluated by patient, registered in MLflow."""
    with workspace.research() as lake:
        dataset = freeze_dataset(lake, workspace.recipe(), task=TASK, fractions=SPLIT_FRACTIONS)
    tags = {"dagster/run_id": context.run_id, "dagster/asset_key": MODEL_KEY.to_user_string()}
    config, epoch_done = workspace.training(), workspace.progress_of("train")
    learned = learn(
        dataset,
        workspace.tracker(),
        config,
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
    return dg.MaterializeResult(metadata=shown, data_version=dg.DataVersion(learned.model.version))


@dg.multi_asset(
    name="model_prediction",
    specs=[
        reporting.table_spec(
            "gold",
            "model_prediction",
            code_version="prediction-1",
            deps=[reporting.asset_key("gold", "image_tensor"), MODEL_KEY],
            automation_condition=when_batch_is_ready,
            kinds=("pytorch", "duckdb"),
        )
    ],
    partitions_def=arrival_batches,
)
def model_prediction(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> Iterator[dg.MaterializeResult[None]]:
    """Score the batch's tensors with the champion."""
    batch_id = context.partition_key
    with workspace.research() as lake:
        counts = score_batch(
            lake, batch_id, workspace.recipe().digest, workspace.tracker(), progress=workspace.progress_of("predict")
        )
        shown: reporting.Shown = {
            "images": counts.images,
            "flagged": counts.flagged,
            "model": counts.model,
            "threshold": counts.threshold,
        }
        yield reporting.table_result(lake, "gold", "model_prediction", batch_id=batch_id, metadata=shown)
