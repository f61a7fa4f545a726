-- The catalog with flattened metadata: objects that are there, what is wrong with them, and which image they hold.
-- Its first columns are named as those of databricks.pixels' object_catalog.
WITH issue AS (
    SELECT object_key, list(DISTINCT issue_code ORDER BY issue_code) AS issue_codes,
        bool_or(severity = 'ERROR') AS has_error
    FROM bronze.ingest_issue
    GROUP BY ALL
)
SELECT catalog.object_key AS rowId,
    catalog.storage_uri AS path,
    catalog.modification_time AS modificationTime,
    catalog.length,
    catalog.relative_path,
    CASE WHEN catalog.storage_provider = 'file' AND starts_with(catalog.storage_uri, 'file:///')
        THEN url_decode(substr(catalog.storage_uri, 8)) END AS local_path,
    catalog.extension,
    list_filter(regexp_split_to_array(url_decode(catalog.relative_path), '[^0-9A-Za-z]+'), word -> word <> '')
        AS path_tags,
    header.header_json AS meta,
    catalog.is_anon,
    catalog.source_name, catalog.first_seen_at, catalog.parse_status, coalesce(issue_codes, []) AS issue_codes,
    coalesce(has_error, false) AS has_error, location.role,
    patient.patient_id, patient_name, patient_sex, patient_birth_date,
    study.study_instance_uid, accession_number, study_date, study_description, modalities_in_study,
    series.series_instance_uid, modality, series_number, series_description, body_part_examined, protocol_name,
    instance.sop_instance_uid, instance.sop_class_uid, sop_class_name, instance_number, image_type,
    image_rows, image_columns, instance.number_of_frames, photometric_interpretation, instance.transfer_syntax_uid,
    manufacturer, manufacturer_model_name, station_name,
    instance.instance_key, series.series_key, study.study_key, patient.patient_key
FROM bronze.object_catalog AS catalog
LEFT JOIN bronze.dicom_header AS header ON header.object_key = catalog.object_key
LEFT JOIN issue ON issue.object_key = catalog.object_key
LEFT JOIN {schema}.dicom_file_location AS location ON location.object_key = catalog.object_key
LEFT JOIN {schema}.dicom_instance AS instance ON instance.instance_key = location.instance_key
LEFT JOIN {schema}.dicom_image_pixel AS pixel ON pixel.instance_key = instance.instance_key
LEFT JOIN {schema}.dicom_series AS series ON series.series_key = instance.series_key
LEFT JOIN {schema}.dicom_study AS study ON study.study_key = series.study_key
LEFT JOIN {schema}.dicom_patient AS patient ON patient.patient_key = study.patient_key
LEFT JOIN {schema}.dicom_equipment AS equipment ON equipment.equipment_key = location.equipment_key
WHERE catalog.deleted_at IS NULL
