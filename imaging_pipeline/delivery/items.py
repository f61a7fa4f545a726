"""What can be sent: objects of one zone, each with its digest, chosen by what a delivery asks for.

Owns the queries that choose. Opens no peer and reads no object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, cast

import pyarrow as pa
import pyarrow.compute as pc

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake.console import QueryRefused
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.made_objects import source_batch
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.pacs.config import Delivery, What, ZoneName

SCHEMAS: Final[Mapping[ZoneName, str]] = MappingProxyType({ZoneName.RESEARCH: "deid", ZoneName.CLINICAL: "silver"})
"""Where each zone keeps the rows of its objects."""


RunQuery = Callable[[str], pa.Table]


@dataclass(frozen=True, slots=True)
class Item:
    """One object to be sent.

    Attributes:
        instance_key: of the instance in its lake.
        study_uid: Study Instance UID.
        series_uid: Series Instance UID.
        sop_uid: SOP Instance UID.
        sop_class_uid: its kind.
        syntax_uid: the transfer syntax of its file.
        uri: where its bytes are.
        sha256: digest of its bytes.
        size: bytes.
        batch_id: of the object, or of what it was made from.
    """

    instance_key: str
    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class_uid: str
    syntax_uid: str
    uri: str
    sha256: str
    size: int
    batch_id: str = ""

    def key(self, peer: str) -> str:
        """Names this content of this object at a peer, without saying its UID."""
        return key_of(peer, self.sop_uid, self.sha256)


_FILES: Final = """
SELECT file.instance_key, study.study_instance_uid, series.series_instance_uid, instance.sop_instance_uid,
    instance.sop_class_uid, file.transfer_syntax_uid, file.storage_uri, file.checksum_sha256, file.file_size_bytes,
    {batch}
FROM {schema}.dicom_file_location AS file
JOIN {schema}.dicom_instance AS instance
    ON instance.instance_key = file.instance_key AND instance.object_key = file.object_key
JOIN {schema}.dicom_series AS series ON series.series_key = instance.series_key
JOIN {schema}.dicom_study AS study ON study.study_key = series.study_key
WHERE instance.version_state = 'CURRENT' AND file.role IN ('DEIDENTIFIED', 'DERIVED') AND {condition}
ORDER BY study.study_instance_uid, series.series_instance_uid, instance.instance_number, instance.sop_instance_uid
"""
"""An object of a study follows the other, in the order a person looks through them. Originals are never sent."""

_SEGMENTATION_CLASSES: Final = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Segmentation Storage and Label Map Segmentation Storage (PS3.4 B.5)."""

_OF_KIND: Final = "file.instance_key IN (SELECT instance_key FROM {{schema}}.made_object WHERE kind LIKE '{kind}')"

_CONDITIONS: Final[Mapping[What, str]] = MappingProxyType(
    {
        What.RELEASED: "file.role = 'DEIDENTIFIED'",
        What.RESULTS: _OF_KIND.format(kind="results"),
        What.ANNOTATIONS: _OF_KIND.format(kind="annotation-%"),
        What.SEGMENTATIONS: f"file.role = 'DERIVED' AND instance.sop_class_uid IN {_SEGMENTATION_CLASSES!r}",
    }
)

_COHORT_COLUMNS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "sop_instance_uid": "instance.sop_instance_uid",
        "instance_key": "instance.instance_key",
        "series_instance_uid": "series.series_instance_uid",
        "series_key": "series.series_key",
        "study_instance_uid": "study.study_instance_uid",
        "study_key": "study.study_key",
    }
)
"""Columns by which a cohort's query may name what is sent, the narrowest first."""


def items_of(lake: Lake, delivery: Delivery, run: RunQuery) -> list[Item]:
    """What a delivery would send of what is there now, study by study.

    Args:
        lake: of the delivery's zone.
        delivery: what it asks for.
        run: runs a cohort's query on the same lake, on a connection that can only read, and no file.

    Raises:
        ConfigurationError: a cohort's query cannot be used.
    """
    if delivery.what is not What.COHORT:
        return _items(lake, delivery.zone, _CONDITIONS[delivery.what], [])
    column, members = _cohort(delivery, run)
    return _items(lake, delivery.zone, f"{_COHORT_COLUMNS[column]} IN (SELECT unnest(?))", [members])


def _items(lake: Lake, zone: ZoneName, condition: str, parameters: list[object]) -> list[Item]:
    schema = SCHEMAS[zone]
    sql = _FILES.format(
        schema=schema, condition=condition.format(schema=schema), batch=source_batch("file.arrival_batch")
    )
    names = Item.__dataclass_fields__
    return [
        Item(**dict(zip(names, row, strict=True))) for row in cast(list[tuple[Any, ...]], lake.rows(sql, parameters))
    ]


def _cohort(delivery: Delivery, run: RunQuery) -> tuple[str, list[str]]:
    """The column that names what is sent, and its values."""
    who = f"delivery {delivery.name!r}: its query"
    try:
        found = run(delivery.cohort or "")
    except QueryRefused:
        raise ConfigurationError(f"{who} cannot be run; try it with: imaging-pipeline sql QUERY") from None
    column = next((name for name in _COHORT_COLUMNS if name in found.column_names), None)
    if column is None:
        raise ConfigurationError(f"{who} must have one of the columns {', '.join(_COHORT_COLUMNS)}")
    return column, sorted({str(value) for value in pc.drop_null(found[column]).to_pylist()})
