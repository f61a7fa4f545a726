-- The modality dashboard: how much there is of each, and from when to when.
SELECT modality,
    count(DISTINCT patient_key) AS patients,
    count(DISTINCT study_key) AS studies,
    count(*) AS series,
    sum(number_of_series_related_instances)::BIGINT AS instances,
    sum(series_size_bytes)::BIGINT AS bytes,
    min(study_date) AS first_study_date,
    max(study_date) AS last_study_date
FROM {schema}.dicom_series JOIN {schema}.dicom_study USING (study_key)
WHERE number_of_series_related_instances > 0
GROUP BY modality
