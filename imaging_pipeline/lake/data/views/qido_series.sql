-- What a search for series must answer with (QIDO-RS, PS3.18 Table 10.6.3-4).
WITH request AS (
    SELECT series_key, list(struct_pack(scheduled_procedure_step_id, requested_procedure_id) ORDER BY item_index)
        AS request_attributes_sequence
    FROM {schema}.dicom_request_attributes
    GROUP BY ALL
)
SELECT series_key, study_instance_uid, modality, timezone_offset_from_utc, series_description,
    '/studies/' || study_instance_uid || '/series/' || series_instance_uid AS retrieve_path,
    series_instance_uid, series_number, number_of_series_related_instances,
    performed_procedure_step_start_date, performed_procedure_step_start_time, request_attributes_sequence
FROM {schema}.dicom_series
JOIN {schema}.dicom_study USING (study_key)
LEFT JOIN {schema}.dicom_procedure_step USING (series_key)
LEFT JOIN request USING (series_key)
WHERE number_of_series_related_instances > 0
