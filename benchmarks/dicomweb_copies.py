"""Makes an archive of a million instances out of one of twenty thousand, for searches: rows are copied, files are not.

Both servers get the same copies: further studies with UIDs and accession numbers of their own, of the same patients.
Orthanc's are written into the SQLite index it keeps (schema version 6), ours into the tables of the lake, from which
the service makes its index as ever. To send as many to Orthanc would take it more than an hour.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from imaging_pipeline.lake.store import Lake

COPIED = "2.25.2000."
"""How the UIDs of the studies begin that are copied."""

_SCHEMA_VERSION = "6"
_STUDY = 2
"""How Orthanc numbers the level of studies."""
_ACCESSION = (0x0008, 0x0050)
_UIDS = ((0x0008, 0x0018), (0x0020, 0x000D), (0x0020, 0x000E))


def without_copy(study_uid: str) -> str:
    """The UID of the study that one may be a copy of.

    >>> without_copy("2.25.2000.7.912"), without_copy("2.25.2000.7")
    ('2.25.2000.7', '2.25.2000.7')
    """
    return ".".join(study_uid.split(".")[:4])


def copy_in_lake(lake: Lake, studies: int, copies: int) -> None:
    """Insert copies of the small studies into the silver tables that the service reads.

    Args:
        studies: how many there are; numbers are counted on from there.
        copies: how many more of each.
    """
    accession = f"printf('A%07d', CAST(substr(accession_number, 2) AS INTEGER) + k * {studies})"
    key = "{0} || '-' || k AS {0}".format
    uid = "{0} || '.9' || k AS {0}".format
    series = f"SELECT series_key FROM silver.dicom_series WHERE series_instance_uid LIKE '{COPIED}%'"
    instances = f"SELECT instance_key FROM silver.dicom_instance WHERE series_key IN ({series})"
    with lake.transaction():
        for table, where, replaced in (
            (
                "dicom_file_location",
                f"instance_key IN ({instances})",
                (key("study_key"), key("series_key"), key("instance_key")),
            ),
            ("dicom_image_pixel", f"instance_key IN ({instances})", (key("instance_key"),)),
            (
                "dicom_instance",
                f"series_key IN ({series})",
                (key("series_key"), key("instance_key"), uid("sop_instance_uid")),
            ),
            (
                "dicom_series",
                f"series_key IN ({series})",
                (key("series_key"), key("study_key"), uid("series_instance_uid")),
            ),
            (
                "dicom_study",
                f"study_instance_uid LIKE '{COPIED}%'",
                (key("study_key"), uid("study_instance_uid"), f"{accession} AS accession_number"),
            ),
        ):
            lake.connection.execute(
                f"""INSERT INTO silver.{table} BY NAME SELECT * EXCLUDE (k) REPLACE ({", ".join(replaced)})
                FROM (SELECT * FROM silver.{table} WHERE {where}), range(1, {copies} + 1) AS numbers(k)"""
            )


def copy_in_orthanc(index: Path, studies: int, copies: int) -> None:
    """Insert copies of the small studies into the index of an Orthanc that does not run.

    Args:
        index: its SQLite file.
        studies: how many there are.
        copies: how many more of each.

    Raises:
        SystemExit: this Orthanc keeps another index.
    """
    with closing(sqlite3.connect(index)) as connection:
        ((version,),) = connection.execute("SELECT value FROM GlobalProperties WHERE property = 1").fetchall()
        if version != _SCHEMA_VERSION:
            raise SystemExit(f"this Orthanc has schema version {version}; the copies are written for {_SCHEMA_VERSION}")
        ((step,),) = connection.execute("SELECT max(internalId) FROM Resources").fetchall()
        connection.executescript(
            f"""
            CREATE TEMP TABLE numbers AS
            WITH RECURSIVE counted(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM counted WHERE k < {copies})
            SELECT k FROM counted;
            CREATE TEMP TABLE copied AS
            WITH RECURSIVE below(id) AS (
                SELECT internalId FROM Resources JOIN DicomIdentifiers ON id = internalId
                WHERE resourceType = {_STUDY} AND {_tag(_UIDS[1])} AND value LIKE '{COPIED}%'
                UNION ALL SELECT internalId FROM Resources JOIN below ON parentId = id
            ) SELECT id FROM below;
            BEGIN;
            INSERT INTO Resources
            SELECT internalId + k * {step}, resourceType, substr(publicId, 1, 36) || printf('%08x', k),
                CASE resourceType WHEN {_STUDY} THEN parentId ELSE parentId + k * {step} END
            FROM Resources JOIN copied ON id = internalId, numbers;
            {_tags("MainDicomTags", step, studies)}
            {_tags("DicomIdentifiers", step, studies)}
            INSERT INTO Metadata SELECT id + k * {step}, type, value FROM Metadata JOIN copied USING (id), numbers;
            INSERT INTO AttachedFiles
            SELECT id + k * {step}, fileType, uuid, compressedSize, uncompressedSize, compressionType, uncompressedMD5,
                compressedMD5 FROM AttachedFiles JOIN copied USING (id), numbers;
            COMMIT;
            """
        )


def _tags(table: str, step: int, studies: int) -> str:
    is_uid = " OR ".join(map(_tag, _UIDS))
    return f"""INSERT INTO {table}
    SELECT id + k * {step}, tagGroup, tagElement, CASE WHEN {is_uid} THEN value || '.9' || k
        WHEN {_tag(_ACCESSION)} THEN printf('A%07d', CAST(substr(value, 2) AS INTEGER) + k * {studies})
        ELSE value END
    FROM {table} JOIN copied USING (id), numbers;"""


def _tag(tag: tuple[int, int]) -> str:
    return f"(tagGroup = {tag[0]} AND tagElement = {tag[1]})"
