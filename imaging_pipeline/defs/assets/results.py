"""What predictions become: DICOM objects in the studies of their images, in both zones, and how a batch has drifted."""

from collections.abc import Iterator

import dagster as dg

from imaging_pipeline.defs import reporting
from imaging_pipeline.defs.automation import when_batch_is_ready
from imaging_pipeline.defs.links import study_links
from imaging_pipeline.defs.partitions import arrival_batches
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pneumonia.drift import Verdict
from imaging_pipeline.pneumonia.drift_batch import CODE_VERSION as DRIFT_VERSION
from imaging_pipeline.pneumonia.drift_batch import BatchDrift, load_drift
from imaging_pipeline.pneumonia.plots import drift_figure
from imaging_pipeline.pneumonia.prediction import Predictor, load_champion
from imaging_pipeline.pneumonia.results.batch import (
    CLINICAL,
    RESEARCH,
    TABLE,
    Options,
    ResultCounts,
    load_clinical_results,
    load_research_results,
)
from imaging_pipeline.pneumonia.results.finding import CODE_VERSION as RESULT_VERSION
from imaging_pipeline.pneumonia.results.finding import Kind
from imaging_pipeline.pneumonia.results.making import Maker

_PREDICTION = reporting.asset_key("gold", "model_prediction")

_KINDS = {"all": tuple(Kind), "reports": (Kind.REPORT,), "off": ()}
"""By the setting ``results``."""


@dg.multi_asset(
    name="gold_result_object",
    specs=[
        reporting.table_spec(
            "gold",
            TABLE,
            code_version=f"results-{RESULT_VERSION}",
            deps=[_PREDICTION],
            automation_condition=when_batch_is_ready,
            kinds=("dicom", "duckdb"),
        )
    ],
    partitions_def=arrival_batches,
)
def gold_result_object(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> Iterator[dg.MaterializeResult[None]]:
    """Write the predictions of the batch as reports and pictures beside its released images."""
    batch_id = context.partition_key
    with workspace.research() as lake:
        counts = load_research_results(lake, batch_id, _options(workspace, RESEARCH.results))
        links = study_links(lake, batch_id, workspace.settings.serve_url)
        metadata = {TABLE: _shown(counts) | links}
        yield from reporting.table_results(lake, RESEARCH.results, [TABLE], batch_id=batch_id, metadata=metadata)


@dg.multi_asset(
    name="silver_result_object",
    specs=[
        reporting.table_spec(
            "silver",
            TABLE,
            code_version=f"results-{RESULT_VERSION}",
            deps=[_PREDICTION],
            automation_condition=when_batch_is_ready,
            kinds=("dicom", "duckdb"),
        ).replace_attributes(group_name="model")  # no batch waits for its results
    ],
    partitions_def=arrival_batches,
)
def silver_result_object(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> Iterator[dg.MaterializeResult[None]]:
    """Write the same under the original identifiers, ready to be sent to where the images came from."""
    batch_id = context.partition_key
    with workspace.identified() as identified, workspace.research(read_only=True) as research:
        options = _options(workspace, CLINICAL.results)
        counts = load_clinical_results(identified, research, workspace.keys(), batch_id, options)
        metadata = {TABLE: _shown(counts)}
        yield from reporting.table_results(identified, CLINICAL.results, [TABLE], batch_id=batch_id, metadata=metadata)


@dg.multi_asset(
    name="drift",
    specs=[
        reporting.table_spec(
            "gold",
            "drift",
            code_version=f"drift-{DRIFT_VERSION}",
            deps=[_PREDICTION],
            automation_condition=when_batch_is_ready,
        )
    ],
    partitions_def=arrival_batches,
)
def drift(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> Iterator[dg.MaterializeResult[None]]:
    """Compare the batch's images and what the champion says of them with those it was validated on."""
    batch_id = context.partition_key
    with workspace.research() as lake:
        found = load_drift(lake, batch_id, _champion(workspace), workspace.shards().open)
        metadata = {"drift": _drift_shown(found)}
        yield from reporting.table_results(lake, "gold", ["drift"], batch_id=batch_id, metadata=metadata)


report_batch = dg.define_asset_job(
    "report_batch",
    selection=dg.AssetSelection.assets(
        reporting.asset_key("gold", TABLE), reporting.asset_key("silver", TABLE), reporting.asset_key("gold", "drift")
    ),
    executor_def=dg.in_process_executor,
    description="Predictions of a batch as DICOM reports and pictures in both zones, and how the batch has drifted.",
)


def _options(workspace: Workspace, schema: str) -> Options:
    settings = workspace.settings
    is_clinical = schema == CLINICAL.results
    folder = settings.identified_results if is_clinical else settings.research_results
    maker = Maker(workspace.reader(), folder, workspace.recipe(), _KINDS[settings.results])
    return Options(
        _champion(workspace),
        maker,
        open_shard=workspace.shards().open,
        workers=settings.workers,
        element_mode=workspace.element_mode(),
        policy=workspace.version_policy(),
        progress=workspace.progress_of("write results"),
    )


def _champion(workspace: Workspace) -> Predictor:
    predictor = load_champion(workspace.tracker())
    if predictor is None:
        raise ConfigurationError("no champion model yet: materialize gold/pneumonia_model, then gold/model_prediction")
    return predictor


def _shown(counts: ResultCounts) -> reporting.Shown:
    return {
        "predictions": counts.predictions,
        "reports": counts.reports,
        "captures": counts.captures,
        "kept": counts.kept,
        "failed": counts.failed,
    }


def _drift_shown(found: BatchDrift) -> reporting.Shown:
    drifted = [each.quantity for each in found.drifts if each.verdict is Verdict.DRIFT]
    rows = [
        (each.quantity, each.verdict, each.measure, _number(each.value), each.limit, _number(each.p_value),
         _number(each.ks), f"{each.images[1]} of {each.patients[1]}", f"{each.images[0]} of {each.patients[0]}")
        for each in found.drifts
    ]  # fmt: skip
    header = ("quantity", "verdict", "measure", "value", "limit", "p", "KS", "batch: images of patients", "reference")
    return {
        "drifted": drifted or ["nothing"],
        "drift": reporting.markdown_table(header, rows),
        "distributions": reporting.picture("reference and batch", drift_figure(found.values, drifted)),
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
