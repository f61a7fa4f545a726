-- rule: patient_is_born_before_the_study
-- table: dicom_study
-- severity: WARN
-- schemas: silver
-- means: The study date lies before the patient's birth date.
-- do: One of the two dates is wrong; ages of this study are worth nothing until it is known which.
SELECT study_key
FROM {all.dicom_study} AS study JOIN {all.dicom_patient} AS patient ON patient.patient_key = study.patient_key
WHERE study_key IN ({touched.study_key}) AND study_date < patient_birth_date

-- rule: study_date_is_plausible
-- table: dicom_study
-- severity: WARN
-- schemas: silver
-- means: The study date lies before 1970 or after tomorrow.
-- do: Look at the clock of the device; leave the study out of anything that goes by date.
SELECT study_key FROM {all.dicom_study}
WHERE study_key IN ({touched.study_key}) AND (study_date < DATE '1970-01-01' OR study_date > current_date + 1)

-- rule: acquisition_is_near_the_study
-- table: dicom_instance
-- severity: WARN
-- schemas: silver
-- means: The images were acquired more than two days before or after the date of their study.
-- do: Often a phantom, a copy or a merged study; check that the images belong to the study.
SELECT instance_key, abs(date_diff('day', study_date, coalesce(acquisition_date, acquisition_datetime::DATE))) AS days
FROM {own.dicom_instance} AS instance
JOIN {all.dicom_series} AS series ON series.series_key = instance.series_key
JOIN {all.dicom_study} AS study ON study.study_key = series.study_key
WHERE abs(date_diff('day', study_date, coalesce(acquisition_date, acquisition_datetime::DATE))) > 2
