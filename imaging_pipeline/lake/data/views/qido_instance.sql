-- What a search for instances must answer with (QIDO-RS, PS3.18 Table 10.6.3-5).
SELECT instance_key, study_instance_uid, series_instance_uid, sop_class_uid, sop_instance_uid,
    'ONLINE' AS instance_availability, instance.timezone_offset_from_utc,
    '/studies/' || study_instance_uid || '/series/' || series_instance_uid || '/instances/' || sop_instance_uid
        AS retrieve_path,
    instance_number, image_rows, image_columns, bits_allocated, instance.number_of_frames
FROM {schema}.dicom_instance AS instance
JOIN {schema}.dicom_series USING (series_key)
JOIN {schema}.dicom_study USING (study_key)
LEFT JOIN {schema}.dicom_image_pixel USING (instance_key)
WHERE version_state IS DISTINCT FROM 'DELETED'
