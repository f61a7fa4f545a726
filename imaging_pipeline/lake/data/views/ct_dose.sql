-- CT dose: of each series as its headers state it, and of each study as its dose reports do, with who, what and where.
WITH dose AS (
    SELECT study_key, coalesce(summary.series_key, report.series_key) AS made_in, summary.*
        EXCLUDE (study_key)
    FROM {schema}.dicom_dose_summary AS summary
    LEFT JOIN {schema}.dicom_instance AS report ON report.instance_key = summary.sr_instance_key
    WHERE dose_length_product IS NOT NULL OR ctdi_vol IS NOT NULL
), device AS (
    SELECT series_key AS made_in, min(equipment_key) AS equipment_key
    FROM {schema}.series_equipment WHERE purpose_of_reference = 'ACQUISITION'
    GROUP BY ALL
)
SELECT study_key, dose.series_key, patient_key, patient_sex, patient_age_years,
    study_instance_uid, CASE WHEN dose.series_key IS NOT NULL THEN series_instance_uid END AS series_instance_uid,
    study_date, study_description, series_description, dose.protocol_name, body_part_examined,
    coalesce(manufacturer_normalized, manufacturer) AS manufacturer, manufacturer_model_name, station_name,
    dose_source, sr_instance_key, ctdi_vol, dose_length_product, dose.kvp, dose.x_ray_tube_current, dose.exposure_time, dose.exposure,
    irradiation_event_count, instance_count
FROM dose
JOIN {schema}.dicom_study USING (study_key)
JOIN {schema}.dicom_patient USING (patient_key)
JOIN {schema}.dicom_series AS series ON series.series_key = dose.made_in
LEFT JOIN device USING (made_in)
LEFT JOIN {schema}.dicom_equipment USING (equipment_key)
