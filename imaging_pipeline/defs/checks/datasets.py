"""Checks of frozen datasets: what a model must not be trained on, and what a person should look at first."""

from collections import Counter

import dagster as dg

from imaging_pipeline.defs import reporting
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.tensors.frozen import VersionLost, load_version
from imaging_pipeline.tensors.splits import Split
from imaging_pipeline.tensors.versions import twins_of

_MEMBERS = reporting.asset_key("gold", "dataset_member")


@dg.asset_check(
    asset=_MEMBERS,
    blocking=True,
    description="No image of the newest version of a dataset, or one that is nearly the same, is on two sides.",
)
def no_image_on_two_sides(workspace: dg.ResourceParam[Workspace]) -> dg.AssetCheckResult:
    """Looks at the pixels again, from the version's own snapshot."""
    try:
        with workspace.research(read_only=True) as lake:
            versions = [load_version(lake, dataset.name) for dataset in workspace.datasets()]
    except VersionLost as error:
        return dg.AssetCheckResult(passed=False, metadata={"what_to_do": str(error)})
    rows = [
        (each.dataset_id, each.version, len(each.members), len(twins_of(each.members, workspace.shards().open)))
        for each in versions
    ]
    found = reporting.markdown_table(("dataset", "version", "members", "twins"), rows)
    return dg.AssetCheckResult(passed=not any(row[-1] for row in rows), metadata={"found": found})


@dg.asset_check(
    asset=_MEMBERS, description="Every side of the newest version of a dataset has images with the finding and without."
)
def both_classes_on_every_side(workspace: dg.ResourceParam[Workspace]) -> dg.AssetCheckResult:
    """A warning: small data sets begin without a positive in validation, and their figures mean little."""
    with workspace.research(read_only=True) as lake:
        rows = lake.rows(
            """SELECT dataset_id, split, bool_or(label_numeric > 0), bool_or(label_numeric <= 0)
            FROM gold.dataset_member JOIN gold.label USING (label_key)
            WHERE (dataset_id, dataset_version) IN (
                SELECT arg_max((dataset_id, dataset_version), created_at) FROM gold.dataset_version
                WHERE (definition->>'name') IN (SELECT unnest(?)) GROUP BY definition->>'name')
            GROUP BY ALL ORDER BY ALL""",
            [[dataset.name for dataset in workspace.datasets()]],
        )
    found = [(name, side, *("yes" if has else "no" for has in both)) for name, side, *both in rows]
    sides = reporting.markdown_table(("dataset", "side", "with the finding", "without"), found)
    sides_of = Counter(name for name, *_ in rows)
    passed = (
        bool(rows) and all(count == len(Split) for count in sides_of.values()) and all(all(row[2:]) for row in rows)
    )
    return dg.AssetCheckResult(passed=passed, severity=dg.AssetCheckSeverity.WARN, metadata={"sides": sides})
