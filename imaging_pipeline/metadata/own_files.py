"""Files this software has written itself, as the lake knows them: released files, and objects made from others.

Owns reading their headers again, and taking back what was made from something that is no longer current.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from imaging_pipeline.dicom.header import read_header
from imaging_pipeline.errors import TransientError
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.placing import StoredObject
from imaging_pipeline.metadata.versions import VersionPolicy, choose_only, choose_versions
from imaging_pipeline.objects.folder import uri_to_path
from imaging_pipeline.sources import ElementMode

ModeOf = Callable[[str], ElementMode]
"""Which elements of a source's headers become rows, by its name."""


def stored_files(
    lake: Lake, schema: str, where: str, parameters: list[object], mode_of: ModeOf = lambda _: ElementMode.ALL
) -> Iterator[StoredObject]:
    """Objects from the headers of their files, by a condition on ``dicom_file_location``, in the order of their keys.

    Args:
        lake: the lake.
        schema: ``deid``, where all objects are such files, or ``silver``, where the condition must leave out others.
        where: the condition.
        parameters: its values.
        mode_of: which elements of their headers become rows of ``dicom_element``.

    Raises:
        TransientError: a file is gone.
    """
    rows = lake.rows(
        f"""SELECT object_key, storage_uri, ingestion_source, checksum_sha256, arrival_batch, row_version, role
        FROM {schema}.dicom_file_location WHERE {where} ORDER BY object_key""",
        parameters,
    )
    return (_stored(mode_of, *map(str, row)) for row in rows)


def settle_instances(lake: Lake, schema: str, policy: VersionPolicy = VersionPolicy.KEEP_LAST) -> None:
    """Choose the object that each touched instance is made from, and take back what was made from another one.

    Call inside a transaction, after the locations are written and before the rows of the instances are; reads
    ``temp.touched_uids`` and ``temp.before``, adds to them what is taken back, and leaves ``temp.wanted``. A file goes
    before its rows: a kill is mended by running again.

    Args:
        lake: the lake.
        schema: ``silver`` or ``deid``.
        policy: of silver; research instances have one content each.
    """

    def choose() -> None:
        if schema == "silver":
            choose_versions(lake, policy)
        else:
            choose_only(lake, schema)

    choose()
    lake.rows(_STALE.format(schema=schema))
    files = lake.rows(f"SELECT storage_uri FROM {schema}.dicom_file_location WHERE {_IS_STALE}")
    if not files:
        return
    lake.rows(f"INSERT INTO temp.touched_uids SELECT uid_key FROM {schema}.dicom_file_location WHERE {_IS_STALE}")
    lake.rows(
        f"""INSERT INTO temp.before SELECT instance_key, series_key, study_key, patient_key, equipment_key
        FROM {schema}.dicom_file_location WHERE {_IS_STALE}"""
    )
    for (uri,) in files:
        uri_to_path(str(uri)).unlink(missing_ok=True)
    for table in ("dicom_file_location", "made_object"):
        lake.rows(f"DELETE FROM {schema}.{table} WHERE {_IS_STALE}")
    choose()


_IS_STALE = "object_key IN (SELECT object_key FROM temp.stale_made)"

_STALE = """
CREATE OR REPLACE TEMP TABLE stale_made AS
WITH RECURSIVE stale AS (
    SELECT object_key, instance_key FROM {schema}.made_object AS made
    WHERE source_instance_key IN (SELECT instance_key FROM temp.before UNION SELECT instance_key FROM temp.wanted)
        AND NOT EXISTS (
            SELECT 1 FROM temp.wanted AS wanted
            JOIN {schema}.dicom_file_location AS location USING (instance_key, object_key)
            WHERE instance_key = made.source_instance_key AND checksum_sha256 = made.source_sha256
                AND version_state = 'CURRENT')
    UNION SELECT made.object_key, made.instance_key
    FROM {schema}.made_object AS made JOIN stale ON made.source_instance_key = stale.instance_key
)
SELECT DISTINCT object_key FROM stale
"""


def _stored(
    mode_of: ModeOf, key: str, uri: str, source: str, sha256: str, batch_id: str, row_version: str, role: str
) -> StoredObject:
    try:
        data = uri_to_path(uri).read_bytes()
    except OSError:
        batch, _, kind = batch_id.partition("+")
        what = f"make its {kind} again" if kind else f"run batch {batch} again, then this one"
        raise TransientError(f"a file of batch {batch} is gone: {what}") from None
    header = read_header(data)
    return StoredObject(
        object_key=key,
        storage_uri=uri,
        source_name=source,
        sha256=sha256,
        size=len(data),
        pixel_data_offset=header.pixel_offset,
        header_json=header.json,
        has_pixel=header.has_pixel,
        transfer_syntax_uid=header.transfer_syntax_uid,
        arrival_batch=batch_id,
        row_version=row_version,
        role=role,
        element_mode=mode_of(source),
    )
