"""Bronze rows of made-up objects, without files, and lakes in memory to put them in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import duckdb

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.silver import VersionPolicy, load_silver
from imaging_pipeline.objects.model import key_of
from imaging_pipeline.settings import LakeLocation

SEEN = datetime(2026, 1, 1)  # noqa: DTZ001 - the lake's times are naive UTC


@dataclass(frozen=True)
class Made:
    """One object: which instance it holds, with which content, and whether it is still there."""

    batch: str
    name: str
    uid: str
    content: str = "first"
    deleted: bool = False
    study: str = "1"
    patient: str = "P1"
    source: str = "north"
    station: str = "S1"
    modality: str = "CT"
    seen: datetime = SEEN

    @property
    def key(self) -> str:
        return key_of(self.batch, self.name)

    def header(self) -> str:
        values = {
            "00080016": ("UI", "1.2.840.10008.5.1.4.1.1.2"),
            "00080018": ("UI", self.uid),
            "00080060": ("CS", self.modality),
            "00081010": ("SH", self.station),
            "00100020": ("LO", self.patient),
            "0020000D": ("UI", f"2.25.{self.study}"),
            "0020000E": ("UI", f"2.25.{self.study}1"),
            "00280008": ("IS", 1 + len(self.content) % 3),
            "00280010": ("US", 4),
        }
        regions = [{"00186012": {"vr": "US", "Value": [1]}}] * (1 + ord(self.content[0]) % 3)
        request = {"00401001": {"vr": "SH", "Value": [self.station]}}
        nested = {
            "00186011": {"vr": "SQ", "Value": regions},
            "00290010": {"vr": "LO", "Value": ["MAKER"]},
            "00291001": {"vr": "LO", "Value": [self.content]},
            "00400275": {"vr": "SQ", "Value": [request] * (1 + ord(self.content[0]) % 2)},
        }
        header = {tag: {"vr": vr, "Value": [value]} for tag, (vr, value) in values.items()} | nested
        return json.dumps(dict(sorted(header.items())))


class _PlainLake(Lake):
    """One without DuckLake's catalog."""

    def written_tables(self) -> frozenset[str]:
        return frozenset(
            f"{schema}.{table.name}" for schema in registry.SCHEMA_LAKES for table in registry.tables_of(schema)
        )


@contextmanager
def memory_lake(name: str) -> Iterator[Lake]:
    """A plain DuckDB database in memory with the tables of a lake: fast enough for hundreds of loads."""
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH ':memory:' AS {name}")
        lake = _PlainLake(connection, LakeLocation(name, "postgres:none", "none"))
        for schema in (schema for schema, owner in registry.SCHEMA_LAKES.items() if owner == name):
            connection.execute(f"CREATE SCHEMA {name}.{schema}")
            for table in registry.tables_of(schema):
                if not table.is_view:
                    connection.execute(table.ddl(f"{name}.{schema}"))
        yield lake


def put(lake: Lake, batch: str, objects: Sequence[Made]) -> None:
    """Write the bronze rows of a batch as bronze leaves them."""
    catalog: list[dict[str, object]] = [
        {
            "object_key": made.key,
            "storage_uri": f"file:///{made.batch}/{made.name}",
            "object_version": "1",
            "length": 1000,
            "modification_time": SEEN,
            "sha256": hashlib.sha256(made.content.encode()).hexdigest(),
            "parse_status": "PARSED",
            "source_name": made.source,
            "first_seen_at": made.seen,
            "deleted_at": SEEN if made.deleted else None,
            "arrival_batch": batch,
        }
        for made in objects
    ]
    headers: list[dict[str, object]] = [
        {
            "object_key": made.key,
            "sop_instance_uid": made.uid,
            "header_json": made.header(),
            "has_pixel": True,
            "arrival_batch": batch,
        }
        for made in objects
    ]
    with lake.transaction():
        for table, rows in (("object_catalog", catalog), ("dicom_header", headers)):
            lake.replace_batch("bronze", table, registry.table(table).rows(rows), batch)


def load(lake: Lake, *objects: Made, policy: VersionPolicy = VersionPolicy.KEEP_LAST) -> None:
    """Bronze and silver of the batches of some objects, in the order in which they are first named."""
    for batch in dict.fromkeys(made.batch for made in objects):
        put(lake, batch, [made for made in objects if made.batch == batch])
        load_silver(lake, batch, policy)
