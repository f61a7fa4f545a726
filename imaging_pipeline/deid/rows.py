"""Rows of the research lake: what a release puts there, and takes back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import pyarrow as pa

from imaging_pipeline.dicom.header import read_header
from imaging_pipeline.errors import TransientError
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.changes import recorded_changes
from imaging_pipeline.metadata.merging import note_touched, write_entities
from imaging_pipeline.metadata.placing import StoredObject
from imaging_pipeline.metadata.silver import entity_rows
from imaging_pipeline.objects.folder import uri_to_path
from imaging_pipeline.sources import ElementMode


def write_rows(
    research: Lake,
    project: str,
    batch_id: str,
    tables: Mapping[str, pa.Table],
    proofs: list[dict[str, object]],
    withdrawn: Collection[str],
    *,
    rewritten: str,
    element_mode: ElementMode,
) -> None:
    """Put rows in the place of those of the same instances, and take others back.

    Args:
        research: the research lake; inside a transaction.
        project: the research project.
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
    with recorded_changes(research, "deid", batch_id):
        for table, rows in (
            ("dicom_file_location", locations),
            ("deid_verification", registry.table("deid_verification").rows(proofs)),
        ):
            research.replace_all("deid", table, rows, where=where, parameters=[gone])
        research.connection.execute(_WANTED)
        write_entities(research, "deid", rewritten, tables, partial(_read_again, research, project, element_mode))


_WANTED = """
CREATE OR REPLACE TEMP TABLE wanted AS
SELECT instance_key, object_key, row_version, arrival_batch, 1 AS version_no, 'CURRENT' AS version_state
FROM deid.dicom_file_location WHERE uid_key IN (SELECT uid_key FROM temp.touched_uids)
"""


def _read_again(
    research: Lake, project: str, element_mode: ElementMode, object_keys: Sequence[str]
) -> Mapping[str, pa.Table]:
    """Candidate rows of instances released before, from the headers of their files."""
    stored = released_objects(research, project, "object_key IN (SELECT unnest(?))", [list(object_keys)])
    return entity_rows("", (replace(one, element_mode=element_mode) for one in stored)).tables


def released_objects(research: Lake, project: str, where: str, parameters: list[object]) -> Iterator[StoredObject]:
    """What was released, from the headers of the files, by a condition on ``deid.dicom_file_location``.

    Raises:
        TransientError: a file is gone.
    """
    rows = research.rows(
        f"""SELECT object_key, storage_uri, checksum_sha256, arrival_batch, row_version FROM deid.dicom_file_location
        WHERE {where} ORDER BY object_key""",
        parameters,
    )
    return (_stored_again(project, *map(str, row)) for row in rows)


def _stored_again(project: str, key: str, uri: str, sha256: str, batch_id: str, row_version: str) -> StoredObject:
    try:
        data = uri_to_path(uri).read_bytes()
    except OSError:
        raise TransientError(f"a released file is gone: run batch {batch_id} again, then this one") from None
    header = read_header(data)
    return StoredObject(
        object_key=key,
        storage_uri=uri,
        source_name=project,
        sha256=sha256,
        size=len(data),
        pixel_data_offset=header.pixel_offset,
        header_json=header.json,
        has_pixel=header.has_pixel,
        transfer_syntax_uid=header.transfer_syntax_uid,
        arrival_batch=batch_id,
        row_version=row_version,
        role="DEIDENTIFIED",
    )
