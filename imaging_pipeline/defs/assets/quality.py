"""The quality pages: one for each batch once it is written, and one over all of them at night.

Pages name UIDs and stay in the identified zone; what is shown here are counts.
"""

import dagster as dg

from imaging_pipeline.defs import reporting
from imaging_pipeline.defs.automation import after_each_batch, nightly_if_new
from imaging_pipeline.defs.partitions import arrival_batches
from imaging_pipeline.defs.quality import write_quality
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.errors import Severity
from imaging_pipeline.metadata.quality.figures import CODE_VERSION, Quality

_HINT = "Read it below the pipeline's home in identified/quality, or write it again with 'imaging-pipeline quality'."


@dg.asset(
    key=reporting.asset_key("silver", "quality_page"),
    # Of the tables of silver one that no blocking check guards: a batch that is held has its page too.
    deps=[reporting.asset_key("silver", "dicom_element")],
    partitions_def=arrival_batches,
    group_name="quality",
    kinds={"duckdb", "html"},
    owners=list(reporting.OWNERS),
    code_version=CODE_VERSION,
    tags={"lake": "identified"},
    automation_condition=after_each_batch,
    description=f"Page on the quality of a batch: rules, issues, completeness, geometry. {_HINT}",
)
def quality_page(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult[None]:
    """Look at every rule over the batch and write its page."""
    quality = write_quality(workspace, context.partition_key, is_released=False)
    return dg.MaterializeResult(metadata=_shown(quality))


@dg.asset(
    key=reporting.asset_key("silver", "quality_overview"),
    deps=[reporting.asset_key("silver", "quality_page")],
    group_name="quality",
    kinds={"duckdb", "html"},
    owners=list(reporting.OWNERS),
    code_version=CODE_VERSION,
    tags={"lake": "identified"},
    automation_condition=nightly_if_new,
    description=f"Page on the quality of everything that is in the lakes. {_HINT}",
)
def quality_overview(workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult[None]:
    """Look at every rule over all batches and write the page."""
    return dg.MaterializeResult(metadata=_shown(write_quality(workspace)))


def _shown(quality: Quality) -> reporting.Shown:
    broken = [finding for finding in quality.findings if not finding.is_passed]
    rows = [(f.rule.severity.value, f.rule.name, f.checked, f.failed, f.rule.advice) for f in broken]
    return {
        "rules": len(quality.findings),
        "broken": len(broken),
        "broken_and_holding": sum(finding.rule.severity is Severity.ERROR for finding in broken),
        "objects": sum(int(str(row[1])) for row in quality.by_source),
        "broken_rules": reporting.markdown_table(("severity", "rule", "checked", "failed", "what to do"), rows),
    }
