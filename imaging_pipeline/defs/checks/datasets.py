"""Checks of frozen datasets: what a model must not be trained on, and what a person should look at first."""

import dagster as dg

from imaging_pipeline.defs import reporting
from imaging_pipeline.defs.assets.tensors import DATASET
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.tensors.frozen import VersionLost, load_version
from imaging_pipeline.tensors.versions import twins_of

_MEMBERS = reporting.asset_key("gold", "dataset_member")


@dg.asset_check(
    asset=_MEMBERS,
    blocking=True,
    description="No image of the newest version, or one that is nearly the same, is on two sides.",
)
def no_image_on_two_sides(workspace: dg.ResourceParam[Workspace]) -> dg.AssetCheckResult:
    """Looks at the pixels again, from the version's own snapshot."""
    with workspace.research(read_only=True) as lake:
        try:
            version = load_version(lake, DATASET.name)
        except VersionLost as error:
            return dg.AssetCheckResult(passed=False, metadata={"what_to_do": str(error)})
    twins = twins_of(version.members, workspace.shards().open)
    return dg.AssetCheckResult(
        passed=not twins, metadata={"version": version.version, "members": len(version.members), "twins": len(twins)}
    )


@dg.asset_check(asset=_MEMBERS, description="Every side of the newest version has images with the finding and without.")
def both_classes_on_every_side(workspace: dg.ResourceParam[Workspace]) -> dg.AssetCheckResult:
    """A warning: small data sets begin without a positive in validation, and their figures mean little."""
    with workspace.research(read_only=True) as lake:
        rows = lake.rows(
            """SELECT split, count(*) FILTER (label_numeric > 0), count(*)
            FROM gold.dataset_member JOIN gold.label USING (label_key)
            WHERE (dataset_id, dataset_version) IN (
                SELECT (dataset_id, dataset_version) FROM gold.dataset_version
                WHERE (definition->>'name') = ? ORDER BY created_at DESC LIMIT 1)
            GROUP BY split ORDER BY split""",
            [DATASET.name],
        )
    sides = reporting.markdown_table(("side", "positive", "images"), rows)
    passed = len(rows) == 3 and all(0 < int(str(positive)) < int(str(images)) for _, positive, images in rows)
    return dg.AssetCheckResult(passed=passed, severity=dg.AssetCheckSeverity.WARN, metadata={"sides": sides})
