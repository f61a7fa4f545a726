"""A check that warns when a batch does not look like the images the model was validated on."""

import warnings

import dagster as dg

from imaging_pipeline.defs import reporting
from imaging_pipeline.defs.partitions import arrival_batches
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.pneumonia.drift import Verdict
from imaging_pipeline.pneumonia.drift_batch import drifted

with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.PreviewWarning)  # partitioned checks are new in Dagster 1.13

    @dg.asset_check(
        asset=reporting.asset_key("gold", "drift"),
        partitions_def=arrival_batches,
        description=(
            "The batch's images, and what the model says of them, look like those it was validated on. Where not, its "
            "scores may mean something else: look at the films before anybody relies on them."
        ),
    )
    def batch_looks_like_validation(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """A warning: a batch may rightly be different, and a person must say so."""
        with workspace.research(read_only=True) as lake:
            rows = drifted(lake, context.partition_key)
        found = [row for row in rows if row["verdict"] == Verdict.DRIFT]
        shown = [(row["quantity"], row["verdict"], row["value"], row["limit_value"], row["p_value"]) for row in rows]
        return dg.AssetCheckResult(
            passed=not found,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "drifted": [row["quantity"] for row in found] or ["nothing"],
                "quantities": reporting.markdown_table(("quantity", "verdict", "value", "limit", "p"), shown),
            },
        )
