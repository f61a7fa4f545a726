"""The jobs: a batch from objects to tensors, the model, and predictions."""

from __future__ import annotations

import dagster as dg

from imaging_pipeline.defs.reporting import asset_key

STUDY_ASSETS = dg.AssetSelection.assets(asset_key("silver", "study_state"), asset_key("deid", "study_state"))

BATCH_ASSETS = (
    dg.AssetSelection.groups("bronze", "silver", "deid")
    | dg.AssetSelection.assets(asset_key("gold", "image_tensor"), asset_key("gold", "thumbnail"))
) - STUDY_ASSETS

MODEL_ASSETS = dg.AssetSelection.assets(
    asset_key("gold", "label"),
    asset_key("gold", "annotation"),
    asset_key("gold", "dataset_version"),
    asset_key("gold", "dataset_member"),
    asset_key("gold", "pneumonia_model"),
    asset_key("gold", "embedding_model"),
    asset_key("gold", "embedding_evaluation"),
)

ingest_batch = dg.define_asset_job(
    "ingest_batch",
    selection=BATCH_ASSETS,
    executor_def=dg.in_process_executor,
    description="One batch: bronze, silver, de-identified files and tables, thumbnails, tensors; checks in between.",
)

settle_studies = dg.define_asset_job(
    "settle_studies",
    selection=STUDY_ASSETS,
    executor_def=dg.in_process_executor,
    description="Which studies are complete, and which a late image has opened again.",
)

train_model = dg.define_asset_job(
    "train_model",
    selection=MODEL_ASSETS,
    executor_def=dg.in_process_executor,
    description="Labels, annotations, dataset version, and a pneumonia model trained on it.",
)

predict_batch = dg.define_asset_job(
    "predict_batch",
    selection=dg.AssetSelection.assets(asset_key("gold", "model_prediction"), asset_key("gold", "image_embedding")),
    executor_def=dg.in_process_executor,
    description="Predictions and embeddings of the champion for one batch.",
)
