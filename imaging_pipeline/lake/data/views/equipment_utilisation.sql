-- What each device did: examinations, images, days in use. A study made on two devices counts for both.
SELECT equipment_key, modality,
    any_value(coalesce(manufacturer_normalized, manufacturer)) AS manufacturer,
    any_value(manufacturer_model_name) AS manufacturer_model_name,
    any_value(device_serial_number) AS device_serial_number,
    any_value(station_name) AS station_name,
    any_value(institution_name) AS institution_name,
    count(DISTINCT patient_key) AS patients,
    count(DISTINCT study_key) AS exams,
    count(*) AS series,
    sum(number_of_series_related_instances)::BIGINT AS instances,
    sum(series_size_bytes)::BIGINT AS bytes,
    min(study_date) AS first_study_date,
    max(study_date) AS last_study_date,
    count(DISTINCT study_date) AS days_in_use,
    count(DISTINCT study_key) FILTER (study_date IS NOT NULL) / nullif(count(DISTINCT study_date), 0)
        AS exams_per_day_in_use
FROM {schema}.series_equipment
JOIN {schema}.dicom_equipment USING (equipment_key)
JOIN {schema}.dicom_series USING (series_key)
JOIN {schema}.dicom_study USING (study_key)
WHERE purpose_of_reference = 'ACQUISITION' AND number_of_series_related_instances > 0
GROUP BY equipment_key, modality
