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
        lake.replace_batch("silver", table, rows, BATCH)


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


@pytest.mark.parametrize("name", ["DEIDENTIFIED", "Modified", "IMGPIPELINE_1"])
def test_a_patient_called_like_a_word_of_the_engine_holds_no_batch(identified: Lake, name: str) -> None:
    silver(identified, "dicom_patient", patient_key="k", patient_domain="d", patient_id="4711", patient_name=name)
    assert found(identified, device_serial_number=name.upper()) == {}


@pytest.mark.parametrize("name", ["CURRENT", "FILE", "research"])
def test_words_of_this_software_in_its_own_columns_are_no_leak(identified: Lake, name: str) -> None:
    silver(identified, "dicom_patient", patient_key="k", patient_domain="d", patient_id=name, patient_name="Doe^Jane")
    assert found(identified, role=name, storage_provider=name, patient_domain=name) == {}
    assert found(identified, patient_id=name) == {"dicom_equipment.patient_id": 1}


def test_a_kept_value_in_other_case_is_no_leak(identified: Lake) -> None:
    silver(identified, "dicom_equipment", equipment_key="e", manufacturer_model_name="intera", station_name="Intera")
    assert found(identified, manufacturer_model_name="INTERA") == {}


def test_an_unregistered_uid_below_the_standards_root_is_an_identifier(originals: Lake) -> None:
    silver(originals, "dicom_series", series_key="x", study_key="s", series_instance_uid="1.2.840.10008.77319.45")
    assert found(originals, station_name="1.2.840.10008.77319.45") == {"dicom_equipment.station_name": 1}
