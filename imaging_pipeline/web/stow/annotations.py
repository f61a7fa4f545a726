"""The research zone: annotations of released studies are kept, and become rows; nothing else is taken.

Whoever annotates sees pseudonyms only, so what they send can hold no identifier unless it comes from elsewhere. What
could bring one in is refused or set here: studies and references that are not of this zone, the attributes of patient
and study, names of persons, private elements. Words that a person types are kept as typed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydicom import Dataset, dcmread
from pydicom.uid import UID

from imaging_pipeline.dicom.pixels import guarded
from imaging_pipeline.errors import PoisonInput
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.made_objects import IS_SHOWN, MadeObject, add_objects, write_object
from imaging_pipeline.objects.folder import uri_to_path
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.pacs.landing import Landing
from imaging_pipeline.web.index.clearing import held_studies
from imaging_pipeline.web.stow.examination import Examined
from imaging_pipeline.web.stow.report import Failure, Fate, Refused, Stored
from imaging_pipeline.web.stow.stamping import references, stamp
from imaging_pipeline.web.zone import Zone

TABLE: Final = "annotation"

OBJECTS: Final = "objects"
COPIES: Final = "copies"
"""Folders below that of annotations."""

MAX_BYTES: Final = 512 << 20
"""Larger annotations are refused: they are changed in memory."""

KINDS: Final = MappingProxyType(
    {
        "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
        "1.2.840.10008.5.1.4.1.1.66.7": "SEG",
        "1.2.840.10008.5.1.4.1.1.88.11": "SR",
        "1.2.840.10008.5.1.4.1.1.88.22": "SR",
        "1.2.840.10008.5.1.4.1.1.88.33": "SR",
        "1.2.840.10008.5.1.4.1.1.88.34": "SR",
        "1.2.840.10008.5.1.4.1.1.88.59": "KO",
        "1.2.840.10008.5.1.4.1.1.11.1": "PR",
        "1.2.840.10008.5.1.4.1.1.11.2": "PR",
        "1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT",
    }
)
"""SOP classes that are annotations: segmentations, reports, key images, presentation states, structure sets. Images are
not taken: letters in their pixels could be anything."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A released instance that an annotation refers to."""

    instance_key: str
    uri: str
    batch_id: str


class _NotKeptError(Exception):
    """An object that is refused."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


class AnnotationReceiver:
    """The research zone as the place where annotations are kept.

    Args:
        zone: the research zone.
        free_bytes: with less free space nothing is taken.
    """

    keeps_at_once = 1

    def __init__(self, zone: Zone, free_bytes: int) -> None:
        self._zone = zone
        zone.landing.mkdir(mode=0o700, parents=True, exist_ok=True)
        landing = Landing(zone.landing, free_bytes)
        self.refuse_when_full = landing.refuse_when_full
        self.part = landing.part

    def keep(self, part: Path, examined: Examined, user: str) -> Fate:
        """Keep an annotation under the name of its user, or refuse it.

        The same bytes again change nothing; other bytes under a UID that is taken are refused.
        """
        try:
            with self._zone.write_lake() as lake:
                self._keep(lake, part, examined, user)
        except _NotKeptError as refusal:
            return Refused(refusal.failure, examined.sop_class_uid, examined.sop_uid)
        return Stored(
            examined.sop_class_uid, examined.study_uid, examined.series_uid, examined.sop_uid, is_changed=True
        )

    def _keep(self, lake: Lake, part: Path, examined: Examined, user: str) -> None:
        ds, received = _read(part, examined)
        known = lake.rows(
            f"SELECT received_sha256 FROM gold.{TABLE} WHERE annotation_key = ?", [key_of(examined.sop_uid)]
        )
        if known == [(received,)]:
            return
        if known:
            raise _NotKeptError(Failure.DUPLICATE)
        sources = _sources(lake, ds, examined.study_uid, self._zone)
        header = dcmread(uri_to_path(sources[0].uri), stop_before_pixels=True)
        if not _may_join(lake, ds, header):
            raise _NotKeptError(Failure.PROCESSING)
        stamp(ds, header, KINDS[examined.sop_class_uid], user)
        now = datetime.now(UTC).replace(tzinfo=None)
        known_of_it = {"user_name": user, "received_sha256": received}
        if _put(lake, self._zone.landing, ds, sources, known_of_it, now) is None:
            raise _NotKeptError(Failure.PROCESSING)


def _put(
    lake: Lake, folder: Path, ds: Dataset, sources: Sequence[_Source], known: Mapping[str, str], received_at: datetime
) -> MadeObject | None:
    """Write an annotation, its rows, and at last a copy that outlives a new release of its sources; None: refused."""
    key, batch_id = key_of(str(ds.SOPInstanceUID)), sources[0].batch_id
    made = write_object(folder / OBJECTS / key, ds, [source.instance_key for source in sources])
    kind = f"annotation-{key[:12]}"
    if not add_objects(lake, "deid", batch_id, kind, [made], folder=made.path.parent).instance_keys:
        return None
    row = {
        "annotation_key": key,
        "sop_instance_uid": str(ds.SOPInstanceUID),
        "study_instance_uid": str(ds.StudyInstanceUID),
        "sop_class_uid": str(ds.SOPClassUID),
        "kind": KINDS[str(ds.SOPClassUID)],
        **known,
        "file_name": made.path.name,
        "source_instance_keys": list(made.sources),
        "received_at": received_at,
        "arrival_batch": batch_id,
    }
    with lake.transaction():
        rows = registry.table(TABLE).rows([row])
        lake.replace_all("gold", TABLE, rows, where="annotation_key = ?", parameters=[key])
    _link(made.path, folder / COPIES / made.path.name)
    return made


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of annotations without a row in the released tables.

    Attributes:
        destroyed: something they refer to was deleted.
        hidden: kept out of sight until all that they refer to is released again.
    """

    destroyed: int
    hidden: int


