from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from imaging_pipeline.deid.leakage import count_leaks
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.settings import SITE_COLUMNS

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


def elements(lake: Lake, *rows: tuple[str, str, str]) -> dict[str, int]:
    names = ("tag_hex", "vr", "value_string")
    columns = {name: pa.array([row[place] for row in rows]) for place, name in enumerate(names)}
    return count_leaks(lake, {"dicom_element": pa.table(columns)}, BATCH)


def test_an_identifier_among_all_elements_is_found_also_as_one_of_several_values(originals: Lake) -> None:
    leaking = {"dicom_element.value_string": 2}
    assert elements(originals, ("00081030", "LO", "a\\mrn-4711"), ("00100010", "PN", "X=Doe^Jane")) == leaking
    assert elements(originals, ("00291001", "LO", "MRN-4711")) == {"dicom_element.value_string": 1}
    assert elements(originals, ("00081030", "LO", "MRN-4711 and more")) == {}


def test_a_shifted_date_or_time_that_looks_like_somebodys_number_is_no_leak(identified: Lake) -> None:
    silver(identified, "dicom_patient", patient_key="k", patient_domain="d", patient_id="20180926")
    assert elements(identified, ("00080020", "DA", "20180926"), ("00080030", "TM", "20180926")) == {}
    assert elements(identified, ("00081030", "LO", "20180926")) == {"dicom_element.value_string": 1}


def test_codes_of_the_method_are_no_leak(identified: Lake) -> None:
    silver(identified, "dicom_patient", patient_key="k", patient_domain="d", patient_id="113100")
    assert elements(identified, ("00080100", "SH", "113100")) == {}


def test_an_attribute_that_is_kept_may_say_among_all_elements_what_it_said(identified: Lake) -> None:
    silver(identified, "dicom_patient", patient_key="k", patient_domain="d", patient_id="PHANTOM")
    location = {"instance_key": "i", "object_key": "o", "uid_key": "u", "checksum_sha256": "0"}
    silver(identified, "dicom_file_location", location_key="l", **location)
    header = '{"00180015":{"vr":"CS","Value":["PHANTOM"]}}'
    row = {"object_key": "o", "header_json": header, "has_pixel": False, "arrival_batch": BATCH}
    with identified.transaction():
        identified.replace_batch("bronze", "dicom_header", registry.table("dicom_header").rows([row]), BATCH)
    assert elements(identified, ("00180015", "CS", "PHANTOM")) == {}
    assert elements(identified, ("00080060", "CS", "PHANTOM")) == {"dicom_element.value_string": 1}


def test_an_identifier_inside_a_code_or_a_document_is_found(originals: Lake) -> None:
    code = {"code_value": "1", "coding_scheme_designator": "99X", "coding_scheme_version": None}
    purpose = pa.array([code | {"code_meaning": "Doe^Jane"}])
    assert count_leaks(originals, {"dicom_reference": pa.table({"purpose_of_reference": purpose})}, BATCH) == {
        "dicom_reference.purpose_of_reference": 1
    }
    context = pa.array(['[{"00400A160":{"vr":"UT","Value":["MRN-4711"]}}]'])
    rows = {"dicom_mammography_acquisition": pa.table({"acquisition_context_sequence": context})}
    assert count_leaks(originals, rows, BATCH) == {"dicom_mammography_acquisition.acquisition_context_sequence": 1}


@pytest.mark.parametrize(
    "entry",
    [
        "{name: site_label, attribute: OperatorsName, type: VARCHAR, phi: none}",
        "{name: site_label, attribute: '(0029,xx01)[MAKER]', type: VARCHAR, phi: none}",
    ],
)
def test_a_column_of_the_site_is_looked_at_whatever_the_site_says_it_holds(
    originals: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    path = tmp_path / "columns.yaml"
    path.write_text(f"columns:\n- {entry.replace('{', '{table: dicom_series, ')}\n", encoding="utf-8")
    monkeypatch.setenv(SITE_COLUMNS, str(path))
    originals.connection.execute("ALTER TABLE silver.dicom_series ADD COLUMN site_label VARCHAR")
    silver(originals, "dicom_series", series_key="r", study_key="s", series_instance_uid="1.2.9", site_label="MRN-4711")
    rows = {"dicom_series": pa.table({"site_label": pa.array(["MRN-4711"])})}
    assert count_leaks(originals, rows, BATCH) == {"dicom_series.site_label": 1}
