-- What a search for studies must answer with (QIDO-RS, PS3.18 Table 10.6.3-3).
SELECT study_key, study_date, study_time, accession_number, 'ONLINE' AS instance_availability, modalities_in_study,
    referring_physician_name, timezone_offset_from_utc,
    '/studies/' || study_instance_uid AS retrieve_path,
    patient_name, patient_id, patient_birth_date, patient_sex, study_instance_uid, study_id,
    number_of_study_related_series, number_of_study_related_instances
FROM {schema}.dicom_study JOIN {schema}.dicom_patient USING (patient_key)
WHERE number_of_study_related_instances > 0