def settle_annotations(lake: Lake, folder: Path, deleted: Collection[str]) -> Settled:
    """After batches were released or withdrawn: what lost a source goes, and what has all of them again comes back.

    An object goes from the released tables with the bytes of its sources. These may only be held, in conflict or about
    to be made anew: nothing here tells that from a deletion, so whoever knows the originals says what was deleted. The
    annotation is that of a person, and nobody can make it again: its copy and its row of ``gold.annotation`` stay, and
    it is put in its place from the copy once all its sources are released. Copy and row go when one was deleted, or was
    an annotation that goes.

    Args:
        lake: the research lake.
        folder: of annotations.
        deleted: research keys of what was deleted; those that are released all the same do not count.

    Raises:
        TransientError: the lake is locked.
    """
    lost = lake.rows(_LOST, [sorted(deleted)])
    for _, file_name in lost:
        (folder / COPIES / str(file_name)).unlink(missing_ok=True)
    if lost:
        with lake.transaction():
            keys = [str(key) for key, _ in lost]
            lake.connection.execute(f"DELETE FROM gold.{TABLE} WHERE annotation_key IN (SELECT unnest(?))", [keys])
    tried: list[str] = []
    while rows := lake.query(_WHOLE_AGAIN, [tried]).to_pylist():  # one may refer to another that has just come back
        for row in rows:
            tried.append(row["annotation_key"])
            copy = folder / COPIES / row["file_name"]
            if copy.is_file():
                _put_again(lake, folder, copy, row)
    ((hidden,),) = lake.rows(f"SELECT count(*) FROM gold.{TABLE} WHERE NOT {IS_SHOWN}")
    return Settled(len(lost), int(str(hidden)))


def _put_again(lake: Lake, folder: Path, copy: Path, row: Mapping[str, Any]) -> None:
    """Put an annotation back, with what its source says now of patient and study: it may say less than it did."""
    found = {
        str(key): _Source(str(key), str(uri), str(batch_id))
        for key, uri, batch_id in lake.rows(
            """SELECT instance_key, storage_uri, file.arrival_batch FROM deid.dicom_instance AS instance
            JOIN deid.dicom_file_location AS file USING (instance_key, object_key)
            WHERE version_state = 'CURRENT' AND instance_key IN (SELECT unnest(?))""",
            [row["source_instance_keys"]],
        )
    }
    sources = [found[key] for key in row["source_instance_keys"]]
    ds, header = dcmread(copy), dcmread(uri_to_path(sources[0].uri), stop_before_pixels=True)
    stamp(ds, header, row["kind"], row["user_name"])
    known = {name: row[name] for name in ("user_name", "received_sha256")}
    made = _put(lake, folder, ds, sources, known, row["received_at"])
    if made is not None and made.path.name != copy.name:
        copy.unlink(missing_ok=True)


_CURRENT: Final = "SELECT instance_key FROM deid.dicom_instance WHERE version_state = 'CURRENT'"

_LOST: Final = f"""
WITH RECURSIVE gone AS (
    SELECT unnest(?::VARCHAR[]) AS instance_key EXCEPT {_CURRENT}
), lost AS (
    SELECT annotation_key, file_name FROM gold.{TABLE} AS annotation
    WHERE EXISTS (FROM gone WHERE list_contains(source_instance_keys, gone.instance_key))
    UNION SELECT annotation.annotation_key, annotation.file_name
    FROM gold.{TABLE} AS annotation JOIN lost ON list_contains(source_instance_keys, lost.annotation_key)
)
FROM lost ORDER BY annotation_key
"""

