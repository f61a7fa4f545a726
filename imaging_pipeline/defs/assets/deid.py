"""De-identified assets: the released files and the silver tables made from them."""

from collections.abc import Iterator

import dagster as dg

from imaging_pipeline.defs import reporting
from imaging_pipeline.defs.links import study_links
from imaging_pipeline.defs.partitions import arrival_batches
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.deid.clearance import Clearance
from imaging_pipeline.deid.evidence import Evidence
from imaging_pipeline.deid.evidence_page import write_page
from imaging_pipeline.deid.lake_evidence import read_evidence
from imaging_pipeline.deid.release import CODE_VERSION as ENGINE_VERSION
from imaging_pipeline.deid.release import Releaser, release_batch
from imaging_pipeline.deid.targets import deleted_of_batch, keys_of_batch
from imaging_pipeline.metadata.silver import ENTITY_TABLES
from imaging_pipeline.pneumonia.results.batch import CLINICAL, RESEARCH, withdraw_results
from imaging_pipeline.tensors.thumbnail_batch import withdraw_thumbnails
from imaging_pipeline.tensors.withdrawal import withdraw_tensors
from imaging_pipeline.web.stow.annotations import settle_annotations

PROOFS = ("deid_verification", "deid_evidence")
"""Tables that say what was done to the others."""

CODE_VERSION = f"deid-{ENGINE_VERSION}"

_PAGE = "research/evidence below the pipeline's home, one page for each batch"

TABLES = (*ENTITY_TABLES, "change_feed", "made_object", *PROOFS)


def _deps(table: str) -> list[dg.AssetKey]:
    twin = "dicom_instance" if table in PROOFS else table
    return [reporting.asset_key("silver", twin)]


@dg.multi_asset(
    name="deid",
    specs=[reporting.table_spec("deid", t, code_version=CODE_VERSION, deps=_deps(t)) for t in TABLES],
    partitions_def=arrival_batches,
)
def deid(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> Iterator[dg.MaterializeResult[None]]:
    """Release the batch's instances as de-identified files and rows, or hold them with a reason."""
    batch_id = context.partition_key
    Clearance(workspace.settings.clearance_files).withhold(batch_id)
    profile = workspace.profile()
    releaser = Releaser(
        profile,
        workspace.keys(),
        workspace.reader(),
        workspace.settings.deid_files,
        batch_id,
        workspace.element_mode(),
        workspace.decisions(),
    )
    with workspace.identified() as identified, workspace.research() as research:
        keys = keys_of_batch(identified, research, releaser.keys, batch_id)
        try:
            counts = release_batch(
                identified,
                research,
                workspace.vault(),
                releaser,
                workers=workspace.settings.workers,
                progress=workspace.progress_of("de-identify"),
            )
        finally:  # a refused batch has taken back what was deleted all the same
            withdraw_thumbnails(research, keys)  # first: they go also where the store of shards does not answer
            withdraw_tensors(research, keys, workspace.shards())
            deleted = deleted_of_batch(identified, releaser.keys, batch_id)
            settled = settle_annotations(research, workspace.settings.annotation_files, deleted)
            context.log.info(
                f"annotations: {settled.destroyed} destroyed with deleted images, {settled.hidden} hidden until all "
                "their images are released"
            )
            withdraw_results(research, RESEARCH)
            withdraw_results(identified, CLINICAL)
        held = identified.rows(
            """SELECT issue_code, count(*) FROM bronze.ingest_issue
            WHERE arrival_batch = ? AND stage = 'DEID' GROUP BY ALL ORDER BY 2 DESC""",
            [batch_id],
        )
        shown: reporting.Shown = {
            "instances": counts.instances,
            "released": counts.released,
            "held": reporting.markdown_table(("reason", "instances"), held),
            reporting.UNREAD_OBJECTS: counts.unreached,
            "profile": f"{profile.profile_id} {profile.version}",
            "profile_digest": profile.digest,
        }
        evidence = read_evidence(research, batch_id)
        assert evidence is not None, "a release writes its evidence"
        write_page(workspace.settings.evidence_files / f"{batch_id}.html", evidence)
        links = study_links(research, batch_id, workspace.settings.serve_url)
        metadata = {"deid_verification": shown, "deid_evidence": _shown(evidence), "dicom_study": links}
        yield from reporting.table_results(research, "deid", TABLES, batch_id=batch_id, metadata=metadata)


def _shown(evidence: Evidence) -> reporting.Shown:
    run, tables = evidence.run, evidence.tables
    return {
        "counts": reporting.markdown_table(("", "objects"), [(r["measure"], r["objects"]) for r in tables["counts"]]),
        "warnings": reporting.markdown_table(
            ("warning", "objects"), [(r["warning"], r["number"]) for r in tables["warnings"]]
        ),
        "key_id": str(run["key_id"]),
        "page": _PAGE,
    }
