"""Where quality pages are, and writing them: for the assets and for the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.metadata.quality.figures import Quality, look_at_quality
from imaging_pipeline.metadata.quality.page import write_page
from imaging_pipeline.settings import Settings

OVERVIEW = "index"
"""Name of the page over all batches."""


def page_path(workspace: Workspace, batch_id: str | None = None) -> Path:
    """The page of a batch, or that over all; in the identified zone."""
    return workspace.settings.home / "identified" / "quality" / f"{batch_id or OVERVIEW}.html"


def write_quality(
    workspace: Workspace, batch_id: str | None = None, path: Path | None = None, *, is_released: bool = True
) -> Quality:
    """Look at the quality of a batch, or of all, and write its page.

    Args:
        workspace: the lakes.
        batch_id: the batch; None: all.
        path: where to, instead of the identified zone.
        is_released: count what was released too, if there is a research lake.

    Raises:
        ConfigurationError: there is no lake, or no such batch.
    """
    with ExitStack() as stack:
        threads = 1 if batch_id else None
        identified = stack.enter_context(workspace.identified(read_only=True, threads=threads))
        known = identified.rows("SELECT 1 FROM bronze.object_catalog WHERE arrival_batch = ? LIMIT 1", [batch_id])
        if batch_id is not None and not known:
            raise ConfigurationError(
                "no such batch in the lake: 'imaging-pipeline status' and the Dagster UI name them"
            )
        catalog = workspace.settings.research.sqlite_path
        has_research = is_released and (catalog is None or catalog.is_file())
        research = stack.enter_context(workspace.research(read_only=True, threads=threads)) if has_research else None
        with identified.one_snapshot():
            quality = look_at_quality(identified, research, batch_id)
    write_page(path or page_path(workspace, batch_id), quality)
    return quality


def quality_command(settings: Settings, batch_id: str | None, out: str | None) -> Iterator[str]:
    """Write a page and say, line by line, which rules are broken and where the page is.

    Raises:
        ConfigurationError: there is no lake, or no such batch.
    """
    workspace = Workspace(settings)
    path = Path(out).expanduser() if out else page_path(workspace, batch_id)
    quality = write_quality(workspace, batch_id, path)
    broken = [finding for finding in quality.findings if not finding.is_passed]
    for finding in broken:
        yield f"{finding.rule.severity.value:7} {finding.rule.name}: {finding.failed} of {finding.checked}"
    yield f"{len(quality.findings) - len(broken)} of {len(quality.findings)} rules hold; the page names UIDs: {path}"
