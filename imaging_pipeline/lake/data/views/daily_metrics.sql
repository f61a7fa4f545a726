-- What was done on each day, by study date and modality; an examination is a study.
SELECT study_date, modality,
    count(DISTINCT patient_key) AS patients,
    count(DISTINCT study_key) AS exams,
    count(*) AS series,
    sum(number_of_series_related_instances)::BIGINT AS instances,
    sum(series_size_bytes)::BIGINT AS bytes
FROM {schema}.dicom_series JOIN {schema}.dicom_study USING (study_key)
WHERE number_of_series_related_instances > 0
GROUP BY study_date, modality
