-- One row per series under the column names of the Imaging Data Commons' index (Python package idc-index).
WITH device AS (
    SELECT series_key, min(equipment_key) AS equipment_key
    FROM {schema}.series_equipment WHERE purpose_of_reference = 'ACQUISITION'
    GROUP BY ALL
)
SELECT series_key,
    patient_id AS PatientID,
    study_instance_uid AS StudyInstanceUID,
    series_instance_uid AS SeriesInstanceUID,
    patient_age AS PatientAge,
    patient_sex AS PatientSex,
    study_date AS StudyDate,
    study_description AS StudyDescription,
    body_part_examined AS BodyPartExamined,
    modality AS Modality,
    manufacturer AS Manufacturer,
    manufacturer_model_name AS ManufacturerModelName,
    series_date AS SeriesDate,
    series_description AS SeriesDescription,
    series_number AS SeriesNumber,
    sop_class_uids[1] AS SOPClassUID,
    transfer_syntax_uids[1] AS TransferSyntaxUID,
    number_of_series_related_instances AS instanceCount,
    series_size_bytes / 1e6 AS series_size_MB
FROM {schema}.dicom_series
JOIN {schema}.dicom_study USING (study_key)
JOIN {schema}.dicom_patient USING (patient_key)
LEFT JOIN device USING (series_key)
LEFT JOIN {schema}.dicom_equipment USING (equipment_key)
WHERE number_of_series_related_instances > 0
