from __future__ import annotations

import pyarrow as pa
import pytest

from imaging_pipeline.deid.leakage import count_leaks
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake

BATCH = "2026-01-31.00001"


def silver(lake: Lake, table: str, **values: object) -> None:
    rows = registry.table(table).rows([values | {"arrival_batch": BATCH, "row_version": "1"}])
    with lake.transaction():
        lake.merge_batch("silver", table, rows, BATCH)


@pytest.fixture
def originals(identified: Lake) -> Lake:
    silver(
        identified,
        "dicom_patient",
        patient_key="k",
        patient_domain="d",
        patient_id="MRN-4711",
        patient_name="Doe^Jane",
    )
    silver(identified, "dicom_equipment", equipment_key="e", manufacturer="ACME", station_name="Intera")
    silver(
        identified,
        "dicom_study",
        study_key="s",
        patient_key="k",
        study_instance_uid="1.2.3.4.5",
        name_of_physicians_reading_study=["House^Greg"],
    )
    return identified


def found(lake: Lake, **values: object) -> dict[str, int]:
    columns = {name: pa.array([value]) for name, value in values.items()}
    return count_leaks(lake, {"dicom_equipment": pa.table(columns)}, BATCH)


def test_clean_rows_are_clean(originals: Lake) -> None:
    assert found(originals, manufacturer="ACME", station_name=None) == {}


@pytest.mark.parametrize("value", ["MRN-4711", "doe^jane", " 1.2.3.4.5 ", "House^Greg", "Intera"])
def test_an_identifier_in_a_changed_column_is_found(originals: Lake, value: str) -> None:
    assert found(originals, station_name=value) == {"dicom_equipment.station_name": 1}


@pytest.mark.parametrize("value", ["MRN-4711", "Doe^Jane"])
def test_an_identifier_in_a_kept_column_is_found_unless_it_stood_there(originals: Lake, value: str) -> None:
    assert found(originals, manufacturer_model_name=value) == {"dicom_equipment.manufacturer_model_name": 1}


def test_a_kept_value_that_is_also_somebodys_name_is_no_leak(identified: Lake) -> None:
    silver(
        identified,
        "dicom_equipment",
        equipment_key="e",
        manufacturer_model_name="Intera",
        station_name="Intera",
    )
    assert found(identified, manufacturer_model_name="Intera") == {}
    assert found(identified, station_name="Intera") == {"dicom_equipment.station_name": 1}
