-- rule: uids_are_legal
-- table: dicom_instance
-- severity: WARN
-- schemas: silver deid
-- means: A Study, Series or SOP Instance UID breaks the rules of PS3.5 9.1 (digits and dots, 64 characters at most).
-- do: Ask the sender to correct its UIDs; other systems will refuse these images.
SELECT instance_key
FROM {own.dicom_instance} AS instance
JOIN {all.dicom_series} AS series ON series.series_key = instance.series_key
JOIN {all.dicom_study} AS study ON study.study_key = series.study_key
WHERE list_bool_or([NOT regexp_full_match(uid, '[0-9]+(\.(0|[1-9][0-9]*))+') OR len(uid) > 64
    FOR uid IN [sop_instance_uid, series_instance_uid, study_instance_uid]])

-- rule: uids_are_distinct
-- table: dicom_instance
-- severity: WARN
-- schemas: silver deid
-- means: One UID is used for two of study, series and instance; these must differ.
-- do: Ask the sender to correct it; do not trust which study or series these images are in.
SELECT instance_key
FROM {own.dicom_instance} AS instance
JOIN {all.dicom_series} AS series ON series.series_key = instance.series_key
JOIN {all.dicom_study} AS study ON study.study_key = series.study_key
WHERE sop_instance_uid IN (series_instance_uid, study_instance_uid) OR series_instance_uid = study_instance_uid

-- rule: one_patient_per_study
-- table: dicom_study
-- severity: WARN
-- schemas: silver deid
-- means: Images of one study name different patients.
-- do: Find out whose study it is before anybody reads it; the images that are wrong must be corrected at the source.
SELECT study_key, count(DISTINCT patient_key) AS patients
FROM {near.dicom_file_location}
WHERE role IN ('ORIGINAL', 'COPY', 'DEIDENTIFIED') AND study_key IN ({touched.study_key})
GROUP BY study_key HAVING count(DISTINCT patient_key) > 1

-- rule: patient_id_is_stated
-- table: dicom_patient
-- severity: WARN
-- schemas: silver
-- means: The images have no Patient ID (type 2), so each study counts as a patient of its own.
-- do: Nothing is lost, but these studies cannot be joined to others of the same person; ask the sender for the ID.
SELECT patient_key FROM {all.dicom_patient} WHERE starts_with(patient_id, 'NO_PID:') AND patient_key IN ({touched.patient_key})