_WHOLE_AGAIN: Final = f"""
SELECT annotation_key, file_name, source_instance_keys, user_name, received_sha256, received_at, kind
FROM gold.{TABLE} AS annotation
WHERE NOT {IS_SHOWN} AND annotation_key NOT IN (SELECT unnest(?::VARCHAR[])) AND len(source_instance_keys) = (
    SELECT count(*) FROM ({_CURRENT}) WHERE list_contains(source_instance_keys, instance_key))
ORDER BY annotation_key
"""


def _link(existing: Path, name: Path) -> None:
    """A second name for a file; both are whole, and one can go without the other."""
    name.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    name.unlink(missing_ok=True)
    name.hardlink_to(existing)


def _sources(lake: Lake, ds: Dataset, study_uid: str, zone: Zone) -> list[_Source]:
    """Released instances of its study that an annotation refers to; studies that are not shown are not known here.

    Raises:
        _NotKeptError: it refers to none, or to something this zone does not have.
    """
    wanted = references(ds)
    rows = lake.rows(
        """SELECT instance.instance_key, instance.sop_instance_uid, study.study_instance_uid, file.storage_uri,
            file.arrival_batch, file.role = 'DEIDENTIFIED' AS is_released, study.study_key
        FROM deid.dicom_instance AS instance
        JOIN deid.dicom_file_location AS file USING (instance_key, object_key)
        JOIN deid.dicom_series AS series ON series.series_key = instance.series_key
        JOIN deid.dicom_study AS study ON study.study_key = series.study_key
        WHERE version_state = 'CURRENT' AND instance.sop_instance_uid IN (SELECT unnest(?))""",
        [list(wanted)],
    )
    levels = lake.rows(
        """SELECT study_instance_uid, study_key FROM deid.dicom_study
        WHERE study_instance_uid IN (SELECT unnest($uids))
        UNION ALL
        SELECT series_instance_uid, study_key FROM deid.dicom_series
        WHERE series_instance_uid IN (SELECT unnest($uids))""",
        {"uids": list(wanted)},
    )
    held = _held(lake, zone, {*(row[6] for row in rows), *(key for _, key in levels)})
    rows = [row for row in rows if row[6] not in held]
    known = {str(row[1]) for row in rows} | {str(uid) for uid, key in levels if key not in held}
    order = {uid: number for number, uid in enumerate(wanted)}
    found = sorted((row for row in rows if row[2] == study_uid), key=lambda row: (not row[5], order[str(row[1])]))
    if not wanted.keys() <= known or not found or not found[0][5]:
        raise _NotKeptError(Failure.UNKNOWN_REFERENCE)
    return [_Source(str(key), str(uri), str(batch_id)) for key, _, _, uri, batch_id, _, _ in found]


def _held(lake: Lake, zone: Zone, studies: Collection[object]) -> frozenset[object]:
    """Those of some studies that wait for the checks of a batch."""
    if zone.clearance is None:
        return frozenset()
    where, keys = "study_key IN (SELECT unnest(?::VARCHAR[]))", sorted(map(str, studies))
    found = held_studies(lake, zone.schema, zone.clearance.batches(), where, [keys])
    return frozenset(found["study_key"].to_pylist())


def _may_join(lake: Lake, ds: Dataset, header: Dataset) -> bool:
    """Whether it is of its source's patient, and its series is new or one of annotations in the same study."""
    rows = lake.rows(
        """SELECT DISTINCT study.study_instance_uid, file.role FROM deid.dicom_series AS series
        JOIN deid.dicom_study AS study USING (study_key)
        JOIN deid.dicom_instance AS instance USING (series_key)
        JOIN deid.dicom_file_location AS file USING (instance_key, object_key)
        WHERE series.series_instance_uid = ?""",
        [str(ds.SeriesInstanceUID)],
    )
    is_free = all(row == (str(ds.StudyInstanceUID), "DERIVED") for row in rows)
    return is_free and str(ds.get("PatientID") or "") == str(header.get("PatientID") or "")


def _read(part: Path, examined: Examined) -> tuple[Dataset, str]:
    """An annotation and the digest of its bytes.

    Raises:
        _NotKeptError: it is of a kind that is not taken, or cannot be read to the end.
    """
    if examined.sop_class_uid not in KINDS:
        raise _NotKeptError(Failure.CLASS_NOT_SUPPORTED)
    if UID(examined.transfer_syntax_uid).is_deflated:  # a few bytes of it can become gigabytes
        raise _NotKeptError(Failure.SYNTAX_NOT_SUPPORTED)
    if part.stat().st_size > MAX_BYTES:
        raise _NotKeptError(Failure.OUT_OF_RESOURCES)
    try:
        return guarded(lambda: _parsed(part)), hashlib.sha256(part.read_bytes()).hexdigest()
    except PoisonInput:
        raise _NotKeptError(Failure.NOT_UNDERSTOOD) from None


def _parsed(path: Path) -> Dataset:
    ds = dcmread(path)
    for _ in ds.iterall():  # every value is read now, where a bad one is this object's fault
        pass
    return ds
