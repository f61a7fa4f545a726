-- The worklist: studies that have images, with their patient, counts and state; what has vanished is not in it.
SELECT study_key, patient_key, patient_id, patient_name, patient_sex, patient_birth_date, patient_age_years,
    study.study_instance_uid, accession_number, study_date, study_time, study_description, referring_physician_name,
    modalities_in_study,
    number_of_study_related_series AS number_of_series,
    number_of_study_related_instances AS number_of_instances,
    study_size_bytes,
    coalesce(state, 'OPEN') AS state,
    last_arrival_at,
    patient_domain
FROM {schema}.dicom_study AS study
JOIN {schema}.dicom_patient USING (patient_key)
LEFT JOIN {schema}.study_state USING (study_key)
WHERE number_of_study_related_instances > 0
