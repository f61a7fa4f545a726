"""Headers of served instances: from bronze where it has them, else from the first bytes of their objects."""

from __future__ import annotations

from collections.abc import Sequence

from imaging_pipeline.dicom.header import read_header
from imaging_pipeline.web.index.model import Instance
from imaging_pipeline.web.zone import Zone, ZoneName

FIRST_BYTES = 65_536
"""Most headers are shorter; a longer one is read further."""


def read_headers(zone: Zone, instances: Sequence[Instance]) -> dict[str, str]:
    """Headers as documents of the DICOM JSON Model, by instance key.

    Raises:
        PoisonInput: an object is gone, or is no DICOM any more.
    """
    stored = _stored(zone, instances) if zone.name is ZoneName.CLINICAL else {}
    return {one.instance_key: stored.get(one.object_key) or _from_object(zone, one) for one in instances}


def _stored(zone: Zone, instances: Sequence[Instance]) -> dict[str, str]:
    """What bronze keeps; objects that this software has made are not there."""
    with zone.open_lake() as lake:
        rows = lake.rows(
            """SELECT object_key, header_json::VARCHAR FROM bronze.dicom_header
            WHERE object_key IN (SELECT unnest(?)) AND arrival_batch IN (SELECT unnest(?))""",
            [[one.object_key for one in instances], sorted({one.arrival_batch for one in instances})],
        )
    return {str(key): str(document) for key, document in rows}


def _from_object(zone: Zone, instance: Instance) -> str:
    with zone.reader.open_ranges(instance.target) as ranges:
        first = ranges.read_at(0, min(FIRST_BYTES, ranges.size))
        return read_header(first, size=ranges.size, more=lambda n: ranges.read_at(0, min(n, ranges.size))).json
