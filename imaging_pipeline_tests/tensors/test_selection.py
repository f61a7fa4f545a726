"""Conditions of recipes: what may be asked of the research lake, and what may not."""

from __future__ import annotations

import pytest

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.tensors.selection import check_condition


@pytest.mark.parametrize(
    "condition",
    [
        "patient_sex = 'F' AND kvp > 100",
        "image_type[3] LIKE 'AX%' -- axial",
        "instance_key IN (SELECT instance_key FROM deid.dicom_ct_acquisition WHERE kvp BETWEEN 80 AND 120)",
        "EXISTS (SELECT * FROM deid.dicom_series AS other WHERE other.study_key = dicom_study.study_key)",
        "(SELECT count(*) FROM deid.dicom_series) > 3",
        "list_contains(image_type, 'LOCALIZER') IS NOT TRUE",
        "len(list_filter(image_type, kind -> kind = 'AXIAL')) > 0",
        "study_date >= DATE '2020-01-01' AND extract(year FROM study_date) < 2030",
        "CASE WHEN patient_sex IS NULL THEN false ELSE upper(trim(patient_sex)) IN ('F', 'M') END",
        "TRY_CAST(patient_id AS INTEGER) > 3 AND regexp_matches(study_description, 'chest')",
        "list_has_any(image_type, ['AXIAL'])",
    ],
)
def test_questions_about_images_are_let_through(condition: str) -> None:
    check_condition(condition)


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("true) , (false", "one condition"),
        ("true) FROM deid.dicom_series WHERE (true", "one condition"),
        ("true) UNION SELECT (false", "one condition"),
        ("*", "one condition"),
        ("COLUMNS(*)", "one condition"),
        ("true); DROP TABLE deid.dicom_series; SELECT (true", "SELECT"),
        ("nonsense(", "syntax"),
        ("k IN (SELECT k FROM 'labels.csv')", "labels.csv"),
        ("k IN (SELECT content FROM read_text('/etc/passwd'))", "read_text"),
        ("k IN (SELECT value FROM duckdb_settings())", "duckdb_settings"),
        ("k IN (FROM query('SELECT 1'))", "query"),
        ("k IN (SHOW TABLES)", "show"),
        ("k IN (SELECT k FROM silver.dicom_patient)", "silver.dicom_patient"),
        ("k IN (SELECT k FROM deid.dicom_series UNION SELECT k FROM silver.dicom_series)", "silver.dicom_series"),
        ("k IN (SELECT k FROM identified.deid.dicom_patient)", "identified"),
        ("k IN (SELECT k FROM gold.label)", "gold.label"),
        ("k IN (SELECT k FROM deid.dicom_patient AT (VERSION => 3))", "snapshots"),
        ("getenv('HOME') = 'x'", "getenv"),
        ("current_setting('threads') = '2'", "current_setting"),
        ("random() > 0.5", "random"),
        ("study_date > now()", "now"),
        ("study_date > current_date", "current_date"),
        ("study_date > current_timestamp", "current_timestamp"),
        ("sleep_ms(1000) IS NULL", "sleep_ms"),
        ("kvp > ?", "parameter"),
        ("kvp > $kvp", "parameter"),
        ("row_number() OVER () < 3", "window"),
    ],
)
def test_what_is_no_question_about_images_is_refused_by_name(condition: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        check_condition(condition)


def test_others_may_allow_more_schemas_under_their_own_name() -> None:
    check_condition("k IN (SELECT subject_key FROM gold.label)", key="dataset: cohort", schemas=("deid", "gold"))
    with pytest.raises(ConfigurationError, match=r"dataset: cohort: .* deid.NAME or gold.NAME"):
        check_condition("k IN (SELECT k FROM bronze.label)", key="dataset: cohort", schemas=("deid", "gold"))
