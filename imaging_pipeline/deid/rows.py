"""Rows of the research lake: what a release puts there, and takes back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

import pyarrow as pa

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.changes import recorded_changes
from imaging_pipeline.metadata.merging import note_touched, write_entities
from imaging_pipeline.metadata.own_files import settle_instances
from imaging_pipeline.metadata.silver import read_again
from imaging_pipeline.sources import ElementMode


def write_rows(
    research: Lake,
    batch_id: str,
    tables: Mapping[str, pa.Table],
    proofs: list[dict[str, object]],
    withdrawn: Collection[str],
    *,
    rewritten: str,
    element_mode: ElementMode,
) -> None:
    """Put rows in the place of those of the same instances, and take others back, with what was made from them.

    Args:
        research: the research lake; inside a transaction.
        batch_id: the batch whose run this is.
        tables: rows of what is released.
        proofs: rows of ``deid_verification`` of the same.
        withdrawn: research keys of what is taken back.
        rewritten: the batch whose other rows are made anew from their files; empty: none.
        element_mode: which elements of those files become rows of ``dicom_element``.

    Raises:
        TransientError: a released file that a row must be made from is gone.
    """
    locations = tables["dicom_file_location"]
    gone = sorted(withdrawn)
    note_touched(
        research, "deid", rewritten, pa.chunked_array([*locations["uid_key"].chunks, pa.array(gone, pa.string())])
    )
    where = "instance_key IN (SELECT instance_key FROM staged_rows) OR instance_key IN (SELECT unnest(?))"
    for table, rows in (
        ("dicom_file_location", locations),
        ("deid_verification", registry.table("deid_verification").rows(proofs)),
    ):
        research.replace_all("deid", table, rows, where=where, parameters=[gone])
    settle_instances(research, "deid")
    with recorded_changes(research, "deid", batch_id):
        again = partial(read_again, research, "deid", lambda _: element_mode)
        write_entities(research, "deid", rewritten, tables, again)
