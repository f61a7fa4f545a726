"""CT scans without a fault, as bronze keeps their headers, to be broken one fault at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.silver import load_silver
from imaging_pipeline.objects.model import key_of

SLICES = 6
STEP = 2.5
SEEN = datetime(2026, 1, 1)  # noqa: DTZ001 - the lake's times are naive UTC
PIXEL_BYTES = 2 * 16 * 16

Header = dict[str, dict[str, object]]
Change = Callable[[Header, int], object]
"""Changes the header of the slice with a number, from 0."""


def uid(study: int, number: int) -> str:
    return f"1.2.3.{study}.1.{number + 1}"


def key(study: int, number: int) -> str:
    return key_of(uid(study, number))


def header(study: int, number: int) -> Header:
    """The header of one slice; every attribute of type 1 and 2 has a value."""
    values: dict[str, tuple[str, list[object]]] = {
        "00080008": ("CS", ["ORIGINAL", "PRIMARY", "AXIAL"]),
        "00080016": ("UI", ["1.2.840.10008.5.1.4.1.1.2"]),
        "00080018": ("UI", [uid(study, number)]),
        "00080020": ("DA", ["20240105"]),
        "00080022": ("DA", ["20240106"]),
        "00080030": ("TM", ["101010"]),
        "00080050": ("SH", ["A1"]),
        "00080060": ("CS", ["CT"]),
        "00080070": ("LO", ["GE MEDICAL SYSTEMS"]),
        "00080090": ("PN", [{"Alphabetic": "Doctor"}]),
        "00100010": ("PN", [{"Alphabetic": "Somebody"}]),
        "00100020": ("LO", [f"P{study}"]),
        "00100030": ("DA", ["19600101"]),
        "00100040": ("CS", ["F"]),
        "00180050": ("DS", [STEP]),
        "00180060": ("DS", [120]),
        "0020000D": ("UI", [f"1.2.3.{study}"]),
        "0020000E": ("UI", [f"1.2.3.{study}.1"]),
        "00200010": ("SH", ["1"]),
        "00200011": ("IS", [1]),
        "00200012": ("IS", [1]),
        "00200013": ("IS", [number + 1]),
        "00200032": ("DS", [-100, -100, STEP * number]),
        "00200037": ("DS", [1, 0, 0, 0, 1, 0]),
        "00200052": ("UI", ["1.2.9"]),
        "00201002": ("IS", [SLICES]),
        "00201208": ("IS", [SLICES]),
        "00280002": ("US", [1]),
        "00280004": ("CS", ["MONOCHROME2"]),
        "00280010": ("US", [16]),
        "00280011": ("US", [16]),
        "00280030": ("DS", [0.5, 0.5]),
        "00280100": ("US", [16]),
        "00280101": ("US", [12]),
        "00280102": ("US", [11]),
        "00280103": ("US", [0]),
        "00281050": ("DS", [40]),
        "00281051": ("DS", [400]),
        "00281052": ("DS", [-1024]),
        "00281053": ("DS", [1]),
    }
    made: Header = {tag: {"vr": vr, "Value": value} for tag, (vr, value) in values.items()}
    return made | {"7FE00010": {"vr": "OW", "BulkDataURI": f"?offset=1000&length={PIXEL_BYTES}"}}


def scan(lake: Lake, batch: str, study: int = 1, change: Change | None = None, leave_out: Iterable[int] = ()) -> None:
    """Bronze and silver of one scan, in a batch of its own."""
    headers, catalog = [], []
    for number in range(SLICES):
        if number in leave_out:
            continue
        content = header(study, number)
        if change:
            change(content, number)
        object_key = key_of(batch, str(number))
        common = {"object_key": object_key, "arrival_batch": batch}
        headers.append(
            common
            | {
                "sop_instance_uid": str(content["00080018"]["Value"]),
                "header_json": json.dumps(dict(sorted(content.items()))),
                "has_pixel": True,
                "transfer_syntax_uid": "1.2.840.10008.1.2.1",
                "pixel_data_offset": 1000,
            }
        )
        catalog.append(
            common
            | {
                "storage_uri": f"file:///{batch}/{number}",
                "object_version": "1",
                "length": 2000,
                "modification_time": SEEN,
                "sha256": key_of(object_key, "content"),
                "parse_status": "PARSED",
                "source_name": "north",
                "first_seen_at": SEEN,
            }
        )
    with lake.transaction():
        for table, rows in (("object_catalog", catalog), ("dicom_header", headers)):
            lake.replace_batch("bronze", table, registry.table(table).rows(rows), batch)
    load_silver(lake, batch)


def setting(tag: str, *values: object, only: int | None = None) -> Change:
    """Gives an attribute other values, in all slices or in one."""

    def change(content: Header, number: int) -> None:
        if only in (None, number):
            content[tag] = {**content.get(tag, {"vr": "IS"}), "Value": list(values)}

    return change


def without(tag: str) -> Change:
    return lambda content, _: content.pop(tag)
