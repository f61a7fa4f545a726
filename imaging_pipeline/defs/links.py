"""Links from pages of Dagster to the studies they are about, in the service of the research zone.

Only released studies are linked: their UIDs are pseudonyms. Original UIDs have no place in the instance's records.
"""

from __future__ import annotations

from typing import Final

from imaging_pipeline.defs import reporting
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.web.addresses import study_path, viewer_path

MOST_STUDIES: Final = 10
"""Of a batch; more make nobody wiser."""

_OF_BATCH: Final = """
SELECT study_instance_uid, string_agg(DISTINCT modality, ' ' ORDER BY modality), count(DISTINCT instance_key)
FROM deid.dicom_instance
JOIN deid.dicom_series USING (series_key)
JOIN deid.dicom_study USING (study_key)
WHERE dicom_instance.arrival_batch = ? AND version_state = 'CURRENT'
GROUP BY study_instance_uid ORDER BY study_instance_uid
"""


def study_links(lake: Lake, batch_id: str, serve_url: str | None) -> reporting.Shown:
    """The first studies of a batch with links to their pages and to the viewer.

    Args:
        lake: the research lake.
        batch_id: whose studies.
        serve_url: address of the research zone's service; None: nothing is linked.
    """
    if serve_url is None:
        return {}
    found = lake.rows(f"{_OF_BATCH} LIMIT {MOST_STUDIES}", [batch_id])
    rows = [_row(serve_url, str(uid), modalities, objects) for uid, modalities, objects in found]
    return {"studies": reporting.markdown_table(("study", "images", "modalities", "objects"), rows)} if rows else {}


def _row(serve_url: str, study: str, *more: object) -> tuple[object, ...]:
    return f"[page]({serve_url}{study_path(study)})", f"[viewer]({serve_url}{viewer_path(study)})", *more
