"""Blocking checks between the zones. Partitioned: a batch that fails one is held, the others go on."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from imaging_pipeline.catalog.bronze import batch_counts
from imaging_pipeline.defs.partitions import arrival_batches
from imaging_pipeline.defs.reporting import asset_key
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.deid.clearance import Clearance
from imaging_pipeline.deid.lake_evidence import evidence_problems
from imaging_pipeline.deid.leakage import count_leaks, research_rows
from imaging_pipeline.deid.release import release_counts
from imaging_pipeline.metadata.quality import count_placed, count_violations
from imaging_pipeline.tensors.splits import Split, count_patients_on_two_sides
from imaging_pipeline.tensors.withdrawal import count_proved


def _batch_check(asset: dg.AssetKey, description: str) -> Callable[[Callable[..., Any]], dg.AssetChecksDefinition]:
    """A blocking check of one batch. An unpartitioned one would let a bad batch through when the next one passes."""

    def decorate(function: Callable[..., Any]) -> dg.AssetChecksDefinition:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.PreviewWarning)  # partitioned checks are new in Dagster 1.13
            check = dg.asset_check(asset=asset, blocking=True, partitions_def=arrival_batches, description=description)
            return check(function)

    return decorate


def _result(passed: bool, **metadata: Any) -> dg.AssetCheckResult:  # noqa: FBT001 - reads as a sentence
    return dg.AssetCheckResult(passed=passed, severity=dg.AssetCheckSeverity.ERROR, metadata=metadata)


@_batch_check(asset_key("bronze", "object_catalog"), "Nothing was dropped: seen = parsed + failed + skipped.")
def counts_close(context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]) -> dg.AssetCheckResult:
    """The catalog's rows against the manifest."""
    with workspace.ledger() as ledger:
        expected = len(ledger.manifest(context.partition_key))
    with workspace.identified(read_only=True) as lake:
        counts = batch_counts(lake, context.partition_key)
    return _result(counts.is_closed and counts.seen == expected, counts=str(counts), manifest=expected)


@_batch_check(
    asset_key("silver", "dicom_instance"),
    "Every parsed object is an instance or has an issue; keys are unique and every child has its parent.",
)
def silver_is_consistent(
    context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.AssetCheckResult:
    """Counts of the batch, then the rules over its rows."""
    with workspace.identified(read_only=True) as lake, lake.one_snapshot():
        parsed, placed, refused = count_placed(lake, context.partition_key)
        violations = count_violations(lake, "silver", context.partition_key)
    passed = parsed == placed + refused and not violations
    return _result(passed, parsed=parsed, placed=placed, refused=refused, violations=violations)


@_batch_check(
    asset_key("deid", "dicom_instance"),
    "Every instance was released with its proof or held with an issue, and the evidence of the release says the same.",
)
def release_is_complete(
    context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.AssetCheckResult:
    """Instances of the batch on both sides."""
    clearance = Clearance(workspace.settings.clearance_files)
    release = clearance.release(context.partition_key)
    with workspace.identified(read_only=True) as identified, workspace.research(read_only=True) as research:
        counts = release_counts(identified, research, workspace.keys(), context.partition_key)
        with research.one_snapshot():
            violations = count_violations(research, "deid", context.partition_key)
            problems = evidence_problems(research, context.partition_key)
    passed = counts.is_closed and not violations and not problems
    clearance.judge(context.partition_key, "release_is_complete", passed=passed, release=release)
    return _result(
        passed,
        instances=counts.instances,
        released=counts.released,
        held=counts.held,
        violations=violations,
        evidence=problems or ["it closes"],
    )


@_batch_check(asset_key("deid", "dicom_patient"), "No identifier of the batch's patients stands in any research table.")
def no_identifier_on_research_side(
    context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.AssetCheckResult:
    """The engine screens every file before it is written; this looks at the tables from the other side."""
    clearance = Clearance(workspace.settings.clearance_files)
    release = clearance.release(context.partition_key)
    with workspace.identified(read_only=True) as identified, workspace.research(read_only=True) as research:
        leaks: Mapping[str, int] = count_leaks(
            identified,
            research_rows(research, context.partition_key),
            context.partition_key,
            workspace.profile(),
        )
    clearance.judge(context.partition_key, "no_identifier_on_research_side", passed=not leaks, release=release)
    return _result(not leaks, leaking_cells=sum(leaks.values()), cells_by_column=dict(leaks))


@_batch_check(
    asset_key("gold", "image_tensor"),
    "Every tensor of the batch is of a released instance, made from the released bytes.",
)
def tensors_are_deidentified(
    context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.AssetCheckResult:
    """Joins each tensor to the proof of its file."""
    with workspace.research(read_only=True) as lake:
        tensors, proved = count_proved(lake, context.partition_key)
    return _result(tensors == proved, tensors=tensors, proved=proved)


@dg.asset_check(
    asset=asset_key("gold", "dataset_member"),
    blocking=True,
    description="No patient is on two sides of a split, in any dataset version.",
)
def no_patient_on_two_sides(workspace: dg.ResourceParam[Workspace]) -> dg.AssetCheckResult:
    """A patient on both sides would let the model be tested on what it learned."""
    with workspace.research(read_only=True) as lake:
        rows = lake.rows("SELECT dataset_id, dataset_version, patient_pseudonym, split FROM gold.dataset_member")
    assignments = [(f"{dataset}/{version}/{patient}", Split(str(split))) for dataset, version, patient, split in rows]
    offenders = count_patients_on_two_sides(assignments)
    return _result(offenders == 0, members=len(rows), patients_on_two_sides=offenders)
