from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.promotion import fill_columns
from imaging_pipeline.metadata.silver import VersionPolicy, load_silver, stored_headers
from imaging_pipeline.settings import SITE_COLUMNS
from imaging_pipeline_tests.metadata.headers import Made, load, memory_lake

COLUMNS = """
columns:
- {table: dicom_instance, name: maker_note, attribute: "(0029,xx01)[MAKER]", type: VARCHAR, phi: text}
- {table: dicom_series, name: first_region_format, attribute: SequenceOfUltrasoundRegions.RegionSpatialFormat,
   type: INTEGER, phi: none}
- {table: dicom_us_region, name: region_format_text, attribute: RegionSpatialFormat, type: VARCHAR, phi: none}
"""

OBJECTS = (Made("b1", "one", "1.2"), Made("b1", "two", "1.3", content="other"), Made("b2", "three", "1.4", content="x"))


@pytest.fixture
def lake() -> Iterator[Lake]:
    with memory_lake("identified") as found:
        yield found


def declare(lake: Lake, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell the registry of the columns, as at the start of another process, and add them to the lake."""
    path = folder / "columns.yaml"
    path.write_text(COLUMNS, encoding="utf-8")
    monkeypatch.setenv(SITE_COLUMNS, str(path))
    for table in registry.tables_of("silver"):
        for column in table.columns if not table.is_view else ():
            lake.connection.execute(
                f'ALTER TABLE identified.silver.{table.name} ADD COLUMN IF NOT EXISTS "{column.name}" {column.sql_type}'
            )


def fill(lake: Lake) -> None:
    for batch in ("b1", "b2"):
        fill_columns(lake, "silver", batch, list(stored_headers(lake, batch)))


def contents(lake: Lake) -> list[list[tuple[object, ...]]]:
    return [
        lake.rows("SELECT sop_instance_uid, maker_note FROM silver.dicom_instance ORDER BY ALL"),
        lake.rows("SELECT series_instance_uid, first_region_format FROM silver.dicom_series ORDER BY ALL"),
        lake.rows("SELECT instance_key, region_index, region_format_text FROM silver.dicom_us_region ORDER BY ALL"),
    ]


def test_private_and_nested_attributes_are_filled_from_stored_headers(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(lake, *OBJECTS)
    declare(lake, tmp_path, monkeypatch)
    assert {note for _, note in contents(lake)[0]} == {None}
    fill(lake)
    instances, series, regions = contents(lake)
    assert instances == [("1.2", "first"), ("1.3", "other"), ("1.4", "x")]
    assert [value for _, value in series] == [1]
    assert {value for *_, value in regions} == {"1"}


def test_filling_gives_what_loading_gives(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(lake, *OBJECTS)
    declare(lake, tmp_path, monkeypatch)
    fill(lake)
    filled = contents(lake)
    for batch in ("b1", "b2"):
        load_silver(lake, batch)
    assert contents(lake) == filled


def test_filling_again_changes_nothing(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(lake, *OBJECTS)
    declare(lake, tmp_path, monkeypatch)
    fill(lake)
    before = contents(lake)
    fill(lake)
    assert contents(lake) == before


def test_each_of_two_contents_of_a_uid_gets_its_own_value(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Made("b1", "one", "1.2", content="first")
    load(lake, one, replace(one, batch="b2", name="other", content="second"), policy=VersionPolicy.KEEP_BOTH)
    declare(lake, tmp_path, monkeypatch)
    fill(lake)
    assert contents(lake)[0] == [("1.2", "first"), ("1.2", "second")]


def test_the_creator_decides_which_private_block_is_meant(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Moved(Made):
        def header(self) -> str:
            header = json.loads(super().header())
            header["00290010"]["Value"] = ["SOMEBODY ELSE"]
            header["00290011"] = {"vr": "LO", "Value": ["maker "]}
            header["00291101"] = {"vr": "LO", "Value": ["in block 11"]}
            return json.dumps(header)

    load(lake, Moved("b1", "one", "1.2"))
    declare(lake, tmp_path, monkeypatch)
    fill(lake)
    assert contents(lake)[0] == [("1.2", "in block 11")]
