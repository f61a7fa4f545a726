"""Checks of the data's own quality, one for each rule: they warn and hold nothing, imperfect data flow on.

What holds a batch is in ``zones``. Offenders are named by key; the quality page names them by UID.
"""

import warnings
from collections.abc import Callable, Iterator

import dagster as dg

from imaging_pipeline.defs import reporting
from imaging_pipeline.defs.partitions import arrival_batches
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.errors import Severity
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.quality import Finding, Rule, Scope, all_rules, evaluate, structural_rules

_SEVERITIES = {Severity.ERROR: dg.AssetCheckSeverity.ERROR, Severity.WARNING: dg.AssetCheckSeverity.WARN}


def _rules(schema: str) -> list[Rule]:
    """Those that are no part of a blocking check."""
    structural = {rule.name for rule in structural_rules(schema)}
    return [rule for rule in all_rules(schema) if rule.name not in structural]


def _asset(schema: str, rule: Rule) -> dg.AssetKey:
    schemas = registry.table(rule.table).schemas
    return reporting.asset_key(schema if schema in schemas else schemas[0], rule.table)


def _quality_checks(
    schema: str,
) -> Callable[[Callable[..., Iterator[dg.AssetCheckResult]]], dg.AssetChecksDefinition]:
    """One check of each rule of a schema, looked at together."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # partitioned checks are new in Dagster 1.13
        specs = [
            dg.AssetCheckSpec(
                rule.name,
                asset=_asset(schema, rule),
                description=f"Fails when: {rule.means} {rule.advice}",
                partitions_def=arrival_batches,
            )
            for rule in _rules(schema)
        ]
    return dg.multi_asset_check(name=f"{schema}_quality", specs=specs)


def _results(lake: Lake, schema: str, batch_id: str) -> Iterator[dg.AssetCheckResult]:
    with lake.one_snapshot():
        findings = evaluate(Scope(lake, schema, batch_id), _rules(schema))
    for finding in findings:
        yield dg.AssetCheckResult(
            check_name=finding.rule.name,
            asset_key=_asset(schema, finding.rule),
            passed=finding.is_passed,
            severity=_SEVERITIES[finding.rule.severity],
            metadata=_shown(finding),
        )


def _shown(finding: Finding) -> reporting.Shown:
    shown: reporting.Shown = {"checked": finding.checked, "failed": finding.failed}
    if finding.error:
        shown["error"] = finding.error
    if not finding.is_passed:
        shown["what_to_do"] = finding.rule.advice
    if finding.offenders:
        head = list(finding.offenders[0])
        shown["offenders"] = reporting.markdown_table(head, [[row[name] for name in head] for row in finding.offenders])
    return shown


@_quality_checks("silver")
def silver_quality(
    context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> Iterator[dg.AssetCheckResult]:
    """The quality of the batch's headers, as they came."""
    with workspace.identified(read_only=True) as lake:
        yield from _results(lake, "silver", context.partition_key)


@_quality_checks("deid")
def deid_quality(
    context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> Iterator[dg.AssetCheckResult]:
    """The quality of the headers of the batch's released files."""
    with workspace.research(read_only=True) as lake:
        yield from _results(lake, "deid", context.partition_key)
