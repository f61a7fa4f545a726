"""What both DICOMweb servers hold: a CT series and many small studies, as files and as copies in the index alone.

Copies make an archive of a million instances out of one of twenty thousand, for searches: further studies with UIDs and
accession numbers of their own, of the same patients and with the same files. Orthanc's are written into the SQLite
index it keeps (schema version 6), ours into the tables of the lake, from which the service makes its index as ever. To
send as many to Orthanc would take it more than an hour.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import dcmread, dcmwrite
from pydicom.data import get_testdata_file

from imaging_pipeline.lake.store import Lake

OBJECT_NUMBERS = 1_000_000
"""The first number of a small study's objects: all have as many digits."""
EDGE = 512
STUDY, SERIES = "2.25.1000", "2.25.1001"
SMALL = "2.25.2000"
"""How the UIDs of the small studies begin."""

_SCHEMA_VERSION = "6"
_STUDY = 2
"""How Orthanc numbers the level of studies."""
_ACCESSION = (0x0008, 0x0050)
_UIDS = ((0x0008, 0x0018), (0x0020, 0x000D), (0x0020, 0x000E))


def ct_slice(number: int, chance: np.random.Generator) -> bytes:
    """One slice of the series: the header of a real CT image, and 512 x 512 pixels."""
    ds = dcmread(str(get_testdata_file("CT_small.dcm")))
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.PatientID = STUDY, SERIES, "BENCH"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{SERIES}.{number + 1}"
    ds.InstanceNumber, ds.SliceLocation = number + 1, 2.5 * number
    ds.ImagePositionPatient = [-100, -100, 2.5 * number]
    ds.Rows = ds.Columns = EDGE
    ds.PixelData = chance.integers(0, 2000, (EDGE, EDGE), "u2").tobytes()
    return saved(ds)


def small_study(study: int, objects: int) -> Iterator[bytes]:
    """The objects of a study of one series: MR images of 16 x 16 pixels that differ in their UID."""
    ds = dcmread(str(get_testdata_file("MR_small.dcm")))
    first = f"{SMALL}.{study}.1.{OBJECT_NUMBERS}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{SMALL}.{study}", f"{SMALL}.{study}.1"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = first
    ds.Rows = ds.Columns = 16
    ds.PixelData = bytes(512)
    ds.PatientID, ds.PatientName = f"P{study % 997:05}", f"Name{study % 331:04}^Given"
    ds.StudyDate = f"20{study % 24:02}{study % 12 + 1:02}{study % 28 + 1:02}"
    ds.AccessionNumber = f"A{study:07}"
    data = saved(ds)
    for number in range(objects):
        yield data.replace(first.encode(), f"{SMALL}.{study}.1.{OBJECT_NUMBERS + number}".encode())


def saved(ds: object) -> bytes:
    """A data set as a file."""
    target = BytesIO()
    dcmwrite(target, ds, enforce_file_format=True)  # type: ignore[arg-type]
    return target.getvalue()


def write_corpus(folder: Path, slices: int, studies: int, objects: int) -> None:
    """The series and the small studies as files, a thousand to a folder."""
    chance = np.random.default_rng(1)
    found = (ct_slice(number, chance) for number in range(slices))
    small = (data for study in range(studies) for data in small_study(study, objects))
    for number, data in enumerate(itertools.chain(found, small)):
        place = folder / f"{number // 1000:05}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:07}.dcm").write_bytes(data)


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
    series = f"SELECT series_key FROM silver.dicom_series WHERE series_instance_uid LIKE '{SMALL}.%'"
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
                f"study_instance_uid LIKE '{SMALL}.%'",
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
                WHERE resourceType = {_STUDY} AND {_tag(_UIDS[1])} AND value LIKE '{SMALL}.%'
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
